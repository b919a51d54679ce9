//! Rules that no counterexample of `named` touches, each with the core that keeps it and the core that does not; and the count that no
//! rule is without a test.

use std::path::Path;

use kvorum_sync::{
    Config, Digest, Effect, Gather, Input, Item, Membership, Message, Names, OpId, Piece, Promise, Promised,
    Proposal, ReadAnswer, ReadWhat, Rule, Standing, Token, TransferId, Way,
};

use crate::group::{Group, config, epoch, item, op, store, without};

fn bites(rule: Rule, holds: impl Fn(&Config) -> bool) {
    assert!(holds(&config()), "the sound core fails");
    assert!(!holds(&without(rule)), "{rule:?} switched off is not noticed");
}

fn gather(group: &mut Group, to: u64, number: u32, manager: u64) {
    let promise = Promise { epoch: epoch(number), manager: store(manager), nonce: 1 };
    let gather = Gather { promise, membership: Membership::steady(&[store(1), store(2), store(3)]) };
    group.input(to, Input::Message { from: store(manager), message: Message::Gather(Box::new(gather)) });
}

/// What the first member's adopt messages hold after it gathered this answer of the second.
fn basis_with(config: &Config, answer: Promised) -> (OpId, Vec<OpId>) {
    let mut group = Group::led(config);
    group.nominate(1, 2, &[1, 2, 3]);
    group.network.clear();
    let promise = group.replica(1).promise();
    let message = Message::Promised(Box::new(Promised { promise, ..answer }));
    group.input(1, Input::Message { from: store(2), message });
    let adopt = group.network.iter().find_map(|(_, _, message)| match message {
        Message::Adopt(adopt) => Some(adopt.clone()),
        _ => None,
    });
    let adopt = adopt.unwrap();
    (adopt.checkpoint.op, adopt.basis.iter().map(|basis| basis.item.op).collect())
}

fn answer(number: u32, checkpoint: OpId, tail: &[Item]) -> Promised {
    Promised {
        promise: Promise::default(),
        epoch: epoch(number),
        checkpoint: kvorum_sync::Checkpoint { op: checkpoint, ..kvorum_sync::Checkpoint::default() },
        tail: tail.to_vec(),
        standing: Standing::Whole,
    }
}

#[test]
fn the_basis_takes_the_highest_epoch_the_highest_checkpoint_and_no_reader_of_a_skipped_item() {
    bites(Rule::HighestEpochOnly, |config| {
        basis_with(config, answer(0, OpId::ZERO, &[item(op(1, 5), &[])])).1.is_empty()
    });
    bites(Rule::HighestCheckpoint, |config| basis_with(config, answer(1, op(1, 5), &[])).0 == op(1, 5));
    bites(Rule::SkipTransitively, |config| {
        let tail = [item(op(1, 2), &[op(1, 1)]), item(op(1, 3), &[op(1, 2)])];
        basis_with(config, answer(1, OpId::ZERO, &tail)).1.is_empty()
    });
}

#[test]
fn a_leader_that_promises_higher_stops_counting_at_once() {
    bites(Rule::PromiseDeposes, |config| {
        let mut group = Group::led(config);
        let written = group.propose(1, &[]).unwrap();
        gather(&mut group, 1, 2, 3);
        group.run();
        !group.member(1).committed.contains(&written)
    });
}

#[test]
fn a_tail_is_told_only_with_a_promise() {
    bites(Rule::PromiseFirst, |config| {
        let mut group = Group::led(config);
        gather(&mut group, 2, 2, 3);
        group.replica(2).promise().epoch == epoch(2)
    });
}

#[test]
fn a_lease_is_counted_from_sending() {
    let holds = |mut config: Config| {
        config.lease_micros = Some(1_000_000);
        let mut group = Group::with(3, &config);
        group.now = kvorum_sync::Moment(10_000_000);
        group.nominate(1, 1, &[1, 2, 3]);
        group.run();
        group.input(1, Input::Read { token: Token(1), rests_on: Names::none() });
        // The answers take longer than the lease.
        group.now = group.now.after_micros(2_000_000);
        group.run();
        group.told(1);
        group.input(1, Input::Read { token: Token(2), rests_on: Names::none() });
        group.told(1).is_empty()
    };
    assert!(holds(config()));
    assert!(!holds(without(Rule::LeaseFromSending)));
}

#[test]
fn a_follower_answers_in_the_reign_in_which_it_asked() {
    bites(Rule::ReadSameEpoch, |config| {
        let mut group = Group::led(config);
        let what = ReadWhat::Keys(Names::one(kvorum_sync::KeyHash(1)));
        group.input(3, Input::FollowerRead { token: Token(1), what, labelled: false });
        gather(&mut group, 3, 2, 2);
        group.told(3);
        let answer =
            ReadAnswer { epoch: epoch(1), id: 1, keys: Names::one(kvorum_sync::KeyState::default()) };
        group.input(3, Input::Message { from: store(1), message: Message::ReadAnswer(Box::new(answer)) });
        group.told(3).is_empty()
    });
}

#[test]
fn a_piece_of_another_transfer_is_dropped() {
    bites(Rule::PieceOfThisTransfer, |config| {
        let mut group = Group::led(config);
        let upto = kvorum_sync::Checkpoint { op: op(1, 9), ..kvorum_sync::Checkpoint::default() };
        let resume = Message::Resume { epoch: epoch(1), upto, sources: Names::one(store(2)) };
        group.input(3, Input::Message { from: store(1), message: resume });
        let transfer = TransferId { nonce: 77, number: 1 };
        let (cursor, end) = ([].into(), Some(vec![]));
        let piece =
            Piece { transfer, epoch: epoch(1), number: 0, way: Way::Delta, items: vec![], cursor, end };
        let mut out = kvorum_sync::Effects::new();
        let now = group.now;
        let mut replica = group.replica(3).clone();
        replica.step(
            now,
            Input::Message { from: store(2), message: Message::Piece(Box::new(piece)) },
            &mut out,
        );
        !out.as_slice().iter().any(|effect| matches!(effect, Effect::Ingest { .. }))
    });
}

#[test]
fn the_time_of_items_never_falls_over_reigns() {
    bites(Rule::TimeNeverFalls, |config| {
        let mut group = Group::led(config);
        group.input(1, Input::Propose(Proposal { token: Token(1), time: 50, ..Proposal::default() }));
        group.settle();
        group.nominate(2, 2, &[1, 2, 3]);
        group.settle();
        group.input(2, Input::Propose(Proposal { token: Token(2), time: 20, ..Proposal::default() }));
        group.settle();
        group.replica(3).checkpoint().op == op(2, 1) && group.replica(2).shard_time() == 50
    });
}

/// Digests that the second and the third member report at the point 1.1.
fn fenced(config: &Config, reports: &[(u64, u64)]) -> Vec<String> {
    let mut group = Group::led(config);
    group.propose(1, &[]).unwrap();
    group.run();
    group.now = group.now.after_micros(1_000);
    group.input(1, Input::Tick);
    group.network.clear();
    group.told(1);
    let own = group.replica(1).checkpoint().digest.0;
    for (from, plus) in reports {
        let message = Message::Reached { epoch: epoch(1), point: op(1, 1), digest: Digest(own + plus) };
        group.input(1, Input::Message { from: store(*from), message });
    }
    let fences = group.network.iter().filter(|(_, _, message)| matches!(message, Message::Fence { .. }));
    fences.map(|(_, to, message)| format!("{to}: {message}")).collect()
}

#[test]
fn the_odd_digest_is_fenced_only_against_a_majority() {
    bites(Rule::FenceNeedsMajority, |config| fenced(config, &[(3, 1)]).is_empty());
    assert_eq!(fenced(&config(), &[(3, 1), (2, 0)]), ["s3: fence e1 at 1.1"]);
}

#[test]
fn an_odd_leader_fences_itself_and_a_rebuilt_member_counts_again() {
    let mut group = Group::led(&config());
    group.propose(1, &[]).unwrap();
    group.run();
    group.now = group.now.after_micros(1_000);
    group.input(1, Input::Tick);
    group.network.clear();
    let own = group.replica(1).checkpoint().digest.0;
    for from in [2, 3] {
        let message = Message::Reached { epoch: epoch(1), point: op(1, 1), digest: Digest(own + 1) };
        group.input(1, Input::Message { from: store(from), message });
    }
    assert!(!group.leads(1));
    assert_ne!(group.replica(1).standing(), Standing::Whole);
    group.nominate(2, 2, &[1, 2, 3]);
    group.settle();
    group.propose(2, &[]).unwrap();
    group.settle();
    assert_eq!(group.replica(1).standing(), Standing::Whole);
    assert_eq!(group.checkpoints(), ["2.1", "2.1", "2.1"]);
}

#[test]
fn serials_run_out_into_a_new_reign() {
    let mut group = Group::led(&Config { serial_max: 2, window_items: 1, ..config() });
    group.propose(1, &[]).unwrap();
    group.run();
    group.propose(1, &[]).unwrap();
    group.run();
    group.told(1);
    group.input(1, Input::Propose(Proposal { token: Token(9), ..Proposal::default() }));
    assert_eq!(group.told(1), ["ask Serials above e1", "refused 9 SerialsExhausted"]);
    group.nominate(1, 2, &[1, 2, 3]);
    group.settle();
    assert_eq!(group.propose(1, &[]), Some(op(2, 1)));
}

#[test]
fn every_rule_has_a_test_that_switches_it_off() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = std::fs::read_to_string(root.join("src/planted.rs")).unwrap();
    let body = rules.split("pub enum Rule {").nth(1).unwrap().split('}').next().unwrap();
    let names = body.lines().map(str::trim).filter(|line| !line.starts_with("///") && !line.is_empty());
    let mut tests = String::new();
    for folder in ["tests/it", "tests/it/named"] {
        for file in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "rs") {
                tests += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let missing: Vec<&str> = names
        .map(|name| name.trim_end_matches(','))
        .filter(|name| !tests.contains(&format!("Rule::{name}")))
        .collect();
    assert!(missing.is_empty(), "rules that no test switches off: {missing:?}");
}

#[test]
fn a_stale_view_says_its_age_and_a_leader_cut_off_grows_old() {
    let mut group = Group::led(&config());
    group.propose(1, &[]).unwrap();
    group.settle();
    assert_eq!(group.replica(3).stale_view(group.now), Some((op(1, 1), None)), "nothing is known yet");
    let sent = group.now;
    for number in [1, 3] {
        let mut out = kvorum_sync::Effects::new();
        group.member(number).replica.as_mut().unwrap().refresh_age(sent, &mut out);
        for effect in out.drain() {
            if let Effect::Send { to, message, .. } = effect {
                group.network.push_back((store(number), to, message));
            }
        }
    }
    group.run();
    // The leader's round was under way when the follower's question came: that one waits for the next.
    group.now = group.now.after_micros(5_000);
    assert_eq!(group.replica(3).stale_view(group.now), Some((op(1, 1), Some(5_000))));
    group.cut_off(1);
    group.now = group.now.after_micros(5_000);
    assert_eq!(group.replica(1).stale_view(group.now), Some((op(1, 1), Some(10_000))));
}

#[test]
fn a_nominated_granter_waits_for_the_end_of_the_lease() {
    let mut group = Group::with(3, &Config { lease_micros: Some(1_000_000), ..config() });
    group.now = kvorum_sync::Moment(10_000_000);
    group.nominate(1, 1, &[1, 2, 3]);
    group.run();
    group.now = group.now.after_micros(2_000_000);
    // Only the third member grants.
    group.cut.insert((store(1), store(2)));
    group.settle();
    group.cut_off(1);
    group.nominate(3, 2, &[1, 2, 3]);
    group.settle();
    assert!(!group.leads(3), "the old leader reads under the lease that this member granted");
    group.now = group.now.after_micros(2_000_000);
    group.settle();
    assert!(group.leads(3));
}

#[test]
fn room_is_told_when_members_come_back_without_a_word() {
    let mut group = Group::led(&Config { window_items: 2, ..config() });
    for from in [2, 3] {
        group.input(1, Input::Peer { store: store(from), reachable: false });
    }
    group.told(1);
    assert_eq!(group.propose(1, &[]), None);
    for from in [2, 3] {
        group.input(1, Input::Peer { store: store(from), reachable: true });
    }
    group.settle();
    assert!(group.told(1).contains(&"room".to_owned()));
}
