//! Known bugs, planted to show that the tests bite.
//!
//! Each stands in the code as one condition that is constantly false, and compiled away, without the test-only feature `planted-bugs`. With it
//! a test switches one on for its own thread.

#[cfg(feature = "planted-bugs")]
use std::cell::Cell;

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("planted bugs are for tests: no release has them");

/// A bug that the engine could have.
#[cfg_attr(not(feature = "planted-bugs"), expect(unreachable_pub, reason = "public with the feature"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Planted {
    /// A new table's folder is not synced before an edit names the table.
    TableFolderNotSynced,
    /// A table is installed before its bytes are durable.
    TableNotSynced,
    /// A group of the log counts as synced when it is only written.
    AcknowledgedBeforeSync,
    /// A log segment is freed while a record in it is still needed.
    SegmentFreedTooEarly,
    /// A flush does not ask what other trees still need of the log.
    OtherTreesForgotten,
    /// The log goes on to the next segment before the one before is synced.
    SegmentLeftUnsynced,
    /// A group says that everything before it is durable, when it is only written.
    DurabilityOverstated,
    /// What recovery replayed is built upon without being made durable.
    ReplayedNotMadeDurable,
    /// A log segment's name is not made durable.
    SegmentFolderNotSynced,
    /// A flush writes tables of what is not in the log yet.
    TableBeforeLog,
    /// An edit of the file set counts before it is durable.
    EditNotSynced,
    /// `CURRENT` names a manifest before its bytes are durable.
    CurrentNotSynced,
    /// Reads see what failed to become durable.
    ServesAfterPoison,
    /// What no edit names stays in the folder.
    OrphansStay,
    /// A compaction removes its inputs before the edit that replaces them is durable.
    InputsRemovedEarly,
    /// A compaction drops tombstones that still hide something.
    TombstoneDroppedTooEarly,
    /// A flush or compaction drops retract markers whose target lies deeper.
    RetractDroppedTooEarly,
    /// A flush or compaction clears late bits of entries over something newer.
    LateBitCleared,
    /// Recovery replays only the first operation of each batch.
    HalfBatchReplayed,
    /// A batch is seen before all its trees have it.
    PublishedTooEarly,
    /// The one who leads a group wakes nobody to lead the next.
    NobodyNominated,
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
}

/// Switches a bug on, or all off, for this thread.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Planted>) {
    PLANTED.set(bug);
}

/// Whether the bug is switched on.
#[inline(always)]
pub(crate) fn is_planted(bug: Planted) -> bool {
    #[cfg(feature = "planted-bugs")]
    return PLANTED.get() == Some(bug);
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _ = bug;
        false
    }
}
