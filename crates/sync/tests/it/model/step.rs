//! What can happen in a state, and what it leads to.

use super::reign;
use super::rules::{Bounds, Rules};
use super::state::{MEMBERS, Message, Role, State, bit};
use super::write;

/// One step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The control plane gives the next epoch to this member.
    Nominate(usize),
    /// The network delivers a message, perhaps once more.
    Deliver(Message, usize),
    /// The manager makes its basis of the answers it has.
    MakeBasis(usize),
    /// Final data below the basis lands in a member's tree; it comes from another member's.
    Land { to: usize, from: usize },
    /// The leader proposes a write.
    Propose(usize),
    /// A member's queued record is durable.
    Durable(usize),
    /// A client reads at the leader.
    Read(usize),
    /// The process dies and comes again with what is durable.
    Crash(usize),
    /// A manager that crashed goes on within its epoch (against the rules).
    Resume(usize),
    /// The disk is lost.
    Wipe(usize),
    /// The member stops for good.
    Die(usize),
}

/// The protocol under rules, within bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sync {
    pub(crate) rules: Rules,
    pub(crate) bounds: Bounds,
}

impl Sync {
    /// Slot of a reign's write.
    pub(crate) fn slot(&self, epoch: u8, write: u8) -> usize {
        usize::from((epoch - 1) * self.bounds.writes + write)
    }

    /// Slots of the reigns below `epoch`.
    pub(crate) fn slots_below(&self, epoch: u8) -> u8 {
        ((1_u16 << self.slot(epoch, 0)) - 1) as u8
    }

    /// Everything that may be tried; what changes nothing is dropped by [`Sync::next`].
    pub(crate) fn candidates(&self, state: &State, actions: &mut Vec<Action>) {
        for message in &state.network {
            match message {
                Message::Promise { epoch, .. }
                | Message::Adopted { epoch, .. }
                | Message::Acknowledge { epoch, .. }
                | Message::RoundAnswer { epoch, .. } => {
                    actions.push(Action::Deliver(*message, state.manager(*epoch)));
                }
                _ => {
                    actions.extend((0..MEMBERS).map(|to| Action::Deliver(*message, to)));
                }
            }
        }
        for member in 0..MEMBERS {
            if member <= usize::from(state.named) {
                actions.extend([Action::Nominate(member), Action::Wipe(member), Action::Die(member)]);
            }
            actions.extend([
                Action::MakeBasis(member),
                Action::Propose(member),
                Action::Durable(member),
                Action::Read(member),
                Action::Crash(member),
                Action::Resume(member),
            ]);
            actions.extend((0..MEMBERS).map(|from| Action::Land { to: member, from }));
        }
    }

    /// The state after an action, if the action can happen and changes anything.
    pub(crate) fn next(&self, state: &State, action: Action) -> Option<State> {
        let mut next = match action {
            Action::Nominate(member) => reign::nominate(self, state, member),
            Action::Deliver(message, to) => self.deliver(state, message, to),
            Action::MakeBasis(member) => reign::make_basis(self, state, member),
            Action::Land { to, from } => reign::land(state, to, from),
            Action::Propose(member) => write::propose(self, state, member),
            Action::Durable(member) => write::durable(self, state, member),
            Action::Read(member) => write::read(self, state, member),
            Action::Crash(member) => self.crash(state, member),
            Action::Resume(member) => reign::resume(self, state, member),
            Action::Wipe(member) => self.wipe(state, member),
            Action::Die(member) => self.die(state, member),
        }?;
        self.prune(&mut next);
        Some(next)
    }

    fn deliver(&self, state: &State, message: Message, to: usize) -> Option<State> {
        let member = &state.members[to];
        if member.dead || (member.wiped && self.rules.wiped_is_new) {
            return None;
        }
        match message {
            Message::Gather { epoch } => reign::gather(self, state, epoch, to),
            Message::Promise { epoch, from, answer } => {
                reign::promise(self, state, message, (epoch, from, answer), to)
            }
            Message::Adopt { epoch, checkpoint, basis, put } => {
                reign::adopt(self, state, (epoch, checkpoint, basis, put), to)
            }
            Message::Adopted { epoch, from } => reign::adopted(self, state, message, (epoch, from), to),
            Message::Store { epoch, slot } => write::store(self, state, epoch, slot, to),
            Message::Acknowledge { epoch, slot, from } => {
                write::acknowledge(self, state, message, (epoch, slot, from), to)
            }
            Message::CommitPoint { epoch, point } => write::commit_point(self, state, epoch, point, to),
            Message::Round { epoch, number } => write::round(state, epoch, number, to),
            Message::RoundAnswer { epoch, number, from } => {
                write::round_answer(self, state, message, (epoch, number, from), to)
            }
        }
    }

    fn crash(&self, state: &State, member: usize) -> Option<State> {
        let before = &state.members[member];
        let volatile = before.role != Role::Follower || before.landed.is_some() || before.queued.is_some();
        if state.crashes >= self.bounds.crashes || !volatile || before.dead {
            return None;
        }
        let mut next = state.clone();
        next.crashes += 1;
        forget(&mut next, member);
        Some(next)
    }

    fn wipe(&self, state: &State, member: usize) -> Option<State> {
        let before = &state.members[member];
        if state.wipes >= self.bounds.wipes || before.pre_epoch == 0 || before.dead {
            return None;
        }
        let mut next = state.clone();
        next.wipes += 1;
        forget(&mut next, member);
        next.members[member] = super::state::Member { wiped: true, ..super::state::Member::NEW };
        name(&mut next, member);
        Some(next)
    }

    fn die(&self, state: &State, member: usize) -> Option<State> {
        // Not in the last reign: liveness is asked of a nomination with a live majority.
        if state.deaths >= self.bounds.deaths || state.nominated >= self.bounds.reigns {
            return None;
        }
        let mut next = state.clone();
        next.deaths += 1;
        forget(&mut next, member);
        next.members[member].dead = true;
        name(&mut next, member);
        Some(next)
    }

    /// Drops messages that can change nothing any more, so that states alike are one.
    fn prune(&self, state: &mut State) {
        let mut network = std::mem::take(&mut state.network);
        network.retain(|message| self.matters(state, *message));
        state.network = network;
    }

    /// Whether the manager of an epoch may gather in it once more.
    fn may_resume(&self, state: &State, epoch: u8) -> bool {
        let manager = &state.members[state.manager(epoch)];
        let resumes = state.crashes < self.bounds.crashes || manager.role == Role::Follower;
        !self.rules.fresh_epoch_after_restart && resumes && manager.pre_epoch == epoch
    }

    fn matters(&self, state: &State, message: Message) -> bool {
        let any = |test: &dyn Fn(&super::state::Member) -> bool| {
            state.members.iter().any(|member| !member.dead && test(member))
        };
        let role = |epoch| state.members[state.manager(epoch)].role;
        match message {
            Message::Gather { epoch } => {
                any(&|member| member.pre_epoch < epoch)
                    || (!self.rules.fresh_epoch_after_restart || !self.rules.frozen_basis)
                        && any(&|member| member.pre_epoch == epoch)
            }
            Message::Promise { epoch, .. } => match role(epoch) {
                Role::Gathering { epoch: own, .. } => own == epoch,
                Role::Adopting { epoch: own, .. } => own == epoch && !self.rules.frozen_basis,
                _ => self.may_resume(state, epoch),
            },
            Message::Adopt { epoch, .. } => any(&|member| member.epoch < epoch && member.pre_epoch <= epoch),
            Message::Adopted { epoch, .. } => {
                matches!(role(epoch), Role::Adopting { epoch: own, .. } if own == epoch)
                    || self.may_resume(state, epoch)
            }
            Message::Store { epoch, slot } => any(&|member| {
                member.pre_epoch <= epoch
                    && (member.tree & bit(usize::from(slot)) == 0 || !self.rules.adopt_interrupted)
            }),
            Message::Acknowledge { epoch, slot, from } => match role(epoch) {
                Role::Leading(reign) => {
                    reign.epoch == epoch
                        && reign.committed & bit(usize::from(slot)) == 0
                        && reign.acknowledged[usize::from(slot)] & bit(usize::from(from)) == 0
                }
                _ => false,
            },
            Message::CommitPoint { epoch, point } => any(&|member| {
                let own = member.pre_epoch <= epoch && member.epoch <= epoch;
                member.checkpoint < point && (own || !self.rules.commit_point_of_own_epoch)
            }),
            Message::Round { epoch, .. } => any(&|member| member.pre_epoch <= epoch),
            Message::RoundAnswer { epoch, .. } => {
                matches!(role(epoch), Role::Leading(reign) if reign.epoch == epoch)
            }
        }
    }
}

/// What a crash takes.
fn forget(state: &mut State, member: usize) {
    let after = &mut state.members[member];
    after.role = Role::Follower;
    after.landed = None;
    after.queued = None;
    if state.read.is_some_and(|read| usize::from(read.member) == member) {
        state.read = None;
    }
}

/// Notes that a member is told from its like from now on.
pub(crate) fn name(state: &mut State, member: usize) {
    state.named = state.named.max(u8::try_from(member).expect("three members") + 1);
}
