//! Nodes, the maps that they know, and what is under way between them.

use super::client::{Client, Write};
use super::mending::{Driven, Mending};
use super::traffic::UnderWay;
use super::*;
use kvorum_model::slot;

pub(super) const SHARDS: u16 = 4;
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
pub(super) const BASE_MS: u64 = 1_800_000_000_000;

/// How far the clock of another node may be ahead.
pub(super) const AHEAD_MS: u64 = 60_000;

/// How long a node may sleep.
pub(super) const GRACE_MS: u64 = 600_000;

pub(super) const NAMESPACE: u16 = 16;

fn namespace() -> NamespaceId {
    NamespaceId::new(NAMESPACE, Mode::Available, SHARDS)
}

/// One version of the map.
pub(super) struct Map {
    /// The nodes that keep something.
    pub(super) order: Order,
    /// All that have not left.
    pub(super) there: BTreeSet<StoreId>,
    /// Those that have left, with their names.
    pub(super) left: Vec<(StoreId, &'static str)>,
}

pub(super) struct Node {
    pub(super) store_id: StoreId,
    pub(super) name: &'static str,
    pub(super) fs: SimFs,
    /// Counts lives: what was under way in an earlier one is nothing to a later one.
    pub(super) boot: u64,
    /// How far its clock is off.
    pub(super) skew_ms: i64,
    /// The bound of its hybrid clock, as its store would know it.
    bound: u64,
    /// The version of the map that it knows.
    pub(super) map: usize,
    /// It stands still: a process that was stopped.
    pub(super) is_paused: bool,
    /// It has left for good.
    pub(super) is_gone: bool,
    pub(super) up: Option<Up>,
}

pub(super) struct Up {
    pub(super) store: Store,
    pub(super) replica: Replica,
    pub(super) standing: Standing,
    pub(super) hints: Hints,
    pub(super) hybrid: HybridClock,
    /// When this life began: true time, and its own clock's.
    pub(super) begun: (u64, u64),
    pub(super) pulse_ms: u64,
    /// When it last met another node, by its own clock.
    pub(super) met_ms: u64,
    pub(super) heard: Heard,
    pub(super) touch: Touch,
    /// Whom the others miss, and when they were asked.
    pub(super) missed: BTreeMap<StoreId, (u64, Vec<StoreId>)>,
    pub(super) mending: BTreeMap<Mending, Driven>,
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) dice: Dice,
    pub(super) now_ms: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) maps: Vec<Map>,
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// These reach each other and nobody else.
    pub(super) apart: BTreeSet<usize>,
    /// Of each key the oldest write of a node that was apart.
    pub(super) lone: BTreeMap<Bytes, u64>,
    /// How often a node was apart for so long that it doubted what it holds.
    pub(super) doubted: u64,
    pub(super) under_way: Vec<UnderWay>,
    pub(super) clients: BTreeMap<u64, Client>,
    pub(super) begun: u64,
    /// What clients of one request were told.
    pub(super) told: BTreeMap<u64, Outcome>,
    /// What is still to happen to the nodes.
    pub(super) changes: Vec<Change>,
    /// Clocks may be set back by more than the grace.
    pub(super) jumps_back: bool,
    /// What was written at the same time is kept.
    pub(super) keeps_losers: bool,
    /// Acknowledged writes.
    pub(super) writes: Vec<Write>,
    /// Of each key the newest deletion that was tried: once it is forgotten there may be nothing.
    pub(super) deletions: BTreeMap<Bytes, u64>,
    pub(super) acknowledged: u64,
    pub(super) moved: u64,
    pub(super) delivered: u64,
    pub(super) trace: u64,
}

impl World {
    pub(super) fn new(seed: u64, count: usize, wipe: bool) -> World {
        let mut world = World {
            seed,
            dice: Dice::new(seed),
            now_ms: BASE_MS,
            nodes: Vec::new(),
            maps: Vec::new(),
            cut: BTreeSet::new(),
            apart: BTreeSet::new(),
            lone: BTreeMap::new(),
            doubted: 0,
            under_way: Vec::new(),
            clients: BTreeMap::new(),
            begun: 0,
            told: BTreeMap::new(),
            changes: if wipe { vec![Change::Wipe] } else { Vec::new() },
            jumps_back: false,
            keeps_losers: false,
            writes: Vec::new(),
            deletions: BTreeMap::new(),
            acknowledged: 0,
            moved: 0,
            delivered: 0,
            trace: 0,
        };
        for _ in 0..count {
            world.add_node();
        }
        world.enact(None);
        for at in 0..count {
            world.nodes[at].map = 0;
            world.start(at, true);
        }
        world
    }

    pub(super) fn add_node(&mut self) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Node {
            store_id: StoreId(at as u64 + 1),
            name: NAMES[at],
            fs: SimFs::new(self.seed * 100 + at as u64),
            boot: 0,
            skew_ms: 0,
            bound: 0,
            map: self.maps.len().saturating_sub(1),
            is_paused: false,
            is_gone: false,
            up: None,
        });
        at
    }

    /// A new version of the map: of all nodes that are not gone; one that leaves keeps nothing any more.
    pub(super) fn enact(&mut self, leaving: Option<StoreId>) {
        let here = || self.nodes.iter().filter(|node| !node.is_gone);
        let there: BTreeSet<_> = here().map(|node| node.store_id).collect();
        let keeps = here().filter(|node| Some(node.store_id) != leaving);
        let order = Order::of(keeps.map(|node| (node.store_id, node.name)));
        let mut left = self.maps.last().map_or(Vec::new(), |map| map.left.clone());
        if let Some(before) = self.maps.last() {
            let named = |store: &StoreId| NAMES[(store.0 as usize - 1) % 100];
            left.extend(before.there.difference(&there).map(|store| (*store, named(store))));
        }
        self.maps.push(Map { order, there, left });
    }

    /// The map that a node knows.
    pub(super) fn map_of(&self, at: usize) -> &Map {
        &self.maps[self.nodes[at].map]
    }

    pub(super) fn order(&self) -> &Order {
        &self.maps.last().expect("a map").order
    }

    /// From whom a node collects what it lacks.
    pub(super) fn sources(&self, at: usize) -> Sources {
        let (node, map) = (&self.nodes[at], self.map_of(at));
        let names: Vec<_> = self
            .nodes
            .iter()
            .filter(|other| map.there.contains(&other.store_id))
            .map(|other| other.name)
            .collect();
        let is_lost = |name: &&'static str| *name == node.name || !names.contains(name);
        Sources {
            others: map.there.iter().copied().filter(|store| *store != node.store_id).collect(),
            lost: map.left.iter().filter(|(_, name)| is_lost(name)).count(),
        }
    }

    /// Starts a node; `is_founder`: nothing was there before it.
    pub(super) fn start(&mut self, at: usize, is_founder: bool) {
        let wall = self.wall_ms(at);
        let node = &mut self.nodes[at];
        let mut settings = Settings::default();
        settings.memory_bytes = 4 << 20;
        settings.wal_segment_bytes = 1 << 20;
        settings.background_threads = false;
        let parts = Parts::new(Arc::new(node.fs.clone()), TestClock::at(BASE_MS));
        let store = Store::open("/store", settings, parts).expect("a store");
        let trees = (0..SHARDS)
            .map(|place| store.tree(&format!("n16/s{place}"), TreeSettings::newest_only()).expect("a tree"))
            .collect();
        let replica = Replica::new(node.store_id, namespace(), store.clone(), trees);
        replica.set_keeps_losers(self.keeps_losers);
        let system = Arc::new(System::open(&store).expect("a system tree").0);
        let standing = Standing::open(&system, &store).expect("what it knows of itself");
        standing.begin(if is_founder { 0 } else { NAMESPACE }).expect("its first map");
        let hints = Hints::open(&store, 1 << 20).expect("hints");
        let hybrid = HybridClock::new(at as u64, node.bound);
        node.boot += 1;
        node.is_paused = false;
        let begun = (self.now_ms, hybrid.now_ms(wall));
        node.up = Some(Up {
            store,
            replica,
            standing,
            hints,
            pulse_ms: begun.1,
            hybrid,
            begun,
            met_ms: begun.1,
            heard: Heard::default(),
            touch: Touch::begin(0, 0, begun.1),
            missed: BTreeMap::new(),
            mending: BTreeMap::new(),
        });
        self.turn(at, true);
    }

    /// A replica is told among which nodes it serves.
    pub(super) fn turn(&mut self, at: usize, is_opened: bool) {
        let sources = self.sources(at);
        let Some(own) = self.own_time(at) else { return };
        let map = &self.maps[self.nodes[at].map];
        let Some(up) = &mut self.nodes[at].up else { return };
        let moment = Moment { now_ms: own.now_ms, lease_ms: own.lease_ms() };
        up.standing.turn(&up.replica, &map.order, &sources, moment, is_opened).expect("a turn");
        if is_opened {
            let awake_ms = up.standing.awake_ms().filter(|_| !up.replica.doubts());
            let ago_ms = awake_ms.map_or(0, |awake_ms| own.now_ms.saturating_sub(awake_ms));
            up.touch = Touch::begin(ago_ms, 0, own.begun_ms);
        }
    }

    /// As a node does before it says anything: it may have been standing still, or cut off.
    pub(super) fn pulse(&mut self, at: usize) {
        let (sources, others) = (self.sources(at), self.others(at));
        let Some(own) = self.own_time(at) else { return };
        let order = &self.maps[self.nodes[at].map].order;
        let Some(up) = &mut self.nodes[at].up else { return };
        let slept = own.now_ms.saturating_sub(up.pulse_ms) > own.patience_ms();
        let slept = slept && !is_planted(Fault::OversleptMerges);
        up.pulse_ms = own.now_ms;
        if slept || up.touch.is_lost(own, &others) {
            up.replica.doubt(order, &sources);
            up.touch.doubts(own, up.met_ms);
            self.doubted += u64::from(!slept);
            // What it held with nobody but those that are as lost is no longer promised.
            self.renounce(at);
        }
    }

    /// The nodes that a node knows besides itself.
    pub(super) fn others(&self, at: usize) -> Vec<StoreId> {
        let me = self.nodes[at].store_id;
        self.map_of(at).order.stores().filter(|store| *store != me).collect()
    }

    /// Power fails: what was not synced may be lost.
    pub(super) fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.up.is_some() {
            // Before the store is let go of: that would still write.
            node.fs = node.fs.after_power_loss();
            node.up = None;
        }
    }

    /// A node is off; nothing that it acknowledged is lost.
    pub(super) fn down(&mut self, at: usize) {
        self.drain();
        self.crash(at);
    }

    pub(super) fn up(&mut self, at: usize) {
        if self.nodes[at].up.is_some() || self.nodes[at].is_gone {
            return;
        }
        self.start(at, false);
        if self.nodes[at].up.as_ref().is_some_and(|up| up.replica.doubts()) {
            self.doubted += u64::from(self.apart.contains(&at));
            self.renounce(at);
        }
    }

    fn wake(&mut self, at: usize) {
        if !self.sleeps(at) {
            self.up(at);
        }
    }

    fn crash_some(&mut self, at: usize) {
        if !self.nodes[at].is_paused {
            self.crash(at);
        }
    }

    /// The nodes in the order of a key.
    pub(super) fn order_of(&self, key: &[u8]) -> Vec<usize> {
        self.order().of_slot(slot(key)).into_iter().map(|store| self.at(store).expect("a node")).collect()
    }

    /// Where a store is.
    pub(super) fn at(&self, store: StoreId) -> Option<usize> {
        self.nodes.iter().position(|node| node.store_id == store && !node.is_gone)
    }

    /// What stands on a node's own disk.
    pub(super) fn own(&self, at: usize, key: &[u8]) -> Option<Bytes> {
        self.nodes[at].up.as_ref()?.replica.entry(key).expect("an entry")?.value
    }

    /// A hybrid timestamp of a node that is up.
    pub(super) fn stamp(&mut self, at: usize) -> Option<u64> {
        let wall = self.wall_ms(at);
        let node = &mut self.nodes[at];
        let up = node.up.as_mut().filter(|_| !node.is_paused)?;
        if !up.hybrid.is_bounded(wall) {
            let persist = |bound| {
                node.bound = bound;
                Ok::<_, ()>(())
            };
            up.hybrid.raise(wall, persist).expect("it is only remembered");
        }
        Some(up.hybrid.stamp(wall))
    }

    pub(super) fn wall_ms(&self, at: usize) -> u64 {
        self.now_ms.saturating_add_signed(self.nodes[at].skew_ms)
    }

    pub(super) fn step(&mut self) {
        self.now_ms += self.dice.below(20);
        let at = self.dice.index(self.nodes.len());
        match self.dice.below(100) {
            0..12 => self.client(at),
            12..82 => self.pass_on(),
            82 => self.crash_some(at),
            83..86 => self.wake(at),
            86 | 87 => self.change_network(at),
            88 => self.nodes[at].skew_ms = self.dice.below(8000) as i64 - 4000,
            89 => self.hand_off(at),
            90 | 91 => self.exchange(at),
            92 => self.collect_some(at),
            93 => self.move_some(at),
            94 => self.look_at_floors(at),
            95 => self.hear_of_map(at),
            96 => self.deadline(),
            97 => self.change(),
            _ => {}
        }
    }

    fn change_network(&mut self, at: usize) {
        let other = self.dice.index(self.nodes.len());
        if self.dice.coin() {
            self.cut.clear();
        } else {
            self.cut.insert((at, other));
        }
    }

    /// A node hears of a later map.
    fn hear_of_map(&mut self, at: usize) {
        let latest = self.maps.len() - 1;
        let node = &mut self.nodes[at];
        // One that stands still hears nothing; one that is off will hear when it is back.
        if node.up.is_some() && !node.is_paused && !node.is_gone {
            node.map = if self.dice.coin() { latest } else { latest.min(node.map + 1) };
        }
    }
}
