//! One sentence of the rules each.

use super::super::change::Change;
use super::super::detector::View;
use super::super::leave::Keeping;
use super::super::map::{ClusterId, Map, NamespaceRow, NodeInfo, NodeState, ShardId};
use super::{Planner, PlannerConfig};
use crate::namespace::Mode;
use crate::namespaces::NamespaceSettings;
use kvorum_sync::{Ask, Epoch, Members, OpId, StepDown, StoreId};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const A: StoreId = StoreId(1);
pub(super) const B: StoreId = StoreId(2);
pub(super) const C: StoreId = StoreId(3);
const D: StoreId = StoreId(4);
const SHARD: ShardId = ShardId { namespace: 0, place: 0 };
pub(super) const SECOND: u64 = 1_000_000;

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

/// A cluster with one shard, a planner, and what it hears.
pub(super) struct Case {
    pub(super) map: Map,
    planner: Planner,
    pub(super) view: View,
}

fn info(store: StoreId) -> NodeInfo {
    NodeInfo { name: store.to_string(), peer: format!("{store}:1"), ..NodeInfo::default() }
}

impl Case {
    fn new(nodes: &[StoreId]) -> Case {
        Case::with_shards(nodes, 1)
    }

    pub(super) fn with_shards(nodes: &[StoreId], shards: u16) -> Case {
        let settings = NamespaceSettings { shards, ..NamespaceSettings::new(Mode::Strong) };
        let namespace = NamespaceRow { name: "0".into(), settings, active: true, dropped: false };
        let mut map = Map::default();
        let nodes = nodes.iter().map(|store| (*store, info(*store))).collect();
        let namespaces = BTreeMap::from([(0, namespace)]);
        map.apply(&Change::Found { cluster: ClusterId(1), nodes, namespaces }).unwrap();
        map.version = 1;
        let mut case = Case {
            planner: Planner::new(PlannerConfig::default()),
            view: View { now: 100 * SECOND, ..View::default() },
            map,
        };
        case.hear_all();
        case
    }

    /// Everybody hears everybody.
    pub(super) fn hear_all(&mut self) {
        let all: Vec<StoreId> = self.map.nodes.keys().copied().collect();
        self.view.dead.clear();
        self.view.alive = all.iter().map(|store| (*store, 0)).collect();
        self.view.hears = all.iter().map(|store| (*store, all.iter().copied().collect())).collect();
    }

    pub(super) fn kill(&mut self, store: StoreId) {
        self.view.alive.remove(&store);
        self.view.hears.remove(&store);
        self.view.dead.insert(store, self.view.now);
        self.view.hears.values_mut().for_each(|heard| {
            heard.remove(&store);
        });
    }

    pub(super) fn plan(&mut self) -> Vec<Change> {
        self.planner.plan(&self.map, &self.view)
    }

    /// A leader that is to hand over has nothing under way any more, and says so.
    fn settled(&mut self, leader: StoreId) {
        let epoch = self.map.shards[&SHARD].register.epoch();
        let wants = (epoch, Ask::StepDown(StepDown::Drain));
        self.view.wants = BTreeMap::from([(SHARD, BTreeMap::from([(leader, wants)]))]);
    }

    /// A leader with nothing under way asks for an heir, and gets one of the others, who leads the same members. Answers who that is.
    fn hands_over(&mut self, leader: StoreId) -> StoreId {
        self.settled(leader);
        let (next, members) = self.nominated().unwrap();
        assert!(next != leader && members.len() == 3);
        self.reigns();
        self.plan();
        next
    }

    /// The nominated manager leads.
    fn reigns(&mut self) {
        let epoch = self.map.shards[&SHARD].register.epoch();
        self.map.apply(&Change::Led { shard: SHARD, epoch }).unwrap();
    }

    pub(super) fn wait(&mut self, micros: u64) {
        self.view.now += micros;
    }

    /// Plans and applies, as if the nominated manager led at once.
    fn lead(&mut self) -> StoreId {
        let changes = self.plan();
        self.apply(&changes);
        let (epoch, manager) = self.map.shards[&SHARD].manager().expect("a nomination");
        self.map.apply(&Change::Led { shard: SHARD, epoch }).unwrap();
        self.plan();
        self.wait(20 * SECOND);
        manager
    }

    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.map.apply(change).unwrap();
        }
    }

    fn nominated(&mut self) -> Option<(StoreId, Vec<StoreId>)> {
        let changes = self.plan();
        let found = changes.iter().find_map(|change| match change {
            Change::Nominate { manager, members, .. } => Some((*manager, members.as_slice().to_vec())),
            _ => None,
        });
        self.apply(&changes);
        found
    }
}

/// Three nodes, and the one of them that leads, then the others.
fn led() -> (Case, StoreId, [StoreId; 2]) {
    let mut case = Case::new(&[A, B, C]);
    let leader = case.lead();
    let others: Vec<StoreId> = [A, B, C].into_iter().filter(|store| *store != leader).collect();
    (case, leader, others.try_into().unwrap())
}

#[test]
fn a_shard_without_a_manager_gets_one_as_soon_as_a_majority_is_heard() {
    let mut case = Case::new(&[A, B, C]);
    case.kill(A);
    case.kill(B);
    assert_eq!(case.nominated(), None);
    case.hear_all();
    let (manager, members) = case.nominated().unwrap();
    assert!(members.contains(&manager) && members.len() == 3);
    assert_eq!(case.nominated(), None, "once");
}

#[test]
fn a_quiet_cluster_is_left_alone() {
    let (mut case, ..) = led();
    for _ in 0..100 {
        case.wait(SECOND);
        assert_eq!(case.plan(), []);
    }
}

#[test]
fn a_dead_leader_is_replaced_by_who_is_furthest_ahead() {
    let (mut case, leader, [one, other]) = led();
    case.kill(leader);
    let at = |serial| OpId::new(epoch(1), serial);
    let said = BTreeMap::from([(one, (epoch(1), at(7))), (other, (epoch(1), at(9)))]);
    case.view.missing.insert(SHARD, said);
    assert_eq!(case.nominated().unwrap().0, other);
}

#[test]
fn a_leader_that_a_majority_hears_stays_though_the_planner_does_not_hear_it() {
    let (mut case, leader, [one, other]) = led();
    case.kill(leader);
    for member in [one, other] {
        case.view.hears.get_mut(&member).unwrap().insert(leader);
    }
    assert_eq!(case.nominated(), None);
    case.view.hears.get_mut(&one).unwrap().remove(&leader);
    assert_eq!(case.nominated(), None, "itself and one more are a majority");
    case.view.hears.get_mut(&other).unwrap().remove(&leader);
    assert!(case.nominated().is_some());
}

#[test]
fn a_living_leader_is_replaced_when_a_majority_of_members_misses_it() {
    let (mut case, leader, [one, other]) = led();
    let missed_in = |number, members: &[StoreId]| {
        BTreeMap::from([(SHARD, members.iter().map(|store| (*store, (epoch(number), OpId::ZERO))).collect())])
    };
    case.view.missing = missed_in(1, &[one]);
    assert_eq!(case.nominated(), None, "one of three");
    case.view.missing = missed_in(7, &[one, other]);
    assert_eq!(case.nominated(), None, "another epoch");
    case.view.missing = missed_in(1, &[one, other]);
    let (manager, _) = case.nominated().unwrap();
    assert_ne!(manager, leader);
}

#[test]
fn a_leader_gets_the_higher_epoch_it_asks_for() {
    let (mut case, leader, _) = led();
    let wish = (epoch(40), Ask::StaleEpoch);
    case.view.wants.insert(SHARD, BTreeMap::from([(leader, wish)]));
    assert_eq!(case.nominated().unwrap().0, leader);
    assert_eq!(case.map.shards[&SHARD].register.epoch(), epoch(41));
    case.wait(20 * SECOND);
    assert_eq!(case.nominated(), None, "the wish is fulfilled");
}

#[test]
fn first_leaders_wait_a_moment_for_members_that_come_up() {
    let mut case = Case::new(&[A, B, C]);
    for store in [A, B, C] {
        case.view.alive.insert(store, case.view.now);
    }
    case.view.alive.remove(&C);
    assert_eq!(case.nominated(), None, "nothing is known of one");
    case.view.alive.insert(C, case.view.now);
    case.view.hears.insert(C, BTreeSet::new());
    assert_eq!(case.nominated(), None, "it hears nobody yet");
    case.wait(SECOND);
    assert!(case.nominated().is_some_and(|(manager, _)| manager != C), "it had its time");
}

#[test]
fn a_node_whose_store_takes_no_writes_is_named_only_if_there_is_nobody_else() {
    let (mut case, leader, [one, other]) = led();
    case.view.halted.insert(one);
    case.wait(60 * SECOND);
    case.kill(leader);
    assert_eq!(case.nominated().unwrap().0, other, "it is alive, and would lead least");
    let (mut case, leader, [one, other]) = led();
    case.view.halted.extend([one, other]);
    case.kill(leader);
    assert!(case.nominated().is_some());
}

#[test]
fn a_leader_whose_store_is_unfit_hands_over_and_is_not_named_again_soon() {
    let (mut case, leader, [one, other]) = led();
    let wish = (epoch(1), Ask::StepDown(StepDown::DiskFull));
    case.view.wants.insert(SHARD, BTreeMap::from([(leader, wish)]));
    let (next, _) = case.nominated().unwrap();
    assert_ne!(next, leader);
    case.view.wants.clear();
    case.reigns();
    case.plan();
    case.wait(2 * SECOND);
    case.kill(next);
    let third = if next == one { other } else { one };
    assert_eq!(case.nominated().unwrap().0, third);
}

#[test]
fn a_leader_whose_disk_stays_far_slower_than_the_others_gives_way() {
    let (mut case, leader, [one, other]) = led();
    case.view.sync_micros = BTreeMap::from([(leader, 400_000), (one, 2_000), (other, 40_000)]);
    assert_eq!(case.nominated(), None, "any disk is slow for a moment");
    case.view.sync_micros.insert(leader, 90_000);
    case.wait(2 * SECOND);
    assert_eq!(case.nominated(), None);
    case.view.sync_micros.insert(leader, 400_000);
    case.wait(2 * SECOND);
    assert_eq!(case.nominated(), None, "it begins anew");
    case.wait(3 * SECOND);
    let (next, _) = case.nominated().unwrap();
    assert_ne!(next, leader);
    case.reigns();
    case.plan();
    case.wait(60 * SECOND);
    case.kill(next);
    assert_ne!(case.nominated().unwrap().0, leader, "it is slow still, and there is another one");
}

#[test]
fn a_slow_disk_is_no_reason_where_none_is_better() {
    let (mut case, leader, [one, other]) = led();
    for others in [[400_000, 2_000], [60_000, 60_000], [0, 0]] {
        case.view.sync_micros = BTreeMap::from([(leader, 400_000), (one, others[0]), (other, others[1])]);
        for _ in 0..100 {
            case.wait(SECOND / 10);
            assert_eq!(case.nominated(), None, "{others:?}");
        }
    }
    case.view.sync_micros = BTreeMap::from([(leader, 900_000), (one, 2_000), (other, 2_000)]);
    case.view.halted.extend([one, other]);
    for _ in 0..100 {
        case.wait(SECOND / 10);
        assert_eq!(case.nominated(), None, "the others take no writes at all");
    }
}

#[test]
fn a_wish_of_somebody_else_is_not_followed() {
    let (mut case, _, [one, _]) = led();
    case.view.wants.insert(SHARD, BTreeMap::from([(one, (epoch(1), Ask::NotLeading))]));
    assert_eq!(case.nominated(), None);
}

#[test]
fn a_manager_that_does_not_get_to_lead_is_replaced_ever_more_slowly() {
    let mut case = Case::new(&[A, B, C]);
    let (mut manager, _) = case.nominated().unwrap();
    let begun = case.view.now;
    let mut when = Vec::new();
    while case.view.now - begun < 60 * SECOND {
        case.wait(SECOND / 10);
        if let Some((next, _)) = case.nominated() {
            assert_ne!(next, manager, "another one");
            manager = next;
            when.push(case.view.now);
        }
    }
    let gaps: Vec<u64> = when.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] + SECOND / 5 >= pair[0]), "{gaps:?}");
    assert!(*gaps.last().unwrap() >= 8 * SECOND, "{gaps:?}");
}

#[test]
fn a_manager_that_says_so_leads_in_the_map() {
    let mut case = Case::new(&[A, B, C]);
    let (manager, _) = case.nominated().unwrap();
    let others: Vec<_> = [A, B, C].into_iter().filter(|store| *store != manager).collect();
    case.view.led.insert(SHARD, BTreeMap::from([(others[0], epoch(1))]));
    assert_eq!(case.plan(), [], "somebody else's word");
    case.view.led.insert(SHARD, BTreeMap::from([(manager, epoch(1))]));
    assert_eq!(case.plan(), [Change::Led { shard: SHARD, epoch: epoch(1) }]);
}

#[test]
fn members_are_added_by_a_learner_and_one_at_a_time() {
    let mut case = Case::new(&[A]);
    assert_eq!(case.lead(), A);
    for store in [B, C, D] {
        case.apply(&[Change::Join { store, info: info(store), replaces: None }]);
    }
    case.hear_all();
    let mut sizes = Vec::new();
    for _ in 0..6 {
        let changes = case.plan();
        case.apply(&changes);
        let row = &case.map.shards[&SHARD];
        let (at, leader) = row.manager().unwrap();
        assert_eq!(leader, A);
        if row.is_led() {
            let learners = row.learners.as_slice();
            assert!(learners.len() <= 1);
            case.view.ready = BTreeMap::from([(SHARD, learners.iter().map(|store| (*store, at)).collect())]);
        } else {
            case.map.apply(&Change::Led { shard: SHARD, epoch: at }).unwrap();
            case.plan();
        }
        sizes.push(case.map.shards[&SHARD].members().as_slice().len());
        case.wait(2 * SECOND);
    }
    assert_eq!(sizes, [1, 2, 2, 3, 3, 3]);
}

#[test]
fn a_learner_that_is_not_ready_becomes_no_member() {
    let mut case = Case::new(&[A]);
    case.lead();
    case.apply(&[Change::Join { store: B, info: info(B), replaces: None }]);
    case.hear_all();
    let changes = case.plan();
    case.apply(&changes);
    assert_eq!(case.map.shards[&SHARD].learners.as_slice(), [B]);
    case.view.ready = BTreeMap::from([(SHARD, BTreeMap::from([(B, epoch(9))]))]);
    case.wait(60 * SECOND);
    assert_eq!(case.plan(), [], "ready in the epoch of another leader");
    case.kill(B);
    case.wait(31 * SECOND);
    let given_up = Change::Learners { shard: SHARD, last: epoch(1), learners: Members::of(&[]) };
    assert!(case.plan().contains(&given_up));
}

#[test]
fn a_wiped_member_is_taken_off_the_list_at_once() {
    let (mut case, leader, [one, other]) = led();
    case.map.nodes.get_mut(&one).unwrap().state = NodeState::Left;
    let (manager, members) = case.nominated().unwrap();
    assert_eq!(manager, leader);
    let mut expected = vec![leader, other];
    expected.sort_unstable();
    assert_eq!(members, expected);
}

#[test]
fn a_member_is_not_taken_off_when_the_rest_has_no_majority() {
    let (mut case, _, [one, other]) = led();
    case.map.nodes.get_mut(&one).unwrap().state = NodeState::Left;
    case.kill(other);
    assert_eq!(case.nominated(), None);
}

#[test]
fn a_dead_member_is_replaced_after_the_grace_and_by_adding_first() {
    let mut case = Case::new(&[A, B, C]);
    let leader = case.lead();
    case.apply(&[Change::Join { store: D, info: info(D), replaces: None }]);
    case.hear_all();
    let dead = if leader == A { B } else { A };
    case.kill(dead);
    case.wait(599 * SECOND);
    let changes = case.plan();
    assert!(
        changes.iter().all(|change| matches!(change, Change::SetNode { to: NodeState::Down, .. })),
        "{changes:?}"
    );
    case.wait(2 * SECOND);
    let changes = case.plan();
    case.apply(&changes);
    assert_eq!(case.map.shards[&SHARD].learners.as_slice(), [D]);
    case.view.ready = BTreeMap::from([(SHARD, BTreeMap::from([(D, epoch(1))]))]);
    assert_eq!(case.nominated().unwrap().1.len(), 4);
    case.map.apply(&Change::Led { shard: SHARD, epoch: epoch(2) }).unwrap();
    case.plan();
    case.wait(2 * SECOND);
    let (_, members) = case.nominated().unwrap();
    assert!(members.len() == 3 && !members.contains(&dead) && members.contains(&D), "{members:?}");
}

#[test]
fn a_node_that_drains_leads_nothing_once_it_asks_and_keeps_its_copies() {
    let (mut case, leader, others) = led();
    let set = |from, to| Change::SetNode { store: leader, from, to };
    case.apply(&[set(NodeState::Up, NodeState::Draining)]);
    assert_eq!(case.plan(), [], "it settles what is under way first");
    let next = case.hands_over(leader);
    case.wait(60 * SECOND);
    assert_eq!(case.plan(), [], "it is a member still");
    // The leader dies: the other one follows, though the node that drains has no more to lead.
    case.kill(next);
    case.wait(2 * SECOND);
    let other = others.into_iter().find(|store| *store != next).unwrap();
    assert_eq!(case.nominated().map(|(manager, _)| manager), Some(other));
}

#[test]
fn a_node_that_drains_and_has_no_heir_any_more_leads_on() {
    let (mut case, leader, others) = led();
    case.apply(&[Change::SetNode { store: leader, from: NodeState::Up, to: NodeState::Draining }]);
    for store in others {
        case.apply(&[Change::SetNode { store, from: NodeState::Up, to: NodeState::Draining }]);
    }
    case.settled(leader);
    assert_eq!(
        case.nominated().map(|(manager, _)| manager),
        Some(leader),
        "in a new reign, that takes writes"
    );
}

#[test]
fn a_node_that_is_removed_hands_over_what_it_leads_then_what_it_keeps() {
    let (mut case, leader, _) = led();
    case.map.nodes.get_mut(&leader).unwrap().state = NodeState::Leaving;
    assert_eq!(case.plan(), [], "it is not the others who go");
    case.hands_over(leader);
    case.wait(2 * SECOND);
    let (_, members) = case.nominated().unwrap();
    assert!(!members.contains(&leader) && members.len() == 2, "two nodes can keep two copies");
    case.reigns();
    let left = Change::SetNode { store: leader, from: NodeState::Leaving, to: NodeState::Left };
    assert!(!case.plan().contains(&left), "it has entries to hand over");
    let among = case.map.eligible().map(|(store, _)| store).collect();
    case.view.keeping.insert(leader, Keeping { among, slots: 0 });
    assert!(case.plan().contains(&left));
}

#[test]
fn fewer_copies_are_reached_by_taking_members_off() {
    let (mut case, leader, _) = led();
    let copies = crate::namespaces::NamespaceChange::Replication(Some(1));
    case.apply(&[Change::SetNamespace { id: 0, changes: vec![copies] }]);
    for expected in [2, 1] {
        let (manager, members) = case.nominated().unwrap();
        assert_eq!((manager, members.len()), (leader, expected));
        case.reigns();
        case.plan();
        case.wait(2 * SECOND);
    }
    assert_eq!(case.nominated(), None);
}

#[test]
fn nodes_go_down_and_come_up_in_the_map() {
    let (mut case, _, [one, _]) = led();
    case.kill(one);
    assert_eq!(case.plan(), [], "not at once");
    case.wait(5 * SECOND);
    let down = Change::SetNode { store: one, from: NodeState::Up, to: NodeState::Down };
    assert_eq!(case.plan(), std::slice::from_ref(&down));
    case.apply(&[down]);
    case.hear_all();
    assert_eq!(case.plan(), [Change::SetNode { store: one, from: NodeState::Down, to: NodeState::Up }]);
}
