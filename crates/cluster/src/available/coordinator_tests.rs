use super::*;

const SLOT: u16 = 77;

fn order(nodes: u64) -> Order {
    let names = ["a", "b", "c", "d", "e"];
    Order::of((1..=nodes).map(StoreId).zip(names))
}

fn entry(version: u64, from: u8) -> Entry {
    Entry {
        version,
        value: Some(Bytes::from_static(b"v")),
        expires_at: None,
        from,
        shadow: false,
        base: None,
    }
}

fn write(from: u8, ack: u8) -> (Coordination, Vec<Step>, Vec<StoreId>) {
    let (coordination, steps) =
        Coordination::begin("k".into(), SLOT, Operation::Write(entry(10, from)), ack, &order(5));
    (coordination, steps, order(5).of_slot(SLOT))
}

fn read(from: u8, ack: u8) -> (Coordination, Vec<StoreId>) {
    let (coordination, steps) =
        Coordination::begin("k".into(), SLOT, Operation::Read { from }, ack, &order(5));
    assert_eq!(steps.len(), usize::from(from));
    (coordination, order(5).of_slot(SLOT))
}

const STORED: Answer = Answer::Stored { newer: 0, wider: 0 };

fn done(steps: &[Step]) -> Option<&Outcome> {
    steps.iter().find_map(|step| if let Step::Done(outcome) = step { Some(outcome) } else { None })
}

#[test]
fn all_of_from_are_asked_at_once_and_the_fastest_ack_answer() {
    let (mut write, steps, order) = write(3, 2);
    let asked: Vec<_> = steps
        .iter()
        .map(|step| match step {
            Step::Ask(store, Ask::Write { .. }) => *store,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(asked, order[..3]);
    // The last of the order is the first to answer.
    assert_eq!(write.step(Input::Answered(order[2], STORED)), []);
    assert_eq!(write.step(Input::Answered(order[2], STORED)), [], "twice from one is once");
    let steps = write.step(Input::Answered(order[0], STORED));
    assert_eq!(steps, [Step::Done(Outcome::Written { newer: None })]);
    assert_eq!(write.step(Input::Answered(order[1], STORED)), []);
    assert!(write.is_over());
}

#[test]
fn who_missed_a_write_gets_a_hint_and_a_hint_is_no_ack() {
    let (mut write, _, order) = write(3, 2);
    assert_eq!(write.step(Input::Failed(order[0])), []);
    write.step(Input::Answered(order[1], STORED));
    let steps = write.step(Input::Deadline);
    assert_eq!(
        steps,
        [
            Step::Done(Outcome::TooFew { at_most: 1 }),
            Step::Hint(order[0], entry(10, 3)),
            Step::Hint(order[2], entry(10, 3))
        ]
    );
    assert_eq!(write.step(Input::Answered(order[2], STORED)), [], "too late");
}

#[test]
fn too_few_are_known_as_soon_as_they_are_too_few() {
    for (from, ack) in [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)] {
        let (mut write, _, order) = write(from, ack);
        for failed in 1..=from {
            let steps = write.step(Input::Failed(order[usize::from(failed) - 1]));
            let expected = (from - failed + 1 == ack).then_some(Outcome::TooFew { at_most: ack - 1 });
            assert_eq!(done(&steps), expected.as_ref(), "{ack} of {from} after {failed}");
        }
        assert!(write.is_over());
    }
}

#[test]
fn copies_beyond_from_are_replaced_too() {
    let (mut write, _, order) = write(1, 1);
    let steps = write.step(Input::Answered(order[0], Answer::Stored { newer: 0, wider: 3 }));
    let asked: Vec<_> = steps
        .iter()
        .filter_map(|step| if let Step::Ask(store, _) = step { Some(*store) } else { None })
        .collect();
    assert_eq!(asked, order[1..3]);
    assert_eq!(done(&steps), Some(&Outcome::Written { newer: None }), "they are not waited for");
    assert!(!write.is_over());
    write.step(Input::Answered(order[1], STORED));
    assert_eq!(write.step(Input::Failed(order[2])), [Step::Hint(order[2], entry(10, 1))]);
}

#[test]
fn a_write_that_came_too_late_is_told_so() {
    let (mut write, _, order) = write(2, 2);
    write.step(Input::Answered(order[0], Answer::Stored { newer: 12, wider: 0 }));
    let steps = write.step(Input::Answered(order[1], STORED));
    assert_eq!(steps, [Step::Done(Outcome::Written { newer: Some(12) })]);
}

#[test]
fn the_newest_wins_and_who_is_behind_is_repaired() {
    let (mut read, order) = read(3, 2);
    assert_eq!(read.step(Input::Answered(order[0], Answer::Found(None))), []);
    let newest = entry(10, 3);
    let steps = read.step(Input::Answered(order[1], Answer::Found(Some(newest.clone()))));
    assert_eq!(steps, [Step::Done(Outcome::Read(Some(newest.clone())))]);
    let steps = read.step(Input::Answered(order[2], Answer::Found(Some(entry(9, 3)))));
    assert_eq!(steps, [Step::Repair(order[0], newest.clone()), Step::Repair(order[2], newest)]);
    assert!(read.is_over());
}

#[test]
fn a_tombstone_is_an_answer() {
    let (mut read, order) = read(2, 2);
    let tombstone = Entry { value: None, ..entry(11, 2) };
    read.step(Input::Answered(order[0], Answer::Found(Some(entry(10, 2)))));
    let steps = read.step(Input::Answered(order[1], Answer::Found(Some(tombstone.clone()))));
    assert_eq!(
        steps,
        [Step::Done(Outcome::Read(Some(tombstone.clone()))), Step::Repair(order[0], tombstone)]
    );
}

#[test]
fn repair_keeps_to_the_entrys_prefix() {
    let (mut read, order) = read(3, 3);
    for (place, found) in [Some(entry(10, 1)), None, Some(entry(8, 3))].into_iter().enumerate() {
        let steps = read.step(Input::Answered(order[place], Answer::Found(found)));
        if place == 2 {
            // The second has no copy and gets none; the third has an old one, which must go.
            let newest = entry(10, 1);
            assert_eq!(
                steps,
                [Step::Done(Outcome::Read(Some(newest.clone()))), Step::Repair(order[2], newest)]
            );
        }
    }
}

#[test]
fn what_does_not_fit_the_question_is_no_answer() {
    let (mut read, order) = read(1, 1);
    assert_eq!(read.step(Input::Answered(order[0], STORED)), [Step::Done(Outcome::TooFew { at_most: 0 })]);
    let (mut write, _, order) = write(1, 1);
    assert_eq!(
        done(&write.step(Input::Answered(order[0], Answer::Found(None)))),
        Some(&Outcome::TooFew { at_most: 0 })
    );
}

#[test]
fn a_cluster_that_shrank_has_too_few() {
    let (coordination, steps) =
        Coordination::begin("k".into(), SLOT, Operation::Write(entry(1, 3)), 3, &order(2));
    assert_eq!(done(&steps), Some(&Outcome::TooFew { at_most: 2 }));
    assert!(!coordination.is_over());
}

#[test]
fn a_shadow_gives_way_to_its_entry() {
    let (mut read, order) = read(2, 2);
    let shadow = Entry { value: None, shadow: true, ..entry(10, 2) };
    read.step(Input::Answered(order[0], Answer::Found(Some(shadow))));
    let steps = read.step(Input::Answered(order[1], Answer::Found(Some(entry(10, 2)))));
    assert_eq!(steps, [Step::Done(Outcome::Read(Some(entry(10, 2)))), Step::Repair(order[0], entry(10, 2))]);
}

#[test]
fn an_older_memory_of_a_copy_that_is_gone_needs_no_repair() {
    let (mut read, order) = read(3, 2);
    let gone = |version, from| Entry { shadow: true, value: None, ..entry(version, from) };
    read.step(Input::Answered(order[0], Answer::Found(Some(entry(10, 2)))));
    // The second one should have the entry itself, the third one should not.
    read.step(Input::Answered(order[1], Answer::Found(Some(gone(9, 1)))));
    let steps = read.step(Input::Answered(order[2], Answer::Found(Some(gone(9, 1)))));
    assert_eq!(steps, [Step::Repair(order[1], entry(10, 2))]);
}
