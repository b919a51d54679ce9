//! The published outline of the algorithm, which must fail: it loses a write that a client was told is done.

use super::properties::{CANCELLED, COMMITTED};
use super::rules::{Bounds, Rules};
use super::search::violation;
use super::state::Message;
use super::step::Action;

/// X is acknowledged in one reign; a second reign leaves it *interrupted* on a member that stops before X reaches the rest; a third
/// quorum holds one member of the second epoch, without X.
#[test]
fn outline_loses_interrupted() {
    let actions = violation(
        "the outline",
        Rules::OUTLINE,
        Bounds { items: 1, in_turn: true, ..Bounds::new(3, 1) },
        &[COMMITTED, CANCELLED],
    );
    let acknowledged =
        actions.iter().any(|action| matches!(action, Action::Deliver(Message::Acknowledge { .. }, _)));
    assert!(acknowledged, "the lost write was acknowledged by a follower");
}

/// With the promise, the frozen basis and unique op ids alone, the same write is lost: the interrupted items are the cause.
#[test]
fn interrupted_items_are_the_cause() {
    let rules = Rules { adopt_interrupted: false, ..Rules::FULL };
    violation("interrupted items after adoption", rules, Bounds::new(3, 1), &[COMMITTED]);
}
