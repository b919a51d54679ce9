//! The memtable: an append-only list of entries, a hash of key → the key's entries, and order on demand. A write costs a copy and a hash
//! slot; a lookup a hash and a comparison; only scans and the flush pay for order.

use super::entries::{Entries, Entry};
use super::index::Index;
use super::order::Order;
use super::{Memtable, MemtableEntry, Position, Summary, Visit};
use crate::error::Result;
use crate::sst::Head;
use crate::types::{Kind, Sequence, Space, Version};
use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Keys and values are copied into pieces of memory, each a quarter of what there is already, within these bounds.
const ARENA_BYTES_MIN: usize = 1 << 10;
const ARENA_BYTES_MAX: usize = 256 << 10;
/// A value of more than this gets memory of its own.
const ARENA_VALUE_BYTES_MAX: usize = 32 << 10;
/// What a note or clear takes beside its payload.
const SIDE_ENTRY_BYTES: u64 = 96;

#[derive(Default)]
pub(crate) struct Hashed {
    entries: Entries,
    index: Index,
    order: Order,
    arena: Mutex<Arena>,
    /// Notes and clears stand in maps of their own.
    notes: RwLock<SideMap>,
    clears: RwLock<SideMap>,
    bytes: AtomicU64,
    side_entries: AtomicU64,
    first_sequence: AtomicU64,
    last_sequence: AtomicU64,
    largest_version: AtomicU64,
    smallest_version: AtomicU64,
    has_retracts: AtomicBool,
}

/// By version and sequence, both downwards.
type SideMap = BTreeMap<(u64, u64), (Head, Bytes)>;

fn side_key(version: Version, sequence: Sequence) -> (u64, u64) {
    (!version, !sequence)
}

#[derive(Default)]
struct Arena {
    piece: BytesMut,
    total_bytes: usize,
}

impl Arena {
    /// Key and payload, one behind the other, and the memory newly taken.
    fn keep(&mut self, key: &[u8], payload: &[u8]) -> (Bytes, u64) {
        let len = key.len() + payload.len();
        if len > ARENA_VALUE_BYTES_MAX {
            let mut own = BytesMut::with_capacity(len);
            own.extend_from_slice(key);
            own.extend_from_slice(payload);
            return (own.freeze(), len as u64);
        }
        let mut taken = 0;
        if self.piece.capacity() < len {
            let fresh = (self.total_bytes / 4).clamp(ARENA_BYTES_MIN, ARENA_BYTES_MAX).max(len);
            self.total_bytes += fresh;
            self.piece = BytesMut::with_capacity(fresh);
            taken = fresh as u64;
        }
        self.piece.extend_from_slice(key);
        self.piece.extend_from_slice(payload);
        (self.piece.split().freeze(), taken)
    }
}

impl Hashed {
    fn insert_data(&self, head: &Head, hash: u64, key: &[u8], payload: &[u8]) -> u64 {
        let (bytes, kept) = self.arena.lock().keep(key, payload);
        let entry = Entry::new(bytes, u16::try_from(key.len()).unwrap_or(u16::MAX), head);
        let is_it = |other: u32| self.entries.get(other).is_some_and(|entry| entry.key() == key);
        let first = self.index.find(hash, is_it);
        // The place in the key's list: behind all higher versions. The new entry has the highest sequence of all.
        let mut before = None;
        let mut behind = first;
        while let Some(entry) =
            behind.and_then(|index| self.entries.get(index)).filter(|entry| entry.version() > head.version)
        {
            before = Some(entry);
            behind = entry.next();
        }
        entry.set_next(behind);
        let (index, listed) = self.entries.push(entry);
        let indexed = match before {
            Some(before) => {
                before.set_next(Some(index));
                0
            }
            None => self.index.put(hash, index, is_it),
        };
        kept + listed + indexed
    }

    fn count(&self, space: Space, head: &Head) {
        if space == Space::Data {
            if head.kind == Kind::Retract {
                self.has_retracts.store(true, Relaxed);
            } else {
                self.largest_version.fetch_max(head.version, Relaxed);
            }
            // Stored inverted, so that 0 stands for none.
            self.smallest_version.fetch_max(!head.version, Relaxed);
        } else {
            self.side_entries.fetch_add(1, Relaxed);
        }
        if self.first_sequence.load(Relaxed) == 0 {
            self.first_sequence.store(head.sequence, Relaxed);
        }
        self.last_sequence.store(head.sequence, Relaxed);
    }
}

impl Memtable for Hashed {
    fn insert(&self, space: Space, head: &Head, hash: u64, key: &[u8], payload: &[u8]) -> u64 {
        let side = |map: &RwLock<SideMap>| {
            let content = (*head, Bytes::copy_from_slice(payload));
            map.write().insert(side_key(head.version, head.sequence), content);
            SIDE_ENTRY_BYTES + payload.len() as u64
        };
        self.count(space, head);
        let taken = match space {
            Space::Data => self.insert_data(head, hash, key, payload),
            Space::Notes => side(&self.notes),
            Space::Clears => side(&self.clears),
        };
        self.bytes.fetch_add(taken, Relaxed);
        taken
    }

    fn lookup(&self, key: &[u8], hash: u64, at: Version, visit: &mut Visit<'_>) -> Result<()> {
        let is_it = |index: u32| self.entries.get(index).is_some_and(|entry| entry.key() == key);
        let mut next = self.index.find(hash, is_it);
        while let Some(entry) = next.and_then(|index| self.entries.get(index)) {
            if entry.version() <= at && visit(&entry.head(), &|| entry.payload())?.is_break() {
                break;
            }
            next = entry.next();
        }
        Ok(())
    }

    fn scan(
        &self,
        space: Space,
        range: (Bound<&Position>, Bound<&Position>),
        backward: bool,
        limit: usize,
        out: &mut Vec<MemtableEntry>,
    ) {
        let map = match space {
            Space::Data => {
                return self.order.scan(&self.entries, range, backward, limit, &mut |index| {
                    let entry = self.entries.get(index);
                    out.extend(entry.map(|e| MemtableEntry {
                        key: e.key_bytes(),
                        head: e.head(),
                        payload: e.payload(),
                    }));
                });
            }
            Space::Notes => self.notes.read(),
            Space::Clears => self.clears.read(),
        };
        let bound = |bound: Bound<&Position>| bound.map(|p| side_key(p.version, p.sequence));
        let range = map.range((bound(range.0), bound(range.1)));
        let entry = |(head, payload): &(Head, Bytes)| MemtableEntry {
            key: Bytes::new(),
            head: *head,
            payload: payload.clone(),
        };
        if backward {
            out.extend(range.rev().take(limit).map(|(_, content)| entry(content)));
        } else {
            out.extend(range.take(limit).map(|(_, content)| entry(content)));
        }
    }

    fn summary(&self) -> Summary {
        Summary {
            bytes: self.bytes.load(Relaxed),
            entries: u64::from(self.entries.len()) + self.side_entries.load(Relaxed),
            first_sequence: self.first_sequence.load(Relaxed),
            last_sequence: self.last_sequence.load(Relaxed),
            largest_version: self.largest_version.load(Relaxed),
            smallest_version: !self.smallest_version.load(Relaxed),
            has_retracts: self.has_retracts.load(Relaxed),
        }
    }
}
