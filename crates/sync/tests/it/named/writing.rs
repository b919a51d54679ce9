//! Storing, acknowledging and committing within a reign.

use kvorum_sync::{Digest, Gather, Input, Membership, Message, OpId, Promise, Rule};

use super::bites;
use crate::group::{Group, epoch, item, op, store};

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
        let point = Message::Point { epoch: epoch(1), point: op(1, 2), digest: Digest(0), head: 2 };
        group.input(3, Input::Message { from: store(1), message: point });
        group.replica(3).checkpoint().op < op(1, 1)
    });
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
        let gather = Gather {
            promise: Promise { epoch: epoch(2), manager: store(3), nonce: 1 },
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
