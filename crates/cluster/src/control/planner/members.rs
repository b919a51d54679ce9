//! Who keeps a shard: one member at a time, in a reign that goes well, and never so that the living are no majority.

use super::super::map::{NodeState, ShardId, ShardRow};
use super::super::placement;
use super::{Change, Round, SUCCESS_MICROS, Watched};
use crate::namespaces::REPLICATION_MAX;
use kvorum_sync::{Epoch, Members, StoreId};

/// Learners that one node catches up with at the same time.
const LEARNING_PER_NODE_MAX: usize = 4;

/// Learners of the whole cluster.
const LEARNING_MAX: usize = 32;

/// A learner whose node is silent for so long is given up.
const LEARNER_PATIENCE_MICROS: u64 = 30_000_000;

impl Round<'_> {
    /// The next step towards the members that the shard should have.
    pub(super) fn next_member(
        &mut self,
        shard: ShardId,
        row: &ShardRow,
        watched: &Watched,
    ) -> Option<Change> {
        let led = watched.led.is_some_and(|led| self.view.now.saturating_sub(led) >= SUCCESS_MICROS);
        let (epoch, manager) = row.manager()?;
        if !row.is_led() || !led || !self.is_here(manager) || !self.has_majority(row.members()) {
            return None;
        }
        let change = self
            .without_left(row, manager)
            .or_else(|| self.with_ready(shard, row, epoch))
            .or_else(|| self.without_surplus(shard, row, manager));
        if let Some(members) = change {
            return Some(self.nominate(shard, row, Epoch::ZERO, manager, members));
        }
        let learners = self.learners(shard, row)?;
        Some(Change::Learners { shard, last: epoch, learners })
    }

    /// The list without a member that never comes back: it can't be missed, and counts against every majority.
    fn without_left(&self, row: &ShardRow, manager: StoreId) -> Option<Members> {
        let left = |store: &StoreId| self.map.state(*store) == NodeState::Left && *store != manager;
        let members = row.members();
        let gone = members.as_slice().iter().copied().find(left)?;
        self.without(members, gone)
    }

    /// The list with a learner that holds all it needs.
    fn with_ready(&self, shard: ShardId, row: &ShardRow, epoch: Epoch) -> Option<Members> {
        let ready = self.view.ready.get(&shard)?;
        let members = row.members();
        let room = members.as_slice().len() <= usize::from(REPLICATION_MAX);
        let learner = row.learners.as_slice().iter().copied().find(|store| {
            ready.get(store) == Some(&epoch) && self.view.is_alive(*store) && self.can_take(*store)
        });
        learner.filter(|_| room).map(|store| Members::of(&[members.as_slice(), &[store]].concat()))
    }

    /// The list without one of too many: the doomed first, then the silent, then whoever keeps most.
    fn without_surplus(&self, shard: ShardId, row: &ShardRow, manager: StoreId) -> Option<Members> {
        let members = row.members();
        // A manager that goes is one too many itself: it hands over first.
        let count = members.as_slice().len() - usize::from(self.is_doomed(manager));
        if count <= self.map.wanted(shard.namespace) {
            return None;
        }
        let rank = |store: &StoreId| {
            let kept = self.kept.get(store).copied().unwrap_or_default();
            (self.is_doomed(*store), !self.view.is_alive(*store), kept, placement::weight(shard, *store))
        };
        let others = members.as_slice().iter().copied().filter(|store| *store != manager);
        let goes = others.max_by_key(rank)?;
        self.without(members, goes)
    }

    fn without(&self, members: &Members, gone: StoreId) -> Option<Members> {
        let rest: Vec<StoreId> = members.as_slice().iter().copied().filter(|store| *store != gone).collect();
        let rest = Members::of(&rest);
        self.has_majority(&rest).then_some(rest)
    }

    /// Another list of learners: without those that are gone for long, or with a new one.
    fn learners(&mut self, shard: ShardId, row: &ShardRow) -> Option<Members> {
        let (members, learners) = (row.members(), &row.learners);
        let lost = |store: &StoreId| {
            let silent = self.view.dead.get(store).map_or(0, |since| self.view.now.saturating_sub(*since));
            silent >= LEARNER_PATIENCE_MICROS || !self.can_take(*store)
        };
        let kept: Vec<StoreId> = learners.as_slice().iter().copied().filter(|store| !lost(store)).collect();
        if kept.len() < learners.as_slice().len() {
            return Some(kept.into());
        }
        let sound = members.as_slice().iter().filter(|store| !self.is_doomed(**store)).count();
        let needed = sound < self.map.wanted(shard.namespace);
        if !learners.as_slice().is_empty() || !needed {
            return None;
        }
        let next = self.spare(shard, row)?;
        Some(Members::of(&[next]))
    }

    /// A node that can take the shard now: one that drains only if there is no other.
    pub(super) fn spare(&mut self, shard: ShardId, row: &ShardRow) -> Option<StoreId> {
        if self.learning.values().sum::<usize>() >= LEARNING_MAX {
            return None;
        }
        let everyone = row.everyone();
        let free = |store: &StoreId| {
            self.learning.get(store).is_none_or(|count| *count < LEARNING_PER_NODE_MAX)
                && !everyone.contains(store)
                && self.view.is_alive(*store)
                && self.can_take(*store)
        };
        let of = |drains: bool| {
            let fits = |store: &StoreId| (self.map.state(*store) == NodeState::Draining) == drains;
            let candidates = self.map.nodes.keys().copied().filter(free).filter(fits);
            placement::choose(shard, candidates, &self.kept, 1).into_iter().next()
        };
        let chosen = of(false).or_else(|| of(true))?;
        *self.learning.entry(chosen).or_default() += 1;
        *self.kept.entry(chosen).or_default() += 1;
        Some(chosen)
    }

    fn can_take(&self, store: StoreId) -> bool {
        matches!(self.map.state(store), NodeState::Up | NodeState::Draining)
    }

    /// Whether a member is to be replaced: its node goes, or was silent for too long.
    fn is_doomed(&self, store: StoreId) -> bool {
        let silent = self.view.dead.get(&store).map_or(0, |since| self.view.now.saturating_sub(*since));
        match self.map.state(store) {
            NodeState::Leaving | NodeState::Left => true,
            NodeState::Up | NodeState::Down | NodeState::Draining => {
                silent >= self.config.replace_after_micros
            }
        }
    }
}
