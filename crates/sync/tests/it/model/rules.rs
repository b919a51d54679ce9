//! The rules of the protocol as switches, and the bounds of a search.

/// Each field is one rule of the protocol: `true` keeps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Adoption takes the whole basis, interrupted items too (the outline: completed ones only, the rest later).
    pub(crate) adopt_interrupted: bool,
    /// The promise is durable before the gather is answered (the outline: saved after synchronising).
    pub(crate) promise_before_answer: bool,
    /// An op id is epoch · serial, never used again (the outline: the serial alone).
    pub(crate) unique_op_ids: bool,
    /// The basis is frozen before the first adoption (the outline: *dynamic sync quorum*).
    pub(crate) frozen_basis: bool,
    /// A manager that restarted needs a fresh epoch.
    pub(crate) fresh_epoch_after_restart: bool,
    /// The basis unites the tails of the highest epoch alone.
    pub(crate) highest_epoch_only: bool,
    /// A checkpoint stays within the member's own gap-free prefix.
    pub(crate) checkpoint_within_prefix: bool,
    /// A commit point is taken only with `pre_epoch == epoch ==` its epoch.
    pub(crate) commit_point_of_own_epoch: bool,
    /// An item is stored only by a member that has adopted its epoch.
    pub(crate) store_after_adoption: bool,
    /// Committed means durable on a majority.
    pub(crate) commit_on_majority: bool,
    /// A leader that promised higher stops at once.
    pub(crate) promise_stops_leader: bool,
    /// The retract of an adoption spares what is confirmed final.
    pub(crate) retract_spares_final: bool,
    /// A commit waits for what the item reads, and a basis skips items whose reads it skips.
    pub(crate) reads_bind: bool,
    /// Promises and adoptions become durable behind all records emitted before them.
    pub(crate) promise_is_barrier: bool,
    /// An acknowledgement leaves only when the record is durable.
    pub(crate) acknowledge_durable: bool,
    /// An acknowledgement leaves only if its epoch is still the member's own.
    pub(crate) acknowledge_rechecked: bool,
    /// A member that lost its disk counts in no majority.
    pub(crate) wiped_is_new: bool,
    /// A read counts only answers to a round that started after it arrived.
    pub(crate) numbered_rounds: bool,
}

impl Rules {
    /// The protocol as Kvorum implements it.
    pub(crate) const FULL: Self = Self {
        adopt_interrupted: true,
        promise_before_answer: true,
        unique_op_ids: true,
        frozen_basis: true,
        fresh_epoch_after_restart: true,
        highest_epoch_only: true,
        checkpoint_within_prefix: true,
        commit_point_of_own_epoch: true,
        store_after_adoption: true,
        commit_on_majority: true,
        promise_stops_leader: true,
        retract_spares_final: true,
        reads_bind: true,
        promise_is_barrier: true,
        acknowledge_durable: true,
        acknowledge_rechecked: true,
        wiped_is_new: true,
        numbered_rounds: true,
    };

    /// The published outline in its most favourable reading: a member saves `pre_epoch` and `epoch` in one step with the data, only one
    /// manager has an epoch, and its basis is made once; everything it does not speak of is as in [`Rules::FULL`].
    pub(crate) const OUTLINE: Self =
        Self { adopt_interrupted: false, promise_before_answer: false, unique_op_ids: false, ..Self::FULL };
}

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Nominations.
    pub(crate) reigns: u8,
    /// Writes a leader may propose in its reign.
    pub(crate) writes: u8,
    /// Writes in all reigns together.
    pub(crate) items: usize,
    /// A nomination only when the one before leads: enough for some counterexamples, and much smaller.
    pub(crate) in_turn: bool,
    /// Crashes of members with something volatile to lose.
    pub(crate) crashes: u8,
    /// Disks lost.
    pub(crate) wipes: u8,
    /// Reads in all.
    pub(crate) reads: u8,
    /// Members that stop for good.
    pub(crate) deaths: u8,
    /// Records wait in a queue before they are durable.
    pub(crate) queue: bool,
}

impl Bounds {
    /// Reigns and writes, and nothing else.
    pub(crate) const fn new(reigns: u8, writes: u8) -> Self {
        Self {
            reigns,
            writes,
            items: super::state::SLOTS,
            in_turn: false,
            crashes: 0,
            wipes: 0,
            reads: 0,
            deaths: 0,
            queue: false,
        }
    }
}
