//! An open table: point lookups, and blocks for iterators.

#![warn(clippy::indexing_slicing)]

use super::block::{Block, Malformed};
use super::block_builder::Head;
use super::filter::Filter;
use super::format::{BlockHandle, FOOTER_BYTES, Footer, open_block};
use super::index::Index;
use super::meta::{BlobPointer, TableMeta};
use super::properties::{Layout, Properties};
use super::{ALL_SPACES, SPACES, Space};
use crate::cache::{Cache, FileKey, Pinned};
use crate::checksum::{FileHasher, key_hash};
use crate::error::{Error, Result};
use crate::fs::{File, Fs};
use crate::types::{Kind, Sequence, Version};
use bytes::Bytes;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes read at once where a whole file is read.
const FILE_READ_BYTES: usize = 1 << 20;

/// Whether a lookup may wait for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It may.
    Wait,
    /// It must not: memory only, the operating system's included.
    Cached,
}

/// How a lookup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// All that is here was shown, or the visitor had enough.
    Done,
    /// The device would have to be waited for. What was shown so far is not all: start again with [`Access::Wait`].
    WouldRead,
}

/// What is looked for: entries of a key, newest first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub(crate) key: &'a [u8],
    hash: u64,
    /// Entries above this version are not shown.
    pub(crate) at: Version,
    /// Entries above this sequence are not shown.
    pub(crate) max_sequence: Sequence,
}

impl<'a> Lookup<'a> {
    /// Hashes the key once for all tables.
    pub(crate) fn new(key: &'a [u8], at: Version, max_sequence: Sequence) -> Lookup<'a> {
        Lookup { key, hash: key_hash(key), at, max_sequence }
    }
}

/// An entry that a lookup found.
pub(crate) struct Candidate<'a> {
    /// All but key and payload.
    pub(crate) head: Head,
    table: &'a Table,
    block: &'a Block,
    range: Range<usize>,
}

impl Candidate<'_> {
    /// The value, sharing the block's memory, or the blob pointer with its file's id.
    pub(crate) fn payload(&self) -> Result<Bytes> {
        self.table.payload(self.head.kind, self.block, self.range.clone())
    }
}

/// An open table. Immutable; shared by versions and readers.
pub(crate) struct Table {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    meta: TableMeta,
    cache: Arc<Cache>,
    key: FileKey,
    filter: Option<Filter>,
    indexes: [Index; SPACES],
    _pinned: Pinned,
}

impl Table {
    /// Opens the table that `meta` describes; index and filter are read and stay in memory.
    ///
    /// # Errors
    /// `Io`, `Damaged`, `UnknownFormat`.
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        path: &Path,
        meta: TableMeta,
        cache: &Arc<Cache>,
    ) -> Result<Arc<Table>> {
        let key = cache.register();
        let file = cache.handle(key, &*fs, path)?;
        let len = file.len().map_err(|e| Error::io("stat", path, e))?;
        if len != meta.file_bytes {
            return Err(Error::damaged(
                path,
                len,
                format!("a table of {} bytes", meta.file_bytes),
                format!("{len}"),
            ));
        }
        let parts = Parts::read(&*file, path, len)?;
        if parts.properties.id != meta.properties.id {
            let (expected, found) = (meta.properties.id.to_string(), parts.properties.id.to_string());
            return Err(Error::damaged(path, len, format!("the table with id {expected}"), found));
        }
        let memory = parts.filter.as_ref().map_or(0, Filter::memory_bytes)
            + parts.indexes.iter().map(Index::memory_bytes).sum::<usize>()
            + size_of::<Table>();
        Ok(Arc::new(Table {
            fs,
            path: path.to_owned(),
            meta,
            key,
            filter: parts.filter,
            indexes: parts.indexes,
            _pinned: cache.pin(memory as u64),
            cache: Arc::clone(cache),
        }))
    }

    /// Whether the key may be here, by key range and filter; `false` is certain.
    #[inline]
    pub(crate) fn may_contain(&self, lookup: &Lookup<'_>) -> bool {
        self.meta.properties.covers(lookup.key)
            && self.filter.as_ref().is_none_or(|filter| filter.may_contain(lookup.hash))
    }

    /// Shows `visit` the entries of the key, in the order (version down, sequence down), until it breaks.
    pub(crate) fn get(
        &self,
        lookup: &Lookup<'_>,
        access: Access,
        visit: &mut dyn FnMut(&Candidate<'_>) -> ControlFlow<()>,
    ) -> Result<Looked> {
        if !self.may_contain(lookup) {
            return Ok(Looked::Done);
        }
        let [index, ..] = &self.indexes;
        let mut at = index.find(lookup.key, lookup.at);
        loop {
            let Some(handle) = index.handle(at) else { return Ok(Looked::Done) };
            let Some(block) = self.cached_block(handle, access)? else { return Ok(Looked::WouldRead) };
            let mut show = |head: &Head, range: Range<usize>| {
                if head.sequence > lookup.max_sequence {
                    return ControlFlow::Continue(());
                }
                visit(&Candidate { head: *head, table: self, block: &block, range })
            };
            let ran_out = block.visit_key(lookup.key, lookup.hash, lookup.at, &mut show);
            if !ran_out.map_err(|e| self.malformed(handle.offset, e))? || index.continues(at).is_none() {
                return Ok(Looked::Done);
            }
            at += 1;
        }
    }

    pub(super) fn index(&self, space: Space) -> &Index {
        let [data, notes, clears] = &self.indexes;
        match space {
            Space::Data => data,
            Space::Notes => notes,
            Space::Clears => clears,
        }
    }

    /// The block from the cache, else from the file (and then into the cache); `None` if that would wait and must not.
    fn cached_block(&self, handle: BlockHandle, access: Access) -> Result<Option<Block>> {
        if let Some(block) = self.cache.block(self.key, handle.offset) {
            return Ok(Some(block));
        }
        let mut stored = vec![0; handle.stored_bytes as usize];
        match access {
            Access::Wait => read_exact(&*self.file()?, &self.path, &mut stored, handle.offset)?,
            Access::Cached => {
                let Some(file) = self.cache.handle_if_open(self.key) else { return Ok(None) };
                let read = file.read_cached_at(&mut stored, handle.offset);
                match read.map_err(|e| Error::io("read", &self.path, e))? {
                    Some(len) if len == stored.len() => {}
                    // Part of it, or nothing, is in the system's memory; a file that is too short shows when it is read for good.
                    _ => return Ok(None),
                }
            }
        }
        let block = self.decode(stored, handle.offset)?;
        self.cache.keep_block(self.key, handle.offset, block.clone());
        Ok(Some(block))
    }

    /// For iterators: the block, through the cache.
    pub(super) fn block(&self, handle: BlockHandle) -> Result<Block> {
        self.cached_block(handle, Access::Wait)?.ok_or(Error::Closed)
    }

    /// For iterators: the block if the cache has it.
    pub(super) fn block_in_memory(&self, handle: BlockHandle) -> Option<Block> {
        self.cache.block(self.key, handle.offset)
    }

    /// For iterators: reads a stretch of the file, past the cache.
    pub(super) fn read_stretch(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read_exact(&*self.file()?, &self.path, buffer, offset)
    }

    /// Checks and unpacks a block that was read from `offset`.
    pub(super) fn decode(&self, stored: Vec<u8>, offset: u64) -> Result<Block> {
        let raw = open_block(&self.path, self.meta.properties.id, offset, stored)?;
        Block::new(raw).map_err(|e| self.malformed(offset, e))
    }

    fn file(&self) -> Result<Arc<dyn File>> {
        self.cache.handle(self.key, &*self.fs, &self.path)
    }

    pub(super) fn malformed(&self, block: u64, what: Malformed) -> Error {
        Error::damaged(
            &self.path,
            block,
            what.expected,
            format!("other bytes at {} of the unpacked block", what.at),
        )
    }

    /// The payload as the rest of the engine takes it: blob pointers with their file's id.
    pub(super) fn payload(&self, kind: Kind, block: &Block, range: Range<usize>) -> Result<Bytes> {
        let bytes = block.slice(range);
        if kind != Kind::BlobPointer {
            return Ok(bytes);
        }
        let pointer = BlobPointer::decode(&bytes).and_then(|mut pointer| {
            let place = usize::try_from(pointer.file).ok()?;
            pointer.file = self.meta.blobs().get(place)?.file;
            Some(pointer)
        });
        let expected = format!("a pointer into one of {} blob files", self.meta.blobs().len());
        let pointer =
            pointer.ok_or_else(|| Error::damaged(&self.path, 0, expected, format!("{bytes:02x?}")))?;
        Ok(pointer.encode())
    }

    /// Reads the whole file and compares its hash with the one in the manifest.
    pub(crate) fn verify_hash(&self) -> Result<()> {
        let (len, hash) = hash_file(&*self.file()?, &self.path)?;
        if (len, hash) == (self.meta.file_bytes, self.meta.hash) {
            return Ok(());
        }
        let expected = format!("{} bytes with hash {:032x}", self.meta.file_bytes, self.meta.hash);
        Err(Error::damaged(&self.path, 0, expected, format!("{len} bytes with hash {hash:032x}")))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.cache.forget(self.key);
    }
}

impl TableMeta {
    /// Gathers from the file itself what the manifest would say, for a table that comes from elsewhere: `id` is its name here.
    pub(crate) fn of_file(fs: &dyn Fs, path: &Path, id: u64) -> Result<TableMeta> {
        let file = fs.open(path, false).map_err(|e| Error::io("open", path, e))?;
        let (file_bytes, hash) = hash_file(&*file, path)?;
        let properties = Parts::read(&*file, path, file_bytes)?.properties;
        Ok(TableMeta { id, file_bytes, hash, properties })
    }
}

/// What is read of a table when it is opened.
struct Parts {
    properties: Properties,
    filter: Option<Filter>,
    indexes: [Index; SPACES],
}

impl Parts {
    fn read(file: &dyn File, path: &Path, len: u64) -> Result<Parts> {
        let short =
            || Error::damaged(path, 0, format!("a table of at least {FOOTER_BYTES} bytes"), len.to_string());
        let footer_at = len.checked_sub(FOOTER_BYTES as u64).ok_or_else(short)?;
        let mut bytes = [0; FOOTER_BYTES];
        read_exact(file, path, &mut bytes, footer_at)?;
        let footer = Footer::decode(path, footer_at, &bytes)?;
        let block = |handle: BlockHandle| {
            let end = handle.offset.checked_add(handle.stored_bytes).filter(|&end| end <= footer_at);
            end.ok_or_else(|| {
                Error::damaged(path, footer_at, "parts within the file", format!("{handle:?}"))
            })?;
            let mut stored = vec![0; handle.stored_bytes as usize];
            read_exact(file, path, &mut stored, handle.offset)?;
            open_block(path, footer.file_id, handle.offset, stored)
        };
        let at = footer.properties.offset;
        let (properties, layout) =
            Properties::decode(&block(footer.properties)?).map_err(|(within, expected)| {
                Error::damaged(path, at + within as u64, expected, "other bytes")
            })?;
        if properties.id != footer.file_id {
            let (expected, found) =
                (format!("properties of table {}", footer.file_id), properties.id.to_string());
            return Err(Error::damaged(path, at, expected, found));
        }
        let filter = read_filter(path, &properties, &layout, block)?;
        let mut indexes: [Index; SPACES] = Default::default();
        for ((index, handle), space) in indexes.iter_mut().zip(layout.indexes).zip(ALL_SPACES) {
            if let Some(handle) = handle {
                let decoded = Index::decode(&block(handle)?, footer_at);
                *index =
                    decoded.ok_or_else(|| Error::damaged(path, handle.offset, "an index", "other bytes"))?;
            }
            if (index.len() == 0) != (properties.entries_of(space) == 0) {
                let expected = format!("an index for {} entries of {space:?}", properties.entries_of(space));
                return Err(Error::damaged(path, at, expected, format!("{} blocks", index.len())));
            }
        }
        Ok(Parts { properties, filter, indexes })
    }
}

fn read_filter(
    path: &Path,
    properties: &Properties,
    layout: &Layout,
    block: impl Fn(BlockHandle) -> Result<Bytes>,
) -> Result<Option<Filter>> {
    let (Some(handle), Some((_, probes))) = (layout.filter, properties.filter) else { return Ok(None) };
    let filter = Filter::decode(&block(handle)?, probes);
    let filter = filter.ok_or_else(|| Error::damaged(path, handle.offset, "a filter", "other bytes"))?;
    Ok(Some(filter))
}

fn read_exact(file: &dyn File, path: &Path, buffer: &mut [u8], offset: u64) -> Result<()> {
    let read = file.read_at(buffer, offset).map_err(|e| Error::io("read", path, e))?;
    if read == buffer.len() {
        return Ok(());
    }
    Err(Error::damaged(
        path,
        offset,
        format!("{} bytes", buffer.len()),
        format!("{read} before the file's end"),
    ))
}

/// Length and hash of a whole file.
pub(crate) fn hash_file(file: &dyn File, path: &Path) -> Result<(u64, u128)> {
    let mut hasher = FileHasher::new();
    let mut buffer = vec![0; FILE_READ_BYTES];
    let mut offset = 0;
    loop {
        let read = match file.read_at(&mut buffer, offset) {
            Ok(0) => return Ok((offset, hasher.finish())),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Error::io("read", path, e)),
        };
        hasher.update(buffer.get(..read).unwrap_or_default());
        offset += read as u64;
    }
}
