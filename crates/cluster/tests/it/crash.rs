//! Power failures and kills at any operation of the disk, by seed: what was acknowledged is there, nothing is there by half, no op id comes twice.
//!
//! `SEED=7 cargo test -p kvorum-cluster --test it crash` repeats one run, `SEEDS=1000` runs more of them.

use crate::support::{Client, TestClock, Words, show, try_open};
use kvorum_cluster::{Durability, Node, NodeSettings};
use kvorum_engine::fs::sim::SimFs;
use kvorum_model::Reply;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The state that a client believes in.
type State = BTreeMap<String, String>;

#[derive(Debug, Clone)]
enum Command {
    Set(usize, String),
    Append(usize, String),
    Increment(usize),
    Delete(usize, usize),
    SetBoth(usize, usize, String),
    Get(usize),
    Flush,
}

impl Command {
    fn random(dice: &mut fastrand::Rng) -> Command {
        let key = dice.usize(0..24);
        let other = dice.usize(0..24);
        let length = if dice.u8(0..8) == 0 { dice.usize(0..6000) } else { dice.usize(0..20) };
        let value = std::iter::repeat_with(|| dice.alphanumeric()).take(length).collect();
        match dice.u8(0..40) {
            0 => Command::Flush,
            1..12 => Command::Set(key, value),
            12..16 => Command::Append(key, value),
            16..24 => Command::Increment(24 + key % 4),
            24..28 => Command::Delete(key, other),
            28..34 => Command::SetBoth(key, other, value),
            _ => Command::Get(key),
        }
    }

    fn words(&self) -> Words {
        let words = match self {
            Command::Set(at, value) => vec!["SET".into(), name(*at), value.clone()],
            Command::Append(at, value) => vec!["APPEND".into(), name(*at), value.clone()],
            Command::Increment(at) => vec!["INCR".into(), name(*at)],
            Command::Delete(one, two) => vec!["DEL".into(), name(*one), name(*two)],
            Command::SetBoth(one, two, value) => {
                vec!["MSET".into(), name(*one), value.clone(), name(*two), value.clone()]
            }
            Command::Get(at) => vec!["GET".into(), name(*at)],
            Command::Flush => vec!["FLUSHDB".to_owned()],
        };
        words.into_iter().map(String::into_bytes).collect()
    }

    /// What it does and answers.
    fn apply(&self, state: &mut State) -> String {
        match self {
            Command::Set(at, value) => {
                state.insert(name(*at), value.clone());
                "OK".into()
            }
            Command::Append(at, value) => {
                let whole = state.entry(name(*at)).or_default();
                whole.push_str(value);
                whole.len().to_string()
            }
            Command::Increment(at) => {
                let number = state.entry(name(*at)).or_insert_with(|| "0".into());
                *number = (number.parse::<u64>().unwrap() + 1).to_string();
                number.clone()
            }
            Command::Delete(one, two) => {
                let gone = [one, two].into_iter().filter(|at| state.remove(&name(**at)).is_some());
                gone.count().to_string()
            }
            Command::SetBoth(one, two, value) => {
                state.insert(name(*one), value.clone());
                state.insert(name(*two), value.clone());
                "OK".into()
            }
            Command::Get(at) => state.get(&name(*at)).cloned().unwrap_or_else(|| "nil".into()),
            Command::Flush => {
                state.clear();
                "OK".into()
            }
        }
    }
}

fn name(at: usize) -> String {
    format!("key:{at}")
}

struct World {
    dice: fastrand::Rng,
    fs: SimFs,
    settings: NodeSettings,
    clock: Arc<TestClock>,
    /// All states that the next start may find.
    possible: Vec<State>,
    highest_version: u64,
    /// Buffers that were acknowledged, and ends in the middle of one.
    acknowledged: usize,
    broken: usize,
    trace: String,
}

impl World {
    fn new(seed: u64) -> World {
        let mut settings = NodeSettings::new("/data");
        settings.memory_bytes = 1 << 20;
        let mut dice = fastrand::Rng::with_seed(seed);
        settings.durability = if dice.bool() { Durability::Synced } else { Durability::Written };
        let fs = SimFs::new(seed);
        World {
            dice,
            fs,
            settings,
            clock: TestClock::new(),
            possible: vec![State::new()],
            highest_version: 0,
            acknowledged: 0,
            broken: 0,
            trace: format!("seed {seed}"),
        }
    }

    /// A start, some work, and an end of whatever kind.
    fn live(&mut self) {
        let end = self.fs.operations() + self.dice.u64(1..400);
        self.fs.off_at(end);
        self.fs.set_cold_reads(self.dice.u64(0..4));
        if let Ok(node) = try_open(&self.settings, &self.clock, Arc::new(self.fs.clone())) {
            self.check(&node);
            self.work(&node);
        }
        let power_lost = self.settings.durability == Durability::Synced && self.dice.bool();
        self.fs = if power_lost { self.fs.after_power_loss() } else { self.fs.after_kill() };
    }

    fn check(&mut self, node: &Node) {
        let mut client = Client::new(node);
        let Ok(replies) = client.try_pipeline(&[vec![b"KEYS".to_vec(), b"*".to_vec()]]) else { return };
        let Reply::Array(keys) = &replies[0] else { return };
        let mut found = State::new();
        for key in keys.iter().map(show) {
            let Ok(replies) = client.try_pipeline(&[vec![b"GET".to_vec(), key.clone().into_bytes()]]) else {
                return;
            };
            let Reply::Bulk(value) = &replies[0] else { return };
            found.insert(key, value.escape_ascii().to_string());
        }
        assert!(
            self.possible.contains(&found),
            "{}: found {found:?}, possible {:?}",
            self.trace,
            self.possible
        );
        self.possible = vec![found];
        let words = vec![b"SETV".to_vec(), b"version".to_vec(), b"1".to_vec()];
        let delete = vec![b"DEL".to_vec(), b"version".to_vec()];
        if let Ok(replies) = client.try_pipeline(&[words, delete])
            && let Reply::Bulk(version) = &replies[0]
        {
            let version = std::str::from_utf8(version).unwrap().parse().unwrap();
            assert!(
                version > self.highest_version,
                "{}: {version} after {}",
                self.trace,
                self.highest_version
            );
            self.highest_version = version;
        } else {
            // Written in part, perhaps: the key is in no model state.
            let state = self.possible[0].clone();
            self.possible
                .push(State::from_iter(state.into_iter().chain([("version".to_owned(), "1".to_owned())])));
        }
    }

    fn work(&mut self, node: &Node) {
        let mut client = Client::new(node);
        while !self.fs.is_off() {
            let commands: Vec<_> =
                (0..self.dice.usize(1..8)).map(|_| Command::random(&mut self.dice)).collect();
            let words: Vec<_> = commands.iter().map(Command::words).collect();
            let mut states = vec![self.possible[0].clone()];
            let mut expected = Vec::new();
            for command in &commands {
                let mut state = states[states.len() - 1].clone();
                expected.push(command.apply(&mut state));
                states.push(state);
            }
            let as_one = self.dice.u8(0..4) == 0;
            let replies = if as_one {
                states = vec![states[0].clone(), states[states.len() - 1].clone()];
                client.try_exec(&words).map(|replies| replies.unwrap())
            } else {
                client.try_pipeline(&words)
            };
            let whole = replies.is_ok_and(|replies| {
                let texts: Vec<_> = replies.iter().map(show).collect();
                let refused = texts.iter().any(|text| text.starts_with('-'));
                assert!(refused || texts == expected, "{}: {commands:?} answered {texts:?}", self.trace);
                !refused
            });
            if !whole {
                self.broken += 1;
                self.possible = states;
                return;
            }
            self.possible = vec![states.swap_remove(states.len() - 1)];
            self.acknowledged += 1;
            self.clock.add(self.dice.u64(0..700));
            let _ = match self.dice.u8(0..12) {
                0 => node.upkeep(),
                1 => node.flush(),
                2..5 => node.run_background().map(|_| ()),
                _ => Ok(()),
            };
        }
    }
}

#[test]
fn lives_that_end_at_any_operation() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(60),
    };
    let (mut acknowledged, mut broken, one) = (0, 0, seeds.end - seeds.start == 1);
    for seed in seeds {
        println!("SEED={seed}");
        let mut world = World::new(seed);
        for _ in 0..6 {
            world.live();
        }
        acknowledged += world.acknowledged;
        broken += world.broken;
    }
    println!("{acknowledged} buffers acknowledged, {broken} broken off");
    assert!(one || (acknowledged > 500 && broken > 50), "the runs show too little");
}
