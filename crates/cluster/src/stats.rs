//! Figures about a node.

use crate::backup::SaveStats;
use crate::namespace::NamespaceId;
use crate::node::Node;
use kvorum_engine::StoreStats;
use std::time::Duration;

/// Figures about a node, for `INFO` and `/metrics`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeStats {
    /// Time since it was opened.
    pub uptime: Duration,
    /// The store's id, as 32 hexadecimal digits: random, made with the store.
    pub store_id: String,
    /// The store's epoch: rises by one at every start.
    pub epoch: u64,
    /// Namespaces that were ever written to.
    pub namespaces: Vec<NamespaceStats>,
    /// Why the store takes no writes until the node is started again, if so.
    pub poisoned: Option<String>,
    /// Checkpoints and backups.
    pub saves: SaveStats,
    /// Figures of the storage engine, by name, for `/metrics`.
    pub engine: Vec<(&'static str, u64)>,
    /// Figures of its part in the available namespaces of a cluster, by name; none of a node alone.
    pub available: Vec<(&'static str, u64)>,
}

/// Figures about a namespace.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NamespaceStats {
    /// The namespace.
    pub namespace: NamespaceId,
    /// Its name.
    pub name: String,
    /// About how many keys it has, entries of older versions and tombstones counted in; `DBSIZE` counts exactly.
    pub keys_estimate: u64,
}

pub(crate) fn collect(node: &Node) -> NodeStats {
    let inner = &*node.inner;
    let used = inner.namespaces.all().filter(|namespace| namespace.has_trees());
    let namespaces = used.map(|namespace| NamespaceStats {
        namespace: namespace.id,
        name: namespace.name(),
        keys_estimate: inner.trees(namespace.id).map(|(_, tree)| tree.stats().entries).sum(),
    });
    NodeStats {
        uptime: inner.clock.monotonic().saturating_sub(inner.opened_at),
        store_id: inner.store_id.iter().map(|byte| format!("{byte:02x}")).collect(),
        epoch: inner.epoch,
        namespaces: namespaces.collect(),
        poisoned: inner.store.stats().poisoned,
        saves: inner.saves.stats(inner.store.visible()),
        engine: engine(node),
        available: inner.cluster.get().map(|cluster| cluster.available.figures()).unwrap_or_default(),
    }
}

fn engine(node: &Node) -> Vec<(&'static str, u64)> {
    let stats = node.inner.store.stats();
    let mut figures = vec![
        ("trees", stats.trees),
        ("entries", stats.entries),
        ("visible_sequence", stats.visible),
        ("synced_sequence", stats.synced),
        ("poisoned", u64::from(stats.poisoned.is_some())),
        ("batches", stats.batches),
        ("user_bytes", stats.user_bytes),
        ("late_entries", stats.late_entries),
        ("retracts", stats.retracts),
        ("refused_writes", stats.refused_writes),
        ("longest_pause_microseconds", microseconds(stats.longest_pause)),
        ("background_wait_microseconds", microseconds(stats.background_wait)),
        ("snapshots", stats.snapshots),
        ("oldest_snapshot_seconds", stats.oldest_snapshot_age.map_or(0, |age| age.as_secs())),
        ("write_amplification_milli", stats.write_amplification_milli()),
        ("read_amplification_milli", stats.read_amplification_milli),
        ("space_amplification_milli", stats.space_amplification_milli()),
        ("read_sources_max", stats.sources_max),
        ("cache_misses", stats.cache_misses),
    ];
    figures.extend(memory(&stats));
    figures.extend(disk(&stats));
    figures.extend(levels(&stats));
    figures
}

/// What is kept in memory, in bytes.
fn memory(stats: &StoreStats) -> [(&'static str, u64); 3] {
    [
        ("memtable_bytes", stats.memtable_bytes),
        ("pinned_bytes", stats.pinned_bytes),
        ("cache_bytes", stats.cache_bytes),
    ]
}

/// Files, and what was written to them.
fn disk(stats: &StoreStats) -> [(&'static str, u64); 17] {
    let compaction = &stats.compaction;
    [
        ("tables", stats.tables),
        ("table_bytes", stats.table_bytes),
        ("blob_bytes", stats.blob_bytes),
        ("dead_blob_bytes", stats.dead_blob_bytes),
        ("wal_segments", stats.wal_segments),
        ("wal_bytes", stats.wal_bytes),
        ("wal_pinned_from_sequence", stats.wal_pinned_by.as_ref().map_or(0, |(_, first)| *first)),
        ("settled_bytes", stats.settled_bytes),
        ("log_written_bytes", stats.log_written_bytes),
        ("flushes", stats.flushes),
        ("flushed_bytes", stats.flushed_bytes),
        ("compactions", compaction.jobs),
        ("compaction_moves", compaction.moves),
        ("compaction_read_bytes", compaction.read_bytes),
        ("compaction_written_bytes", compaction.written_bytes),
        ("compaction_dropped_entries", compaction.dropped_entries),
        ("compaction_debt_bytes", stats.compaction_debt_bytes),
    ]
}

/// Bytes of each level.
fn levels(stats: &StoreStats) -> impl Iterator<Item = (&'static str, u64)> {
    const NAMES: [&str; 7] = [
        "level_0_bytes",
        "level_1_bytes",
        "level_2_bytes",
        "level_3_bytes",
        "level_4_bytes",
        "level_5_bytes",
        "level_6_bytes",
    ];
    NAMES.into_iter().zip(stats.levels).map(|(name, level)| (name, level.bytes))
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
