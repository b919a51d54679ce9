//! When a shard gets a new manager, and whom.
//!
//! - It has none yet.
//! - Its leader asks.
//! - Its leader is dead, or a majority of its members misses it. **Never** while a majority of its members hears it: that this node does not
//!   hear it may be this node's trouble.
//! - The manager does not get to lead.
//! - Its node has a disk that is far slower than those of the others.
//!
//! A node that drains or is removed asks by itself, once nothing that it leads is under way: so nothing ends unknown.
//!
//! The more often a shard was nominated without settling, the longer it is left alone.

use super::super::detector::DEAD_AFTER_MICROS;
use super::super::map::{NodeState, Nomination, ShardId, ShardRow};
use super::super::placement;
use super::{Change, Round, Watched};
use kvorum_sync::{Ask, Epoch, Members, StepDown, StoreId};

/// A manager that does not lead after so long is replaced. It would have asked before: Sync gives it two seconds.
const STUCK_MICROS: u64 = 3_000_000;

/// Least time between two nominations of a shard; doubles with each reign that was no success.
const GAP_MICROS: u64 = 500_000;

/// The gap doubles so often at most: eight seconds.
const GAP_DOUBLINGS_MAX: u32 = 4;

/// Why a new manager is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// There was none.
    First,
    /// The same one needs a higher epoch.
    Higher(Epoch),
    /// Another one, if there is one; above this epoch.
    Another(Epoch),
    /// Another one that stays; if there is none any more, the same one: it takes nothing before there is a new reign. Above this epoch.
    Drain(Epoch),
    /// Only another one whose store is good.
    SlowDisk,
}

impl Round<'_> {
    /// The shard's next reign, if it is time for one. The members stay.
    pub(super) fn next_reign(&mut self, shard: ShardId, row: &ShardRow, watched: &Watched) -> Option<Change> {
        if !self.has_majority(row.members()) {
            return None;
        }
        let why = match &row.nomination {
            None if row.members().as_slice().iter().any(|store| self.comes_up(*store, row.members())) => {
                return None;
            }
            None => Why::First,
            Some(last) => self.why(shard, last, watched)?,
        };
        if self.is_damped(watched) {
            return None;
        }
        let before = row.manager().map(|(_, manager)| manager);
        let manager = match why {
            Why::Higher(_) => before,
            Why::First => self.best(shard, row, None),
            Why::Another(_) => self.best(shard, row, before),
            Why::Drain(_) => self.heir(shard, row, before).or(before),
            Why::SlowDisk => self.heir(shard, row, before).filter(|best| !self.unfit.contains_key(best)),
        }?;
        let above = match why {
            Why::Higher(above) | Why::Another(above) | Why::Drain(above) => above,
            Why::First | Why::SlowDisk => Epoch::ZERO,
        };
        let members = row.members().clone();
        Some(self.nominate(shard, row, above, manager, members))
    }

    /// Whether a member may be heard in a moment, or was heard a moment ago and may be about to hear the others: then it may be about to lead
    /// its share.
    fn comes_up(&self, store: StoreId, members: &Members) -> bool {
        let since = self.view.alive.get(&store);
        let is_young = since.is_some_and(|since| self.view.now.saturating_sub(*since) < DEAD_AFTER_MICROS);
        self.is_awaited(store) || is_young && !self.hears_majority(store, members)
    }

    fn hears_majority(&self, store: StoreId, members: &Members) -> bool {
        members.is_majority(members.as_slice().iter().copied().filter(|other| self.view.hears(store, *other)))
    }

    fn is_awaited(&self, store: StoreId) -> bool {
        !self.view.is_alive(store) && !self.view.is_dead(store)
    }

    fn is_damped(&self, watched: &Watched) -> bool {
        let Some(doublings) = watched.attempts.checked_sub(1) else { return false };
        let gap = GAP_MICROS << doublings.min(GAP_DOUBLINGS_MAX);
        self.view.now.saturating_sub(watched.since) < gap
    }

    fn why(&self, shard: ShardId, last: &Nomination, watched: &Watched) -> Option<Why> {
        let manager = last.manager;
        if self.map.state(manager) == NodeState::Left {
            return Some(Why::Another(Epoch::ZERO));
        }
        let wants = self.view.wants.get(&shard).and_then(|wants| wants.get(&manager));
        if let Some((above, why)) = wants.filter(|(above, _)| *above >= last.epoch) {
            return Some(match why {
                Ask::StaleEpoch | Ask::Serials => Why::Higher(*above),
                Ask::StepDown(StepDown::Drain) if self.retires(manager) => Why::Drain(*above),
                _ => Why::Another(*above),
            });
        }
        if self.is_heard(shard, last) {
            let stuck = !last.led && self.view.now.saturating_sub(watched.since) >= STUCK_MICROS;
            let slow = last.led && self.slow.contains(&manager);
            return match (stuck, slow) {
                (true, _) => Some(Why::Another(Epoch::ZERO)),
                (_, true) => Some(Why::SlowDisk),
                _ => None,
            };
        }
        let gone = self.view.is_dead(manager) || self.is_missed(shard, last);
        gone.then_some(Why::Another(Epoch::ZERO))
    }

    /// Whether a majority of the acting members hears the leader, or may hear it: of whom nothing is known yet is not counted against it.
    fn is_heard(&self, shard: ShardId, last: &Nomination) -> bool {
        let members = &last.membership.new;
        let hearing = members.as_slice().iter().copied().filter(|member| {
            if *member == last.manager {
                // It runs if anybody hears it.
                let others = members.as_slice().iter();
                return !self.view.is_dead(*member)
                    || others.into_iter().any(|other| self.hears(*other, *member));
            }
            self.is_awaited(*member)
                || self.hears(*member, last.manager) && !self.misses(shard, last, *member)
        });
        members.is_majority(hearing)
    }

    /// Whether a majority of the acting members is known not to hear the leader.
    fn is_missed(&self, shard: ShardId, last: &Nomination) -> bool {
        let members = &last.membership.new;
        let missing = members.as_slice().iter().copied().filter(|member| {
            *member != last.manager
                && self.view.is_alive(*member)
                && (!self.hears(*member, last.manager) || self.misses(shard, last, *member))
        });
        members.is_majority(missing)
    }

    fn hears(&self, listener: StoreId, speaker: StoreId) -> bool {
        listener != speaker && self.view.is_alive(listener) && self.view.hears(listener, speaker)
    }

    /// Whether a member says that the leader of just this epoch is silent to it.
    fn misses(&self, shard: ShardId, last: &Nomination, member: StoreId) -> bool {
        let said = self.view.missing.get(&shard).and_then(|by| by.get(&member));
        said.is_some_and(|(epoch, _)| *epoch == last.epoch)
    }

    /// Whether an operator wants the node to lead nothing.
    fn retires(&self, store: StoreId) -> bool {
        matches!(self.map.state(store), NodeState::Draining | NodeState::Leaving)
    }

    /// Another manager than the one before, of a node that rather leads than that one.
    fn heir(&self, shard: ShardId, row: &ShardRow, before: Option<StoreId>) -> Option<StoreId> {
        let rank = |store: StoreId| self.map.state(store).reluctance();
        let best = self.best(shard, row, before)?;
        let is_better = before.is_none_or(|before| rank(best) < rank(before).max(1));
        (Some(best) != before && is_better).then_some(best)
    }

    /// The best manager among the members: heard, of a node that stays and whose store is sound, itself hearing a majority; then the furthest
    /// ahead, then the one that manages least. The one before only if there is nobody else.
    fn best(&self, shard: ShardId, row: &ShardRow, before: Option<StoreId>) -> Option<StoreId> {
        let members = row.members();
        let acting = row.acting();
        let ahead = |store: StoreId| {
            let said = self.view.missing.get(&shard).and_then(|by| by.get(&store));
            said.map(|(_, at)| *at).unwrap_or_default()
        };
        let rank = |store: StoreId| {
            let managed = self.managed.get(&store).copied().unwrap_or_default();
            (
                Some(store) == before,
                self.map.state(store).reluctance(),
                self.unfit.contains_key(&store),
                !self.hears_majority(store, members),
                std::cmp::Reverse(ahead(store)),
                managed,
                placement::weight(shard, store),
                store,
            )
        };
        let heard = members.as_slice().iter().copied().filter(|store| self.is_here(*store));
        // A member of the last nomination's list may lead already; one that is on its way out should not.
        let staying: Vec<StoreId> = heard.clone().filter(|store| acting.contains(*store)).collect();
        let candidates = if staying.is_empty() { heard.collect() } else { staying };
        candidates.into_iter().min_by_key(|store| rank(*store))
    }
}
