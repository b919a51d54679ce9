//! The real engine through many lives on a device that loses power, by seed.
//!
//! A life opens the store, writes, flushes, compacts, raises floors, makes and drops trees; then the machine goes off in the middle of some
//! operation, or the process is killed, or devices fail, lie, or are slow. The next life must find everything that was acknowledged in its class and of the rest
//! a beginning, batch by batch, over all trees. Between lives bits flip on copies of the device, which must be found or be harmless. `SEED=n` replays one seed, `SEEDS=n` runs more.

mod check;
mod model;
mod rot;
mod slow;
mod world;

use kvorum_engine::fs::sim::Dice;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

/// Seeds of an ordinary run.
const SEEDS: u64 = 800;
/// Lives of a seed, the last one in peace.
const LIVES: usize = 5;

/// The seeds to run, as the environment says.
pub(crate) fn seeds(default: u64) -> Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(default),
    }
}

/// Runs all lives of a seed; panics where a promise is broken.
pub(crate) fn run(seed: u64) {
    let mut world = World::new(Dice::new(seed));
    for _ in 1..LIVES {
        world.live();
    }
    world.live_in_peace();
}

/// As [`run`]; whether all promises held.
pub(crate) fn holds(seed: u64) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(seed))).is_ok()
}

#[test]
fn every_acknowledged_write_survives() {
    for seed in seeds(SEEDS) {
        assert!(holds(seed), "a promise was broken: replay with SEED={seed}");
    }
}
