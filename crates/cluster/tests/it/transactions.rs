//! `MULTI`/`EXEC` and `WATCH`.

use crate::support::{Client, World, parse};
use kvorum_cluster::{Durability, Outcome};

#[test]
fn all_commands_on_top_of_each_other() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    assert_eq!(
        client.exec_text("SET a 1; INCR a; GET a; DEL a; INCR a; SET b x; APPEND b y; GET b"),
        "OK 2 2 1 1 OK 2 xy"
    );
    assert_eq!(client.text("MGET a b"), "[1 xy]");
    // One item in each shard: a key's last effect alone.
    assert_eq!(client.exec_text("SET {t}a 1; SET {t}b 1; SET {t}a 2; INCR {t}a"), "OK OK OK 3");
    let version = client.version("{t}a");
    assert_eq!(client.version("{t}b"), version);
    assert_eq!(client.exec_text("SETV {t}a 1; SETV {t}a 2"), format!("{0} {0}", version + 1));
    assert_eq!(client.version("{t}a"), version + 1);
}

#[test]
fn an_error_of_one_command_is_its_own() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    assert_eq!(
        client.exec_text("SET a x; INCR a; SET b 1"),
        "OK -ERR value is not an integer or out of range OK"
    );
    assert_eq!(client.text("MGET a b"), "[x 1]");
}

#[test]
fn nothing_in_it_is_no_write() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    assert_eq!(client.exec_text(""), "");
    assert_eq!(client.exec_text("GET a; DEL a"), "nil 0");
}

#[test]
fn a_watched_key_that_changed_stops_it() {
    let world = World::new();
    let node = world.open();
    let (mut client, mut other) = (Client::new(&node), Client::new(&node));
    for change in ["SET a 1", "DEL a", "FLUSHALL", "SET a 2 PX 1", "INCR a"] {
        client.run("SET a 1");
        client.watch(&[b"a", b"b"]);
        other.run(change);
        world.clock.add(1);
        assert_eq!(client.exec_text("SET a 9"), "changed", "{change}");
        assert_ne!(client.text("GET a"), "9");
    }
    client.watch(&[b"a"]);
    other.run("SET b 1; GET a");
    assert_eq!(client.exec_text("SET a 9"), "OK");
    // The own write counts too.
    client.watch(&[b"a"]);
    client.run("SET a 10");
    assert_eq!(client.exec_text("SET a 11"), "changed");
    // Absent, and absent still.
    client.watch(&[b"none"]);
    other.run("DEL none");
    assert_eq!(client.exec_text("SET none 1"), "OK");
}

#[test]
fn a_watched_key_that_expires_counts_as_deleted() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    client.run("SET a 1 PX 100");
    client.watch(&[b"a"]);
    world.clock.add(100);
    assert_eq!(client.exec_text("SET b 1"), "changed");
    client.watch(&[b"a"]);
    assert_eq!(client.exec_text("SET b 1"), "OK");
}

#[test]
fn over_namespaces() {
    let world = World::new();
    let node = world.open();
    Client::of(&node, "1").run("SET warm up");
    let mut client = Client::new(&node);
    client.run("SET warm up");
    let words: [&[&[u8]]; 3] = [&[b"SET", b"a", b"0"], &[b"SET", b"a", b"1"], &[b"GET", b"a"]];
    let [zero, one, get] = words;
    let (ns0, ns1) = (client.namespace, node.namespace(b"1").unwrap());
    let requests = [(ns0, zero), (ns1, one), (ns0, get), (ns1, get)]
        .map(|(ns, words)| crate::support::request(ns, words));
    let done = node.transaction(&mut client.session, &requests, &client.watched);
    let Outcome::Done(replies) = done.outcome else { panic!("not done") };
    assert_eq!(replies.iter().map(crate::support::show).collect::<Vec<_>>(), ["OK", "OK", "0", "1"]);
}

#[test]
fn it_is_one_batch() {
    let mut world = World::new();
    world.settings.durability = Durability::Buffered;
    let node = world.open();
    let mut client = Client::new(&node);
    client.run("SET warm up");
    let before = node.stats().engine.iter().find(|(name, _)| *name == "visible_sequence").unwrap().1;
    client.exec("SET a 1; SET a 2; SET b 1; DEL b; SET c 1").unwrap();
    let after = node.stats().engine.iter().find(|(name, _)| *name == "visible_sequence").unwrap().1;
    assert_eq!(after - before, 3, "a, b and c once each");
    assert_eq!(parse("a b; c").len(), 2);
}
