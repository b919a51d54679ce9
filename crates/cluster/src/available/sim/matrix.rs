//! Every `ack` of `from` with every subset of three nodes down, one story after the other: what was missed, what was deleted, who comes back with
//! old data or with an empty disk.

use super::world::World;
use super::*;

const QUORUMS: [(u8, u8); 6] = [(1, 1), (1, 2), (2, 2), (1, 3), (2, 3), (3, 3)];

/// What happens to a key while some nodes are down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    /// It is written for the first time.
    Written,
    Overwritten,
    Deleted,
    /// Deleted, and written again.
    Rewritten,
}

const STORIES: [Story; 4] = [Story::Written, Story::Overwritten, Story::Deleted, Story::Rewritten];

/// What a key should be: what was written last, `None` if that was a deletion.
fn tell(story: Story, world: &mut World, at: usize, key: &Bytes, ack: u8, from: u8) -> Option<Option<Bytes>> {
    let new = Some(Bytes::from_static(b"new"));
    match story {
        Story::Written | Story::Overwritten => {
            world.put(at, key, new.clone(), ack, from).is_some().then_some(new)
        }
        Story::Deleted => world.put(at, key, None, ack, from).is_some().then_some(None),
        Story::Rewritten => {
            world.put(at, key, None, ack, from)?;
            world.put(at, key, new.clone(), ack, from).is_some().then_some(new)
        }
    }
}

fn is_down(down: usize, at: usize) -> bool {
    down & (1 << at) != 0
}

/// One story, up to the return of those that were down; answers the world and what the key should be, if the write was acknowledged.
fn until_return(
    story: Story,
    key: &Bytes,
    (ack, from): (u8, u8),
    down: usize,
) -> (World, Option<Option<Bytes>>) {
    let mut world = World::new(1, 3, false);
    if story != Story::Written {
        assert!(world.put(0, key, Some("old".into()), from, from).is_some(), "all are there");
    }
    for at in (0..3).filter(|at| is_down(down, *at)) {
        world.down(at);
    }
    let at = (0..3).find(|at| !is_down(down, *at)).expect("somebody is there");
    let order = world.order_of(key);
    let there = order.iter().take(from.into()).filter(|at| !is_down(down, **at)).count();
    let told = tell(story, &mut world, at, key, ack, from);
    assert_eq!(told.is_some(), there >= usize::from(ack), "{story:?} {ack}/{from}, {down:03b} down");
    (world, told)
}

fn keys() -> Vec<Bytes> {
    // Keys whose orders begin with different nodes.
    let world = World::new(1, 3, false);
    let mut firsts = BTreeSet::new();
    let keys = (0..).map(|number| Bytes::from(format!("key{number}")));
    keys.filter(|key| firsts.insert(world.order_of(key)[0])).take(3).collect()
}

#[test]
fn who_was_down_misses_nothing_that_a_quorum_sees() {
    for story in STORIES {
        for quorum in QUORUMS {
            for down in 0..7 {
                for key in keys() {
                    returns(story, &key, quorum, down);
                }
            }
        }
    }
}

fn returns(story: Story, key: &Bytes, (ack, from): (u8, u8), down: usize) {
    let name = format!("{story:?} {ack}/{from}, {down:03b} down, {key:?}");
    let (mut world, told) = until_return(story, key, (ack, from), down);
    // Those that were down come back with old data; nothing was mended yet.
    for at in (0..3).filter(|at| is_down(down, *at)) {
        world.up(at);
    }
    if let Some(value) = &told {
        for at in 0..3 {
            // As many as must overlap with those that acknowledged.
            let overlap = from - ack + 1;
            assert_eq!(world.get(at, key, overlap, from).as_ref(), Some(value), "{name}: read at {at}");
        }
    }
    world.heal();
    world.check();
    if let Some(value) = &told {
        for at in 0..3 {
            assert_eq!(
                world.get(at, key, 1, from).as_ref(),
                Some(value),
                "{name}: read at {at} after healing"
            );
        }
    }
}

#[test]
fn who_comes_back_with_an_empty_disk_answers_nothing_before_it_has_all() {
    for story in STORIES {
        for (ack, from) in QUORUMS {
            for down in 1..7_usize {
                for key in keys() {
                    wiped(story, &key, (ack, from), down);
                }
            }
        }
    }
}

fn wiped(story: Story, key: &Bytes, (ack, from): (u8, u8), down: usize) {
    let name = format!("{story:?} {ack}/{from}, {down:03b} down and one of them wiped, {key:?}");
    let (mut world, told) = until_return(story, key, (ack, from), down);
    let victim = (0..3).find(|at| is_down(down, *at)).expect("somebody is down");
    for at in (0..3).filter(|at| is_down(down, *at)) {
        world.up(at);
    }
    world.wipe(victim);
    if let Some(value) = &told {
        for at in 0..3 {
            let overlap = from - ack + 1;
            // It may be that nobody can answer yet; but what is told is right.
            let read = world.get(at, key, overlap, from);
            assert!(read.is_none() || read.as_ref() == Some(value), "{name}: {read:?} is read at {at}");
        }
    }
    world.heal();
    if let Some(value) = &told {
        for at in 0..3 {
            assert_eq!(
                world.get(at, key, 1, from).as_ref(),
                Some(value),
                "{name}: read at {at} after healing"
            );
        }
    }
    let copies = (0..3).filter(|at| world.own(*at, key).is_some()).count();
    let expected = match &told {
        Some(Some(_)) => usize::from(from),
        Some(None) => 0,
        None => copies,
    };
    assert_eq!(copies, expected, "{name}: copies");
}
