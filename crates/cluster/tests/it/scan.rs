//! `SCAN`, `KEYS` and `DBSIZE`.

use crate::support::{Client, World, show};
use kvorum_model::Reply;
use std::collections::HashSet;

fn page(client: &mut Client, cursor: &str, options: &str) -> (String, Vec<String>) {
    match client.run(&format!("SCAN {cursor} {options}")).remove(0) {
        Reply::Array(mut parts) => match (parts.pop(), parts.pop()) {
            (Some(Reply::Array(keys)), Some(cursor)) => (show(&cursor), keys.iter().map(show).collect()),
            other => panic!("{other:?}"),
        },
        other => panic!("{}", show(&other)),
    }
}

fn scan(client: &mut Client, options: &str, mut between: impl FnMut(&mut Client, usize)) -> Vec<String> {
    let (mut cursor, mut all, mut calls) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let (next, keys) = page(client, &cursor, options);
        all.extend(keys);
        calls += 1;
        if next == "0" {
            return all;
        }
        cursor = next;
        between(client, calls);
    }
}

#[test]
fn a_scan_returns_each_key_once() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    let sets: Vec<_> = (0..500).map(|i| format!("SET key:{i} v")).collect();
    client.run(&sets.join(";"));
    for count in [1, 7, 10, 499, 500, 1000] {
        let keys = scan(&mut client, &format!("COUNT {count}"), |_, _| ());
        assert_eq!(keys.len(), 500, "COUNT {count}");
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), 500);
    }
    assert_eq!(scan(&mut client, "MATCH key:49?", |_, _| ()).len(), 10);
    assert_eq!(scan(&mut client, "TYPE string COUNT 100", |_, _| ()).len(), 500);
    assert_eq!(scan(&mut client, "TYPE list COUNT 100", |_, _| ()).len(), 0);
    assert_eq!(client.text("DBSIZE"), "500");
    assert!(matches!(&client.run("KEYS key:1*")[0], Reply::Array(keys) if keys.len() == 111));
}

#[test]
fn keys_present_throughout_are_returned_while_others_come_and_go() {
    let world = World::new();
    let node = world.open();
    let mut client = Client::new(&node);
    let sets: Vec<_> = (0..300).map(|i| format!("SET stay:{i} v; SET go:{i} v")).collect();
    client.run(&sets.join(";"));
    let mut writer = Client::new(&node);
    let keys = scan(&mut client, "COUNT 5", |_, call| {
        writer.run(&format!("SET come:{call} v; DEL go:{call}; SET stay:{} again", call % 300));
    });
    let keys: HashSet<_> = keys.into_iter().collect();
    for i in 0..300 {
        assert!(keys.contains(&format!("stay:{i}")), "stay:{i}");
    }
}

#[test]
fn cursors_are_good_on_every_connection_and_nowhere_else() {
    let world = World::new();
    let node = world.open();
    let mut client = Client::new(&node);
    client.run("MSET a 1 b 2 c 3");
    let (cursor, first) = page(&mut client, "0", "COUNT 1");
    let mut other = Client::new(&node);
    // A lost reply: the same cursor again gives the same page.
    assert_eq!(page(&mut other, &cursor, "COUNT 1").1, page(&mut client, &cursor, "COUNT 1").1);
    let rest = page(&mut other, &cursor, "COUNT 10").1;
    assert_eq!(first.len() + rest.len(), 3);
    assert!(cursor.parse::<i64>().unwrap() > 0);
    assert_eq!(client.text("SCAN 12345"), "-ERR invalid cursor");
    assert_eq!(Client::of(&node, "1").text(&format!("SCAN {cursor}")), "-ERR invalid cursor");
}

#[test]
fn a_scan_after_writes_in_the_same_pipeline() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    assert_eq!(client.text("DBSIZE; KEYS *; SCAN 0"), "0 [] [0 []]");
    assert_eq!(
        client.text("SET a 1; DBSIZE; SET b 1; KEYS *; DEL a; SCAN 0; DBSIZE"),
        "OK 1 OK [b a] 1 [0 [b]] 1"
    );
}

#[test]
fn all_keys_inside_a_transaction() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    client.run("MSET a 1 b 2 c 3");
    assert_eq!(
        client.exec_text("DBSIZE; DEL a; SET d 4; SET b 5; DBSIZE; KEYS [abd]; SET e 6; DBSIZE"),
        "3 1 OK OK 3 [d b] OK 4"
    );
    assert_eq!(
        client.exec_text("SET f 1; FLUSHDB; DBSIZE; SET g 1; KEYS *; SCAN 0"),
        "OK OK 0 OK [g] [0 [g]]"
    );
    assert_eq!(client.text("KEYS *"), "[g]");
}

#[test]
fn a_transaction_reads_all_keys_again_if_they_change() {
    let world = World::new();
    let node = world.open();
    let mut client = Client::new(&node);
    client.run("MSET a 1 b 2");
    let words: [&[&[u8]]; 2] = [&[b"SET", b"c", b"3"], &[b"DBSIZE"]];
    let requests = words.map(|words| crate::support::request(client.namespace, words));
    let mut other = Client::new(&node);
    for round in 0.. {
        let done = node.transaction(&mut client.session, &requests, &client.watched);
        match done.outcome {
            kvorum_cluster::Outcome::Blocked(prefetch) => client.session.resume(prefetch.run()),
            kvorum_cluster::Outcome::Done(replies) => {
                assert_eq!(replies[1], Reply::Integer(3 + 3));
                break;
            }
            _ => panic!("neither blocked nor done"),
        }
        if round < 3 {
            other.run(&format!("SET other{round} 1"));
        }
    }
    // Three changes, three times read again.
    assert_eq!(client.text("DBSIZE"), "6");
}

#[test]
fn a_pattern_with_a_prefix_reads_only_what_begins_with_it() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    let sets: Vec<_> = (0..300).map(|i| format!("SET a:{i} v; SET b:{i} v; SET c:{i} v")).collect();
    client.run(&sets.join(";"));
    client.pipeline(&[vec![b"SET".to_vec(), vec![0xff, 0xff, b'x'], b"v".to_vec()]]);
    let mut calls = 1;
    assert_eq!(scan(&mut client, "MATCH b:* COUNT 50", |_, call| calls = call + 1).len(), 300);
    assert!(calls <= 7, "{calls} calls: other keys count too");
    let (cursor, keys) = page(&mut client, "0", "MATCH b:* COUNT 50");
    assert_eq!(keys.len(), 50);
    for other in ["a:*", "c:*", "x"] {
        let (_, keys) = page(&mut client, &cursor, &format!("MATCH {other} COUNT 1000"));
        assert!(
            keys.iter().all(|key| key.starts_with(&other[..1])),
            "another pattern with the cursor: {keys:?}"
        );
    }
    let of = |client: &mut Client, pattern: &[u8]| match client
        .pipeline(&[vec![b"KEYS".to_vec(), pattern.to_vec()]])
        .remove(0)
    {
        Reply::Array(keys) => keys.len(),
        other => panic!("{}", show(&other)),
    };
    assert_eq!(of(&mut client, b"a:1?"), 10);
    assert_eq!(of(&mut client, b"\xff\xff*"), 1);
    assert_eq!(of(&mut client, b"\xff*x"), 1);
    assert_eq!(of(&mut client, b"a:7"), 1);
    assert_eq!(of(&mut client, b""), 0);
    assert_eq!(of(&mut client, b"*"), 901);
}

#[test]
fn a_random_key_is_one_that_is_there() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    assert_eq!(client.run("RANDOMKEY")[0], Reply::Nil);
    assert_eq!(client.run("SET only v; RANDOMKEY")[1], Reply::bulk("only"));
    assert_eq!(client.run("DEL only; SET gone v PX 1")[0], Reply::Integer(1));
    world.clock.add(1);
    assert_eq!(client.run("RANDOMKEY")[0], Reply::Nil, "deleted or expired");
    let sets: Vec<_> = (0..300).map(|i| format!("SET key:{i} v")).collect();
    client.run(&sets.join(";"));
    let drawn: HashSet<String> = (0..200).map(|_| client.text("RANDOMKEY")).collect();
    assert!(drawn.len() > 20, "{drawn:?}");
    assert!(drawn.iter().all(|key| sets.contains(&format!("SET {key} v"))), "{drawn:?}");
}
