//! The full rules, searched to the end. The counts stand in `docs/sync-model.md`: a count that moves says that the model has.

use super::rules::{Bounds, Rules};
use super::search::exhaust;

#[test]
fn three_reigns_one_write_each() {
    exhaust("three reigns", Rules::FULL, Bounds::new(3, 1));
}

#[test]
fn two_reigns_two_writes_each() {
    exhaust("two writes a reign", Rules::FULL, Bounds::new(2, 2));
}

/// Records wait in a queue; processes die with it; a disk is lost.
#[test]
fn queue_crash_and_wipe() {
    let bounds = Bounds { queue: true, crashes: 1, wipes: 1, ..Bounds::new(2, 1) };
    exhaust("queue, crash and wipe", Rules::FULL, bounds);
}

#[test]
fn reads_are_linearizable() {
    exhaust("reads", Rules::FULL, Bounds { reads: 2, ..Bounds::new(2, 1) });
}

/// Every run ends with the last nominated manager leading, though a member has died for good before.
#[test]
fn a_nominated_manager_with_a_live_majority_leads() {
    exhaust("liveness", Rules::FULL, Bounds { deaths: 1, items: 1, ..Bounds::new(3, 1) });
}

/// A search as large as the environment says (`MODEL_REIGNS`, `MODEL_WRITES`, `MODEL_ITEMS`, `MODEL_CRASHES`, `MODEL_WIPES`,
/// `MODEL_READS`, `MODEL_DEATHS`, `MODEL_QUEUE`); without it a small one.
#[test]
fn bounds_of_the_environment() {
    let number = |name: &str, default: u8| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let bounds = Bounds {
        items: usize::from(number("MODEL_ITEMS", 8)),
        crashes: number("MODEL_CRASHES", 1),
        wipes: number("MODEL_WIPES", 0),
        reads: number("MODEL_READS", 0),
        deaths: number("MODEL_DEATHS", 0),
        queue: number("MODEL_QUEUE", 0) > 0,
        ..Bounds::new(number("MODEL_REIGNS", 2), number("MODEL_WRITES", 1))
    };
    exhaust("bounds of the environment", Rules::FULL, bounds);
}
