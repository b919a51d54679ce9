//! What a running node does every second.

use crate::error::{Error, Result};
use crate::namespace::Mode;
use crate::namespaces::Namespace;
use crate::node::Inner;
use kvorum_engine::{Durability, Sequence};
use parking_lot::{Condvar, Mutex};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);

/// How often the time is noted when nobody writes, so that compaction can drop what expires.
const NOTE_TIME_EVERY_MS: u64 = 60_000;

/// The thread that does it.
#[derive(Default)]
pub(crate) struct Worker {
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Signal {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Worker {
    /// Ends the thread, and waits for it.
    pub(crate) fn stop(&self) {
        self.signal.end();
        let thread = self.thread.lock().take();
        // The last handle of the node may be the thread's own.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.signal.end();
    }
}

impl Signal {
    fn end(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_all();
    }

    /// Waits for the next round; `false` when there is none.
    fn next(&self) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.changed.wait_for(&mut stopped, EVERY);
        }
        !*stopped
    }
}

/// Starts the thread. It ends with the node.
pub(crate) fn start(inner: &Arc<Inner>) -> Result<()> {
    let (weak, signal) = (Arc::downgrade(inner), Arc::clone(&inner.upkeep.signal));
    let thread = std::thread::Builder::new().name("upkeep".into()).spawn(move || run(&weak, &signal));
    let thread = thread.map_err(|error| Error::Storage(format!("no thread for the upkeep: {error}")))?;
    *inner.upkeep.thread.lock() = Some(thread);
    Ok(())
}

fn run(inner: &Weak<Inner>, signal: &Signal) {
    while signal.next() {
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = inner.upkeep() {
            // Writers meet the same failure and tell their clients; here nothing is lost but time.
            tracing::warn!("upkeep: {error}");
        }
    }
}

impl Inner {
    /// One round.
    pub(crate) fn upkeep(&self) -> Result<()> {
        let now = self.time.now();
        if self.hybrid.wants_raise(now) {
            self.raise_stamp_bound()?;
        }
        let synced = self.store.synced();
        // What is dropped as expired must stay so over a restart.
        let expired = self.time.noted_durably(synced);
        let mut is_used = false;
        for namespace in self.namespaces.all() {
            is_used |= self.upkeep_of(namespace, now, synced, expired)?;
        }
        if is_used && now >= expired.saturating_add(NOTE_TIME_EVERY_MS) {
            let sequence = self.note_expiry(now, now, Durability::Written)?;
            tracing::trace!(now, sequence, "noted the time");
        }
        self.system.forget_history()
    }

    /// Lets compaction know what nobody needs any more of a namespace. Answers whether it is used at all.
    fn upkeep_of(&self, namespace: &Namespace, now: u64, synced: Sequence, expired: u64) -> Result<bool> {
        let settings = namespace.settings();
        let strong = settings.mode == Mode::Strong;
        // For so long a replica that was away can be told what was deleted meanwhile.
        let grace = self.hybrid.now_ms(now).saturating_sub(settings.grace_ms);
        let kept_since = now.saturating_sub(settings.history_ms);
        let mut is_used = false;
        let hold = self.alone();
        let by_itself = hold.as_ref().is_some_and(|hold| hold.covers(namespace));
        for (_, shard) in namespace.shards() {
            let Some(tree) = shard.tree.get() else { continue };
            is_used = true;
            if !by_itself && strong {
                // Its member knows what the others still need.
                continue;
            }
            tree.set_expiry_floor(if strong { expired } else { grace.min(expired) })?;
            if !by_itself && !strong {
                // Other nodes may have been asleep: what joins this node to them knows.
                continue;
            }
            if !strong {
                tree.set_tombstone_floor(self.hybrid.floor(grace))?;
                continue;
            }
            // Nobody else needs its tombstones.
            let floor = shard.latch().next_floor(synced, now, kept_since);
            if let Some(floor) = floor {
                tree.set_floor(floor)?;
                tree.set_tombstone_floor(floor)?;
            }
        }
        Ok(is_used)
    }
}
