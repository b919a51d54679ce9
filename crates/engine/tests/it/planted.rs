//! The tests bite: each planted bug is caught within a bounded number of seeds. Run with `--features planted-bugs`.

use crate::atomic::half_a_batch_is_seen;
use crate::crash::holds;
use kvorum_engine::{Planted, plant};

/// Seeds within which the crash test must catch a bug.
const SEEDS: u64 = 2000;
/// Batches within which a reader must see half of one.
const BATCHES: u64 = 100_000;

/// The first seed with which the crash test catches the bug.
fn caught_at(bug: Planted) -> Option<u64> {
    plant(Some(bug));
    let caught = (0..SEEDS).find(|&seed| !holds(seed));
    plant(None);
    caught
}

fn must_be_caught(bugs: &[Planted]) {
    let caught: Vec<_> = bugs.iter().map(|&bug| (bug, caught_at(bug))).collect();
    println!("{caught:?}");
    let missed: Vec<_> = caught.iter().filter(|(_, seed)| seed.is_none()).collect();
    assert!(missed.is_empty(), "not caught within {SEEDS} seeds: {missed:?}");
}

#[test]
fn bugs_of_the_log_are_caught() {
    must_be_caught(&[
        Planted::AcknowledgedBeforeSync,
        Planted::SegmentFreedTooEarly,
        Planted::SegmentLeftUnsynced,
        Planted::ReplayedNotMadeDurable,
        Planted::SegmentFolderNotSynced,
        Planted::HalfBatchReplayed,
        Planted::ServesAfterPoison,
    ]);
}

#[test]
fn bugs_of_flush_and_manifest_are_caught() {
    must_be_caught(&[
        Planted::TableFolderNotSynced,
        Planted::TableNotSynced,
        Planted::OtherTreesForgotten,
        Planted::TableBeforeLog,
        Planted::EditNotSynced,
        Planted::CurrentNotSynced,
        Planted::OrphansStay,
    ]);
}

#[test]
fn bugs_of_compaction_are_caught() {
    must_be_caught(&[
        Planted::InputsRemovedEarly,
        Planted::TombstoneDroppedTooEarly,
        Planted::RetractDroppedTooEarly,
        Planted::LateBitCleared,
    ]);
}

#[test]
fn a_batch_that_is_published_too_early_is_seen() {
    assert!(half_a_batch_is_seen(BATCHES, || plant(Some(Planted::PublishedTooEarly))));
}
