//! A member's view of the log: the checkpoint, what it holds above it, and how far that is durable without a gap.
//!
//! ```text
//!      … final …   checkpoint   items of former reigns     basis_end   1   2   ·   4   5   ·   7     serials of `epoch`
//! ─────────────────────┤  older (all adopted in one step)  ├──────────┼───┼───┼───┼───┼───┼───┤
//!                                                                      └ base         └ durable = 2, holes at 3 and 6
//! ```

use std::collections::VecDeque;

use crate::durable::Durable;
use crate::item::Item;
use crate::types::{Checkpoint, Digest, Epoch, OpId};

pub(crate) const HELD: u8 = 1;
pub(crate) const DURABLE: u8 = 2;
pub(crate) const COMMITTED: u8 = 4;

/// One serial of the adopted reign.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) item: Item,
    /// A bit for each member that has it durable (leader only).
    pub(crate) acks: u32,
    pub(crate) flags: u8,
    /// Head of the list of reads that wait for this item: an index + 1 into the leader's slab.
    pub(crate) reads: u32,
    /// Head of the list of items that wait for this one to commit (serials; 0 ends it), and this item's place in such a list.
    pub(crate) first_waiter: u64,
    pub(crate) next_waiter: u64,
}

impl Slot {
    pub(crate) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) epoch: Epoch,
    pub(crate) basis_end: OpId,
    /// Items of former reigns above the checkpoint, by op id.
    older: VecDeque<Item>,
    /// Whether the adoption that put `older` is durable.
    pub(crate) settled: bool,
    ring: VecDeque<Slot>,
    base: u64,
    durable: u64,
}

impl Log {
    pub(crate) fn recover(durable: &Durable) -> Log {
        let mut log = Log {
            checkpoint: durable.checkpoint,
            epoch: durable.epoch,
            basis_end: durable.basis_end,
            older: VecDeque::new(),
            settled: true,
            ring: VecDeque::new(),
            base: 0,
            durable: 0,
        };
        log.rebase();
        for item in durable.tail.values().filter(|item| item.op > durable.checkpoint.op) {
            if item.op.epoch() == durable.epoch {
                log.hold(item.clone());
                log.mark_durable(item.op.serial());
            } else {
                log.older.push_back(item.clone());
            }
        }
        log
    }

    /// The state after an adoption: everything up to the checkpoint final, `items` above it (former reigns, or none).
    pub(crate) fn adopted(checkpoint: Checkpoint, epoch: Epoch, basis_end: OpId, items: Vec<Item>) -> Log {
        let mut log = Log {
            checkpoint,
            epoch,
            basis_end,
            older: items.into(),
            settled: false,
            ring: VecDeque::new(),
            base: 0,
            durable: 0,
        };
        log.rebase();
        log
    }

    fn rebase(&mut self) {
        if self.checkpoint.op.epoch() == self.epoch {
            self.base = self.checkpoint.op.serial();
            self.durable = self.base;
        }
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The last serial with a place in the ring, held or not.
    pub(crate) fn head(&self) -> u64 {
        self.base + self.ring.len() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.ring.len()
    }

    /// Serials 1 to this one are all durable here.
    pub(crate) fn durable_serial(&self) -> u64 {
        self.durable
    }

    pub(crate) fn slot(&self, serial: u64) -> Option<&Slot> {
        self.ring.get(usize::try_from(serial.checked_sub(self.base + 1)?).ok()?)
    }

    pub(crate) fn slot_mut(&mut self, serial: u64) -> Option<&mut Slot> {
        self.ring.get_mut(usize::try_from(serial.checked_sub(self.base + 1)?).ok()?)
    }

    /// Puts an item of the reign into its place. The caller bounds how far ahead of the base that may be.
    pub(crate) fn hold(&mut self, item: Item) {
        let serial = item.op.serial();
        if serial <= self.base {
            return;
        }
        if serial == self.head() + 1 {
            self.ring.push_back(Slot { item, flags: HELD, ..Slot::default() });
            return;
        }
        while self.head() < serial {
            self.ring.push_back(Slot::default());
        }
        if let Some(slot) = self.slot_mut(serial) {
            slot.item = item;
            slot.flags |= HELD;
        }
    }

    /// Keeps an item of a reign that was not adopted: only a replica with a rule switched off gets here.
    pub(crate) fn hold_foreign(&mut self, item: Item) {
        self.older.push_back(item);
    }

    pub(crate) fn mark_durable(&mut self, serial: u64) {
        if let Some(slot) = self.slot_mut(serial) {
            slot.flags |= DURABLE;
        }
        while self.slot(self.durable + 1).is_some_and(|slot| slot.is(DURABLE)) {
            self.durable += 1;
        }
    }

    /// The end of the durable prefix that has no gap.
    pub(crate) fn prefix_end(&self) -> OpId {
        if !self.settled {
            self.checkpoint.op
        } else if self.durable > 0 {
            OpId::new(self.epoch, self.durable)
        } else {
            self.basis_end.max(self.checkpoint.op)
        }
    }

    /// Whether the item is held above the checkpoint.
    pub(crate) fn has_in_tail(&self, op: OpId) -> bool {
        if op <= self.checkpoint.op {
            return false;
        }
        if op.epoch() == self.epoch {
            return self.slot(op.serial()).is_some_and(|slot| slot.is(HELD));
        }
        self.older.binary_search_by_key(&op, |item| item.op).is_ok()
    }

    /// Whether the item is here: final, or held above the checkpoint.
    pub(crate) fn has(&self, op: OpId) -> bool {
        op <= self.checkpoint.op || self.has_in_tail(op)
    }

    /// Everything held above the checkpoint, by op id.
    pub(crate) fn tail(&self) -> Vec<Item> {
        let mut tail: Vec<Item> =
            self.older.iter().filter(|item| item.op > self.checkpoint.op).cloned().collect();
        let own = self.ring.iter().filter(|slot| slot.is(HELD) && slot.item.op > self.checkpoint.op);
        tail.extend(own.map(|slot| slot.item.clone()));
        tail
    }

    /// Durable serials of the reign above `base`, as ranges.
    pub(crate) fn durable_ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        if self.durable > 0 {
            ranges.push((1, self.durable));
        }
        for serial in self.durable + 1..=self.head() {
            if self.slot(serial).is_some_and(|slot| slot.is(DURABLE)) {
                match ranges.last_mut() {
                    Some((_, last)) if *last + 1 == serial => *last = serial,
                    _ => ranges.push((serial, serial)),
                }
            }
        }
        ranges
    }

    /// The latest time of any item here.
    pub(crate) fn latest_time(&self) -> u64 {
        let older = self.older.iter().map(|item| item.time).max().unwrap_or(0);
        let own = self.ring.iter().map(|slot| slot.item.time).max().unwrap_or(0);
        self.checkpoint.time.max(older).max(own)
    }

    /// The digest of everything up to the end of the basis.
    pub(crate) fn basis_digest(&self) -> Digest {
        self.older.iter().fold(self.checkpoint.digest, |digest, item| digest.with(item.digest))
    }

    /// Moves the checkpoint to the end of the last item ≤ `target`, calling `passed` at each item. The caller says that all of them are final.
    pub(crate) fn advance(&mut self, target: OpId, mut passed: impl FnMut(Checkpoint)) -> bool {
        let before = self.checkpoint.op;
        while let Some(item) = self.older.front() {
            if item.op > target {
                return self.checkpoint.op != before;
            }
            self.checkpoint = after(self.checkpoint, item);
            passed(self.checkpoint);
            self.older.pop_front();
        }
        if target.epoch() == self.epoch {
            let mut serial =
                if self.checkpoint.op.epoch() == self.epoch { self.checkpoint.op.serial() } else { 0 };
            while serial < target.serial() {
                serial += 1;
                let Some(slot) = self.slot(serial) else { break };
                let next = after(self.checkpoint, &slot.item);
                // A hole (which only a broken rule lets pass) still moves the checkpoint.
                self.checkpoint = Checkpoint { op: OpId::new(self.epoch, serial), ..next };
                passed(self.checkpoint);
            }
        }
        self.checkpoint.op != before
    }

    /// Everything up to `checkpoint`, of the adopted reign, has arrived by other ways.
    pub(crate) fn install(&mut self, checkpoint: Checkpoint) {
        if checkpoint.op <= self.checkpoint.op {
            return;
        }
        self.checkpoint = checkpoint;
        self.settled = true;
        self.older.retain(|item| item.op > checkpoint.op);
        if checkpoint.op.epoch() == self.epoch {
            let serial = checkpoint.op.serial();
            self.trim(serial);
            self.base = self.base.max(serial);
            self.durable = self.durable.max(serial);
            while self.slot(self.durable + 1).is_some_and(|slot| slot.is(DURABLE)) {
                self.durable += 1;
            }
        }
    }

    /// Forgets serials up to this one.
    pub(crate) fn trim(&mut self, upto: u64) {
        while self.base < upto && self.pop().is_some() {}
    }

    /// Forgets the lowest serial.
    pub(crate) fn pop(&mut self) -> Option<Slot> {
        let slot = self.ring.pop_front()?;
        self.base += 1;
        Some(slot)
    }
}

fn after(checkpoint: Checkpoint, item: &Item) -> Checkpoint {
    Checkpoint {
        op: item.op,
        digest: checkpoint.digest.with(item.digest),
        time: checkpoint.time.max(item.time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(epoch: u32, serial: u64) -> OpId {
        OpId::new(Epoch::new(epoch).unwrap(), serial)
    }

    fn item(epoch: u32, serial: u64) -> Item {
        Item { op: op(epoch, serial), digest: Digest(serial), time: serial, ..Item::default() }
    }

    fn log(serials: &[u64]) -> Log {
        let durable = Durable { epoch: Epoch::new(2).unwrap(), basis_end: op(1, 9), ..Durable::default() };
        let mut log = Log::recover(&durable);
        for serial in serials {
            log.hold(item(2, *serial));
            log.mark_durable(*serial);
        }
        log
    }

    #[test]
    fn the_durable_prefix_ends_at_the_first_hole() {
        assert_eq!(log(&[]).prefix_end(), op(1, 9));
        assert_eq!(log(&[1, 2, 4]).prefix_end(), op(2, 2));
        assert_eq!(log(&[4, 3, 2, 1]).prefix_end(), op(2, 4));
        assert_eq!(log(&[1, 2, 4, 5, 7]).durable_ranges(), vec![(1, 2), (4, 5), (7, 7)]);
    }

    #[test]
    fn the_checkpoint_folds_what_it_passes() {
        let mut log = log(&[1, 2, 3]);
        let mut seen = Vec::new();
        assert!(log.advance(op(2, 2), |at| seen.push((at.op.serial(), at.digest.0))));
        assert_eq!(seen, vec![(1, 1), (2, 3)]);
        assert_eq!(log.tail().len(), 1);
        log.trim(2);
        assert_eq!((log.base(), log.len()), (2, 1));
    }

    #[test]
    fn recovery_sorts_the_tail_into_reigns() {
        let mut durable =
            Durable { epoch: Epoch::new(2).unwrap(), basis_end: op(1, 4), ..Durable::default() };
        for item in [item(1, 3), item(1, 4), item(2, 1), item(2, 3)] {
            durable.tail.insert(item.op, item);
        }
        let log = Log::recover(&durable);
        assert_eq!(log.prefix_end(), op(2, 1));
        assert!(log.has_in_tail(op(1, 3)) && log.has_in_tail(op(2, 3)) && !log.has_in_tail(op(2, 2)));
        assert_eq!(log.tail().len(), 4);
    }

    #[test]
    fn installing_a_later_checkpoint_joins_what_came_meanwhile() {
        let mut log = log(&[1, 5, 6]);
        log.install(Checkpoint { op: op(2, 4), ..Checkpoint::default() });
        assert_eq!((log.base(), log.durable_serial()), (4, 6));
    }
}
