//! Whole answers for keys that are asked for again and again: one lookup here instead of filters, an index and a block.
//!
//! An answer is what the tables said when no memtable held the key. It holds as long as nobody writes the key: every write moves its key's
//! stamp, and an answer with an old stamp is none. A write that stands in a memtable is found there first, so there is no moment at which an
//! old answer is given after a new one.

use super::allocated_bytes;
use crate::sst::Head;
use crate::tree::TreeId;
use bytes::Bytes;
use quick_cache::sync::Cache as QuickCache;
use quick_cache::{Equivalent, Weighter};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

/// Larger values stay in their blocks.
const RECORD_BYTES_MAX: usize = 1 << 10;
/// What an answer takes beside key and value.
const RECORD_OVERHEAD_BYTES: u64 = 200;
/// Keys share this many stamps: a write makes the answers of one key in so many void.
const STAMPS: usize = 1 << 16;
/// Where it is remembered who asked lately: only who asks twice is kept, so that reads all over the place displace nothing.
const DOORS: usize = 1 << 16;
const RECORD_BYTES_TYPICAL: u64 = 320;

struct Key {
    tree: TreeId,
    hash: u64,
    key: Bytes,
}

/// What a lookup compares with.
struct Sought<'a> {
    tree: TreeId,
    hash: u64,
    key: &'a [u8],
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash ^ u64::from(self.tree));
    }
}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash ^ u64::from(self.tree));
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.tree == other.tree && self.key == other.key
    }
}

impl Eq for Key {}

impl Equivalent<Key> for Sought<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.tree == key.tree && *self.key == key.key
    }
}

#[derive(Clone)]
struct Record {
    stamp: Stamp,
    head: Head,
    payload: Bytes,
}

/// The state of a key's writes when an answer was looked for, and of its tree's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    writes: u32,
    arrivals: u32,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Record> for ByBytes {
    fn weight(&self, key: &Key, record: &Record) -> u64 {
        allocated_bytes(key.key.len()) + allocated_bytes(record.payload.len()) + RECORD_OVERHEAD_BYTES
    }
}

/// The record cache of a store.
pub(crate) struct Records {
    records: QuickCache<Key, Record, ByBytes>,
    stamps: Box<[AtomicU32]>,
    doors: Box<[AtomicU32]>,
    arrivals: AtomicU32,
}

fn zeros(count: usize) -> Box<[AtomicU32]> {
    (0..count).map(|_| AtomicU32::new(0)).collect()
}

impl Records {
    /// A cache of at most so many bytes, its own tables included; none at all if they are too few.
    pub(crate) fn new(bytes_max: u64) -> Option<Records> {
        let tables = ((STAMPS + DOORS) * size_of::<AtomicU32>()) as u64;
        let rest = bytes_max.checked_sub(tables).filter(|&rest| rest >= tables)?;
        let items = usize::try_from(rest / RECORD_BYTES_TYPICAL).unwrap_or(usize::MAX);
        let records = QuickCache::with_weighter(items, rest, ByBytes);
        Some(Records { records, stamps: zeros(STAMPS), doors: zeros(DOORS), arrivals: AtomicU32::new(0) })
    }

    fn stamp_of(&self, hash: u64) -> Option<&AtomicU32> {
        self.stamps.get(hash as usize % STAMPS)
    }

    /// To be taken before the tree's sources are looked at.
    #[inline]
    pub(crate) fn stamp(&self, hash: u64) -> Stamp {
        let writes = self.stamp_of(hash).map_or(0, |stamp| stamp.load(Acquire));
        Stamp { writes, arrivals: self.arrivals.load(Acquire) }
    }

    /// A write of the key was published. By one thread at a time.
    #[inline]
    pub(crate) fn written(&self, hash: u64) {
        if let Some(stamp) = self.stamp_of(hash) {
            stamp.store(stamp.load(Relaxed).wrapping_add(1), Release);
        }
    }

    /// Files came in past the memtables: nothing that was known holds.
    pub(crate) fn arrived(&self) {
        self.arrivals.fetch_add(1, Release);
    }

    /// The answer, if it still holds.
    #[inline]
    pub(crate) fn get(&self, tree: TreeId, hash: u64, key: &[u8], stamp: Stamp) -> Option<(Head, Bytes)> {
        let record = self.records.get(&Sought { tree, hash, key })?;
        (record.stamp == stamp).then_some((record.head, record.payload))
    }

    /// Keeps an answer that was looked for under a stamp, if somebody asked for it lately.
    pub(crate) fn keep(
        &self,
        tree: TreeId,
        hash: u64,
        key: &[u8],
        stamp: Stamp,
        (head, payload): (&Head, &Bytes),
    ) {
        if payload.len() > RECORD_BYTES_MAX {
            return;
        }
        let Some(door) = self.doors.get((hash >> 16) as usize % DOORS) else { return };
        let mark = (hash >> 32) as u32 ^ tree;
        if door.swap(mark, Relaxed) != mark {
            return;
        }
        // A copy: a slice would keep its whole block in memory.
        let payload = Bytes::copy_from_slice(payload);
        self.records.insert(
            Key { tree, hash, key: Bytes::copy_from_slice(key) },
            Record { stamp, head: *head, payload },
        );
    }

    /// Bytes that answers take.
    pub(crate) fn bytes(&self) -> u64 {
        self.records.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Kind;

    #[test]
    fn an_answer_holds_until_the_key_is_written() {
        let records = Records::new(4 << 20).unwrap();
        let head = Head { version: 3, sequence: 0, kind: Kind::Value, late: false, expires_at: None, tag: 0 };
        let payload = Bytes::from_static(b"value");
        let stamp = records.stamp(77);
        records.keep(1, 77, b"k", stamp, (&head, &payload));
        assert_eq!(records.get(1, 77, b"k", stamp), None, "asked for once");
        records.keep(1, 77, b"k", stamp, (&head, &payload));
        assert_eq!(records.get(1, 77, b"k", stamp), Some((head, payload.clone())));
        assert_eq!(records.get(2, 77, b"k", stamp), None, "another tree");
        assert_eq!(records.get(1, 77, b"other", stamp), None, "another key of the same hash");
        records.written(77);
        assert_eq!(records.get(1, 77, b"k", records.stamp(77)), None);
        records.keep(1, 77, b"k", stamp, (&head, &payload));
        assert_eq!(
            records.get(1, 77, b"k", records.stamp(77)),
            None,
            "what was looked for before the write is none"
        );
        let stamp = records.stamp(77);
        records.keep(1, 77, b"k", stamp, (&head, &payload));
        assert!(records.get(1, 77, b"k", records.stamp(77)).is_some());
        records.arrived();
        assert_eq!(records.get(1, 77, b"k", records.stamp(77)), None);
    }

    #[test]
    fn too_little_memory_is_no_cache() {
        assert!(Records::new(100).is_none());
    }
}
