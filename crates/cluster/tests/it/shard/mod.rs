//! Members over the real engine, on machines that crash and lose power, with a network that loses, repeats and overtakes. When the faults end all
//! members must come to the same, and nothing acknowledged may be lost.
//!
//! `SEED=7 cargo test -p kvorum-cluster --test it shard` repeats one run, `SEEDS=1000` runs more of them.

mod client;
mod directed;
mod group;
mod node;

use group::{Group, Met};
use node::Shown;

/// Turns with faults, and at most so many until all is well.
const TURNS: usize = 2500;
const TURNS_TO_HEAL_MAX: usize = 60_000;

fn seeds(default: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    match number("SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SEEDS").unwrap_or(default)).collect(),
    }
}

/// How a run goes wrong.
#[derive(Clone, Copy)]
struct Faults {
    /// One in so many turns.
    crash: u32,
    unsettle: u32,
    wipe: u32,
    /// Microseconds.
    down_max: u64,
}

fn run(seed: u64, faults: Faults) -> Met {
    let mut group = Group::new(seed);
    for _ in 0..TURNS {
        group.turn();
        if group.dice.u8(..6) == 0 {
            group.write();
        }
        let at = group.dice.usize(..group.nodes.len());
        let up = group.nodes.iter().filter(|node| node.process.is_some()).count();
        if group.dice.u32(..faults.crash) == 0 && up > 1 && group.nodes[at].process.is_some() {
            let (power, micros) = (group.dice.bool(), group.dice.u64(5_000..faults.down_max));
            group.crash(at, power, micros);
        }
        if group.dice.u32(..faults.unsettle) == 0 {
            group.unsettle();
        }
        // Only one place at a time is empty: more would be more than a group of three survives.
        if faults.wipe > 0 && group.dice.u32(..faults.wipe) == 0 && !group.is_changing() && up == 3 {
            group.wipe(at);
        }
    }
    heal(&mut group, seed);
    check(&group);
    group.met
}

fn heal(group: &mut Group, seed: u64) {
    group.healed = true;
    group.nodes.iter_mut().for_each(|node| node.down_until = 0);
    for turn in 0..TURNS_TO_HEAL_MAX {
        group.turn();
        if turn % 512 == 0 && turn < 2048 {
            group.write();
        }
        if turn > 2048 && group.is_settled() {
            return;
        }
    }
    panic!("seed {seed} does not settle: {}", group.describe());
}

fn check(group: &Group) {
    let shown: Vec<Shown> = group.nodes.iter().map(|node| node.process.as_ref().unwrap().shown()).collect();
    let digests: Vec<_> = group.nodes.iter().map(|node| node.member().unwrap().checkpoint()).collect();
    for (at, node) in group.nodes.iter().enumerate() {
        for (key, version, _) in shown[at].iter().chain(&shown[0]) {
            let has = |shown: &Shown| shown.iter().any(|(of, v, _)| of == key && v == version);
            let one = (has(&shown[at]), has(&shown[0]));
            let writers = || group.client.writers(key);
            assert_eq!(one, (true, true), "{} and {}, {version}: {}", node.id, group.nodes[0].id, writers());
        }
        assert_eq!(shown[at], shown[0], "{} holds something else than {}", node.id, group.nodes[0].id);
        assert_eq!(digests[at], digests[0], "{} and {} differ", node.id, group.nodes[0].id);
    }
    group.client.check(&shown[0]);
}

fn run_all(name: &str, seeds: &[u64], faults: Faults) -> Met {
    let mut met = Met::default();
    for seed in seeds {
        let of_run = std::panic::catch_unwind(|| run(*seed, faults));
        let of_run =
            of_run.unwrap_or_else(|_| panic!("`SEED={seed} cargo test -p kvorum-cluster --test it {name}`"));
        met.items += of_run.items;
        met.delta += of_run.delta;
        met.files += of_run.files;
        met.installed += of_run.installed;
        met.committed += of_run.committed;
        met.cancelled += of_run.cancelled;
        met.replaced += of_run.replaced;
        met.fenced += of_run.fenced;
        met.restarts_while_receiving += of_run.restarts_while_receiving;
    }
    eprintln!("{name}: {} seeds, {met:?}", seeds.len());
    met
}

#[test]
fn leaders_change_and_machines_crash() {
    let seeds = seeds(80);
    let faults = Faults { crash: 200, unsettle: 400, wipe: 0, down_max: 60_000 };
    let met = run_all("leaders_change_and_machines_crash", &seeds, faults);
    assert!(met.committed > 0);
    if seeds.len() > 40 {
        assert!(met.cancelled > 0 && met.items > 0, "{met:?}");
    }
}

#[test]
fn who_was_away_for_long_is_caught_up() {
    let seeds = seeds(80);
    let faults = Faults { crash: 500, unsettle: 900, wipe: 0, down_max: 400_000 };
    let met = run_all("who_was_away_for_long_is_caught_up", &seeds, faults);
    if seeds.len() > 40 {
        assert!(met.delta > 0 && met.files > 0 && met.installed > 0, "{met:?}");
        assert!(met.restarts_while_receiving > 0, "{met:?}");
    }
}

#[test]
fn a_wiped_machine_comes_back_as_a_learner() {
    let seeds = seeds(60);
    let faults = Faults { crash: 900, unsettle: 1500, wipe: 900, down_max: 60_000 };
    let met = run_all("a_wiped_machine_comes_back_as_a_learner", &seeds, faults);
    if seeds.len() > 40 {
        assert!(met.replaced > 0 && met.installed > 0, "{met:?}");
    }
}
