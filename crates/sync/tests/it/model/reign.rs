//! Becoming leader: nominate, gather, basis, adopt, lead.

use super::state::{Answer, MAJORITY, MEMBERS, Message, Reign, Role, SERIALS, SLOTS, State, bit, slots};
use super::step::{Sync, name};

pub(crate) fn nominate(model: &Sync, state: &State, member: usize) -> Option<State> {
    let epoch = state.nominated + 1;
    let manager = &state.members[member];
    let waits = model.bounds.in_turn
        && state.nominated > 0
        && state.ghost.led & bit(usize::from(state.nominated)) == 0;
    if waits || epoch > model.bounds.reigns || manager.pre_epoch >= epoch || manager.dead || manager.wiped {
        return None;
    }
    let mut next = state.clone();
    next.nominated = epoch;
    next.managers[usize::from(epoch)] = u8::try_from(member).expect("three members");
    name(&mut next, member);
    abandon(&mut next, member);
    next.members[member].role = Role::Gathering { epoch, answers: [None; MEMBERS] };
    next.send(Message::Gather { epoch });
    Some(next)
}

/// A manager that crashed takes its epoch up again: only without the rule that forbids it.
pub(crate) fn resume(model: &Sync, state: &State, member: usize) -> Option<State> {
    let manager = &state.members[member];
    let epoch = manager.pre_epoch;
    let crashed = state.crashes > 0 && manager.role == Role::Follower && !manager.dead;
    if model.rules.fresh_epoch_after_restart || !crashed || epoch == 0 || state.manager(epoch) != member {
        return None;
    }
    let mut next = state.clone();
    next.members[member].role = Role::Gathering { epoch, answers: [None; MEMBERS] };
    Some(next)
}

/// Leaves a role, and the read that rested on it.
fn abandon(state: &mut State, member: usize) {
    state.members[member].role = Role::Follower;
    if state.read.is_some_and(|read| usize::from(read.member) == member) {
        state.read = None;
    }
}

pub(crate) fn gather(model: &Sync, state: &State, epoch: u8, to: usize) -> Option<State> {
    let member = &state.members[to];
    if member.pre_epoch > epoch || (model.rules.promise_is_barrier && member.queued.is_some()) {
        return None;
    }
    let again = member.pre_epoch == epoch;
    if again
        && model.rules.promise_before_answer
        && model.rules.fresh_epoch_after_restart
        && model.rules.frozen_basis
    {
        // The same answer to the same question: it changes nothing.
        return None;
    }
    let wants = match state.members[state.manager(epoch)].role {
        Role::Gathering { epoch: own, answers } => own == epoch && answers[to].is_none(),
        Role::Adopting { epoch: own, answers, .. } => {
            own == epoch && !model.rules.frozen_basis && answers[to].is_none()
        }
        _ => false,
    };
    if (again || !model.rules.promise_before_answer) && !wants {
        return None;
    }
    let answer = Answer { stands: member.epoch, checkpoint: member.checkpoint, tail: member.tail };
    let mut next = state.clone();
    if model.rules.promise_before_answer {
        next.members[to].pre_epoch = epoch;
        // A manager that was named for a higher epoch, and has not promised itself yet, goes on.
        if model.rules.promise_stops_leader && member.role.epoch() < epoch {
            abandon(&mut next, to);
        }
    }
    next.send(Message::Promise { epoch, from: u8::try_from(to).expect("three members"), answer });
    (next != *state).then_some(next)
}

pub(crate) fn promise(
    model: &Sync,
    state: &State,
    message: Message,
    (epoch, from, answer): (u8, u8, Answer),
    to: usize,
) -> Option<State> {
    let mut next = state.clone();
    next.take(message);
    match &mut next.members[to].role {
        Role::Gathering { epoch: own, answers } if *own == epoch => answers[usize::from(from)] = Some(answer),
        Role::Adopting { epoch: own, answers, .. } if *own == epoch && !model.rules.frozen_basis => {
            answers[usize::from(from)] = Some(answer);
        }
        _ => return None,
    }
    Some(next)
}

pub(crate) fn make_basis(model: &Sync, state: &State, member: usize) -> Option<State> {
    let manager = &state.members[member];
    let (epoch, answers, adopted) = match manager.role {
        Role::Gathering { epoch, answers } => (epoch, answers, 0),
        Role::Adopting { epoch, answers, adopted } if !model.rules.frozen_basis => (epoch, answers, adopted),
        _ => return None,
    };
    let given: Vec<Answer> = answers.iter().flatten().copied().collect();
    if given.len() < MAJORITY as usize {
        return None;
    }
    let highest = given.iter().map(|answer| answer.stands).max()?;
    let checkpoint = given.iter().map(|answer| answer.checkpoint).max()?;
    let counted: Vec<&Answer> =
        given.iter().filter(|answer| !model.rules.highest_epoch_only || answer.stands == highest).collect();
    let above = |items| state.where_id(items, |id| id > checkpoint);
    let mut basis = counted.iter().fold(0, |all, answer| state.put(all, above(answer.tail)));
    if model.rules.reads_bind {
        basis = without_skipped_reads(state, basis, checkpoint);
    }
    let completed = counted.iter().fold(basis, |all, answer| all & answer.tail);
    let put = if model.rules.adopt_interrupted { basis } else { completed };
    let mut next = state.clone();
    // With a frozen basis the answers are spent.
    let answers = if model.rules.frozen_basis { [None; MEMBERS] } else { answers };
    next.members[member].role = Role::Adopting { epoch, answers, adopted };
    next.send(Message::Adopt { epoch, checkpoint, basis, put });
    (next != *state).then_some(next)
}

/// A basis without the items that read, directly or through others, what it skips.
fn without_skipped_reads(state: &State, mut basis: u8, checkpoint: u8) -> u8 {
    loop {
        let kept = slots(basis)
            .filter(|slot| state.where_id(state.reads_of[*slot] & !basis, |id| id > checkpoint) == 0)
            .fold(0, |set, slot| set | bit(slot));
        if kept == basis {
            return basis;
        }
        basis = kept;
    }
}

/// Final data up to the checkpoint of a basis lands in the tree of a member that lacks it.
pub(crate) fn land(state: &State, to: usize, from: usize) -> Option<State> {
    let (member, source) = (&state.members[to], &state.members[from]);
    if to == from || member.dead || source.dead || source.wiped {
        return None;
    }
    let (epoch, upto) = state.network.iter().rev().find_map(|message| match message {
        Message::Adopt { epoch, checkpoint, .. } if member.pre_epoch <= *epoch && member.epoch < *epoch => {
            (member.checkpoint < *checkpoint && source.checkpoint >= *checkpoint)
                .then_some((*epoch, *checkpoint))
        }
        _ => None,
    })?;
    if member.landed.is_some_and(|(of, _)| of == epoch) {
        return None;
    }
    let items = state.where_id(source.tree, |id| id <= upto);
    let mut next = state.clone();
    next.members[to].tree = state.put(member.tree, items);
    next.members[to].landed = Some((epoch, items));
    Some(next)
}

pub(crate) fn adopt(
    model: &Sync,
    state: &State,
    (epoch, checkpoint, basis, put): (u8, u8, u8, u8),
    to: usize,
) -> Option<State> {
    let member = &state.members[to];
    let behind = member.checkpoint < checkpoint;
    let landed = member.landed.filter(|(of, _)| *of == epoch).map(|(_, items)| items);
    if member.pre_epoch > epoch
        || member.epoch >= epoch
        || (model.rules.promise_is_barrier && member.queued.is_some())
        || (behind && landed.is_none())
    {
        return None;
    }
    let spared = if behind && model.rules.retract_spares_final { landed.unwrap_or(0) } else { 0 };
    let retracted = member.tail & !basis & !spared;
    let mut next = state.clone();
    let tree = state.put(state.remove(member.tree, retracted), put);
    let after = &mut next.members[to];
    after.tree = tree;
    after.checkpoint = member.checkpoint.max(checkpoint);
    // The outline leaves a member its own interrupted items, and has it wait for the rest.
    let kept = if model.rules.adopt_interrupted { 0 } else { member.tail & basis };
    let (own_checkpoint, end) = (after.checkpoint, state.greatest_id(put).max(checkpoint));
    after.tail = state.where_id(state.put(kept, put), |id| id > own_checkpoint);
    after.basis_end = end;
    after.epoch = epoch;
    after.pre_epoch = epoch;
    after.landed = None;
    if member.role.epoch() < epoch {
        abandon(&mut next, to);
    }
    next.send(Message::Adopted { epoch, from: u8::try_from(to).expect("three members") });
    Some(next)
}

pub(crate) fn adopted(
    model: &Sync,
    state: &State,
    message: Message,
    (epoch, from): (u8, u8),
    to: usize,
) -> Option<State> {
    let mut next = state.clone();
    next.take(message);
    let Role::Adopting { epoch: own, adopted, .. } = &mut next.members[to].role else { return None };
    if *own != epoch {
        return None;
    }
    *adopted |= bit(usize::from(from));
    let enough = adopted.count_ones() >= MAJORITY && *adopted & bit(to) != 0;
    if enough && (next.members[to].pre_epoch == epoch || !model.rules.promise_stops_leader) {
        lead(model, &mut next, epoch, to);
    }
    Some(next)
}

/// A majority stands in the epoch: every item of the basis is committed, everything else of earlier reigns is cancelled.
fn lead(model: &Sync, state: &mut State, epoch: u8, leader: usize) {
    let member = &state.members[leader];
    let (mut open, mut committed, mut point) = (0, member.tail, member.basis_end.max(member.checkpoint));
    if !model.rules.adopt_interrupted {
        // The outline's leader has the interrupted items still to finish.
        let (basis, put) = basis_of(state, epoch);
        (open, committed, point) = (basis & !put, put, member.checkpoint);
        for slot in slots(open) {
            state.send(Message::Store { epoch, slot: u8::try_from(slot).expect("eight slots") });
        }
    }
    let basis = open
        | committed
        | state.where_id(state.members[leader].tree, |id| id <= state.members[leader].checkpoint);
    state.ghost.committed |= committed;
    state.ghost.cancelled |= model.slots_below(epoch) & !basis;
    state.ghost.led_twice |= state.ghost.led & bit(usize::from(epoch)) != 0;
    state.ghost.led |= bit(usize::from(epoch));
    let reign = Reign { epoch, open, acknowledged: [0; SLOTS], committed, point, proposed: 0 };
    state.members[leader].role = Role::Leading(reign);
    if point > 0 {
        state.send(Message::CommitPoint { epoch, point });
    }
}

fn basis_of(state: &State, epoch: u8) -> (u8, u8) {
    let found = state.network.iter().find_map(|message| match message {
        Message::Adopt { epoch: of, basis, put, .. } if *of == epoch => Some((*basis, *put)),
        _ => None,
    });
    found.unwrap_or((0, 0))
}

/// End of a member's gap-free durable prefix.
pub(crate) fn prefix_end(model: &Sync, state: &State, of: usize) -> u8 {
    let member = &state.members[of];
    let mut end = if model.rules.adopt_interrupted {
        member.checkpoint.max(member.basis_end)
    } else {
        member.checkpoint
    };
    loop {
        let first = member.epoch * SERIALS + 1;
        let after = if !model.rules.unique_op_ids || end >= first { end + 1 } else { first };
        if slots(member.tail).any(|slot| state.op_ids[slot] == after) {
            end = after;
        } else {
            return end;
        }
    }
}
