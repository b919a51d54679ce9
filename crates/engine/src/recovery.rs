//! Opening a store: lock, format, manifest, files, log, in this order. Nothing is removed before the manifest was verified.

use crate::cache::{Cache, CacheSettings};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::options::{Parts, Settings, WalRetention};
use crate::planted::{Planted, is_planted};
use crate::store::{Recovered, Trees, replay};
use crate::tree::TreeState;
use crate::types::Sequence;
use crate::version::{Files, Graveyard, StoreState, VersionSet, read_manifest, read_whole, write_whole};
use crate::wal::{Log, LogSettings, write_catalog};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const LOCK: &str = "LOCK";
const FORMAT: &str = "FORMAT";
const FORMAT_CONTENT: &str = "kvorum store\nformat 1\n";
const FORMATS: &str = "1";
/// Files that are open at once for reading.
const OPEN_FILES_MAX: usize = 512;
/// Room in the log's buffer beside the largest batch.
const LOG_BUFFER_SLACK_BYTES: u64 = 1 << 20;

/// Recovers the store of a folder, or makes an empty one.
pub(crate) fn open(path: &Path, settings: Settings, parts: Parts) -> Result<Recovered> {
    let fs = Arc::clone(&parts.fs);
    let files = Arc::new(Files {
        fs: Arc::clone(&fs),
        cache: Arc::new(Cache::new(CacheSettings {
            bytes_max: settings.cache_bytes(),
            open_files_max: OPEN_FILES_MAX,
        })),
        tables_dir: path.join("tables"),
        blobs_dir: path.join("blobs"),
        graveyard: Graveyard::default(),
    });
    make_dir(&*fs, path)?;
    let lock = take_lock(&*fs, path)?;
    let is_new = check_format(&*fs, path)?;
    make_dir(&*fs, &files.tables_dir)?;
    make_dir(&*fs, &files.blobs_dir)?;
    let (number, state) = read_state(&*fs, path, is_new)?;
    check_files(&files, &state)?;
    let mut trees = Trees::default();
    for (&id, record) in &state.trees {
        trees.insert(Arc::new(TreeState::new(id, record, &files)?));
    }
    let begins = LogBegins {
        needed_from: state.needed_from.max(1),
        reaches: state.trees.values().map(|tree| tree.flushed).max().unwrap_or(0),
        begins_at: state.log_begins.unwrap_or(1),
    };
    let fresh = state.trees.is_empty() && number == 0;
    let versions = VersionSet::begin(Arc::clone(&fs), path, number + 1, state)?;
    let (log, last_sequence) = open_log(&fs, path, &settings, begins, &trees, fresh)?;
    if settings.wal_retention == WalRetention::All {
        // A crash may have come between a change of the trees' names and this.
        versions.read(|state| write_catalog(&*fs, &settings.log_dir(path), state))?;
    }
    Ok(Recovered { path: path.to_owned(), settings, parts, files, log, versions, trees, last_sequence, lock })
}

/// Locks a store and reads its manifest, changing nothing.
pub(crate) fn read_closed(path: &Path, parts: &Parts) -> Result<(Box<dyn Send + Sync>, StoreState)> {
    let fs = &*parts.fs;
    let format = path.join(FORMAT);
    if !fs.exists(&format).map_err(|e| Error::io("look for", &format, e))? {
        return Err(Error::damaged(&format, 0, "the format of a store", "no file"));
    }
    let lock = take_lock(fs, path)?;
    check_format(fs, path)?;
    let (_, state) = read_state(fs, path, false)?;
    Ok((lock, state))
}

/// Creates a folder if need be, its name durable, and those of the folders that were created above it.
pub(crate) fn make_dir(fs: &dyn Fs, dir: &Path) -> Result<()> {
    // Itself also if it was there: a process that was killed may have created it and not come to the sync.
    let mut unsure = vec![dir];
    for above in dir.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        if fs.exists(above).map_err(|e| Error::io("look for", above, e))? {
            break;
        }
        unsure.push(above);
    }
    fs.create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let parents = unsure.into_iter().rev().filter_map(Path::parent).filter(|p| !p.as_os_str().is_empty());
    parents.into_iter().try_for_each(|parent| fs.sync_dir(parent).map_err(|e| Error::io("sync", parent, e)))
}

pub(crate) fn take_lock(fs: &dyn Fs, path: &Path) -> Result<Box<dyn Send + Sync>> {
    let file = path.join(LOCK);
    fs.lock(&file).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { path: path.to_owned() },
        _ => Error::io("lock", &file, error),
    })
}

/// Marks a folder as a store of this format.
pub(crate) fn write_format(fs: &dyn Fs, path: &Path) -> Result<()> {
    write_whole(fs, path, FORMAT, FORMAT_CONTENT.as_bytes())
}

/// Refuses what this program does not know; marks a new folder. Answers whether it is one.
fn check_format(fs: &dyn Fs, path: &Path) -> Result<bool> {
    let file = path.join(FORMAT);
    if !fs.exists(&file).map_err(|e| Error::io("look for", &file, e))? {
        let current = path.join("CURRENT");
        if fs.exists(&current).map_err(|e| Error::io("look for", &current, e))? {
            return Err(Error::damaged(&file, 0, "the format of the store", "no file"));
        }
        write_format(fs, path)?;
        return Ok(true);
    }
    let content = read_whole(fs, &file, 1 << 10)?;
    let content = String::from_utf8_lossy(&content);
    if content == FORMAT_CONTENT {
        return Ok(false);
    }
    Err(Error::UnknownFormat { path: path.to_owned(), found: format!("{content:?}"), supported: FORMATS })
}

fn read_state(fs: &dyn Fs, path: &Path, is_new: bool) -> Result<(u64, StoreState)> {
    let mut state = StoreState::default();
    if is_new {
        return Ok((0, state));
    }
    // A crash may have come between marking the folder and the first manifest: then there is no log either, which is checked below.
    let Some(stored) = read_manifest(fs, path)? else { return Ok((0, state)) };
    for change in stored.changes {
        let applied = state.apply(change);
        applied.map_err(|what| {
            Error::damaged(&path.join("CURRENT"), 0, "a manifest whose edits fit together", what)
        })?;
    }
    Ok((stored.number, state))
}

/// Every file of the set must be there; what no edit knows is removed, if its id says that it was ours.
fn check_files(files: &Files, state: &StoreState) -> Result<()> {
    let tables =
        state.trees.values().flat_map(|tree| tree.levels.iter().flatten()).map(|(meta, _)| meta.id).collect();
    let blobs = state.trees.values().flat_map(|tree| tree.blobs.keys().copied()).collect();
    check_dir(files, &files.tables_dir, "sst", &tables, state.next_file)?;
    check_dir(files, &files.blobs_dir, "blob", &blobs, state.next_file)
}

fn check_dir(files: &Files, dir: &Path, extension: &str, live: &BTreeSet<u64>, next_file: u64) -> Result<()> {
    let mut missing = live.clone();
    for entry in files.fs.list(dir).map_err(|e| Error::io("list", dir, e))? {
        let path = dir.join(&entry.name);
        let (stem, rest) = entry.name.split_once('.').unwrap_or((&entry.name, ""));
        let id = stem.parse::<u64>().ok().filter(|_| !entry.is_dir);
        match id {
            Some(id) if rest == extension && live.contains(&id) => drop(missing.remove(&id)),
            Some(id) if id < next_file && !is_planted(Planted::OrphansStay) => {
                files.fs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
            }
            _ => {
                tracing::warn!(path = %path.display(), "a file that this store did not make; it is left alone");
            }
        }
    }
    match missing.first() {
        Some(id) => Err(Error::damaged(
            &dir.join(format!("{id:012}.{extension}")),
            0,
            "a file that the manifest names",
            "no file",
        )),
        None => Ok(()),
    }
}

/// What the manifest says of the log.
#[derive(Clone, Copy)]
struct LogBegins {
    needed_from: Sequence,
    reaches: Sequence,
    begins_at: Sequence,
}

fn open_log(
    fs: &Arc<dyn Fs>,
    path: &Path,
    settings: &Settings,
    begins: LogBegins,
    trees: &Trees,
    fresh: bool,
) -> Result<(Arc<Log>, Sequence)> {
    let dir = settings.log_dir(path);
    let batch = settings.batch_limit_bytes();
    let buffer = batch + batch.min(LOG_BUFFER_SLACK_BYTES);
    let log_settings = LogSettings {
        segment_bytes: settings.wal_segment_bytes,
        buffer_bytes_max: usize::try_from(buffer).unwrap_or(usize::MAX),
        retention: settings.wal_retention,
        needed_from: begins.needed_from,
        reaches: begins.reaches,
        begins_at: begins.begins_at,
    };
    let mut restore = |first: Sequence, record: &[u8]| {
        if fresh {
            return Err(Error::damaged(
                &path.join("CURRENT"),
                0,
                format!(
                    "the manifest of the store that wrote the log in {0} (a log that was kept whole by wal_retention = all is enough: \
                     `kvorum check {0} --rebuild TARGET` makes the store anew)",
                    dir.display()
                ),
                "no file",
            ));
        }
        let restored = replay(trees, first, record);
        restored.map_err(|what| {
            Error::damaged(&dir, 0, format!("{what} in the record at sequence {first}"), "other bytes")
        })
    };
    let (log, recovered) = Log::open(Arc::clone(fs), &dir, &log_settings, &mut restore)?;
    if let Some((segment, offset)) = &recovered.torn {
        tracing::info!(segment = %segment.display(), offset, "a crash tore the end of the log; what stood there was not acknowledged as synced");
    }
    Ok((log, recovered.next_sequence - 1))
}
