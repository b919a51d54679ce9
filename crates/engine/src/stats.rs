//! What a store can say of itself.

use crate::blob::live_bytes;
use crate::cache::Records;
use crate::compaction::CompactionStats;
use crate::store::{Shared, Store};
use crate::tree::{Sources, TreeState};
use crate::types::{Kind, Sequence};
use crate::version::LEVELS;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counted since the store was opened.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) batches: AtomicU64,
    /// Bytes of the batches' records: what the callers gave, in the form of the log.
    pub(crate) record_bytes: AtomicU64,
    pub(crate) late: AtomicU64,
    pub(crate) retracts: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) flushed_bytes: AtomicU64,
}

impl Counters {
    /// Counts an operation. Under the writer's lock, so a plain load and store do.
    pub(crate) fn operation(&self, kind: Kind, late: bool) {
        let add = |counter: &AtomicU64| counter.store(counter.load(Relaxed) + 1, Relaxed);
        if late {
            add(&self.late);
        }
        if kind == Kind::Retract {
            add(&self.retracts);
        }
    }
}

/// A store's figures at a moment. Counts are since it was opened.
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
    /// Memory of indexes and filters, in bytes.
    pub pinned_bytes: u64,
    /// Memory of cached blocks, values and whole answers, in bytes.
    pub cache_bytes: u64,
    /// Lookups in the cache that found nothing.
    pub cache_misses: u64,
    /// Tables.
    pub tables: u64,
    /// Their bytes.
    pub table_bytes: u64,
    /// Tables and bytes by level.
    pub levels: [LevelStats; LEVELS],
    /// The most sources that a lookup in one of the trees may have to ask.
    pub sources_max: u64,
    /// How many sources a lookup may have to ask, in thousandths: the mean over all entries.
    pub read_amplification_milli: u64,
    /// Bytes of the deepest level in use of each tree, and of live values apart: about what a store without garbage would take.
    pub settled_bytes: u64,
    /// Entries of all versions, tombstones among them.
    pub entries: u64,
    /// Bytes of blob files.
    pub blob_bytes: u64,
    /// Of these, what no table points at any more.
    pub dead_blob_bytes: u64,
    /// Batches written.
    pub batches: u64,
    /// Their bytes: what write amplification is counted against.
    pub user_bytes: u64,
    /// Bytes that went to the log.
    pub log_written_bytes: u64,
    /// Bytes that flushes wrote.
    pub flushed_bytes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Bytes that compaction has yet to bring where they belong: of level 0, and of levels beyond their targets.
    pub compaction_debt_bytes: u64,
    /// What compactions have done.
    pub compaction: CompactionStats,
    /// How long compactions waited to keep to [`Settings::background_bytes_per_second`](crate::Settings::background_bytes_per_second).
    pub background_wait: Duration,
    /// Entries that came with a version not above what was sealed already.
    pub late_entries: u64,
    /// Retracts written.
    pub retracts: u64,
    /// Segments of the log.
    pub wal_segments: u64,
    /// Their bytes.
    pub wal_bytes: u64,
    /// The tree that holds back the oldest segment, with the first sequence that it needs.
    pub wal_pinned_by: Option<(Arc<str>, Sequence)>,
    /// Writes that were told to come again later.
    pub refused_writes: u64,
    /// The longest that a write of [`Store::write_waiting`] was held back.
    pub longest_pause: Duration,
    /// Snapshots' distinct moments that are held.
    pub snapshots: u64,
    /// Age of the oldest of them.
    pub oldest_snapshot_age: Option<Duration>,
    /// Why the store takes no writes, if so.
    pub poisoned: Option<String>,
}

/// A level of all trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LevelStats {
    /// Tables.
    pub tables: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl StoreStats {
    /// Bytes written for each byte given, in thousandths: to the log, by flushes and compactions.
    pub fn write_amplification_milli(&self) -> u64 {
        let written = self.log_written_bytes + self.flushed_bytes + self.compaction.written_bytes;
        written.saturating_mul(1000) / self.user_bytes.max(1)
    }

    /// Bytes of tables and blob files for each byte that a store without garbage would take, in thousandths; 1000 for one without files.
    pub fn space_amplification_milli(&self) -> u64 {
        let taken = self.table_bytes + self.blob_bytes;
        taken.saturating_mul(1000).checked_div(self.settled_bytes).unwrap_or(1000)
    }
}

impl Store {
    /// Figures of the store as it is now.
    pub fn stats(&self) -> StoreStats {
        let shared = &self.shared;
        let mut stats = figures(shared);
        let mut asked = 0_u128;
        for tree in shared.tree_states() {
            let before = stats.entries;
            let sources = add_tree(&mut stats, &tree);
            asked += u128::from(stats.entries - before) * u128::from(sources);
            stats.compaction_debt_bytes += shared.compaction_debt(&tree);
        }
        let mean = asked * 1000 / u128::from(stats.entries.max(1));
        stats.read_amplification_milli = u64::try_from(mean).unwrap_or(u64::MAX);
        stats
    }
}

fn figures(shared: &Shared) -> StoreStats {
    let usage = shared.log.usage();
    let now = shared.parts.clock.monotonic();
    let cache = shared.files.cache.stats();
    let counters = &shared.counters;
    StoreStats {
        visible: shared.visible(),
        synced: shared.log.synced(),
        memtable_bytes: shared.stall.used(),
        pinned_bytes: cache.pinned_bytes,
        cache_bytes: cache.block_bytes + shared.records.as_ref().map_or(0, Records::bytes),
        cache_misses: cache.misses,
        batches: counters.batches.load(Relaxed),
        user_bytes: counters.record_bytes.load(Relaxed),
        log_written_bytes: usage.written_bytes,
        flushes: counters.flushes.load(Relaxed),
        flushed_bytes: counters.flushed_bytes.load(Relaxed),
        background_wait: shared.pace.total_waited(),
        late_entries: counters.late.load(Relaxed),
        retracts: counters.retracts.load(Relaxed),
        wal_segments: usage.segments,
        wal_bytes: usage.bytes,
        refused_writes: shared.stall.refused(),
        longest_pause: shared.stall.longest_pause(),
        snapshots: shared.snapshots.sequences().len() as u64,
        oldest_snapshot_age: shared.snapshots.oldest().map(|taken| now.saturating_sub(taken)),
        compaction: shared.compactions.stats(),
        poisoned: shared.log.poison_reason().map(|reason| reason.to_string()),
        ..StoreStats::default()
    }
}

/// Adds a tree's figures; answers how many sources a lookup in it may have to ask.
fn add_tree(stats: &mut StoreStats, tree: &TreeState) -> u64 {
    let sources = tree.sources.load_full();
    stats.trees += 1;
    stats.entries += tree.memory().entries;
    for (tables, level) in sources.levels.iter().zip(&mut stats.levels) {
        level.tables += tables.len() as u64;
        level.bytes += tables.iter().map(|table| table.meta.file_bytes).sum::<u64>();
    }
    for table in sources.levels.tables() {
        stats.tables += 1;
        stats.table_bytes += table.meta.file_bytes;
        stats.entries += table.meta.properties.entries;
    }
    let asked = sources_asked(&sources);
    stats.sources_max = stats.sources_max.max(asked);
    let deepest = sources.levels.iter().filter(|tables| !tables.is_empty()).last();
    stats.settled_bytes += deepest.map_or(0, |level| level.iter().map(|table| table.meta.file_bytes).sum());
    let live: u64 = live_bytes(sources.levels.tables().map(|table| &table.meta)).values().sum();
    let all: u64 = sources.blobs.iter().map(|blob| blob.meta.value_bytes).sum();
    stats.blob_bytes += sources.blobs.iter().map(|blob| blob.meta.file_bytes).sum::<u64>();
    stats.dead_blob_bytes += all.saturating_sub(live);
    stats.settled_bytes += live;
    if let Some(first) = sources.first_unflushed()
        && stats.wal_pinned_by.as_ref().is_none_or(|(_, pinned)| first < *pinned)
    {
        stats.wal_pinned_by = Some((Arc::clone(&tree.name.read()), first));
    }
    asked
}

fn sources_asked(sources: &Sources) -> u64 {
    let deeper = sources.levels.iter().skip(1).filter(|tables| !tables.is_empty()).count();
    (sources.memtables().count() + sources.levels.level(0).len() + deeper) as u64
}
