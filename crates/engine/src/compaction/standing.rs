//! The state of a tree that its compactions and flushes are judged by.

use super::garbage::{Forgettable, spans};
use super::rules::{MemorySpan, Rules, Span};
use super::strategy::{Choice, Shape, Sizes, choose};
use crate::blob::{live_bytes, victims};
use crate::memtable::Memtable;
use crate::store::Shared;
use crate::tree::{Sources, TreeState};
use crate::types::{Sequence, Version};
use crate::version::{FloorKind, LEVELS, TableFile};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What the choice for a tree depends on, in short: as long as it is the same, there is nothing new to choose.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stand {
    pub(super) tables: usize,
    newest_table: u64,
    level_0: usize,
    floors: [u64; FloorKind::ALL.len()],
    oldest_view: Option<Sequence>,
    memory: MemorySpan,
    clears: usize,
    idle: bool,
}

impl Stand {
    pub(super) fn of(shared: &Shared, tree: &TreeState, idle: bool) -> Stand {
        let sources = tree.sources.load();
        Stand {
            tables: sources.levels.tables().count(),
            newest_table: sources.levels.tables().map(|file| file.id()).max().unwrap_or(0),
            level_0: sources.levels.level(0).len(),
            floors: FloorKind::ALL.map(|floor| tree.floor(floor)),
            oldest_view: shared.snapshots.sequences().first().copied(),
            memory: memory_of(sources.memtables()),
            clears: sources.clears.as_ref().map_or(0, |clears| clears.marks.len()),
            idle,
        }
    }
}

/// A tree's state that a compaction is judged by.
pub(super) struct Standing {
    pub(super) sources: Arc<Sources>,
    pub(super) rules: Rules,
    pub(super) tombstone_floor: Version,
}

impl Standing {
    pub(super) fn of(shared: &Shared, tree: &TreeState) -> Standing {
        // Floors first: a write that was let in before they rose is in the memtables that are looked at afterwards.
        let floor = (!tree.settings.newest_only).then(|| tree.floor(FloorKind::History));
        let tombstone_floor = tree.floor(FloorKind::Tombstone);
        let (expiry_floor, notes_floor) = (tree.floor(FloorKind::Expiry), tree.floor(FloorKind::Notes));
        let collected = tree.floor(FloorKind::Gc);
        drop(shared.writer.lock());
        let sources = tree.sources.load_full();
        let views = shared.snapshots.sequences();
        let rules = Rules {
            views,
            floor,
            drop_upto: tombstone_floor.min(collected),
            expiry_floor,
            notes_floor,
            clears: sources.clears.clone().unwrap_or_default(),
            older: Vec::new(),
            newer: Vec::new(),
            memory: memory_of(sources.memtables()),
        };
        Standing { sources, rules, tombstone_floor }
    }

    pub(super) fn shape(&self) -> Shape<'_> {
        let level = |level: usize| self.sources.levels.level(level).iter().map(|file| &file.meta).collect();
        Shape { levels: std::array::from_fn(level) }
    }

    pub(super) fn choose(
        &self,
        sizes: &Sizes,
        tombstone_floor: Version,
        baseline: &HashMap<u64, u64>,
    ) -> Option<Choice> {
        let forgettable = self.rules.forgettable(tombstone_floor, baseline);
        choose(&self.shape(), sizes, &forgettable, &self.victims())
    }

    /// Blob files that are to be emptied.
    pub(super) fn victims(&self) -> Vec<u64> {
        let tables = self.sources.levels.tables().map(|file| &file.meta);
        victims(&self.sources.blobs, &live_bytes(tables))
    }

    /// Up to which version the choice would collect deletions at most.
    pub(super) fn collects(&self, choice: &Choice, baseline: &HashMap<u64, u64>) -> Version {
        let inputs = match choice {
            Choice::Drop { collects, .. } => return *collects,
            Choice::Move { .. } => return 0,
            Choice::Merge { inputs, .. } => inputs,
        };
        let Forgettable { settled_clear, expiry_floor, .. } =
            self.rules.forgettable(self.tombstone_floor, baseline);
        let tables = self.sources.levels.tables().filter(|file| inputs.contains(&file.id()));
        let highest = tables.map(|file| {
            let p = &file.meta.properties;
            let expired =
                p.expiry.filter(|(earliest, _)| *earliest <= expiry_floor).map(|_| p.largest_version);
            let cleared = settled_clear.filter(|&clear| p.smallest_version <= clear);
            p.largest_tombstone.max(expired).max(cleared).unwrap_or(0)
        });
        let upto = self.rules.floor.map_or(self.tombstone_floor, |floor| floor.min(self.tombstone_floor));
        highest.max().unwrap_or(0).min(upto)
    }
}

/// What these memtables hold.
pub(super) fn memory_of<'a>(memtables: impl Iterator<Item = &'a Arc<dyn Memtable>>) -> MemorySpan {
    memtables.fold(MemorySpan::EMPTY, |memory, memtable| {
        let summary = memtable.summary();
        MemorySpan {
            smallest_version: memory.smallest_version.min(summary.smallest_version),
            has_retracts: memory.has_retracts || summary.has_retracts,
        }
    })
}

/// The rules with what is older and newer than the inputs, where the outputs go to level `to`.
pub(super) fn rules_for(standing: &Standing, inputs: &[u64], to: usize) -> Rules {
    let inputs: HashSet<u64> = inputs.iter().copied().collect();
    let levels = &standing.sources.levels;
    let other = |file: &&Arc<TableFile>| !inputs.contains(&file.id());
    let (mut older, mut newer) = (Vec::new(), Vec::new());
    for level in 0..LEVELS {
        let tables = levels.level(level);
        if level < to {
            newer.extend(spans(tables.iter().filter(other).map(|file| &file.meta)));
        } else if level > to {
            older.extend(spans(tables.iter().map(|file| &file.meta)));
        } else if level == 0 {
            let first = tables.iter().position(|file| inputs.contains(&file.id())).unwrap_or(0);
            newer.extend(spans(tables[..first].iter().map(|file| &file.meta)));
            older.extend(spans(tables[first..].iter().filter(other).map(|file| &file.meta)));
        } else {
            // Their keys are apart from the inputs', but clears are not a matter of keys.
            let apart = spans(tables.iter().filter(other).map(|file| &file.meta));
            older.extend(apart.into_iter().map(|span| Span { has_data: false, ..span }));
        }
    }
    Rules { older, newer, ..standing.rules.clone() }
}
