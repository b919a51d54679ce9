//! How far deletions may be forgotten: no node that runs may bring back what was deleted, whatever its own clock says and whomever it reaches.

use super::planted::{Fault, is_planted};
use kvorum_sync::StoreId;
use std::collections::{BTreeMap, BTreeSet};

/// Floors rise by so much at once.
const FLOOR_STEP_MS: u64 = 60_000;

/// Nobody is taken for one that is away, and nobody takes himself for one that was forgotten, sooner than this, however short the grace is: nodes are
/// in touch every half minute.
const PATIENCE_MS_MIN: u64 = 60_000;

/// What nodes said of themselves, each of one namespace.
#[derive(Debug, Default)]
pub(super) struct Heard(BTreeMap<(u16, StoreId), Told>);

/// What a node says of itself as long as it does not doubt what it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    /// Its time, in Unix milliseconds.
    pub(super) now_ms: u64,
    /// It has compared all that it holds with what this node held at that time of this node's.
    pub(super) seen_ms: u64,
    /// When it was told, since this node's life began.
    pub(super) after_ms: u64,
}

/// This node's own time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    /// Its hybrid clock when its life began, in Unix milliseconds, and now.
    pub(super) begun_ms: u64,
    pub(super) now_ms: u64,
    /// How long it has been awake, by a clock that nobody sets.
    pub(super) awake_for_ms: u64,
    /// How long deletions are kept.
    pub(super) grace_ms: u64,
}

impl Own {
    /// How long a node may be silent before others go on without it.
    pub(super) fn patience_ms(self) -> u64 {
        self.grace_ms.max(PATIENCE_MS_MIN)
    }

    /// How long a node may be out of touch before it doubts what it holds: for less than the others' patience, so that it doubts before any of
    /// them forgets, though their clocks do not run alike.
    pub(super) fn lease_ms(self) -> u64 {
        self.patience_ms() - self.leeway_ms()
    }

    /// What several nodes say belongs together if it was said within this time.
    pub(super) fn leeway_ms(self) -> u64 {
        self.patience_ms() / 16
    }
}

/// More than half of so many nodes.
fn majority(nodes: usize) -> usize {
    nodes / 2 + 1
}

/// So many others at least must have heard a node of late, of so many nodes in all: then those that miss it can't be more than half.
pub(super) fn touch_needed(nodes: usize) -> usize {
    nodes.saturating_sub(majority(nodes))
}

/// Whom more than half of so many nodes miss; `missed`: whom each of them misses that was asked.
pub(super) fn away(nodes: usize, missed: &[Vec<StoreId>]) -> BTreeSet<StoreId> {
    let mut by: BTreeMap<StoreId, usize> = BTreeMap::new();
    for store in missed.iter().flatten() {
        *by.entry(*store).or_default() += 1;
    }
    let needed = if is_planted(Fault::EachForgetsAlone) { 1 } else { majority(nodes) };
    by.into_iter().filter(|(_, count)| *count >= needed).map(|(store, _)| store).collect()
}

impl Heard {
    /// A node says that it is awake, and does not doubt what it holds.
    pub(super) fn told(&mut self, namespace: u16, store: StoreId, told: Told) {
        self.0.insert((namespace, store), told);
    }

    /// Those of the others that have been silent for so long that they may be away.
    pub(super) fn silent(&self, namespace: u16, others: &[StoreId], own: Own) -> Vec<StoreId> {
        let is_silent = |store: &StoreId| {
            let told = self.0.get(&(namespace, *store));
            let silent_ms = own.awake_for_ms.saturating_sub(told.map_or(0, |told| told.after_ms));
            silent_ms >= own.patience_ms()
        };
        others.iter().copied().filter(is_silent).collect()
    }

    /// Deletions up to this time (Unix milliseconds) may be forgotten; `None` as long as one that is not `away` was never heard. The grace is over
    /// since all the others have seen them, by the earliest clock of all, so that one that was set forward makes nobody forget. Who is away
    /// holds nobody up: it doubts what it holds when it is back.
    pub(super) fn gone_ms(
        &self,
        namespace: u16,
        others: &[StoreId],
        away: &BTreeSet<StoreId>,
        own: Own,
    ) -> Option<u64> {
        let mut since_ms = own.now_ms.min(own.begun_ms.saturating_add(own.awake_for_ms));
        for store in others.iter().filter(|store| !away.contains(store)) {
            let told = self.0.get(&(namespace, *store))?;
            let seen_ms = if is_planted(Fault::ForgetsUnseen) { u64::MAX } else { told.seen_ms };
            since_ms = since_ms.min(told.now_ms).min(seen_ms);
        }
        if is_planted(Fault::ForgetsByOwnClock) {
            since_ms = own.now_ms;
        }
        let gone_ms = since_ms.saturating_sub(own.grace_ms);
        // Rounded, so that replicas mostly forget the same.
        Some(gone_ms - gone_ms % FLOOR_STEP_MS.min(own.grace_ms / 4).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const BEGUN: u64 = 1_000_000 * HOUR;
    const OTHERS: [StoreId; 2] = [StoreId(2), StoreId(3)];

    fn own(awake_for_ms: u64) -> Own {
        Own { begun_ms: BEGUN, now_ms: BEGUN + awake_for_ms, awake_for_ms, grace_ms: 24 * HOUR }
    }

    fn told(now_ms: u64, seen_ms: u64, after_ms: u64) -> Told {
        Told { now_ms, seen_ms, after_ms }
    }

    fn gone(heard: &Heard, away: &[StoreId], own: Own) -> Option<u64> {
        heard.gone_ms(16, &OTHERS, &away.iter().copied().collect(), own)
    }

    #[test]
    fn nothing_is_forgotten_that_some_node_has_not_seen() {
        let mut heard = Heard::default();
        heard.told(16, OTHERS[0], told(BEGUN + 50 * HOUR, BEGUN + 49 * HOUR, 50 * HOUR));
        assert_eq!(gone(&heard, &[], own(50 * HOUR)), None, "the other one was never heard");
        heard.told(16, OTHERS[1], told(BEGUN + 40 * HOUR, BEGUN + 30 * HOUR, 40 * HOUR));
        assert_eq!(gone(&heard, &[], own(50 * HOUR)), Some(BEGUN + 6 * HOUR));
        assert_eq!(gone(&heard, &[], own(99 * HOUR)), Some(BEGUN + 6 * HOUR), "time alone does nothing");
        assert_eq!(heard.gone_ms(17, &OTHERS, &BTreeSet::new(), own(HOUR)), None, "another namespace");
        // Who is away will doubt what it holds.
        assert_eq!(gone(&heard, &OTHERS[1..], own(50 * HOUR)), Some(BEGUN + 25 * HOUR));
        assert_eq!(gone(&heard, &OTHERS, own(50 * HOUR)), Some(BEGUN + 26 * HOUR));
    }

    #[test]
    fn a_clock_that_was_set_forward_makes_nobody_forget() {
        let mut heard = Heard::default();
        let jumped = Own { now_ms: BEGUN + 9000 * HOUR, ..own(HOUR) };
        let far = BEGUN + 9000 * HOUR;
        OTHERS.iter().for_each(|store| heard.told(16, *store, told(BEGUN, far, 0)));
        assert_eq!(gone(&heard, &[], jumped), Some(BEGUN - 24 * HOUR), "its own");
        heard.told(16, OTHERS[0], told(far, far, HOUR));
        assert_eq!(gone(&heard, &[], own(HOUR)), Some(BEGUN - 24 * HOUR), "another one's");
        heard.told(16, OTHERS[1], told(BEGUN - 5 * HOUR, far, HOUR));
        assert_eq!(gone(&heard, &[], own(HOUR)), Some(BEGUN - 29 * HOUR), "the earliest counts");
    }

    #[test]
    fn a_node_is_away_when_more_than_half_of_all_miss_it() {
        let mut heard = Heard::default();
        heard.told(16, OTHERS[0], told(BEGUN, BEGUN, HOUR));
        assert_eq!(heard.silent(16, &OTHERS, own(23 * HOUR)), []);
        assert_eq!(heard.silent(16, &OTHERS, own(24 * HOUR)), [OTHERS[1]], "never heard");
        assert_eq!(heard.silent(16, &OTHERS, own(25 * HOUR)), OTHERS);
        let missed = |count| vec![vec![OTHERS[1]]; count];
        for (nodes, least) in [(2, 2), (3, 2), (4, 3), (5, 3)] {
            assert_eq!(away(nodes, &missed(least - 1)), BTreeSet::new());
            assert_eq!(away(nodes, &missed(least)), BTreeSet::from([OTHERS[1]]));
        }
    }

    #[test]
    fn who_is_in_touch_with_enough_is_never_missed_by_more_than_half() {
        for nodes in 1..=64 {
            let missed_by_at_most = nodes - 1 - touch_needed(nodes);
            assert!(missed_by_at_most < majority(nodes), "{nodes}");
            // And no fewer would do, where there are others at all.
            assert!(touch_needed(nodes) == 0 || missed_by_at_most + 1 >= majority(nodes), "{nodes}");
        }
    }
}
