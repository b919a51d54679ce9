//! Writing in one phase, the commit point, and reads confirmed by a round.

use super::reign::prefix_end;
use super::state::{MAJORITY, Message, Read, Reign, Role, SERIALS, State, bit, slots};
use super::step::Sync;

fn leading(model: &Sync, state: &State, member: usize) -> Option<Reign> {
    let leader = &state.members[member];
    match leader.role {
        Role::Leading(reign) if leader.pre_epoch == reign.epoch || !model.rules.promise_stops_leader => {
            Some(reign)
        }
        _ => None,
    }
}

pub(crate) fn propose(model: &Sync, state: &State, leader: usize) -> Option<State> {
    let reign = leading(model, state, leader)?;
    let member = &state.members[leader];
    let proposed = state.op_ids.iter().filter(|id| **id != 0).count();
    if proposed >= model.bounds.items
        || reign.proposed >= model.bounds.writes
        || member.queued.is_some()
        || member.dead
    {
        return None;
    }
    let slot = model.slot(reign.epoch, reign.proposed);
    let mut next = state.clone();
    next.op_ids[slot] = if model.rules.unique_op_ids {
        reign.epoch * SERIALS + reign.proposed + 1
    } else {
        state.greatest_id(member.tail | member.tree | reign.open).max(member.basis_end) + 1
    };
    // Each write reads what is pending: a later write of the same session does.
    next.reads_of[slot] = reign.open & !reign.committed;
    let Role::Leading(after) = &mut next.members[leader].role else { return None };
    after.proposed += 1;
    after.open |= bit(slot);
    let slot = u8::try_from(slot).expect("eight slots");
    next.send(Message::Store { epoch: reign.epoch, slot });
    emit(model, &mut next, reign.epoch, slot, leader);
    Some(next)
}

/// A member that may store an item emits the record; without a queue it is durable at once.
fn emit(model: &Sync, state: &mut State, epoch: u8, slot: u8, at: usize) {
    state.members[at].queued = Some((epoch, slot));
    if !model.bounds.queue {
        become_durable(model, state, at);
    } else if !model.rules.acknowledge_durable {
        answer(model, state, epoch, slot, at);
    }
}

pub(crate) fn durable(model: &Sync, state: &State, at: usize) -> Option<State> {
    state.members[at].queued?;
    let mut next = state.clone();
    become_durable(model, &mut next, at);
    Some(next)
}

fn become_durable(model: &Sync, state: &mut State, at: usize) {
    let Some((epoch, slot)) = state.members[at].queued.take() else { return };
    let item = bit(usize::from(slot));
    let member = state.members[at];
    state.members[at].tail = state.put(member.tail, item);
    state.members[at].tree = state.put(member.tree, item);
    let still = member.pre_epoch == epoch && member.epoch == epoch;
    let leads_on = !model.rules.promise_stops_leader && member.role.epoch() == epoch;
    if still || leads_on || !model.rules.acknowledge_rechecked || !model.rules.store_after_adoption {
        answer(model, state, epoch, slot, at);
    }
}

/// The acknowledgement of a stored item: a message, or at the leader its own count.
fn answer(model: &Sync, state: &mut State, epoch: u8, slot: u8, from: usize) {
    if let Role::Leading(reign) = state.members[from].role
        && reign.epoch == epoch
    {
        count(model, state, slot, from, from);
    } else {
        state.send(Message::Acknowledge { epoch, slot, from: u8::try_from(from).expect("three members") });
    }
}

pub(crate) fn store(model: &Sync, state: &State, epoch: u8, slot: u8, to: usize) -> Option<State> {
    let member = &state.members[to];
    let stands = member.pre_epoch == epoch && member.epoch == epoch;
    let early = !model.rules.store_after_adoption && member.pre_epoch == epoch;
    if !(stands || early) || member.queued.is_some() {
        return None;
    }
    let mut next = state.clone();
    let held =
        member.tail & bit(usize::from(slot)) != 0 || state.op_ids[usize::from(slot)] <= member.checkpoint;
    if held {
        answer(model, &mut next, epoch, slot, to);
    } else {
        emit(model, &mut next, epoch, slot, to);
    }
    (next != *state).then_some(next)
}

pub(crate) fn acknowledge(
    model: &Sync,
    state: &State,
    message: Message,
    (epoch, slot, from): (u8, u8, u8),
    to: usize,
) -> Option<State> {
    if leading(model, state, to)?.epoch != epoch {
        return None;
    }
    let mut next = state.clone();
    next.take(message);
    count(model, &mut next, slot, usize::from(from), to);
    Some(next)
}

/// The leader counts an acknowledgement, and commits what a majority holds with all that it reads.
fn count(model: &Sync, state: &mut State, slot: u8, from: usize, leader: usize) {
    let (op_ids, reads_of) = (state.op_ids, state.reads_of);
    let Role::Leading(reign) = &mut state.members[leader].role else { return };
    reign.acknowledged[usize::from(slot)] |= bit(from);
    let needed = if model.rules.commit_on_majority { MAJORITY } else { 1 };
    for slot in slots(reign.open) {
        let stored = reign.acknowledged[slot].count_ones() >= needed;
        let reads_done = reads_of[slot] & !reign.committed == 0 || !model.rules.reads_bind;
        if stored && reads_done {
            reign.committed |= bit(slot);
        }
    }
    let mut open: Vec<usize> = slots(reign.open).collect();
    open.sort_by_key(|slot| op_ids[*slot]);
    for slot in open {
        if reign.committed & bit(slot) == 0 {
            break;
        }
        reign.point = reign.point.max(op_ids[slot]);
    }
    let (epoch, point, committed) = (reign.epoch, reign.point, reign.committed);
    for slot in slots(committed) {
        // More acknowledgements of a committed item say nothing.
        reign.acknowledged[slot] = 0;
    }
    state.ghost.committed |= committed;
    if point > 0 {
        state.send(Message::CommitPoint { epoch, point });
    }
}

pub(crate) fn commit_point(model: &Sync, state: &State, epoch: u8, point: u8, to: usize) -> Option<State> {
    let member = &state.members[to];
    let own = member.pre_epoch == epoch && member.epoch == epoch;
    if !own && model.rules.commit_point_of_own_epoch {
        return None;
    }
    let within = if model.rules.checkpoint_within_prefix { prefix_end(model, state, to) } else { point };
    let checkpoint = point.min(within);
    if checkpoint <= member.checkpoint {
        return None;
    }
    let mut next = state.clone();
    next.members[to].checkpoint = checkpoint;
    next.members[to].tail = state.where_id(member.tail, |id| id > checkpoint);
    Some(next)
}

pub(crate) fn read(model: &Sync, state: &State, leader: usize) -> Option<State> {
    let reign = leading(model, state, leader)?;
    if state.reads >= model.bounds.reads || state.read.is_some() {
        return None;
    }
    let mut next = state.clone();
    next.reads += 1;
    let (member, number) = (u8::try_from(leader).expect("three members"), next.reads);
    next.read = Some(Read { member, number, floor: state.ghost.committed, answered: bit(leader) });
    next.send(Message::Round { epoch: reign.epoch, number });
    Some(next)
}

pub(crate) fn round(state: &State, epoch: u8, number: u8, to: usize) -> Option<State> {
    if state.members[to].pre_epoch != epoch || state.manager(epoch) == to {
        return None;
    }
    let mut next = state.clone();
    next.send(Message::RoundAnswer { epoch, number, from: u8::try_from(to).expect("three members") });
    (next != *state).then_some(next)
}

/// An answer of the round; with a majority the read is answered from what the leader knows as committed.
pub(crate) fn round_answer(
    model: &Sync,
    state: &State,
    message: Message,
    (epoch, number, from): (u8, u8, u8),
    to: usize,
) -> Option<State> {
    let reign = leading(model, state, to)?;
    let read = state.read.filter(|read| usize::from(read.member) == to && reign.epoch == epoch)?;
    if read.number != number && model.rules.numbered_rounds {
        return None;
    }
    let mut next = state.clone();
    next.take(message);
    let answered = read.answered | bit(usize::from(from));
    next.read = Some(Read { answered, ..read });
    if answered.count_ones() >= MAJORITY {
        let leader = &state.members[to];
        let shown = reign.committed | state.where_id(leader.tree, |id| id <= leader.checkpoint);
        next.ghost.stale_read |= state.greatest_id(read.floor) > state.greatest_id(shown);
        next.read = None;
    }
    Some(next)
}
