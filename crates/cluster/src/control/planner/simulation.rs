//! Planner, detector and map together, over random lives of a cluster: deaths, restarts, wiped disks, new nodes, nodes that leave, heartbeats that
//! get lost. The members of shards are modelled by what the control plane may rely on: a manager leads when majorities of both lists hear it,
//! and one that restarted asks for a higher epoch. `SEED=n` replays one life, `SEEDS=n` runs as many.

use super::super::change::{Change, Proposal, RequestId, State};
use super::super::detector::Detector;
use super::super::leave::Keeping;
use super::super::map::{ClusterId, NamespaceRow, NodeInfo, NodeState, ShardId};
use super::super::report::{Beat, Report, Reports};
use super::{Planner, PlannerConfig};
use crate::namespace::Mode;
use crate::namespaces::NamespaceSettings;
use kvorum_sync::{Ask, Epoch, Members, OpId, StepDown, StoreId};
use std::collections::{BTreeMap, BTreeSet};

const TICK: u64 = 50_000;
const SECOND: u64 = 1_000_000;
const TROUBLE: u64 = 40 * SECOND;
const HEALED: u64 = 160 * SECOND;
const QUICK_SYNC: u64 = 3_000;
const SLOW_SYNC: u64 = 300_000;

struct Node {
    name: String,
    alive: bool,
    boot: u64,
    beats: u64,
    sync_micros: u64,
    /// What it would have to hand over of available namespaces.
    slots: u64,
    reports: Reports,
    /// Managers' epochs that a restart made unusable, and those in which it leads.
    stale: BTreeMap<ShardId, Epoch>,
    leads: BTreeMap<ShardId, Epoch>,
    /// Since when a nomination is being worked on.
    works: BTreeMap<ShardId, (Epoch, u64)>,
}

struct World {
    random: fastrand::Rng,
    now: u64,
    state: State,
    planner: Planner,
    detector: Detector,
    nodes: BTreeMap<StoreId, Node>,
    entries: u64,
    next_store: u64,
    /// When a member of the shard was last out of the leader's reach; as the world knows it.
    unheard: BTreeMap<ShardId, u64>,
    changed: u64,
}

fn node(name: String) -> Node {
    Node {
        name,
        alive: true,
        boot: 1,
        beats: 0,
        sync_micros: QUICK_SYNC,
        slots: 50,
        reports: Reports::default(),
        stale: BTreeMap::new(),
        leads: BTreeMap::new(),
        works: BTreeMap::new(),
    }
}

fn info(name: &str) -> NodeInfo {
    NodeInfo { name: name.to_owned(), peer: format!("{name}:1"), ..NodeInfo::default() }
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = fastrand::Rng::with_seed(seed);
        let config = PlannerConfig { down_after_micros: 2 * SECOND, replace_after_micros: 15 * SECOND };
        let count = random.u64(1..=5);
        let nodes: BTreeMap<StoreId, Node> =
            (1..=count).map(|n| (StoreId(n), node(format!("n{n}")))).collect();
        let settings =
            NamespaceSettings { shards: random.u16(1..=6), ..NamespaceSettings::new(Mode::Strong) };
        let namespace = NamespaceRow { name: "0".into(), settings, active: true, dropped: false };
        let found = Change::Found {
            cluster: ClusterId(1),
            nodes: nodes.iter().map(|(store, node)| (*store, info(&node.name))).collect(),
            namespaces: BTreeMap::from([(0, namespace)]),
        };
        let mut world = World {
            random,
            now: SECOND,
            state: State::default(),
            planner: Planner::new(config),
            detector: Detector::default(),
            nodes,
            entries: 0,
            next_store: 100,
            unheard: BTreeMap::new(),
            changed: 0,
        };
        world.apply(vec![found]);
        world
    }

    fn apply(&mut self, changes: Vec<Change>) {
        self.entries += 1;
        let id = RequestId { store: StoreId(0), boot: 0, number: self.entries };
        let proposal = Proposal { id, changes };
        let before = self.state.map.clone();
        let answers = self.state.apply(&proposal);
        let again = self.state.clone().apply(&proposal);
        assert_eq!(answers, again, "a repetition changes nothing");
        for (shard, row) in &before.shards {
            let Some(after) = self.state.map.shards.get(shard) else { continue };
            assert!(after.register.epoch() >= row.register.epoch(), "{shard:?}: epochs rise");
            assert!(row.members().difference(after.members()) <= 1, "{shard:?}: one member at a time");
            if after.register.epoch() == row.register.epoch() {
                assert_eq!(after.manager(), row.manager(), "{shard:?}: one manager an epoch");
            }
            let last = after.nomination.as_ref();
            assert!(last.is_none_or(|last| last.membership.old.difference(&last.membership.new) <= 1));
        }
        self.changed = self.now;
    }

    fn is_alive(&self, store: StoreId) -> bool {
        self.nodes.get(&store).is_some_and(|node| node.alive)
    }

    fn majority(&self, members: &Members) -> bool {
        members.is_majority(members.as_slice().iter().copied().filter(|store| self.is_alive(*store)))
    }

    /// Members at work: they do what the map of this moment says, a little later.
    fn work(&mut self) {
        let map = self.state.map.clone();
        for (shard, row) in &map.shards {
            let Some(last) = &row.nomination else { continue };
            let majorities = self.majority(&last.membership.old) && self.majority(&last.membership.new);
            let learners: Vec<StoreId> =
                row.learners.as_slice().iter().copied().filter(|store| self.is_alive(*store)).collect();
            let heard = self.is_alive(last.manager) && self.majority(&last.membership.new);
            if !heard {
                self.unheard.insert(*shard, self.now);
            }
            let delay = self.random.u64(2..10) * TICK;
            for (store, node) in &mut self.nodes {
                if *store != last.manager {
                    node.leads.remove(shard);
                    continue;
                }
                if !node.alive {
                    continue;
                }
                if node.stale.get(shard) == Some(&last.epoch) {
                    let wants = Report::Wants { shard: *shard, above: last.epoch, why: Ask::StaleEpoch };
                    node.reports.add(&wants, self.now);
                    continue;
                }
                let (epoch, since) = *node.works.entry(*shard).or_insert((last.epoch, self.now));
                if epoch != last.epoch {
                    node.works.insert(*shard, (last.epoch, self.now));
                } else if majorities && self.now - since >= delay {
                    node.leads.insert(*shard, epoch);
                    node.reports.add(&Report::Led { shard: *shard, epoch }, self.now);
                    // As a node does that sees in the map that it is to lead nothing, and that somebody else could.
                    let retires = matches!(map.state(*store), NodeState::Draining | NodeState::Leaving);
                    let reluctance = |of: &StoreId| map.state(*of).reluctance();
                    let heir = |other: &StoreId| reluctance(other) < reluctance(store);
                    if retires && last.membership.new.as_slice().iter().any(heir) {
                        let why = Ask::StepDown(StepDown::Drain);
                        node.reports.add(&Report::Wants { shard: *shard, above: epoch, why }, self.now);
                    }
                    for learner in &learners {
                        let ready = Report::LearnerReady { shard: *shard, epoch, store: *learner };
                        node.reports.add(&ready, self.now);
                    }
                }
            }
            // Members that know of traffic notice a silent leader.
            if !self.is_alive(last.manager) && self.random.bool() {
                let at = OpId::new(last.epoch, self.random.u64(0..3));
                let report = Report::LeaderMissing { shard: *shard, epoch: last.epoch, at };
                for member in last.membership.new.as_slice() {
                    if let Some(node) = self.nodes.get_mut(member).filter(|node| node.alive) {
                        node.reports.add(&report, self.now);
                    }
                }
            }
        }
    }

    fn beat(&mut self, lossy: bool) {
        let alive: Vec<StoreId> =
            self.nodes.iter().filter(|(_, node)| node.alive).map(|(store, _)| *store).collect();
        for (store, node) in self.nodes.iter_mut().filter(|(_, node)| node.alive) {
            node.reports.prune(&self.state.map, self.now);
            node.beats += 1;
            let map = &self.state.map;
            // What it kept of available namespaces is handed over bit by bit.
            let keeping = map.lets_go(*store).then(|| {
                node.slots = node.slots.saturating_sub(1);
                Keeping { among: map.eligible().map(|(store, _)| store).collect(), slots: node.slots }
            });
            let beat = Beat {
                keeping,
                boot: node.boot,
                number: node.beats,
                hears: alive.clone(),
                sync_micros: node.sync_micros,
                reports: node.reports.list(),
                ..Beat::default()
            };
            if !lossy || self.random.u8(0..10) > 0 {
                self.detector.beat(*store, beat, self.now);
            }
        }
    }

    fn plan(&mut self) {
        self.detector.look(&self.state.map, self.now);
        let view = self.detector.view(self.now);
        let changes = self.planner.plan(&self.state.map, &view);
        for change in &changes {
            self.judge(change);
        }
        if !changes.is_empty() {
            self.apply(changes);
        }
    }

    /// A leader that leads, whom a majority has heard all the time, and that does not ask, is left alone: only its members may change, its node
    /// drain, or the leaders be spread.
    fn judge(&self, change: &Change) {
        let Change::Nominate { shard, manager, members, .. } = change else { return };
        let row = &self.state.map.shards[shard];
        for list in [row.members(), members] {
            let heard =
                list.as_slice().iter().copied().filter(|store| self.detector.is_alive(*store, self.now));
            assert!(list.is_majority(heard), "{change:?}: no living majority of {list:?}");
        }
        let Some((epoch, before)) = row.manager() else { return };
        let Some(node) = self.nodes.get(&before) else { return };
        let heard = self.unheard.get(shard).is_none_or(|at| self.now - at > 2 * SECOND);
        // As far as anybody was told: a manager that took too long may begin to lead while it is replaced.
        let view = self.detector.view(self.now);
        let told = view.led.get(shard).is_some_and(|by| by.get(&before) == Some(&epoch));
        let leads = node.leads.get(shard) == Some(&epoch) && (told || row.is_led());
        let stays = self.state.map.state(before) == NodeState::Up;
        // It drained a moment ago, and has begun to hand over.
        let asks =
            view.wants.get(shard).is_some_and(|by| by.get(&before).is_some_and(|(above, _)| *above == epoch));
        if node.alive && leads && heard && stays && !asks {
            let managed = self.state.map.managed();
            let spreads = managed[&before] >= managed[manager] + 2;
            let changes_members = before == *manager && members != row.members();
            let takes = |store: StoreId| view.sync_micros.get(&store).copied();
            let gets_quicker = (takes(before), takes(*manager)) == (Some(SLOW_SYNC), Some(QUICK_SYNC));
            assert!(spreads || changes_members || gets_quicker, "{change:?} against a leader that is heard");
        }
    }

    fn restart(&mut self, store: StoreId) {
        let map = &self.state.map;
        let managed: Vec<(ShardId, Epoch)> = map
            .shards
            .iter()
            .filter_map(|(shard, row)| {
                row.manager().filter(|(_, by)| *by == store).map(|(epoch, _)| (*shard, epoch))
            })
            .collect();
        if let Some(node) = self.nodes.get_mut(&store) {
            let name = node.name.clone();
            let boot = node.boot + 1;
            *node = Node { boot, stale: managed.into_iter().collect(), ..self::node(name) };
        }
    }

    /// Whether every shard would have a majority of living or returning members without this store.
    fn can_lose(&self, store: StoreId) -> bool {
        let lost = |other: &StoreId| *other == store || self.state.map.state(*other) == NodeState::Left;
        self.state.map.shards.values().all(|row| {
            [row.members(), row.acting()].iter().all(|list| {
                let rest = list.as_slice().iter().copied().filter(|other| !lost(other));
                list.is_majority(rest)
            })
        })
    }

    fn trouble(&mut self) {
        let stores: Vec<StoreId> = self
            .nodes
            .keys()
            .copied()
            .filter(|store| self.state.map.state(*store) != NodeState::Left)
            .collect();
        let Some(&store) = self.random.choice(&stores) else { return };
        match self.random.u8(0..15) {
            0..5 if self.is_alive(store) => {
                let node = self.nodes.get_mut(&store).expect("it is there");
                node.alive = false;
                node.leads.clear();
            }
            5..9 if !self.is_alive(store) => self.restart(store),
            9 if stores.len() < 7 => self.join(None),
            10 if !self.is_alive(store) && self.can_lose(store) => self.join(Some(store)),
            11 if stores.len() > 3 && self.state.map.state(store) == NodeState::Up => {
                self.apply(vec![Change::SetNode { store, from: NodeState::Up, to: NodeState::Leaving }]);
            }
            12 => {
                let slow = if self.random.bool() { SLOW_SYNC } else { QUICK_SYNC };
                self.nodes.get_mut(&store).into_iter().for_each(|node| node.sync_micros = slow);
            }
            13 if self.state.map.state(store) == NodeState::Up => {
                self.apply(vec![Change::SetNode { store, from: NodeState::Up, to: NodeState::Draining }]);
            }
            14 if self.state.map.state(store) == NodeState::Draining => {
                self.apply(vec![Change::SetNode { store, from: NodeState::Draining, to: NodeState::Up }]);
            }
            // The raft leader changes: what damped is forgotten.
            _ => self.planner = Planner::new(self.planner.config.clone()),
        }
    }

    fn end_drains(&mut self) {
        let (from, to) = (NodeState::Draining, NodeState::Up);
        let drained = self.state.map.nodes.iter().filter(|(_, row)| row.state == from);
        let ends = drained.map(|(store, _)| Change::SetNode { store: *store, from, to }).collect();
        self.apply(ends);
    }

    fn join(&mut self, replaces: Option<StoreId>) {
        self.next_store += 1;
        let store = StoreId(self.next_store);
        let old = replaces.and_then(|old| self.nodes.remove(&old));
        let name = old.map_or_else(|| format!("n{}", store.0), |old| old.name);
        self.apply(vec![Change::Join { store, info: info(&name), replaces }]);
        self.nodes.insert(store, node(name));
    }

    fn run(&mut self) {
        let end = self.now + TROUBLE + HEALED;
        let calm = self.now + TROUBLE;
        while self.now < end {
            self.now += TICK;
            let troubled = self.now < calm;
            if troubled && self.random.u8(0..20) == 0 {
                self.trouble();
            }
            if self.now >= calm && self.now - calm < TICK {
                let down: Vec<StoreId> =
                    self.nodes.iter().filter(|(_, node)| !node.alive).map(|(store, _)| *store).collect();
                down.into_iter().for_each(|store| self.restart(store));
                if self.random.bool() {
                    self.end_drains();
                }
                // One disk may stay slow: then its node leads nothing, where another one can.
                let slow = self.random.choice(self.nodes.keys().copied()).filter(|_| self.random.bool());
                for (store, node) in &mut self.nodes {
                    node.sync_micros = if Some(*store) == slow { SLOW_SYNC } else { QUICK_SYNC };
                }
            }
            self.work();
            if self.now.is_multiple_of(3 * TICK) {
                self.beat(troubled);
            }
            if self.now.is_multiple_of(2 * TICK) {
                self.plan();
            }
        }
        self.converged();
    }

    /// What must be true some time after all trouble.
    fn converged(&self) {
        let map = &self.state.map;
        let wanted = map.wanted(0);
        for (shard, row) in &map.shards {
            let (epoch, manager) = row.manager().expect("every shard has a manager");
            assert!(row.is_led() && self.is_alive(manager), "{shard:?} is led by a living node");
            assert_eq!(self.nodes[&manager].leads.get(shard), Some(&epoch));
            let is_quick = |store: &StoreId| self.nodes[store].sync_micros == QUICK_SYNC;
            let quick = row.members().as_slice().iter().any(is_quick);
            let is_up = |store: &StoreId| map.state(*store) == NodeState::Up;
            let nobody_else = !row.members().as_slice().iter().any(is_up);
            assert!(is_up(&manager) || nobody_else, "{shard:?} is led by a node that drains: {row:?}");
            let members = row.members().as_slice();
            assert_eq!(members.len(), wanted, "{shard:?} has the copies asked for: {row:?}");
            assert!(row.learners.as_slice().is_empty(), "{shard:?} has nothing under way: {row:?}");
            let stay = |store: &StoreId| map.eligible().any(|(other, _)| other == *store);
            assert!(members.iter().all(stay), "{shard:?} is kept by nodes that stay");
            let drains = map.nodes.values().any(|row| row.state == NodeState::Draining);
            assert!(drains || is_quick(&manager) || !quick, "{shard:?} is led by a node with a slow disk");
        }
        assert!(!map.nodes.keys().any(|store| map.lets_go(*store)), "whoever was to leave has left");
        if map.nodes.values().any(|row| row.state == NodeState::Draining) {
            return;
        }
        let eligible: BTreeSet<StoreId> = map.eligible().map(|(store, _)| store).collect();
        let spread = |counts: BTreeMap<StoreId, usize>| {
            let counts: Vec<usize> = counts
                .into_iter()
                .filter(|(store, _)| eligible.contains(store))
                .map(|(_, count)| count)
                .collect();
            counts.iter().max().copied().unwrap_or(0) - counts.iter().min().copied().unwrap_or(0)
        };
        // Who has a slow disk leads nothing, and is given nothing.
        if self.nodes.values().all(|node| node.sync_micros == QUICK_SYNC) {
            assert!(spread(map.managed()) <= 2, "leaders are spread: {:?}", map.managed());
            assert!(spread(map.kept()) <= 2, "shards are spread: {:?}", map.kept());
        }
        assert!(self.now - self.changed > 10 * SECOND, "and nothing moves any more");
    }
}

#[test]
fn whatever_happens_every_shard_is_led_in_the_end() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(200),
    };
    for seed in seeds {
        let life = std::panic::catch_unwind(|| World::new(seed).run());
        assert!(life.is_ok(), "SEED={seed} replays this life");
    }
}
