//! Changes of reign: promises, the basis, adoption.

use kvorum_sync::{
    Config, Digest, Durable, Gather, Input, Membership, Message, OpId, Outcome, Promise, Promised, RoleName,
    Rule, Standing,
};

use super::bites;
use crate::group::{Group, config, epoch, item, op, store};

/// X is on A and B and acknowledged; A stops; C manages with B: X is interrupted; B stops and A returns.
fn interrupted_write_survives(config: &Config) -> bool {
    let mut group = Group::led(config);
    group.cut_off(3);
    let written = group.propose(1, &[]).unwrap();
    group.run();
    assert!(group.member(1).committed.contains(&written));
    group.heal();
    group.crash(1);
    group.nominate(3, 2, &[1, 2, 3]);
    group.settle();
    group.crash(2);
    group.start(1);
    group.nominate(3, 3, &[1, 2, 3]);
    group.settle();
    group.start(2);
    group.nominate(3, 4, &[1, 2, 3]);
    group.settle();
    group.leads(3) && group.lost().is_empty()
}

#[test]
fn outline_loses_interrupted() {
    bites(Rule::AdoptInterrupted, interrupted_write_survives);
}

#[test]
fn op_id_reuse_catchup_then_retract() {
    // A was cut off holding an item that became final elsewhere; it fetches the final data first and adopts afterwards.
    bites(Rule::KeepConfirmed, |config| {
        let mut group = Group::led(config);
        group.cut.insert((store(1), store(3)));
        let first = group.propose(1, &[]).unwrap();
        group.run();
        group.heal();
        group.cut_off(2);
        let second = group.propose(1, &[]).unwrap();
        group.run();
        group.settle();
        group.heal();
        group.settle();
        assert!(group.member(1).committed.contains(&first) && group.member(1).committed.contains(&second));
        // The third member's disk holds both above a low checkpoint, in an older reign.
        group.crash(2);
        group.member(2).durable = Durable {
            promise: group.members[&store(1)].durable.promise,
            epoch: epoch(1),
            ..Durable::default()
        };
        let tail = [item(first, &[]), item(second, &[])];
        group.member(2).durable.tail.extend(tail.into_iter().map(|item| (item.op, item)));
        group.member(2).tree.extend([first, second]);
        group.nominate(1, 2, &[1, 2, 3]);
        group.settle();
        group.propose(1, &[]).unwrap();
        group.settle();
        group.start(2);
        group.input(1, Input::Peer { store: store(2), reachable: true });
        group.settle();
        group.lost().is_empty()
    });
}

#[test]
fn basis_remade_in_same_epoch() {
    bites(Rule::FrozenBasis, |config| {
        let mut group = Group::led(config);
        // An item that only the first member has; its answer comes after the basis of the two others was adopted by one of them.
        group.cut_off(1);
        let lonely = group.propose(1, &[]).unwrap();
        group.run();
        group.nominate(2, 2, &[1, 2, 3]);
        while group.replica(3).epoch() != epoch(2) {
            assert!(group.deliver());
        }
        group.network.clear();
        let answer = Promised {
            promise: group.replica(2).promise(),
            epoch: epoch(1),
            checkpoint: group.replica(1).checkpoint(),
            tail: vec![item(lonely, &[])],
            standing: Standing::Whole,
        };
        let message = Message::Promised(Box::new(answer));
        group.input(2, Input::Message { from: store(1), message });
        !group.network.iter().any(|(_, _, message)| matches!(message, Message::Adopt(_)))
    });
}

#[test]
fn manager_restart_same_epoch() {
    bites(Rule::FreshEpochAfterRestart, |config| {
        let mut group = Group::led(config);
        group.cut_off(1);
        group.nominate(1, 2, &[1, 2, 3]);
        group.crash(1);
        group.start(1);
        group.told(1);
        group.nominate(1, 2, &[1, 2, 3]);
        group.role(1) != RoleName::Manager && group.told(1) == ["ask StaleEpoch above e2"]
    });
}

#[test]
fn repeated_gather_is_answered_to_the_same_triple_only() {
    bites(Rule::PromiseTriple, |config| {
        let mut group = Group::led(config);
        group.nominate(2, 2, &[1, 2, 3]);
        group.run();
        let mut promise = group.replica(3).promise();
        promise.nonce += 7;
        let gather = Gather { promise, membership: Membership::steady(&[store(1), store(2), store(3)]) };
        group.input(3, Input::Message { from: store(2), message: Message::Gather(Box::new(gather)) });
        matches!(group.network.back(), Some((_, _, Message::Refused { .. })))
    });
}

#[test]
fn stale_epoch_takes_commit_point() {
    bites(Rule::CommitPointNeedsEpoch, |config| {
        let mut group = Group::led(config);
        // The third member holds an item that nobody else has, and promised a reign in which it is cancelled.
        group.cut.insert((store(1), store(2)));
        group.member(1).syncs = false;
        group.propose(1, &[]).unwrap();
        group.run();
        group.crash(1);
        group.member(1).syncs = true;
        group.heal();
        let gather = Gather {
            promise: Promise { epoch: epoch(2), manager: store(2), nonce: 1 },
            membership: Membership::steady(&[store(1), store(2), store(3)]),
        };
        group.input(3, Input::Message { from: store(2), message: Message::Gather(Box::new(gather)) });
        let point = Message::Point { epoch: epoch(2), point: op(1, 1), digest: Digest(0), head: 0 };
        group.input(3, Input::Message { from: store(2), message: point });
        group.replica(3).checkpoint().op == OpId::ZERO
    });
}

#[test]
fn promise_overtakes_queued_write() {
    // The third member has an acknowledged item's record queued; its answer to a gather must wait for it and tell of it.
    bites(Rule::PromiseBehindWrites, |config| {
        let mut group = Group::led(config);
        group.cut.insert((store(1), store(2)));
        group.member(3).syncs = false;
        group.propose(1, &[]).unwrap();
        group.run();
        group.heal();
        group.cut_off(1);
        group.nominate(2, 2, &[1, 2, 3]);
        group.run();
        // Nothing is durable at the third member: an answer now would be a promise, and a tail, that power loss takes back.
        group.replica(2).epoch() == epoch(1)
    });
}

#[test]
fn item_stored_before_adoption() {
    bites(Rule::StoreNeedsAdoption, |config| {
        let mut group = Group::led(config);
        let gather = Gather {
            promise: Promise { epoch: epoch(2), manager: store(2), nonce: 1 },
            membership: Membership::steady(&[store(1), store(2), store(3)]),
        };
        group.input(3, Input::Message { from: store(2), message: Message::Gather(Box::new(gather)) });
        let write = Message::Write { epoch: epoch(2), item: item(op(2, 1), &[]), point: OpId::ZERO };
        group.input(3, Input::Message { from: store(2), message: write });
        let acked = group.network.iter().any(|(_, _, message)| matches!(message, Message::Ack { .. }));
        !acked && !group.member(3).tree.contains(&op(2, 1))
    });
}

#[test]
fn a_retracted_item_is_told_as_cancelled_and_a_kept_one_as_kept() {
    let mut group = Group::led(&config());
    group.cut.insert((store(1), store(2)));
    group.cut.insert((store(3), store(1)));
    let kept = group.propose(1, &[]).unwrap();
    group.run();
    group.cut_off(1);
    let cancelled = group.propose(1, &[]).unwrap();
    group.run();
    group.heal();
    group.nominate(3, 2, &[1, 2, 3]);
    group.cut.insert((store(1), store(3)));
    group.run();
    group.heal();
    group.settle();
    assert!(group.leads(3));
    assert_eq!(group.member(1).settled.get(&kept), Some(&Outcome::Kept));
    assert_eq!(group.member(1).settled.get(&cancelled), Some(&Outcome::Cancelled));
    assert!(group.lost().is_empty());
    assert_eq!(group.checkpoints(), ["1.1", "1.1", "1.1"]);
}
