//! Trees as files: given out as links to their tables, and taken in from another store.

use super::Tree;
use super::origin::{ORIGIN, Origin};
use super::state::with_operation;
use crate::blob::BlobStore;
use crate::error::{Error, Result};
use crate::flush::Arrived;
use crate::fs::Fs;
use crate::iter::{Cleared, Clears};
use crate::sst::{TableIter, TableMeta};
use crate::types::{Space, Version};
use crate::version::{BlobFile, Change, Files, Foreign, TableFile};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes copied at once where a file can't be linked.
const COPY_BYTES: usize = 1 << 20;

/// The files of a tree, as [`Tree::export`] left them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Each with its length.
    pub files: Vec<(PathBuf, u64)>,
    /// The largest version in them.
    pub largest_version: Version,
}

impl Tree {
    /// Puts the files of the tree, with everything written so far, into a new folder: as links where the device allows it. What was pending
    /// is among it: [`Tree::ingest`] takes a ceiling.
    ///
    /// # Errors
    /// `Io` and `DiskFull` of the files written, `Poisoned`, `Invalid` if there is something in the folder.
    pub fn export(&self, dir: impl AsRef<Path>) -> Result<Exported> {
        let (dir, shared) = (dir.as_ref(), &self.shared);
        shared.check_open()?;
        self.state.check_exists()?;
        new_folder(&*shared.parts.fs, dir)?;
        shared.flush_trees(&[Arc::clone(&self.state)])?;
        // Pinned under the lock of the file set, so that tables and blobs belong together.
        let (pin, record) = shared
            .versions
            .read(|state| (self.state.sources.load_full(), state.trees.get(&self.state.id).cloned()));
        let record = record.ok_or_else(|| Error::Invalid(format!("tree {} was dropped", self.state.id)))?;
        let mut exported = Exported { files: Vec::new(), largest_version: 0 };
        for table in pin.levels.tables() {
            let to = dir.join(format!("{:012}.sst", table.id()));
            link(&*shared.parts.fs, &table.path(), &to)?;
            exported.files.push((to, table.meta.file_bytes));
            exported.files.extend(Origin::write(&*shared.parts.fs, dir, table)?);
            exported.largest_version = exported.largest_version.max(table.meta.properties.largest_version);
        }
        for blob in record.blobs.values() {
            let to = dir.join(format!("{:012}.blob", blob.id));
            link(&*shared.parts.fs, &shared.files.blob_path(blob.id), &to)?;
            exported.files.push((to, blob.file_bytes));
        }
        shared.parts.fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
        Ok(exported)
    }

    /// Takes in the files of another store's tree, in the order in which [`Tree::export`] gave them, all at once. What they hold above the ceiling is not seen and goes in time. Floors don't
    /// matter here. Everything taken in is seen by every snapshot, so nobody should read the tree meanwhile: `docs/decisions/015` says why.
    ///
    /// The files stay where they are; they are linked, or copied where they can't be.
    ///
    /// # Errors
    /// `Damaged` and `UnknownFormat` of the files, `Invalid` if one that a table points into is missing; `Io`, `DiskFull`, `Poisoned`.
    pub fn ingest(&self, files: &[impl AsRef<Path>], ceiling: Version) -> Result<()> {
        let shared = &self.shared;
        shared.check_open()?;
        self.state.check_exists()?;
        let fs = &*shared.parts.fs;
        let mut taken = Taken::default();
        let result = self.take_in(files, ceiling, &mut taken);
        // An edit that failed can still be found in the manifest: then the files must be there.
        if result.is_err() && !shared.versions.has_failed() {
            for path in &taken.paths {
                // Of what is left the next start rids us.
                let _ = fs.remove(path);
            }
        }
        result
    }

    fn take_in(&self, files: &[impl AsRef<Path>], ceiling: Version, taken: &mut Taken) -> Result<()> {
        let shared = &self.shared;
        let named = |extension: &str| {
            files
                .iter()
                .map(AsRef::as_ref)
                .filter(|f| f.extension().is_some_and(|e| e == extension))
                .collect::<Vec<_>>()
        };
        for path in named("blob") {
            self.take_blob(path, taken)?;
        }
        for path in named(ORIGIN) {
            taken.origins.insert(path.with_extension("sst"), Origin::read(&*shared.parts.fs, path)?);
        }
        for path in named("sst") {
            self.take_table(path, ceiling, taken)?;
        }
        for dir in [&shared.files.tables_dir, &shared.files.blobs_dir] {
            shared.parts.fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
        }
        shared.install_foreign(&self.state, self.arrived(taken)?)
    }

    /// What is to be installed: the first table given is the newest.
    fn arrived(&self, taken: &mut Taken) -> Result<Arrived> {
        let (files, tree) = (&self.shared.files, self.state.id);
        let added = |&blob: &BlobFile| Change::BlobAdded { tree, blob };
        let blobs_added = taken.blobs_added.iter().map(added).collect();
        let blobs = taken.blobs_added.iter().map(|&blob| BlobStore::new(files, blob)).collect();
        let tables: Vec<(TableMeta, Foreign)> = taken.tables.drain(..).rev().collect();
        let seen =
            |(meta, foreign): &(TableMeta, Foreign)| meta.properties.largest_version.min(foreign.ceiling);
        let largest_version = tables.iter().map(seen).max();
        let clears = foreign_clears(files, &tables)?;
        Ok(Arrived { tables, blobs, clears, largest_version: largest_version.unwrap_or(0), blobs_added })
    }

    fn take_blob(&self, from: &Path, taken: &mut Taken) -> Result<()> {
        let shared = &self.shared;
        let stem = from.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        let theirs =
            stem.ok_or_else(|| Error::Invalid(format!("{} is not named as a blob file is", from.display())))?;
        let id = shared.versions.new_file_id()?;
        let to = shared.files.blob_path(id);
        taken.paths.push(to.clone());
        link(&*shared.parts.fs, from, &to)?;
        let blob = BlobFile::of_file(&*shared.parts.fs, &to, id)?;
        taken.blobs.insert(theirs, id);
        taken.blobs_added.push(blob);
        Ok(())
    }

    fn take_table(&self, from: &Path, ceiling: Version, taken: &mut Taken) -> Result<()> {
        let shared = &self.shared;
        let id = shared.versions.new_file_id()?;
        let to = shared.files.table_path(id);
        taken.paths.push(to.clone());
        link(&*shared.parts.fs, from, &to)?;
        let mut meta = TableMeta::of_file(&*shared.parts.fs, &to, id)?;
        let blobs = &mut meta.properties.blobs;
        let origin = taken.origins.remove(from);
        let ceiling = origin.as_ref().map_or(ceiling, |origin| origin.ceiling.min(ceiling));
        let theirs = match origin.map(|origin| origin.blobs) {
            Some(ids) if ids.len() == blobs.len() => ids,
            Some(ids) => {
                return Err(Error::Invalid(format!(
                    "{} points into {} blob files, and {} names were given for them",
                    from.display(),
                    blobs.len(),
                    ids.len()
                )));
            }
            None => blobs.iter().map(|blob| blob.file).collect(),
        };
        for (blob, theirs) in blobs.iter_mut().zip(theirs) {
            let missing = || {
                Error::Invalid(format!(
                    "{} points into blob file {theirs}, which was not given",
                    from.display()
                ))
            };
            blob.file = *taken.blobs.get(&theirs).ok_or_else(missing)?;
        }
        taken.tables.push((meta, Foreign { ceiling }));
        Ok(())
    }
}

/// What an ingestion has made so far.
#[derive(Default)]
struct Taken {
    /// Of tables that were taken in there already.
    origins: HashMap<PathBuf, Origin>,
    /// Their ids of blob files, and ours.
    blobs: HashMap<u64, u64>,
    blobs_added: Vec<BlobFile>,
    tables: Vec<(TableMeta, Foreign)>,
    paths: Vec<PathBuf>,
}

/// The clears that come along, by the count of this store: before everything that was written here.
fn foreign_clears(files: &Arc<Files>, tables: &[(TableMeta, Foreign)]) -> Result<Vec<Cleared>> {
    let mut clears = Clears::default();
    let mut operations = Vec::new();
    for (meta, foreign) in tables.iter().filter(|(meta, _)| meta.properties.clears > 0) {
        let file = TableFile::new(files, meta.clone(), None);
        let mut iter = TableIter::bulk(Arc::clone(file.table()?), Space::Clears);
        iter.seek_first()?;
        while let Some(head) = iter.head().copied() {
            if head.version <= foreign.ceiling {
                operations.push(head);
            }
            iter.next()?;
        }
    }
    operations.sort_by_key(|head| head.sequence);
    for head in &operations {
        clears = with_operation(&clears, head, &[]);
    }
    match clears.marks.iter().find(|mark| mark.retracted.is_some()) {
        // Its sequences say what was taken back, and here they say nothing. At the source a compaction rids the tree of both.
        Some(mark) => Err(Error::Invalid(format!(
            "a clear at version {} that was taken back is still in the files: compact the source first",
            mark.cleared.version
        ))),
        None => Ok(clears
            .marks
            .iter()
            .map(|mark| Cleared { version: mark.cleared.version, sequence: 0, batch: 0 })
            .collect()),
    }
}

/// Makes a folder that must not hold anything yet.
pub(crate) fn new_folder(fs: &dyn Fs, dir: &Path) -> Result<()> {
    fs.create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    match fs.list(dir).map_err(|e| Error::io("list", dir, e))?.first() {
        Some(entry) => {
            Err(Error::Invalid(format!("{} is not empty: it holds {}", dir.display(), entry.name)))
        }
        None => Ok(()),
    }
}

/// A second name for an immutable file; a durable copy where the device gives none.
pub(crate) fn link(fs: &dyn Fs, from: &Path, to: &Path) -> Result<()> {
    match fs.hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::CrossesDevices | std::io::ErrorKind::Unsupported
            ) =>
        {
            copy(fs, from, to)
        }
        Err(error) => Err(Error::io("link", from, error)),
    }
}

fn copy(fs: &dyn Fs, from: &Path, to: &Path) -> Result<()> {
    let source = fs.open(from, false).map_err(|e| Error::io("open", from, e))?;
    let target = fs.create(to).map_err(|e| Error::io("create", to, e))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut at = 0;
    loop {
        let read = source.read_at(&mut buffer, at).map_err(|e| Error::io("read", from, e))?;
        if read == 0 {
            break;
        }
        target.write_at(&buffer[..read], at).map_err(|e| Error::io("write", to, e))?;
        at += read as u64;
    }
    target.sync().map_err(|e| Error::io("sync", to, e))
}
