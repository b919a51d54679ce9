//! Entities in a cluster: any node coordinates.

use super::*;
use crate::Error;
use crate::available::{self, Operation, Wanted};
use crate::consistency::Consistency;
use crate::entity::Quorum;
use crate::namespace::Mode;
use crate::namespaces::{Conflicts, NamespaceSettings};
use kvorum_model::Reply;

pub(super) const fn quorum(ack: u32, from: u32) -> Quorum {
    Quorum { ack: Some(ack), from: Some(from) }
}

/// Waits until all running nodes know and reach so many.
pub(super) async fn meet(world: &World, nodes: usize) {
    for node in world.running() {
        let all = |status: &ClusterStatus| {
            status.nodes.len() == world.nodes.len()
                && status.nodes.iter().filter(|node| node.reachable).count() >= nodes
        };
        // Who is reachable changes without the map.
        while !node.cluster_status().as_ref().is_some_and(all) {
            let woken = node.inner.cluster.get().unwrap().control.changes();
            let again = async move {
                let mut woken = woken;
                let _ = tokio::time::timeout(Duration::from_millis(20), woken.changed()).await;
            };
            within("all nodes meet", node, again).await;
        }
    }
}

/// Ends a node as its process would, or as a crash does.
pub(super) async fn end(world: &mut World, number: usize, cleanly: bool) {
    let node = world.nodes[number].take().unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        if cleanly {
            node.shutdown().unwrap();
        }
    });
    ended.await.unwrap();
}

/// Waits until every replica has all that it should.
async fn whole(world: &World) {
    for node in world.running() {
        let is_whole = || node.stats().available.contains(&("namespaces_rebuilding", 0));
        until("replicas are whole", node, is_whole).await;
    }
}

async fn value(node: &Node, key: &[u8], quorum: Quorum) -> Option<bytes::Bytes> {
    node.entity().get(key, quorum).await.unwrap().map(|entry| entry.value)
}

/// What a node's own disk has.
fn own(node: &Node, key: &[u8]) -> Option<bytes::Bytes> {
    let tree = node.inner.tree(shard_of(NamespaceId::ENTITY, key))?;
    let found = tree.get(&user_key(key), &View::newest()).unwrap()?;
    found.is_value().then_some(found.value)
}

pub(super) async fn until(what: &str, node: &Node, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, node, holds).await;
}

#[test]
fn an_entity_is_kept_by_from_and_told_by_ack() {
    run(async {
        let mut world = World::new(3);
        meet(&world, 3).await;
        world.node(0).entity().put(b"k", b"one", quorum(3, 3)).await.unwrap();
        for node in world.running() {
            assert_eq!(value(node, b"k", quorum(1, 3)).await.as_deref(), Some(&b"one"[..]));
        }
        let refused = world.node(1).entity().put(b"k", b"two", quorum(1, 4)).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        // Never more copies than asked for, and read from every node.
        for (from, name) in [(1, b"one copy"), (2, b"2 copies")] {
            world.node(2).entity().put(name, b"x", quorum(from, from)).await.unwrap();
            assert_eq!(world.running().filter(|node| own(node, name).is_some()).count(), from as usize);
            for node in world.running() {
                assert_eq!(value(node, name, quorum(1, from)).await.as_deref(), Some(&b"x"[..]));
            }
        }
        // A node goes, misses an overwrite and a delete, and comes back to both.
        world.node(1).entity().put(b"gone", b"one", quorum(3, 3)).await.unwrap();
        end(&mut world, 2, true).await;
        world.node(0).entity().put(b"k", b"two", quorum(2, 3)).await.unwrap();
        world.node(1).entity().delete(b"gone", quorum(2, 3)).await.unwrap();
        let few = world.node(0).entity().put(b"more", b"x", quorum(3, 3)).await;
        assert!(matches!(few, Err(Error::TooFew { at_most: 2, wanted: 3 })), "{few:?}");
        world.open(2);
        meet(&world, 3).await;
        // It asks two, and one of any two has it.
        assert_eq!(value(world.node(2), b"k", quorum(2, 3)).await.as_deref(), Some(&b"two"[..]));
        assert_eq!(value(world.node(2), b"gone", quorum(2, 3)).await, None);
        // What it missed comes to its own disk by itself.
        let node = world.node(2);
        until("a missed write arrives", node, || own(node, b"k").as_deref() == Some(b"two")).await;
        until("a missed delete arrives", node, || own(node, b"gone").is_none()).await;
        for number in 0..3 {
            end(&mut world, number, true).await;
        }
    });
}

/// Executes lines of words in a namespace.
pub(super) async fn execute(
    node: &Node,
    namespace: NamespaceId,
    consistency: Consistency,
    lines: &[&str],
) -> Vec<String> {
    let mut session = Session::new();
    session.consistency = consistency;
    let words = words(lines.iter().copied());
    let requests = requests(namespace, &words);
    let text = |reply: &Reply| match reply {
        Reply::Ok => "OK".to_owned(),
        Reply::Nil => "nil".to_owned(),
        Reply::Integer(number) => number.to_string(),
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Reply::Error(error) => error.text().to_owned(),
        other => format!("{other:?}"),
    };
    node.serve(&mut session, &requests).await.iter().map(text).collect()
}

#[test]
fn commands_of_the_redis_protocol_reach_all_replicas() {
    run(async {
        let mut world = World::new(3);
        meet(&world, 3).await;
        let mut settings = NamespaceSettings::new(Mode::Available);
        settings.shards = 4;
        let made = world.node(0).namespaces().create("sessions", settings).await.unwrap();
        let asked = |ack, from| Consistency { ack: Some(ack), from: Some(from), ..Consistency::default() };
        for namespace in [NamespaceId::ENTITY, made.id] {
            for node in world.running() {
                let knows = || node.inner.namespaces.get(namespace.id()).is_some();
                until("the namespace is known", node, knows).await;
            }
            let on = |at: usize| world.node(at);
            let lines =
                ["SET a 1", "GET a", "SET a 2", "MGET a b a", "DEL a b", "EXISTS a b", "SET b 3 PX 60000"];
            let replies = execute(on(0), namespace, asked(3, 3), &lines).await;
            let mget = r#"Array([Bulk(b"2"), Nil, Bulk(b"2")])"#;
            assert_eq!(replies, ["OK", "1", "OK", mget, "1", "0", "OK"]);
            for at in 0..3 {
                assert_eq!(execute(on(at), namespace, asked(1, 3), &["GET b", "GET a"]).await, ["3", "nil"]);
            }
            // Conditions are judged on what a quorum has.
            let version = execute(on(1), namespace, asked(3, 3), &["SETV c 1"]).await.remove(0);
            let stale = format!("SET c 2 IFVERSION {}", version.parse::<u64>().unwrap() - 1);
            let fresh = format!("SET c 2 IFVERSION {version}");
            let conflict = format!("CONFLICT {version}");
            assert_eq!(execute(on(2), namespace, asked(2, 3), &[&stale, &fresh]).await, [&conflict, "OK"]);
            for refused in ["INCR n", "APPEND a b", "SET a 1 NX", "SET a 1 GET"] {
                let replies = execute(on(0), namespace, asked(2, 3), &[refused]).await;
                assert_eq!(replies, ["ERR needs a strong namespace"], "{refused}");
            }
            let replies = execute(on(0), namespace, asked(1, 4), &["GET a"]).await;
            assert_eq!(replies, ["ERR from is 4, but the cluster has 3 nodes"]);
        }
        end(&mut world, 1, true).await;
        let replies = execute(world.node(2), made.id, asked(3, 3), &["GET b"]).await;
        assert_eq!(replies, ["NOREPLICAS Not Enough Replicas: 3 must answer, 2 can"]);
        assert_eq!(
            execute(world.node(2), made.id, asked(2, 3), &["GET b", "DEL b", "GET b"]).await,
            ["3", "1", "nil"]
        );
    });
}

#[test]
fn a_node_alone_after_a_restart_serves_from_its_stored_map() {
    run(async {
        let mut world = World::new(3);
        meet(&world, 3).await;
        world.node(0).entity().put(b"k", b"one", quorum(3, 3)).await.unwrap();
        whole(&world).await;
        for number in 0..3 {
            end(&mut world, number, number == 1).await;
        }
        world.open(1);
        let node = world.node(1);
        assert_eq!(value(node, b"k", quorum(1, 3)).await.as_deref(), Some(&b"one"[..]));
        node.entity().put(b"k", b"two", quorum(1, 3)).await.unwrap();
        assert_eq!(value(node, b"k", quorum(1, 3)).await.as_deref(), Some(&b"two"[..]));
        let few = node.entity().get(b"k", quorum(2, 3)).await;
        assert!(matches!(few, Err(Error::TooFew { at_most: 1, wanted: 2 })), "{few:?}");
        world.open(0);
        meet(&world, 2).await;
        let node = world.node(0);
        until("what the other one took alone arrives", node, || own(node, b"k").as_deref() == Some(b"two"))
            .await;
    });
}

async fn all(
    node: &Node,
    start: &[u8],
    end: Option<&[u8]>,
    quorum: Quorum,
) -> Vec<(bytes::Bytes, bytes::Bytes)> {
    let mut range = node.entity().range_of_cluster(start, end, quorum).await.unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = range.next().await {
        entries.push(entry.unwrap());
    }
    entries
}

#[test]
fn a_range_of_the_cluster_has_the_newest_of_every_node() {
    run(async {
        let mut world = World::new(3);
        meet(&world, 3).await;
        let mut expected = Vec::new();
        for number in 0..700 {
            let (key, from) = (format!("k{number:04}"), number % 3 + 1);
            let (at, value) = (world.node(number as usize % 3), format!("v{number}"));
            at.entity().put(key.as_bytes(), value.as_bytes(), quorum(from, from)).await.unwrap();
            expected.push((key.into(), value.into()));
        }
        world.node(1).entity().put(b"k0003", b"newer", quorum(1, 1)).await.unwrap();
        world.node(2).entity().delete(b"k0005", quorum(1, 3)).await.unwrap();
        expected[3].1 = "newer".into();
        expected.remove(5);
        for node in world.running() {
            assert_eq!(all(node, b"", None, quorum(3, 3)).await, expected);
            assert_eq!(all(node, b"k0010", Some(b"k0013"), quorum(3, 3)).await, expected[9..12]);
            assert_eq!(all(node, b"k0010", Some(b"k0010"), quorum(3, 3)).await, []);
        }
        end(&mut world, 0, true).await;
        let node = world.node(1);
        let few = node.entity().range_of_cluster(b"", None, quorum(3, 3)).await.err();
        assert!(matches!(few, Some(Error::TooFew { at_most: 2, wanted: 3 })), "{few:?}");
        let few = node.entity().range_of_cluster(b"", None, quorum(2, 2)).await.err();
        assert!(matches!(few, Some(Error::TooFew { at_most: 1, wanted: 2 })), "{few:?}");
        // What two acknowledged is on one of any two, also if it is newer than what stands on the other.
        let is_kept_by_more = |(key, _): &(bytes::Bytes, bytes::Bytes)| {
            key[1..].iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')) % 3 > 0
        };
        expected.retain(is_kept_by_more);
        let found = all(node, b"", None, Quorum::default()).await;
        assert!(expected.iter().all(|entry| found.contains(entry)), "{found:?}");
    });
}

#[test]
fn a_node_with_an_empty_disk_answers_nothing_before_it_has_all() {
    run(async {
        let mut world = World::new(3);
        meet(&world, 3).await;
        let keys = keys(40);
        for key in &keys {
            world.node(0).entity().put(key, b"old", quorum(3, 3)).await.unwrap();
        }
        end(&mut world, 2, true).await;
        for key in &keys {
            world.node(0).entity().put(key, b"new", quorum(2, 3)).await.unwrap();
        }
        std::fs::remove_dir_all(world.dir.path().join("n2")).unwrap();
        world.open_as(2, Bootstrap::Join(world.addresses[0].to_string()));
        let node = world.node(2);
        let has_entered = || node.cluster_status().is_some_and(|status| status.nodes.len() == 3);
        until("it is in the cluster", node, has_entered).await;
        // Its own replica would be the fastest to say that there is nothing.
        let mut reads = 0;
        while !keys.iter().all(|key| own(node, key).is_some()) {
            let key = &keys[reads % keys.len()];
            assert_eq!(value(node, key, quorum(1, 3)).await.as_deref(), Some(&b"new"[..]));
            reads += 1;
        }
        for key in &keys {
            assert_eq!(value(node, key, quorum(3, 3)).await.as_deref(), Some(&b"new"[..]));
            assert_eq!(own(node, key).as_deref(), Some(&b"new"[..]));
        }
    });
}

#[test]
fn replicas_of_both_modes_are_compared() {
    run(async {
        let world = World::new(3);
        world.settle().await;
        for number in 0..60_u32 {
            let key = format!("k{number}");
            world.put(key.as_bytes(), b"strong").await;
            let from = number % 3 + 1;
            world.node(0).entity().put(key.as_bytes(), b"x", quorum(from, from)).await.unwrap();
        }
        whole(&world).await;
        let node = world.node(1);
        let verified = within("all shards are compared", node, node.verify_cluster()).await.unwrap();
        assert_eq!(verified.shards.len(), 32, "16 of each mode");
        let unequal: Vec<_> = verified.shards.iter().filter(|shard| shard.equal != Some(true)).collect();
        assert!(unequal.is_empty(), "{unequal:#?}");
        // Something goes from one member's disk, behind everybody's back.
        let place = node.inner.shard(shard_of(NamespaceId::ZERO, b"k7")).unwrap();
        let (tree, key) = (place.latch().member.as_deref().unwrap().tree().clone(), user_key(b"k7"));
        let found = tree.get(&key, &View::newest()).unwrap().unwrap();
        let mut batch = Batch::new();
        batch.retract(&tree, &key, found.version);
        node.inner.store.write(&batch, Durability::Synced).unwrap().wait().unwrap();
        let verified = within("all shards are compared", node, world.node(0).verify_cluster()).await.unwrap();
        let differing: Vec<_> = verified.shards.iter().filter(|shard| shard.equal == Some(false)).collect();
        assert_eq!(differing.len(), 1, "{differing:#?}");
        assert_eq!(
            (differing[0].namespace.as_str(), differing[0].place),
            ("0", shard_of(NamespaceId::ZERO, b"k7").place)
        );
    });
}

#[test]
fn what_was_written_at_the_same_time_is_kept_where_the_namespace_says_so() {
    run(async {
        let world = World::new(3);
        meet(&world, 3).await;
        let mut settings = NamespaceSettings::new(Mode::Available);
        (settings.shards, settings.conflicts) = (4, Conflicts::Keep);
        let made = world.node(0).namespaces().create("carts", settings).await.unwrap();
        for node in world.running() {
            until("the namespace is known", node, || node.inner.namespaces.get(made.id.id()).is_some()).await;
        }
        let all = Consistency { ack: Some(3), from: Some(3), ..Consistency::default() };
        let on = async |at: usize, line: &str| execute(world.node(at), made.id, all, &[line]).await.remove(0);
        assert_eq!(on(0, "SET cart first").await, "OK");
        assert_eq!(on(1, "CONFLICTS cart").await, "Array([])");
        // Two that have read the first one write at the same time: what each coordinator sends, one after the other.
        let first = on(2, "SETV cart seen").await.parse::<u64>().unwrap();
        let entry = |at: usize, value: &'static str| available::Entry {
            version: world.node(at).inner.hybrid.stamp(world.node(at).now_ms()),
            value: Some(value.into()),
            expires_at: None,
            from: 3,
            shadow: false,
            base: Some(first),
        };
        let (one, other) = (entry(0, "apples"), entry(1, "pears"));
        let (winner, loser) = if one.version > other.version { (&one, &other) } else { (&other, &one) };
        for (at, entry) in [(0, winner), (1, loser)] {
            let shell = &world.node(at).inner.cluster.get().unwrap().available;
            let operation = Operation::Write(entry.clone());
            let wanted =
                Wanted { namespace: made.id.id(), key: "cart".into(), operation, ack: 3, durability: None };
            shell.coordinate(wanted).await.unwrap();
        }
        let text =
            |entry: &available::Entry| String::from_utf8_lossy(entry.value.as_ref().unwrap()).into_owned();
        assert_eq!(on(2, "GET cart").await, text(winner));
        let kept = format!("Array([Array([Bulk(b\"{}\"), Bulk(b\"{}\")])])", text(loser), loser.version);
        for at in 0..3 {
            assert_eq!(on(at, "CONFLICTS cart").await, kept);
        }
        // Who has seen both ends the conflict.
        assert_eq!(on(0, "SET cart apples,pears").await, "OK");
        assert_eq!(on(1, "CONFLICTS cart").await, "Array([])");
        assert_eq!(on(1, "GET cart").await, "apples,pears");
    });
}

#[test]
fn who_found_nobody_yet_starts_again() {
    let loopback = "127.0.0.1:0".parse().unwrap();
    let listeners: Vec<_> = (0..3).map(|_| PeerListener::bind(loopback).unwrap()).collect();
    let mut world = World {
        dir: TempDir::new().unwrap(),
        addresses: Vec::new(),
        nodes: Vec::new(),
        disks: BTreeMap::new(),
    };
    world.addresses = listeners.iter().map(PeerListener::address).collect();
    let listener = listeners.into_iter().next().unwrap();
    drop(world.open_with(0, listener, world.peers()));
    world.nodes.push(None);
    world.open(0);
    let few = run_alone(world.node(0).entity().put(b"k", b"x", quorum(1, 1)));
    assert!(matches!(few, Err(Error::TooFew { at_most: 0, .. })), "there is no cluster yet: {few:?}");
}

fn run_alone<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
