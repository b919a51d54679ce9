//! A batch: operations on any trees of a store that happen together or not at all.
//!
//! The operations are encoded as they come, so that the finished batch *is* the record of the log.

use crate::error::{Error, Result};
use crate::record::{self, Operation};
use crate::tree::{Tree, TreeState};
use crate::types::{KEY_BYTES_MAX, Kind, Space, Version};
use std::sync::Arc;

/// What may stand beside a value or a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// When it expires, in the caller's unit of time; the store only carries it along until an expiry floor passes it.
    pub expires_at: Option<u64>,
    /// Opaque.
    pub tag: u8,
}

/// Operations that happen together or not at all, over any trees of one store.
///
/// Nothing is checked before [`Store::write`](crate::Store::write), which refuses the whole batch if any operation is over a limit.
#[derive(Default)]
pub struct Batch {
    pub(crate) record: Vec<u8>,
    pub(crate) operations: u64,
    pub(crate) trees: Vec<BatchTree>,
    pub(crate) longest_value: u64,
    pub(crate) error: Option<Error>,
    /// Trees without a history take what is at or below their floor, too.
    pub(crate) takes_over: bool,
    last: record::Last,
}

/// One tree that a batch touches.
pub(crate) struct BatchTree {
    pub(crate) state: Arc<TreeState>,
    /// The lowest version written or retracted: nothing at or below the floor may be.
    pub(crate) lowest: Version,
    /// Whether it holds a clear.
    pub(crate) clears: bool,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Writes a value at a version.
    pub fn put(&mut self, tree: &Tree, key: &[u8], version: Version, value: &[u8], attributes: Attributes) {
        self.longest_value = self.longest_value.max(value.len() as u64);
        self.add(tree, (Space::Data, Kind::Value), key, version, value, attributes);
    }

    /// Says that the key does not exist at a version.
    pub fn delete(&mut self, tree: &Tree, key: &[u8], version: Version, attributes: Attributes) {
        self.add(tree, (Space::Data, Kind::Tombstone), key, version, &[], attributes);
    }

    /// Takes back what was written of exactly this key and version. A later write of the same pair lives.
    pub fn retract(&mut self, tree: &Tree, key: &[u8], version: Version) {
        self.add(tree, (Space::Data, Kind::Retract), key, version, &[], Attributes::default());
    }

    /// Deletes the whole tree up to a version, in constant time. Writes of this batch at the same version live.
    pub fn clear(&mut self, tree: &Tree, version: Version) {
        self.add(tree, (Space::Clears, Kind::Clear), &[], version, &[], Attributes::default());
        let index = self.tree_index(tree);
        self.trees[index].clears = true;
    }

    /// Takes back a clear of this version.
    pub fn retract_clear(&mut self, tree: &Tree, version: Version) {
        self.add(tree, (Space::Clears, Kind::Retract), &[], version, &[], Attributes::default());
        let index = self.tree_index(tree);
        self.trees[index].clears = true;
    }

    /// Leaves a note: opaque bytes under a version, apart from the keys, until [`Tree::retain_notes_from`] releases it.
    pub fn note(&mut self, tree: &Tree, version: Version, note: &[u8]) {
        self.longest_value = self.longest_value.max(note.len() as u64);
        self.add(tree, (Space::Notes, Kind::Note), &[], version, note, Attributes::default());
    }

    /// Takes back the note of this version.
    pub fn retract_note(&mut self, tree: &Tree, version: Version) {
        self.add(tree, (Space::Notes, Kind::Retract), &[], version, &[], Attributes::default());
    }

    /// What it writes is taken over from another copy of a tree: in a tree without a history ([`TreeSettings::newest_only`](crate::TreeSettings::newest_only))
    /// it may be as old as deletions that were dropped. The caller knows that it was not deleted; nobody here remembers.
    pub fn take_over(&mut self) {
        self.takes_over = true;
    }

    /// Empties it for the next use: its memory stays, so that a batch that is used again and again allocates nothing.
    pub fn reset(&mut self) {
        let Batch { record, operations, trees, longest_value, error, takes_over, last } = self;
        record.clear();
        trees.clear();
        (*operations, *longest_value, *error, *last) = (0, 0, None, record::Last::default());
        *takes_over = false;
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.operations == 0
    }

    /// How many operations are in it: as many sequences it takes.
    pub fn len(&self) -> usize {
        usize::try_from(self.operations).unwrap_or(usize::MAX)
    }

    /// Its size in the log, in bytes.
    pub fn bytes(&self) -> usize {
        self.record.len()
    }

    fn add(
        &mut self,
        tree: &Tree,
        (space, kind): (Space, Kind),
        key: &[u8],
        version: Version,
        payload: &[u8],
        attributes: Attributes,
    ) {
        if key.len() > KEY_BYTES_MAX {
            let limit = KEY_BYTES_MAX as u64;
            self.error.get_or_insert(Error::TooLarge {
                what: "key",
                size: key.len() as u64,
                limit,
                setting: "a fixed limit",
            });
            return;
        }
        let index = self.tree_index(tree);
        let entry = &mut self.trees[index];
        // A note is no entry of the history: floors don't concern it.
        if space != Space::Notes {
            entry.lowest = entry.lowest.min(version);
        }
        let Attributes { expires_at, tag } = attributes;
        let operation = Operation { tree: tree.id(), space, kind, version, expires_at, tag, key, payload };
        record::push(&mut self.record, &mut self.last, &operation);
        self.operations += 1;
    }

    fn tree_index(&mut self, tree: &Tree) -> usize {
        // Nearly always the tree of the operation before.
        if let Some(index) = self.trees.iter().rposition(|t| Arc::ptr_eq(&t.state, tree.state())) {
            return index;
        }
        self.trees.push(BatchTree { state: Arc::clone(tree.state()), lowest: Version::MAX, clears: false });
        self.trees.len() - 1
    }

    pub(crate) fn check(&self, batch_limit: u64, value_limit: u64) -> Result<()> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        if self.longest_value > value_limit {
            return Err(Error::TooLarge {
                what: "value",
                size: self.longest_value,
                limit: value_limit,
                setting: "max_value_bytes",
            });
        }
        let size = self.record.len() as u64;
        if size > batch_limit {
            return Err(Error::TooLarge {
                what: "batch",
                size,
                limit: batch_limit,
                setting: "write_buffer_bytes",
            });
        }
        Ok(())
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("operations", &self.operations)
            .field("bytes", &self.record.len())
            .finish()
    }
}
