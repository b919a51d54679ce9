//! What chance brings about too seldom, told step by step: nodes that come, leave, sleep and have their clocks set, each at the worst moment.

use super::world::{GRACE_MS, World};
use super::*;

/// Leaps of time that are longer than the grace together.
const LEAPS: usize = 9;

fn value() -> Option<Bytes> {
    Some(Bytes::from_static(b"kept"))
}

/// The first key of which this holds.
fn key_of(fits: impl Fn(&Bytes) -> bool) -> Bytes {
    (0..).map(|number| Bytes::from(format!("key{number}"))).find(fits).expect("a key")
}

fn all_hear_of_map(world: &mut World) {
    let latest = world.maps.len() - 1;
    world.nodes.iter_mut().for_each(|node| node.map = latest);
}

/// All are heard, and note that they are awake.
fn all_are_heard(world: &mut World) {
    for at in [0, 1, 2, 0, 1, 2] {
        world.look_at_floors(at);
        world.drain();
    }
}

fn compact(world: &World) {
    for up in world.nodes.iter().filter_map(|node| node.up.as_ref()) {
        up.store.flush().expect("a flush");
        up.store.compact().expect("a compaction");
    }
}

/// Time goes by, for longer than the grace; whoever sleeps misses it.
fn time_goes_by(world: &mut World, asleep: usize) {
    for _ in 0..LEAPS {
        world.leap(asleep);
        compact(world);
    }
}

/// A node leaves: whoever keeps its entries from now on does not say that there are none before it has them.
fn a_new_owner_is_asked_before_it_holds_its_slots() {
    let mut world = World::new(1, 4, false);
    let key = Bytes::from_static(b"key0");
    let leaves = world.order_of(&key)[0];
    assert!(world.put(leaves, &key, value(), 1, 1).is_some());
    world.enact(Some(world.nodes[leaves].store_id));
    all_hear_of_map(&mut world);
    for at in (0..4).filter(|at| *at != leaves) {
        assert!(world.get(at, &key, 1, 1).is_none_or(|read| read == value()));
    }
    world.heal();
    assert_eq!(world.get(leaves, &key, 1, 1), Some(value()));
}

/// A new node's write is acknowledged by nobody whom readers that do not know of it would not ask.
fn a_new_owner_writes_before_others_know_of_it() {
    let mut world = World::new(1, 3, false);
    let joins = world.join();
    let key = key_of(|key| world.order_of(key)[..3].contains(&joins));
    let displaced = world.order_of(&key)[3];
    let knows = world.order_of(&key).into_iter().find(|at| *at != joins).expect("another");
    world.nodes[knows].map = world.maps.len() - 1;
    let acknowledged = world.put(joins, &key, value(), 2, 3).is_some();
    let read = world.get(displaced, &key, 2, 3);
    assert!(!acknowledged || read.is_none_or(|read| read == value()), "the write is missed");
    all_hear_of_map(&mut world);
    assert!(world.put(joins, &key, value(), 2, 3).is_some());
}

/// A node comes, and the one that is to keep an entry from now on dies at once: the old copy stays until it is back.
fn a_new_owner_dies_before_it_has_all() {
    let mut world = World::new(1, 3, false);
    let key = key_of(|key| {
        Order::of([1, 2, 3, 4].map(StoreId).into_iter().zip(["a", "b", "c", "d"]))
            .rank(kvorum_model::slot(key), StoreId(4))
            == Some(0)
    });
    let keeps = world.order_of(&key)[0];
    assert!(world.put(keeps, &key, value(), 1, 1).is_some());
    let joins = world.join();
    world.crash(joins);
    all_hear_of_map(&mut world);
    (0..world::SHARDS).for_each(|place| world.move_away(keeps, place));
    world.drain();
    world.up(joins);
    world.heal();
    assert_eq!(world.get(0, &key, 1, 1), Some(value()));
    assert_eq!((world.own(joins, &key), world.own(keeps, &key)), (value(), None));
}

/// What moves is older than deletions that its new owner has forgotten.
fn what_moves_is_older_than_what_was_forgotten() {
    let mut world = World::new(1, 4, false);
    let key = Bytes::from_static(b"key0");
    let leaves = world.order_of(&key)[0];
    assert!(world.put(leaves, &key, value(), 1, 1).is_some());
    for other in (100..140).map(|number| Bytes::from(format!("key{number}"))) {
        assert!(world.put(0, &other, value(), 3, 3).is_some());
        assert!(world.put(0, &other, None, 3, 3).is_some());
    }
    time_goes_by(&mut world, usize::MAX);
    world.enact(Some(world.nodes[leaves].store_id));
    world.heal();
    assert_eq!(world.get(leaves, &key, 1, 1), Some(value()));
    assert_eq!(world.own(leaves, &key), None);
}

/// A node sleeps for longer than the grace, and what it holds was deleted meanwhile, and forgotten.
fn a_node_sleeps_while_something_is_deleted(is_off: bool) {
    let mut world = World::new(1, 3, false);
    let key = Bytes::from_static(b"key0");
    assert!(world.put(0, &key, value(), 3, 3).is_some());
    all_are_heard(&mut world);
    let sleeps = 2;
    if is_off {
        world.crash(sleeps);
    } else {
        world.nodes[sleeps].is_paused = true;
    }
    assert!(world.put(0, &key, None, 2, 3).is_some());
    time_goes_by(&mut world, sleeps);
    assert!(world.nodes[0].up.as_ref().is_some_and(|up| up.replica.entry(&key).expect("an entry").is_none()));
    world.wake_up(sleeps);
    world.heal();
    world.check();
    assert_eq!((world.get(0, &key, 1, 3), world.own(sleeps, &key)), (Some(None), None));
}

/// Of two copies one is lost with its disk while the other sleeps: that the empty disk has nothing says nothing.
fn a_disk_is_lost_while_the_other_copy_sleeps() {
    let mut world = World::new(1, 3, false);
    let key = Bytes::from_static(b"key0");
    let (sleeps, loses) = (world.order_of(&key)[0], world.order_of(&key)[1]);
    assert!(world.put(0, &key, value(), 2, 2).is_some());
    all_are_heard(&mut world);
    world.crash(sleeps);
    world.wipe(loses);
    // The one that sleeps hears of the empty disk before it asks anybody.
    all_hear_of_map(&mut world);
    time_goes_by(&mut world, sleeps);
    world.wake_up(sleeps);
    world.heal();
    world.check();
    assert_eq!(world.get(loses, &key, 1, 2), Some(value()));
}

/// A clock is set forward, in steps that are none too long for a sleep, while one that missed a deletion is down.
fn a_clock_is_set_forward_while_a_deletion_is_missed() {
    let mut world = World::new(1, 3, false);
    let key = Bytes::from_static(b"key0");
    let (jumps, misses) = (world.order_of(&key)[0], world.order_of(&key)[1]);
    assert!(world.put(0, &key, value(), 2, 2).is_some());
    all_are_heard(&mut world);
    world.crash(misses);
    assert!(world.put(jumps, &key, None, 1, 2).is_some());
    for _ in 0..3 {
        world.nodes[jumps].skew_ms += GRACE_MS as i64 * 9 / 10;
        world.look_at_floors(jumps);
        world.drain();
    }
    compact(&world);
    world.nodes[jumps].skew_ms = 0;
    world.up(misses);
    world.heal();
    world.check();
    assert_eq!((world.get(0, &key, 1, 2), world.own(misses, &key)), (Some(None), None));
}

/// Time goes by, for longer than the grace, and everybody runs; who reaches whom stays as it is.
fn time_goes_by_for_all(world: &mut World) {
    let all: Vec<usize> = (0..world.nodes.len()).collect();
    for _ in 0..LEAPS {
        world.now_ms += GRACE_MS / 6;
        for at in &all {
            world.pulse(*at);
            for _ in 0..2 {
                world.look_at_floors(*at);
                world.drain();
            }
        }
        world.mend_all(&all);
        compact(world);
    }
}

/// A node is cut off for longer than the grace, runs on and is written to, and what it holds is deleted meanwhile, and forgotten.
fn a_node_is_cut_off_while_something_is_deleted(restarts: bool) {
    let mut world = World::new(1, 3, false);
    let keys = ["key0", "key1", "key2"].map(Bytes::from);
    for key in &keys {
        assert!(world.put(0, key, value(), 3, 3).is_some());
    }
    world.mend_all(&[0, 1, 2]);
    all_are_heard(&mut world);
    let cut_off = 2;
    world.apart.insert(cut_off);
    time_goes_by_a_little(&mut world);
    assert!(world.put(0, &keys[0], None, 2, 3).is_some());
    let (new, lone) = (Some(Bytes::from_static(b"new")), Bytes::from_static(b"key3"));
    assert!(world.put(0, &keys[1], new.clone(), 2, 3).is_some());
    if !restarts {
        assert!(world.put(cut_off, &lone, value(), 1, 3).is_some());
    }
    time_goes_by_for_all(&mut world);
    assert_eq!(world.get(cut_off, &keys[2], 1, 3), Some(value()), "it serves on");
    if restarts {
        world.crash(cut_off);
        world.up(cut_off);
    }
    assert!(world.nodes[0].up.as_ref().is_some_and(|up| up.replica.entry(&keys[0]).unwrap().is_none()));
    let late = Bytes::from_static(b"key4");
    assert!(world.put(cut_off, &late, value(), 1, 3).is_some());
    world.reunite();
    for at in 0..3 {
        assert!(world.get(at, &keys[0], 2, 3).is_none_or(|read| read.is_none()), "it is back");
    }
    world.heal();
    world.check();
    for at in 0..3 {
        assert_eq!(world.own(at, &keys[0]), None);
        assert_eq!((world.own(at, &keys[1]), world.own(at, &keys[2])), (new.clone(), value()));
        assert_eq!(world.own(at, &late), value());
        assert!(restarts || world.own(at, &lone) == value(), "what it took when it was alone stays");
    }
}

/// Longer than clocks may differ.
fn time_goes_by_a_little(world: &mut World) {
    world.now_ms += 2 * world::AHEAD_MS;
    (0..world.nodes.len()).for_each(|at| world.pulse(at));
}

/// The two nodes that keep an entry do not reach each other for longer than the grace, and a third one reaches both. One of them deletes it.
fn two_nodes_do_not_reach_each_other(are_in_touch_before_they_compare: bool) {
    let mut world = World::new(1, 3, false);
    let key = Bytes::from_static(b"key0");
    let (deletes, misses) = (world.order_of(&key)[0], world.order_of(&key)[1]);
    assert!(world.put(deletes, &key, value(), 2, 2).is_some());
    world.mend_all(&[0, 1, 2]);
    all_are_heard(&mut world);
    world.cut.extend([(deletes, misses), (misses, deletes)]);
    assert!(world.put(deletes, &key, None, 1, 2).is_some());
    time_goes_by_for_all(&mut world);
    if are_in_touch_before_they_compare {
        world.cut.clear();
        all_are_heard(&mut world);
        compact(&world);
    }
    world.heal();
    world.check();
    assert_eq!((world.get(misses, &key, 1, 2), world.own(misses, &key)), (Some(None), None));
}

/// Both halves of a cluster run on for longer than the grace: neither forgets what the other has not seen.
fn a_cluster_falls_into_halves() {
    let mut world = World::new(1, 4, false);
    let keys: Vec<_> = (0..12).map(|number| Bytes::from(format!("key{number}"))).collect();
    for key in &keys {
        assert!(world.put(0, key, value(), 3, 3).is_some());
    }
    world.mend_all(&[0, 1, 2, 3]);
    world.apart.extend([2, 3]);
    let mut deleted = 0;
    for (number, key) in keys.iter().enumerate() {
        deleted += usize::from(world.put(number % 4, key, None, 1, 3).is_some());
    }
    let is_new = |number: usize| Bytes::from(format!("new{number}"));
    let written =
        (0..12).filter(|number| world.put(number % 4, &is_new(*number), value(), 1, 3).is_some()).count();
    assert!(deleted > 0 && written > 0);
    time_goes_by_for_all(&mut world);
    let promised = world.writes.len();
    world.apart.clear();
    world.heal();
    world.check();
    assert_eq!((world.writes.len(), world.doubted), (promised, 0), "nothing was renounced");
}

#[test]
pub(super) fn each_story_ends_well() {
    a_new_owner_is_asked_before_it_holds_its_slots();
    a_new_owner_writes_before_others_know_of_it();
    a_new_owner_dies_before_it_has_all();
    what_moves_is_older_than_what_was_forgotten();
    a_node_sleeps_while_something_is_deleted(true);
    a_node_sleeps_while_something_is_deleted(false);
    a_disk_is_lost_while_the_other_copy_sleeps();
    a_clock_is_set_forward_while_a_deletion_is_missed();
    a_node_is_cut_off_while_something_is_deleted(false);
    a_node_is_cut_off_while_something_is_deleted(true);
    two_nodes_do_not_reach_each_other(false);
    two_nodes_do_not_reach_each_other(true);
    a_cluster_falls_into_halves();
}
