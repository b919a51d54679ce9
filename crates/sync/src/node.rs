//! The replica: one step at a time.

use crate::config::Config;
use crate::core::Core;
use crate::durable::Durable;
use crate::effect::{Ask, Effect, Effects, Outcome};
use crate::error::Refusal;
use crate::follower_read::FollowerReads;
use crate::input::{Input, StepDown};
use crate::log::COMMITTED;
use crate::membership::Membership;
use crate::message::{Message, ReadWhat};
use crate::read::Asker;
use crate::records::Pending;
use crate::resync::Resync;
use crate::role::Role;
use crate::role::leader::Leader;
use crate::transfer::{Incoming, Servings};
use crate::types::{Checkpoint, Epoch, Moment, OpId, Promise, RecordId, Standing, StoreId, Token};

/// One member of one shard's group. See the crate's page for what the driver owes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    pub(crate) core: Core,
    pub(crate) role: Role,
    pub(crate) resync: Option<Box<Resync>>,
    /// A transfer within the adopted reign, with its target.
    pub(crate) filling: Option<Box<(Incoming, Checkpoint)>>,
    pub(crate) servings: Servings,
    pub(crate) reads: FollowerReads,
    /// Items of a deposed leader whose clients wait, each with its fate if the adopted reign comes to lead.
    pub(crate) held: Vec<(OpId, Outcome)>,
    /// A nomination that waits for the end of a lease that this member granted.
    pub(crate) nominated: Option<(Epoch, Membership)>,
    /// When a hole below the commit point was last complained of.
    pub(crate) lacked: Option<(u64, Moment)>,
    /// The leader's last serial, as far as it told.
    pub(crate) head: u64,
}

/// What a replica is now, for the driver, metrics and invariants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleName {
    /// Follows the manager that it promised.
    Follower,
    /// Its leader can't be reached.
    Candidate,
    /// Gathers and synchronises.
    Manager,
    /// Leads.
    Leader,
}

impl Replica {
    /// A replica at start: the durable state is all that survives. `nonce` is drawn anew at every start. `intact` is false when the store
    /// came up with a log that power loss cut in a weaker durability class: the member then counts like a wiped one.
    #[must_use]
    pub fn recover(
        id: StoreId,
        nonce: u64,
        config: Config,
        durable: &Durable,
        intact: bool,
        now: Moment,
        out: &mut Effects,
    ) -> Replica {
        let mut core = Core::recover(id, nonce, config, durable, now);
        if !intact && core.config.holds(crate::planted::Rule::CutLogRebuilds) {
            core.rebuild(out);
        }
        Replica {
            core,
            role: Role::Follower,
            resync: None,
            filling: None,
            servings: Servings::default(),
            reads: FollowerReads::default(),
            held: Vec::new(),
            nominated: None,
            lacked: None,
            head: 0,
        }
    }

    /// Takes one input. Effects are added behind those already in `out`.
    pub fn step(&mut self, now: Moment, input: Input, out: &mut Effects) {
        match input {
            Input::Message { from, message } => self.message(now, from, message, out),
            Input::Propose(proposal) => {
                let token = proposal.token;
                if let Role::Leader(leader) = &mut self.role {
                    leader.propose(&mut self.core, now, proposal, out);
                } else {
                    out.push(Effect::Refused { token, why: Refusal::NotLeader(self.leader()) });
                }
            }
            Input::Persisted { upto } => self.persisted(now, upto, out),
            Input::Tick => self.tick(now, out),
            Input::Read { token, rests_on } => match &mut self.role {
                Role::Leader(leader) => leader.read(&mut self.core, now, Asker::Client(token), rests_on, out),
                _ => out.push(Effect::ReadAgain { token }),
            },
            Input::FollowerRead { token, what, labelled } => {
                self.follower_read(now, token, what, labelled, out);
            }
            Input::Nominate { epoch, membership } => self.nominate(now, epoch, membership, out),
            Input::Learners(learners) => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.set_learners(&learners, now);
                }
            }
            Input::Peer { store, reachable } => self.peer(now, store, reachable, out),
            Input::Floors { floor, gc_floor } => {
                self.core.floor = self.core.floor.max(floor);
                self.core.gc_floor = self.core.gc_floor.max(gc_floor);
            }
            Input::Ingested { transfer, number } => self.ingested(now, transfer, number, out),
            Input::StepDown(why) => self.step_down(now, why, out),
            input @ (Input::PieceRead { .. } | Input::PieceFailed { .. }) => self.servings.driver(input, out),
        }
        #[cfg(debug_assertions)]
        self.debug_check();
    }

    fn persisted(&mut self, now: Moment, upto: RecordId, out: &mut Effects) {
        let mut run: Option<(Epoch, u64, u64)> = None;
        while let Some(pending) = self.core.records.take(upto) {
            if let Pending::Item(op) = pending {
                let serial = op.serial();
                if op.epoch() == self.core.log.epoch {
                    self.core.log.mark_durable(serial);
                }
                match &mut run {
                    Some((epoch, _, last)) if *epoch == op.epoch() && *last + 1 == serial => *last = serial,
                    _ => {
                        self.acknowledge(now, run, out);
                        run = Some((op.epoch(), serial, serial));
                    }
                }
                continue;
            }
            match pending {
                Pending::Promise => self.promise_durable(now, out),
                Pending::Adoption(checkpoint) => {
                    self.core.durable_checkpoint = checkpoint;
                    self.adoption_durable(now, out);
                }
                Pending::Checkpoint(checkpoint) => self.core.durable_checkpoint = checkpoint,
                _ => {}
            }
        }
        self.acknowledge(now, run, out);
        self.core.advance_checkpoint(out);
        self.after_checkpoint(out);
    }

    /// Serials are durable here: a leader counts itself, a follower tells its leader, if the promise under which it stored them still stands.
    fn acknowledge(&mut self, now: Moment, run: Option<(Epoch, u64, u64)>, out: &mut Effects) {
        use crate::planted::Rule;
        let Some((epoch, first, last)) = run else { return };
        if let Role::Leader(leader) = &mut self.role {
            if leader.promise.epoch == epoch {
                let me = leader.me;
                leader.acked(&mut self.core, now, me, (first, last), out);
            }
            return;
        }
        let adopted = self.core.in_reign(epoch)
            || (self.core.promise.epoch == epoch && !self.core.config.holds(Rule::StoreNeedsAdoption));
        if adopted {
            self.core.ack(self.core.promise.manager, epoch, (first, last), out);
        } else if !self.core.config.holds(Rule::AckNeedsPromise) {
            // The broken way tells the manager of the reign before.
            self.core.ack(self.core.former_manager, epoch, (first, last), out);
        }
    }

    fn promise_durable(&mut self, now: Moment, out: &mut Effects) {
        let Role::Manager(manager) = &mut self.role else { return };
        if manager.promise != self.core.promise || !self.core.is_durable(self.core.promise_record) {
            return;
        }
        let answer = self.core.promised(manager.promise);
        if manager.promised(&self.core, now, self.core.id, answer) {
            self.frozen(now, out);
        }
    }

    fn adoption_durable(&mut self, now: Moment, out: &mut Effects) {
        if !self.core.is_durable(self.core.adopted_record) {
            return;
        }
        self.core.log.settled = true;
        if let Role::Manager(manager) = &mut self.role
            && self.core.in_reign(manager.promise.epoch)
        {
            let (id, standing) = (self.core.id, self.core.standing);
            if manager.adopted(&self.core, id, standing) {
                self.lead(now, out);
            }
        }
    }

    fn message(&mut self, now: Moment, from: StoreId, message: Message, out: &mut Effects) {
        match message {
            Message::Write { epoch, item, point } => {
                self.core.write(from, epoch, item, point, out);
                self.reign_leads(epoch, out);
                self.after_checkpoint(out);
            }
            Message::Ack { epoch, first, last, checkpoint } => {
                if let Role::Leader(leader) = &mut self.role
                    && leader.promise.epoch == epoch
                    && let Some(place) = leader.place(from)
                {
                    let peer = &mut leader.peers[place];
                    peer.checkpoint = peer.checkpoint.max(checkpoint);
                    peer.whole = true;
                    leader.acked(&mut self.core, now, place, (first, last), out);
                    self.after_checkpoint(out);
                }
            }
            Message::Gather(gather) => self.gather(now, from, &gather, out),
            Message::Promised(answer) => {
                if let Role::Manager(manager) = &mut self.role
                    && manager.promised(&self.core, now, from, *answer)
                {
                    self.frozen(now, out);
                }
            }
            Message::Refused { epoch, promised } => self.refused(now, epoch, promised, out),
            Message::Adopt(adopt) => self.adopt(now, from, *adopt, out),
            Message::Adopted { epoch, checkpoint, standing } => {
                self.peer_adopted(now, from, (epoch, checkpoint, standing), out);
            }
            Message::Fetch(fetch) => self.servings.fetch(&self.core, now, from, *fetch, out),
            Message::Piece(piece) => self.piece(now, &piece, out),
            Message::CannotServe { transfer } => self.cannot_serve(now, transfer, out),
            message => self.reign_message(now, from, message, out),
        }
    }

    /// Messages within a reign: from the leader to those who stand in it, and back.
    fn reign_message(&mut self, now: Moment, from: StoreId, message: Message, out: &mut Effects) {
        match message {
            Message::Point { epoch, point, digest, head } => {
                if self.core.in_reign(epoch) {
                    self.core.hear_point(point, Some(digest));
                    self.head = self.head.max(head);
                }
                self.core.point(epoch, point, out);
                self.reign_leads(epoch, out);
                self.after_checkpoint(out);
                if self.core.in_reign(epoch) && self.core.counts() {
                    self.core.ack(from, epoch, (1, self.core.log.durable_serial()), out);
                } else if self.core.promise.epoch > epoch {
                    self.core.refuse(from, epoch, out);
                }
            }
            Message::Announce { promise } => {
                if self.core.promise.epoch > promise.epoch {
                    self.core.refuse(from, promise.epoch, out);
                } else if promise.manager != self.core.id {
                    self.core.say_hello(from, out);
                }
            }
            Message::Resume { epoch, upto, sources } => {
                self.resume(now, epoch, upto, sources.as_slice(), out);
            }
            Message::Ping { epoch, round } => self.ping(now, from, epoch, round, out),
            Message::ReadAnswer(answer) => {
                if self.core.in_reign(answer.epoch) || !self.holds(crate::planted::Rule::ReadSameEpoch) {
                    self.reads.answered(&self.core, &answer, out);
                }
            }
            Message::PointAt { epoch, sent, committed } => {
                if self.core.in_reign(epoch) {
                    self.reads.point_at(&self.core, sent, committed);
                }
            }
            Message::Fence { epoch, point } => {
                if self.core.in_reign(epoch) && self.core.standing == Standing::Whole {
                    self.fence(point, out);
                }
            }
            message => self.leader_message(now, from, message, out),
        }
    }

    fn leader_message(&mut self, now: Moment, from: StoreId, message: Message, out: &mut Effects) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(place) = leader.place(from) else { return };
        let (core, ours) = (&mut self.core, leader.promise.epoch);
        match message {
            Message::Hello(hello) => leader.hello(core, now, place, &hello, out),
            Message::Lack { epoch, first, last } if epoch == ours => {
                leader.lack(core, now, place, (first, last), out);
            }
            Message::Pong { epoch, round } if epoch == ours => leader.pong(core, now, place, round, out),
            Message::AskRead(ask) if ask.epoch == ours => {
                leader.read(core, now, Asker::Follower(from, ask), crate::names::Names::none(), out);
            }
            Message::AskPoint { epoch, sent } if epoch == ours => {
                leader.read(core, now, Asker::Point(from, sent), crate::names::Names::none(), out);
            }
            Message::Reached { epoch, point, digest } if epoch == ours => {
                self.compare(now, place, point, digest, out);
            }
            _ => {}
        }
        self.after_checkpoint(out);
    }

    fn ping(&mut self, now: Moment, from: StoreId, epoch: Epoch, round: u64, out: &mut Effects) {
        if !self.core.in_reign(epoch) {
            if self.core.promise.epoch > epoch {
                self.core.refuse(from, epoch, out);
            }
            return;
        }
        if self.core.counts() {
            if let Some(lease) = self.core.config.lease_micros {
                self.core.bound_until = self.core.bound_until.max(now.after_micros(lease));
            }
            out.send(from, Message::Pong { epoch, round });
        }
    }

    /// Digests at points that the checkpoint reached go to the leader (or are its own voice); reads look whether they may be answered.
    fn after_checkpoint(&mut self, out: &mut Effects) {
        while let Some((point, digest)) = self.core.take_reached() {
            if !self.is_leading() && self.core.counts() {
                let message = Message::Reached { epoch: self.core.log.epoch, point, digest };
                out.send(self.core.promise.manager, message);
            }
        }
        if let Role::Follower | Role::Candidate = self.role {
            let upto = self.core.log.checkpoint.op;
            if upto.epoch() == self.core.log.epoch {
                self.core.log.trim(upto.serial());
            }
            if !self.reads.is_empty() {
                self.reads.look(&self.core, out);
            }
        }
    }

    fn follower_read(
        &mut self,
        now: Moment,
        token: Token,
        what: ReadWhat,
        labelled: bool,
        out: &mut Effects,
    ) {
        let leader = self.leader();
        match leader {
            Some(leader) if self.is_readable() && leader != self.core.id => {
                self.reads.ask(&self.core, now, leader, (token, what, labelled), out);
            }
            _ => out.push(Effect::ReadAtLeader { token, leader }),
        }
    }

    fn step_down(&mut self, now: Moment, why: StepDown, out: &mut Effects) {
        if let Role::Leader(leader) = &mut self.role {
            leader.draining = Some(why);
            let settled = leader.next - 1 == leader.committed;
            if settled || why != StepDown::Drain {
                let epoch = leader.promise.epoch;
                self.core.ask(now, Ask::StepDown(why), epoch, out);
            }
        }
    }

    fn tick(&mut self, now: Moment, out: &mut Effects) {
        self.core.tick_checkpoint(now, out);
        self.retry_nomination(now, out);
        self.servings.tick(&self.core, now, out);
        if let Some(mut resync) = self.resync.take() {
            resync.tick(&mut self.core, now, out);
            self.resync = Some(resync);
        }
        self.end_outrun(out);
        if let Some(filling) = &mut self.filling {
            filling.0.tick(&mut self.core, now, out);
        }
        match &mut self.role {
            Role::Leader(leader) => leader.tick(&mut self.core, now, out),
            Role::Manager(manager) => {
                if manager.tick(&mut self.core, now, out) {
                    self.frozen(now, out);
                }
            }
            Role::Follower | Role::Candidate => self.tick_follower(now, out),
        }
    }

    fn tick_follower(&mut self, now: Moment, out: &mut Effects) {
        if self.leads_nobody() {
            let epoch = self.core.promise.epoch;
            self.core.ask(now, Ask::StaleEpoch, epoch, out);
        }
        let leader = self.leader();
        self.reads.tick(&self.core, now, leader, out);
        let epoch = self.core.log.epoch;
        let target = if self.core.announced.epoch() == epoch { self.core.announced.serial() } else { 0 };
        let hole = if self.filling.is_none() { self.core.first_hole(target) } else { None };
        let Some((first, last)) = hole else {
            self.lacked = None;
            return;
        };
        match self.lacked {
            Some((before, since)) if before == first => {
                if now.micros_since(since) >= self.core.config.resend_micros {
                    self.lacked = Some((first, now));
                    out.send(self.core.promise.manager, Message::Lack { epoch, first, last });
                }
            }
            // Other lanes may still bring it.
            _ => self.lacked = Some((first, now)),
        }
    }

    fn peer(&mut self, now: Moment, store: StoreId, reachable: bool, out: &mut Effects) {
        match &mut self.role {
            Role::Leader(leader) => leader.peer_reachable(now, store, reachable, out),
            Role::Manager(_) => {}
            Role::Follower | Role::Candidate if store == self.core.promise.manager => {
                if reachable {
                    self.role = Role::Follower;
                    self.core.say_hello(store, out);
                } else if self.role == Role::Follower {
                    self.role = Role::Candidate;
                    out.push(Effect::LeaderMissing { epoch: self.core.promise.epoch });
                }
            }
            Role::Follower | Role::Candidate => {}
        }
    }

    /// Stops leading or managing. Uncommitted items are held until an adoption tells their fate.
    pub(crate) fn depose(&mut self, out: &mut Effects) {
        let role = std::mem::replace(&mut self.role, Role::Follower);
        let Role::Leader(mut leader) = role else { return };
        for token in leader.reads.drain_clients() {
            out.push(Effect::ReadAgain { token });
        }
        let epoch = leader.promise.epoch;
        for serial in leader.committed + 1..leader.next {
            if self.core.log.slot(serial).is_some_and(|slot| !slot.is(COMMITTED)) {
                self.held.push((OpId::new(epoch, serial), Outcome::Unknown));
            }
        }
        out.push(Effect::Deposed);
    }

    /// The adopted reign is known to lead: what it decided about a deposed leader's items is decided for ever.
    pub(crate) fn reign_leads(&mut self, epoch: Epoch, out: &mut Effects) {
        if !self.held.is_empty() && self.core.in_reign(epoch) {
            for (op, outcome) in self.held.drain(..) {
                out.push(Effect::Settled { op, outcome });
            }
        }
    }

    /// Whether all wait for this replica, which does not act in its reign any more: it restarted, or was fenced. The others reach it, and don't
    /// know.
    pub(crate) fn leads_nobody(&self) -> bool {
        self.core.promise.manager == self.core.id
            && self.core.promise.epoch != Epoch::ZERO
            && matches!(self.role, Role::Follower | Role::Candidate)
    }

    pub(crate) fn is_leading(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    pub(crate) fn holds(&self, rule: crate::planted::Rule) -> bool {
        self.core.config.holds(rule)
    }

    pub(crate) fn leading(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    pub(crate) fn own_promise(&self, epoch: Epoch) -> Promise {
        Promise { epoch, manager: self.core.id, nonce: self.core.nonce }
    }
}
