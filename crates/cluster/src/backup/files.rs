//! Files, over the engine's file system: what backup and restore need of them.

use crate::error::{Error, Result};
use kvorum_engine::fs::{DirEntry, File, Fs};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// Bytes read, hashed, sent and written at once.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// The hash of a file, taken as its bytes come: XXH3, 128 bits, as the engine's manifest keeps it of tables and blob files.
pub(crate) struct Hasher(Box<Xxh3>);

impl Hasher {
    pub(crate) fn new() -> Hasher {
        Hasher(Box::new(Xxh3::new()))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(&self) -> u128 {
        self.0.digest128()
    }
}

/// The system refused something.
pub(crate) fn failed(action: &'static str, path: &Path, error: io::Error) -> Error {
    kvorum_engine::Error::Io { action, path: path.to_owned(), source: Arc::new(error) }.into()
}

/// Bytes are not what they should be.
pub(crate) fn damaged(
    path: &Path,
    offset: u64,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> Error {
    let (path, expected, found) = (path.to_owned(), expected.into(), found.into());
    kvorum_engine::Error::Damaged { path, offset, expected, found }.into()
}

/// `root/name`, where `name` has slashes between its parts on every system.
pub(super) fn join(root: &Path, name: &str) -> PathBuf {
    name.split('/').fold(root.to_owned(), |path, part| path.join(part))
}

/// What is in a folder; nothing if there is none.
pub(crate) fn list(fs: &dyn Fs, dir: &Path) -> Result<Vec<DirEntry>> {
    if !fs.exists(dir).map_err(|error| failed("look for", dir, error))? {
        return Ok(Vec::new());
    }
    fs.list(dir).map_err(|error| failed("list", dir, error))
}

/// Reads a file piece by piece from its start; answers its length.
pub(super) fn read_pieces(
    fs: &dyn Fs,
    path: &Path,
    each: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let file = fs.open(path, false).map_err(|error| failed("open", path, error))?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut offset = 0;
    loop {
        let read = file.read_at(&mut buffer, offset).map_err(|error| failed("read", path, error))?;
        let piece = buffer.get(..read).unwrap_or_default();
        if piece.is_empty() {
            return Ok(offset);
        }
        each(piece)?;
        offset += piece.len() as u64;
    }
}

/// Length and hash of a file.
pub(super) fn hash_file(fs: &dyn Fs, path: &Path) -> Result<(u64, u128)> {
    let mut hasher = Hasher::new();
    let bytes = read_pieces(fs, path, &mut |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok((bytes, hasher.finish()))
}

/// Writes a new file, durable but for its name.
pub(super) fn write_whole(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut output = Output::create(fs, path)?;
    output.write(bytes)?;
    output.finish()
}

/// A new file that is written from its start.
pub(super) struct Output<'p> {
    file: Arc<dyn File>,
    path: &'p Path,
    offset: u64,
}

impl<'p> Output<'p> {
    /// Makes the file, and its folder if that is missing.
    pub(super) fn create(fs: &dyn Fs, path: &'p Path) -> Result<Output<'p>> {
        if let Some(parent) = path.parent() {
            fs.create_dir_all(parent).map_err(|error| failed("create", parent, error))?;
        }
        let file = fs.create(path).map_err(|error| failed("create", path, error))?;
        Ok(Output { file, path, offset: 0 })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_at(bytes, self.offset).map_err(|error| failed("write", self.path, error))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Makes its bytes durable.
    pub(crate) fn finish(self) -> Result<()> {
        self.file.sync().map_err(|error| failed("sync", self.path, error))
    }
}

/// Makes a folder and the missing ones above it, durably.
pub(super) fn create_durably(fs: &dyn Fs, dir: &Path) -> Result<()> {
    let parent = parent_of(dir);
    if !fs.exists(&parent).map_err(|error| failed("look for", &parent, error))? {
        create_durably(fs, &parent)?;
    }
    fs.create_dir_all(dir).map_err(|error| failed("create", dir, error))?;
    fs.sync_dir(&parent).map_err(|error| failed("sync", &parent, error))
}

/// The folder above; that of the process for a bare name.
pub(super) fn parent_of(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Makes the names in a folder and in all folders below durable.
pub(super) fn sync_tree(fs: &dyn Fs, dir: &Path) -> Result<()> {
    for entry in list(fs, dir)?.into_iter().filter(|entry| entry.is_dir) {
        sync_tree(fs, &dir.join(entry.name))?;
    }
    fs.sync_dir(dir).map_err(|error| failed("sync", dir, error))
}

/// Removes a folder with all that is in it; no error if there is none.
pub(super) fn remove_all(fs: &dyn Fs, dir: &Path) -> Result<()> {
    if !fs.exists(dir).map_err(|error| failed("look for", dir, error))? {
        return Ok(());
    }
    for entry in list(fs, dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            remove_all(fs, &path)?;
        } else {
            fs.remove(&path).map_err(|error| failed("remove", &path, error))?;
        }
    }
    fs.remove_dir(dir).map_err(|error| failed("remove", dir, error))
}

/// As [`remove_all`], where the work is done and only tidiness is at stake.
pub(super) fn remove_quietly(fs: &dyn Fs, dir: &Path) {
    if let Err(error) = remove_all(fs, dir) {
        tracing::warn!("{} is left over and may be deleted: {error}", dir.display());
    }
}
