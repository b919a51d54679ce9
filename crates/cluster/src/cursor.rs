//! The cursors of `SCAN`: random numbers that stand for a place, in a bounded table of the node. A cursor is good on every connection.

use crate::namespace::NamespaceId;
use std::collections::{HashMap, VecDeque};

/// Cursors kept at most; the oldest goes first.
const CURSORS_MAX: usize = 16_384;

/// Bytes of the keys in all cursors at most; likewise.
const CURSOR_BYTES_MAX: usize = 16 << 20;

/// Bits of a cursor: in a cluster the number of its node stands above them. Signed 64-bit integers hold both: some clients use them.
pub(crate) const CURSOR_BITS: u32 = 53;

/// A place in a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) namespace: NamespaceId,
    /// The shard's place in the namespace.
    pub(crate) shard: u16,
    /// The last key of it that was looked at.
    pub(crate) after: Option<Vec<u8>>,
}

struct Cursor {
    place: Place,
    /// The cursor that this one was given for. A client that lost the reply asks with it again; the one before that is asked for no more.
    previous: u64,
}

/// All cursors of a node.
pub(crate) struct Cursors {
    random: fastrand::Rng,
    places: HashMap<u64, Cursor>,
    /// In order of age; some are gone from `places`.
    ages: VecDeque<u64>,
    bytes: usize,
}

impl Cursors {
    pub(crate) fn new(seed: u64) -> Cursors {
        let random = fastrand::Rng::with_seed(seed);
        Cursors { random, places: HashMap::new(), ages: VecDeque::new(), bytes: 0 }
    }

    /// A random number: of the same dice as the cursors.
    pub(crate) fn draw(&mut self) -> u64 {
        self.random.u64(..)
    }

    /// The place of a cursor; `None` if it was never given out, or too long ago.
    pub(crate) fn get(&self, cursor: u64) -> Option<&Place> {
        self.places.get(&cursor).map(|cursor| &cursor.place)
    }

    /// A cursor for `place`, to which a call with the cursor `previous` came (0: the first call of a scan).
    pub(crate) fn add(&mut self, place: Place, previous: u64) -> u64 {
        if let Some(before) = self.places.get(&previous).map(|cursor| cursor.previous) {
            self.remove(before);
        }
        self.bytes += bytes(&place);
        let cursor = loop {
            let cursor = self.random.u64(1..1 << CURSOR_BITS);
            if !self.places.contains_key(&cursor) {
                break cursor;
            }
        };
        self.places.insert(cursor, Cursor { place, previous });
        self.ages.push_back(cursor);
        while self.ages.len() > CURSORS_MAX || self.bytes > CURSOR_BYTES_MAX {
            let Some(oldest) = self.ages.pop_front() else { break };
            self.remove(oldest);
        }
        if self.ages.len() > 2 * self.places.len() + 64 {
            self.ages.retain(|cursor| self.places.contains_key(cursor));
        }
        cursor
    }

    fn remove(&mut self, cursor: u64) {
        if let Some(gone) = self.places.remove(&cursor) {
            self.bytes -= bytes(&gone.place);
        }
    }
}

fn bytes(place: &Place) -> usize {
    place.after.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(after: usize) -> Place {
        Place { namespace: NamespaceId::ZERO, shard: 0, after: Some(vec![b'x'; after]) }
    }

    #[test]
    fn a_scan_holds_two_cursors() {
        let mut cursors = Cursors::new(1);
        let waiting = cursors.add(place(1), 0);
        let mut given = vec![0];
        for step in 0..100_000 {
            given.push(cursors.add(place(step % 7), given[step]));
        }
        assert_eq!(cursors.places.len(), 3);
        assert!(cursors.ages.len() < 1000);
        assert!(cursors.get(given[100_000]).is_some() && cursors.get(given[99_999]).is_some());
        assert!(cursors.get(given[99_998]).is_none() && cursors.get(0).is_none());
        assert_eq!(cursors.get(waiting), Some(&place(1)), "however long another scan takes");
    }

    #[test]
    fn the_table_is_bounded() {
        let mut cursors = Cursors::new(1);
        let first = cursors.add(place(1), 0);
        for _ in 0..CURSORS_MAX {
            cursors.add(place(1), 0);
        }
        assert!(cursors.get(first).is_none() && cursors.places.len() == CURSORS_MAX);
        let large = (0..300).map(|_| cursors.add(place(60_000), 0)).last().unwrap();
        assert!(cursors.bytes <= CURSOR_BYTES_MAX && cursors.get(large).is_some());
    }
}
