//! A cursor over one space of a table that seeks and moves both ways. Scans read ahead, past the cache.

#![warn(clippy::indexing_slicing)]

use super::Space;
use super::block::{Block, BlockCursor, Malformed};
use super::block_builder::Head;
use super::format::BlockHandle;
use super::table::Table;
use crate::error::Result;
#[cfg(test)]
use crate::types::InternalEntry;
use crate::types::Version;
use bytes::Bytes;
use std::sync::Arc;

/// Bytes read at once by a scan.
const READ_AHEAD_BYTES: u64 = 256 << 10;
/// Blocks that miss the cache one behind the other before a cursor reads ahead.
const MISSES_BEFORE_READ_AHEAD: u32 = 2;

/// A cursor. Stands on an entry ([`TableIter::head`] is some) or beyond either end.
pub(crate) struct TableIter {
    table: Arc<Table>,
    space: Space,
    /// The block that `cursor` is in.
    block: usize,
    cursor: Option<BlockCursor>,
    /// The index of the block that was read from the file last, and how many before it were so in a row.
    missed: (usize, u32),
    bulk: bool,
    ahead: Vec<u8>,
    ahead_at: u64,
}

impl TableIter {
    pub(crate) fn new(table: Arc<Table>, space: Space) -> TableIter {
        let missed = (usize::MAX, 0);
        TableIter {
            table,
            space,
            block: 0,
            cursor: None,
            missed,
            bulk: false,
            ahead: Vec::new(),
            ahead_at: 0,
        }
    }

    /// A cursor that will read everything: it reads ahead from the start and leaves the cache alone.
    pub(crate) fn bulk(table: Arc<Table>, space: Space) -> TableIter {
        TableIter { bulk: true, ..TableIter::new(table, space) }
    }

    /// Moves to the first entry.
    pub(crate) fn seek_first(&mut self) -> Result<()> {
        self.enter(0, |cursor| cursor.first())
    }

    /// Moves to the last entry.
    pub(crate) fn seek_last(&mut self) -> Result<()> {
        match self.blocks().checked_sub(1) {
            Some(last) => self.enter(last, |cursor| cursor.last()),
            None => self.leave(),
        }
    }

    /// Moves to the first entry that does not stand before `(key, version)` in the internal order.
    pub(crate) fn seek(&mut self, key: &[u8], version: Version) -> Result<()> {
        let block = self.table.index(self.space).find(key, version);
        self.enter(block, |cursor| cursor.seek(key, version))?;
        // The separator may stand above all of its block: then the next one begins with what was sought.
        self.skip_forward()
    }

    /// Moves to the last entry that stands before `(key, version)` in the internal order.
    pub(crate) fn seek_before(&mut self, key: &[u8], version: Version) -> Result<()> {
        self.seek(key, version)?;
        if self.head().is_some() { self.prev() } else { self.seek_last() }
    }

    /// Moves to the next entry, or beyond the end. Does nothing beyond either end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<()> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        let offset = self.block;
        cursor.advance().map_err(|e| self.table.malformed(offset_of(&self.table, self.space, offset), e))?;
        if cursor.current().is_some() { Ok(()) } else { self.skip_forward() }
    }

    /// Moves to the entry before, or beyond the start. Does nothing beyond either end.
    pub(crate) fn prev(&mut self) -> Result<()> {
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        let offset = self.block;
        cursor.retreat().map_err(|e| self.table.malformed(offset_of(&self.table, self.space, offset), e))?;
        if cursor.current().is_some() {
            return Ok(());
        }
        match self.block.checked_sub(1) {
            Some(before) => self.enter(before, |cursor| cursor.last()),
            None => self.leave(),
        }
    }

    /// The current entry without key and payload; `None` beyond either end.
    #[inline]
    pub(crate) fn head(&self) -> Option<&Head> {
        Some(&self.cursor.as_ref()?.current()?.head)
    }

    /// The current key; empty beyond either end.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        self.cursor.as_ref().filter(|cursor| cursor.current().is_some()).map_or(&[], BlockCursor::key)
    }

    /// The current payload, sharing the block's memory; a blob pointer with its file's id.
    pub(crate) fn payload(&self) -> Result<Bytes> {
        let current = self.cursor.as_ref().and_then(|cursor| Some((cursor, cursor.current()?)));
        let Some((cursor, raw)) = current else { return Ok(Bytes::new()) };
        self.table.payload(raw.head.kind, cursor.block(), raw.payload.clone())
    }

    /// The current entry, with a copy of its key.
    #[cfg(test)]
    pub(crate) fn entry(&self) -> Result<Option<InternalEntry>> {
        let Some(&Head { version, sequence, kind, late, expires_at, tag }) = self.head() else {
            return Ok(None);
        };
        let (key, payload) = (Bytes::copy_from_slice(self.key()), self.payload()?);
        Ok(Some(InternalEntry { key, version, sequence, kind, late, expires_at, tag, payload }))
    }

    /// Moves to the first entry of a block: for who reads around damage.
    pub(crate) fn seek_block(&mut self, block: usize) -> Result<()> {
        self.enter(block, |cursor| cursor.first())
    }

    /// The block that the cursor is in.
    pub(crate) fn block(&self) -> usize {
        self.block
    }

    /// How many blocks there are.
    pub(crate) fn blocks(&self) -> usize {
        self.table.index(self.space).len()
    }

    fn leave(&mut self) -> Result<()> {
        self.cursor = None;
        Ok(())
    }

    /// If the cursor stands behind its block's last entry, moves to the next block's first.
    fn skip_forward(&mut self) -> Result<()> {
        while self.cursor.as_ref().is_some_and(|cursor| cursor.current().is_none()) {
            self.enter(self.block + 1, |cursor| cursor.first())?;
        }
        Ok(())
    }

    /// Takes block `at` and places the cursor in it; beyond the last block there is none.
    fn enter(
        &mut self,
        at: usize,
        place: impl FnOnce(&mut BlockCursor) -> Result<(), Malformed>,
    ) -> Result<()> {
        let Some(handle) = self.table.index(self.space).handle(at) else { return self.leave() };
        if self.cursor.is_none() || self.block != at {
            let block = self.load(at, handle)?;
            match &mut self.cursor {
                Some(cursor) => cursor.reset(block),
                None => self.cursor = Some(BlockCursor::new(block)),
            }
            self.block = at;
        }
        match &mut self.cursor {
            Some(cursor) => place(cursor).map_err(|e| self.table.malformed(handle.offset, e)),
            None => Ok(()),
        }
    }

    fn load(&mut self, at: usize, handle: BlockHandle) -> Result<Block> {
        if let Some(stored) = self.in_ahead(handle) {
            self.missed.0 = at;
            return self.table.decode(stored, handle.offset);
        }
        if !self.bulk
            && let Some(block) = self.table.block_in_memory(handle)
        {
            return Ok(block);
        }
        let (last, row) = self.missed;
        let backward = last == at + 1;
        let row = if backward || last.wrapping_add(1) == at { row + 1 } else { 0 };
        self.missed = (at, row);
        if !self.bulk && row < MISSES_BEFORE_READ_AHEAD {
            return self.table.block(handle);
        }
        self.read_ahead(handle, backward)?;
        match self.in_ahead(handle) {
            Some(stored) => self.table.decode(stored, handle.offset),
            None => self.table.block(handle),
        }
    }

    /// Reads a stretch that starts (or, moving backward, ends) with the block.
    fn read_ahead(&mut self, handle: BlockHandle, backward: bool) -> Result<()> {
        let index = self.table.index(self.space);
        let block_end = handle.offset + handle.stored_bytes;
        let (start, end) = if backward {
            let first = index.handle(0).map_or(0, |first| first.offset);
            (block_end.saturating_sub(READ_AHEAD_BYTES).clamp(first, handle.offset), block_end)
        } else {
            (handle.offset, index.end().min(handle.offset + READ_AHEAD_BYTES).max(block_end))
        };
        self.ahead.clear();
        self.ahead.resize((end - start) as usize, 0);
        self.ahead_at = start;
        let read = self.table.read_stretch(&mut self.ahead, start);
        if read.is_err() {
            self.ahead.clear();
        }
        read
    }

    fn in_ahead(&self, handle: BlockHandle) -> Option<Vec<u8>> {
        let start = usize::try_from(handle.offset.checked_sub(self.ahead_at)?).ok()?;
        let end = start.checked_add(usize::try_from(handle.stored_bytes).ok()?)?;
        self.ahead.get(start..end).map(<[u8]>::to_vec)
    }
}

fn offset_of(table: &Table, space: Space, block: usize) -> u64 {
    table.index(space).handle(block).map_or(0, |handle| handle.offset)
}
