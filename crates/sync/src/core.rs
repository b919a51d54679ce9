//! What a replica has in every role.

use std::collections::VecDeque;

use crate::config::Config;
use crate::durable::{Durable, Record};
use crate::effect::{After, Ask, Durability, Effect, Effects, Lane};
use crate::log::Log;
use crate::message::{Message, Way};
use crate::planted::Rule;
use crate::records::{Pending, Records};
use crate::types::{Checkpoint, Digest, Epoch, Moment, OpId, Promise, RecordId, Standing, StoreId};

/// Commit points whose digest is remembered until the own checkpoint gets there.
const POINTS_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Core {
    pub(crate) id: StoreId,
    pub(crate) nonce: u64,
    pub(crate) config: Config,
    pub(crate) promise: Promise,
    pub(crate) promise_record: RecordId,
    /// Whom this member followed before.
    pub(crate) former_manager: StoreId,
    pub(crate) adopted_record: RecordId,
    pub(crate) standing: Standing,
    pub(crate) log: Log,
    pub(crate) records: Records,
    /// The highest commit point heard in the adopted reign.
    pub(crate) announced: OpId,
    /// Commit points with the leader's digest, waiting for the own checkpoint.
    points: VecDeque<(OpId, Digest)>,
    /// The digest of the own log at the last told point that it reached.
    reached: VecDeque<(OpId, Digest)>,
    /// The checkpoint last handed out for storing, and when a tick did that.
    pub(crate) stored_checkpoint: OpId,
    stored_at: Moment,
    /// The checkpoint last known to be durable.
    pub(crate) durable_checkpoint: OpId,
    pub(crate) floor: OpId,
    pub(crate) gc_floor: OpId,
    /// Until when higher promises are refused.
    pub(crate) bound_until: Moment,
    asked: Option<Moment>,
    pub(crate) transfers: u64,
}

impl Core {
    pub(crate) fn recover(id: StoreId, nonce: u64, config: Config, durable: &Durable, now: Moment) -> Core {
        let bound_until = match config.lease_micros {
            Some(lease) if config.holds(Rule::LeaseOutlivesRestart) => now.after_micros(lease),
            _ => Moment::default(),
        };
        let log = Log::recover(durable);
        Core {
            id,
            nonce,
            config,
            promise: durable.promise,
            promise_record: RecordId(0),
            former_manager: durable.promise.manager,
            adopted_record: RecordId(0),
            standing: durable.standing,
            announced: log.checkpoint.op,
            stored_checkpoint: log.checkpoint.op,
            stored_at: Moment::default(),
            durable_checkpoint: log.checkpoint.op,
            log,
            records: Records::default(),
            points: VecDeque::new(),
            reached: VecDeque::new(),
            floor: OpId::ZERO,
            gc_floor: OpId::ZERO,
            bound_until,
            asked: None,
            transfers: 0,
        }
    }

    /// Whether this member's word counts.
    pub(crate) fn counts(&self) -> bool {
        self.standing == Standing::Whole || !self.config.holds(Rule::RebuildingCountsNot)
    }

    /// Whether the member stands in the reign that it follows.
    pub(crate) fn in_reign(&self, epoch: Epoch) -> bool {
        self.promise.epoch == epoch && self.log.epoch == epoch
    }

    pub(crate) fn persist(
        &mut self,
        record: Record,
        durability: Durability,
        pending: Pending,
        out: &mut Effects,
    ) -> RecordId {
        let id = self.records.next(pending);
        out.push(Effect::Persist { id, record, durability });
        id
    }

    /// Sends a message once everything handed out so far is durable.
    pub(crate) fn send_behind(&self, to: StoreId, message: Message, record: RecordId, out: &mut Effects) {
        let after = if self.records.is_durable(record) { After::Now } else { After::Durable(record) };
        out.push(Effect::Send { to, lane: Lane::Control, message, after });
    }

    /// Makes a durable promise. The caller checked that it is higher than the one that stands.
    pub(crate) fn make_promise(&mut self, promise: Promise, out: &mut Effects) {
        self.former_manager = self.promise.manager;
        self.promise = promise;
        self.promise_record =
            self.persist(Record::Promise(promise), Durability::Synced, Pending::Promise, out);
    }

    /// Asks the control plane, at a bounded rate.
    pub(crate) fn ask(&mut self, now: Moment, why: Ask, above: Epoch, out: &mut Effects) {
        if self.asked.is_some_and(|asked| now.micros_since(asked) < self.config.ask_micros) {
            return;
        }
        self.asked = Some(now);
        out.push(Effect::Ask { why, above: above.max(self.promise.epoch) });
    }

    /// Hears of a commit point of the reign; its digest, where one came along, is compared on reaching exactly that point.
    pub(crate) fn hear_point(&mut self, point: OpId, digest: Option<Digest>) {
        self.announced = self.announced.max(point);
        if digest.is_some() && point == self.log.checkpoint.op {
            // An item brought the point before its digest came: it is compared all the same.
            self.reached.push_back((point, self.log.checkpoint.digest));
        }
        if let Some(digest) = digest
            && point > self.log.checkpoint.op
            && self.points.back().is_none_or(|(last, _)| *last < point)
        {
            if self.points.len() == POINTS_MAX {
                self.points.pop_front();
            }
            self.points.push_back((point, digest));
        }
    }

    /// Moves the checkpoint to min(commit point, end of the own gap-free durable prefix).
    pub(crate) fn advance_checkpoint(&mut self, out: &mut Effects) {
        let target = if self.config.holds(Rule::CheckpointStopsAtHole) {
            self.announced.min(self.log.prefix_end())
        } else {
            self.announced
        };
        if target <= self.log.checkpoint.op {
            return;
        }
        let Core { log, points, reached, .. } = self;
        let moved = log.advance(target, |at| {
            while let Some((point, _)) = points.front().copied().filter(|(point, _)| *point <= at.op) {
                points.pop_front();
                if point == at.op {
                    reached.push_back((point, at.digest));
                }
            }
        });
        if moved {
            self.checkpoint_moved(out);
        }
    }

    /// Takes a point that the member was brought to by a transfer.
    pub(crate) fn install(&mut self, checkpoint: Checkpoint, out: &mut Effects) {
        if checkpoint.op <= self.log.checkpoint.op {
            return;
        }
        self.log.install(checkpoint);
        self.announced = self.announced.max(checkpoint.op);
        self.checkpoint_moved(out);
        self.store_checkpoint(out);
    }

    /// Hands the checkpoint out for storing now and then. A lower one on disk is true as well: so this needs no sync, and does not happen once an
    /// item.
    pub(crate) fn tick_checkpoint(&mut self, now: Moment, out: &mut Effects) {
        if now.micros_since(self.stored_at) >= self.config.checkpoint_micros
            && self.stored_checkpoint < self.log.checkpoint.op
        {
            self.stored_at = now;
            self.store_checkpoint(out);
        }
    }

    /// Hands the checkpoint out for storing, if it moved since the last time.
    fn store_checkpoint(&mut self, out: &mut Effects) {
        if self.stored_checkpoint < self.log.checkpoint.op {
            self.stored_checkpoint = self.log.checkpoint.op;
            let checkpoint = self.log.checkpoint;
            let pending = Pending::Checkpoint(checkpoint.op);
            self.persist(Record::Checkpoint(checkpoint), Durability::Lazy, pending, out);
        }
    }

    fn checkpoint_moved(&mut self, out: &mut Effects) {
        let checkpoint = self.log.checkpoint;
        self.points.retain(|(point, _)| *point > checkpoint.op);
        out.push(Effect::Visible { checkpoint });
        if let Standing::Rebuilding { until } = self.standing
            && checkpoint.op >= until
        {
            self.stand(Standing::Whole, out);
        }
    }

    pub(crate) fn stand(&mut self, standing: Standing, out: &mut Effects) {
        self.standing = standing;
        self.persist(Record::Standing(standing), Durability::Synced, Pending::Other, out);
    }

    /// What a transfer that is complete says of the history here: of items that came as a delta only what was newest at the source stands,
    /// and what came as files may lack tombstones that the source had collected.
    pub(crate) fn shipped(&mut self, way: Way, upto: OpId) {
        if way != Way::Items {
            self.floor = self.floor.max(upto);
        }
        if way == Way::Files {
            self.gc_floor = self.gc_floor.max(upto);
        }
    }

    /// Whether a view at the checkpoint finds its history.
    pub(crate) fn has_history(&self) -> bool {
        self.floor <= self.log.checkpoint.op || !self.config.holds(Rule::ReadableAboveFloor)
    }

    /// Digests at told points that the checkpoint has just reached.
    pub(crate) fn take_reached(&mut self) -> Option<(OpId, Digest)> {
        self.reached.pop_front()
    }

    /// Throws the data away and starts over, keeping the promise.
    pub(crate) fn rebuild(&mut self, out: &mut Effects) {
        self.persist(Record::Rebuild, Durability::Synced, Pending::Checkpoint(OpId::ZERO), out);
        self.standing = Standing::Rebuilding { until: OpId::MAX };
        self.log = Log::recover(&Durable::default());
        self.announced = OpId::ZERO;
        self.stored_checkpoint = OpId::ZERO;
        self.durable_checkpoint = OpId::ZERO;
        (self.floor, self.gc_floor) = (OpId::ZERO, OpId::ZERO);
        self.points.clear();
        self.reached.clear();
    }
}
