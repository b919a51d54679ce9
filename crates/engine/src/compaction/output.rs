//! The new tables and blob files of a flush or a compaction.

use super::stream::Kept;
use crate::blob::{BlobSet, BlobWriter};
use crate::error::{Error, Result};
use crate::sst::{Access, BlobPointer, TableMeta, TableOptions, TableWriter};
use crate::types::{InternalEntry, Kind, Sequence, Space};
use crate::version::{BlobFile, Files};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes at which a blob file is closed.
const BLOB_FILE_BYTES: u64 = 64 << 20;

/// Which values stand apart from their keys.
#[derive(Clone, Copy)]
pub(crate) struct Apart<'a> {
    /// Values of at least so many bytes do.
    pub(crate) threshold_bytes: u64,
    pub(crate) compress: bool,
    /// Blob files that are being emptied: values that stand in them are written anew.
    pub(crate) victims: &'a [u64],
    /// Where values are read from that are written anew.
    pub(crate) blobs: &'a BlobSet,
}

/// Writes entries into as many tables as their size asks for. Dropped before [`Outputs::finish`] it leaves no file.
pub(crate) struct Outputs<'f, 'a> {
    files: &'f Files,
    new_id: &'a dyn Fn() -> Result<u64>,
    options: TableOptions,
    apart: Apart<'a>,
    table_bytes: u64,
    /// The largest sequence of the inputs: it tells the age of what is written, though entries forget theirs.
    largest_sequence: Sequence,
    writer: Option<TableWriter>,
    values: Option<BlobWriter>,
    last_key: Bytes,
    done: Written<'f>,
}

impl<'f, 'a> Outputs<'f, 'a> {
    pub(crate) fn new(
        files: &'f Files,
        new_id: &'a dyn Fn() -> Result<u64>,
        options: TableOptions,
        apart: Apart<'a>,
        table_bytes: u64,
        largest_sequence: Sequence,
    ) -> Outputs<'f, 'a> {
        let done = Written { files, tables: Vec::new(), blobs: Vec::new(), installed: false };
        let (writer, values, last_key) = (None, None, Bytes::new());
        Outputs {
            files,
            new_id,
            options,
            apart,
            table_bytes,
            largest_sequence,
            writer,
            values,
            last_key,
            done,
        }
    }

    /// What was written so far, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let tables: u64 = self.done.tables.iter().map(|table| table.file_bytes).sum();
        let blobs: u64 = self.done.blobs.iter().map(|blob| blob.file_bytes).sum();
        let open = self.writer.as_ref().map_or(0, TableWriter::estimated_bytes)
            + self.values.as_ref().map_or(0, BlobWriter::bytes);
        tables + blobs + open
    }

    /// Adds an entry. A table is closed only between keys: below level 0 one table holds all of a key.
    pub(crate) fn add(&mut self, space: Space, kept: Kept) -> Result<()> {
        let Kept { mut entry, keep_sequence } = kept;
        self.set_apart(&mut entry)?;
        if let Some(writer) = &self.writer
            && writer.estimated_bytes() >= self.table_bytes
            && space == Space::Data
            && entry.key != self.last_key
        {
            self.close()?;
        }
        if self.writer.is_none() {
            let id = (self.new_id)()?;
            let path = self.files.table_path(id);
            let options = self.options.clone();
            self.writer = Some(TableWriter::new(Arc::clone(&self.files.fs), &path, id, options)?);
        }
        if let Some(writer) = &mut self.writer {
            writer.add(space, &entry, keep_sequence)?;
        }
        if space == Space::Data && entry.key != self.last_key {
            self.last_key = entry.key;
        }
        Ok(())
    }

    /// Replaces the payload by a pointer if the value is to stand apart, or no longer where it does.
    fn set_apart(&mut self, entry: &mut InternalEntry) -> Result<()> {
        let value = match entry.kind {
            Kind::Value if entry.payload.len() as u64 >= self.apart.threshold_bytes => entry.payload.clone(),
            Kind::BlobPointer if self.in_victim(&entry.payload) => {
                let read = self.apart.blobs.read(&entry.payload, &entry.key, entry.version, Access::Wait)?;
                read.unwrap_or_default()
            }
            _ => return Ok(()),
        };
        if self.values.as_ref().is_some_and(|values| values.bytes() >= BLOB_FILE_BYTES) {
            self.close_values()?;
        }
        if self.values.is_none() {
            let id = (self.new_id)()?;
            let path = self.files.blob_path(id);
            self.values = Some(BlobWriter::new(&self.files.fs, &path, id, self.apart.compress)?);
        }
        if let Some(values) = &mut self.values {
            entry.payload = values.add(&entry.key, entry.version, &value)?.encode();
            entry.kind = Kind::BlobPointer;
        }
        Ok(())
    }

    fn in_victim(&self, payload: &[u8]) -> bool {
        !self.apart.victims.is_empty()
            && BlobPointer::decode(payload).is_some_and(|pointer| self.apart.victims.contains(&pointer.file))
    }

    fn close(&mut self) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            writer.cover_sequence(self.largest_sequence);
            self.done.tables.push(writer.finish()?);
        }
        Ok(())
    }

    fn close_values(&mut self) -> Result<()> {
        if let Some(values) = self.values.take() {
            self.done.blobs.push(values.finish()?);
        }
        Ok(())
    }

    /// Closes the last files. Their folders' syncs are left to [`sync_dirs`], as there may be more files.
    pub(crate) fn finish(mut self) -> Result<Written<'f>> {
        self.close_values()?;
        self.close()?;
        Ok(self.done)
    }
}

/// Makes the names of new files durable.
pub(crate) fn sync_dirs<'a>(files: &Files, written: impl Iterator<Item = &'a Written<'a>>) -> Result<()> {
    let (tables, blobs) = written.fold((false, false), |(tables, blobs), written| {
        (tables || !written.tables.is_empty(), blobs || !written.blobs.is_empty())
    });
    let sync = |dir: &Path| files.fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e));
    if blobs {
        sync(&files.blobs_dir)?;
    }
    if tables { sync(&files.tables_dir) } else { Ok(()) }
}

/// Files that are whole and durable. Unless they are installed they go.
pub(crate) struct Written<'a> {
    files: &'a Files,
    pub(crate) tables: Vec<TableMeta>,
    pub(crate) blobs: Vec<BlobFile>,
    installed: bool,
}

impl Written<'_> {
    /// They are part of the file set, or may be: an edit that failed can still be found in the manifest.
    pub(crate) fn keep(&mut self) {
        self.installed = true;
    }
}

impl Drop for Written<'_> {
    fn drop(&mut self) {
        if self.installed {
            return;
        }
        let tables = self.tables.iter().map(|table| self.files.table_path(table.id));
        let paths: Vec<PathBuf> =
            tables.chain(self.blobs.iter().map(|blob| self.files.blob_path(blob.id))).collect();
        for path in paths {
            if let Err(error) = self.files.fs.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a file that was not needed could not be removed; the next start will");
            }
        }
    }
}
