//! Each rule switched off, alone: the search must find what it prevents.

use super::properties::{CANCELLED, COMMITTED, FRESH, ONE_ITEM, ONE_LEADER, PREFIX, READS_KEPT};
use super::rules::{Bounds, Rules};
use super::search::violation;

/// Anything that a client or an operator would call lost, or two truths.
const SAFETY: &[&str] = &[COMMITTED, ONE_LEADER, PREFIX, CANCELLED, READS_KEPT];

/// The serial alone as op id: a new reign gives the id of an item that was cut off to another one; a member that lands final data before
/// it retracts its own tail erases the namesake, which is committed.
#[test]
fn op_id_reuse_catchup_then_retract() {
    let rules = Rules { unique_op_ids: false, ..Rules::FULL };
    violation("op id given twice", rules, Bounds::new(2, 1), &[ONE_ITEM]);
    violation("op ids reused", rules, Bounds { in_turn: true, ..Bounds::new(3, 1) }, &[COMMITTED, PREFIX]);
}

#[test]
fn basis_remade_in_same_epoch() {
    let rules = Rules { frozen_basis: false, ..Rules::FULL };
    violation("basis re-made", rules, Bounds { items: 1, in_turn: true, ..Bounds::new(3, 1) }, SAFETY);
}

#[test]
fn manager_restart_same_epoch() {
    let rules = Rules { fresh_epoch_after_restart: false, ..Rules::FULL };
    violation(
        "manager restarted in its epoch",
        rules,
        Bounds { crashes: 1, in_turn: true, ..Bounds::new(2, 1) },
        SAFETY,
    );
}

#[test]
fn checkpoint_over_hole() {
    let rules = Rules { checkpoint_within_prefix: false, ..Rules::FULL };
    violation("checkpoint over a hole", rules, Bounds::new(2, 1), SAFETY);
}

#[test]
fn stale_epoch_takes_commit_point() {
    let rules = Rules { commit_point_of_own_epoch: false, ..Rules::FULL };
    violation("commit point of another epoch", rules, Bounds::new(2, 1), SAFETY);
}

#[test]
fn item_stored_before_adoption() {
    let rules = Rules { store_after_adoption: false, ..Rules::FULL };
    violation("item stored before adoption", rules, Bounds::new(2, 1), SAFETY);
}

#[test]
fn commit_on_minority() {
    let rules = Rules { commit_on_majority: false, ..Rules::FULL };
    violation("commit on a minority", rules, Bounds::new(2, 1), SAFETY);
}

#[test]
fn promise_overtakes_queued_write() {
    let rules = Rules { promise_is_barrier: false, ..Rules::FULL };
    violation(
        "promise overtakes a queued write",
        rules,
        Bounds { queue: true, in_turn: true, ..Bounds::new(3, 1) },
        SAFETY,
    );
}

#[test]
fn acknowledged_after_promise() {
    let rules = Rules { promise_is_barrier: false, acknowledge_rechecked: false, ..Rules::FULL };
    violation("acknowledged after a promise", rules, Bounds { queue: true, ..Bounds::new(2, 1) }, SAFETY);
}

#[test]
fn ack_before_fsync() {
    let rules = Rules { acknowledge_durable: false, ..Rules::FULL };
    violation(
        "acknowledged before durable",
        rules,
        Bounds { queue: true, crashes: 1, ..Bounds::new(2, 1) },
        SAFETY,
    );
}

#[test]
fn promise_saved_after_answer() {
    let rules = Rules { promise_before_answer: false, ..Rules::FULL };
    violation("promise saved at adoption", rules, Bounds::new(2, 1), SAFETY);
}

#[test]
fn leader_goes_on_after_promise() {
    let rules = Rules { promise_stops_leader: false, ..Rules::FULL };
    violation("leader goes on after a higher promise", rules, Bounds::new(2, 1), SAFETY);
}

#[test]
fn basis_of_all_epochs() {
    let rules = Rules { highest_epoch_only: false, ..Rules::FULL };
    violation("basis of all epochs", rules, Bounds { in_turn: true, ..Bounds::new(3, 1) }, SAFETY);
}

#[test]
fn retract_takes_final_data() {
    let rules = Rules { retract_spares_final: false, ..Rules::FULL };
    violation("retract of final data", rules, Bounds::new(2, 1), SAFETY);
}

#[test]
fn answer_rests_on_cancelled_read() {
    let rules = Rules { reads_bind: false, ..Rules::FULL };
    violation("reads do not bind", rules, Bounds::new(2, 2), &[READS_KEPT]);
}

#[test]
fn wiped_disk_same_id_votes() {
    let rules = Rules { wiped_is_new: false, ..Rules::FULL };
    violation("a wiped disk votes", rules, Bounds { wipes: 1, ..Bounds::new(2, 1) }, SAFETY);
}

#[test]
fn late_read_round_answer() {
    let rules = Rules { numbered_rounds: false, ..Rules::FULL };
    violation("answer of an earlier round", rules, Bounds { reads: 2, ..Bounds::new(2, 1) }, &[FRESH]);
}
