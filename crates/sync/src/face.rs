//! What a driver may ask a replica without telling it anything.

use crate::error::Refusal;
use crate::node::{Replica, RoleName};
use crate::planted::Rule;
use crate::read::Asker;
use crate::role::Role;
use crate::role::leader::Holders;
use crate::role::peer::Stage;
use crate::types::{Checkpoint, Epoch, Moment, OpId, Promise, Standing, StoreId, Token};

impl Replica {
    /// This replica's store.
    #[must_use]
    pub fn id(&self) -> StoreId {
        self.core.id
    }

    /// What it is now.
    #[must_use]
    pub fn role(&self) -> RoleName {
        match self.role {
            Role::Follower => RoleName::Follower,
            Role::Candidate => RoleName::Candidate,
            Role::Manager(_) => RoleName::Manager,
            Role::Leader(_) => RoleName::Leader,
        }
    }

    /// The reign promised (`pre_epoch`).
    #[must_use]
    pub fn promise(&self) -> Promise {
        self.core.promise
    }

    /// The reign adopted.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.core.log.epoch
    }

    /// The checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        self.core.log.checkpoint
    }

    /// Whether this member's data counts.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.core.standing
    }

    /// The leader that this replica follows or is, as far as it knows.
    #[must_use]
    pub fn leader(&self) -> Option<StoreId> {
        let promise = self.core.promise;
        (promise.epoch != Epoch::ZERO && self.core.log.epoch == promise.epoch).then_some(promise.manager)
    }

    /// The op id that the next accepted proposal gets; none while not leading or when the serials have run out.
    #[must_use]
    pub fn next_op(&self) -> Option<OpId> {
        let leader = self.leading()?;
        (leader.next <= self.core.config.serial_max).then(|| OpId::new(leader.promise.epoch, leader.next))
    }

    /// Whether one more proposal would be accepted now: asked before a command is evaluated, so that nothing is evaluated in vain. Behind
    /// [`Refusal::Busy`] an [`crate::Effect::Room`] follows. Demotes members whose windows are full, as the proposal itself would.
    ///
    /// # Errors
    /// Why the proposal would be refused.
    pub fn room(&mut self) -> Result<(), Refusal> {
        match &mut self.role {
            Role::Leader(leader) => leader.room(&self.core),
            _ => Err(Refusal::NotLeader(self.leader())),
        }
    }

    /// Whether a member or learner holds everything but at most half a window that is on its way to it (leader; others know of nobody).
    /// A learner of which this is said may become a member.
    #[must_use]
    pub fn caught_up(&self, store: StoreId) -> bool {
        self.leading().is_some_and(|leader| {
            leader.place(store).is_some_and(|place| leader.is_caught_up(&self.core, place))
        })
    }

    /// Whether an item that is in the tree here is known to be committed. What is not, may yet be cancelled: an answer that saw it has to
    /// name it in its `reads`. A leader knows it of each item, others of those at or below their checkpoint.
    #[must_use]
    pub fn is_committed(&self, op: OpId) -> bool {
        match self.leading() {
            Some(leader) if op.epoch() <= leader.promise.epoch => leader.is_committed(&self.core.log, op),
            _ => op <= self.core.log.checkpoint.op,
        }
    }

    /// The commit point (leader: what it announced last or will next; others: what they heard).
    #[must_use]
    pub fn commit_point(&self) -> OpId {
        self.leading().map_or(self.core.announced, |leader| leader.point(&self.core.log))
    }

    /// The shard's time at the newest item here: what the leader judges expiry by.
    #[must_use]
    pub fn shard_time(&self) -> u64 {
        self.leading().map_or_else(|| self.core.log.latest_time(), |leader| leader.time)
    }

    /// Items above the checkpoint, by op id: what views of followers hide and compaction must not take for the newest.
    #[must_use]
    pub fn pending(&self) -> Vec<OpId> {
        self.core.log.tail().iter().map(|item| item.op).collect()
    }

    /// Whether a view at the checkpoint may be shown: not while data of the same reign is being filled in, nor while rebuilding, nor while
    /// shipped files stand above the checkpoint, whose place they took.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.filling.is_none()
            && self.core.standing == Standing::Whole
            && self.core.log.epoch != Epoch::ZERO
            && self.core.has_history()
    }

    /// How far the tree's floors may rise: to the checkpoint that is durable, and not above the start of a transfer of final data that
    /// runs. Its pieces come in no order of versions: one that brings a value whose tombstone was collected here meanwhile would bring the
    /// value back, for good if the transfer then breaks off.
    #[must_use]
    pub fn floor_limit(&self) -> OpId {
        let durable = self.core.durable_checkpoint.min(self.core.log.checkpoint.op);
        if !self.holds(Rule::FloorAwaitsTransfer) {
            return durable;
        }
        let filling = self.filling.as_ref().and_then(|filling| filling.0.since());
        let adopting = self.resync.as_ref().and_then(|resync| resync.since());
        filling.into_iter().chain(adopting).fold(durable, OpId::min)
    }

    /// For a stale read: the checkpoint to read at, and by how many microseconds it may be behind what is committed (none: not known).
    /// Call [`Replica::refresh_age`] while such reads are wanted.
    #[must_use]
    pub fn stale_view(&self, now: Moment) -> Option<(OpId, Option<u64>)> {
        let age = self.leading().map_or_else(|| self.reads.age_micros(now), |leader| leader.age_micros(now));
        self.is_readable().then_some((self.core.log.checkpoint.op, age))
    }

    /// Asks the leader for its commit point (a leader: its members whether they still follow), so that the age of stale reads stays known.
    pub fn refresh_age(&mut self, now: Moment, out: &mut crate::Effects) {
        if let Role::Leader(leader) = &mut self.role {
            let own = self.core.id;
            leader.read(&mut self.core, now, Asker::Point(own, now), crate::names::Names::none(), out);
        } else if let Some(leader) = self.leader().filter(|leader| *leader != self.core.id) {
            self.reads.ask_point(&self.core, now, leader, out);
        }
    }

    /// The tokens of all reads that wait, at the leader or at a follower: of a replica that is given up, so that whoever waits asks elsewhere. None of
    /// them is answered afterwards.
    pub fn drain_reads(&mut self) -> Vec<Token> {
        let mut tokens = self.reads.drain();
        if let Role::Leader(leader) = &mut self.role {
            tokens.extend(leader.reads.drain_clients());
        }
        tokens
    }

    /// Whether this replica leads and nobody else's acknowledgement counts: what is durable here is committed. Learners may be fed all the same.
    #[must_use]
    pub fn leads_alone(&self) -> bool {
        self.leading().is_some_and(|leader| leader.membership.new.as_slice() == [self.core.id])
    }

    /// Who holds an item durably, by what the members said themselves; none while this replica does not lead. Learners and members that are
    /// rebuilt count nowhere, so not here either.
    #[must_use]
    pub fn holders(&self, op: OpId) -> Option<Holders> {
        self.leading().map(|leader| leader.holders(&self.core, op))
    }

    /// The lowest checkpoint of the members that are fed (leader): tombstone floors trail it.
    #[must_use]
    pub fn slowest_checkpoint(&self) -> Option<OpId> {
        self.leading().map(|leader| leader.slowest(self.core.log.checkpoint))
    }

    /// Whether data that others have is on its way here, or is about to be: named manager now, it would lead only once it holds it.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.filling.is_some() || self.resync.is_some()
    }

    /// Whether no tick is needed until the next input: an idle shard is silent.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let role = match &self.role {
            Role::Follower | Role::Candidate => {
                self.lacked.is_none() && self.reads.is_empty() && !self.leads_nobody()
            }
            Role::Manager(_) => false,
            Role::Leader(leader) => {
                let point = leader.point(&self.core.log);
                leader.reads.is_empty()
                    // Its request for a successor may be lost: it is repeated.
                    && leader.draining.is_none()
                    && leader.told_point == point
                    && leader.committed + 1 == leader.next
                    && self.core.config.lease_micros.is_none()
                    && leader.peers.iter().enumerate().all(|(place, peer)| {
                        let is_fed = peer.stage == Stage::Streaming && peer.checkpoint == point;
                        place == leader.me || peer.dropped || !peer.reachable || is_fed
                    })
            }
        };
        role && self.nominated.is_none()
            && self.resync.is_none()
            && self.filling.is_none()
            && self.servings.is_empty()
            && self.core.quiet()
            && self.core.stored_checkpoint == self.core.log.checkpoint.op
    }
}
