//! What unit tests share.

use crate::latch::ShardId;
use crate::namespace::NamespaceId;
use kvorum_engine::Clock;
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
