//! Records on their way to the disk, and what waits for them.

use super::outbox::Send;
use kvorum_engine::Sequence;
use kvorum_sync::{OpId, RecordId};
use std::collections::VecDeque;

/// A record that the store has taken, or is about to.
#[derive(Debug)]
struct UnderWay {
    id: RecordId,
    /// None: it stands in a batch that others are still adding to.
    sequence: Option<Sequence>,
    /// The checkpoint that it carries.
    checkpoint: Option<OpId>,
}

/// As many as the core's window bounds.
#[derive(Debug, Default)]
pub(super) struct Records {
    under_way: VecDeque<UnderWay>,
    held: VecDeque<(RecordId, Send)>,
    durable: RecordId,
}

impl Records {
    pub(super) fn add(&mut self, id: RecordId, sequence: Option<Sequence>, checkpoint: Option<OpId>) {
        self.under_way.push_back(UnderWay { id, sequence, checkpoint });
    }

    /// The batch with the open records was taken.
    pub(super) fn stored(&mut self, sequence: Sequence) {
        for record in self.under_way.iter_mut().rev().take_while(|record| record.sequence.is_none()) {
            record.sequence = Some(sequence);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.under_way.back().is_some_and(|record| record.sequence.is_none())
    }

    /// Up to where records are durable now, and the highest checkpoint among those that became so.
    pub(super) fn advance(&mut self, synced: Sequence) -> Option<(RecordId, Option<OpId>)> {
        let mut checkpoint = None;
        let mut upto = None;
        while let Some(first) = self.under_way.front()
            && first.sequence.is_some_and(|sequence| sequence <= synced)
        {
            upto = Some(first.id);
            checkpoint = checkpoint.max(first.checkpoint);
            self.under_way.pop_front();
        }
        let upto = upto?;
        self.durable = upto;
        Some((upto, checkpoint))
    }

    pub(super) fn is_durable(&self, id: RecordId) -> bool {
        id <= self.durable
    }

    /// The last sequence under way.
    pub(super) fn last(&self) -> Option<Sequence> {
        self.under_way.iter().rev().find_map(|record| record.sequence)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    pub(super) fn hold(&mut self, behind: RecordId, send: Send) {
        self.held.push_back((behind, send));
    }

    /// Takes out what waited for records that are durable by now.
    pub(super) fn released(&mut self, out: &mut Vec<Send>) {
        let durable = self.durable;
        let held = std::mem::take(&mut self.held);
        for (behind, send) in held {
            if behind <= durable { out.push(send) } else { self.held.push_back((behind, send)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::wire::ShardMessage;
    use kvorum_sync::{Epoch, Lane, Message, StoreId};

    fn send(round: u64) -> Send {
        let message = ShardMessage::of(Message::Ping { epoch: Epoch::ZERO, round });
        Send { to: StoreId(1), lane: Lane::Control, message }
    }

    #[test]
    fn what_waits_goes_out_with_its_record_and_no_earlier() {
        let mut records = Records::default();
        records.add(RecordId(1), Some(10), None);
        records.add(RecordId(2), Some(12), Some(OpId::from_version(5)));
        records.add(RecordId(3), None, None);
        records.hold(RecordId(2), send(2));
        records.hold(RecordId(1), send(1));
        assert_eq!(records.advance(9), None);
        assert_eq!(records.advance(11), Some((RecordId(1), None)));
        let mut out = Vec::new();
        records.released(&mut out);
        assert_eq!(out, [send(1)]);
        assert_eq!(records.advance(99), Some((RecordId(2), Some(OpId::from_version(5)))));
        records.released(&mut out);
        assert_eq!(out, [send(1), send(2)]);
        assert!(records.is_open() && records.advance(99).is_none(), "its batch is not written yet");
        records.stored(100);
        assert_eq!(records.advance(100), Some((RecordId(3), None)));
        assert!(records.is_empty() && records.is_durable(RecordId(3)));
    }
}
