//! Writes one block of entries. The layout is drawn in `docs/formats/table.md`.

use crate::codec::{common_prefix, put_varint, zigzag};
use crate::types::{Kind, Sequence, Version};

/// Entries from one restart point to the next: within a group keys are told as differences.
pub(crate) const GROUP_ENTRIES: usize = 16;
/// Groups that the in-block hash can tell apart.
pub(crate) const HASHED_GROUPS_MAX: usize = 253;
/// A bucket that no key of the block falls into.
pub(crate) const BUCKET_EMPTY: u8 = 255;
/// A bucket that keys of several groups fall into.
pub(crate) const BUCKET_SHARED: u8 = 254;
/// Bytes at the end of a block: base version, groups, buckets.
pub(crate) const TAIL_BYTES: usize = 14;

pub(crate) const FLAG_KIND: u8 = 0b0000_0111;
pub(crate) const FLAG_LATE: u8 = 0b0000_1000;
pub(crate) const FLAG_EXPIRES: u8 = 0b0001_0000;
pub(crate) const FLAG_TAG: u8 = 0b0010_0000;
pub(crate) const FLAG_SEQUENCE: u8 = 0b0100_0000;

/// An entry without its key and payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) version: Version,
    /// 0 where no live snapshot needed it when the table was written.
    pub(crate) sequence: Sequence,
    pub(crate) kind: Kind,
    pub(crate) late: bool,
    pub(crate) expires_at: Option<u64>,
    pub(crate) tag: u8,
}

/// Collects entries in order until the block is large enough.
#[derive(Default)]
pub(crate) struct BlockBuilder {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    in_group: usize,
    base_version: Version,
    last_key: Vec<u8>,
    /// Hash and group of each key that has a first entry here; empty for blocks without an in-block hash.
    keys: Vec<(u64, usize)>,
}

impl BlockBuilder {
    /// Adds an entry; `hash` is its key's, `None` in spaces that are not looked up by key.
    pub(crate) fn add(&mut self, key: &[u8], hash: Option<u64>, head: &Head, payload: &[u8]) {
        let first = self.restarts.is_empty();
        if first {
            self.base_version = head.version;
        }
        let common = if first { 0 } else { common_prefix(&self.last_key, key) };
        let new_key = first || common != key.len() || common != self.last_key.len();
        let mut shared = common;
        if first || self.in_group == GROUP_ENTRIES {
            self.restarts.push(self.bytes.len() as u32);
            self.in_group = 0;
            shared = 0;
        }
        if new_key {
            if let Some(hash) = hash {
                self.keys.push((hash, self.restarts.len() - 1));
            }
            self.last_key.truncate(common);
            self.last_key.extend_from_slice(key.get(common..).unwrap_or_default());
        }
        self.in_group += 1;
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, (key.len() - shared) as u64);
        put_varint(&mut self.bytes, payload.len() as u64);
        self.put_head(head);
        self.bytes.extend_from_slice(key.get(shared..).unwrap_or_default());
        self.bytes.extend_from_slice(payload);
    }

    fn put_head(&mut self, head: &Head) {
        let mut flags = head.kind as u8;
        flags |= if head.late { FLAG_LATE } else { 0 };
        flags |= if head.expires_at.is_some() { FLAG_EXPIRES } else { 0 };
        flags |= if head.tag != 0 { FLAG_TAG } else { 0 };
        flags |= if head.sequence != 0 { FLAG_SEQUENCE } else { 0 };
        self.bytes.push(flags);
        put_varint(&mut self.bytes, zigzag(head.version.wrapping_sub(self.base_version)));
        if head.sequence != 0 {
            put_varint(&mut self.bytes, head.sequence);
        }
        if let Some(expires_at) = head.expires_at {
            put_varint(&mut self.bytes, expires_at);
        }
        if head.tag != 0 {
            self.bytes.push(head.tag);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.restarts.is_empty()
    }

    /// The raw length if the block ended now.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + 4 * self.restarts.len() + self.keys.len() * 4 / 3 + TAIL_BYTES
    }

    /// The raw block; [`BlockBuilder::clear`] makes room for the next.
    pub(crate) fn finish(&mut self) -> &[u8] {
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        let buckets = self.buckets();
        self.bytes.extend_from_slice(&buckets);
        self.bytes.extend_from_slice(&self.base_version.to_le_bytes());
        self.bytes.extend_from_slice(&(self.restarts.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(buckets.len() as u16).to_le_bytes());
        &self.bytes
    }

    fn buckets(&self) -> Vec<u8> {
        let count = self.keys.len() * 4 / 3 + 1;
        if self.keys.is_empty() || self.restarts.len() > HASHED_GROUPS_MAX || count > usize::from(u16::MAX) {
            return Vec::new();
        }
        let mut buckets = vec![BUCKET_EMPTY; count];
        for &(hash, group) in &self.keys {
            if let Some(bucket) = buckets.get_mut(bucket_of(hash, count)) {
                let group = group as u8;
                *bucket = if *bucket == BUCKET_EMPTY || *bucket == group { group } else { BUCKET_SHARED };
            }
        }
        buckets
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.restarts.clear();
        self.keys.clear();
        self.last_key.clear();
        self.in_group = 0;
    }
}

/// The bucket of a key among `count`. Takes the hash's low half: the filter's lines take the high one.
pub(crate) fn bucket_of(hash: u64, count: usize) -> usize {
    (((hash & 0xffff_ffff) * count as u64) >> 32) as usize
}
