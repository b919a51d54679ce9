//! Time and expiry.

use crate::support::{Client, NOW, World};

#[test]
fn expired_keys_are_invisible_at_once() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    assert_eq!(client.text("SET a 1 PX 100; SET b 2; PTTL a"), "OK OK 100");
    world.clock.add(99);
    assert_eq!(client.text("GET a; PTTL a"), "1 1");
    world.clock.add(1);
    assert_eq!(
        client.text("GET a; EXISTS a; TTL a; DBSIZE; KEYS *; GETV a; SCAN 0"),
        "nil 0 -2 1 [b] [nil 0 stable] [0 [b]]"
    );
    // They count as absent for conditions too.
    assert_eq!(client.text("SET a 3 NX; GET a"), "OK 3");
    assert_eq!(client.text("SET c 1 PX 5"), "OK");
    world.clock.add(5);
    assert_eq!(client.text("SET c 2 IFVERSION 0; INCR c"), "OK 3");
}

#[test]
fn time_does_not_fall_when_the_clock_does() {
    let world = World::new();
    let node = world.open();
    let mut client = Client::new(&node);
    client.run("SET a 1 PX 100");
    world.clock.add(100);
    assert_eq!(client.text("GET a"), "nil");
    world.clock.set(NOW - 1_000_000);
    assert_eq!(client.text("GET a"), "nil");
    drop((client, node));
    // Nor over a restart without a clean end: what was told as expired stays so.
    let mut client = Client::new(&world.open());
    assert_eq!(client.text("GET a; SET b 1 PX 1; PTTL b"), "nil OK 1");
}

#[test]
fn a_count_that_missed_expired_keys_lasts() {
    let world = World::new();
    let node = world.open();
    let mut client = Client::new(&node);
    client.run("SET a 1 PX 100");
    world.clock.add(100);
    assert_eq!(client.text("DBSIZE"), "0");
    world.clock.set(NOW);
    drop((client, node));
    assert_eq!(Client::new(&world.open()).text("GET a; DBSIZE"), "nil 0");
}

#[test]
fn a_clean_end_notes_the_time() {
    let world = World::new();
    let node = world.open();
    Client::new(&node).run("SET a 1 PX 100");
    world.clock.add(100);
    assert_eq!(node.now_ms(), NOW + 100);
    node.shutdown().unwrap();
    drop(node);
    world.clock.set(NOW);
    assert_eq!(Client::new(&world.open()).text("GET a"), "nil");
}
