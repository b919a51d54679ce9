//! What a member is, for whoever routes to it and whoever looks at it.

use super::member::Member;
use crate::latch::ShardId;
use kvorum_engine::Tree;
use kvorum_sync::{Epoch, OpId, RoleName, StoreId};

/// What a member is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// It leads.
    Leading {
        /// In this epoch.
        epoch: Epoch,
    },
    /// It was nominated and is on its way to lead.
    Managing {
        /// In this epoch.
        epoch: Epoch,
    },
    /// It follows.
    Following {
        /// Whom, as far as is known.
        leader: Option<StoreId>,
    },
    /// Its leader can't be reached.
    Alone {
        /// Whom it followed.
        leader: Option<StoreId>,
    },
    /// The store refused a record.
    Halted,
}

/// What a member has, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberStatus {
    /// What it is.
    pub role: MemberRole,
    /// The epoch that it stands in.
    pub epoch: Epoch,
    /// The epoch that it promised.
    pub promised: Epoch,
    /// Everything up to here is final, and here.
    pub checkpoint: OpId,
    /// Everything up to here is committed, as far as is known here.
    pub committed: OpId,
    /// Items above the checkpoint.
    pub tail_items: usize,
    /// Values of items that are proposed and not committed, in bytes.
    pub flight_bytes: usize,
    /// Whether a view at the checkpoint may be shown.
    pub readable: bool,
    /// Transfers out of this member.
    pub serving: usize,
    /// Whether data for it is under way.
    pub receiving: bool,
}

impl Member {
    /// Which shard it is a member of.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The tree with its data. Another one after a step whose outbox says so.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What it is.
    pub fn role(&self) -> MemberRole {
        if self.halted.is_some() {
            return MemberRole::Halted;
        }
        let leader = self.replica.leader();
        match self.replica.role() {
            RoleName::Leader => MemberRole::Leading { epoch: self.replica.epoch() },
            RoleName::Manager => MemberRole::Managing { epoch: self.replica.promise().epoch },
            RoleName::Follower => MemberRole::Following { leader },
            RoleName::Candidate => MemberRole::Alone { leader },
        }
    }

    /// The leader, as far as is known: this member or another.
    pub fn leader(&self) -> Option<StoreId> {
        self.replica.leader()
    }

    /// The epoch that it promised: a nomination must be above it.
    pub fn promised(&self) -> Epoch {
        self.replica.promise().epoch
    }

    /// Why it stands still, if it does.
    pub fn halted(&self) -> Option<&kvorum_engine::Error> {
        self.halted.as_ref()
    }

    /// Whether a member or learner holds everything but what is on its way to it (leader).
    pub fn is_caught_up(&self, store: StoreId) -> bool {
        self.halted.is_none() && self.replica.caught_up(store)
    }

    /// Whether data that others have is on its way here: named manager now, it would lead only once it holds it.
    pub fn is_behind(&self) -> bool {
        self.halted.is_none() && self.replica.is_behind()
    }

    /// Whether it needs no tick until the next input.
    pub fn is_idle(&self) -> bool {
        self.halted.is_some()
            || (self.replica.is_idle()
                && self.records.is_empty()
                && self.repeats.is_empty()
                && self.watchers.is_empty()
                && self.waiting.is_empty())
    }

    /// Its figures.
    pub fn status(&self) -> MemberStatus {
        MemberStatus {
            role: self.role(),
            epoch: self.replica.epoch(),
            promised: self.promised(),
            checkpoint: self.replica.checkpoint().op,
            committed: self.replica.commit_point(),
            tail_items: self.tail.len(),
            flight_bytes: self.recent.flight_bytes(),
            readable: self.is_readable(),
            serving: self.sources.len(),
            receiving: self.receiver.is_busy(),
        }
    }
}
