//! The tables of a tree, by level. Level 0 holds what flushes wrote, the newest first, overlapping; in every deeper level keys don't overlap.

use super::edit::Foreign;
use crate::cache::Cache;
use crate::error::Result;
use crate::fs::Fs;
use crate::sst::{Table, TableMeta};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// How many levels there are, level 0 included.
pub(crate) const LEVELS: usize = 7;

/// Where a store's tables and blobs stand and what reads them.
pub(crate) struct Files {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) tables_dir: PathBuf,
    pub(crate) blobs_dir: PathBuf,
    pub(crate) graveyard: Graveyard,
}

impl Files {
    pub(crate) fn table_path(&self, id: u64) -> PathBuf {
        self.tables_dir.join(format!("{id:012}.sst"))
    }

    pub(crate) fn blob_path(&self, id: u64) -> PathBuf {
        self.blobs_dir.join(format!("{id:012}.blob"))
    }
}

/// Files that nothing points at any more. Whoever drops the last pin only leaves the name here; the background removes them.
#[derive(Default)]
pub(crate) struct Graveyard {
    dead: Mutex<Vec<PathBuf>>,
}

impl Graveyard {
    pub(crate) fn bury(&self, path: &Path) {
        self.dead.lock().push(path.to_owned());
    }

    /// Removes what lies here. A file that can't be removed now is found as an orphan at the next start.
    pub(crate) fn sweep(&self, fs: &dyn Fs) {
        let dead = std::mem::take(&mut *self.dead.lock());
        for path in dead {
            if let Err(error) = fs.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a file that is no longer needed could not be removed");
            }
        }
    }
}

/// A table of the file set. Opened when it is first read; its file goes when it has left the set and the last reader is done.
pub(crate) struct TableFile {
    pub(crate) meta: TableMeta,
    pub(crate) foreign: Option<Foreign>,
    files: Arc<Files>,
    open: OnceLock<Arc<Table>>,
    removed: AtomicBool,
}

impl TableFile {
    pub(crate) fn new(files: &Arc<Files>, meta: TableMeta, foreign: Option<Foreign>) -> Arc<TableFile> {
        Arc::new(TableFile {
            meta,
            foreign,
            files: Arc::clone(files),
            open: OnceLock::new(),
            removed: AtomicBool::new(false),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.meta.id
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.files.table_path(self.meta.id)
    }

    /// The open table.
    pub(crate) fn table(&self) -> Result<&Arc<Table>> {
        if let Some(table) = self.open.get() {
            return Ok(table);
        }
        let table =
            Table::open(Arc::clone(&self.files.fs), &self.path(), self.meta.clone(), &self.files.cache)?;
        Ok(self.open.get_or_init(|| table))
    }

    /// The table if it is open already.
    pub(crate) fn table_if_open(&self) -> Option<&Arc<Table>> {
        self.open.get()
    }

    /// Says that the file left the set durably: it is removed with the last pin.
    pub(crate) fn remove_when_unused(&self) {
        self.removed.store(true, Relaxed);
    }
}

impl Drop for TableFile {
    fn drop(&mut self) {
        if self.removed.load(Relaxed) {
            // Closed first: its blocks leave the cache.
            self.open.take();
            self.files.graveyard.bury(&self.path());
        }
    }
}

/// A tree's tables. Never changed, only replaced.
#[derive(Clone, Default)]
pub(crate) struct Levels {
    levels: [Arc<Vec<Arc<TableFile>>>; LEVELS],
}

impl Levels {
    /// The tables of a level: of level 0 the newest first, of others by key.
    pub(crate) fn level(&self, level: usize) -> &[Arc<TableFile>] {
        self.levels.get(level).map_or(&[], |tables| tables)
    }

    /// All levels, from 0 down.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Vec<Arc<TableFile>>>> {
        self.levels.iter()
    }

    /// All tables, the newest source first.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Arc<TableFile>> {
        self.levels.iter().flat_map(|tables| tables.iter())
    }

    /// The table of a deeper level that may hold the key.
    pub(crate) fn covering(&self, level: usize, key: &[u8]) -> Option<&Arc<TableFile>> {
        let tables = self.level(level);
        let index = tables.partition_point(|t| *t.meta.properties.largest_key < *key);
        tables.get(index).filter(|t| t.meta.properties.covers(key))
    }

    pub(crate) fn add(&mut self, level: usize, table: Arc<TableFile>) {
        let Some(tables) = self.levels.get_mut(level).map(Arc::make_mut) else { return };
        let place = match level {
            // The order of the writes: it is told by their sequences, in whatever order tables came to be.
            0 => {
                let age = table.meta.properties.largest_sequence;
                tables.partition_point(|t| t.meta.properties.largest_sequence > age)
            }
            _ => tables
                .partition_point(|t| t.meta.properties.smallest_key < table.meta.properties.smallest_key),
        };
        tables.insert(place, table);
    }

    /// Takes a table out and answers it, with its level.
    pub(crate) fn remove(&mut self, id: u64) -> Option<(usize, Arc<TableFile>)> {
        for (level, tables) in self.levels.iter_mut().enumerate() {
            if let Some(index) = tables.iter().position(|t| t.id() == id) {
                return Some((level, Arc::make_mut(tables).remove(index)));
            }
        }
        None
    }
}
