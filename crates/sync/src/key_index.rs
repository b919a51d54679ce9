//! Which item last wrote a key, for the items in the leader's memory.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::item::Keys;
use crate::message::KeyState;
use crate::types::{KeyHash, OpId};

/// Key hashes are hashes already.
#[derive(Clone, Debug, Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        // Drivers may hand over small numbers in tests: spread them over the table's bits.
        self.0 = value.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Writers {
    committed: OpId,
    pending: OpId,
}

impl Writers {
    fn merged(self, other: Writers) -> Writers {
        Writers { committed: self.committed.max(other.committed), pending: self.pending.max(other.pending) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyIndex {
    keys: HashMap<KeyHash, Writers, BuildHasherDefault<AsIs>>,
    all: Writers,
}

impl Hash for KeyIndex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut entries: Vec<_> = self.keys.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| **key);
        (entries, self.all).hash(state);
    }
}

impl KeyIndex {
    pub(crate) fn wrote(&mut self, keys: &Keys, op: OpId) {
        match keys {
            Keys::All => self.all.pending = op,
            Keys::Of(keys) => {
                for key in keys.as_slice() {
                    self.keys.entry(*key).or_default().pending = op;
                }
            }
        }
    }

    pub(crate) fn committed(&mut self, keys: &Keys, op: OpId) {
        let commit = |writers: &mut Writers| {
            writers.committed = writers.committed.max(op);
            if writers.pending == op {
                writers.pending = OpId::ZERO;
            }
        };
        match keys {
            Keys::All => commit(&mut self.all),
            Keys::Of(keys) => {
                for key in keys.as_slice() {
                    if let Some(writers) = self.keys.get_mut(key) {
                        commit(writers);
                    }
                }
            }
        }
    }

    /// Drops a committed item that leaves memory; what a later one wrote stays.
    pub(crate) fn forget(&mut self, keys: &Keys, op: OpId) {
        let Keys::Of(keys) = keys else { return };
        for key in keys.as_slice() {
            if self
                .keys
                .get(key)
                .is_some_and(|writers| writers.committed <= op && writers.pending == OpId::ZERO)
            {
                self.keys.remove(key);
            }
        }
    }

    /// What is known of a key above a follower's checkpoint.
    pub(crate) fn state(&self, key: KeyHash, checkpoint: OpId) -> KeyState {
        let writers = self.keys.get(&key).copied().unwrap_or_default().merged(self.all);
        let above = |op: OpId| if op > checkpoint { op } else { OpId::ZERO };
        KeyState { committed: above(writers.committed), pending: above(writers.pending), wait: OpId::ZERO }
    }
}
