//! Reads and the leases that spare their rounds; what clients are told.

use kvorum_sync::{
    Config, Effect, Input, KeyHash, KeyState, Message, Moment, Names, OpId, Outcome, Proposal, ReadAnswer,
    ReadWhat, Refusal, Rule, Token,
};

use super::bites;
use crate::group::{Group, config, epoch, op, store, without};

#[test]
fn lease_grant_forgotten_on_restart() {
    let holds = |mut config: Config| {
        config.lease_micros = Some(1_000_000);
        let mut group = Group::with(3, &config);
        group.now = Moment(10_000_000);
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
        group.now = Moment(10_000_000);
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
fn a_refusal_is_surely_not_executed() {
    let mut group = Group::led(&config());
    group.told(2);
    group.input(2, Input::Propose(Proposal { token: Token(3), ..Proposal::default() }));
    let refusal = Refusal::NotLeader(Some(store(1)));
    let refused = Effect::Refused { token: Token(3), why: refusal };
    assert_eq!(group.member(2).told, vec![refused]);
    assert!(group.network.is_empty());
}

#[test]
fn an_answer_to_an_earlier_run_is_not_taken_for_another() {
    let mut group = Group::led(&config());
    let asks = |token, key| Input::FollowerRead {
        token: Token(token),
        what: ReadWhat::Keys(Names::one(KeyHash(key))),
        labelled: false,
    };
    group.input(3, asks(1, 1));
    group.crash(3);
    group.start(3);
    group.run();
    group.told(3);
    group.input(3, asks(2, 2));
    // The leader's answer to the first read, which nobody waits for any more.
    let late = ReadAnswer { epoch: epoch(1), id: 1, keys: Names::one(KeyState::default()) };
    group.input(3, Input::Message { from: store(1), message: Message::ReadAnswer(Box::new(late)) });
    assert!(group.told(3).is_empty(), "the second read has no answer yet");
}
