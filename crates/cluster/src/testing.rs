//! What unit tests share.

use crate::latch::ShardId;
use crate::namespace::NamespaceId;
use kvorum_engine::fs::sim::SimFs;
use kvorum_engine::{Clock, Parts, Settings, Store, Tree, TreeSettings};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// A clock that stands still until it is set.
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn at(unix_ms: u64) -> Arc<TestClock> {
        Arc::new(TestClock(AtomicU64::new(unix_ms)))
    }

    pub(crate) fn set(&self, unix_ms: u64) {
        self.0.store(unix_ms, SeqCst);
    }
}

impl Clock for TestClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.unix_ms())
    }

    fn unix_ms(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

/// A shard of the first namespace.
pub(crate) fn shard_id(place: u16) -> ShardId {
    ShardId::of(NamespaceId::ZERO, place)
}

/// A store with one tree, on a disk that can be made to fail. Nothing happens in it by itself.
pub(crate) fn store_on(fs: &SimFs, tree: TreeSettings) -> (Store, Tree) {
    let parts = Parts::new(Arc::new(fs.clone()), TestClock::at(1));
    let mut settings = Settings::default();
    settings.background_threads = false;
    settings.memory_bytes = 8 << 20;
    let store = Store::open("/data", settings, parts).unwrap();
    let tree = store.tree("t", tree).unwrap();
    (store, tree)
}
