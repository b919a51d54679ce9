//! The newest entries of a tree, in memory. One writer at a time (who holds the store's write lock), any number of readers.

mod entries;
mod hashed;
mod index;
mod order;

pub(crate) use hashed::Hashed;

use crate::error::Result;
use crate::sst::Head;
use crate::types::{Sequence, Space, Version};
use bytes::Bytes;
use std::ops::{Bound, ControlFlow};

/// A place in internal order `(key ↑, version ↓, sequence ↓)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) key: Bytes,
    pub(crate) version: Version,
    pub(crate) sequence: Sequence,
}

impl Position {
    pub(crate) fn of(entry: &MemtableEntry) -> Position {
        Position { key: entry.key.clone(), version: entry.head.version, sequence: entry.head.sequence }
    }

    /// Before every entry of the key.
    pub(crate) fn first_of(key: Bytes) -> Position {
        Position { key, version: Version::MAX, sequence: Sequence::MAX }
    }

    /// Behind every entry of the key.
    pub(crate) fn last_of(key: Bytes) -> Position {
        Position { key, version: 0, sequence: 0 }
    }
}

/// An entry of a memtable.
#[derive(Debug, Clone)]
pub(crate) struct MemtableEntry {
    pub(crate) key: Bytes,
    pub(crate) head: Head,
    pub(crate) payload: Bytes,
}

/// Is shown entries, the payload on demand; says whether to go on.
pub(crate) type Visit<'a> = dyn FnMut(&Head, &dyn Fn() -> Bytes) -> Result<ControlFlow<()>> + 'a;

/// What every memtable does. Entries are never changed or removed; no `(key, version, sequence)` comes twice.
pub(crate) trait Memtable: Send + Sync {
    /// Adds an entry and answers the memory that it takes. Called by one thread at a time.
    /// `hash` is the [`key_hash`](crate::checksum::key_hash) of the key.
    fn insert(&self, space: Space, head: &Head, hash: u64, key: &[u8], payload: &[u8]) -> u64;

    /// Shows the entries of `key` with a version at or below `at`, in internal order, until told to stop.
    fn lookup(&self, key: &[u8], hash: u64, at: Version, visit: &mut Visit<'_>) -> Result<()>;

    /// Appends up to `limit` entries of a space between two places to `out`, in order, or from the end backwards.
    fn scan(
        &self,
        space: Space,
        range: (Bound<&Position>, Bound<&Position>),
        backward: bool,
        limit: usize,
        out: &mut Vec<MemtableEntry>,
    );

    /// What it is worth.
    fn summary(&self) -> Summary;
}

/// A memtable's size and extremes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    /// Memory taken, about.
    pub(crate) bytes: u64,
    /// Entries in all spaces.
    pub(crate) entries: u64,
    /// The first and the last sequence inside; 0 when empty.
    pub(crate) first_sequence: Sequence,
    pub(crate) last_sequence: Sequence,
    /// The highest version of a value or tombstone of the data space.
    pub(crate) largest_version: Version,
    /// The lowest version of the data space; `u64::MAX` when there is none.
    pub(crate) smallest_version: Version,
    /// Whether the data space holds retract markers.
    pub(crate) has_retracts: bool,
}
