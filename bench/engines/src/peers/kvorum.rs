//! Kvorum's engine, one tree, versions counted up; unsynced rows use `Written`, as the peers pay a write call each.

use super::Engine;
use kvorum_engine::{
    Attributes, Batch, Direction, Durability, Parts, Settings, Store, Tree, TreeSettings, View,
};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Write buffers of the peers, which come on top of their caches; Kvorum's budget holds all.
const WRITE_BUFFERS_BYTES: u64 = 3 * (64 << 20);

pub(crate) struct Kvorum {
    store: Store,
    tree: Tree,
    version: AtomicU64,
}

pub(crate) fn open(folder: &Path, cache_bytes: u64) -> Kvorum {
    let mut settings = Settings::default();
    settings.memory_bytes = cache_bytes + WRITE_BUFFERS_BYTES;
    let store = Store::open(folder, settings, Parts::real()).expect("a store");
    let tree = store.tree("rows", TreeSettings::newest_only()).expect("a tree");
    Kvorum { store, tree, version: AtomicU64::new(1) }
}

impl Kvorum {
    /// The longest time that the store made a writer wait.
    pub(crate) fn longest_pause(&self) -> std::time::Duration {
        self.store.stats().longest_pause
    }

    fn write(&self, batch: &Batch, durability: Durability) {
        self.store.write_waiting(batch, durability).and_then(kvorum_engine::Commit::wait).expect("a commit");
    }
}

impl Engine for Kvorum {
    fn put(&self, key: &[u8], value: &[u8], synced: bool) {
        let mut batch = Batch::new();
        let version = self.version.fetch_add(1, Ordering::Relaxed);
        batch.put(&self.tree, key, version, value, Attributes::default());
        self.write(&batch, if synced { Durability::Synced } else { Durability::Written });
    }

    fn put_all(&self, rows: &[([u8; 16], Vec<u8>)]) {
        let mut batch = Batch::new();
        let version = self.version.fetch_add(1, Ordering::Relaxed);
        for (key, value) in rows {
            batch.put(&self.tree, key, version, value, Attributes::default());
        }
        self.write(&batch, Durability::Written);
    }

    fn delete(&self, key: &[u8]) {
        let mut batch = Batch::new();
        batch.delete(&self.tree, key, self.version.fetch_add(1, Ordering::Relaxed), Attributes::default());
        self.write(&batch, Durability::Written);
    }

    fn get(&self, key: &[u8]) -> bool {
        self.tree.get(key, &View::default()).expect("a get").is_some()
    }

    fn scan(&self, start: &[u8], limit: u64) -> u64 {
        let rows = self.tree.range(start.., &View::default(), Direction::Forward).expect("a range");
        rows.take(usize::try_from(limit).unwrap_or(usize::MAX)).map(|row| row.expect("a row")).count() as u64
    }

    fn settle(&self) {
        self.store.flush().expect("a flush");
        self.store.compact().expect("idle");
        // A file that a thread of the store still holds goes with its next turn.
        std::thread::sleep(std::time::Duration::from_secs(3));
    }
}
