//! An append-only list of entries: one writer, many readers, no entry ever moves. Its pieces double in size, so that a small memtable stays small.

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
const PIECES: usize = 28;
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

#[derive(Default)]
pub(super) struct Entries {
    pieces: [OnceLock<Box<[OnceLock<Entry>]>>; PIECES],
    len: AtomicU32,
}

/// Piece and place of an entry.
fn place(index: u32) -> (usize, usize) {
    let shifted = index as usize / FIRST_PIECE_ENTRIES + 1;
    let piece = shifted.ilog2() as usize;
    let first = FIRST_PIECE_ENTRIES * ((1 << piece) - 1);
    (piece, index as usize - first)
}

impl Entries {
    /// Entries that can be looked at.
    pub(super) fn len(&self) -> u32 {
        self.len.load(Acquire)
    }

    pub(super) fn get(&self, index: u32) -> Option<&Entry> {
        let (piece, at) = place(index);
        self.pieces.get(piece)?.get()?.get(at)?.get()
    }

    /// Adds an entry; answers its place and the memory newly taken. One thread at a time.
    pub(super) fn push(&self, entry: Entry) -> (u32, u64) {
        let index = self.len.load(Relaxed);
        let (piece, at) = place(index);
        let mut taken = 0;
        if let Some(slots) = self.pieces.get(piece) {
            let slots = slots.get_or_init(|| {
                let slots: Box<[OnceLock<Entry>]> =
                    (0..FIRST_PIECE_ENTRIES << piece).map(|_| OnceLock::new()).collect();
                taken = size_of_val(&*slots) as u64;
                slots
            });
            if let Some(slot) = slots.get(at) {
                let fresh = slot.set(entry);
                debug_assert!(fresh.is_ok(), "one writer at a time");
            }
        }
        self.len.store(index + 1, Release);
        (index, taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_one_another() {
        let mut expected = (0, 0);
        for index in 0..10_000 {
            assert_eq!(place(index), expected);
            expected.1 += 1;
            if expected.1 == FIRST_PIECE_ENTRIES << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
    }
}
