//! The index of one space of a table: for each block a separator, a key that no entry of the block stands behind and every entry of
//! the next block does. In memory the separators' first eight bytes behind what all share are a flat array of integers: a lookup is
//! a search over contiguous `u64`s, and whole keys are compared only where these are equal.

#![warn(clippy::indexing_slicing)]

use super::block::compare;
use super::format::BlockHandle;
use crate::codec::{Reader, common_prefix, put_prefixed, put_varint};
use crate::types::Version;

/// Collects the index while blocks are written.
#[derive(Default)]
pub(crate) struct IndexBuilder {
    bytes: Vec<u8>,
    last: Vec<u8>,
    blocks: u64,
    first_offset: u64,
}

impl IndexBuilder {
    /// Adds a block whose last entry is `(key, version)`; `next` is the key of the entry behind it, if there is one.
    pub(crate) fn add(&mut self, key: &[u8], version: Version, next: Option<&[u8]>, handle: BlockHandle) {
        if self.blocks == 0 {
            self.first_offset = handle.offset;
        }
        self.blocks += 1;
        let separator = next.map_or(key, |next| separator(key, next));
        let continues = next == Some(key);
        let shared = common_prefix(&self.last, separator);
        put_varint(&mut self.bytes, (shared as u64) << 1 | u64::from(continues));
        put_prefixed(&mut self.bytes, separator.get(shared..).unwrap_or_default());
        if continues {
            self.bytes.extend_from_slice(&version.to_le_bytes());
        }
        put_varint(&mut self.bytes, handle.stored_bytes);
        self.last.truncate(shared);
        self.last.extend_from_slice(separator.get(shared..).unwrap_or_default());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    /// The raw index block.
    pub(crate) fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 20);
        put_varint(&mut out, self.blocks);
        put_varint(&mut out, self.first_offset);
        out.extend_from_slice(&self.bytes);
        out
    }
}

/// The shortest prefix of `next` that is not below `key` … and below `next`; else `key` itself.
fn separator<'a>(key: &'a [u8], next: &'a [u8]) -> &'a [u8] {
    let common = common_prefix(key, next);
    // `next` up to and with the first byte that differs stands above `key`; it stands below `next` only if more follows.
    let short = next.get(..common + 1).unwrap_or_default();
    if common < key.len() && short.len() < next.len() && short.len() < key.len() { short } else { key }
}

/// The index of one space in memory.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// What all separators begin with.
    common: Box<[u8]>,
    /// The eight bytes behind that, big-endian, padded with zeros.
    prefixes: Box<[u64]>,
    /// The separators without the common part, one behind the other, and where each ends.
    keys: Box<[u8]>,
    key_ends: Box<[u32]>,
    /// The version up to which a block reaches into its separator's key; `None` where the next block begins with another key.
    continued: Box<[Option<Version>]>,
    /// Where each block starts, and where the last ends.
    offsets: Box<[u64]>,
}

impl Index {
    /// Reads what [`IndexBuilder::finish`] made; `None` if it is no index of blocks within the first `end` bytes of a file.
    pub(crate) fn decode(bytes: &[u8], end: u64) -> Option<Index> {
        let mut reader = Reader::new(bytes);
        let blocks = reader.varint_len()?;
        let mut offset = reader.varint()?;
        // Each block takes three bytes of the index at least: what is reserved is bounded by what was read.
        if blocks > bytes.len() / 3 {
            return None;
        }
        let mut separators: Vec<u8> = Vec::new();
        let mut ends = Vec::with_capacity(blocks);
        let mut continued = Vec::with_capacity(blocks);
        let mut offsets = Vec::with_capacity(blocks + 1);
        let mut last = Vec::new();
        offsets.push(offset);
        for _ in 0..blocks {
            let word = reader.varint()?;
            let shared = usize::try_from(word >> 1).ok().filter(|&shared| shared <= last.len())?;
            last.truncate(shared);
            last.extend_from_slice(reader.prefixed()?);
            separators.extend_from_slice(&last);
            ends.push(u32::try_from(separators.len()).ok()?);
            continued.push(if word & 1 == 1 { Some(reader.u64()?) } else { None });
            offset = offset.checked_add(reader.varint()?).filter(|&offset| offset <= end)?;
            offsets.push(offset);
        }
        if !reader.is_empty() {
            return None;
        }
        let continued = if continued.iter().any(Option::is_some) { continued.into() } else { Box::default() };
        Some(Index::flatten(&separators, &ends, continued, offsets.into()))
    }

    fn flatten(keys: &[u8], ends: &[u32], continued: Box<[Option<Version>]>, offsets: Box<[u64]>) -> Index {
        let key = |i: usize| slice_of(keys, ends, i);
        let common = match ends.len() {
            0 => 0,
            // Separators are sorted: what the first and the last share, all share.
            blocks => common_prefix(key(0), key(blocks - 1)),
        };
        let mut short = Vec::with_capacity(keys.len().saturating_sub(common * ends.len()));
        let mut short_ends = Vec::with_capacity(ends.len());
        let mut prefixes = Vec::with_capacity(ends.len());
        for i in 0..ends.len() {
            let rest = key(i).get(common..).unwrap_or_default();
            prefixes.push(prefix_of(rest));
            short.extend_from_slice(rest);
            short_ends.push(short.len() as u32);
        }
        let common =
            if ends.is_empty() { Box::default() } else { key(0).get(..common).unwrap_or_default().into() };
        Index {
            common,
            prefixes: prefixes.into(),
            keys: short.into(),
            key_ends: short_ends.into(),
            continued,
            offsets,
        }
    }

    /// Number of blocks.
    pub(crate) fn len(&self) -> usize {
        self.key_ends.len()
    }

    /// The first block that may hold an entry not before `(key, version)`; [`Index::len`] if none does.
    #[inline]
    pub(crate) fn find(&self, key: &[u8], version: Version) -> usize {
        let Some(rest) = key.strip_prefix(&*self.common) else {
            return if *key < *self.common { 0 } else { self.len() };
        };
        let prefix = prefix_of(rest);
        let low = self.prefixes.partition_point(|&p| p < prefix);
        let equal = self.prefixes.get(low..).unwrap_or_default();
        if equal.first() != Some(&prefix) {
            return low;
        }
        let equal = equal.partition_point(|&p| p == prefix);
        let before = |i: usize| compare(self.key(i), self.continues(i).unwrap_or(0), rest, version).is_lt();
        let (mut first, mut end) = (low, low + equal);
        while first < end {
            let middle = first + (end - first) / 2;
            if before(middle) { first = middle + 1 } else { end = middle }
        }
        first
    }

    /// The version of the last entry of block `i`, if the next block begins with the same key.
    pub(crate) fn continues(&self, i: usize) -> Option<Version> {
        self.continued.get(i).copied().flatten()
    }

    pub(crate) fn handle(&self, i: usize) -> Option<BlockHandle> {
        let (offset, end) = (*self.offsets.get(i)?, *self.offsets.get(i + 1)?);
        Some(BlockHandle { offset, stored_bytes: end - offset })
    }

    /// Where the blocks of this space end in the file.
    pub(crate) fn end(&self) -> u64 {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.common.len()
            + self.keys.len()
            + 12 * self.len()
            + 16 * self.continued.len()
            + 8 * self.offsets.len()
    }

    /// The separator of block `i` without the common part.
    fn key(&self, i: usize) -> &[u8] {
        slice_of(&self.keys, &self.key_ends, i)
    }
}

fn slice_of<'a>(keys: &'a [u8], ends: &[u32], i: usize) -> &'a [u8] {
    let start = i.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0) as usize;
    let end = ends.get(i).copied().unwrap_or(0) as usize;
    keys.get(start..end).unwrap_or_default()
}

fn prefix_of(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(key).for_each(|(to, &from)| *to = from);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Pair = (Vec<u8>, Version);

    fn blocks() -> impl Strategy<Value = Vec<Vec<Pair>>> {
        let pair = (proptest::collection::vec(0u8..3, 0..12), 0u64..6);
        let pairs = proptest::collection::btree_set(pair, 1..80);
        (pairs, proptest::collection::vec(1usize..6, 80), any::<bool>()).prop_map(
            |(pairs, sizes, prefixed)| {
                let mut pairs: Vec<_> = pairs.into_iter().collect();
                if prefixed {
                    pairs.iter_mut().for_each(|(key, _)| key.splice(0..0, *b"shared").for_each(drop));
                }
                pairs.sort_by(|(a, x), (b, y)| compare(a, *x, b, *y));
                let mut sizes = sizes.into_iter();
                let mut blocks = Vec::new();
                while !pairs.is_empty() {
                    let size = sizes.next().unwrap().min(pairs.len());
                    blocks.push(pairs.drain(..size).collect());
                }
                blocks
            },
        )
    }

    proptest! {
        #[test]
        fn the_block_found_holds_the_first_entry_not_before_the_target(blocks in blocks(), key in proptest::collection::vec(0u8..3, 0..12), version in 0u64..6) {
            let mut builder = IndexBuilder::default();
            for (i, block) in blocks.iter().enumerate() {
                let (key, version) = block.last().unwrap();
                let next = blocks.get(i + 1).map(|block| &block[0].0[..]);
                builder.add(key, *version, next, BlockHandle { offset: 50 + 10 * i as u64, stored_bytes: 10 });
            }
            let index = Index::decode(&builder.finish(), 50 + 10 * blocks.len() as u64).unwrap();
            prop_assert_eq!(index.len(), blocks.len());
            let own = blocks.iter().flatten().map(|(key, version)| (key.clone(), *version));
            for (key, version) in own.chain([(key, version), (b"sharec".to_vec(), 1), (b"shared".to_vec(), 1), (b"sharee".to_vec(), 1)]) {
                let found = index.find(&key, version);
                let exact = blocks.iter().position(|block| block.iter().any(|(k, v)| compare(k, *v, &key, version).is_ge()));
                let exact = exact.unwrap_or(blocks.len());
                // A separator may stand above all of its block: then the first entry sought opens the next one.
                let near = found == exact || found + 1 == exact && (exact == blocks.len() || compare(&blocks[exact][0].0, blocks[exact][0].1, &key, version).is_ge());
                prop_assert!(near, "{} instead of {}", found, exact);
                if blocks.iter().flatten().any(|(k, v)| *k == key && *v == version) {
                    prop_assert_eq!(found, exact);
                }
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            if let Some(index) = Index::decode(&bytes, 1 << 20) {
                index.find(b"key", 3);
            }
        }
    }
}
