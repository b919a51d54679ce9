//! Snapshots: a sequence that compaction respects as long as it is held.

use crate::types::Sequence;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A moment of the whole store, over all trees. What it sees stays readable until it is dropped.
#[derive(Clone)]
pub struct Snapshot {
    held: Arc<Held>,
}

struct Held {
    live: Arc<Snapshots>,
    sequence: Sequence,
    taken: Duration,
}

/// The snapshots that are held: how many of each sequence, and since when the oldest is.
#[derive(Default)]
pub(crate) struct Snapshots {
    live: Mutex<BTreeMap<(Sequence, Duration), usize>>,
}

impl Snapshots {
    /// Holds the sequence that `visible` answers. It is asked under the lock that compactions take to read the list, so that none misses it.
    pub(crate) fn take(self: &Arc<Self>, visible: impl FnOnce() -> Sequence, now: Duration) -> Snapshot {
        let mut live = self.live.lock();
        let sequence = visible();
        *live.entry((sequence, now)).or_default() += 1;
        Snapshot { held: Arc::new(Held { live: Arc::clone(self), sequence, taken: now }) }
    }

    /// The sequences held, lowest first, each once.
    pub(crate) fn sequences(&self) -> Vec<Sequence> {
        let mut sequences: Vec<_> = self.live.lock().keys().map(|(sequence, _)| *sequence).collect();
        sequences.dedup();
        sequences
    }

    /// When the oldest was taken.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        self.live.lock().keys().map(|(_, taken)| *taken).min()
    }
}

impl Snapshot {
    /// Everything up to this sequence is seen.
    pub fn sequence(&self) -> Sequence {
        self.held.sequence
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut live = self.live.live.lock();
        let key = (self.sequence, self.taken);
        if let Some(count) = live.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                live.remove(&key);
            }
        }
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("sequence", &self.sequence()).finish()
    }
}
