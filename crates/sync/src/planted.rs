//! The rules of the protocol that can be switched off, to show that the tests bite. Without the `planted` feature, which no product
//! build has, every rule holds and the question costs nothing.

/// A rule of `docs/sync.md` that a test can switch off. Each name says what the sound core does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Rule {
    /// An adopting member takes interrupted items with the completed ones, in the same step (`outline_loses_interrupted`).
    AdoptInterrupted,
    /// Own tail items absent from the basis are retracted at adoption (`floor_passes_pending_then_retract`).
    RetractAtAdoption,
    /// What a source confirmed final is not retracted (`op_id_reuse_catchup_then_retract`).
    KeepConfirmed,
    /// The basis is frozen before the first adopt message (`basis_remade_in_same_epoch`).
    FrozenBasis,
    /// A manager never acts in an epoch at or below its own promise (`manager_restart_same_epoch`).
    FreshEpochAfterRestart,
    /// A repeated gather is answered only to the same triple (`manager_restart_same_epoch`).
    PromiseTriple,
    /// A checkpoint stops at the first hole of the own durable prefix (`checkpoint_over_hole`).
    CheckpointStopsAtHole,
    /// A commit point is taken only by a member that adopted its epoch (`stale_epoch_takes_commit_point`).
    CommitPointNeedsEpoch,
    /// Only members in the highest epoch give their tails to the basis.
    HighestEpochOnly,
    /// The basis starts from the highest checkpoint among the answers.
    HighestCheckpoint,
    /// An item whose reads are skipped is skipped.
    SkipTransitively,
    /// A promise is answered only when it, and all before it, is durable (`promise_overtakes_queued_write`).
    PromiseBehindWrites,
    /// A leader that promises higher stops counting acknowledgements at once.
    PromiseDeposes,
    /// The promise is made before the tail is told, not after synchronising.
    PromiseFirst,
    /// An item is stored only by a member that adopted its epoch (`item_stored_before_adoption`).
    StoreNeedsAdoption,
    /// An acknowledgement is sent only if the promise still stands when the item is durable.
    AckNeedsPromise,
    /// An acknowledgement waits for the item to be durable (`ack_before_fsync`).
    AckAfterDurable,
    /// An item at or below the checkpoint is acknowledged, not stored (`late_duplicate_after_gc`).
    NotStoredBelowCheckpoint,
    /// A majority commits, no fewer (`commit_on_minority`).
    Majority,
    /// The leader counts itself only when its own record is durable.
    OwnDurableCounts,
    /// An item commits only after its reads (`failed_setnx_rests_on_cancelled_write`).
    CommitAfterReads,
    /// A read waits for what it rests on (`failed_setnx_rests_on_cancelled_write`).
    ReadAfterRests,
    /// A rebuilt or wiped member counts nowhere until it has caught up (`wiped_disk_same_id_votes`).
    RebuildingCountsNot,
    /// A member whose log was cut counts like a wiped one (`power_cycle_in_written`).
    CutLogRebuilds,
    /// A lease binds its granter for a full lease after a restart (`lease_grant_forgotten_on_restart`).
    LeaseOutlivesRestart,
    /// A granter refuses higher promises until its lease ends.
    LeaseBindsGranter,
    /// A lease is counted from sending.
    LeaseFromSending,
    /// A read takes only a quorum round that was started after it arrived (`late_read_round_answer`).
    RoundAfterArrival,
    /// A follower answers a read only in the epoch in which it asked.
    ReadSameEpoch,
    /// Transferred files carry a ceiling (`shipped_table_contains_pending`).
    TransferCeiling,
    /// A delta is served only from at or above `gc_floor` (`delta_after_tombstone_gc`).
    DeltaAboveGcFloor,
    /// Nothing is read here while shipped files stand above the checkpoint: they took the place of its history.
    ReadableAboveFloor,
    /// Floors stand still above the start of a transfer of final data: its pieces would bring back what was collected
    /// (`piece_brings_back_collected_value`).
    FloorAwaitsTransfer,
    /// Pieces of another transfer or epoch are dropped.
    PieceOfThisTransfer,
    /// The shard's time never falls, over reigns too.
    TimeNeverFalls,
    /// An unknown outcome is told as such (`unknown_retried_by_cluster_client`).
    UnknownIsNoRefusal,
    /// The odd digest is fenced only against a majority.
    FenceNeedsMajority,
}

/// The rules switched off in a replica under test.
#[cfg(feature = "planted")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Planted(u64);

#[cfg(feature = "planted")]
impl Planted {
    /// With one rule switched off.
    #[must_use]
    pub const fn without(self, rule: Rule) -> Planted {
        Planted(self.0 | 1 << rule as u32)
    }

    /// Whether the rule holds.
    #[must_use]
    pub const fn holds(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u32) == 0
    }
}
