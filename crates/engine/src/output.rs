//! A new immutable file: written under a temporary name, synced, then renamed. Nothing of it is seen under its name before it is whole.

use crate::checksum::FileHasher;
use crate::error::{Error, Result};
use crate::fs::{File, Fs};
use crate::planted::{Planted, is_planted};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes gathered before they are handed to the file system.
const WRITE_BUFFER_BYTES: usize = 1 << 20;

/// The temporary file, and what was not yet handed to it. Dropped before [`Output::finish`] it removes the file.
pub(crate) struct Output {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    written: u64,
    hasher: FileHasher,
    done: bool,
}

impl Output {
    /// Starts the file that will stand at `path`.
    pub(crate) fn create(fs: Arc<dyn Fs>, path: &Path) -> Result<Output> {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let path = PathBuf::from(name);
        let mut created = fs.create(&path);
        if created.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists) {
            // Left by a process that died while it wrote this very file: nobody points at it.
            fs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
            created = fs.create(&path);
        }
        let file = created.map_err(|e| Error::io("create", &path, e))?;
        Ok(Output { fs, path, file, buffer: Vec::new(), written: 0, hasher: FileHasher::new(), done: false })
    }

    /// Where the next byte will stand.
    pub(crate) fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// What is gathered: bytes are appended here, then [`Output::drain_if_full`] is called.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.drain_if_full()
    }

    pub(crate) fn drain_if_full(&mut self) -> Result<()> {
        if self.buffer.len() >= WRITE_BUFFER_BYTES { self.drain() } else { Ok(()) }
    }

    fn drain(&mut self) -> Result<()> {
        self.file.write_at(&self.buffer, self.written).map_err(|e| Error::io("write", &self.path, e))?;
        self.hasher.update(&self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes the file durable and gives it its name; answers its length and hash.
    pub(crate) fn finish(mut self, path: &Path) -> Result<(u64, u128)> {
        self.drain()?;
        if !is_planted(Planted::TableNotSynced) {
            self.file.sync().map_err(|e| Error::io("sync", &self.path, e))?;
        }
        self.fs.rename(&self.path, path).map_err(|e| Error::io("rename", &self.path, e))?;
        self.done = true;
        Ok((self.written, self.hasher.finish()))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = self.fs.remove(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished file could not be removed; the next start will");
        }
    }
}
