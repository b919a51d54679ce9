//! The member: what it consists of, and its steps.

use super::carry::Beside;
use super::config::MemberConfig;
use super::durable::Records;
use super::floors::Floors;
use super::held::Watcher;
use super::note;
use super::outbox::{Done, MemberInput, Outbox};
use super::recent::Recent;
use super::row::Row;
use super::rows::Rows;
use super::transfer::{Receiver, Sources, check_piece};
use super::wire::ShardMessage;
use super::writes::Payload;
use crate::latch::ShardId;
use bytes::Bytes;
use kvorum_engine::fs::Fs;
use kvorum_engine::{Batch, Sequence, Store, Tree};
use kvorum_sync::{
    Effects, Input, Lane, Message, Moment, OpId, Record, RecordId, Refusal, Replica, StoreId, Token,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// One member of one shard's group. Used under the shard's latch.
pub struct Member {
    pub(super) store: Store,
    pub(super) fs: Arc<dyn Fs>,
    pub(super) rows: Rows,
    pub(super) shard: ShardId,
    pub(super) tree: Tree,
    pub(super) config: MemberConfig,
    pub(super) replica: Replica,
    pub(super) row: Row,
    pub(super) records: Records,
    /// Records that wait for the tree of a rebuilt member.
    pub(super) waiting: VecDeque<(RecordId, Record, Payload)>,
    /// The notes of the items above the checkpoint, so that they can be taken back without the disk.
    pub(super) tail: BTreeMap<OpId, Bytes>,
    pub(super) recent: Recent,
    /// Clears of this leader that are not known to be committed.
    pub(super) clears: BTreeSet<OpId>,
    /// Where the last batch of this shard stands in the log.
    pub(super) last_write: Sequence,
    /// Who waits for which item.
    pub(super) clients: BTreeMap<OpId, Token>,
    /// Who waits until members hold an item. As many as tokens at most.
    pub(super) watchers: Vec<Watcher>,
    /// The proposal in hand, and why it was refused.
    pub(super) proposing: Option<Token>,
    pub(super) refused: Option<Refusal>,
    /// The batch of the proposals in hand.
    pub(super) draft: Option<Batch>,
    /// A proposal was refused for the bytes in flight.
    pub(super) wants_bytes: bool,
    pub(super) sources: Sources,
    pub(super) receiver: Receiver,
    /// Writes to be repeated whose values are not in memory; and whether a job is reading some.
    pub(super) repeats: Vec<(StoreId, Lane, Message)>,
    pub(super) repeating: bool,
    pub(super) floors: Floors,
    /// Since when a record waits for others to become durable with.
    pub(super) lazy_since: Option<Moment>,
    pub(super) halted: Option<kvorum_engine::Error>,
    pub(super) again: VecDeque<(Input, Beside)>,
    /// Kept for its memory.
    pub(super) effects: Effects,
}

impl Member {
    /// Takes one input; what the member wants is added to `out`. Waits for nothing.
    pub fn step(&mut self, now: Moment, input: MemberInput, out: &mut Outbox) {
        if self.halted.is_some() {
            return;
        }
        debug_assert!(!self.records.is_open(), "a batch with proposals was neither stored nor lost");
        match input {
            MemberInput::Message { from, message } => self.message(now, from, message, out),
            MemberInput::Tick => {
                self.feed(now, Input::Tick, Beside::Nothing, out);
                self.hurry_records(now, out);
            }
            MemberInput::Durable(sequence) => self.durable(now, sequence, out),
            MemberInput::Nominate { epoch, membership } => {
                self.feed(now, Input::Nominate { epoch, membership }, Beside::Nothing, out);
            }
            MemberInput::Learners(learners) => {
                self.feed(now, Input::Learners(learners), Beside::Nothing, out);
            }
            MemberInput::Peer { store, reachable } => {
                self.feed(now, Input::Peer { store, reachable }, Beside::Nothing, out);
            }
            MemberInput::FollowerRead { token, what, labelled } => {
                self.feed(now, Input::FollowerRead { token, what, labelled }, Beside::Nothing, out);
            }
            MemberInput::JobDone(done) => self.job_done(now, *done, out),
            MemberInput::StepDown(why) => self.feed(now, Input::StepDown(why), Beside::Nothing, out),
        }
        self.start_jobs(out);
    }

    fn message(&mut self, now: Moment, from: StoreId, message: ShardMessage, out: &mut Outbox) {
        let ShardMessage { mut message, payload } = message;
        let beside = match &mut message {
            Message::Write { item, .. } => {
                // What has no room is sent again; nothing is acknowledged that is not stored.
                if self.store.admission().is_err() {
                    return;
                }
                let Ok(payload) = Payload::parse(payload) else {
                    tracing::warn!(%from, op = %item.op, "an item's writes make no sense: dropped");
                    return;
                };
                // Over what is stored, not what was told: else the comparison of digests would compare nothing.
                if !payload.is_read_back() {
                    item.digest = payload.digest(item.op);
                }
                item.keys = payload.keys().clone();
                Beside::Writes(payload)
            }
            Message::Piece(piece) => {
                // Once the core has taken a piece nobody sends it again.
                if let Err(expected) = check_piece(piece.way, &payload) {
                    tracing::warn!(%from, expected, "a piece of a transfer makes no sense: dropped");
                    return;
                }
                Beside::Piece(payload)
            }
            _ => Beside::Nothing,
        };
        self.feed(now, Input::Message { from, message }, beside, out);
    }

    /// Gives the core an input, carries out what it wants, and gives it what follows from that.
    pub(super) fn feed(&mut self, now: Moment, input: Input, beside: Beside, out: &mut Outbox) {
        self.again.push_back((input, beside));
        while let Some((input, beside)) = self.again.pop_front() {
            let mut effects = std::mem::take(&mut self.effects);
            self.replica.step(now, input, &mut effects);
            for effect in effects.drain() {
                if self.halted.is_none() {
                    self.carry_out(now, effect, &beside, out);
                }
            }
            self.effects = effects;
        }
        self.after_feeding(now, out);
    }

    fn after_feeding(&mut self, now: Moment, out: &mut Outbox) {
        let point = self.replica.commit_point();
        self.recent.committed(point, self.config.recent_bytes);
        if self.wants_bytes && self.recent.flight_bytes() < self.config.window_bytes {
            self.wants_bytes = false;
            out.room = true;
        }
        self.tell_watchers(now, out);
    }

    /// The store made everything up to the sequence durable.
    fn durable(&mut self, now: Moment, sequence: u64, out: &mut Outbox) {
        let Some((upto, checkpoint)) = self.records.advance(sequence) else { return };
        if let Some(checkpoint) = checkpoint {
            self.floors.checkpoint_durable(checkpoint, self.row.checkpoint.time);
        }
        self.receiver.durable(sequence);
        self.records.released(&mut out.sends);
        if self.records.is_empty() {
            self.lazy_since = None;
        }
        self.feed(now, Input::Persisted { upto }, Beside::Nothing, out);
    }

    /// Records that could wait have waited long enough.
    fn hurry_records(&mut self, now: Moment, out: &mut Outbox) {
        if let (Some(since), Some(last)) = (self.lazy_since, self.records.last())
            && now.micros_since(since) >= self.config.lazy_micros
        {
            self.lazy_since = None;
            out.must_be_durable(last);
        }
    }

    /// Stands still from here on.
    pub(super) fn halt(&mut self, error: kvorum_engine::Error, out: &mut Outbox) {
        let (namespace, place) = (self.shard.namespace, self.shard.place);
        tracing::warn!(namespace, place, %error, "the store refused a record: the shard's member stands still");
        self.give_up(out);
        self.again.clear();
        out.sends.clear();
        self.halted = Some(error.clone());
        out.halted = Some(error);
    }

    /// Answers all who wait, because this member won't.
    pub fn give_up(&mut self, out: &mut Outbox) {
        for (_, token) in std::mem::take(&mut self.clients) {
            out.done.push((token, Done::Unknown));
        }
        let watchers = std::mem::take(&mut self.watchers);
        let readers = watchers.iter().map(Watcher::token).chain(self.replica.drain_reads());
        out.done.extend(readers.map(|token| (token, Done::Again)));
    }

    /// Forgets what is at or below the checkpoint.
    pub(super) fn show(&mut self, checkpoint: OpId, out: &mut Outbox) {
        self.tail = self.tail.split_off(&checkpoint);
        self.tail.remove(&checkpoint);
        out.visible = out.visible.max(Some(checkpoint));
    }

    /// The note of an item above the checkpoint.
    pub(super) fn note_of(&self, op: OpId) -> Option<note::Note> {
        self.tail.get(&op).and_then(|bytes| note::decode(op, bytes).ok())
    }
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").field("shard", &self.shard).field("row", &self.row).finish_non_exhaustive()
    }
}
