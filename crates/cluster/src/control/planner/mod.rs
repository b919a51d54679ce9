//! What is to be changed: a function of the map and of what the heartbeats say, run by the raft leader. It keeps only what damps it; a new
//! leader begins without and gets to the same end. Whatever it says is judged once more when it is applied.

mod balance;
#[cfg(test)]
mod balance_tests;
mod disks;
mod members;
mod nodes;
mod reign;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use super::change::Change;
use super::detector::View;
use super::map::{Map, NodeState, ShardId, ShardRow};
use kvorum_sync::{Ask, Epoch, Members, StepDown, StoreId};
use std::collections::{BTreeMap, BTreeSet};

/// Changes of one entry.
pub(crate) const PROPOSAL_CHANGES_MAX: usize = 1024;

/// A reign that has lasted so long was a success: what came before it damps nothing any more, and its members may change.
const SUCCESS_MICROS: u64 = 1_000_000;

/// After so long in one reign, with all nodes heard, a shard may be moved to spread leaders and shards.
const SETTLED_MICROS: u64 = 10_000_000;

/// A member whose store was no good (poisoned, full, damaged, on a slow disk) is named manager again only after so long, unless there is nobody else.
const UNFIT_MICROS: u64 = 30_000_000;

/// Times of the planner.
#[derive(Debug, Clone)]
pub(crate) struct PlannerConfig {
    /// A node that is silent for so long is called down.
    pub(crate) down_after_micros: u64,
    /// A node that is down for so long has its members replaced.
    pub(crate) replace_after_micros: u64,
}

impl Default for PlannerConfig {
    fn default() -> PlannerConfig {
        PlannerConfig { down_after_micros: 5_000_000, replace_after_micros: 600_000_000 }
    }
}

/// The planner.
#[derive(Debug, Default)]
pub(crate) struct Planner {
    config: PlannerConfig,
    shards: BTreeMap<ShardId, Watched>,
    /// Whose store was no good to lead with, and when last.
    unfit: BTreeMap<StoreId, u64>,
    disks: disks::Disks,
    balanced: u64,
}

/// What the planner remembers of a shard.
#[derive(Debug, Default, Clone)]
struct Watched {
    epoch: Epoch,
    /// When this epoch was first seen.
    since: u64,
    /// When its manager was first seen to lead.
    led: Option<u64>,
    /// Nominations since the last reign that was a success.
    attempts: u32,
}

/// One round.
struct Round<'a> {
    map: &'a Map,
    view: &'a View,
    config: &'a PlannerConfig,
    unfit: &'a BTreeMap<StoreId, u64>,
    /// Whose disks are far slower than the others'.
    slow: BTreeSet<StoreId>,
    /// Shards by keeper and by manager, this round's changes included.
    kept: BTreeMap<StoreId, usize>,
    managed: BTreeMap<StoreId, usize>,
    /// Learners by node.
    learning: BTreeMap<StoreId, usize>,
    changes: Vec<Change>,
}

impl Planner {
    pub(crate) fn new(config: PlannerConfig) -> Planner {
        Planner { config, ..Planner::default() }
    }

    /// What is to be changed now.
    pub(crate) fn plan(&mut self, map: &Map, view: &View) -> Vec<Change> {
        self.observe(map, view);
        let mut learning = BTreeMap::new();
        for learner in map.shards.values().flat_map(|row| row.learners.as_slice()) {
            *learning.entry(*learner).or_insert(0) += 1;
        }
        let mut round = Round {
            map,
            view,
            config: &self.config,
            unfit: &self.unfit,
            slow: self.disks.slow(view.now).collect(),
            kept: map.kept(),
            managed: map.managed(),
            learning,
            changes: Vec::new(),
        };
        round.node_states();
        let mut quiet = true;
        for (shard, row) in &map.shards {
            if round.changes.len() >= PROPOSAL_CHANGES_MAX {
                return round.changes;
            }
            let Some(watched) = self.shards.get(shard) else { continue };
            let change = if round.reports_led(*shard, row) {
                row.manager().map(|(epoch, _)| Change::Led { shard: *shard, epoch })
            } else {
                let next = round.next_reign(*shard, row, watched);
                next.or_else(|| round.next_member(*shard, row, watched))
            };
            quiet &= change.is_none() && row.is_led();
            round.changes.extend(change);
        }
        if quiet && view.now.saturating_sub(self.balanced) >= balance::EVERY_MICROS {
            let moved = round.next_balance(&self.shards);
            if moved.is_some() {
                self.balanced = view.now;
            }
            round.changes.extend(moved);
        }
        round.changes
    }

    fn observe(&mut self, map: &Map, view: &View) {
        let now = view.now;
        self.shards.retain(|shard, _| map.shards.contains_key(shard));
        for (shard, row) in &map.shards {
            let epoch = row.register.epoch();
            let watched = self.shards.entry(*shard).or_insert_with(|| Watched {
                epoch,
                since: now,
                ..Watched::default()
            });
            if watched.epoch != epoch {
                let success = watched.led.is_some_and(|led| now.saturating_sub(led) >= SUCCESS_MICROS);
                let attempts = if success { 0 } else { watched.attempts };
                *watched = Watched { epoch, since: now, led: None, attempts: attempts + 1 };
            }
            if row.is_led() {
                watched.led.get_or_insert(now);
            }
        }
        let retires = |store: StoreId| matches!(map.state(store), NodeState::Draining | NodeState::Leaving);
        for (store, (_, why)) in view.wants.values().flatten() {
            let by_order = *why == Ask::StepDown(StepDown::Drain) && retires(*store);
            if !by_order && matches!(why, Ask::StepDown(_) | Ask::OddDigest | Ask::Rebuilding) {
                self.unfit.insert(*store, now);
            }
        }
        self.disks.observe(view);
        let slow = self.disks.slow(now);
        for store in view.halted.iter().copied().chain(slow) {
            self.unfit.insert(store, now);
        }
        self.unfit.retain(|_, at| now.saturating_sub(*at) < UNFIT_MICROS);
    }
}

impl Round<'_> {
    /// Whether the last nominated manager says that it leads, and the map does not know.
    fn reports_led(&self, shard: ShardId, row: &ShardRow) -> bool {
        let Some((epoch, manager)) = row.manager() else { return false };
        let said = self.view.led.get(&shard).and_then(|by| by.get(&manager));
        !row.is_led() && said == Some(&epoch)
    }

    /// Whether a majority of these is heard.
    fn has_majority(&self, members: &Members) -> bool {
        members.is_majority(members.as_slice().iter().copied().filter(|store| self.is_here(*store)))
    }

    /// Whether a node is heard and has not left.
    fn is_here(&self, store: StoreId) -> bool {
        self.view.is_alive(store) && self.map.state(store) != NodeState::Left
    }

    fn nominate(
        &mut self,
        shard: ShardId,
        row: &ShardRow,
        above: Epoch,
        manager: StoreId,
        members: Members,
    ) -> Change {
        if let Some((_, before)) = row.manager() {
            let count = self.managed.entry(before).or_default();
            *count = count.saturating_sub(1);
        }
        *self.managed.entry(manager).or_default() += 1;
        Change::Nominate { shard, last: row.register.epoch(), above, manager, members }
    }
}
