//! What a replica lacks, and which requests it counts for all the same.
//!
//! A new owner of a slot stands in the place of one that kept it before. Until it has all that is promised it must not be counted: a read through it
//! might miss a write that was acknowledged among the nodes that were before, and a write that it acknowledges might be missed by a read among those.
//! A request with `ack` of `from` is promised what at most `from - ack` replicas may have missed. So the new owner counts as soon as all but so many
//! of those that may keep the slot were collected from (for reads), or take no more requests among the nodes that were before (for writes).

use super::super::Order;
use super::super::planted::{Fault, is_planted};
use kvorum_sync::StoreId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::*};

/// How a replica begins, in its life or among other nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begins {
    /// It lacks what other nodes have.
    pub(crate) lacks: bool,
    /// It may hold what was deleted meanwhile.
    pub(crate) doubts: bool,
}

/// A request that a replica may count for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) slot: u16,
    pub(super) ack: u8,
    pub(super) from: u8,
    pub(super) is_read: bool,
}

#[derive(Default)]
struct Rows {
    /// What these have was not collected yet.
    uncollected: BTreeSet<StoreId>,
    /// These may still answer requests among the nodes that were before.
    unturned: BTreeSet<StoreId>,
    /// These were collected from when they had not all themselves.
    partial: BTreeSet<StoreId>,
    /// The nodes, by their names, among which the replica had all that it should.
    before: Vec<u64>,
    /// Nodes that have left and took with them what they had, some of it in this one's place.
    lost: usize,
    doubts: bool,
}

/// Among whom a replica serves that lacks something.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    /// All other nodes that have not left.
    pub(crate) others: Vec<StoreId>,
    /// How many have left whose place this one may have taken.
    pub(crate) lost: usize,
}

/// What a replica lacks.
#[derive(Default)]
pub(super) struct Lacking {
    /// Anything at all: most requests look no further.
    is_lacking: AtomicBool,
    doubts: AtomicBool,
    rows: Mutex<Rows>,
}

impl Lacking {
    /// The replica lacks what others have, or takes itself for whole as before. `before`: the names of the nodes among which it had all.
    pub(super) fn begin(&self, begins: Begins, sources: &Sources, before: Vec<u64>) {
        if begins.lacks {
            let mut rows = self.rows.lock();
            rows.uncollected.extend(&sources.others);
            rows.unturned.extend(&sources.others);
            rows.partial.clear();
            (rows.before, rows.lost) = (before, sources.lost);
            rows.doubts |= begins.doubts;
            self.settle(&rows);
        }
    }

    /// Sums up what is read without the lock.
    fn settle(&self, rows: &Rows) {
        self.doubts.store(rows.doubts, Release);
        self.is_lacking.store(!rows.uncollected.is_empty(), Release);
    }

    /// A node has shown that it knows the nodes that are now.
    pub(super) fn turned(&self, store: StoreId) {
        if self.is_lacking.load(Acquire) {
            self.rows.lock().unturned.remove(&store);
        }
    }

    /// All that this node has is here, or it has left for good.
    pub(super) fn collected(&self, from: StoreId, is_whole: bool) {
        let mut rows = self.rows.lock();
        rows.unturned.remove(&from);
        if rows.uncollected.remove(&from) && !is_whole {
            rows.partial.insert(from);
        }
        if rows.uncollected.is_empty() {
            rows.doubts = false;
        }
        self.settle(&rows);
    }

    pub(super) fn doubts(&self) -> bool {
        self.doubts.load(Acquire)
    }

    pub(super) fn is_whole(&self) -> bool {
        !self.is_lacking.load(Acquire)
    }

    /// Whom it still has to collect from.
    pub(super) fn uncollected(&self) -> Vec<StoreId> {
        self.rows.lock().uncollected.iter().copied().collect()
    }

    /// Who may still answer requests among the nodes that were before.
    pub(super) fn unturned(&self) -> Vec<StoreId> {
        self.rows.lock().unturned.iter().copied().collect()
    }

    /// Whether the answer of `me` to a request counts.
    pub(super) fn counts(&self, request: Counted, order: &Order, me: StoreId) -> bool {
        let Counted { slot, ack, from, is_read } = request;
        if self.is_whole() || is_planted(if is_read { Fault::EmptyAnswers } else { Fault::CountsUnknown }) {
            return true;
        }
        let rows = self.rows.lock();
        let missing = if is_read { &rows.uncollected } else { &rows.unturned };
        let kept = order.rank_among(&rows.before, slot, me).is_some_and(|rank| rank < from);
        if missing.is_empty() || (kept && !(is_read && rows.doubts)) {
            return true;
        }
        if is_planted(Fault::OwnersAnswerAtOnce) && !rows.before.is_empty() && !rows.doubts {
            return true;
        }
        // Whoever is not in the order may have been, and kept the slot.
        let mut missed = missing.iter().filter(|store| !order.has(**store)).count();
        missed += if is_read { rows.lost } else { 0 };
        let mut known = 0;
        for store in order.of_slot(slot).into_iter().filter(|store| *store != me) {
            // Who has not all itself stands for nobody.
            let is_missed = missing.contains(&store) || (is_read && rows.partial.contains(&store));
            (missed, known) = if is_missed { (missed + 1, known) } else { (missed, known + 1) };
            if known >= from {
                break;
            }
        }
        missed <= usize::from(from.saturating_sub(ack))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: u8 = 3;
    const NAMES: [(u64, &str); 5] = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")];
    const NEW: StoreId = StoreId(4);

    fn order(count: usize) -> Order {
        Order::of(NAMES[..count].iter().map(|(store, name)| (StoreId(*store), *name)))
    }

    fn sources(others: &[u64]) -> Sources {
        Sources { others: others.iter().copied().map(StoreId).collect(), lost: 0 }
    }

    fn lacking(others: &[u64]) -> Lacking {
        let lacking = Lacking::default();
        lacking.begin(Begins { lacks: true, doubts: false }, &sources(others), Vec::new());
        lacking
    }

    fn read(ack: u8, slot: u16) -> Counted {
        Counted { slot, ack, from: FROM, is_read: true }
    }

    #[test]
    fn a_new_owner_counts_for_what_its_sources_are_enough_for() {
        let (lacking, order) = (lacking(&[1, 2, 3]), order(4));
        let counts = |slot| [1, 2, 3].map(|ack| lacking.counts(read(ack, slot), &order, NEW));
        assert_eq!(counts(7), [false; 3]);
        lacking.collected(StoreId(1), true);
        assert_eq!(counts(7), [true, false, false], "two may have what it missed");
        lacking.collected(StoreId(3), true);
        assert_eq!(counts(7), [true, true, false]);
        lacking.collected(StoreId(2), true);
        assert!(counts(7) == [true; 3] && lacking.is_whole());
    }

    #[test]
    fn who_lacks_something_itself_stands_for_nobody() {
        // Five nodes, of which the fifth is as new as the fourth.
        let (lacking, order) = (lacking(&[1, 2, 3, 5]), order(5));
        for (store, is_whole) in [(1, true), (2, true), (5, false)] {
            lacking.collected(StoreId(store), is_whole);
        }
        for slot in 0..200 {
            assert!(lacking.counts(read(1, slot), &order, NEW));
            assert!(!lacking.counts(read(3, slot), &order, NEW), "the third may have what nobody else has");
        }
        lacking.collected(StoreId(3), true);
        assert!(lacking.counts(read(3, 7), &order, NEW), "now it has what anybody has");
    }

    #[test]
    fn what_was_lost_with_a_disk_counts_as_missed() {
        let (lacking, order) = (Lacking::default(), order(4));
        let sources = Sources { lost: 1, ..sources(&[1, 2, 3]) };
        lacking.begin(Begins { lacks: true, doubts: false }, &sources, Vec::new());
        [1, 2].iter().for_each(|store| lacking.collected(StoreId(*store), true));
        assert!(lacking.counts(read(1, 7), &order, NEW));
        let missed = (0..200).filter(|slot| !lacking.counts(read(2, *slot), &order, NEW)).count();
        assert!(missed > 0, "one of two that had it is lost, the other was not asked");
        lacking.collected(StoreId(3), true);
        assert!(lacking.counts(read(3, 7), &order, NEW));
    }

    #[test]
    fn what_a_replica_always_kept_it_answers_for() {
        let lacking = Lacking::default();
        let (before, after) = (order(5), order(4));
        let others = sources(&[1, 2, 3]);
        lacking.begin(Begins { lacks: true, doubts: false }, &others, before.names());
        for slot in 0..2000 {
            let kept = before.rank(slot, NEW).unwrap() < FROM;
            assert_eq!(lacking.counts(read(1, slot), &after, NEW), kept);
        }
        lacking.begin(Begins { lacks: true, doubts: true }, &others, before.names());
        assert!((0..2000).all(|slot| !lacking.counts(read(1, slot), &after, NEW)), "it doubts all of it");
    }

    #[test]
    fn writes_count_once_enough_others_know_of_the_new_owner() {
        let (lacking, order) = (lacking(&[1, 2, 3]), order(4));
        let write = |ack| lacking.counts(Counted { is_read: false, ..read(ack, 7) }, &order, NEW);
        assert_eq!([1, 2, 3].map(write), [false; 3]);
        lacking.turned(StoreId(1));
        lacking.turned(StoreId(2));
        assert_eq!([1, 2, 3].map(write), [true, true, false]);
        lacking.turned(StoreId(3));
        assert!(write(3) && !lacking.is_whole() && lacking.unturned().is_empty());
    }
}
