//! What the server counts since its start.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Totals of the whole server.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Connections that were taken, of both doors.
    pub(crate) connections: AtomicU64,
    /// Connections refused because there were too many.
    pub(crate) refused: AtomicU64,
    /// Commands of the Redis protocol.
    pub(crate) commands: AtomicU64,
    /// Requests of HTTP.
    pub(crate) requests: AtomicU64,
    /// Bytes read from clients of the Redis protocol.
    pub(crate) input_bytes: AtomicU64,
    /// Bytes sent to them.
    pub(crate) output_bytes: AtomicU64,
    /// Commands whose data was not in memory.
    pub(crate) cold_reads: AtomicU64,
    /// Writes whose outcome could not be told.
    pub(crate) unknown_outcomes: AtomicU64,
}

/// Adds to a total.
pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Relaxed);
}

/// The total now.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}
