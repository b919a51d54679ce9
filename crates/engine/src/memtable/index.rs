//! A hash of key → the key's first entry in internal order. One writer, many readers; parts grow apart from each other, so that no single
//! write pays for all of it.

use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

const PARTS: usize = 64;
const FIRST_SLOTS: usize = 8;

/// A part: open addressing over slots of `hash bits (32) · entry + 1 (32)`; 0 is empty. Nothing is ever removed.
struct Part {
    slots: Box<[AtomicU64]>,
}

pub(super) struct Index {
    parts: [ArcSwapOption<Part>; PARTS],
    /// Used slots of each part; the writer's alone.
    used: [AtomicU64; PARTS],
}

impl Default for Index {
    fn default() -> Index {
        Index {
            parts: std::array::from_fn(|_| ArcSwapOption::empty()),
            used: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Part {
    fn new(slots: usize) -> Part {
        Part { slots: (0..slots).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The slot whose entry is the one sought, or the empty one where it would stand.
    fn probe(&self, bits: u32, is_it: impl Fn(u32) -> bool) -> Option<(&AtomicU64, u64)> {
        let mask = self.slots.len().wrapping_sub(1);
        let start = bits as usize & mask;
        for step in 0..self.slots.len() {
            let slot = self.slots.get((start + step) & mask)?;
            let content = slot.load(Acquire);
            if content == 0 || ((content >> 32) as u32 == bits && is_it(content as u32 - 1)) {
                return Some((slot, content));
            }
        }
        None
    }
}

fn part_and_bits(hash: u64) -> (usize, u32) {
    ((hash >> 32) as usize % PARTS, hash as u32)
}

fn slot_of(bits: u32, entry: u32) -> u64 {
    u64::from(bits) << 32 | (u64::from(entry) + 1)
}

impl Index {
    /// The first entry of the key, which `is_it` recognises.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let (part, bits) = part_and_bits(hash);
        let part = self.parts.get(part)?.load();
        let (_, content) = part.as_ref()?.probe(bits, is_it)?;
        (content != 0).then(|| content as u32 - 1)
    }

    /// Makes `entry` the first of its key; answers the memory newly taken. One thread at a time.
    pub(super) fn put(&self, hash: u64, entry: u32, is_it: impl Fn(u32) -> bool) -> u64 {
        let (place, bits) = part_and_bits(hash);
        let (Some(part), Some(used)) = (self.parts.get(place), self.used.get(place)) else { return 0 };
        let mut taken = 0;
        let mut current = part.load_full();
        let slots = current.as_ref().map_or(0, |part| part.slots.len());
        // At most three quarters full: probes stay short.
        if (used.load(Relaxed) as usize + 1) * 4 > slots * 3 {
            let grown = grow(current.as_deref(), (slots * 2).max(FIRST_SLOTS));
            taken = ((grown.slots.len() - slots) * size_of::<AtomicU64>()) as u64;
            let grown = Arc::new(grown);
            part.store(Some(Arc::clone(&grown)));
            current = Some(grown);
        }
        if let Some((slot, content)) = current.as_ref().and_then(|part| part.probe(bits, is_it)) {
            slot.store(slot_of(bits, entry), Release);
            used.fetch_add(u64::from(content == 0), Relaxed);
        }
        taken
    }
}

fn grow(old: Option<&Part>, slots: usize) -> Part {
    let part = Part::new(slots);
    for content in old
        .iter()
        .flat_map(|old| old.slots.iter())
        .map(|slot| slot.load(Relaxed))
        .filter(|&content| content != 0)
    {
        // No two slots are of the same key.
        if let Some((slot, _)) = part.probe((content >> 32) as u32, |_| false) {
            slot.store(content, Relaxed);
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_found_however_it_grew() {
        let index = Index::default();
        let hash = |key: u32| u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for key in 0..5000 {
            index.put(hash(key), key, |other| other == key);
            assert_eq!(index.find(hash(key), |other| other == key), Some(key));
        }
        for key in 0..5000 {
            assert_eq!(index.find(hash(key), |other| other == key), Some(key));
        }
        assert_eq!(index.find(hash(9999), |other| other == 9999), None);
        index.put(hash(7), 6000, |other| other == 7);
        assert_eq!(index.find(hash(7), |other| other == 6000), Some(6000));
    }
}
