//! The words that every part of the engine shares.

use bytes::Bytes;

/// The version of an entry, assigned by the caller: an operation id, a hybrid timestamp, a counter. The higher version of a key wins, in
/// whatever order the writes arrived.
pub type Version = u64;

/// An operation's place in the write-ahead log, assigned by the store, dense and rising. Within one batch operations are numbered in order.
/// It decides between entries of the same key *and* version (the later wins) and what a reader may see.
pub type Sequence = u64;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 65_535;

/// What an entry is. The numbers are part of the file formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A value, standing inline.
    Value = 1,
    /// A value that stands in a blob file; the entry's payload is the pointer.
    BlobPointer = 2,
    /// The key does not exist at this version.
    Tombstone = 3,
    /// Hides entries of exactly this `(key, version)` with a lower sequence.
    Retract = 4,
    /// A tombstone over the whole tree: hides every entry with a version at or below its own.
    Clear = 5,
    /// Opaque bytes of the caller under a version, apart from the keys.
    Note = 6,
}

impl Kind {
    /// The kind that `byte` stands for in a file; `None` for a byte that no released format uses.
    pub fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Value),
            2 => Some(Kind::BlobPointer),
            3 => Some(Kind::Tombstone),
            4 => Some(Kind::Retract),
            5 => Some(Kind::Clear),
            6 => Some(Kind::Note),
            _ => None,
        }
    }
}

/// Entries of a tree live in three spaces, apart from each other in memtables and tables alike. The numbers are part of the file formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Space {
    /// Keys and what stands under them: values, blob pointers, tombstones, retract markers.
    Data = 0,
    /// Notes by version, and retract markers of notes.
    Notes = 1,
    /// Clears by version, and retract markers of clears.
    Clears = 2,
}

/// One entry as memtables, tables and iterators pass it on. Order: `(key ↑, version ↓, sequence ↓)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InternalEntry {
    /// The caller's key; empty for clears and notes, which live in spaces of their own.
    pub(crate) key: Bytes,
    /// The caller's version.
    pub(crate) version: Version,
    /// The log sequence; 0 in a table whose entry no live snapshot distinguishes.
    pub(crate) sequence: Sequence,
    /// What the entry is.
    pub(crate) kind: Kind,
    /// Whether its version was not above the largest version of the tree's sealed sources when it was written.
    pub(crate) late: bool,
    /// When it expires, in the caller's time unit (Kvorum: Unix milliseconds); `None` for never.
    pub(crate) expires_at: Option<u64>,
    /// Opaque to the engine (strong namespaces: data type; available: `from`).
    pub(crate) tag: u8,
    /// The value, the blob pointer or the note; empty for the rest.
    pub(crate) payload: Bytes,
}

/// How safe a write is when its commit resolves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Durability {
    /// In memory: lost with the process.
    Buffered,
    /// Handed to the operating system: survives a killed process; synced within a second.
    Written,
    /// On the device (`fdatasync`): survives power loss.
    Synced,
}
