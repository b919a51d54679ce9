//! What a store can say of itself.

use crate::compaction::CompactionStats;
use crate::store::Store;
use crate::types::Sequence;
use std::time::Duration;

/// A store's figures at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// Trees.
    pub trees: u64,
    /// The last sequence that readers see.
    pub visible: Sequence,
    /// The last sequence that survives power loss.
    pub synced: Sequence,
    /// Memory of all memtables, in bytes.
    pub memtable_bytes: u64,
    /// Tables.
    pub tables: u64,
    /// Their bytes.
    pub table_bytes: u64,
    /// Entries of all versions, tombstones among them.
    pub entries: u64,
    /// Segments of the log.
    pub wal_segments: u64,
    /// Their bytes.
    pub wal_bytes: u64,
    /// Writes that were told to come again later.
    pub refused_writes: u64,
    /// Snapshots' distinct moments that are held.
    pub snapshots: u64,
    /// Age of the oldest of them.
    pub oldest_snapshot_age: Option<Duration>,
    /// What compactions have done since the store was opened.
    pub compaction: CompactionStats,
    /// Why the store takes no writes, if so.
    pub poisoned: Option<String>,
}

impl Store {
    /// Figures of the store as it is now.
    pub fn stats(&self) -> StoreStats {
        let shared = &self.shared;
        let usage = shared.log.usage();
        let now = shared.parts.clock.monotonic();
        let mut stats = StoreStats {
            visible: self.visible(),
            synced: self.synced(),
            memtable_bytes: shared.stall.used(),
            wal_segments: usage.segments,
            wal_bytes: usage.bytes,
            refused_writes: shared.stall.refused(),
            snapshots: shared.snapshots.sequences().len() as u64,
            oldest_snapshot_age: shared.snapshots.oldest().map(|taken| now.saturating_sub(taken)),
            compaction: shared.compactions.stats(),
            poisoned: shared.log.poison_reason().map(|reason| reason.to_string()),
            ..StoreStats::default()
        };
        for tree in shared.tree_states() {
            let sources = tree.sources.load();
            stats.trees += 1;
            stats.entries += tree.memory().entries;
            for table in sources.levels.tables() {
                stats.tables += 1;
                stats.table_bytes += table.meta.file_bytes;
                stats.entries += table.meta.properties.entries;
            }
        }
        stats
    }
}
