//! Who votes in the control plane: up to five nodes, an odd number, the living before the dead, and those that drain only if there are not enough others.

use super::detector::View;
use super::founding::VOTERS_MAX;
use super::map::{Map, NodeState};
use kvorum_sync::StoreId;
use std::collections::{BTreeMap, BTreeSet};

/// A voter that is silent for so long gives its place to a living node, if there is one.
const REPLACE_AFTER_MICROS: u64 = 10_000_000;

/// A node that has left gets the log for so long: it is to hear of it, and what it has under way with others ends.
const PARTING_MICROS: u64 = 3_000_000;

/// Who has left, and since when, as far as this raft leader saw it.
#[derive(Debug, Default)]
pub(crate) struct Parting(BTreeMap<StoreId, u64>);

impl Parting {
    /// Those of whom nothing more is to be expected, at `now` microseconds.
    pub(crate) fn over(&mut self, map: &Map, now: u64) -> BTreeSet<StoreId> {
        let left = map.nodes.iter().filter(|(_, row)| row.state == NodeState::Left);
        self.0 = left.map(|(store, _)| (*store, self.0.get(store).copied().unwrap_or(now))).collect();
        let over = |(_, since): &(&StoreId, &u64)| now.saturating_sub(**since) >= PARTING_MICROS;
        self.0.iter().filter(over).map(|(store, _)| *store).collect()
    }
}

/// One step of openraft's membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VoterStep {
    /// The node gets the log.
    Learn(StoreId),
    /// These vote, and only these.
    Vote(BTreeSet<StoreId>),
    /// This node, which leads the log and is to vote no more, lets another one lead it first: openraft's leader goes on when it votes no more, and stands
    /// still.
    Yield,
    /// The node gets nothing any more.
    Forget(StoreId),
}

/// The next step, seen from the raft leader `me`: `nodes` get the log, `voters` of them vote; of `parted` nothing more is to be expected.
pub(crate) fn next_step(
    map: &Map,
    view: &View,
    me: StoreId,
    nodes: &BTreeSet<StoreId>,
    voters: &BTreeSet<StoreId>,
    parted: &BTreeSet<StoreId>,
) -> Option<VoterStep> {
    let belongs = |store: &StoreId| map.state(*store) != NodeState::Left;
    if let Some(new) = map.nodes.keys().find(|store| belongs(store) && !nodes.contains(store)) {
        return Some(VoterStep::Learn(*new));
    }
    let chosen = choose(map, view, me, nodes, voters);
    let heard = |store: &&StoreId| view.is_alive(**store);
    let majority = |list: &BTreeSet<StoreId>| list.iter().filter(heard).count() > list.len() / 2;
    if chosen != *voters && majority(&chosen) && majority(voters) {
        let goes = voters.contains(&me) && !chosen.contains(&me);
        let has_heir = voters.iter().any(|store| *store != me && view.is_alive(*store));
        return Some(match (goes, has_heir) {
            (false, _) => VoterStep::Vote(chosen),
            (true, true) => VoterStep::Yield,
            (true, false) => VoterStep::Vote(chosen.into_iter().chain([me]).collect()),
        });
    }
    let gone =
        nodes.iter().find(|store| !belongs(store) && !voters.contains(store) && parted.contains(store));
    gone.copied().map(VoterStep::Forget)
}

fn choose(
    map: &Map,
    view: &View,
    me: StoreId,
    nodes: &BTreeSet<StoreId>,
    voters: &BTreeSet<StoreId>,
) -> BTreeSet<StoreId> {
    let managed = map.managed();
    // While somebody hands over, writes wait for an heir: no time for an election of the control plane.
    let leads = |store: &StoreId| managed.get(store).is_some_and(|count| *count > 0);
    let stays = |store: &StoreId| match map.state(*store) {
        NodeState::Left => false,
        NodeState::Leaving => voters.contains(store) && leads(store),
        _ => true,
    };
    let silent = |store: &StoreId| view.dead.get(store).map_or(0, |since| view.now.saturating_sub(*since));
    let rank = |store: &StoreId| {
        let (votes, lost) = (voters.contains(store), silent(store) >= REPLACE_AFTER_MICROS);
        let drains = map.state(*store) == NodeState::Draining && !leads(store);
        // Nobody votes who is not heard now, except those who do already.
        let place = match (votes, lost, view.is_alive(*store)) {
            (true, false, _) if drains => 3,
            (false, _, true) if drains => 4,
            _ if *store == me && votes => 0,
            (true, false, _) => 1,
            (false, _, true) => 2,
            (true, true, _) => 5,
            (false, _, false) => return None,
        };
        Some((place, *store))
    };
    let mut ranked: Vec<_> = nodes.iter().filter(|store| stays(store)).filter_map(rank).collect();
    ranked.sort_unstable();
    let most = ranked.len().min(VOTERS_MAX);
    let count = if most.is_multiple_of(2) { most.saturating_sub(1) } else { most };
    ranked.into_iter().take(count).map(|(_, store)| store).collect()
}

#[cfg(test)]
mod tests {
    use super::super::map::{NodeInfo, NodeRow};
    use super::*;

    fn set(stores: &[u64]) -> BTreeSet<StoreId> {
        stores.iter().copied().map(StoreId).collect()
    }

    fn map(nodes: u64) -> Map {
        let row = || NodeRow { info: NodeInfo::default(), slot: 0, state: NodeState::Up };
        Map { version: 1, nodes: (1..=nodes).map(|n| (StoreId(n), row())).collect(), ..Map::default() }
    }

    fn view(alive: &[u64], dead: &[u64]) -> View {
        View {
            now: 100_000_000,
            alive: alive.iter().map(|n| (StoreId(*n), 0)).collect(),
            dead: dead.iter().map(|n| (StoreId(*n), 0)).collect(),
            ..View::default()
        }
    }

    fn step(map: &Map, view: &View, nodes: &[u64], voters: &[u64]) -> Option<VoterStep> {
        let mut parting = Parting::default();
        assert!(parting.over(map, 0).is_empty(), "not at once");
        next_step(map, view, StoreId(1), &set(nodes), &set(voters), &parting.over(map, PARTING_MICROS))
    }

    #[test]
    fn a_new_node_learns_and_an_odd_number_votes() {
        let alive = view(&[1, 2, 3, 4, 5, 6], &[]);
        assert_eq!(step(&map(2), &alive, &[1], &[1]), Some(VoterStep::Learn(StoreId(2))));
        assert_eq!(step(&map(2), &alive, &[1, 2], &[1]), None, "two voters are worse than one");
        assert_eq!(step(&map(3), &alive, &[1, 2, 3], &[1]), Some(VoterStep::Vote(set(&[1, 2, 3]))));
        assert_eq!(step(&map(4), &alive, &[1, 2, 3, 4], &[1, 2, 3]), None);
        let five = Some(VoterStep::Vote(set(&[1, 2, 3, 4, 5])));
        assert_eq!(step(&map(6), &alive, &[1, 2, 3, 4, 5, 6], &[1, 2, 3]), five);
        assert_eq!(step(&map(6), &alive, &[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5]), None);
    }

    #[test]
    fn a_dead_voter_is_replaced_and_never_just_dropped() {
        let nodes = [1, 2, 3, 4];
        let spare = view(&[1, 2, 4], &[3]);
        assert_eq!(step(&map(4), &spare, &nodes, &[1, 2, 3]), Some(VoterStep::Vote(set(&[1, 2, 4]))));
        assert_eq!(step(&map(3), &view(&[1, 2], &[3]), &[1, 2, 3], &[1, 2, 3]), None);
        let mut young = spare;
        young.dead.insert(StoreId(3), young.now - REPLACE_AFTER_MICROS + 1);
        assert_eq!(step(&map(4), &young, &nodes, &[1, 2, 3]), None, "it may come back");
    }

    #[test]
    fn who_drains_votes_only_if_there_are_not_enough_others() {
        let drained = |count: u64| {
            let mut map = map(count);
            map.nodes.get_mut(&StoreId(1)).unwrap().state = NodeState::Draining;
            map
        };
        let alive = view(&[1, 2, 3, 4], &[]);
        assert_eq!(step(&drained(3), &alive, &[1, 2, 3], &[1, 2, 3]), None, "three are better than one");
        let others = Some(VoterStep::Vote(set(&[2, 3, 4])));
        assert_eq!(
            step(&drained(4), &alive, &[1, 2, 3, 4], &[1, 2, 3]),
            Some(VoterStep::Yield),
            "it leads the log"
        );
        let (nodes, voters) = (set(&[1, 2, 3, 4]), set(&[1, 2, 3]));
        let none = BTreeSet::new();
        assert_eq!(next_step(&drained(4), &alive, StoreId(2), &nodes, &voters, &none), others);
    }

    #[test]
    fn without_a_majority_nothing_changes() {
        let view = view(&[1, 4], &[2, 3]);
        assert_eq!(step(&map(4), &view, &[1, 2, 3, 4], &[1, 2, 3]), None);
    }

    #[test]
    fn who_left_votes_no_more_and_is_forgotten_then() {
        let mut map = map(4);
        map.nodes.get_mut(&StoreId(3)).unwrap().state = NodeState::Left;
        let view = view(&[1, 2, 4], &[]);
        assert_eq!(step(&map, &view, &[1, 2, 3, 4], &[1, 2, 3]), Some(VoterStep::Vote(set(&[1, 2, 4]))));
        assert_eq!(step(&map, &view, &[1, 2, 3, 4], &[1, 2, 4]), Some(VoterStep::Forget(StoreId(3))));
        assert_eq!(step(&map, &view, &[1, 2, 4], &[1, 2, 4]), None);
        let mut draining = map;
        draining.nodes.get_mut(&StoreId(1)).unwrap().state = NodeState::Leaving;
        assert_eq!(step(&draining, &view, &[1, 2, 4], &[1, 2, 4]), Some(VoterStep::Yield));
        let (nodes, none) = (set(&[1, 2, 4]), BTreeSet::new());
        let next = next_step(&draining, &view, StoreId(2), &nodes, &nodes, &none);
        assert_eq!(next, Some(VoterStep::Vote(set(&[2]))), "by the next leader");
        assert_eq!(
            step(&draining, &view, &[1, 2, 4], &[1]),
            Some(VoterStep::Vote(set(&[1, 2]))),
            "it needs an heir"
        );
    }
}
