//! The receiver's side of shipped files: into a folder, hashed as they come, then as a whole into a tree of their own. That tree takes the place
//! of the member's with the record that moves the checkpoint: until then the member has all that it ever had.

use super::piece::{Chunk, FilesPiece};
use super::{disk, remove_folder};
use crate::error::Result;
use crate::shard::note;
use kvorum_engine::fs::{File, Fs};
use kvorum_engine::{Batch, Durability, Error, Store, Tree, TreeSettings};
use kvorum_sync::{OpId, TransferId};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a batch that copies items, about.
const BATCH_BYTES: usize = 1 << 20;

/// Files of one transfer.
pub(in crate::shard) struct FilesIn {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    pub(in crate::shard) transfer: TransferId,
    pub(in crate::shard) ceiling: OpId,
    /// Where it all goes.
    pub(in crate::shard) tree: Tree,
    files: Vec<Incoming>,
}

struct Incoming {
    path: PathBuf,
    length: u64,
    written: u64,
    file: Option<Arc<dyn File>>,
    hasher: disk::Hasher,
    done: bool,
}

impl FilesIn {
    /// Makes the folder and the tree. Blocks.
    pub(super) fn begin(
        (fs, store): (&Arc<dyn Fs>, &Store),
        (dir, name): (&Path, &str),
        (transfer, ceiling): (TransferId, OpId),
    ) -> Result<FilesIn> {
        fs.create_dir_all(dir).map_err(|error| disk::failed("create", dir, error))?;
        let tree = store.tree(name, TreeSettings::with_history())?;
        Ok(FilesIn { fs: Arc::clone(fs), dir: dir.to_owned(), transfer, ceiling, tree, files: Vec::new() })
    }

    /// Writes what a piece brought. Blocks.
    pub(super) fn take(&mut self, piece: FilesPiece) -> Result<()> {
        let FilesPiece { list, chunks } = piece;
        if let Some(list) = list.filter(|_| self.files.is_empty()) {
            let incoming = |(name, length): (String, u64)| Incoming {
                path: self.dir.join(name),
                length,
                written: 0,
                file: None,
                hasher: disk::Hasher::new(),
                done: false,
            };
            self.files = list.into_iter().map(incoming).collect();
        }
        for chunk in &chunks {
            let file = self.files.get_mut(chunk.file);
            let file =
                file.ok_or_else(|| Error::Invalid(format!("file {} is not in the list", chunk.file)))?;
            file.take(&*self.fs, chunk)?;
        }
        Ok(())
    }

    /// Everything is here: takes the files into the tree, and from the member's tree its items above the ceiling. Blocks.
    pub(super) fn finish(&mut self, store: &Store, own: &Tree, tail: &[OpId]) -> Result<()> {
        if let Some(file) = self.files.iter().find(|file| !file.done) {
            return Err(Error::Invalid(format!("{} did not come whole", file.path.display())).into());
        }
        self.fs.sync_dir(&self.dir).map_err(|error| disk::failed("sync", &self.dir, error))?;
        let paths: Vec<&Path> = self.files.iter().map(|file| file.path.as_path()).collect();
        self.tree.ingest(&paths, self.ceiling.version())?;
        let snapshot = store.snapshot();
        let mut batch = Batch::new();
        let notes = note::of_items(own, tail)?;
        for op in tail {
            let lacks = || Error::Invalid(format!("item {op} of the own tail can't be read back"));
            let bytes = notes.get(op).ok_or_else(lacks)?;
            let note = note::decode(*op, bytes).map_err(|_| lacks())?;
            let payload = note.read_back(own, &snapshot)?.ok_or_else(lacks)?;
            payload.add_to(&mut batch, &self.tree, *op);
            batch.note(&self.tree, op.version(), bytes);
            if batch.bytes() >= BATCH_BYTES {
                written(store, &std::mem::take(&mut batch))?;
            }
        }
        if !batch.is_empty() {
            written(store, &batch)?;
        }
        remove_folder(&*self.fs, &self.dir)
    }

    /// Removes folder and tree. Blocks.
    pub(super) fn remove(&self, store: &Store) -> Result<()> {
        store.drop_tree(&self.tree.name())?;
        remove_folder(&*self.fs, &self.dir)
    }
}

/// The record that installs the tree comes later in the log: it is durable only together with this.
fn written(store: &Store, batch: &Batch) -> Result<()> {
    let _later = store.write_waiting(batch, Durability::Buffered)?;
    Ok(())
}

impl Incoming {
    fn take(&mut self, fs: &dyn Fs, chunk: &Chunk) -> Result<()> {
        let path = &self.path;
        let end = chunk.offset + chunk.bytes.len() as u64;
        if self.done || chunk.offset != self.written || end > self.length {
            let (offset, length) = (chunk.offset, self.length);
            return Err(Error::Invalid(format!(
                "a part of {} at {offset} to {end}, of {length} bytes, does not follow {}",
                path.display(),
                self.written
            ))
            .into());
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => fs.create(path).map_err(|error| disk::failed("create", path, error))?,
        };
        file.write_at(&chunk.bytes, chunk.offset).map_err(|error| disk::failed("write", path, error))?;
        self.hasher.update(&chunk.bytes);
        self.written = end;
        if let Some(hash) = chunk.hash {
            let found = self.hasher.finish();
            if found != hash || end != self.length {
                let (expected, found) = (format!("hash {hash:032x}"), format!("{found:032x}"));
                return Err(disk::damaged(path, 0, expected, found));
            }
            file.sync().map_err(|error| disk::failed("sync", path, error))?;
            self.done = true;
        }
        self.file = Some(file).filter(|_| !self.done);
        Ok(())
    }
}
