//! Walks a block or a table whatever its bytes are: for fuzzing.

use super::block::{Block, BlockCursor, Malformed};
use super::{Table, TableIter};
use crate::error::Result;
use crate::types::Space;
use bytes::Bytes;
use std::sync::Arc;

/// Reads an unpacked block from end to end, and seeks in it.
pub(crate) fn walk_block(bytes: &[u8]) -> Result<usize, Malformed> {
    let mut cursor = BlockCursor::new(Block::new(Bytes::copy_from_slice(bytes))?);
    let mut entries = 0;
    let mut key = Vec::new();
    cursor.first()?;
    while cursor.current().is_some() {
        entries += 1;
        key = cursor.key().to_vec();
        cursor.advance()?;
    }
    cursor.seek(&key, 1)?;
    cursor.last()?;
    while cursor.current().is_some() {
        cursor.retreat()?;
    }
    Ok(entries)
}

/// Reads a table forwards and backwards, with all payloads.
pub(crate) fn walk_table(table: &Arc<Table>) -> Result<usize> {
    let mut entries = 0;
    for space in [Space::Data, Space::Notes, Space::Clears] {
        let mut iter = TableIter::new(Arc::clone(table), space);
        iter.seek_first()?;
        while iter.head().is_some() {
            entries += 1;
            iter.payload()?;
            iter.next()?;
        }
        iter.seek_last()?;
        while iter.head().is_some() {
            iter.prev()?;
        }
    }
    Ok(entries)
}
