//! What all handles of a tree share: where its entries stand, and its floors.

use super::TreeId;
use crate::blob::BlobSet;
use crate::error::{Error, Result};
use crate::iter::{Bounds, Cleared, Clears, Cursor, LevelCursor, MemoryCursor, Merge, TableCursor};
use crate::memtable::{Hashed, Memtable, Summary};
use crate::options::TreeSettings;
use crate::sst::Head;
use crate::types::{Kind, Sequence, Space, Version};
use crate::version::{Files, FloorKind, Levels, TableFile, TreeRecord};
use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

pub(crate) struct TreeState {
    pub(crate) id: TreeId,
    pub(crate) settings: TreeSettings,
    pub(crate) name: RwLock<Arc<str>>,
    pub(crate) sources: ArcSwap<Sources>,
    floors: [AtomicU64; FloorKind::ALL.len()],
    /// The largest version in sealed sources: a write that is not above it is late.
    pub(crate) sealed_largest: AtomicU64,
    /// Everything up to here stands in tables.
    pub(crate) flushed: AtomicU64,
    pub(crate) dropped: AtomicBool,
}

/// Where a tree's entries stand, at a moment. Never changed, only replaced.
#[derive(Clone, Default)]
pub(crate) struct Sources {
    pub(crate) active: Option<Arc<dyn Memtable>>,
    /// Full memtables that wait to be flushed, the newest first.
    pub(crate) sealed: Vec<Arc<dyn Memtable>>,
    pub(crate) levels: Arc<Levels>,
    pub(crate) blobs: Arc<BlobSet>,
    pub(crate) clears: Option<Arc<Clears>>,
}

impl Sources {
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<dyn Memtable>> {
        self.active.iter().chain(self.sealed.iter())
    }

    /// One cursor for each source, the newest first.
    pub(crate) fn cursors(
        &self,
        space: Space,
        bounds: &Bounds,
        backward: bool,
    ) -> Result<Vec<Box<dyn Cursor>>> {
        self.cursors_above(space, bounds, backward, None)
    }

    /// As [`Sources::cursors`], without the tables that end at or below a version.
    pub(crate) fn cursors_above(
        &self,
        space: Space,
        bounds: &Bounds,
        backward: bool,
        since: Option<Version>,
    ) -> Result<Vec<Box<dyn Cursor>>> {
        let above =
            |table: &&Arc<TableFile>| since.is_none_or(|since| table.meta.properties.largest_version > since);
        let mut cursors: Vec<Box<dyn Cursor>> = Vec::new();
        for memtable in self.memtables() {
            cursors.push(Box::new(MemoryCursor::new(Arc::clone(memtable), space, bounds, backward)));
        }
        for (level, tables) in self.levels.iter().enumerate() {
            let tables = match since {
                None => Arc::clone(tables),
                Some(_) => Arc::new(tables.iter().filter(above).cloned().collect()),
            };
            if level > 0 && space == Space::Data {
                if !tables.is_empty() {
                    cursors.push(Box::new(LevelCursor::new(&tables, bounds, backward, false)?));
                }
                continue;
            }
            for table in tables.iter() {
                let properties = &table.meta.properties;
                let wanted = properties.entries_of(space) > 0
                    && (space != Space::Data
                        || bounds.overlaps(&properties.smallest_key, &properties.largest_key));
                if wanted {
                    cursors.push(Box::new(TableCursor::new(table, space, bounds, backward, false)?));
                }
            }
        }
        Ok(cursors)
    }

    /// The first sequence that stands in memory alone.
    pub(crate) fn first_unflushed(&self) -> Option<Sequence> {
        self.memtables().map(|memtable| memtable.summary().first_sequence).filter(|&first| first > 0).min()
    }
}

impl TreeState {
    /// A tree as the manifest has it.
    pub(crate) fn new(id: TreeId, record: &TreeRecord, files: &Arc<Files>) -> Result<TreeState> {
        let mut levels = Levels::default();
        for (level, tables) in record.levels.iter().enumerate() {
            for (meta, foreign) in tables {
                levels.add(level, TableFile::new(files, meta.clone(), *foreign));
            }
        }
        let largest = levels.tables().map(|t| t.meta.properties.largest_version).max().unwrap_or(0);
        let clears = read_clears(&levels)?;
        let blobs = Arc::new(BlobSet::new(files, record.blobs.values().copied()));
        let sources = Sources { levels: Arc::new(levels), blobs, clears, ..Sources::default() };
        Ok(TreeState {
            id,
            settings: if record.newest_only {
                TreeSettings::newest_only()
            } else {
                TreeSettings::with_history()
            },
            name: RwLock::new(record.name.as_str().into()),
            sources: ArcSwap::from_pointee(sources),
            floors: FloorKind::ALL.map(|floor| AtomicU64::new(record.floor(floor))),
            sealed_largest: AtomicU64::new(largest),
            flushed: AtomicU64::new(record.flushed),
            dropped: AtomicBool::new(false),
        })
    }

    pub(crate) fn floor(&self, floor: FloorKind) -> u64 {
        self.floors[floor as usize - 1].load(Acquire)
    }

    pub(crate) fn raise_floor(&self, floor: FloorKind, value: u64) {
        self.floors[floor as usize - 1].fetch_max(value, Release);
    }

    /// The memtable that takes writes. Called by the writer alone.
    pub(crate) fn writable(&self) -> Arc<dyn Memtable> {
        if let Some(active) = &self.sources.load().active {
            return Arc::clone(active);
        }
        let fresh: Arc<dyn Memtable> = Arc::new(Hashed::default());
        self.sources.rcu(|sources| Sources { active: Some(Arc::clone(&fresh)), ..Sources::clone(sources) });
        fresh
    }

    /// Closes the memtable that takes writes, if there is one. Called under the writer's lock, between two batches.
    pub(crate) fn seal(&self) -> bool {
        let Some(active) = self.sources.load().active.clone() else { return false };
        // What is written from now on is late unless it is above all that was sealed.
        self.sealed_largest.fetch_max(active.summary().largest_version, Relaxed);
        self.sources.rcu(|sources| {
            let mut sealed = Vec::with_capacity(sources.sealed.len() + 1);
            sealed.push(Arc::clone(&active));
            sealed.extend(sources.sealed.iter().cloned());
            Sources { active: None, sealed, ..Sources::clone(sources) }
        });
        true
    }

    pub(crate) fn memory(&self) -> Summary {
        let mut total = Summary::default();
        for memtable in self.sources.load().memtables() {
            let summary = memtable.summary();
            total.bytes += summary.bytes;
            total.entries += summary.entries;
        }
        total
    }

    /// Nothing at or below this may be written.
    pub(crate) fn write_floor(&self) -> Version {
        self.floor(if self.settings.newest_only { FloorKind::Gc } else { FloorKind::History })
    }

    pub(crate) fn check_readable(&self, at: Version) -> Result<()> {
        let floor = self.floor(FloorKind::History);
        if at < floor { Err(Error::HistoryGone { asked: at, floor }) } else { Ok(()) }
    }

    pub(crate) fn check_exists(&self) -> Result<()> {
        if self.dropped.load(Acquire) {
            return Err(Error::Invalid(format!("tree {} ({}) was dropped", self.name.read(), self.id)));
        }
        Ok(())
    }

    /// Keeps the list of clears that readers hold ready in step with an operation on them.
    pub(crate) fn note_clear(&self, head: &Head, payload: &[u8]) {
        self.sources.rcu(|sources| {
            let clears = sources.clears.as_deref().cloned().unwrap_or_default();
            Sources {
                clears: Some(Arc::new(with_operation(&clears, head, payload))),
                ..Sources::clone(sources)
            }
        });
    }
}

pub(crate) fn with_operation(clears: &Clears, head: &Head, payload: &[u8]) -> Clears {
    if head.kind == Kind::Clear {
        clears.with(Cleared {
            version: head.version,
            sequence: head.sequence,
            batch: batch_of(payload, head.sequence),
        })
    } else {
        clears.without(head.version, head.sequence)
    }
}

/// A clear's payload is the first sequence of its batch: what was written with it at the same version lives.
pub(crate) fn clear_payload(batch: Sequence) -> [u8; 8] {
    batch.to_le_bytes()
}

fn batch_of(payload: &[u8], sequence: Sequence) -> Sequence {
    payload.try_into().map_or(sequence, Sequence::from_le_bytes)
}

/// The clears that stand in tables, the oldest operation first.
fn read_clears(levels: &Levels) -> Result<Option<Arc<Clears>>> {
    let mut operations: Vec<(Head, Bytes)> = Vec::new();
    for table in levels.tables().filter(|t| t.meta.properties.clears > 0) {
        let mut cursor = TableCursor::new(table, Space::Clears, &Bounds::all(), false, false)?;
        while let Some(head) = cursor.head().copied() {
            operations.push((head, cursor.payload()?));
            cursor.advance()?;
        }
    }
    if operations.is_empty() {
        return Ok(None);
    }
    operations.sort_by_key(|(head, _)| head.sequence);
    let clears = operations
        .iter()
        .fold(Clears::default(), |clears, (head, payload)| with_operation(&clears, head, payload));
    Ok(Some(Arc::new(clears)))
}

/// All entries of a space of some memtables, merged.
pub(crate) fn merge_memtables(memtables: &[Arc<dyn Memtable>], space: Space) -> Merge {
    let cursor = |m: &Arc<dyn Memtable>| {
        Box::new(MemoryCursor::new(Arc::clone(m), space, &Bounds::all(), false)) as Box<dyn Cursor>
    };
    Merge::new(memtables.iter().map(cursor).collect(), space, false)
}
