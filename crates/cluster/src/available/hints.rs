//! Hinted handoff: writes kept for replicas that were down, until they are back. Durable, bounded; what does not fit, anti-entropy finds.

use super::Entry;
use super::wire::{entry, put_entry};
use crate::error::Result;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use hashbrown::HashMap;
use kvorum_engine::{
    Attributes, Batch, Direction, Durability, KEY_BYTES_MAX, Sequence, Store, Tree, TreeSettings, View,
};
use kvorum_sync::StoreId;
use std::ops::Bound;

/// The tree of hints. Key: store (8, big-endian), namespace (2, big-endian), key. Version: that of the entry.
pub(crate) const TREE: &str = "hints";

const HEAD_BYTES: usize = 10;

/// What a hint takes beside key and value, about.
const OVERHEAD_BYTES: u64 = 64;

/// Hints that are read at one time when they are let go of.
const FORGOTTEN_AT_ONCE: usize = 256;

/// A write that a node should get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) to: StoreId,
    pub(crate) namespace: u16,
    pub(crate) key: Bytes,
    pub(crate) entry: Entry,
}

/// The hints of this node.
pub(crate) struct Hints {
    store: Store,
    tree: Tree,
    bytes_max_per_node: u64,
    bytes: HashMap<StoreId, u64>,
    dropped: u64,
}

impl Hints {
    /// Opens what an earlier life has kept. Waits for the disk.
    pub(crate) fn open(store: &Store, bytes_max_per_node: u64) -> Result<Hints> {
        let tree = store.tree(TREE, TreeSettings::newest_only())?;
        let mut bytes = HashMap::new();
        for found in tree.range(.., &View::newest(), Direction::Forward)? {
            let (key, found) = found?;
            if let Some((to, ..)) = read_key(&key) {
                *bytes.entry(to).or_default() += size(key.len(), found.value.len());
            }
        }
        Ok(Hints { store: store.clone(), tree, bytes_max_per_node, bytes, dropped: 0 })
    }

    /// Keeps a write for a node; `None` if there is no room for it.
    pub(crate) fn add(&mut self, hint: &Hint) -> Result<Option<Sequence>> {
        let key = key_of(hint);
        let mut value = BytesMut::new();
        put_entry(&hint.entry, &mut value);
        let size = size(key.len(), value.len());
        let bytes = self.bytes.entry(hint.to).or_default();
        if *bytes + size > self.bytes_max_per_node || key.len() > KEY_BYTES_MAX {
            self.dropped += 1;
            return Ok(None);
        }
        let before = self.tree.get(&key, &View::newest())?;
        if let Some(before) = &before
            && before.version >= hint.entry.version
        {
            return Ok(Some(before.sequence));
        }
        let mut batch = Batch::new();
        if let Some(before) = before {
            *bytes = bytes.saturating_sub(self::size(key.len(), before.value.len()));
            batch.retract(&self.tree, &key, before.version);
        }
        batch.put(&self.tree, &key, hint.entry.version, &value, Attributes::default());
        let commit = self.store.write(&batch, Durability::Written)?;
        *bytes += size;
        Ok(Some(commit.sequence()))
    }

    /// The next hints for a node behind the one that was told last, at most so many. Waits for the disk.
    pub(crate) fn next(&self, to: StoreId, after: Option<&Hint>, count_max: usize) -> Result<Vec<Hint>> {
        let first = to.0.to_be_bytes();
        let end = to.0.checked_add(1).map(u64::to_be_bytes);
        let after = after.map(key_of);
        let low = after.as_deref().map_or(Bound::Included(&first[..]), Bound::Excluded);
        let high = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
        let mut hints = Vec::new();
        for found in self.tree.range((low, high), &View::newest(), Direction::Forward)?.take(count_max) {
            let (tree_key, mut found) = found?;
            if let Some((to, namespace, key)) = read_key(&tree_key)
                && let Some(entry) = entry(&mut found.value)
            {
                hints.push(Hint { to, namespace, key, entry });
            }
        }
        Ok(hints)
    }

    /// The node has it.
    pub(crate) fn delivered(&mut self, hint: &Hint) -> Result<()> {
        let key = key_of(hint);
        let Some(found) = self.tree.get(&key, &View::newest())? else { return Ok(()) };
        if found.version != hint.entry.version {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.retract(&self.tree, &key, found.version);
        // If this is lost, the node gets it once more: no harm.
        drop(self.store.write(&batch, Durability::Written)?);
        let bytes = self.bytes.entry(hint.to).or_default();
        *bytes = bytes.saturating_sub(size(key.len(), found.value.len()));
        Ok(())
    }

    /// Lets go of all hints for nodes that will not come back. Waits for the disk.
    pub(crate) fn retain(&mut self, comes_back: impl Fn(StoreId) -> bool) -> Result<()> {
        let gone: Vec<StoreId> = self.bytes.keys().copied().filter(|store| !comes_back(*store)).collect();
        for store in gone {
            loop {
                let hints = self.next(store, None, FORGOTTEN_AT_ONCE)?;
                hints.iter().try_for_each(|hint| self.delivered(hint))?;
                if hints.len() < FORGOTTEN_AT_ONCE {
                    break;
                }
            }
            self.bytes.remove(&store);
        }
        Ok(())
    }

    /// Bytes kept for all nodes.
    pub(crate) fn all_bytes(&self) -> u64 {
        self.bytes.values().sum()
    }

    /// Bytes kept for a node.
    #[cfg(test)]
    pub(crate) fn bytes(&self, to: StoreId) -> u64 {
        self.bytes.get(&to).copied().unwrap_or_default()
    }

    /// Hints that there was no room for.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

fn size(key: usize, value: usize) -> u64 {
    (key + value) as u64 + OVERHEAD_BYTES
}

fn key_of(hint: &Hint) -> Vec<u8> {
    let mut key = Vec::with_capacity(HEAD_BYTES + hint.key.len());
    key.put_u64(hint.to.0);
    key.put_u16(hint.namespace);
    key.put_slice(&hint.key);
    key
}

fn read_key(key: &Bytes) -> Option<(StoreId, u16, Bytes)> {
    let mut key = key.clone();
    Some((StoreId(key.try_get_u64().ok()?), key.try_get_u16().ok()?, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvorum_engine::{Parts, Settings};

    fn hint(to: u64, key: &'static str, version: u64) -> Hint {
        let entry = Entry {
            version,
            value: Some("value".into()),
            expires_at: None,
            from: 2,
            shadow: false,
            base: None,
        };
        Hint { to: StoreId(to), namespace: 16, key: key.into(), entry }
    }

    #[test]
    fn hints_outlive_a_restart_and_go_once_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(dir.path(), Settings::default(), Parts::real()).unwrap();
        let store = open();
        let mut hints = Hints::open(&store, 1 << 20).unwrap();
        for one in [hint(1, "a", 5), hint(1, "b", 6), hint(2, "a", 5), hint(u64::MAX, "z", 1)] {
            assert!(hints.add(&one).unwrap().is_some());
        }
        store.close().unwrap();
        drop((hints, store));
        let mut hints = Hints::open(&open(), 1 << 20).unwrap();
        assert_eq!(hints.next(StoreId(1), None, 9).unwrap(), [hint(1, "a", 5), hint(1, "b", 6)]);
        assert_eq!(hints.next(StoreId(1), Some(&hint(1, "a", 5)), 9).unwrap(), [hint(1, "b", 6)]);
        assert_eq!(hints.next(StoreId(u64::MAX), None, 9).unwrap(), [hint(u64::MAX, "z", 1)]);
        hints.delivered(&hint(1, "a", 5)).unwrap();
        hints.delivered(&hint(1, "b", 6)).unwrap();
        assert_eq!(hints.next(StoreId(1), None, 9).unwrap(), []);
        assert_eq!((hints.bytes(StoreId(1)), hints.bytes(StoreId(2)) > 0), (0, true));
        // Also what is older than something that was delivered.
        assert!(hints.add(&hint(1, "c", 3)).unwrap().is_some());
        assert_eq!(hints.next(StoreId(1), None, 9).unwrap(), [hint(1, "c", 3)]);
    }

    #[test]
    fn the_newest_of_a_key_is_kept_and_an_older_delivery_leaves_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Settings::default(), Parts::real()).unwrap();
        let mut hints = Hints::open(&store, 1 << 20).unwrap();
        for version in [5, 9, 7] {
            hints.add(&hint(1, "a", version)).unwrap();
        }
        hints.delivered(&hint(1, "a", 5)).unwrap();
        assert_eq!(hints.next(StoreId(1), None, 9).unwrap(), [hint(1, "a", 9)]);
        hints.delivered(&hint(1, "a", 9)).unwrap();
        assert_eq!((hints.next(StoreId(1), None, 9).unwrap(), hints.bytes(StoreId(1))), (vec![], 0));
    }

    #[test]
    fn what_waits_for_a_node_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Settings::default(), Parts::real()).unwrap();
        let mut hints = Hints::open(&store, 300).unwrap();
        let taken = ["a", "b", "c", "d", "e"].map(|key| hints.add(&hint(1, key, 1)).unwrap().is_some());
        assert_eq!(taken, [true, true, true, false, false]);
        assert_eq!(hints.dropped(), 2);
        assert!(hints.add(&hint(2, "a", 1)).unwrap().is_some(), "another node has its own room");
    }

    #[test]
    fn what_waits_for_nobody_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Settings::default(), Parts::real()).unwrap();
        let mut hints = Hints::open(&store, 1 << 20).unwrap();
        for one in [hint(1, "a", 5), hint(2, "a", 6), hint(2, "b", 7)] {
            hints.add(&one).unwrap();
        }
        hints.retain(|store| store == StoreId(1)).unwrap();
        assert_eq!(hints.next(StoreId(2), None, 9).unwrap(), []);
        assert_eq!(hints.next(StoreId(1), None, 9).unwrap(), [hint(1, "a", 5)]);
        assert_eq!(hints.all_bytes(), hints.bytes(StoreId(1)));
    }
}
