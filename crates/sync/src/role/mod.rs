//! follower → candidate (lost its leader) → manager (gathering, synchronising) → leader.

pub(crate) mod follower;
pub(crate) mod leader;
pub(crate) mod manager;
pub(crate) mod peer;

use leader::Leader;
use manager::Manager;

/// What a replica is now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Follows the manager that it promised.
    Follower,
    /// Its leader can't be reached; the control plane was told.
    Candidate,
    /// Gathers and synchronises.
    Manager(Box<Manager>),
    /// Leads.
    Leader(Box<Leader>),
}
