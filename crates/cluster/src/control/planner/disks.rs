//! Whose disk is far slower than the others': such a node should lead nothing. What its leader takes in is held back once its buffers are full, and it
//! counts in no quick majority.

use super::super::detector::View;
use kvorum_sync::StoreId;
use std::collections::BTreeMap;

/// Syncs that take less are no reason for anything.
const SLOW_MICROS_MIN: u64 = 100_000;

/// So many times as slow as the middle one of the other nodes.
const SLOW_TIMES: u64 = 8;

/// For so long without a break: a compaction or a neighbour on the same device may slow down any disk for a moment.
const SLOW_FOR_MICROS: u64 = 3_000_000;

/// Nodes with slow disks, and since when.
#[derive(Debug, Default)]
pub(super) struct Disks {
    slow: BTreeMap<StoreId, u64>,
}

impl Disks {
    /// Takes in what the living nodes say of their disks.
    pub(super) fn observe(&mut self, view: &View) {
        self.slow.retain(|store, _| is_slow(view, *store));
        for store in view.sync_micros.keys().filter(|store| is_slow(view, **store)) {
            self.slow.entry(*store).or_insert(view.now);
        }
    }

    /// Whose disk has been slow for long enough.
    pub(super) fn slow(&self, now: u64) -> impl Iterator<Item = StoreId> {
        let long = move |(_, since): &(&StoreId, &u64)| now.saturating_sub(**since) >= SLOW_FOR_MICROS;
        self.slow.iter().filter(long).map(|(store, _)| *store)
    }
}

/// Against the others that have synced anything lately: of two of them the slower counts, and against nobody no disk is slow.
fn is_slow(view: &View, store: StoreId) -> bool {
    let own = view.sync_micros.get(&store).copied().unwrap_or_default();
    let others = view.sync_micros.iter().filter(|(other, micros)| **other != store && **micros > 0);
    let mut others: Vec<u64> = others.map(|(_, micros)| *micros).collect();
    others.sort_unstable();
    let middle = others.get(others.len() / 2);
    own >= SLOW_MICROS_MIN && middle.is_some_and(|middle| own >= SLOW_TIMES.saturating_mul(*middle))
}
