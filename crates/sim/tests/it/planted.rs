//! The simulator bites: with a rule of the protocol switched off, it finds a seed that breaks a promise.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kvorum_cluster::shard::{MemberConfig, MemberRule};
use kvorum_sim::cluster::{self, Duties};
use kvorum_sim::plan::Plan;
use kvorum_sim::run::{config_of, run, run_with};
use kvorum_sync::{Planted, Rule};

/// Seeds that may be tried for one rule.
const SEEDS_MAX: u64 = 400;

/// Seeds of whole members that may be tried; `MEMBER_SEEDS=n` tries more.
const MEMBER_SEEDS_MAX: u64 = 2500;

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

/// Runs seeds of whole members, with something wrong in their settings or in their nodes, until one fails; panics if none does.
fn caught_in_cluster(wrong: &str, plant: impl Fn(&mut MemberConfig, &mut Duties)) {
    let asked = std::env::var("MEMBER_SEEDS").ok().and_then(|text| text.parse().ok());
    for seed in 1..=asked.unwrap_or(MEMBER_SEEDS_MAX) {
        let plan = cluster::plan_of(seed);
        let (mut config, mut duties) = (cluster::config_of(&plan), Duties::default());
        plant(&mut config, &mut duties);
        // A rule that is switched off may also show by what the store or the core asserts.
        let fails = || cluster::run_with(&plan, config, duties, false).failure;
        let failure = catch_unwind(AssertUnwindSafe(fails)).unwrap_or_else(|_| Some("a panic".to_owned()));
        if let Some(failure) = failure {
            if cluster::run_plan(&plan, false).failure.is_some() {
                continue;
            }
            println!("{wrong}: seed {seed}: {}", failure.lines().next().unwrap_or_default());
            return;
        }
    }
    panic!("{wrong}, and {MEMBER_SEEDS_MAX} seeds did not notice");
}

macro_rules! member_rules {
    ($($name:ident: $rule:ident;)*) => {
        $(#[test]
        fn $name() {
            let wrong = format!("{:?} off", MemberRule::$rule);
            caught_in_cluster(&wrong, |config, _| config.planted = config.planted.without(MemberRule::$rule));
        })*
    };
}

macro_rules! duties {
    ($($name:ident: $duty:ident;)*) => {
        $(#[test]
        fn $name() {
            caught_in_cluster(concat!(stringify!($duty), " not done"), |_, duties| duties.$duty = false);
        })*
    };
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

// Of a member over the real engine.
member_rules! {
    adopted_values: AdoptValues;
    answer_before_durable: AnswerAfterDurable;
    deposed_clients_told_early: DeposedClientsWait;
    goes_on_after_refusal: HaltWhenRefused;
    pending_read_waits_not: PendingUntilCommitted;
    retracted_by_name_only: RetractValues;
    tail_forgotten_at_open: TailFromNotes;
    time_falls: TimeNeverFalls;
}

// Of the node around it.
duties! {
    durable_told_too_early: syncs_before_durable;
    lost_batch_not_told: tells_of_lost_batch;
    read_answered_unconfirmed: waits_for_reads;
    follower_reads_own_view: reads_named_view;
}
