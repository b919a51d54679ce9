//! The counterexamples that stand behind the rules: the sound core holds, the core with the rule switched off fails.

use kvorum_sync::{
    Config, Durable, Effect, Input, Members, Membership, Message, Names, OpId, Refusal, Register,
};
use kvorum_sync::{Outcome, Rule, Token};

use crate::group::{Group, config, epoch, item, op, store, without};

/// Runs a scenario with the rule on and with it off: it must hold, and must break.
fn bites(rule: Rule, holds: impl Fn(&Config) -> bool) {
    assert!(holds(&config()), "the sound core fails");
    assert!(!holds(&without(rule)), "{rule:?} switched off is not noticed");
}

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
        let answer = kvorum_sync::Promised {
            promise: group.replica(2).promise(),
            epoch: epoch(1),
            checkpoint: group.replica(1).checkpoint(),
            tail: vec![item(lonely, &[])],
            standing: kvorum_sync::Standing::Whole,
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
        group.role(1) != kvorum_sync::RoleName::Manager && group.told(1) == ["ask StaleEpoch above e2"]
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
        let gather =
            kvorum_sync::Gather { promise, membership: Membership::steady(&[store(1), store(2), store(3)]) };
        group.input(3, Input::Message { from: store(2), message: Message::Gather(Box::new(gather)) });
        matches!(group.network.back(), Some((_, _, Message::Refused { .. })))
    });
}

#[test]
fn checkpoint_over_hole() {
    bites(Rule::CheckpointStopsAtHole, |config| {
        let mut group = Group::led(config);
        group.cut.insert((store(1), store(3)));
        group.propose(1, &[]).unwrap();
        group.run();
        group.heal();
        group.propose(1, &[]).unwrap();
        group.run();
        let point =
            Message::Point { epoch: epoch(1), point: op(1, 2), digest: kvorum_sync::Digest(0), head: 2 };
        group.input(3, Input::Message { from: store(1), message: point });
        group.replica(3).checkpoint().op < op(1, 1)
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
        let gather = kvorum_sync::Gather {
            promise: kvorum_sync::Promise { epoch: epoch(2), manager: store(2), nonce: 1 },
            membership: Membership::steady(&[store(1), store(2), store(3)]),
        };
        group.input(3, Input::Message { from: store(2), message: Message::Gather(Box::new(gather)) });
        let point =
            Message::Point { epoch: epoch(2), point: op(1, 1), digest: kvorum_sync::Digest(0), head: 0 };
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
        let gather = kvorum_sync::Gather {
            promise: kvorum_sync::Promise { epoch: epoch(2), manager: store(2), nonce: 1 },
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
fn wiped_disk_same_id_votes() {
    // X is on A and B; B's disk is wiped and comes back under its old number, in a state that says so.
    bites(Rule::RebuildingCountsNot, |config| {
        let mut group = Group::led(config);
        group.cut_off(3);
        group.propose(1, &[]).unwrap();
        group.run();
        group.heal();
        group.crash(1);
        group.crash(2);
        group.member(2).durable = Durable {
            standing: kvorum_sync::Standing::Rebuilding { until: OpId::MAX },
            ..Durable::default()
        };
        group.member(2).tree.clear();
        group.start(2);
        group.nominate(3, 2, &[1, 2, 3]);
        group.settle();
        // Without the one that has X, nobody may lead.
        !group.leads(3)
    });
}

#[test]
fn a_wiped_disk_under_a_new_number_counts_in_no_majority() {
    let mut group = Group::led(&config());
    group.cut_off(3);
    group.propose(1, &[]).unwrap();
    group.run();
    group.heal();
    group.crash(1);
    group.crash(2);
    group.add(4, &config(), Durable::default());
    group.nominate(3, 2, &[1, 2, 3]);
    group.settle();
    assert!(!group.leads(3));
}

#[test]
fn power_cycle_in_written() {
    // A weaker durability class: the log of the second member was cut by power loss, and lacks an acknowledged item.
    bites(Rule::CutLogRebuilds, |config| {
        let mut group = Group::led(config);
        group.cut_off(3);
        let written = group.propose(1, &[]).unwrap();
        group.run();
        group.heal();
        group.crash(1);
        group.crash(2);
        group.member(2).durable.tail.remove(&written);
        group.member(2).tree.remove(&written);
        group.start_intact(2, false);
        group.nominate(3, 2, &[1, 2, 3]);
        group.settle();
        !group.leads(3)
    });
}

#[test]
fn late_led_report_two_adds() {
    let members = |list: &[u64]| Members::of(&list.iter().copied().map(store).collect::<Vec<_>>());
    let mut register = Register::new(members(&[1, 2, 3]));
    let (first, _) = register.nominate(epoch(0), members(&[1, 2, 3, 4])).unwrap();
    let (second, membership) = register.nominate(epoch(0), members(&[1, 2, 3, 5])).unwrap();
    assert_eq!(membership.old, members(&[1, 2, 3]), "until the last nomination leads, old stays old");
    // The first manager's report comes late: {1, 2, 3, 4} never becomes current beside {1, 2, 3, 5}.
    assert!(!register.led(first));
    assert!(register.led(second));
    assert_eq!(register.current(), &members(&[1, 2, 3, 5]));
    assert!(register.nominate(epoch(0), members(&[1, 2, 3, 4])).is_err(), "one member at a time");
}

#[test]
fn lease_grant_forgotten_on_restart() {
    let holds = |mut config: Config| {
        config.lease_micros = Some(1_000_000);
        let mut group = Group::with(3, &config);
        group.now = kvorum_sync::Moment(10_000_000);
        group.nominate(1, 1, &[1, 2, 3]);
        group.run();
        group.now = group.now.after_micros(2_000_000);
        group.settle();
        assert!(group.leads(1));
        group.cut_off(1);
        group.crash(2);
        group.start(2);
        group.crash(3);
        group.start(3);
        group.nominate(3, 2, &[1, 2, 3]);
        group.run();
        // The old leader still answers reads under its lease.
        group.told(1);
        group.input(1, Input::Read { token: Token(5), rests_on: Names::none() });
        let served = group.told(1) == ["read 5 ready"];
        !(served && group.leads(3))
    };
    assert!(holds(config()));
    assert!(!holds(without(Rule::LeaseOutlivesRestart)));
}

#[test]
fn a_lease_binds_those_who_granted_it() {
    let holds = |mut config: Config| {
        config.lease_micros = Some(1_000_000);
        let mut group = Group::with(3, &config);
        group.now = kvorum_sync::Moment(10_000_000);
        group.nominate(1, 1, &[1, 2, 3]);
        group.run();
        group.now = group.now.after_micros(2_000_000);
        group.settle();
        group.cut_off(1);
        group.nominate(3, 2, &[1, 2, 3]);
        group.run();
        !group.leads(3)
    };
    assert!(holds(config()));
    assert!(!holds(without(Rule::LeaseBindsGranter)));
}

#[test]
fn late_read_round_answer() {
    bites(Rule::RoundAfterArrival, |config| {
        let mut group = Group::led(config);
        group.input(1, Input::Read { token: Token(1), rests_on: Names::none() });
        let ping =
            group.network.iter().position(|(_, _, message)| matches!(message, Message::Ping { .. })).unwrap();
        let (_, to, message) = group.network.remove(ping).unwrap();
        group.network.clear();
        // A member answers the round; then the leader is deposed unaware, and only afterwards the second read arrives.
        group.input(to.0, Input::Message { from: store(1), message });
        let pong = group.network.pop_back().unwrap();
        group.cut_off(1);
        group.nominate(2, 2, &[1, 2, 3]);
        group.run();
        assert!(group.leads(2));
        group.told(1);
        group.input(1, Input::Read { token: Token(2), rests_on: Names::none() });
        group.input(1, Input::Message { from: pong.0, message: pong.2 });
        !group.told(1).contains(&"read 2 ready".to_owned())
    });
}

#[test]
fn failed_setnx_rests_on_cancelled_write() {
    bites(Rule::ReadAfterRests, |config| {
        let mut group = Group::led(config);
        group.cut.insert((store(1), store(2)));
        group.cut.insert((store(1), store(3)));
        let pending = group.propose(1, &[]).unwrap();
        group.heal();
        group.network.clear();
        group.told(1);
        // SETNX fails because of the pending item: its reply waits for that item's fate.
        group.input(1, Input::Read { token: Token(9), rests_on: Names::one(pending) });
        group.run();
        let early = group.told(1).contains(&"read 9 ready".to_owned());
        group.nominate(2, 2, &[1, 2, 3]);
        group.run();
        !early
    });
    bites(Rule::CommitAfterReads, |config| {
        let mut group = Group::led(config);
        group.cut.insert((store(1), store(2)));
        group.cut.insert((store(1), store(3)));
        let first = group.propose(1, &[]).unwrap();
        group.network.clear();
        group.heal();
        let second = group.propose(1, &[first]).unwrap();
        group.run();
        !group.member(1).committed.contains(&second)
    });
}

#[test]
fn unknown_retried_by_cluster_client() {
    // A deposed leader tells kept or retracted exactly; what it cannot know it says as such, never as a refusal, which libraries repeat.
    bites(Rule::UnknownIsNoRefusal, |config| {
        let mut group = Group::led(config);
        group.cut_off(1);
        let unknown = group.propose(1, &[]).unwrap();
        group.run();
        group.nominate(2, 2, &[1, 2, 3]);
        group.run();
        group.propose(2, &[]).unwrap();
        group.settle();
        // The gap is filled by a delta, which does not name every final item.
        group.member(2).told.clear();
        group.input(2, Input::Floors { floor: op(2, 1), gc_floor: OpId::ZERO });
        group.input(3, Input::Floors { floor: op(2, 1), gc_floor: OpId::ZERO });
        group.heal();
        group.input(2, Input::Peer { store: store(1), reachable: true });
        group.settle();
        assert!(group.member(1).told.iter().all(|effect| !matches!(effect, Effect::Refused { .. })));
        group.member(1).settled.get(&unknown) == Some(&Outcome::Unknown)
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

#[test]
fn commit_on_minority() {
    bites(Rule::Majority, |config| {
        let mut group = Group::led(config);
        group.cut_off(1);
        let written = group.propose(1, &[]).unwrap();
        group.run();
        !group.member(1).committed.contains(&written)
    });
    bites(Rule::OwnDurableCounts, |config| {
        let mut group = Group::led(config);
        group.member(1).syncs = false;
        group.cut.insert((store(1), store(3)));
        let written = group.propose(1, &[]).unwrap();
        group.run();
        !group.member(1).committed.contains(&written)
    });
}

#[test]
fn ack_before_fsync() {
    bites(Rule::AckAfterDurable, |config| {
        let mut group = Group::led(config);
        group.cut.insert((store(1), store(3)));
        group.member(2).syncs = false;
        let written = group.propose(1, &[]).unwrap();
        group.run();
        !group.member(1).committed.contains(&written)
    });
}

#[test]
fn an_acknowledgement_needs_the_promise_when_the_item_is_durable() {
    bites(Rule::AckNeedsPromise, |config| {
        let mut group = Group::led(config);
        group.cut.insert((store(1), store(3)));
        group.member(2).syncs = false;
        group.propose(1, &[]).unwrap();
        group.run();
        let gather = kvorum_sync::Gather {
            promise: kvorum_sync::Promise { epoch: epoch(2), manager: store(3), nonce: 1 },
            membership: Membership::steady(&[store(1), store(2), store(3)]),
        };
        group.input(2, Input::Message { from: store(3), message: Message::Gather(Box::new(gather)) });
        group.network.clear();
        group.sync(2);
        !group.network.iter().any(|(_, _, message)| matches!(message, Message::Ack { .. }))
    });
}

#[test]
fn late_duplicate_after_gc() {
    // A late duplicate of a write whose key was deleted since, and whose tombstone is gone, must not come back.
    bites(Rule::NotStoredBelowCheckpoint, |config| {
        let mut group = Group::led(config);
        let old = group.propose(1, &[]).unwrap();
        group.run();
        group.propose(1, &[]).unwrap();
        group.settle();
        group.member(3).tree.remove(&old);
        let late = Message::Write { epoch: epoch(1), item: item(old, &[]), point: OpId::ZERO };
        group.input(3, Input::Message { from: store(1), message: late });
        let acked = group.network.iter().any(|(_, _, message)| matches!(message, Message::Ack { .. }));
        group.run();
        acked && !group.member(3).tree.contains(&old)
    });
}

#[test]
fn a_refusal_is_surely_not_executed() {
    let mut group = Group::led(&config());
    group.told(2);
    group.input(
        2,
        Input::Propose(kvorum_sync::Proposal { token: Token(3), ..kvorum_sync::Proposal::default() }),
    );
    let refusal = Refusal::NotLeader(Some(store(1)));
    let refused = Effect::Refused { token: Token(3), why: refusal };
    assert_eq!(group.member(2).told, vec![refused]);
    assert!(group.network.is_empty());
}
