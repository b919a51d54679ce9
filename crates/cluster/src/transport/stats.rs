//! What went to and came from each node.

use kvorum_sync::StoreId;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of one node; they outlive its sessions.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) frames_in: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) frames_out: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) refused_full: AtomicU64,
    pub(super) calls: AtomicU64,
    pub(super) calls_lost: AtomicU64,
    pub(super) sessions: AtomicU64,
}

pub(super) fn add(to: &AtomicU64, number: usize) {
    to.fetch_add(number as u64, Relaxed);
}

/// The transport's state at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TransportStats {
    /// Each node that there is, or was, a session with.
    pub(crate) peers: Vec<PeerStats>,
}

/// What went to and came from a node since this one started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerStats {
    /// The node.
    pub(crate) store: StoreId,
    /// Whether all lanes are up.
    pub(crate) up: bool,
    /// Sessions that were begun.
    pub(crate) sessions: u64,
    /// Frames that came.
    pub(crate) frames_in: u64,
    /// Bytes that came.
    pub(crate) bytes_in: u64,
    /// Frames that went.
    pub(crate) frames_out: u64,
    /// Bytes that went.
    pub(crate) bytes_out: u64,
    /// Writes that carried them.
    pub(crate) writes: u64,
    /// Bytes that wait to be sent.
    pub(crate) queued_bytes: u64,
    /// Messages that were not taken because too many bytes waited.
    pub(crate) refused_full: u64,
    /// Calls that were sent.
    pub(crate) calls: u64,
    /// Calls that were sent and got no answer.
    pub(crate) calls_lost: u64,
}

impl PeerStats {
    pub(super) fn of(store: StoreId, up: bool, queued_bytes: usize, counts: &Counts) -> PeerStats {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        PeerStats {
            store,
            up,
            sessions: count(&counts.sessions),
            frames_in: count(&counts.frames_in),
            bytes_in: count(&counts.bytes_in),
            frames_out: count(&counts.frames_out),
            bytes_out: count(&counts.bytes_out),
            writes: count(&counts.writes),
            queued_bytes: queued_bytes as u64,
            refused_full: count(&counts.refused_full),
            calls: count(&counts.calls),
            calls_lost: count(&counts.calls_lost),
        }
    }
}
