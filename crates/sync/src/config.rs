//! Settings of a replica: plain numbers, each with its unit in its name.

use crate::planted::Rule;
use crate::types::SERIAL_MAX;

/// Limits and times of one replica. All members of a group should have the same ones; safety does not depend on it, leases apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Items in flight to one follower; a follower with a full window is demoted to catch-up.
    pub window_items: usize,
    /// Items kept behind the commit point, so that small gaps are mended from memory and follower reads are answered from it.
    pub retain_items: usize,
    /// Data connections between two nodes; items travel over any of them.
    pub lanes: u8,
    /// How long a manager with a majority of answers waits for the rest.
    pub gather_grace_micros: u64,
    /// After how long without an answer a message is repeated.
    pub resend_micros: u64,
    /// How often the commit point is told by itself while items are in flight, which carry it too. The last one of all is told at once.
    pub point_micros: u64,
    /// How often a checkpoint that moves is stored.
    pub checkpoint_micros: u64,
    /// How long a manager may take to lead before it reports.
    pub manage_micros: u64,
    /// How long a leader may go without committing what is proposed before it asks to be replaced.
    pub stall_micros: u64,
    /// Least time between two requests to the control plane.
    pub ask_micros: u64,
    /// Length of a leader's lease; none: every read takes a quorum round. A leader uses nine tenths of it (clocks may differ in speed by a
    /// tenth). Changing it needs a full stop of the group.
    pub lease_micros: Option<u64>,
    /// How long a follower holds a read for an item that it does not have yet, before it hands the read to the leader.
    pub read_wait_micros: u64,
    /// Reads waiting at one replica.
    pub reads_waiting_max: usize,
    /// A gap of at most so many items is mended item by item.
    pub small_gap_items: u64,
    /// Pieces that a receiver has under way in one transfer.
    pub piece_credit: u64,
    /// Transfers that one replica serves at the same time.
    pub transfers_served_max: usize,
    /// The last serial given out in one epoch.
    pub serial_max: u64,
    /// Rules switched off, to show that their absence is noticed.
    #[cfg(feature = "planted")]
    pub planted: crate::planted::Planted,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            window_items: 4096,
            retain_items: 1024,
            lanes: 2,
            gather_grace_micros: 20_000,
            resend_micros: 100_000,
            point_micros: 20_000,
            checkpoint_micros: 50_000,
            manage_micros: 2_000_000,
            stall_micros: 2_000_000,
            ask_micros: 500_000,
            lease_micros: None,
            read_wait_micros: 50_000,
            reads_waiting_max: 65_536,
            small_gap_items: 1024,
            piece_credit: 4,
            transfers_served_max: 4,
            serial_max: SERIAL_MAX,
            #[cfg(feature = "planted")]
            planted: crate::planted::Planted::default(),
        }
    }
}

impl Config {
    /// Whether a rule holds: always, outside tests with the `planted` feature.
    #[cfg(feature = "planted")]
    pub(crate) const fn holds(&self, rule: Rule) -> bool {
        self.planted.holds(rule)
    }

    /// Whether a rule holds: always, outside tests with the `planted` feature.
    #[cfg(not(feature = "planted"))]
    #[inline]
    #[expect(clippy::unused_self, reason = "the planted build asks its settings")]
    pub(crate) const fn holds(&self, _rule: Rule) -> bool {
        true
    }
}
