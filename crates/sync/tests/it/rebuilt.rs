//! Members whose digest is the odd one: they are found, begin anew, and count again.

use kvorum_sync::{Digest, Input, Item, Message, Promise, RoleName, Standing};

use crate::group::{Group, config, item, op, store};

/// A group whose first member leads and whose second one stores the first item with another digest.
fn with_an_odd_member() -> Group {
    let mut group = Group::led(&config());
    group.cut.insert((store(1), store(2)));
    group.propose(1, &[]).unwrap();
    group.run();
    group.heal();
    let wrong = Item { digest: Digest(666), ..item(op(1, 1), &[]) };
    let write = Message::Write { epoch: group.replica(1).epoch(), item: wrong, point: op(0, 0) };
    group.input(2, Input::Message { from: store(1), message: write });
    group
}

#[test]
fn a_digest_that_comes_behind_its_point_is_compared() {
    let mut group = with_an_odd_member();
    // An item brings the point; the digest comes with the next word of the leader.
    let write =
        Message::Write { epoch: group.replica(1).epoch(), item: item(op(1, 2), &[]), point: op(1, 1) };
    group.input(2, Input::Message { from: store(1), message: write });
    assert_eq!(group.replica(2).checkpoint().op, op(1, 1));
    group.settle();
    let told = group.told(2);
    assert!(told.iter().any(|effect| effect.contains("Fenced")), "{told:?}");
}

#[test]
fn a_rebuilt_member_counts_again_in_a_reign_without_items() {
    let mut group = with_an_odd_member();
    group.cut_off(2);
    group.nominate(1, 2, &[1, 2, 3]);
    group.settle();
    group.crash(2);
    group.heal();
    group.start_intact(2, false);
    group.input(1, Input::Peer { store: store(2), reachable: true });
    group.settle();
    assert_eq!(group.replica(2).epoch(), group.replica(1).epoch());
    assert_eq!(group.replica(2).standing(), Standing::Whole, "there is nothing more to catch up with");
}

#[test]
fn a_leader_that_leads_no_more_asks_until_another_one_is_named() {
    let mut group = Group::led(&config());
    group.crash(1);
    group.start(1);
    assert_eq!(group.role(1), RoleName::Follower);
    assert_eq!(group.replica(1).promise(), Promise { manager: store(1), ..group.replica(2).promise() });
    assert!(!group.replica(1).is_idle(), "the others reach it, and wait for it");
    group.told(1);
    group.settle();
    assert!(group.told(1).contains(&"ask StaleEpoch above e1".to_owned()));
    group.nominate(3, 2, &[1, 2, 3]);
    group.settle();
    assert!(group.leads(3) && group.replica(1).is_idle());
}
