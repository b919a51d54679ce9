//! The source's side of shipped files: links to them in a folder of their own, read chunk by chunk.

use super::piece::PieceOut;
use super::{disk, remove_folder};
use crate::error::Result;
use bytes::Bytes;
use kvorum_engine::Tree;
use kvorum_engine::fs::{File, Fs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of a tree, as they were when the transfer began.
pub(super) struct FilesOut {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    files: Vec<(PathBuf, u64)>,
    /// The file in hand, how far it was read, and the hash of that.
    at: usize,
    open: Option<Arc<dyn File>>,
    offset: u64,
    hasher: disk::Hasher,
    listed: bool,
}

impl FilesOut {
    /// Links the files of the tree into `dir`. Blocks.
    pub(super) fn export(fs: &Arc<dyn Fs>, tree: &Tree, dir: &Path) -> Result<FilesOut> {
        let files = tree.export(dir)?.files;
        let (fs, dir) = (Arc::clone(fs), dir.to_owned());
        let hasher = disk::Hasher::new();
        Ok(FilesOut { fs, dir, files, at: 0, open: None, offset: 0, hasher, listed: false })
    }

    /// The next piece, and whether it is the last. Blocks.
    pub(super) fn next(&mut self, bytes: usize) -> Result<(Bytes, bool)> {
        let mut out = PieceOut::new();
        if !self.listed {
            self.listed = true;
            let name = |path: &'_ Path| {
                path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
            };
            let list: Vec<(String, u64)> =
                self.files.iter().map(|(path, bytes)| (name(path), *bytes)).collect();
            out.list(list.iter().map(|(name, bytes)| (name.as_str(), *bytes)));
        }
        let mut buffer = vec![0; bytes];
        while out.bytes() < bytes && self.at < self.files.len() {
            let room = buffer.len().min(bytes.saturating_sub(out.bytes()).max(1));
            self.chunk(&mut out, buffer.get_mut(..room).unwrap_or_default())?;
        }
        let last = self.at >= self.files.len();
        Ok((out.finish(last), last))
    }

    fn chunk(&mut self, out: &mut PieceOut, buffer: &mut [u8]) -> Result<()> {
        let Some((path, length)) = self.files.get(self.at) else { return Ok(()) };
        let file = match &self.open {
            Some(file) => Arc::clone(file),
            None => self.fs.open(path, false).map_err(|error| disk::failed("open", path, error))?,
        };
        let read = file.read_at(buffer, self.offset).map_err(|error| disk::failed("read", path, error))?;
        let bytes = buffer.get(..read).unwrap_or_default();
        self.hasher.update(bytes);
        let end = self.offset + read as u64;
        if read == 0 && end < *length {
            return Err(disk::damaged(path, end, format!("{length} bytes"), "its end"));
        }
        let done = end >= *length;
        out.chunk(self.at, self.offset, bytes, done.then(|| self.hasher.finish()));
        (self.open, self.offset) = (Some(file), end);
        if done {
            (self.at, self.open, self.offset, self.hasher) = (self.at + 1, None, 0, disk::Hasher::new());
        }
        Ok(())
    }

    /// Removes the links. Blocks.
    pub(super) fn remove(&self) -> Result<()> {
        remove_folder(&*self.fs, &self.dir)
    }
}
