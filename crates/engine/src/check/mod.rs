//! A look at a store that nobody has open: what is damaged, and what can be saved of it. Nothing in its folder is changed.

mod salvage;

use crate::cache::{Cache, CacheSettings};
use crate::error::{Error, Result};
use crate::options::{Parts, Settings};
use crate::recovery;
use crate::sst::{Space, Table, TableIter};
use crate::tree::TreeId;
use crate::version::{Files, Graveyard, StoreState, TreeRecord};
use crate::wal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use salvage::{Salvaged, rebuild, salvage};

/// Damages that are listed; more are counted only.
const LISTED_MAX: usize = 100;
/// Memory for reading.
const CACHE_BYTES: u64 = 8 << 20;
/// Files that are open at once.
const OPEN_FILES_MAX: usize = 64;
const SPACES: [Space; 3] = [Space::Clears, Space::Data, Space::Notes];

/// What [`check`] found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Checked {
    /// Tables and blob files read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records read in the log.
    pub log_records: u64,
    /// What is damaged, the first hundred.
    pub damages: Vec<Error>,
    /// How many damages there are.
    pub damage_count: u64,
}

impl Checked {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.damage_count == 0
    }

    fn damaged(&mut self, error: Error) {
        self.damage_count += 1;
        if self.damages.len() < LISTED_MAX {
            self.damages.push(error);
        }
    }

    /// Notes a failure that is damage; anything else ends the look.
    fn note<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Io { source, path, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                self.damaged(Error::damaged(&path, 0, "a file that the manifest names", "no file"));
                Ok(None)
            }
            Err(damage @ (Error::Damaged { .. } | Error::Invalid(_))) => {
                self.damaged(damage);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads every file of the store in `path` and compares it with its checksums, to the end: one damage does not hide the next. The store must
/// not be open.
///
/// # Errors
/// `Locked` if it is open; `UnknownFormat`; `Damaged` if the manifest is, for without it nothing else can be judged; `Io`.
pub fn check(path: impl AsRef<Path>, settings: &Settings, parts: &Parts) -> Result<Checked> {
    check_showing(path, settings, parts, &mut |_| ())
}

/// As [`check`], and tells after each file how far it is.
///
/// # Errors
/// As [`check`].
pub fn check_showing(
    path: impl AsRef<Path>,
    settings: &Settings,
    parts: &Parts,
    show: &mut dyn FnMut(CheckProgress),
) -> Result<Checked> {
    let source = Source::open(path.as_ref(), settings, parts)?;
    let mut checked = Checked::default();
    let of_bytes = source.state.trees.values().map(file_bytes).sum();
    for record in source.state.trees.values() {
        source.check_tree(record, &mut checked, &mut |bytes| show(CheckProgress { bytes, of_bytes }))?;
    }
    let mut records = 0;
    let log = source.read_log(&mut |_, _| records += 1);
    for damage in log? {
        checked.damaged(damage);
    }
    checked.log_records = records;
    Ok(checked)
}

/// How far a [`check_showing`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckProgress {
    /// Bytes of tables and blob files that were read.
    pub bytes: u64,
    /// Of so many. The log is read after them.
    pub of_bytes: u64,
}

fn file_bytes(record: &TreeRecord) -> u64 {
    let tables = record.levels.iter().flatten().map(|(meta, _)| meta.file_bytes);
    tables.chain(record.blobs.values().map(|blob| blob.file_bytes)).sum()
}

/// A closed store, read but never written.
struct Source {
    files: Arc<Files>,
    state: StoreState,
    wal_dir: PathBuf,
    _lock: Box<dyn Send + Sync>,
}

impl Source {
    fn open(path: &Path, settings: &Settings, parts: &Parts) -> Result<Source> {
        let (lock, state) = recovery::read_closed(path, parts)?;
        Ok(Source::of(path, parts, (lock, state), settings.log_dir(path)))
    }

    /// A store of which only the log is left.
    fn of_log(wal_dir: &Path, parts: &Parts) -> Result<Source> {
        let lock = recovery::take_lock(&*parts.fs, wal_dir)?;
        let mut state = wal::read_catalog(&*parts.fs, wal_dir)?;
        state.needed_from = 1;
        Ok(Source::of(wal_dir, parts, (lock, state), wal_dir.to_owned()))
    }

    fn of(
        path: &Path,
        parts: &Parts,
        (lock, state): (Box<dyn Send + Sync>, StoreState),
        wal_dir: PathBuf,
    ) -> Source {
        let cache = CacheSettings { bytes_max: CACHE_BYTES, open_files_max: OPEN_FILES_MAX };
        let files = Arc::new(Files {
            fs: Arc::clone(&parts.fs),
            cache: Arc::new(Cache::new(cache)),
            tables_dir: path.join("tables"),
            blobs_dir: path.join("blobs"),
            graveyard: Graveyard::default(),
        });
        Source { files, state, wal_dir, _lock: lock }
    }

    fn check_tree(
        &self,
        record: &TreeRecord,
        checked: &mut Checked,
        show: &mut dyn FnMut(u64),
    ) -> Result<()> {
        for (meta, _) in record.levels.iter().flatten() {
            checked.files += 1;
            show(checked.bytes);
            checked.bytes += meta.file_bytes;
            let path = self.files.table_path(meta.id);
            let table = Table::open(Arc::clone(&self.files.fs), &path, meta.clone(), &self.files.cache);
            let Some(table) = checked.note(table)? else { continue };
            let before = checked.damage_count;
            each_block(&table, checked, &mut |_, _| Ok(()))?;
            if checked.damage_count == before {
                // What no block covers: filter, index, the space between.
                checked.note(table.verify_hash())?;
            }
        }
        for blob in record.blobs.values() {
            checked.files += 1;
            checked.bytes += blob.file_bytes;
            checked.note(blob.verify(&*self.files.fs, &self.files.blob_path(blob.id)))?;
            show(checked.bytes);
        }
        show(checked.bytes);
        Ok(())
    }

    /// Gives every whole record of the log to `replay`, in order; answers what is damaged in between.
    fn read_log(&self, replay: &mut dyn FnMut(crate::Sequence, &[u8])) -> Result<Vec<Error>> {
        let dir = &self.wal_dir;
        if !self.files.fs.exists(dir).map_err(|e| Error::io("look for", dir, e))? {
            // A checkpoint has no log until it is opened.
            let lost = || Error::damaged(dir, 0, "the folder of the log", "no folder");
            return Ok(self.state.log_begins.is_none().then(lost).into_iter().collect());
        }
        wal::read_whole_records(&*self.files.fs, &self.wal_dir, self.state.needed_from.max(1), replay)
    }

    fn trees(&self) -> impl Iterator<Item = (TreeId, &TreeRecord)> {
        self.state.trees.iter().map(|(&id, record)| (id, record))
    }
}

/// Visits all entries of a table that can be read, block by block: a damaged block is noted and passed by.
fn each_block(
    table: &Arc<Table>,
    checked: &mut Checked,
    visit: &mut dyn FnMut(Space, &TableIter) -> Result<()>,
) -> Result<()> {
    for space in SPACES {
        for block in 0..TableIter::new(Arc::clone(table), space).blocks() {
            let mut iter = TableIter::new(Arc::clone(table), space);
            if checked.note(iter.seek_block(block))?.is_none() {
                continue;
            }
            while iter.head().is_some() && iter.block() == block {
                visit(space, &iter)?;
                if iter.next().is_err() {
                    // The next block's damage, noted when its turn comes; or this one's, whose rest can't be told apart.
                    break;
                }
            }
        }
    }
    Ok(())
}
