//! The simulator bites: with a rule of the protocol switched off, it finds a seed that breaks a promise.

use kvorum_sim::plan::Plan;
use kvorum_sim::run::{config_of, run, run_with};
use kvorum_sync::{Planted, Rule};

/// Seeds that may be tried for one rule.
const SEEDS_MAX: u64 = 4_000;

/// Runs seeds without the rule until one fails; panics if none does.
fn caught(rule: Rule) {
    for seed in 1..=SEEDS_MAX {
        let plan = Plan::of(seed);
        let mut config = config_of(&plan);
        config.planted = Planted::default().without(rule);
        if let Some(failure) = run_with(&plan, config, false).failure {
            if run(&plan, false).failure.is_some() {
                // It fails with all rules on: that is for the swarm to tell.
                continue;
            }
            println!("{rule:?} off: seed {seed}: {}", failure.lines().next().unwrap_or_default());
            return;
        }
    }
    panic!("{rule:?} switched off, and {SEEDS_MAX} seeds did not notice");
}

macro_rules! rules {
    ($($name:ident: $rule:ident;)*) => {
        $(#[test]
        fn $name() {
            caught(Rule::$rule);
        })*
    };
}

rules! {
    ack_before_fsync: AckAfterDurable;
    checkpoint_over_hole: CheckpointStopsAtHole;
    commit_on_minority: Majority;
    delta_after_tombstone_gc: DeltaAboveGcFloor;
    failed_setnx_rests_on_cancelled_write: ReadAfterRests;
    frozen_basis: FrozenBasis;
    highest_checkpoint: HighestCheckpoint;
    interrupted_items_adopted: AdoptInterrupted;
    late_duplicate_after_gc: NotStoredBelowCheckpoint;
    late_read_round_answer: RoundAfterArrival;
    leader_counts_itself_when_durable: OwnDurableCounts;
    promise_deposes: PromiseDeposes;
    promise_saved_after_answer: PromiseFirst;
    retract_at_adoption: RetractAtAdoption;
    shipped_table_contains_pending: TransferCeiling;
}
