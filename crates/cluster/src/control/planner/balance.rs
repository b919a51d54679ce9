//! Leaders and shards spread evenly, when nothing else is to be done: one step at a time.

use super::super::map::{NodeState, ShardId, ShardRow};
use super::{Change, Round, SETTLED_MICROS, Watched};
use kvorum_sync::{Epoch, Members, StoreId};
use std::collections::{BTreeMap, BTreeSet};

/// Least time between two steps.
pub(super) const EVERY_MICROS: u64 = 1_000_000;

/// Members that are moved at the same time.
const MOVING_MAX: usize = 2;

impl Round<'_> {
    /// The next step, if a difference of more than one can be made smaller.
    pub(super) fn next_balance(&mut self, shards: &BTreeMap<ShardId, Watched>) -> Option<Change> {
        let now = self.view.now;
        let long = |since: u64| now.saturating_sub(since) >= SETTLED_MICROS;
        let all_here = self.map.nodes.iter().all(|(store, row)| {
            row.state == NodeState::Left || self.view.alive.get(store).is_some_and(|since| long(*since))
        });
        if !all_here {
            return None;
        }
        let settled =
            shards.iter().filter(|(_, watched)| watched.led.is_some_and(long)).map(|(shard, _)| *shard);
        let settled: BTreeSet<ShardId> = settled.collect();
        self.move_leader(&settled).or_else(|| self.move_member(&settled))
    }

    fn is_up(&self, store: StoreId) -> bool {
        self.map.state(store) == NodeState::Up && !self.unfit.contains_key(&store)
    }

    fn move_leader(&mut self, settled: &BTreeSet<ShardId>) -> Option<Change> {
        let managed = |store: StoreId| self.managed.get(&store).copied().unwrap_or_default();
        let led =
            |shard: &ShardId, row: &ShardRow| settled.contains(shard) && self.has_majority(row.members());
        let settled = self.map.shards.iter().filter(|(shard, row)| led(shard, row));
        let best = settled.filter_map(|(shard, row)| {
            let (_, manager) = row.manager()?;
            let members = row.members().as_slice().iter().copied();
            // One that has yet to get what the others have would lead only then: the shard would stand still for so long.
            let ready = |store: &StoreId| self.is_up(*store) && !self.view.behind.contains(store);
            let least = members.filter(ready).min_by_key(|store| managed(*store))?;
            let gain = managed(manager).checked_sub(managed(least))?;
            Some((gain, shard, row, least))
        });
        let (gain, shard, row, least) =
            best.max_by_key(|(gain, shard, ..)| (*gain, std::cmp::Reverse(**shard)))?;
        if gain < 2 {
            return None;
        }
        let members = row.members().clone();
        Some(self.nominate(*shard, row, Epoch::ZERO, least, members))
    }

    /// Moves by a learner: once it is a member there is one too many, and whoever keeps most goes.
    fn move_member(&mut self, settled: &BTreeSet<ShardId>) -> Option<Change> {
        if self.learning.values().sum::<usize>() >= MOVING_MAX {
            return None;
        }
        let kept = |store: StoreId| self.kept.get(&store).copied().unwrap_or_default();
        let mut best: Option<(usize, ShardId, StoreId)> = None;
        let idle = |shard: &ShardId| settled.contains(shard);
        for (shard, row) in
            self.map.shards.iter().filter(|(shard, row)| idle(shard) && row.learners.as_slice().is_empty())
        {
            let Some((_, manager)) = row.manager() else { continue };
            let others = row.members().as_slice().iter().copied().filter(|store| *store != manager);
            let Some(most) = others.map(kept).max() else { continue };
            let free = self
                .map
                .nodes
                .keys()
                .copied()
                .filter(|store| !row.everyone().contains(store) && self.is_up(*store));
            let Some(least) = free.min_by_key(|store| kept(*store)) else { continue };
            let gain = most.saturating_sub(kept(least));
            if gain >= 2 && best.is_none_or(|(before, ..)| gain > before) {
                best = Some((gain, *shard, least));
            }
        }
        let (_, shard, least) = best?;
        let last = self.map.shards.get(&shard)?.register.epoch();
        Some(Change::Learners { shard, last, learners: Members::of(&[least]) })
    }
}
