//! Writes a table: to a temporary name, synced, then renamed. Nothing of it is seen under its name before it is whole and durable.

use super::block_builder::{BlockBuilder, Head};
use super::filter::Filter;
use super::format::{BlockHandle, BlockSealer, Compression, Footer};
use super::index::IndexBuilder;
use super::meta::{BlobPointer, TableMeta};
use super::properties::{BlobUse, Layout, Properties};
use super::{SPACES, Space};
use crate::checksum::key_hash;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::output::Output;
use crate::types::{InternalEntry, KEY_BYTES_MAX, Kind, Sequence, Version};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a table is written.
#[derive(Debug, Clone)]
pub(crate) struct TableOptions {
    /// The level that it is written for.
    pub(crate) level: u8,
    /// Raw size at which a block is closed, in bytes.
    pub(crate) block_bytes: usize,
    /// Compression of blocks.
    pub(crate) compression: Compression,
    /// Bits of filter for each key; 0 for no filter.
    pub(crate) filter_bits_per_key: u32,
    /// Unix milliseconds by the store's clock.
    pub(crate) created_at_ms: u64,
}

impl Default for TableOptions {
    fn default() -> TableOptions {
        TableOptions {
            level: 0,
            block_bytes: 4096,
            compression: Compression::Lz4,
            filter_bits_per_key: 10,
            created_at_ms: 0,
        }
    }
}

/// A table being written. Dropped before [`TableWriter::finish`] it leaves no file.
pub(crate) struct TableWriter {
    path: PathBuf,
    output: Output,
    options: TableOptions,
    space: Space,
    block: BlockBuilder,
    sealer: BlockSealer,
    indexes: [IndexBuilder; SPACES],
    hashes: Vec<u64>,
    properties: Properties,
    last: Option<(Vec<u8>, Version, Sequence)>,
    scratch: Vec<u8>,
}

impl TableWriter {
    /// Starts the table `id` that will stand at `path`.
    pub(crate) fn new(fs: Arc<dyn Fs>, path: &Path, id: u64, options: TableOptions) -> Result<TableWriter> {
        assert_ne!(id, 0, "table ids start at 1");
        let output = Output::create(fs, path)?;
        Ok(TableWriter {
            path: path.to_owned(),
            output,
            space: Space::Data,
            block: BlockBuilder::default(),
            sealer: BlockSealer::new(options.compression),
            indexes: Default::default(),
            hashes: Vec::new(),
            properties: Properties::empty(id, options.level, options.created_at_ms, options.compression),
            options,
            last: None,
            scratch: Vec::new(),
        })
    }

    /// Adds an entry: space after space, within each in the internal order. Its sequence is stored only if `keep_sequence`, that is,
    /// if a live snapshot needs it. A blob pointer names the file by its id.
    ///
    /// # Errors
    /// `Invalid` if the order is broken or the key too long; `Io` if the file can't be written.
    pub(crate) fn add(&mut self, space: Space, entry: &InternalEntry, keep_sequence: bool) -> Result<()> {
        let sequence = if keep_sequence { entry.sequence } else { 0 };
        let new_key = self.check_order(space, entry)?;
        let hash = (space == Space::Data).then(|| key_hash(&entry.key));
        if space != self.space {
            self.close_block(None)?;
            self.space = space;
        } else if !self.block.is_empty()
            && self.block.len() + entry.payload.len() / 2 >= self.options.block_bytes
        {
            self.close_block(Some(&entry.key))?;
        }
        if let Some(hash) = hash.filter(|_| new_key) {
            self.hashes.push(hash);
        }
        let &InternalEntry { version, kind, late, expires_at, tag, .. } = entry;
        let head = Head { version, sequence, kind, late, expires_at, tag };
        if kind == Kind::BlobPointer {
            let pointer = self.localise(&entry.payload)?;
            self.block.add(&entry.key, hash, &head, &pointer);
        } else {
            self.block.add(&entry.key, hash, &head, &entry.payload);
        }
        self.count(space, entry, new_key);
        let last = self.last.get_or_insert_default();
        (last.1, last.2) = (version, entry.sequence);
        if new_key {
            last.0.clear();
            last.0.extend_from_slice(&entry.key);
        }
        Ok(())
    }

    /// Whether the entry opens a new key; an error if it may not stand here.
    fn check_order(&self, space: Space, entry: &InternalEntry) -> Result<bool> {
        if entry.key.len() > KEY_BYTES_MAX {
            return Err(Error::Invalid(format!("a key of {} bytes can't stand in a table", entry.key.len())));
        }
        let Some((key, version, sequence)) = &self.last else { return Ok(true) };
        let place = |key: &[u8], version: Version, sequence: Sequence| (key.to_vec(), !version, !sequence);
        let keys = key[..].cmp(&entry.key);
        let ordered = space > self.space
            || space == self.space
                && (keys.is_lt()
                    || keys.is_eq() && (!version, !sequence) <= (!entry.version, !entry.sequence));
        if ordered {
            return Ok(space != self.space || keys.is_lt());
        }
        let (before, now) =
            (place(key, *version, *sequence), place(&entry.key, entry.version, entry.sequence));
        Err(Error::Invalid(format!(
            "entries out of order for {}: {now:?} after {before:?}",
            self.path.display()
        )))
    }

    /// The pointer with the table's own number of its blob file.
    fn localise(&mut self, payload: &[u8]) -> Result<Bytes> {
        let pointer = BlobPointer::decode(payload);
        let mut pointer = pointer.ok_or_else(|| Error::Invalid("a blob pointer that is none".into()))?;
        let blobs = &mut self.properties.blobs;
        let place = blobs.iter().position(|blob| blob.file == pointer.file).unwrap_or_else(|| {
            blobs.push(BlobUse { file: pointer.file, bytes: 0, values: 0 });
            blobs.len() - 1
        });
        blobs[place].bytes += pointer.stored_bytes;
        blobs[place].values += 1;
        pointer.file = place as u64;
        Ok(pointer.encode())
    }

    fn count(&mut self, space: Space, entry: &InternalEntry, new_key: bool) {
        let properties = &mut self.properties;
        properties.raw_bytes += (entry.key.len() + entry.payload.len()) as u64;
        properties.largest_sequence = properties.largest_sequence.max(entry.sequence);
        let widen = |range: Option<(u64, u64)>, value: u64| {
            Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        };
        match space {
            Space::Data => {
                properties.entries += 1;
                properties.shadowed += u64::from(!new_key);
                properties.tombstones += u64::from(entry.kind == Kind::Tombstone);
                properties.retracts += u64::from(entry.kind == Kind::Retract);
                if let Some(expires_at) = entry.expires_at {
                    properties.expiring += 1;
                    properties.expiry = widen(properties.expiry, expires_at);
                }
                if properties.entries == 1 {
                    properties.smallest_key = Bytes::copy_from_slice(&entry.key);
                }
            }
            Space::Notes => {
                properties.notes += 1;
                properties.note_versions = widen(properties.note_versions, entry.version);
                return;
            }
            Space::Clears => properties.clears += 1,
        }
        properties.smallest_version = properties.smallest_version.min(entry.version);
        properties.largest_version = properties.largest_version.max(entry.version);
        if matches!(entry.kind, Kind::Tombstone | Kind::Clear) {
            let largest = properties.largest_tombstone.unwrap_or(entry.version);
            properties.largest_tombstone = Some(largest.max(entry.version));
        }
        if entry.late {
            let smallest = properties.smallest_late.unwrap_or(entry.version);
            properties.smallest_late = Some(smallest.min(entry.version));
        }
    }

    /// Says that the table stands for entries up to this sequence, though it may forget which.
    pub(crate) fn cover_sequence(&mut self, sequence: Sequence) {
        self.properties.largest_sequence = self.properties.largest_sequence.max(sequence);
    }

    /// Bytes that the file would have, were it finished now; good to a block.
    pub(crate) fn estimated_bytes(&self) -> u64 {
        let filter = self.hashes.len() * self.options.filter_bits_per_key as usize / 8;
        self.output.offset() + (self.block.len() + filter) as u64
    }

    /// Whether nothing was added.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Closes the current block; `next` is the key that follows in the same space.
    fn close_block(&mut self, next: Option<&[u8]>) -> Result<()> {
        let Some((key, version, _)) = self.last.as_ref().filter(|_| !self.block.is_empty()) else {
            return Ok(());
        };
        if self.space == Space::Data {
            self.properties.largest_key = Bytes::copy_from_slice(key);
        }
        let handle = seal(&mut self.output, &mut self.sealer, self.properties.id, self.block.finish())?;
        self.properties.stored_bytes += handle.stored_bytes;
        self.indexes[self.space as usize].add(key, *version, next, handle);
        self.block.clear();
        Ok(())
    }

    /// Writes what remains, syncs the file and gives it its name. The folder's sync is left to the caller, who may have more files.
    pub(crate) fn finish(mut self) -> Result<TableMeta> {
        self.close_block(None)?;
        let mut layout = Layout::default();
        let mut plain = BlockSealer::new(Compression::None);
        if self.options.filter_bits_per_key > 0 && !self.hashes.is_empty() {
            let filter = Filter::build(&self.hashes, self.options.filter_bits_per_key);
            self.properties.filter = Some((filter.memory_bytes() as u64, filter.probes()));
            layout.filter = Some(seal(&mut self.output, &mut plain, self.properties.id, &filter.encode())?);
        }
        for (index, handle) in std::mem::take(&mut self.indexes).into_iter().zip(&mut layout.indexes) {
            if !index.is_empty() {
                *handle =
                    Some(seal(&mut self.output, &mut self.sealer, self.properties.id, &index.finish())?);
            }
        }
        self.scratch.clear();
        self.properties.encode(Some(&layout), &mut self.scratch);
        let properties = seal(&mut self.output, &mut plain, self.properties.id, &self.scratch)?;
        let footer = Footer { file_id: self.properties.id, properties };
        let footer = footer.encode(self.output.offset());
        self.output.append(&footer)?;
        let (file_bytes, hash) = self.output.finish(&self.path)?;
        Ok(TableMeta { id: self.properties.id, file_bytes, hash, properties: self.properties })
    }
}

/// Appends a block; answers where it stands.
fn seal(output: &mut Output, sealer: &mut BlockSealer, file_id: u64, raw: &[u8]) -> Result<BlockHandle> {
    let offset = output.offset();
    let stored_bytes = sealer.seal(raw, file_id, offset, output.buffer());
    output.drain_if_full()?;
    Ok(BlockHandle { offset, stored_bytes })
}
