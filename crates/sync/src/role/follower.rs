//! The follower: stores items, takes commit points, answers promises.

use crate::core::Core;
use crate::durable::Record;
use crate::effect::{Durability, Effects};
use crate::item::Item;
use crate::log::DURABLE;
use crate::message::{Gather, Hello, Message, Promised};
use crate::planted::Rule;
use crate::records::Pending;
use crate::types::{Epoch, Moment, OpId, Promise, RecordId, Standing, StoreId};

/// What a gather finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    /// Promise it.
    New,
    /// Promised already: answer again.
    Again,
    /// Something higher, or another manager of the same epoch, has the promise.
    Refuse,
    /// A lease binds this member: say nothing yet.
    Bound,
}

impl Core {
    /// How a promise asked for stands to the one made.
    pub(crate) fn asked_promise(&self, now: Moment, promise: Promise) -> Asked {
        if promise.epoch > self.promise.epoch {
            let bound = now < self.bound_until
                && self.config.holds(Rule::LeaseBindsGranter)
                && promise.manager != self.promise.manager;
            return if bound { Asked::Bound } else { Asked::New };
        }
        let same = promise == self.promise
            || (promise.epoch == self.promise.epoch && !self.config.holds(Rule::PromiseTriple));
        if same { Asked::Again } else { Asked::Refuse }
    }

    pub(crate) fn refuse(&self, to: StoreId, epoch: Epoch, out: &mut Effects) {
        out.send(to, Message::Refused { epoch, promised: self.promise.epoch });
    }

    /// The answer to a gather: what is here, told only when the promise, and all before it, is durable.
    pub(crate) fn promised(&self, promise: Promise) -> Promised {
        Promised {
            promise,
            epoch: self.log.epoch,
            checkpoint: self.log.checkpoint,
            tail: self.log.tail(),
            standing: self.standing,
        }
    }

    pub(crate) fn answer_gather(&self, from: StoreId, gather: &Gather, out: &mut Effects) {
        let mut answer = self.promised(gather.promise);
        if !self.config.holds(Rule::PromiseBehindWrites) {
            // The broken way: the answer overtakes writes that are still queued, and does not tell of them.
            answer.tail.retain(|item| {
                item.op.epoch() != self.log.epoch
                    || self.log.slot(item.op.serial()).is_some_and(|slot| slot.is(DURABLE))
            });
            out.send(from, Message::Promised(Box::new(answer)));
            return;
        }
        self.send_behind(from, Message::Promised(Box::new(answer)), self.promise_record, out);
    }

    /// Stores an item of the leader.
    pub(crate) fn write(&mut self, from: StoreId, epoch: Epoch, item: Item, point: OpId, out: &mut Effects) {
        if !self.in_reign(epoch)
            && (self.config.holds(Rule::StoreNeedsAdoption) || self.promise.epoch != epoch)
        {
            if self.promise.epoch > epoch {
                self.refuse(from, epoch, out);
            }
            return;
        }
        let (op, serial) = (item.op, item.op.serial());
        if op.epoch() != epoch {
            return;
        }
        let done = op <= self.log.checkpoint.op && self.config.holds(Rule::NotStoredBelowCheckpoint);
        let slot = self.log.slot(serial).filter(|slot| slot.item.op == op);
        let held = slot.map(|slot| slot.is(DURABLE)).or(self.log.has_in_tail(op).then_some(false));
        if done || held == Some(true) {
            self.ack(from, epoch, (serial, serial), out);
        } else if held.is_none() {
            let ahead = serial.saturating_sub(self.log.base());
            if ahead > self.config.window_items as u64 * 2 {
                return;
            }
            if self.log.epoch == epoch {
                self.log.hold(item.clone());
            } else {
                self.log.hold_foreign(item.clone());
            }
            self.persist(Record::Item(item), Durability::Synced, Pending::Item(op), out);
            if !self.config.holds(Rule::AckAfterDurable) {
                self.ack(from, epoch, (serial, serial), out);
            }
        }
        self.point(epoch, point, out);
    }

    pub(crate) fn ack(&self, to: StoreId, epoch: Epoch, (first, last): (u64, u64), out: &mut Effects) {
        if self.counts() {
            out.send(to, Message::Ack { epoch, first, last, checkpoint: self.log.checkpoint.op });
        }
    }

    /// Takes an announced commit point, if it is of the reign that this member stands in.
    pub(crate) fn point(&mut self, epoch: Epoch, point: OpId, out: &mut Effects) {
        if self.in_reign(epoch) || !self.config.holds(Rule::CommitPointNeedsEpoch) {
            self.hear_point(point, None);
            self.advance_checkpoint(out);
        }
    }

    /// What this member holds, for its leader.
    pub(crate) fn hello(&self) -> Message {
        Message::Hello(Box::new(Hello {
            promised: self.promise.epoch,
            epoch: self.log.epoch,
            checkpoint: self.log.checkpoint.op,
            held: self.log.durable_ranges(),
            standing: self.standing,
        }))
    }

    /// Says hello once everything so far is durable.
    pub(crate) fn say_hello(&self, to: StoreId, out: &mut Effects) {
        self.send_behind(to, self.hello(), self.records.last(), out);
    }

    /// The first serials missing below `target`, as a range.
    pub(crate) fn first_hole(&self, target: u64) -> Option<(u64, u64)> {
        let held = |serial: u64| self.log.slot(serial).is_some_and(|slot| slot.is(crate::log::HELD));
        let start = self.log.durable_serial().max(self.log.base()) + 1;
        let first = (start..=target).find(|serial| !held(*serial))?;
        let last = (first..=target).take_while(|serial| !held(*serial)).last().unwrap_or(first);
        Some((first, last))
    }

    /// Whether nothing of this member waits for its disk.
    pub(crate) fn quiet(&self) -> bool {
        self.records.all_durable() && self.standing == Standing::Whole
    }

    /// Whether the record is durable already.
    pub(crate) fn is_durable(&self, record: RecordId) -> bool {
        self.records.is_durable(record)
    }
}
