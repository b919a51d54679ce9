//! What the commands of one buffer have changed and the trees may not show yet.

use crate::namespace::NamespaceId;
use hashbrown::HashTable;
use kvorum_model::Effect;
use std::hash::BuildHasher;

/// Changes up to this number are searched one by one.
const SCANNED_MAX: usize = 8;

/// Room in the index when it is made.
const FIRST_INDEXED: usize = 56;

/// One key's newest change.
pub(crate) struct Change<'r> {
    pub(crate) namespace: NamespaceId,
    /// The op id or timestamp that it has, or (in a transaction) will have.
    pub(crate) version: u64,
    pub(crate) effect: Effect<'r>,
}

/// The changes of a buffer: of each key the newest one. Borrows keys and values from the buffer.
#[derive(Default)]
pub(crate) struct Overlay<'r> {
    changes: Vec<Change<'r>>,
    index: HashTable<u32>,
    hasher: foldhash::fast::FixedState,
    /// Namespaces that were cleared: of them only `changes` exist.
    cleared: Vec<NamespaceId>,
}

/// What the overlay says of a key.
pub(crate) enum Seen<'o, 'r> {
    /// Ask the tree.
    Nothing,
    /// Its namespace was cleared and it was not written since.
    Cleared,
    /// This.
    Change(&'o Change<'r>),
}

impl<'r> Overlay<'r> {
    pub(crate) fn get(&self, namespace: NamespaceId, key: &[u8]) -> Seen<'_, 'r> {
        if self.changes.is_empty() && self.cleared.is_empty() {
            return Seen::Nothing;
        }
        match self.place(namespace, key).and_then(|place| self.changes.get(place)) {
            Some(change) => Seen::Change(change),
            None if self.is_cleared(namespace) => Seen::Cleared,
            None => Seen::Nothing,
        }
    }

    /// The version of the key's change, if it has one.
    pub(crate) fn version(&self, namespace: NamespaceId, key: &[u8]) -> Option<u64> {
        let place = self.place(namespace, key)?;
        self.changes.get(place).map(|change| change.version)
    }

    /// Adds a change in place of the key's former one.
    pub(crate) fn set(&mut self, change: Change<'r>) {
        let (namespace, key) = (change.namespace, change.effect.key());
        if let Some(place) = self.place(namespace, key) {
            if let Some(former) = self.changes.get_mut(place) {
                *former = change;
            }
            return;
        }
        self.changes.push(change);
        if self.changes.len() == SCANNED_MAX + 1 {
            self.index_all();
        } else if self.changes.len() > SCANNED_MAX {
            self.index_place(self.changes.len() - 1);
        }
    }

    /// Shows the namespace as empty.
    pub(crate) fn clear(&mut self, namespace: NamespaceId) {
        if !self.is_cleared(namespace) {
            self.cleared.push(namespace);
        }
        self.changes.retain(|change| change.namespace != namespace);
        self.index.clear();
        if self.changes.len() > SCANNED_MAX {
            self.index_all();
        }
    }

    /// Shows nothing any more.
    pub(crate) fn reset(&mut self) {
        self.changes.clear();
        self.index.clear();
        self.cleared.clear();
    }

    pub(crate) fn is_cleared(&self, namespace: NamespaceId) -> bool {
        self.cleared.contains(&namespace)
    }

    /// The namespaces that were cleared.
    pub(crate) fn cleared(&self) -> &[NamespaceId] {
        &self.cleared
    }

    /// The changes, in the order in which their keys were first changed.
    pub(crate) fn changes(&self) -> &[Change<'r>] {
        &self.changes
    }

    fn place(&self, namespace: NamespaceId, key: &[u8]) -> Option<usize> {
        let is = |change: &Change<'_>| change.effect.key() == key && change.namespace == namespace;
        if self.changes.len() <= SCANNED_MAX {
            return self.changes.iter().position(is);
        }
        let hash = self.hash(namespace, key);
        let found = self.index.find(hash, |place| self.changes.get(*place as usize).is_some_and(is));
        found.map(|place| *place as usize)
    }

    fn hash(&self, namespace: NamespaceId, key: &[u8]) -> u64 {
        self.hasher.hash_one((namespace, key))
    }

    fn index_all(&mut self) {
        let Overlay { changes, index, hasher, .. } = self;
        let hash = |place: &u32| {
            changes
                .get(*place as usize)
                .map_or(0, |change| hasher.hash_one((change.namespace, change.effect.key())))
        };
        index.reserve(FIRST_INDEXED, hash);
        for place in 0..self.changes.len() {
            self.index_place(place);
        }
    }

    fn index_place(&mut self, place: usize) {
        let Overlay { changes, index, hasher, .. } = self;
        let hash = |place: usize| {
            changes.get(place).map_or(0, |change| hasher.hash_one((change.namespace, change.effect.key())))
        };
        index.insert_unique(hash(place), place as u32, |other| hash(*other as usize));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(key: &'static [u8], version: u64) -> Change<'static> {
        Change { namespace: NamespaceId::ZERO, version, effect: Effect::Delete { key } }
    }

    const KEYS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";

    #[test]
    fn the_newest_change_of_each_key() {
        let mut overlay = Overlay::default();
        assert!(matches!(overlay.get(NamespaceId::ZERO, b"a"), Seen::Nothing));
        for round in 0..3 {
            for (at, key) in KEYS.chunks(1).enumerate() {
                overlay.set(delete(key, (round * 100 + at) as u64));
                assert_eq!(overlay.version(NamespaceId::ZERO, key), Some((round * 100 + at) as u64));
                assert_eq!(overlay.version(NamespaceId::ENTITY, key), None);
            }
        }
        assert_eq!(overlay.changes().len(), KEYS.len());
        assert_eq!(overlay.version(NamespaceId::ZERO, b"a"), Some(200));
    }

    #[test]
    fn a_clear_hides_its_namespace_alone() {
        let mut overlay = Overlay::default();
        for (at, key) in KEYS.chunks(1).enumerate() {
            let namespace = if at % 2 == 0 { NamespaceId::ZERO } else { NamespaceId::numbered(1).unwrap() };
            overlay.set(Change { namespace, ..delete(key, 1) });
        }
        overlay.clear(NamespaceId::ZERO);
        assert!(matches!(overlay.get(NamespaceId::ZERO, b"a"), Seen::Cleared));
        assert_eq!(overlay.changes().len(), KEYS.len() / 2);
        assert_eq!(overlay.version(NamespaceId::numbered(1).unwrap(), b"b"), Some(1));
        overlay.set(delete(b"a", 2));
        assert!(matches!(overlay.get(NamespaceId::ZERO, b"a"), Seen::Change(change) if change.version == 2));
    }
}
