//! What "the last write wins" can lose, measured: nodes with real hybrid clocks whose wall clocks are off, writers at all of them, messages that
//! take their time. A write is *lost* if it was acknowledged, and a write of the same key that was acknowledged before it even began has the higher
//! timestamp: whoever reads later sees the older value. `docs/available.md` shows the table.

use super::{Order, TRIES};
use crate::clock::HybridClock;
use kvorum_engine::fs::sim::Dice;
use kvorum_model::slot;
use kvorum_sync::StoreId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

const BASE_MS: u64 = 1_800_000_000_000;
const KEYS: u64 = 100;
const WRITES: u64 = 20_000;
/// One write in a millisecond: each key about every 100 ms.
const EVERY_MICROS: u64 = 1000;

#[derive(Debug, Clone, Copy)]
struct Setup {
    nodes: usize,
    ack: usize,
    from: usize,
    /// The clocks are off by up to so much, to both sides.
    skew_ms: i64,
    /// The first node can't reach the others, nor they it.
    is_cut: bool,
}

#[derive(Debug, Default, PartialEq)]
struct Measured {
    acknowledged: u64,
    /// Lost to a write that was acknowledged before they began.
    lost: u64,
    /// Tried again, because a higher version was there.
    again: u64,
    /// Overwritten by a write that ran at the same time.
    concurrent: u64,
}

struct Write {
    key: u64,
    node: usize,
    version: u64,
    began: u64,
    acknowledged: Option<u64>,
    answers: usize,
    newer: bool,
    /// Which try it is: answers to earlier ones count no more.
    tries: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Begins(usize),
    Arrives { write: usize, replica: usize, version: u64, tries: usize },
    Answers { write: usize, newer: u64, tries: usize },
}

struct Model {
    setup: Setup,
    dice: Dice,
    now: u64,
    clocks: Vec<HybridClock>,
    stored: Vec<BTreeMap<u64, u64>>,
    writes: Vec<Write>,
    replicas: Vec<Vec<usize>>,
    /// Events by their time and number.
    coming: BinaryHeap<Reverse<(u64, u64, Event)>>,
    events: u64,
}

impl Model {
    fn new(setup: Setup) -> Model {
        let names: Vec<String> = (0..setup.nodes).map(|node| format!("n{node}")).collect();
        let order = Order::of(names.iter().enumerate().map(|(at, name)| (StoreId(at as u64), name.as_str())));
        let replicas = |key: u64| {
            let order = order.of_slot(slot(format!("key{key}").as_bytes()));
            order.into_iter().take(setup.from).map(|store| store.0 as usize).collect()
        };
        Model {
            setup,
            dice: Dice::new(1),
            now: 0,
            clocks: (0..setup.nodes).map(|node| HybridClock::new(node as u64, 0)).collect(),
            stored: vec![BTreeMap::new(); setup.nodes],
            writes: Vec::new(),
            replicas: (0..KEYS).map(replicas).collect(),
            coming: BinaryHeap::new(),
            events: 0,
        }
    }

    fn run(mut self) -> Measured {
        for number in 0..WRITES {
            let at = number * EVERY_MICROS + self.dice.below(EVERY_MICROS);
            let (key, node) = (self.dice.below(KEYS), self.dice.index(self.setup.nodes));
            let write = Write {
                key,
                node,
                version: 0,
                began: at,
                acknowledged: None,
                answers: 0,
                newer: false,
                tries: 0,
            };
            self.writes.push(write);
            self.schedule(at, Event::Begins(number as usize));
        }
        while let Some(Reverse((at, _, event))) = self.coming.pop() {
            self.now = at;
            self.step(event);
        }
        self.measure()
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.events += 1;
        self.coming.push(Reverse((at, self.events, event)));
    }

    /// A message takes 0.2 to 1 ms; to the node itself 0.02.
    fn send(&mut self, from: usize, to: usize, event: Event) {
        let takes = if from == to { 20 } else { 200 + self.dice.below(800) };
        if !self.setup.is_cut || (from == 0) == (to == 0) {
            self.schedule(self.now + takes, event);
        }
    }

    fn wall_ms(&self, node: usize) -> u64 {
        let (last, skew) = (self.setup.nodes as i64 - 1, self.setup.skew_ms);
        (BASE_MS + self.now / 1000).saturating_add_signed(2 * skew * node as i64 / last - skew)
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Begins(write) => {
                let Write { key, node, .. } = self.writes[write];
                let version = self.clocks[node].stamp(self.wall_ms(node));
                let begun = &mut self.writes[write];
                (begun.version, begun.answers, begun.newer) = (version, 0, false);
                begun.tries += 1;
                let tries = begun.tries;
                for replica in self.replicas[key as usize].clone() {
                    self.send(node, replica, Event::Arrives { write, replica, version, tries });
                }
            }
            Event::Arrives { write, replica, version, tries } => {
                let Write { key, node, .. } = self.writes[write];
                self.clocks[replica].observe(version);
                let stored = self.stored[replica].entry(key).or_default();
                let newer = if *stored > version { *stored } else { 0 };
                *stored = version.max(*stored);
                self.send(replica, node, Event::Answers { write, newer, tries });
            }
            Event::Answers { write: number, newer, tries } => {
                let (ack, now) = (self.setup.ack, self.now);
                let write = &mut self.writes[number];
                self.clocks[write.node].observe(newer);
                if write.tries != tries || write.acknowledged.is_some() {
                    return;
                }
                write.answers += 1;
                write.newer |= newer > 0;
                if write.answers == ack && write.newer && tries < TRIES {
                    self.schedule(now, Event::Begins(number));
                } else if write.answers == ack {
                    write.acknowledged = Some(now);
                }
            }
        }
    }

    fn measure(&self) -> Measured {
        let mut measured = Measured::default();
        let mut of_key: BTreeMap<u64, Vec<&Write>> = BTreeMap::new();
        for write in self.writes.iter().filter(|write| write.acknowledged.is_some()) {
            of_key.entry(write.key).or_default().push(write);
        }
        for (write, all) in of_key.values().flat_map(|all| all.iter().map(move |write| (write, all))) {
            measured.acknowledged += 1;
            measured.again += u64::from(write.tries > 1);
            let same = || all.iter().copied();
            let wins = |other: &&Write| other.version > write.version;
            let older = |other: &Write| other.acknowledged.is_some_and(|at| at < write.began);
            let is_over = write.acknowledged.unwrap_or_default();
            if same().filter(wins).any(older) {
                measured.lost += 1;
            } else if same().filter(wins).any(|other| other.began < is_over) {
                measured.concurrent += 1;
            }
        }
        measured
    }
}

/// The lines of the table.
fn table() -> Vec<String> {
    let mut lines = Vec::new();
    for (nodes, ack, from, is_cut) in [(3, 2, 3, false), (5, 2, 3, false), (3, 1, 3, true), (5, 1, 3, true)] {
        for skew_ms in [0, 10, 100, 1000] {
            let measured = Model::new(Setup { nodes, ack, from, skew_ms, is_cut }).run();
            let share = |count: u64| format!("{:.2} %", 100.0 * count as f64 / measured.acknowledged as f64);
            lines.push(format!(
                "| {nodes} | {ack}/{from} | {} | ± {skew_ms} ms | {} | {} | {} | {} |",
                if is_cut { "one node cut off" } else { "whole" },
                measured.acknowledged,
                share(measured.again),
                share(measured.lost),
                share(measured.concurrent),
            ));
        }
    }
    lines
}

#[test]
fn the_page_shows_what_is_lost() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/available.md");
    let page = std::fs::read_to_string(page).unwrap();
    let told: BTreeSet<&str> = page.lines().collect();
    let table = table();
    let missing: Vec<&String> = table.iter().filter(|line| !told.contains(line.as_str())).collect();
    assert!(missing.is_empty(), "the page lacks:\n{}", table.join("\n"));
}

#[test]
fn quorums_that_overlap_lose_nothing_to_older_writes_whatever_the_clocks_say() {
    for (nodes, ack, from, skew_ms) in [(3, 3, 3, 1000), (5, 2, 3, 0), (5, 2, 3, 1000), (5, 1, 1, 1000)] {
        let setup = Setup { nodes, ack, from, skew_ms, is_cut: false };
        assert_eq!(Model::new(setup).run().lost, 0, "{setup:?}");
    }
    let far = Setup { nodes: 5, ack: 1, from: 3, skew_ms: 1000, is_cut: true };
    assert!(Model::new(far).run().lost > 0, "what is cut off can't be seen");
}
