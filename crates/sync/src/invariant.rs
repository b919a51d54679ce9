//! What always holds of one replica, as named code: run after every step in debug builds, by the simulator and by the models.

use crate::error::{Error, Result};
use crate::log::{COMMITTED, HELD};
use crate::node::Replica;
use crate::role::Role;
use crate::types::Epoch;

/// A named invariant of one replica.
pub type Invariant = (&'static str, fn(&Replica) -> bool);

/// All invariants of one replica.
pub const INVARIANTS: &[Invariant] = &[
    ("a member stands in no reign above its promise", adopted_at_most_promised),
    ("the checkpoint lies within the gap-free durable prefix", checkpoint_in_prefix),
    ("the checkpoint does not pass the commit point heard", checkpoint_at_most_point),
    ("a leader stands in the reign that it leads", leader_in_reign),
    ("a leader has every item above its commit point in memory", leader_has_pending),
    ("a commit point covers committed items only", point_is_committed),
    ("windows bound what a leader keeps in flight", window_bounds_flight),
    ("only a member that counts leads", leader_counts),
];

fn adopted_at_most_promised(replica: &Replica) -> bool {
    replica.core.log.epoch <= replica.core.promise.epoch
}

fn checkpoint_in_prefix(replica: &Replica) -> bool {
    replica.core.log.checkpoint.op <= replica.core.log.prefix_end()
}

fn checkpoint_at_most_point(replica: &Replica) -> bool {
    replica.core.log.checkpoint.op <= replica.core.announced
}

fn leader_in_reign(replica: &Replica) -> bool {
    match &replica.role {
        Role::Leader(leader) => {
            replica.core.in_reign(leader.promise.epoch) && leader.promise.epoch != Epoch::ZERO
        }
        _ => true,
    }
}

fn leader_has_pending(replica: &Replica) -> bool {
    replica.leading().is_none_or(|leader| {
        let held = |serial: u64| replica.core.log.slot(serial).is_some_and(|slot| slot.is(HELD));
        held_at_ends(leader.committed + 1, leader.next - 1, held)
    })
}

/// Looks at both ends only: the range may be a full window, and this runs after every step.
fn held_at_ends(first: u64, last: u64, held: impl Fn(u64) -> bool) -> bool {
    first > last || (held(first) && held(last))
}

fn point_is_committed(replica: &Replica) -> bool {
    replica.leading().is_none_or(|leader| {
        let slot = replica.core.log.slot(leader.committed);
        leader.committed < leader.next && slot.is_none_or(|slot| slot.is(COMMITTED))
    })
}

fn window_bounds_flight(replica: &Replica) -> bool {
    replica.leading().is_none_or(|leader| {
        leader.next - 1 - replica.core.log.durable_serial().min(leader.next - 1)
            <= replica.core.config.window_items as u64
    })
}

fn leader_counts(replica: &Replica) -> bool {
    replica.leading().is_none() || replica.core.counts()
}

impl Replica {
    /// Checks every invariant.
    ///
    /// # Errors
    /// [`Error::Invariant`] names the one that does not hold: a bug or damaged memory; the driver stops the replica.
    pub fn check(&self) -> Result<()> {
        for (name, holds) in INVARIANTS {
            if !holds(self) {
                return Err(Error::Invariant(format!("{}: {name}", self.core.id)));
            }
        }
        Ok(())
    }

    /// Stops a debug build at the first broken invariant. A replica with a rule switched off goes on: its harm must show in the group.
    #[cfg(debug_assertions)]
    pub(crate) fn debug_check(&self) {
        #[cfg(feature = "planted")]
        if self.core.config.planted != crate::planted::Planted::default() {
            return;
        }
        if let Err(error) = self.check() {
            debug_assert!(false, "{error}");
        }
    }
}
