//! A member's values as the simulation stores them: every version of every key, as a `kvorum-engine` tree would.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use kvorum_sync::{Digest, KeyHash, Keys, Names, OpId};

use crate::trace::Fnv;

/// A key. Clients' keys are small; the records of request ids stand from [`REQUESTS`] on.
pub(crate) type Key = u32;
/// A value; `None` is a tombstone.
pub(crate) type Value = Option<u64>;

/// Keys from here on hold the records of request ids.
pub(crate) const REQUESTS: Key = 1 << 20;

/// What one item writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Writes {
    /// Everything is cleared.
    pub(crate) clear: bool,
    pub(crate) puts: Vec<(Key, Value)>,
}

impl Writes {
    pub(crate) fn digest(&self, op: OpId) -> Digest {
        let hash = |key: Key, value: Value| {
            let mut hasher = Fnv::default();
            (op.version(), key, value).hash(&mut hasher);
            Digest(hasher.finish())
        };
        let cleared = if self.clear { hash(Key::MAX, None) } else { Digest::default() };
        self.puts.iter().fold(cleared, |sum, (key, value)| sum.with(hash(*key, *value)))
    }

    /// With a bit of its first value changed.
    pub(crate) fn flipped(&self) -> Self {
        let mut flipped = self.clone();
        if let Some((_, value)) = flipped.puts.first_mut() {
            *value = Some(value.unwrap_or(0) ^ (1 << 40));
        }
        flipped
    }

    pub(crate) fn keys(&self) -> Keys {
        let hashes: Vec<KeyHash> = self.puts.iter().map(|(key, _)| hash_of(*key)).collect();
        if self.clear { Keys::All } else { Keys::Of(Names::of(&hashes)) }
    }
}

/// Keys 0 and 1 share a hash: that may cost waiting, never a wrong answer.
pub(crate) fn hash_of(key: Key) -> KeyHash {
    KeyHash(u64::from(key.max(1)))
}

/// All versions that stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    entries: BTreeMap<(Key, u64), Value>,
    clears: BTreeSet<u64>,
}

impl Tree {
    pub(crate) fn put(&mut self, op: OpId, writes: &Writes) {
        if writes.clear {
            self.clears.insert(op.version());
        }
        for (key, value) in &writes.puts {
            self.entries.insert((*key, op.version()), *value);
        }
    }

    pub(crate) fn retract(&mut self, op: OpId) {
        self.clears.remove(&op.version());
        self.entries.retain(|(_, version), _| *version != op.version());
    }

    /// The newest version of a key at or below `at`, and its value; version 0 for none. A tombstone and a clear have their version here.
    pub(crate) fn newest(&self, key: Key, at: OpId) -> (u64, Value) {
        let put = self
            .entries
            .range((key, 0)..=(key, at.version()))
            .next_back()
            .map_or((0, None), |((_, v), value)| (*v, *value));
        match self.clears.range(..=at.version()).next_back() {
            // Records of requests outlive a clear: a repeated request must still be known.
            Some(clear) if *clear > put.0 && key < REQUESTS => (*clear, None),
            _ => put,
        }
    }

    /// What stands of an item.
    pub(crate) fn item(&self, op: OpId) -> Option<Writes> {
        let clear = self.clears.contains(&op.version());
        let of_item = self.entries.iter().filter(|((_, version), _)| *version == op.version());
        let puts: Vec<(Key, Value)> = of_item.map(|((key, _), value)| (*key, *value)).collect();
        (clear || !puts.is_empty()).then_some(Writes { clear, puts })
    }

    /// Op ids in `(since, upto]` of which anything stands, ascending.
    pub(crate) fn between(&self, since: OpId, upto: OpId) -> BTreeSet<u64> {
        let within = |version: &u64| *version > since.version() && *version <= upto.version();
        self.entries
            .keys()
            .map(|(_, version)| *version)
            .chain(self.clears.iter().copied())
            .filter(within)
            .collect()
    }

    /// Drops history below `floor`, and the tombstones that are the newest there. Returns the highest tombstone dropped.
    pub(crate) fn collect(&mut self, floor: OpId) -> OpId {
        let mut highest = 0;
        let cleared = self.clears.range(..=floor.version()).next_back().copied().unwrap_or(0);
        let keys: BTreeSet<Key> = self.entries.keys().map(|(key, _)| *key).collect();
        for key in keys {
            let (newest, value) = self.newest(key, floor);
            let kept = if value.is_none() { newest.max(cleared) + 1 } else { newest };
            if value.is_none() && newest > 0 {
                highest = highest.max(newest);
            }
            self.entries.retain(|(of, version), _| *of != key || *version >= kept);
        }
        self.clears.retain(|clear| *clear > cleared);
        OpId::from_version(highest.max(cleared))
    }

    pub(crate) fn drop_upto(&mut self, upto: OpId) {
        self.clears.retain(|clear| *clear > upto.version());
        self.entries.retain(|(_, version), _| *version > upto.version());
    }

    pub(crate) fn wipe(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(version: u64) -> OpId {
        OpId::from_version(version)
    }

    fn put(key: Key, value: Value) -> Writes {
        Writes { clear: false, puts: vec![(key, value)] }
    }

    #[test]
    fn the_newest_version_below_a_point_is_seen() {
        let mut tree = Tree::default();
        tree.put(op(3), &put(7, Some(30)));
        tree.put(op(5), &put(7, Some(50)));
        assert_eq!(tree.newest(7, op(4)), (3, Some(30)));
        tree.put(op(6), &Writes { clear: true, puts: vec![] });
        assert_eq!(tree.newest(7, OpId::MAX), (6, None));
        tree.retract(op(6));
        assert_eq!(tree.newest(7, OpId::MAX), (5, Some(50)));
    }

    #[test]
    fn collecting_keeps_what_a_view_at_the_floor_sees() {
        let mut tree = Tree::default();
        tree.put(op(1), &put(1, Some(1)));
        tree.put(op(2), &put(1, Some(2)));
        tree.put(op(3), &put(2, None));
        tree.put(op(4), &put(1, Some(4)));
        assert_eq!(tree.collect(op(3)), op(3), "the tombstone went");
        assert_eq!(tree.newest(1, op(3)), (2, Some(2)));
        assert_eq!(tree.newest(1, OpId::MAX), (4, Some(4)));
        assert_eq!(tree.newest(2, OpId::MAX), (0, None));
    }
}
