//! What openraft is told of this control plane: types and times.

use super::change::{Answers, Proposal};
use super::map::NodeInfo;
use openraft::SnapshotPolicy;
use std::io::Cursor;
use std::sync::Arc;

openraft::declare_raft_types!(
    /// The control plane as openraft sees it: a node's id is its store's. Its membership carries what the nodes said of themselves, so that any
    /// leader can write the first map.
    pub(crate) Types:
        D = Proposal,
        R = Answers,
        NodeId = u64,
        Node = NodeInfo,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
);

pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type LogId = openraft::LogId<u64>;
pub(crate) type Vote = openraft::Vote<u64>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type StoredMembership = openraft::StoredMembership<u64, NodeInfo>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, NodeInfo>;

/// Least time between two heartbeats of the raft leader. It looks every one and a half of it.
const HEARTBEAT_MS: u64 = 100;

/// A follower waits for the lease (the longest of these), then for a time of its own between both, before it stands for election.
const ELECTION_MS: std::ops::Range<u64> = 300..450;

/// Entries between two snapshots.
const SNAPSHOT_EVERY_ENTRIES: u64 = 512;

/// Entries kept behind a snapshot: a node that missed no more gets entries, not the snapshot.
const KEPT_ENTRIES: u64 = 128;

/// Piece of a snapshot on its way to another node.
const SNAPSHOT_PIECE_BYTES: u64 = 512 << 10;

/// One piece of a snapshot must be there, and durable, in this time.
const SNAPSHOT_PIECE_MS: u64 = 10_000;

/// Entries of one message.
const MESSAGE_ENTRIES_MAX: u64 = 64;

/// openraft's settings. The sum of times is in `docs/decisions/040-control-plane.md`.
pub(crate) fn config() -> Arc<openraft::Config> {
    Arc::new(openraft::Config {
        cluster_name: "kvorum".to_owned(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS.start,
        election_timeout_max: ELECTION_MS.end,
        install_snapshot_timeout: SNAPSHOT_PIECE_MS,
        max_payload_entries: MESSAGE_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY_ENTRIES),
        replication_lag_threshold: 2 * SNAPSHOT_EVERY_ENTRIES,
        snapshot_max_chunk_size: SNAPSHOT_PIECE_BYTES,
        max_in_snapshot_log_to_keep: KEPT_ENTRIES,
        ..openraft::Config::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openraft_takes_the_settings_and_three_seconds_hold_them() {
        let config = Arc::unwrap_or_clone(config()).validate().unwrap();
        let look = config.heartbeat_interval * 3 / 2;
        let detection = config.election_timeout_max + config.election_timeout_max + look;
        // A candidate that lacks entries fails; another one stands in its place.
        let second_try = config.election_timeout_max + look;
        assert!(detection + second_try <= 2_000, "{detection} + {second_try}");
    }
}
