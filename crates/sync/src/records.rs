//! Records handed out and not yet durable.

use std::collections::VecDeque;

use crate::types::{OpId, RecordId};

/// What to do when a record is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pending {
    Item(OpId),
    Promise,
    /// With the checkpoint that it sets.
    Adoption(OpId),
    Checkpoint(OpId),
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Records {
    last: u64,
    durable: u64,
    queue: VecDeque<(u64, Pending)>,
}

impl Records {
    pub(crate) fn next(&mut self, pending: Pending) -> RecordId {
        self.last += 1;
        self.queue.push_back((self.last, pending));
        RecordId(self.last)
    }

    /// The last record handed out: a barrier behind everything so far.
    pub(crate) fn last(&self) -> RecordId {
        RecordId(self.last)
    }

    pub(crate) fn take(&mut self, upto: RecordId) -> Option<Pending> {
        match self.queue.front() {
            Some((id, pending)) if *id <= upto.0 => {
                let pending = *pending;
                self.durable = *id;
                self.queue.pop_front();
                Some(pending)
            }
            _ => None,
        }
    }

    pub(crate) fn is_durable(&self, id: RecordId) -> bool {
        id.0 <= self.durable
    }

    pub(crate) fn all_durable(&self) -> bool {
        self.queue.is_empty()
    }
}
