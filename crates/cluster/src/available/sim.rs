//! Whole clusters of replicas over simulated disks: partitions, skewed clocks, power loss, a wiped disk. When the faults end, replicas are equal, and
//! no acknowledged write is lost that no later one overwrote. `SEED=n` runs one seed, `SEEDS=n` so many.

mod change;
mod check;
mod client;
mod matrix;
mod mending;
mod stories;
mod traffic;
mod world;

use super::floors::{Heard, Told, away};
use super::hints::{Hint, Hints};
use super::planted::{Fault, is_planted, plant};
use super::replica::{Refusal, Replica, Sources};
use super::standing::{Moment, Standing};
use super::touch::Touch;
use super::wire::{Head, decode_answer, decode_ask, encode_answer, encode_ask};
use super::*;
use crate::clock::HybridClock;
use crate::namespace::{Mode, NamespaceId};
use crate::system::System;
use crate::testing::TestClock;
use change::Change;
use kvorum_engine::fs::sim::{Dice, SimFs};
use kvorum_engine::{Durability, Parts, Settings, Store, TreeSettings};
use kvorum_sync::StoreId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use world::World;

/// Seeds of an ordinary run.
const SEEDS: u64 = 12;

/// Seeds that are tried to catch a fault.
const PLANTED_SEEDS: u64 = 60;

/// What happens before the faults end.
const STEPS: u64 = 2500;

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse().ok());
    number("SEED").map_or_else(|| (0..number("SEEDS").unwrap_or(SEEDS)).collect(), |seed| vec![seed])
}

#[test]
fn what_was_acknowledged_survives_and_replicas_become_equal() {
    let mut moved = 0;
    let mut delivered = 0;
    for seed in seeds() {
        println!("seed {seed}");
        let mut world = World::new(seed, 3 + (seed % 3) as usize, seed % 4 == 3);
        for _ in 0..STEPS {
            world.step();
        }
        world.heal();
        world.check();
        moved += world.moved;
        delivered += world.delivered;
        assert!(world.acknowledged > 30, "seed {seed}: the cluster hardly ever answered");
    }
    if seeds().len() > 1 {
        assert!(moved > 0 && delivered > 0, "the faults left nothing to mend: {moved} {delivered}");
    }
}

#[test]
fn what_was_acknowledged_survives_while_nodes_come_lose_their_disks_leave_and_sleep() {
    let mut grown = 0;
    for seed in seeds() {
        println!("seed {seed}");
        let mut world = World::changing(seed);
        (0..STEPS).for_each(|_| world.step());
        world.heal();
        world.check();
        assert!(world.acknowledged > 10, "seed {seed}: the cluster hardly ever answered");
        grown += world.nodes.len() - 3;
    }
    if seeds().len() > 1 {
        assert!(grown > 0, "no node came");
    }
}

#[test]
fn what_was_acknowledged_survives_partitions_longer_than_the_grace() {
    let (mut cut, mut doubted) = (0, 0);
    for seed in seeds() {
        println!("seed {seed}");
        let mut world = World::parting(seed);
        (0..STEPS).for_each(|_| world.step());
        cut += u64::from(world.changes.is_empty());
        world.heal();
        world.check();
        doubted += world.doubted;
    }
    if seeds().len() > 1 {
        assert!(cut > 0 && doubted > 0, "no partition was that long: {cut} {doubted}");
    }
}

/// Power fails everywhere as soon as a write is acknowledged.
fn cut_power(seed: u64) {
    let mut world = World::new(seed, 3, false);
    // A restart may find its clock 10 s ahead: a few do not reach what others refuse.
    for number in 0..4 {
        let (key, value) = (Bytes::from(format!("key{number}")), Some(Bytes::from_static(b"kept")));
        assert!(world.put(0, &key, value.clone(), 1, 1).is_some());
        (0..3).for_each(|at| world.down(at));
        (0..3).for_each(|at| world.up(at));
        assert_eq!(world.get(1, &key, 1, 1), Some(value), "seed {seed}: {key:?}");
    }
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    (0..4).for_each(cut_power);
}

/// A life of each kind.
fn live(seed: u64) {
    if seed == 0 {
        stories::each_story_ends_well();
    }
    cut_power(seed);
    let common = World::new(seed, 3 + (seed % 3) as usize, seed % 2 == 1);
    let mut worlds = [common, World::changing(seed), World::parting(seed)];
    for world in &mut worlds {
        (0..STEPS).for_each(|_| world.step());
        world.heal();
        world.check();
    }
}

#[test]
fn each_planted_fault_is_caught() {
    let is_caught = |fault| {
        (0..PLANTED_SEEDS).any(|seed| {
            let life = std::panic::catch_unwind(|| {
                plant(Some(fault));
                live(seed);
            });
            plant(None);
            life.is_err()
        })
    };
    // `FAULT=name` tries one.
    let only = std::env::var("FAULT").ok();
    let is_tried = |fault: &Fault| only.as_ref().is_none_or(|only| *only == format!("{fault:?}"));
    let missed: Vec<Fault> =
        Fault::ALL.into_iter().filter(is_tried).filter(|fault| !is_caught(*fault)).collect();
    assert!(missed.is_empty(), "nothing shows {missed:?}");
}

#[test]
fn one_seed_is_one_life() {
    let lives = [0, 0].map(|seed| {
        let mut world = World::new(seed, 3, false);
        for _ in 0..300 {
            world.step();
        }
        (world.acknowledged, world.trace)
    });
    assert_eq!(lives[0], lives[1]);
}
