//! What the store must be like: a plain list of everything that was ever written, judged afresh for every question.

use kvorum_engine::{Sequence, TreeId, Version};
use std::collections::BTreeMap;
use std::fmt;

/// One operation of a batch.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Put { key: Vec<u8>, version: Version, value: Vec<u8>, expires_at: Option<u64>, tag: u8 },
    Delete { key: Vec<u8>, version: Version },
    Retract { key: Vec<u8>, version: Version },
    Clear { version: Version },
    RetractClear { version: Version },
    Note { version: Version, bytes: Vec<u8> },
    RetractNote { version: Version },
}

/// An operation where it stands in the order of everything.
#[derive(Debug, Clone)]
struct Entry {
    sequence: Sequence,
    /// The first sequence of its batch.
    batch: Sequence,
    op: Op,
}

/// What a key is for a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Value { version: Version, value: Vec<u8>, expires_at: Option<u64>, tag: u8 },
    Tombstone { version: Version },
}

/// A view: the highest version, hidden ones, the last sequence.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) at: Version,
    pub(crate) hidden: Vec<Version>,
    pub(crate) upto: Sequence,
}

/// A tree.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelTree {
    pub(crate) newest_only: bool,
    pub(crate) floor: Version,
    pub(crate) tombstone_floor: Version,
    pub(crate) notes_from: Version,
    /// Values that expired at or before it may have become tombstones.
    pub(crate) expiry_floor: u64,
    entries: Vec<Entry>,
}

/// The store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) names: BTreeMap<String, TreeId>,
    pub(crate) trees: BTreeMap<TreeId, ModelTree>,
    /// The last sequences of all batches.
    batches: Vec<Sequence>,
}

impl Look {
    fn admits(&self, version: Version, sequence: Sequence) -> bool {
        version <= self.at && sequence <= self.upto && !self.hidden.contains(&version)
    }
}

impl ModelTree {
    /// As the tree may show it: what expired long ago as a tombstone, tombstones long ago as nothing.
    pub(crate) fn shown(&self, seen: Option<Seen>) -> Option<Seen> {
        let version = match &seen {
            Some(Seen::Value { version, expires_at: Some(at), .. }) if *at <= self.expiry_floor => *version,
            Some(Seen::Tombstone { version }) => *version,
            _ => return seen,
        };
        // Shadowed tombstones of a tree without history may be gone too.
        let forgettable = self.newest_only || version <= self.tombstone_floor;
        (!forgettable).then_some(Seen::Tombstone { version })
    }

    pub(crate) fn new(newest_only: bool) -> ModelTree {
        ModelTree { newest_only, ..ModelTree::default() }
    }

    /// What the view sees of a key.
    pub(crate) fn seen(&self, key: &[u8], look: &Look) -> Option<Seen> {
        let mut newest: BTreeMap<Version, &Entry> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| key_of(&entry.op).is_some_and(|(k, _)| k == key)) {
            let (_, version) = key_of(&entry.op)?;
            if look.admits(version, entry.sequence) {
                newest.insert(version, entry);
            }
        }
        let best = newest.into_iter().rev().find(|(_, entry)| !matches!(entry.op, Op::Retract { .. }));
        let cleared = self.cleared(look);
        match (best, cleared) {
            (Some((version, entry)), Some((clear, batch)))
                if version > clear || (version == clear && entry.sequence >= batch) =>
            {
                seen(&entry.op)
            }
            (_, Some((version, _))) => Some(Seen::Tombstone { version }),
            (Some((_, entry)), None) => seen(&entry.op),
            (None, None) => None,
        }
    }

    /// The clear that counts: its version and the first sequence of its batch. What came with it or later at the same version lives.
    fn cleared(&self, look: &Look) -> Option<(Version, Sequence)> {
        let mut newest = BTreeMap::new();
        for entry in &self.entries {
            if let Op::Clear { version } | Op::RetractClear { version } = entry.op
                && look.admits(version, entry.sequence)
            {
                newest.insert(version, (entry.batch, matches!(entry.op, Op::Clear { .. })));
            }
        }
        newest
            .into_iter()
            .rev()
            .find(|(_, (_, clears))| *clears)
            .map(|(version, (batch, _))| (version, batch))
    }

    /// The notes from the release mark on, the highest version first.
    pub(crate) fn notes(&self, upto: Sequence) -> Vec<(Version, Vec<u8>)> {
        let mut notes = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| entry.sequence <= upto) {
            match &entry.op {
                Op::Note { version, bytes } => drop(notes.insert(*version, bytes.clone())),
                Op::RetractNote { version } => drop(notes.remove(version)),
                _ => {}
            }
        }
        notes.into_iter().rev().filter(|(version, _)| *version >= self.notes_from).collect()
    }

    /// All keys ever named.
    pub(crate) fn keys(&self) -> Vec<Vec<u8>> {
        let mut keys: Vec<_> =
            self.entries.iter().filter_map(|entry| key_of(&entry.op)).map(|(key, _)| key.to_vec()).collect();
        keys.sort();
        keys.dedup();
        keys
    }
}

impl Model {
    /// A batch was taken; `last` is its last sequence.
    pub(crate) fn write(&mut self, last: Sequence, ops: &[(TreeId, Op)]) {
        let first = last + 1 - ops.len() as u64;
        assert_eq!(first, self.last() + 1, "sequences are dense");
        for (sequence, (tree, op)) in (first..).zip(ops) {
            if let Some(tree) = self.trees.get_mut(tree) {
                tree.entries.push(Entry { sequence, batch: first, op: op.clone() });
            }
        }
        self.batches.push(last);
    }

    /// The last sequence.
    pub(crate) fn last(&self) -> Sequence {
        self.batches.last().copied().unwrap_or(0)
    }

    /// A crash left the store with everything up to `last`.
    pub(crate) fn cut(&mut self, last: Sequence) {
        assert!(last == 0 || self.batches.contains(&last), "half a batch: the store ends at {last}");
        self.batches.retain(|&batch| batch <= last);
        for tree in self.trees.values_mut() {
            tree.entries.retain(|entry| entry.sequence <= last);
        }
    }
}

fn key_of(op: &Op) -> Option<(&[u8], Version)> {
    match op {
        Op::Put { key, version, .. } | Op::Delete { key, version } | Op::Retract { key, version } => {
            Some((key, *version))
        }
        _ => None,
    }
}

fn seen(op: &Op) -> Option<Seen> {
    match op {
        Op::Put { version, value, expires_at, tag, .. } => {
            Some(Seen::Value { version: *version, value: value.clone(), expires_at: *expires_at, tag: *tag })
        }
        Op::Delete { version, .. } => Some(Seen::Tombstone { version: *version }),
        _ => None,
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self {
            Op::Put { key, version, value, .. } => {
                write!(f, "put {} @{version} {} B", text(key), value.len())
            }
            Op::Delete { key, version } => write!(f, "delete {} @{version}", text(key)),
            Op::Retract { key, version } => write!(f, "retract {} @{version}", text(key)),
            Op::Clear { version } => write!(f, "clear @{version}"),
            Op::RetractClear { version } => write!(f, "retract clear @{version}"),
            Op::Note { version, .. } => write!(f, "note @{version}"),
            Op::RetractNote { version } => write!(f, "retract note @{version}"),
        }
    }
}
