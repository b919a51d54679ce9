//! Writes a blob file: to a temporary name, synced, then renamed, like a table.

use super::format::{RecordSealer, encode_head};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::output::Output;
use crate::sst::BlobPointer;
use crate::types::Version;
use crate::version::BlobFile;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A blob file being written. Dropped before [`BlobWriter::finish`] it leaves no file.
pub(crate) struct BlobWriter {
    path: PathBuf,
    id: u64,
    output: Output,
    sealer: RecordSealer,
    value_bytes: u64,
}

impl BlobWriter {
    /// Starts the blob file `id` that will stand at `path`.
    pub(crate) fn new(fs: &Arc<dyn Fs>, path: &Path, id: u64, compress: bool) -> Result<BlobWriter> {
        let mut output = Output::create(Arc::clone(fs), path)?;
        output.append(&encode_head(id))?;
        let sealer = RecordSealer::new(compress);
        Ok(BlobWriter { path: path.to_owned(), id, output, sealer, value_bytes: 0 })
    }

    /// Adds a value; answers where it stands.
    pub(crate) fn add(&mut self, key: &[u8], version: Version, value: &[u8]) -> Result<BlobPointer> {
        let offset = self.output.offset();
        let stored_bytes = self.sealer.seal(key, version, value, offset, self.output.buffer());
        self.output.drain_if_full()?;
        self.value_bytes += stored_bytes;
        Ok(BlobPointer { file: self.id, offset, stored_bytes, value_bytes: value.len() as u64 })
    }

    /// Bytes of the file so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.output.offset()
    }

    /// Makes the file durable and gives it its name. The folder's sync is left to the caller.
    pub(crate) fn finish(self) -> Result<BlobFile> {
        let BlobWriter { path, id, output, value_bytes, .. } = self;
        let (file_bytes, hash) = output.finish(&path)?;
        if value_bytes == 0 {
            return Err(Error::Invalid("a blob file without a value".into()));
        }
        Ok(BlobFile { id, file_bytes, hash, value_bytes })
    }
}
