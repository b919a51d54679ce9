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
    /// These have said, among the nodes that are now, that they have all that they should: nobody answers in their places any more.
    whole: BTreeSet<StoreId>,
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
            rows.whole.clear();
            (rows.before, rows.lost) = (before, sources.lost);
            rows.doubts |= begins.doubts;
            self.settle(&rows);
        }
    }

    /// The replica may hold what was deleted. `names`: of the nodes among which it serves.
    pub(super) fn doubt(&self, sources: &Sources, names: Vec<u64>) {
        let before = if self.is_whole() { names } else { self.rows.lock().before.clone() };
        self.begin(Begins { lacks: true, doubts: true }, sources, before);
    }

    /// Sums up what is read without the lock.
    fn settle(&self, rows: &Rows) {
        self.doubts.store(rows.doubts, Release);
        self.is_lacking.store(!rows.uncollected.is_empty(), Release);
    }

    /// A node has shown that it knows the nodes that are now, or also that it has all that it should.
    pub(super) fn turned(&self, store: StoreId, is_whole: bool) {
        if self.is_lacking.load(Acquire) {
            let mut rows = self.rows.lock();
            rows.unturned.remove(&store);
            if is_whole {
                rows.whole.insert(store);
            }
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
        let is_missed = |store: &StoreId| {
            // Who has not all itself stands for nobody.
            missing.contains(store) || (is_read && rows.partial.contains(store))
        };
        if kept && rows.before == order.names() {
            // What it doubts can only have been deleted by those that keep it as well.
            let keepers = order.of_slot(slot).into_iter().take(from.into()).filter(|store| *store != me);
            return keepers.filter(is_missed).count() <= usize::from(from.saturating_sub(ack));
        }
        if is_planted(Fault::OwnersAnswerAtOnce) && !rows.before.is_empty() && !rows.doubts {
            return true;
        }
        // Whoever is not in the order may have been, and kept the slot.
        let mut missed = missing.iter().filter(|store| !order.has(**store)).count();
        missed += if is_read { rows.lost } else { 0 };
        let mut known = 0;
        for store in order.of_slot(slot).into_iter().filter(|store| *store != me) {
            let is_known = is_read || rows.whole.contains(&store);
            missed += usize::from(is_missed(&store));
            known += u8::from(is_known && !is_missed(&store));
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
    fn who_doubts_what_it_kept_answers_for_what_enough_others_can_not_have_deleted() {
        let (lacking, order) = (Lacking::default(), order(3));
        let me = StoreId(3);
        lacking.doubt(&sources(&[1, 2]), order.names());
        let counts = |ack, from| {
            (0..2000)
                .filter(|slot| order.rank(*slot, me).unwrap() < from)
                .all(|slot| lacking.counts(Counted { slot, ack, from, is_read: true }, &order, me))
        };
        assert!(counts(1, 1) && counts(1, 2) && counts(1, 3) && !counts(2, 2) && !counts(2, 3));
        lacking.collected(StoreId(1), true);
        assert!(counts(2, 3) && !counts(3, 3));
        // Another owner of before may have let go of what it deleted.
        lacking.doubt(&sources(&[1, 2]), Vec::new());
        assert!(!lacking.is_whole() && lacking.doubts());
    }

    #[test]
    fn writes_count_once_enough_others_know_of_the_new_owner() {
        let (lacking, order) = (lacking(&[1, 2, 3]), order(4));
        let write = |ack| lacking.counts(Counted { is_read: false, ..read(ack, 7) }, &order, NEW);
        assert_eq!([1, 2, 3].map(write), [false; 3]);
        lacking.turned(StoreId(1), false);
        lacking.turned(StoreId(2), false);
        assert_eq!([1, 2, 3].map(write), [true, true, false]);
        lacking.turned(StoreId(3), false);
        assert!(write(3) && !lacking.is_whole() && lacking.unturned().is_empty());
    }

    #[test]
    fn who_is_as_new_stands_for_no_owner_of_before() {
        // Five nodes, of which the fifth is as new as the fourth.
        let (lacking, order) = (lacking(&[1, 2, 3, 5]), order(5));
        let fourth_then_fifth = |slot: &u16| order.of_slot(*slot).starts_with(&[NEW, StoreId(5)]);
        let slot = (0..).find(fourth_then_fifth).unwrap();
        let write = || lacking.counts(Counted { slot, ack: 1, from: 1, is_read: false }, &order, NEW);
        lacking.turned(StoreId(5), false);
        assert!(!write(), "one of the others kept the slot before both");
        lacking.turned(StoreId(5), true);
        assert!(write(), "nobody answers in its place any more");
    }
}
