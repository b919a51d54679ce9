//! What a driver asks a replica before it evaluates, answers or reports.

use kvorum_sync::{Config, Durable, Effect, Holders, Input, Members, OpId, Refusal, StepDown};

use crate::group::{Group, config, op, store};

fn small() -> Config {
    Config { window_items: 4, retain_items: 0, ..config() }
}

#[test]
fn room_says_what_the_proposal_will_meet() {
    let mut group = Group::led(&small());
    let room = |group: &mut Group, number: u64| group.member(number).replica.as_mut().unwrap().room();
    assert_eq!(room(&mut group, 2), Err(Refusal::NotLeader(Some(store(1)))));
    group.cut_off(1);
    for serial in 1..=4 {
        assert_eq!(room(&mut group, 1), Ok(()));
        assert_eq!(group.propose(1, &[]), Some(op(1, serial)));
        group.run();
    }
    assert_eq!(room(&mut group, 1), Err(Refusal::Busy));
    assert_eq!(group.propose(1, &[]), None);

    group.member(1).told.clear();
    group.heal();
    group.settle();
    assert!(group.member(1).told.contains(&Effect::Room), "who asked in vain is told");
    assert_eq!(room(&mut group, 1), Ok(()));
    group.input(1, Input::StepDown(StepDown::Drain));
    assert_eq!(room(&mut group, 1), Err(Refusal::Draining));
}

#[test]
fn a_learner_is_caught_up_when_all_but_half_a_window_is_there() {
    let mut group = Group::led(&small());
    for _ in 0..20 {
        assert!(group.propose(1, &[]).is_some());
        group.run();
    }
    group.settle();
    assert!(group.replica(1).caught_up(store(2)) && group.replica(1).caught_up(store(1)));
    assert!(!group.replica(2).caught_up(store(1)), "only the leader knows");
    assert!(!group.replica(1).caught_up(store(4)), "nobody's learner");

    group.add(4, &small(), Durable::default());
    group.input(1, Input::Learners(Members::of(&[store(4)])));
    assert!(!group.replica(1).caught_up(store(4)));
    group.settle();
    assert!(group.replica(1).caught_up(store(4)));
    assert_eq!(group.replica(4).checkpoint().op, op(1, 20));

    group.cut.insert((store(4), store(1)));
    for caught_up in [true, true, false] {
        assert!(group.propose(1, &[]).is_some());
        group.run();
        assert_eq!(group.replica(1).caught_up(store(4)), caught_up);
    }
    group.heal();
    group.settle();
    assert!(group.replica(1).caught_up(store(4)));
    group.input(1, Input::Peer { store: store(4), reachable: false });
    assert!(!group.replica(1).caught_up(store(4)));
}

#[test]
fn committed_is_known_of_each_item_at_the_leader_and_up_to_the_checkpoint_elsewhere() {
    let mut group = Group::led(&config());
    group.member(2).syncs = false;
    group.member(3).syncs = false;
    let first = group.propose(1, &[]).unwrap();
    let second = group.propose(1, &[first]).unwrap();
    group.run();
    assert!(!group.replica(1).is_committed(first), "on one member only");
    group.sync(2);
    group.run();
    assert!(group.replica(1).is_committed(first) && group.replica(1).is_committed(second));
    assert!(!group.replica(2).is_committed(second), "nobody told it yet");
    group.member(3).syncs = true;
    group.sync(3);
    group.settle();
    assert!(group.replica(2).is_committed(second) && !group.replica(2).is_committed(op(1, 3)));
    assert!(!group.replica(1).is_committed(op(2, 1)), "not of this reign");
}

#[test]
fn floors_follow_the_checkpoint_that_is_durable() {
    let mut group = Group::led(&config());
    group.propose(1, &[]).unwrap();
    group.run();
    assert_eq!(group.replica(1).checkpoint().op, op(1, 1));
    assert_eq!(group.replica(1).floor_limit(), OpId::ZERO, "a crash would bring the older one back");
    group.settle();
    assert_eq!(group.replica(1).floor_limit(), op(1, 1));
    group.crash(1);
    group.start(1);
    assert_eq!(group.replica(1).floor_limit(), op(1, 1));
}

#[test]
fn a_leader_of_nothing_yet_is_not_idle_while_a_learner_knows_nothing_of_it() {
    let mut group = Group::led(&config());
    assert!(group.replica(1).is_idle());
    group.add(4, &config(), Durable::default());
    group.input(1, Input::Learners(Members::of(&[store(4)])));
    assert!(!group.replica(1).is_idle(), "both are at nothing, but the learner must hear of it");
    group.settle();
    assert!(group.replica(1).caught_up(store(4)) && group.replica(1).is_idle());
}

#[test]
fn a_leader_that_is_to_step_down_asks_until_it_is_heard() {
    let mut group = Group::led(&config());
    assert!(group.replica(1).is_idle());
    group.input(1, Input::StepDown(StepDown::DiskFull));
    assert!(!group.replica(1).is_idle(), "the control plane may not have heard it");
    group.told(1);
    group.settle();
    assert!(group.told(1).contains(&"ask StepDown(DiskFull) above e1".to_owned()));
}

#[test]
fn who_holds_an_item_is_counted_by_acknowledgements_and_over_reigns() {
    let mut group = Group::led(&config());
    let held = |group: &Group, number: u64, op: OpId| group.replica(number).holders(op);
    group.member(2).syncs = false;
    group.member(3).syncs = false;
    let first = group.propose(1, &[]).unwrap();
    group.run();
    assert_eq!(
        held(&group, 1, first),
        Some(Holders { leader: true, others: 0 }),
        "sent, and not acknowledged"
    );
    group.sync(3);
    group.run();
    assert_eq!(held(&group, 1, first), Some(Holders { leader: true, others: 1 }));
    group.sync(2);
    group.run();
    assert_eq!(held(&group, 1, first), Some(Holders { leader: true, others: 2 }));
    assert_eq!(held(&group, 1, op(1, 2)), Some(Holders::default()), "there is no such item");
    assert_eq!(held(&group, 2, first), None, "only the leader is told");

    (group.member(2).syncs, group.member(3).syncs) = (true, true);
    group.cut_off(1);
    group.nominate(2, 2, &[1, 2, 3]);
    group.settle();
    assert!(group.leads(2));
    assert_eq!(
        held(&group, 2, first),
        Some(Holders { leader: true, others: 1 }),
        "the old leader has said nothing yet"
    );
    group.heal();
    group.settle();
    assert_eq!(held(&group, 2, first), Some(Holders { leader: true, others: 2 }));
}
