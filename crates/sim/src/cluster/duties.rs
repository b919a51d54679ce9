//! What a node owes its members.

/// The duties that a node under test does. Each can be left out, to show that its absence is noticed.
#[derive(Clone, Copy, Debug)]
pub struct Duties {
    /// Members hear that a record is durable when the log is synced.
    pub syncs_before_durable: bool,
    /// A leader's answers wait for the member's word that it leads still.
    pub waits_for_reads: bool,
    /// A follower answers from the view that the leader named.
    pub reads_named_view: bool,
    /// A leader whose store refused an item's batch says so to the member.
    pub tells_of_lost_batch: bool,
}

impl Default for Duties {
    fn default() -> Duties {
        Duties {
            syncs_before_durable: true,
            waits_for_reads: true,
            reads_named_view: true,
            tells_of_lost_batch: true,
        }
    }
}
