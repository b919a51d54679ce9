//! Commands over all keys of an available namespace: those of all nodes.

use super::available::{end, execute, meet, quorum};
use super::*;
use crate::consistency::Consistency;
use std::collections::BTreeSet;

const ENTITY: NamespaceId = NamespaceId::ENTITY;

const fn asked(ack: u32, from: u32) -> Consistency {
    Consistency { ack: Some(ack), from: Some(from), read: None, durability: None }
}

async fn one(node: &Node, consistency: Consistency, line: &str) -> String {
    execute(node, ENTITY, consistency, &[line]).await.remove(0)
}

/// A page of a scan: the cursor, and the keys.
async fn page(node: &Node, consistency: Consistency, cursor: &str, rest: &str) -> (String, Vec<String>) {
    let reply = one(node, consistency, &format!("SCAN {cursor}{rest}")).await;
    let mut words: Vec<String> = reply.split("b\"").skip(1).filter_map(quoted).collect();
    assert!(!words.is_empty(), "{reply}");
    (words.remove(0), words)
}

fn quoted(text: &str) -> Option<String> {
    text.split('"').next().map(str::to_owned)
}

/// A list of keys.
async fn keys(node: &Node, consistency: Consistency, pattern: &str) -> BTreeSet<String> {
    let reply = one(node, consistency, &format!("KEYS {pattern}")).await;
    assert!(reply.starts_with("Array"), "{reply}");
    reply.split("b\"").skip(1).filter_map(quoted).collect()
}

/// Writes 200 keys, each with another number of copies, of which some are deleted or expire; answers those that are there.
async fn fill(world: &World) -> BTreeSet<String> {
    let mut expected = BTreeSet::new();
    for number in 0..200 {
        let (key, from) = (format!("k{number:03}"), number % 3 + 1);
        let at = world.node(number as usize % 3);
        at.entity().put(key.as_bytes(), b"x", quorum(from, from)).await.unwrap();
        expected.insert(key);
    }
    for gone in ["k005", "k006", "k100"] {
        world.node(2).entity().delete(gone.as_bytes(), quorum(3, 3)).await.unwrap();
        expected.remove(gone);
    }
    let node = world.node(1);
    assert_eq!(one(node, asked(3, 3), "SET k007 x PX 1").await, "OK");
    expected.remove("k007");
    let expires = async { while one(node, asked(3, 3), "EXISTS k007").await != "0" {} };
    within("a key expires", node, expires).await;
    expected
}

#[test]
fn all_keys_are_those_of_all_nodes() {
    run(async {
        let world = World::new(3);
        meet(&world, 3).await;
        let expected = fill(&world).await;
        for node in world.running() {
            assert_eq!(keys(node, asked(3, 3), "*").await, expected);
            assert_eq!(one(node, asked(3, 3), "DBSIZE").await, expected.len().to_string());
            let tenth: BTreeSet<String> =
                expected.iter().filter(|key| key.starts_with("k10")).cloned().collect();
            assert_eq!(keys(node, asked(3, 3), "k10?").await, tenth);
            assert!(expected.contains(&one(node, asked(3, 3), "RANDOMKEY").await));
        }
        // A cursor is good at every node.
        for rest in ["", " COUNT 7", " MATCH k1* COUNT 30 TYPE string", " TYPE list", " COUNT 1000"] {
            let (mut cursor, mut found, mut at) = ("0".to_owned(), Vec::new(), 0);
            loop {
                let (next, keys) = page(world.node(at % 3), asked(3, 3), &cursor, rest).await;
                found.extend(keys);
                (cursor, at) = (next, at + 1);
                if cursor == "0" {
                    break;
                }
            }
            let wanted =
                |key: &&String| !rest.contains("list") && (!rest.contains("MATCH") || key.starts_with("k1"));
            let wanted: Vec<String> = expected.iter().filter(wanted).cloned().collect();
            assert_eq!(found, wanted, "{rest:?}, in order and each once");
        }
        let node = world.node(0);
        for line in ["SCAN 77", "SCAN x"] {
            assert_eq!(one(node, asked(3, 3), line).await, "ERR invalid cursor");
        }
        let refused = "ERR entity is an available namespace, which can't be flushed";
        assert_eq!(one(node, asked(3, 3), "FLUSHDB").await, refused);
        world.settle().await;
        world.put(b"strong", b"x").await;
        assert_eq!(one(node, asked(3, 3), "FLUSHALL").await, "OK");
        for node in world.running() {
            let there = execute(node, NamespaceId::ZERO, Consistency::default(), &["EXISTS strong"]).await;
            assert_eq!(there, ["0"], "it is about the namespaces 0 to 15, at every member");
        }
        assert_eq!(one(node, asked(3, 3), "DBSIZE").await, expected.len().to_string());
    });
}

#[test]
fn all_keys_are_told_as_long_as_none_can_be_missed() {
    run(async {
        let mut world = World::new(3);
        meet(&world, 3).await;
        let lines: Vec<String> = (0..60).map(|number| format!("SET k{number:02} x")).collect();
        let expected: BTreeSet<String> = (0..60).map(|number| format!("k{number:02}")).collect();
        let plain = Consistency::default();
        for (at, line) in lines.iter().enumerate() {
            assert_eq!(one(world.node(at % 3), plain, line).await, "OK");
        }
        let (cursor, first) = page(world.node(0), plain, "0", " COUNT 25").await;
        assert_eq!(first.len(), 25);
        // Who gave the cursor goes: the others find its place.
        end(&mut world, 0, false).await;
        for at in [1, 2] {
            let node = world.node(at);
            assert_eq!(keys(node, plain, "*").await, expected);
            let (last, rest) = page(node, plain, &cursor, " COUNT 100").await;
            assert_eq!((last.as_str(), rest.len()), ("0", 35));
            assert!(rest.iter().chain(&first).eq(expected.iter().skip(25).chain(expected.iter().take(25))));
        }
        // One of two can't know what was acknowledged by the others.
        end(&mut world, 1, false).await;
        let node = world.node(2);
        for line in ["KEYS *", "DBSIZE", "SCAN 0", "RANDOMKEY"] {
            let few = one(node, plain, line).await;
            assert_eq!(few, "NOREPLICAS Not Enough Replicas: 2 must answer, 1 can", "{line}");
        }
        assert_eq!(
            one(node, asked(3, 3), "DBSIZE").await,
            "NOREPLICAS Not Enough Replicas: 3 must answer, 1 can"
        );
        let own = keys(node, asked(1, 3), "*").await;
        assert!(own.is_subset(&expected), "for who asks for no more than one replica");
        // All have been away since the cursor was given.
        end(&mut world, 2, false).await;
        for number in 0..3 {
            world.open(number);
        }
        meet(&world, 3).await;
        let (last, rest) = page(world.node(0), asked(3, 3), &cursor, " COUNT 100").await;
        assert_eq!((last.as_str(), rest.len()), ("0", 35));
    });
}
