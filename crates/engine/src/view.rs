//! What a reader asks for and what it gets.

use crate::snapshot::Snapshot;
use crate::types::{Kind, Sequence, Version};
use bytes::Bytes;

/// Which of the versions a reader sees. The default sees the newest of everything published.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The highest version to be seen.
    pub at: Version,
    /// Versions at or below `at` that are not to be seen (pending elsewhere). Few.
    pub hidden: &'a [Version],
    /// Reads the store as it was then, instead of as it is.
    pub snapshot: Option<&'a Snapshot>,
}

impl Default for View<'_> {
    fn default() -> Self {
        View { at: Version::MAX, hidden: &[], snapshot: None }
    }
}

impl<'a> View<'a> {
    /// The newest of everything.
    pub fn newest() -> View<'static> {
        View::default()
    }

    /// The state at a version: what is higher does not exist yet.
    pub fn at(version: Version) -> View<'static> {
        View { at: version, ..View::default() }
    }

    /// The same view with some versions hidden.
    pub fn hiding(self, hidden: &'a [Version]) -> View<'a> {
        View { hidden, ..self }
    }

    /// The same view of an earlier moment.
    pub fn of(self, snapshot: &'a Snapshot) -> View<'a> {
        View { snapshot: Some(snapshot), ..self }
    }
}

/// Whether a found entry is a value or says that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundKind {
    /// A value.
    Value,
    /// Deleted at this version: by a tombstone of the key, or by a clear of the tree (which answers for every key, also for one that never was).
    Tombstone,
}

/// What a view sees of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The version that the caller gave it.
    pub version: Version,
    /// Its place in the log, so that a reader can wait until what it read is durable ([`Store::commit_at`](crate::Store::commit_at));
    /// 0 for what has long been durable.
    pub sequence: Sequence,
    /// Value or tombstone.
    pub kind: FoundKind,
    /// The value; empty for a tombstone.
    pub value: Bytes,
    /// When it expires. The store never compares it with a clock.
    pub expires_at: Option<u64>,
    /// The caller's tag.
    pub tag: u8,
}

impl Found {
    /// Whether it is a value.
    pub fn is_value(&self) -> bool {
        self.kind == FoundKind::Value
    }
}

/// As [`Found`] without the value, which was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundVersion {
    /// The version that the caller gave it.
    pub version: Version,
    /// Its place in the log; 0 for what has long been durable.
    pub sequence: Sequence,
    /// Value or tombstone.
    pub kind: FoundKind,
    /// When it expires.
    pub expires_at: Option<u64>,
    /// The caller's tag.
    pub tag: u8,
}

/// An answer that was to be had without waiting for the disk, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cached<T = Option<Found>> {
    /// The answer.
    Ready(T),
    /// The disk must be asked: call the reading variant where waiting does no harm.
    WouldRead,
}

/// Which way a range runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// From the smallest key up.
    #[default]
    Forward,
    /// From the largest key down.
    Backward,
}

impl FoundKind {
    pub(crate) fn of(kind: Kind) -> FoundKind {
        match kind {
            Kind::Value | Kind::BlobPointer => FoundKind::Value,
            _ => FoundKind::Tombstone,
        }
    }
}
