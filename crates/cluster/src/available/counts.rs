//! What a node counts of its part in available namespaces.

use super::shell::Shell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counted since the node was started.
#[derive(Default)]
pub(super) struct Counts {
    /// Acknowledged writes that an entry with a higher version was there for already.
    pub(super) superseded: AtomicU64,
    /// Entries that a read found missing or old at a replica.
    pub(super) repaired: AtomicU64,
    /// Writes kept for replicas that did not answer.
    pub(super) hinted: AtomicU64,
    /// Of those, handed over.
    pub(super) delivered: AtomicU64,
    /// Entries that moved when shards were compared.
    pub(super) moved: AtomicU64,
    /// Versions of clocks too far ahead.
    pub(super) ahead: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Relaxed);
}

impl Shell {
    /// Figures, by name.
    pub(crate) fn figures(&self) -> Vec<(&'static str, u64)> {
        let counts = &self.counts;
        let lacking = self.opened().iter().filter(|(_, replica)| !replica.is_whole()).count();
        let (kept, dropped) = {
            let hints = self.hints.lock();
            (hints.all_bytes(), hints.dropped())
        };
        vec![
            ("writes_superseded", counts.superseded.load(Relaxed)),
            ("entries_repaired", counts.repaired.load(Relaxed)),
            ("entries_compared_and_moved", counts.moved.load(Relaxed)),
            ("versions_refused_ahead", counts.ahead.load(Relaxed)),
            ("hints_kept", counts.hinted.load(Relaxed)),
            ("hints_delivered", counts.delivered.load(Relaxed)),
            ("hints_dropped", dropped),
            ("hint_bytes", kept),
            ("namespaces_rebuilding", lacking as u64),
        ]
    }
}
