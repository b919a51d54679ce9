//! Where calls of `SCAN` ended. A cursor is a number, too small for a key: it is a digest of the key, its *mark*. Nodes remember the marks that they
//! gave out, up to a bound; a mark that nobody remembers is searched among the keys. So a cursor is good at any node and after any restart.

use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Marks remembered at most; the oldest goes first.
const MARKS_MAX: usize = 16_384;

/// Bytes of the keys of all marks at most; likewise.
const MARKS_BYTES_MAX: usize = 16 << 20;

/// The mark of a key: above zero, and a signed 64-bit integer holds it.
pub(super) fn mark_of(namespace: u16, key: &[u8]) -> u64 {
    (xxh3_64_with_seed(key, namespace.into()) >> 1).max(1)
}

/// The marks that a node has given out, by namespace.
#[derive(Default)]
pub(super) struct Marks {
    keys: HashMap<(u16, u64), Bytes>,
    ages: VecDeque<(u16, u64)>,
    bytes: usize,
}

impl Marks {
    /// Remembers a key; answers its mark.
    pub(super) fn add(&mut self, namespace: u16, key: &Bytes) -> u64 {
        let mark = mark_of(namespace, key);
        if self.keys.insert((namespace, mark), key.clone()).is_none() {
            self.ages.push_back((namespace, mark));
            self.bytes += key.len();
        }
        while self.keys.len() > MARKS_MAX || self.bytes > MARKS_BYTES_MAX {
            let Some(oldest) = self.ages.pop_front() else { break };
            self.bytes -= self.keys.remove(&oldest).map_or(0, |key| key.len());
        }
        mark
    }

    pub(super) fn get(&self, namespace: u16, mark: u64) -> Option<Bytes> {
        self.keys.get(&(namespace, mark)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_marks_are_remembered() {
        let mut marks = Marks::default();
        let key = |number: usize| Bytes::from(format!("{number}"));
        let first = marks.add(7, &key(0));
        assert_eq!((marks.add(7, &key(0)), marks.get(7, first)), (first, Some(key(0))));
        assert_eq!(marks.get(8, first), None, "another namespace's");
        for number in 1..=MARKS_MAX {
            marks.add(7, &key(number));
        }
        assert_eq!((marks.get(7, first), marks.keys.len()), (None, MARKS_MAX));
        let large = (0..300_u16).map(|number| vec![number as u8; 60_000 + usize::from(number)]);
        let last = large.map(|key| marks.add(7, &key.into())).last().unwrap();
        assert!(marks.bytes <= MARKS_BYTES_MAX && marks.get(7, last).is_some());
        assert_eq!(marks.bytes, marks.keys.values().map(Bytes::len).sum::<usize>());
    }
}
