//! The trees of a store: created, found, dropped, renamed. Each of these is one durable edit of the file set.

use super::{Shared, Store};
use crate::cache::Records;
use crate::error::{Error, Result};
use crate::options::TreeSettings;
use crate::tree::{Sources, Tree, TreeId, TreeState};
use crate::version::{Change, TreeRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

/// Longest name of a tree, in bytes.
const TREE_NAME_BYTES_MAX: usize = 255;
/// Most trees of a store.
const TREES_MAX: usize = 65_536;

#[derive(Default)]
pub(crate) struct Trees {
    pub(crate) by_name: BTreeMap<Arc<str>, Arc<TreeState>>,
    pub(crate) by_id: BTreeMap<TreeId, Arc<TreeState>>,
}

impl Trees {
    pub(crate) fn insert(&mut self, state: Arc<TreeState>) {
        let name = Arc::clone(&state.name.read());
        self.by_name.insert(name, Arc::clone(&state));
        self.by_id.insert(state.id, state);
    }
}

impl Store {
    /// The tree of this name; created, durably, if there is none (then with these settings).
    ///
    /// # Errors
    /// `TooLarge` for a name over 255 bytes, `Invalid` at 65 536 trees; `Poisoned` and `Io` when it can't be made durable.
    pub fn tree(&self, name: &str, settings: TreeSettings) -> Result<Tree> {
        let mut trees = self.trees(&[name], settings)?;
        trees.pop().ok_or_else(|| Error::Invalid(format!("the tree {name} was dropped as it was made")))
    }

    /// The trees of these names, in order; those that do not exist yet are created by one durable edit: all or none.
    ///
    /// # Errors
    /// As [`Store::tree`].
    pub fn trees(&self, names: &[&str], settings: TreeSettings) -> Result<Vec<Tree>> {
        let found = || names.iter().map(|name| self.find_tree(name)).collect::<Option<Vec<_>>>();
        if let Some(trees) = found() {
            return Ok(trees);
        }
        self.shared.check_open()?;
        let _writer = self.shared.writer.lock();
        let missing: BTreeSet<&str> =
            names.iter().copied().filter(|name| self.find_tree(name).is_none()).collect();
        if !missing.is_empty() {
            self.create_trees(&missing, settings)?;
        }
        // Under the writer's lock nobody drops what was just made.
        Ok(found().unwrap_or_default())
    }

    /// Creates trees that do not exist. The caller holds the writer's lock, without which no tree is created.
    fn create_trees(&self, names: &BTreeSet<&str>, settings: TreeSettings) -> Result<()> {
        let shared = &self.shared;
        if shared.trees.read().by_name.len() + names.len() > TREES_MAX {
            return Err(Error::Invalid(format!("a store holds at most {TREES_MAX} trees")));
        }
        let newest_only = settings.newest_only;
        let (mut states, mut changes) = (Vec::new(), Vec::new());
        for (tree, name) in (shared.versions.next_tree()..).zip(names) {
            if name.len() > TREE_NAME_BYTES_MAX {
                let (size, limit) = (name.len() as u64, TREE_NAME_BYTES_MAX as u64);
                return Err(Error::TooLarge { what: "tree name", size, limit, setting: "a fixed limit" });
            }
            let name = (*name).to_owned();
            // What the log held of earlier trees has nothing to do with this one.
            let record = TreeRecord { name: name.clone(), newest_only, ..TreeRecord::default() };
            states.push(Arc::new(TreeState::new(tree, &record, &shared.files)?));
            changes.push(Change::TreeCreated { tree, name, newest_only });
        }
        shared.edit(changes, || {
            let mut trees = shared.trees.write();
            states.into_iter().for_each(|state| trees.insert(state));
        })
    }

    /// The tree of this name, if there is one.
    pub fn find_tree(&self, name: &str) -> Option<Tree> {
        self.shared.trees.read().by_name.get(name).map(|state| self.handle(state))
    }

    /// The names of all trees, sorted.
    pub fn tree_names(&self) -> Vec<Arc<str>> {
        self.shared.trees.read().by_name.keys().cloned().collect()
    }

    /// Drops a tree with all it holds. Handles to it find nothing any more, ranges that are open end as they began.
    ///
    /// # Errors
    /// `Poisoned` and `Io` when it can't be made durable. No tree of this name is no error: `false`.
    pub fn drop_tree(&self, name: &str) -> Result<bool> {
        Ok(self.drop_trees(&[name])? > 0)
    }

    /// Drops the trees of these names by one durable edit: all or none. Names without a tree are passed over; answers how many were dropped.
    ///
    /// # Errors
    /// As [`Store::drop_tree`].
    pub fn drop_trees(&self, names: &[&str]) -> Result<usize> {
        let shared = &self.shared;
        shared.check_open()?;
        // A flush of the tree must not come back with a table of it.
        let _flushing = shared.flushing.lock();
        let _writer = shared.writer.lock();
        let states: BTreeMap<&str, Arc<TreeState>> = {
            let trees = shared.trees.read();
            names.iter().filter_map(|name| Some((*name, Arc::clone(trees.by_name.get(*name)?)))).collect()
        };
        if states.is_empty() {
            return Ok(0);
        }
        let changes = states.values().map(|state| Change::TreeDropped { tree: state.id }).collect();
        shared.edit(changes, || states.iter().for_each(|(name, state)| shared.forget_tree(name, state)))?;
        Ok(states.len())
    }

    /// Gives each of two trees the other's name, at once.
    ///
    /// # Errors
    /// `Invalid` if one does not exist; `Poisoned` and `Io` when it can't be made durable.
    pub fn swap_trees(&self, one: &str, other: &str) -> Result<()> {
        let shared = &self.shared;
        shared.check_open()?;
        let _writer = shared.writer.lock();
        let find = |name: &str| {
            let state = shared.trees.read().by_name.get(name).cloned();
            state.ok_or_else(|| Error::Invalid(format!("there is no tree {name} to swap")))
        };
        let (a, b) = (find(one)?, find(other)?);
        let named =
            |state: &TreeState, name: &str| Change::TreeNamed { tree: state.id, name: name.to_owned() };
        shared.edit(vec![named(&a, other), named(&b, one)], || {
            let mut trees = shared.trees.write();
            *a.name.write() = other.into();
            *b.name.write() = one.into();
            trees.by_name.insert(other.into(), Arc::clone(&a));
            trees.by_name.insert(one.into(), Arc::clone(&b));
        })
    }

    pub(super) fn handle(&self, state: &Arc<TreeState>) -> Tree {
        Tree::new(Arc::clone(&self.shared), Arc::clone(state))
    }
}

impl Shared {
    fn forget_tree(&self, name: &str, state: &TreeState) {
        let mut trees = self.trees.write();
        trees.by_name.remove(name);
        trees.by_id.remove(&state.id);
        state.dropped.store(true, Release);
        self.records.iter().for_each(Records::arrived);
        self.stall.sub(state.memory().bytes);
        let sources = state.sources.swap(Arc::new(Sources::default()));
        sources.levels.tables().for_each(|table| table.remove_when_unused());
    }
}
