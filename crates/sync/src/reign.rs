//! Changes of reign: nominations, promises, adoption, and transfers within a reign.

use crate::effect::{Ask, Effect, Effects};
use crate::membership::Membership;
use crate::message::{Adopt, Gather, Message, Piece, Want};
use crate::node::Replica;
use crate::planted::Rule;
use crate::resync::{Resync, adopted_message};
use crate::role::Role;
use crate::role::follower::Asked;
use crate::role::leader::Leader;
use crate::role::manager::Manager;
use crate::transfer::Incoming;
use crate::types::{Checkpoint, Epoch, Moment, OpId, Promise, Standing, StoreId, TransferId};

impl Replica {
    /// The control plane names this store the manager of `epoch`.
    pub(crate) fn nominate(&mut self, now: Moment, epoch: Epoch, membership: Membership, out: &mut Effects) {
        let promise = self.own_promise(epoch);
        let acting = match &self.role {
            Role::Manager(manager) => manager.promise == promise,
            Role::Leader(leader) => leader.promise == promise,
            _ => false,
        };
        if acting {
            return;
        }
        if epoch <= self.core.promise.epoch
            && (self.core.promise.manager != self.core.id || self.holds(Rule::FreshEpochAfterRestart))
        {
            self.core.ask(now, Ask::StaleEpoch, epoch, out);
            return;
        }
        if self.core.asked_promise(now, promise) == Asked::Bound {
            // A lease that this member granted still runs: its own promise has to wait as well as anybody's.
            self.nominated = Some((epoch, membership));
            return;
        }
        if !self.core.counts() || !membership.new.contains(self.core.id) {
            self.core.ask(now, Ask::Rebuilding, epoch, out);
            return;
        }
        self.follow(promise, out);
        self.role = Role::Manager(Box::new(Manager::begin(&self.core, now, membership, out)));
    }

    /// Takes up a nomination that a lease held back.
    pub(crate) fn retry_nomination(&mut self, now: Moment, out: &mut Effects) {
        if let Some((epoch, membership)) = self.nominated.take() {
            self.nominate(now, epoch, membership, out);
        }
    }

    /// Promises to follow a higher manager: whatever this replica was, it is no more.
    fn follow(&mut self, promise: Promise, out: &mut Effects) {
        if self.holds(Rule::PromiseDeposes) {
            self.depose(out);
        }
        self.abandon(out);
        self.nominated = None;
        self.core.make_promise(promise, out);
        self.head = 0;
        self.lacked = None;
    }

    /// Gives up what was under way in a former reign.
    pub(crate) fn abandon(&mut self, out: &mut Effects) {
        if let Some(resync) = self.resync.take() {
            resync.abandon(out);
        }
        if let Some(filling) = self.filling.take() {
            out.push(Effect::DropTransfer { transfer: filling.0.id });
        }
    }

    pub(crate) fn gather(&mut self, now: Moment, from: StoreId, gather: &Gather, out: &mut Effects) {
        match self.core.asked_promise(now, gather.promise) {
            Asked::Bound => return,
            Asked::Refuse => {
                self.core.refuse(from, gather.promise.epoch, out);
                return;
            }
            Asked::New if self.holds(Rule::PromiseFirst) => self.follow(gather.promise, out),
            Asked::New | Asked::Again => {}
        }
        if self.core.log.epoch == gather.promise.epoch {
            self.core.send_behind(from, adopted_message(&self.core), self.core.adopted_record, out);
        } else {
            self.core.answer_gather(from, gather, out);
        }
    }

    /// Somebody has a higher promise than the reign that this replica acts in.
    pub(crate) fn refused(&mut self, now: Moment, epoch: Epoch, promised: Epoch, out: &mut Effects) {
        let acting = match &self.role {
            Role::Manager(manager) => manager.promise.epoch == epoch,
            Role::Leader(leader) => leader.promise.epoch == epoch,
            _ => false,
        };
        if acting && promised >= epoch {
            self.core.ask(now, Ask::StaleEpoch, promised, out);
        }
    }

    /// The basis is frozen: everyone is asked to adopt, this replica first.
    pub(crate) fn frozen(&mut self, now: Moment, out: &mut Effects) {
        let Role::Manager(manager) = &self.role else { return };
        let Some(adopt) = manager.adopt_message() else { return };
        manager.send_adopts(&self.core, out);
        let from = self.core.id;
        self.adopt(now, from, adopt, out);
    }

    pub(crate) fn adopt(&mut self, now: Moment, from: StoreId, adopt: Adopt, out: &mut Effects) {
        match self.core.asked_promise(now, adopt.promise) {
            Asked::Bound => return,
            Asked::Refuse => {
                self.core.refuse(from, adopt.promise.epoch, out);
                return;
            }
            Asked::New => self.follow(adopt.promise, out),
            Asked::Again => {}
        }
        if self.core.log.epoch == adopt.promise.epoch && self.holds(Rule::FrozenBasis) {
            self.core.send_behind(from, adopted_message(&self.core), self.core.adopted_record, out);
            return;
        }
        // The leader's word replaces the manager's: those that could serve the manager's S may be gone by now.
        let leads = |adopt: &Adopt| adopt.basis_epoch == adopt.promise.epoch;
        let goes_on = |resync: &Resync| {
            resync.adopt.promise == adopt.promise
                && (leads(&resync.adopt) || !leads(&adopt))
                && !resync.is_outrun_by(&adopt)
        };
        if !self.resync.as_deref().is_some_and(goes_on) {
            self.abandon(out);
            self.resync = Some(Box::new(Resync::begin(&mut self.core, now, adopt, out)));
        }
        self.try_adopt(out);
    }

    /// Takes the one atomic step as soon as everything for it is here.
    fn try_adopt(&mut self, out: &mut Effects) {
        let ready = self.resync.as_ref().is_some_and(|resync| resync.is_ready(&self.core));
        let Some(resync) = self.resync.take_if(|_| ready) else { return };
        if self.is_leading() {
            self.depose(out);
        }
        let leads = resync.adopt.basis_epoch == resync.adopt.promise.epoch;
        resync.adopt(&mut self.core, &mut self.held, out);
        if leads {
            self.reign_leads(self.core.log.epoch, out);
        }
        self.reads.new_reign();
        let manager = self.core.promise.manager;
        if manager != self.core.id {
            self.core.send_behind(manager, adopted_message(&self.core), self.core.adopted_record, out);
        }
    }

    pub(crate) fn peer_adopted(
        &mut self,
        now: Moment,
        from: StoreId,
        (epoch, checkpoint, standing): (Epoch, OpId, Standing),
        out: &mut Effects,
    ) {
        let leads = match &mut self.role {
            Role::Manager(manager) if manager.promise.epoch == epoch => {
                manager.adopted(&self.core, from, standing)
            }
            Role::Leader(leader) if leader.promise.epoch == epoch => {
                if let Some(place) = leader.place(from) {
                    leader.adopted(&mut self.core, now, place, (checkpoint, standing), out);
                }
                false
            }
            _ => false,
        };
        if leads {
            self.lead(now, out);
        }
    }

    /// A majority stands in the reign, this replica among it: every item of the basis is committed.
    pub(crate) fn lead(&mut self, now: Moment, out: &mut Effects) {
        let Role::Manager(manager) = &self.role else { return };
        let adopted: Vec<StoreId> = manager.adopted.iter().copied().collect();
        let mut leader = Leader::new(&self.core, now, &manager.membership, &adopted);
        let point = leader.point(&self.core.log);
        self.core.hear_point(point, None);
        self.core.advance_checkpoint(out);
        for place in 0..leader.peers.len() {
            if place != leader.me {
                if leader.peers[place].stage == crate::role::peer::Stage::Streaming {
                    leader.tell_point(&self.core, place, out);
                } else {
                    let to = leader.peers[place].id;
                    out.send(to, Message::Announce { promise: self.core.promise });
                }
            }
        }
        self.role = Role::Leader(Box::new(leader));
        let epoch = self.core.promise.epoch;
        out.push(Effect::Lead { epoch });
        self.reign_leads(epoch, out);
    }

    /// The leader names a target within the reign: fetch what is final up to it.
    pub(crate) fn resume(
        &mut self,
        now: Moment,
        epoch: Epoch,
        upto: Checkpoint,
        sources: &[StoreId],
        out: &mut Effects,
    ) {
        self.reign_leads(epoch, out);
        // A target whose history the sources have collected meanwhile gives way to a newer one.
        let outrun = |(incoming, old): &(Incoming, Checkpoint)| incoming.exhausted && upto.op > old.op;
        if self.filling.as_deref().is_some_and(outrun) {
            self.abandon(out);
        }
        if !self.core.in_reign(epoch) || self.resync.is_some() || self.filling.is_some() {
            return;
        }
        if upto.op <= self.core.log.checkpoint.op {
            self.core.say_hello(self.core.promise.manager, out);
            return;
        }
        let want = Want::Final {
            since: self.core.log.prefix_end().min(upto.op),
            upto: upto.op,
            doubtful: Vec::new(),
        };
        let incoming = Incoming::begin(&mut self.core, now, want, sources, out);
        self.filling = Some(Box::new((incoming, upto)));
    }

    pub(crate) fn piece(&mut self, now: Moment, piece: &Piece, out: &mut Effects) {
        if let Some(resync) = &mut self.resync
            && resync.piece(&self.core, now, piece, out)
        {
            return;
        }
        self.end_outrun(out);
        if let Some(filling) = &mut self.filling {
            filling.0.piece(&self.core, now, piece, out);
        }
    }

    /// Items of the stream may have closed the gap that is being filled. What is final here may have been collected since: data of an older target
    /// would bring back a value whose tombstone is gone. And where no source can serve that target any more, nothing else would end the transfer.
    pub(crate) fn end_outrun(&mut self, out: &mut Effects) {
        let checkpoint = self.core.log.checkpoint.op;
        if let Some(outrun) = self.filling.take_if(|filling| filling.1.op <= checkpoint) {
            out.push(Effect::DropTransfer { transfer: outrun.0.id });
            self.core.say_hello(self.core.promise.manager, out);
        }
    }

    pub(crate) fn cannot_serve(&mut self, now: Moment, transfer: TransferId, out: &mut Effects) {
        if let Some(resync) = &mut self.resync {
            resync.cannot_serve(&mut self.core, now, transfer, out);
        }
        if let Some(filling) = &mut self.filling
            && filling.0.id == transfer
        {
            filling.0.next_source(&mut self.core, now, out);
        }
    }

    pub(crate) fn ingested(&mut self, now: Moment, transfer: TransferId, number: u64, out: &mut Effects) {
        if let Some(resync) = &mut self.resync {
            resync.ingested(&mut self.core, now, transfer, number, out);
            self.try_adopt(out);
        }
        let Some(filling) = &mut self.filling else { return };
        if filling.0.id != transfer || !filling.0.ingested(&self.core, now, number, out) {
            return;
        }
        let (way, upto) = (filling.0.way, filling.1);
        self.filling = None;
        self.core.shipped(way, upto.op);
        self.core.install(upto, out);
        self.core.advance_checkpoint(out);
        self.core.say_hello(self.core.promise.manager, out);
    }
}
