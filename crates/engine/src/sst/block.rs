//! Reads one block of entries. Nothing here trusts the bytes: a checksum guards them, yet every step is bounds-checked.

#![warn(clippy::indexing_slicing)]

use super::block_builder::{
    BUCKET_EMPTY, BUCKET_SHARED, FLAG_EXPIRES, FLAG_KIND, FLAG_LATE, FLAG_SEQUENCE, FLAG_TAG, Head,
    TAIL_BYTES, bucket_of,
};
use crate::codec::{Reader, common_prefix, unzigzag};
use crate::types::{KEY_BYTES_MAX, Kind, Version};
use bytes::Bytes;
use std::cmp::Ordering;
use std::ops::{ControlFlow, Range};

/// A block whose bytes make no sense, and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Offset in the raw block.
    pub(crate) at: usize,
    /// What should stand there.
    pub(crate) expected: &'static str,
}

/// A raw block, its tail checked. Clones share the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    bytes: Bytes,
    /// Where the entries end and the restart points begin.
    entries_end: usize,
    groups: usize,
    buckets: usize,
    base_version: Version,
}

/// One entry in a block, its key as a difference from the one before.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) head: Head,
    shared: usize,
    suffix: Range<usize>,
    pub(super) payload: Range<usize>,
}

impl Block {
    pub(crate) fn new(bytes: Bytes) -> Result<Block, Malformed> {
        let malformed = |at, expected| Malformed { at, expected };
        let tail = bytes.len().checked_sub(TAIL_BYTES).ok_or(malformed(0, "a block's tail"))?;
        let mut reader = Reader::at(&bytes, tail);
        let mut read = || {
            Some((
                reader.u64()?,
                reader.u32()? as usize,
                usize::from(reader.u8()?),
                usize::from(reader.u8()?),
            ))
        };
        let (base_version, groups, low, high) = read().ok_or(malformed(tail, "a block's tail"))?;
        let buckets = low | high << 8;
        let index_bytes = groups.checked_mul(4).and_then(|restarts| restarts.checked_add(buckets));
        let entries_end = index_bytes.and_then(|index| tail.checked_sub(index));
        let entries_end = entries_end.ok_or(malformed(tail, "restart points that fit into the block"))?;
        if groups == 0 {
            return Err(malformed(tail, "at least one group"));
        }
        Ok(Block { bytes, entries_end, groups, buckets, base_version })
    }

    /// Bytes held in memory.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A part of the block that shares its memory.
    pub(super) fn slice(&self, range: Range<usize>) -> Bytes {
        if range.is_empty() { Bytes::new() } else { self.bytes.slice(range) }
    }

    pub(super) fn groups(&self) -> usize {
        self.groups
    }

    pub(super) fn entries_end(&self) -> usize {
        self.entries_end
    }

    /// Where group `group` begins.
    pub(super) fn restart(&self, group: usize) -> Result<usize, Malformed> {
        let at = self.entries_end + 4 * group;
        let start = Reader::at(&self.bytes, at).u32().map(|start| start as usize);
        start
            .filter(|&start| start < self.entries_end)
            .ok_or(Malformed { at, expected: "a restart point before the end of the entries" })
    }

    /// The entry that starts at `position`, and where the next one does.
    #[inline]
    pub(super) fn entry(&self, position: usize) -> Result<(Raw, usize), Malformed> {
        let entries = self.bytes.get(..self.entries_end).unwrap_or_default();
        self.decode(&mut Reader::at(entries, position))
            .ok_or(Malformed { at: position, expected: "an entry" })
    }

    #[inline]
    fn decode(&self, reader: &mut Reader<'_>) -> Option<(Raw, usize)> {
        let shared = reader.varint_len()?;
        let suffix = reader.varint_len()?;
        let payload = reader.varint_len()?;
        let flags = reader.u8()?;
        let kind = Kind::from_byte(flags & FLAG_KIND)?;
        let version = self.base_version.wrapping_add(unzigzag(reader.varint()?));
        let sequence = if flags & FLAG_SEQUENCE != 0 { reader.varint()? } else { 0 };
        let expires_at = if flags & FLAG_EXPIRES != 0 { Some(reader.varint()?) } else { None };
        let tag = if flags & FLAG_TAG != 0 { reader.u8()? } else { 0 };
        let from = reader.position();
        reader.slice(suffix)?;
        let middle = reader.position();
        reader.slice(payload)?;
        let to = reader.position();
        if shared.saturating_add(suffix) > KEY_BYTES_MAX {
            return None;
        }
        let head = Head { version, sequence, kind, late: flags & FLAG_LATE != 0, expires_at, tag };
        Some((Raw { head, shared, suffix: from..middle, payload: middle..to }, to))
    }

    pub(super) fn bytes_of(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// The group to start from to meet the first entry of `key`: from the in-block hash, `None` if that says that the key is not
    /// here.
    fn group_of(&self, key: &[u8], hash: u64, at: Version) -> Result<Option<usize>, Malformed> {
        if self.buckets > 0 {
            let place = self.entries_end + 4 * self.groups + bucket_of(hash, self.buckets);
            match self.bytes.get(place).copied() {
                Some(BUCKET_EMPTY) => return Ok(None),
                Some(BUCKET_SHARED) | None => {}
                Some(group) => return Ok(Some(usize::from(group))),
            }
        }
        self.group_before(key, at).map(Some)
    }

    /// The last group whose first entry stands before `(key, at)`, or the first group.
    fn group_before(&self, key: &[u8], at: Version) -> Result<usize, Malformed> {
        let (mut low, mut high) = (0, self.groups);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let (first, _) = self.entry(self.restart(middle)?)?;
            if compare(self.bytes_of(&first.suffix), first.head.version, key, at).is_lt() {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Shows `visit` the entries of `key` with a version of at most `at`, newest first. Answers whether it ran to the block's end,
    /// so that the next block may hold more of them.
    #[inline]
    pub(super) fn visit_key(
        &self,
        key: &[u8],
        hash: u64,
        at: Version,
        visit: &mut dyn FnMut(&Head, Range<usize>) -> ControlFlow<()>,
    ) -> Result<bool, Malformed> {
        let Some(group) = self.group_of(key, hash, at)? else { return Ok(false) };
        let mut position = self.restart(group)?;
        // How many leading bytes the sought key shares with the entry before, which stands before it. An entry that shares more
        // with that one stands before the sought key too; one that shares less, behind it.
        let mut matched = 0;
        while position < self.entries_end {
            let (raw, next) = self.entry(position)?;
            position = next;
            if raw.shared > matched {
                continue;
            }
            // Nothing shared may be a restart point, which tells its key whole: compare that.
            if raw.shared != 0 && raw.shared < matched {
                return Ok(false);
            }
            let base = raw.shared;
            let suffix = self.bytes_of(&raw.suffix);
            let rest = key.get(base..).unwrap_or_default();
            let same = common_prefix(suffix, rest);
            match (suffix.get(same), rest.get(same)) {
                (None, None) => {
                    matched = key.len();
                    if raw.head.version <= at && visit(&raw.head, raw.payload).is_break() {
                        return Ok(false);
                    }
                }
                (Some(a), Some(b)) if a > b => return Ok(false),
                (Some(_), None) => return Ok(false),
                _ => matched = base + same,
            }
        }
        Ok(true)
    }
}

/// The internal order without sequences: key up, version down.
pub(super) fn compare(key: &[u8], version: Version, other: &[u8], other_version: Version) -> Ordering {
    key.cmp(other).then(other_version.cmp(&version))
}

/// A place among a block's entries that moves both ways.
pub(super) struct BlockCursor {
    block: Block,
    current: Option<Raw>,
    /// Where the current entry starts.
    position: usize,
    /// Where the one behind it starts.
    next: usize,
    key: Vec<u8>,
}

impl BlockCursor {
    pub(super) fn new(block: Block) -> BlockCursor {
        BlockCursor { block, current: None, position: 0, next: 0, key: Vec::new() }
    }

    /// Takes another block, keeping the memory of the key.
    pub(super) fn reset(&mut self, block: Block) {
        self.block = block;
        self.current = None;
    }

    pub(super) fn current(&self) -> Option<&Raw> {
        self.current.as_ref()
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn block(&self) -> &Block {
        &self.block
    }

    pub(super) fn first(&mut self) -> Result<(), Malformed> {
        self.restart(0)?;
        self.advance()
    }

    pub(super) fn last(&mut self) -> Result<(), Malformed> {
        self.before(self.block.entries_end())
    }

    /// The first entry that does not stand before `(key, version)`; none if all do.
    pub(super) fn seek(&mut self, key: &[u8], version: Version) -> Result<(), Malformed> {
        self.restart(self.block.group_before(key, version)?)?;
        self.advance()?;
        while let Some(raw) = &self.current {
            if compare(&self.key, raw.head.version, key, version).is_ge() {
                break;
            }
            self.advance()?;
        }
        Ok(())
    }

    /// Moves to the next entry, or past the last.
    #[inline]
    pub(super) fn advance(&mut self) -> Result<(), Malformed> {
        if self.next >= self.block.entries_end() {
            self.current = None;
            return Ok(());
        }
        let (raw, next) = self.block.entry(self.next)?;
        if raw.shared > self.key.len() {
            return Err(Malformed {
                at: self.next,
                expected: "a key that shares no more than the one before has",
            });
        }
        self.key.truncate(raw.shared);
        self.key.extend_from_slice(self.block.bytes.get(raw.suffix.clone()).unwrap_or_default());
        self.position = self.next;
        self.next = next;
        self.current = Some(raw);
        Ok(())
    }

    /// Moves to the entry before, or before the first.
    pub(super) fn retreat(&mut self) -> Result<(), Malformed> {
        self.before(self.position)
    }

    /// Moves to the last entry that starts before `end`.
    fn before(&mut self, end: usize) -> Result<(), Malformed> {
        self.current = None;
        let (mut low, mut high) = (0, self.block.groups());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.block.restart(middle)? < end { low = middle } else { high = middle }
        }
        self.restart(low)?;
        if self.next >= end {
            return Ok(());
        }
        self.advance()?;
        while self.next < end {
            self.advance()?;
        }
        Ok(())
    }

    fn restart(&mut self, group: usize) -> Result<(), Malformed> {
        self.next = self.block.restart(group)?;
        self.position = self.next;
        self.key.clear();
        self.current = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::block_builder::BlockBuilder;
    use super::*;
    use crate::checksum::key_hash;
    use proptest::prelude::*;

    type Row = (Vec<u8>, Head, Vec<u8>);

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let head = (0u64..20, 0u64..4, 1u8..5, any::<bool>(), proptest::option::of(0u64..900), 0u8..3);
        let head = head.prop_map(|(version, sequence, kind, late, expires_at, tag)| Head {
            version: version.wrapping_sub(5),
            sequence,
            kind: Kind::from_byte(kind).unwrap(),
            late,
            expires_at,
            tag,
        });
        let row =
            (proptest::collection::vec(0u8..3, 0..6), head, proptest::collection::vec(any::<u8>(), 0..9));
        proptest::collection::vec(row, 1..120).prop_map(|mut rows| {
            rows.sort_by(|(a, x, _), (b, y, _)| {
                compare(a, x.version, b, y.version).then(y.sequence.cmp(&x.sequence))
            });
            rows
        })
    }

    fn build(rows: &[Row], hashed: bool) -> Block {
        let mut builder = BlockBuilder::default();
        for (key, head, payload) in rows {
            builder.add(key, hashed.then(|| key_hash(key)), head, payload);
        }
        let estimated = builder.len();
        let bytes = Bytes::copy_from_slice(builder.finish());
        assert!(bytes.len().abs_diff(estimated) <= 2);
        Block::new(bytes).unwrap()
    }

    fn row(cursor: &BlockCursor) -> Option<Row> {
        let raw = cursor.current()?;
        Some((cursor.key().to_vec(), raw.head, cursor.block().bytes_of(&raw.payload).to_vec()))
    }

    proptest! {
        #[test]
        fn cursors_walk_both_ways_and_seek(rows in rows(), key in proptest::collection::vec(0u8..3, 0..6), version in 0u64..20) {
            let version = version.wrapping_sub(5);
            let mut cursor = BlockCursor::new(build(&rows, true));
            let (mut forward, mut backward) = (Vec::new(), Vec::new());
            cursor.first().unwrap();
            while let Some(row) = row(&cursor) {
                forward.push(row);
                cursor.advance().unwrap();
            }
            cursor.last().unwrap();
            while let Some(row) = row(&cursor) {
                backward.push(row);
                cursor.retreat().unwrap();
            }
            backward.reverse();
            prop_assert_eq!(&forward, &rows);
            prop_assert_eq!(&backward, &rows);
            let behind = |(k, h, _): &&Row| compare(k, h.version, &key, version).is_ge();
            cursor.seek(&key, version).unwrap();
            prop_assert_eq!(row(&cursor), rows.iter().find(behind).cloned());
        }

        #[test]
        fn a_key_shows_its_versions_newest_first(rows in rows(), hashed: bool, at in 0u64..20) {
            let at = at.wrapping_sub(5);
            let block = build(&rows, hashed);
            let absent = vec![9; 3];
            for key in rows.iter().map(|row| &row.0).chain([&absent]) {
                let mut seen = Vec::new();
                block
                    .visit_key(key, key_hash(key), at, &mut |head, _| {
                        seen.push(*head);
                        ControlFlow::Continue(())
                    })
                    .unwrap();
                let expected: Vec<_> = rows.iter().filter(|r| r.0 == *key && r.1.version <= at).map(|r| r.1).collect();
                prop_assert_eq!(seen, expected);
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, rows in rows(), flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
            let mut damaged = build(&rows, true).bytes.to_vec();
            for (at, byte) in flips {
                let at = at.index(damaged.len());
                damaged[at] = byte;
            }
            for bytes in [bytes, damaged] {
                let Ok(block) = Block::new(Bytes::from(bytes)) else { continue };
                let _ = block.visit_key(b"\x01\x02", 77, 9, &mut |_, _| ControlFlow::Continue(()));
                let mut cursor = BlockCursor::new(block);
                let _ = (cursor.seek(b"\x01", 3), cursor.retreat(), cursor.last());
                let mut steps = 0;
                while steps < 1000 && cursor.current().is_some() && cursor.retreat().is_ok() {
                    steps += 1;
                }
                let _ = cursor.first();
                while steps < 2000 && cursor.current().is_some() && cursor.advance().is_ok() {
                    steps += 1;
                }
            }
        }
    }
}
