//! The simulator bites: with a rule of the protocol switched off, it finds a seed that breaks a promise.

use kvorum_sim::plan::Plan;
use kvorum_sim::run::{config_of, run, run_with};
use kvorum_sync::{Planted, Rule};

/// Seeds that may be tried for one rule.
const SEEDS_MAX: u64 = 400;

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

// Not here, for `kvorum-sync` has their tests: `StoreNeedsAdoption` and `CommitPointNeedsEpoch`, which no run can meet, since a leader sends items
// and points only to who told it durably that it stands in the reign; `AckNeedsPromise`, `FreshEpochAfterRestart` and `PromiseTriple`, which
// stand behind others that already keep the harm away; and rules of what no client here can see.
rules! {
    ack_before_fsync: AckAfterDurable;
    checkpoint_over_hole: CheckpointStopsAtHole;
    commit_on_minority: Majority;
    delta_after_tombstone_gc: DeltaAboveGcFloor;
    failed_setnx_rests_on_cancelled_write: ReadAfterRests;
    fence_needs_majority: FenceNeedsMajority;
    frozen_basis: FrozenBasis;
    highest_checkpoint: HighestCheckpoint;
    highest_epoch_only: HighestEpochOnly;
    interrupted_items_adopted: AdoptInterrupted;
    keep_confirmed: KeepConfirmed;
    late_duplicate_after_gc: NotStoredBelowCheckpoint;
    late_read_round_answer: RoundAfterArrival;
    leader_counts_itself_when_durable: OwnDurableCounts;
    lease_binds_granter: LeaseBindsGranter;
    lease_grant_forgotten_on_restart: LeaseOutlivesRestart;
    piece_of_this_transfer: PieceOfThisTransfer;
    power_cycle_in_written: CutLogRebuilds;
    promise_deposes: PromiseDeposes;
    promise_overtakes_queued_write: PromiseBehindWrites;
    promise_saved_after_answer: PromiseFirst;
    rebuilding_counts_not: RebuildingCountsNot;
    retract_at_adoption: RetractAtAdoption;
    shipped_table_contains_pending: TransferCeiling;
}
