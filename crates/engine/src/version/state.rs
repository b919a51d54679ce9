//! The state of the file set as plain data: what all edits together amount to. Recovery builds it, a fresh manifest begins with it.

use super::edit::{BlobFile, Change, FloorKind, Foreign};
use super::levels::LEVELS;
use crate::sst::TableMeta;
use crate::tree::TreeId;
use crate::types::Sequence;
use std::collections::BTreeMap;

/// Everything that the manifest says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StoreState {
    pub(crate) trees: BTreeMap<TreeId, TreeRecord>,
    /// What the log must still hold begins here.
    pub(crate) needed_from: Sequence,
    /// Where an empty log begins; until the first flush says more.
    pub(crate) log_begins: Option<Sequence>,
    pub(crate) next_file: u64,
    pub(crate) next_tree: TreeId,
}

/// What the manifest says of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TreeRecord {
    pub(crate) name: String,
    pub(crate) newest_only: bool,
    /// Everything up to here stands in tables.
    pub(crate) flushed: Sequence,
    pub(crate) floors: [u64; FloorKind::ALL.len()],
    /// By level; of level 0 the oldest first.
    pub(crate) levels: [Vec<(TableMeta, Option<Foreign>)>; LEVELS],
    pub(crate) blobs: BTreeMap<u64, BlobFile>,
}

impl StoreState {
    /// Carries out a change; what is wrong with it otherwise.
    pub(crate) fn apply(&mut self, change: Change) -> Result<(), String> {
        match change {
            Change::TreeCreated { tree, name, newest_only } => {
                if self
                    .trees
                    .insert(tree, TreeRecord { name, newest_only, ..TreeRecord::default() })
                    .is_some()
                {
                    return Err(format!("tree {tree} created a second time"));
                }
                self.next_tree = self.next_tree.max(tree + 1);
            }
            Change::TreeDropped { tree } => {
                self.trees
                    .remove(&tree)
                    .ok_or_else(|| format!("tree {tree}, which does not exist, dropped"))?;
            }
            Change::TreeNamed { tree, name } => self.tree(tree)?.name = name,
            Change::TableAdded { tree, level, meta, foreign } => {
                self.tree(tree)?.level(level)?.push((*meta, foreign));
            }
            Change::TableRemoved { tree, table } => drop(self.tree(tree)?.take_table(table)?),
            Change::TableMoved { tree, table, level } => {
                let record = self.tree(tree)?;
                let taken = record.take_table(table)?;
                record.level(level)?.push(taken);
            }
            Change::BlobAdded { tree, blob } => drop(self.tree(tree)?.blobs.insert(blob.id, blob)),
            Change::BlobRemoved { tree, blob } => {
                let removed = self.tree(tree)?.blobs.remove(&blob);
                removed
                    .ok_or_else(|| format!("blob file {blob}, which tree {tree} does not have, removed"))?;
            }
            Change::Flushed { tree, upto } => {
                let record = self.tree(tree)?;
                record.flushed = record.flushed.max(upto);
            }
            Change::Floor { tree, floor, value } => {
                let slot = &mut self.tree(tree)?.floors[floor as usize - 1];
                *slot = (*slot).max(value);
            }
            Change::NeededFrom { sequence } => {
                self.needed_from = self.needed_from.max(sequence);
                self.log_begins = None;
            }
            Change::LogBegins { sequence } => self.log_begins = Some(sequence),
            Change::NextIds { file, tree } => {
                self.next_file = self.next_file.max(file);
                self.next_tree = self.next_tree.max(tree);
            }
            Change::Closed => {}
        }
        Ok(())
    }

    fn tree(&mut self, tree: TreeId) -> Result<&mut TreeRecord, String> {
        self.trees.get_mut(&tree).ok_or_else(|| format!("a change of tree {tree}, which does not exist"))
    }

    /// The same files without a log: everything up to `sequence` is in them.
    pub(crate) fn without_log(mut self, sequence: Sequence) -> StoreState {
        self.trees.values_mut().for_each(|record| record.flushed = sequence);
        self.needed_from = sequence + 1;
        self.log_begins = Some(sequence + 1);
        self
    }

    /// The changes that make this state from nothing.
    pub(crate) fn to_changes(&self) -> Vec<Change> {
        let mut changes = vec![
            Change::NextIds { file: self.next_file, tree: self.next_tree },
            Change::NeededFrom { sequence: self.needed_from },
        ];
        changes.extend(self.log_begins.map(|sequence| Change::LogBegins { sequence }));
        for (&tree, record) in &self.trees {
            changes.push(Change::TreeCreated {
                tree,
                name: record.name.clone(),
                newest_only: record.newest_only,
            });
            changes.push(Change::Flushed { tree, upto: record.flushed });
            changes.extend(record.risen_floors().map(|(floor, value)| Change::Floor { tree, floor, value }));
            for (level, tables) in (0_u8..).zip(&record.levels) {
                let added = |(meta, foreign): &(TableMeta, Option<Foreign>)| Change::TableAdded {
                    tree,
                    level,
                    meta: Box::new(meta.clone()),
                    foreign: *foreign,
                };
                changes.extend(tables.iter().map(added));
            }
            changes.extend(record.blobs.values().map(|blob| Change::BlobAdded { tree, blob: *blob }));
        }
        changes
    }
}

impl TreeRecord {
    /// The floors that are not at the bottom.
    pub(crate) fn risen_floors(&self) -> impl Iterator<Item = (FloorKind, u64)> {
        FloorKind::ALL.into_iter().map(|floor| (floor, self.floor(floor))).filter(|(_, value)| *value > 0)
    }

    pub(crate) fn floor(&self, floor: FloorKind) -> u64 {
        self.floors[floor as usize - 1]
    }

    fn level(&mut self, level: u8) -> Result<&mut Vec<(TableMeta, Option<Foreign>)>, String> {
        self.levels.get_mut(usize::from(level)).ok_or_else(|| format!("level {level} of {LEVELS}"))
    }

    fn take_table(&mut self, id: u64) -> Result<(TableMeta, Option<Foreign>), String> {
        for tables in &mut self.levels {
            if let Some(index) = tables.iter().position(|(meta, _)| meta.id == id) {
                return Ok(tables.remove(index));
            }
        }
        Err(format!("table {id}, which is not in the file set, removed or moved"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_its_own_changes() {
        let mut state = StoreState::default();
        let created = |tree| Change::TreeCreated { tree, name: format!("t{tree}"), newest_only: tree == 2 };
        let floor = Change::Floor { tree: 2, floor: FloorKind::Expiry, value: 44 };
        let blob = BlobFile { id: 5, file_bytes: 6, hash: 7, value_bytes: 8 };
        let changes = [
            created(1),
            created(2),
            floor,
            Change::BlobAdded { tree: 2, blob },
            Change::NextIds { file: 9, tree: 3 },
        ];
        for change in changes {
            state.apply(change).unwrap();
        }
        state.apply(Change::TreeDropped { tree: 1 }).unwrap();
        let mut again = StoreState::default();
        for change in state.to_changes() {
            again.apply(change).unwrap();
        }
        assert_eq!(again, state);
    }

    #[test]
    fn changes_that_make_no_sense_are_refused() {
        let mut state = StoreState::default();
        assert!(state.apply(Change::TreeDropped { tree: 1 }).is_err());
        assert!(state.apply(Change::TableRemoved { tree: 1, table: 1 }).is_err());
        state.apply(Change::TreeCreated { tree: 1, name: "t".into(), newest_only: false }).unwrap();
        assert!(state.apply(Change::TreeCreated { tree: 1, name: "t".into(), newest_only: false }).is_err());
        assert!(state.apply(Change::BlobRemoved { tree: 1, blob: 1 }).is_err());
    }
}
