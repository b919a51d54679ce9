//! An append-only list of entries: one writer, many readers, no entry ever moves. The first pieces double in size, so that a small memtable
//! stays small; later ones are alike, so that a large one has no more to spare than one of them.

use crate::sst::Head;
use crate::types::{Kind, Sequence, Version};
use bytes::Bytes;
use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release},
};

/// Entries of the first piece; each later one holds as many as all before it, and this many more.
const FIRST_PIECE_ENTRIES: usize = 16;
/// How many pieces double.
const SMALL_PIECES: usize = 8;
const SMALL_ENTRIES: usize = FIRST_PIECE_ENTRIES * ((1 << SMALL_PIECES) - 1);
const LARGE_PIECE_ENTRIES: usize = 4096;
/// Large pieces stand on shelves, each with room for twice as many as the one before: enough for 2^32 entries.
const SHELVES: usize = 21;
/// Stands for "no entry" where an entry names the next one.
const NONE: u32 = u32::MAX;

/// An entry: key and payload follow one another in `bytes`.
pub(super) struct Entry {
    bytes: Bytes,
    key_len: u16,
    kind: Kind,
    late: bool,
    tag: u8,
    version: Version,
    sequence: Sequence,
    expires_at: Option<u64>,
    /// The key's next entry in internal order.
    next: AtomicU32,
}

impl Entry {
    pub(super) fn new(bytes: Bytes, key_len: u16, head: &Head) -> Entry {
        let &Head { version, sequence, kind, late, expires_at, tag } = head;
        Entry { bytes, key_len, kind, late, tag, version, sequence, expires_at, next: AtomicU32::new(NONE) }
    }

    pub(super) fn key(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.key_len)).unwrap_or_default()
    }

    pub(super) fn key_bytes(&self) -> Bytes {
        self.bytes.slice(..usize::from(self.key_len))
    }

    pub(super) fn payload(&self) -> Bytes {
        self.bytes.slice(usize::from(self.key_len)..)
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn sequence(&self) -> Sequence {
        self.sequence
    }

    pub(super) fn head(&self) -> Head {
        let &Entry { version, sequence, kind, late, expires_at, tag, .. } = self;
        Head { version, sequence, kind, late, expires_at, tag }
    }

    pub(super) fn next(&self) -> Option<u32> {
        Some(self.next.load(Acquire)).filter(|&next| next != NONE)
    }

    pub(super) fn set_next(&self, next: Option<u32>) {
        self.next.store(next.unwrap_or(NONE), Release);
    }
}

type Piece = Box<[OnceLock<Entry>]>;

#[derive(Default)]
pub(super) struct Entries {
    small: [OnceLock<Piece>; SMALL_PIECES],
    shelves: [OnceLock<Box<[OnceLock<Piece>]>>; SHELVES],
    len: AtomicU32,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Small { piece: usize, at: usize },
    Large { shelf: usize, piece: usize, at: usize },
}

fn place(index: u32) -> Place {
    let index = index as usize;
    let Some(large) = index.checked_sub(SMALL_ENTRIES) else {
        let piece = (index / FIRST_PIECE_ENTRIES + 1).ilog2() as usize;
        return Place::Small { piece, at: index - FIRST_PIECE_ENTRIES * ((1 << piece) - 1) };
    };
    let number = large / LARGE_PIECE_ENTRIES + 1;
    let shelf = number.ilog2() as usize;
    Place::Large { shelf, piece: number - (1 << shelf), at: large % LARGE_PIECE_ENTRIES }
}

fn fresh_piece(entries: usize, taken: &mut u64) -> Piece {
    let piece: Piece = (0..entries).map(|_| OnceLock::new()).collect();
    *taken += size_of_val(&*piece) as u64;
    piece
}

impl Entries {
    /// Entries that can be looked at.
    pub(super) fn len(&self) -> u32 {
        self.len.load(Acquire)
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Entry> {
        match place(index) {
            Place::Small { piece, at } => self.small.get(piece)?.get()?.get(at)?.get(),
            Place::Large { shelf, piece, at } => {
                self.shelves.get(shelf)?.get()?.get(piece)?.get()?.get(at)?.get()
            }
        }
    }

    /// Adds an entry; answers its place and the memory newly taken. One thread at a time.
    pub(super) fn push(&self, entry: Entry) -> (u32, u64) {
        let index = self.len.load(Relaxed);
        let mut taken = 0;
        if let Some(slot) = self.slot(index, &mut taken) {
            let fresh = slot.set(entry);
            debug_assert!(fresh.is_ok(), "one writer at a time");
        }
        self.len.store(index + 1, Release);
        (index, taken)
    }

    /// The slot of an entry that is to come.
    fn slot(&self, index: u32, taken: &mut u64) -> Option<&OnceLock<Entry>> {
        match place(index) {
            Place::Small { piece, at } => {
                let slots =
                    self.small.get(piece)?.get_or_init(|| fresh_piece(FIRST_PIECE_ENTRIES << piece, taken));
                slots.get(at)
            }
            Place::Large { shelf, piece, at } => {
                let pieces = self
                    .shelves
                    .get(shelf)?
                    .get_or_init(|| (0..1 << shelf).map(|_| OnceLock::new()).collect());
                pieces.get(piece)?.get_or_init(|| fresh_piece(LARGE_PIECE_ENTRIES, taken)).get(at)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sst::Head;

    #[test]
    fn what_was_pushed_stays_in_its_place() {
        let entries = Entries::default();
        let count = 20_000;
        for index in 0..count {
            let head = Head {
                version: u64::from(index),
                sequence: 1,
                kind: Kind::Value,
                late: false,
                expires_at: None,
                tag: 0,
            };
            assert_eq!(entries.push(Entry::new(Bytes::new(), 0, &head)).0, index);
        }
        assert!((0..count).all(|index| entries.get(index).is_some_and(|e| e.version() == u64::from(index))));
        assert!(entries.get(count).is_none());
        assert!(
            matches!(place(u32::MAX), Place::Large { shelf, .. } if shelf < SHELVES),
            "there is room for all"
        );
    }
}
