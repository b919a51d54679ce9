//! The new tables of a compaction.

use super::stream::Kept;
use crate::error::Result;
use crate::fs::Fs;
use crate::sst::{TableMeta, TableOptions, TableWriter};
use crate::types::{Sequence, Space};
use crate::version::Files;
use bytes::Bytes;
use std::sync::Arc;

/// Writes entries into as many tables as their size asks for. Dropped before [`Outputs::finish`] it leaves no file.
pub(crate) struct Outputs<'a> {
    files: &'a Files,
    new_id: &'a dyn Fn() -> Result<u64>,
    options: TableOptions,
    table_bytes: u64,
    /// The largest sequence of the inputs: it tells the age of what is written, though entries forget theirs.
    largest_sequence: Sequence,
    writer: Option<TableWriter>,
    last_key: Bytes,
    done: Vec<TableMeta>,
}

impl<'a> Outputs<'a> {
    pub(crate) fn new(
        files: &'a Files,
        new_id: &'a dyn Fn() -> Result<u64>,
        options: TableOptions,
        table_bytes: u64,
        largest_sequence: Sequence,
    ) -> Outputs<'a> {
        let (writer, last_key, done) = (None, Bytes::new(), Vec::new());
        Outputs { files, new_id, options, table_bytes, largest_sequence, writer, last_key, done }
    }

    /// Adds an entry. A table is closed only between keys: below level 0 one table holds all of a key.
    pub(crate) fn add(&mut self, space: Space, kept: &Kept) -> Result<()> {
        let Kept { entry, keep_sequence } = kept;
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
            writer.add(space, entry, *keep_sequence)?;
        }
        if space == Space::Data && entry.key != self.last_key {
            self.last_key = entry.key.clone();
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            writer.cover_sequence(self.largest_sequence);
            self.done.push(writer.finish()?);
        }
        Ok(())
    }

    /// Closes the last table and makes all names durable.
    pub(crate) fn finish(mut self) -> Result<Written<'a>> {
        self.close()?;
        let written = Written { files: self.files, tables: std::mem::take(&mut self.done), installed: false };
        if !written.tables.is_empty() {
            let dir = &self.files.tables_dir;
            self.files.fs.sync_dir(dir).map_err(|e| crate::error::Error::io("sync", dir, e))?;
        }
        Ok(written)
    }
}

impl Drop for Outputs<'_> {
    fn drop(&mut self) {
        remove(self.files, &self.done);
    }
}

/// Tables that are whole and durable. Unless they are installed their files go.
pub(crate) struct Written<'a> {
    files: &'a Files,
    pub(crate) tables: Vec<TableMeta>,
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
        if !self.installed {
            remove(self.files, &self.tables);
        }
    }
}

fn remove(files: &Files, tables: &[TableMeta]) {
    let fs: &dyn Fs = &*files.fs;
    for table in tables {
        let path = files.table_path(table.id);
        if let Err(error) = fs.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "a table that was not needed could not be removed; the next start will");
        }
    }
}
