//! A memtable over a lock-free skip list. The list's key carries version and sequence, so that no key is ever inserted twice: crossbeam's
//! insert of a key that is there hides it for a moment from readers.

use super::{Memtable, MemtableEntry, Position, Summary, Visit};
use crate::error::Result;
use crate::sst::Head;
use crate::types::{Kind, Sequence, Space, Version};
use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use parking_lot::RwLock;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What a list entry takes beside key and value: node, tower and the reference-counted slices.
const ENTRY_OVERHEAD_BYTES: u64 = 160;

#[derive(Default)]
pub(crate) struct List {
    data: SkipMap<Place, Content>,
    /// Notes and clears are few, or rise with the version: a plain map each.
    notes: RwLock<SideMap>,
    clears: RwLock<SideMap>,
    bytes: AtomicU64,
    entries: AtomicU64,
    first_sequence: AtomicU64,
    last_sequence: AtomicU64,
    largest_version: AtomicU64,
    /// The complement of the smallest version, so that it starts at 0.
    smallest_complement: AtomicU64,
    has_retracts: AtomicBool,
}

type SideMap = BTreeMap<Place, Content>;

/// The list's key.
#[derive(Debug)]
struct Place {
    key: Bytes,
    version: Version,
    sequence: Sequence,
}

#[derive(Debug)]
struct Content {
    kind: Kind,
    late: bool,
    tag: u8,
    expires_at: Option<u64>,
    payload: Bytes,
}

/// Lets a lookup compare with borrowed parts, without making a [`Place`].
trait Placed {
    fn parts(&self) -> (&[u8], Version, Sequence);
}

impl Placed for Place {
    fn parts(&self) -> (&[u8], Version, Sequence) {
        (&self.key, self.version, self.sequence)
    }
}

impl Placed for (&[u8], Version, Sequence) {
    fn parts(&self) -> (&[u8], Version, Sequence) {
        *self
    }
}

fn internal_order(a: (&[u8], Version, Sequence), b: (&[u8], Version, Sequence)) -> Ordering {
    a.0.cmp(b.0).then_with(|| b.1.cmp(&a.1)).then_with(|| b.2.cmp(&a.2))
}

impl<'a> Ord for dyn Placed + 'a {
    fn cmp(&self, other: &Self) -> Ordering {
        internal_order(self.parts(), other.parts())
    }
}

impl<'a> PartialOrd for dyn Placed + 'a {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> PartialEq for dyn Placed + 'a {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<'a> Eq for dyn Placed + 'a {}

impl<'a> Borrow<dyn Placed + 'a> for Place {
    fn borrow(&self) -> &(dyn Placed + 'a) {
        self
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        internal_order(self.parts(), other.parts())
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Place {}

fn head(place: &Place, content: &Content) -> Head {
    let Content { kind, late, tag, expires_at, .. } = *content;
    Head { version: place.version, sequence: place.sequence, kind, late, expires_at, tag }
}

fn assemble(place: &Place, content: &Content) -> MemtableEntry {
    MemtableEntry { key: place.key.clone(), head: head(place, content), payload: content.payload.clone() }
}

fn borrowed(bound: Bound<&Position>) -> Bound<(&[u8], Version, Sequence)> {
    bound.map(|p| (&p.key[..], p.version, p.sequence))
}

fn as_placed<'a>(bound: &'a Bound<(&'a [u8], Version, Sequence)>) -> Bound<&'a (dyn Placed + 'a)> {
    bound.as_ref().map(|p| p as &dyn Placed)
}

impl Memtable for List {
    fn insert(&self, space: Space, entry: MemtableEntry) -> u64 {
        let MemtableEntry { key, head, payload } = entry;
        let Head { version, sequence, kind, late, expires_at, tag } = head;
        let bytes = (key.len() + payload.len()) as u64 + ENTRY_OVERHEAD_BYTES;
        if space == Space::Data && kind != Kind::Retract {
            self.largest_version.fetch_max(version, Relaxed);
        }
        if space == Space::Data {
            self.smallest_complement.fetch_max(!version, Relaxed);
            if kind == Kind::Retract {
                self.has_retracts.store(true, Relaxed);
            }
        }
        let _ = self.first_sequence.compare_exchange(0, sequence, Relaxed, Relaxed);
        self.last_sequence.store(sequence, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.entries.fetch_add(1, Relaxed);
        let (place, content) =
            (Place { key, version, sequence }, Content { kind, late, tag, expires_at, payload });
        match space {
            Space::Data => drop(self.data.insert(place, content)),
            Space::Notes => drop(self.notes.write().insert(place, content)),
            Space::Clears => drop(self.clears.write().insert(place, content)),
        }
        bytes
    }

    fn lookup(&self, key: &[u8], at: Version, visit: &mut Visit<'_>) -> Result<()> {
        let from = (key, at, Sequence::MAX);
        let mut entry = self.data.lower_bound(Bound::Included(&from as &dyn Placed));
        while let Some(found) = entry {
            let (place, content) = (found.key(), found.value());
            if place.key != key || visit(&head(place, content), &|| content.payload.clone())?.is_break() {
                break;
            }
            entry = found.next();
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
        let (low, high) = (borrowed(range.0), borrowed(range.1));
        let bounds = (as_placed(&low), as_placed(&high));
        let side = match space {
            Space::Data => {
                let range = self.data.range::<dyn Placed, _>(bounds);
                if backward {
                    out.extend(range.rev().take(limit).map(|e| assemble(e.key(), e.value())));
                } else {
                    out.extend(range.take(limit).map(|e| assemble(e.key(), e.value())));
                }
                return;
            }
            Space::Notes => self.notes.read(),
            Space::Clears => self.clears.read(),
        };
        let range = side.range::<dyn Placed, _>(bounds);
        if backward {
            out.extend(range.rev().take(limit).map(|(place, content)| assemble(place, content)));
        } else {
            out.extend(range.take(limit).map(|(place, content)| assemble(place, content)));
        }
    }

    fn summary(&self) -> Summary {
        Summary {
            bytes: self.bytes.load(Relaxed),
            entries: self.entries.load(Relaxed),
            first_sequence: self.first_sequence.load(Relaxed),
            last_sequence: self.last_sequence.load(Relaxed),
            largest_version: self.largest_version.load(Relaxed),
            smallest_version: !self.smallest_complement.load(Relaxed),
            has_retracts: self.has_retracts.load(Relaxed),
        }
    }
}
