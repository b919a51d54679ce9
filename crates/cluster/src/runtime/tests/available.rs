//! Entities in a cluster: any node coordinates.

use super::*;
use crate::Error;
use crate::consistency::Consistency;
use crate::entity::Quorum;
use crate::namespace::Mode;
use crate::namespaces::NamespaceSettings;
use kvorum_model::Reply;

const fn quorum(ack: u32, from: u32) -> Quorum {
    Quorum { ack: Some(ack), from: Some(from) }
}

/// Waits until all running nodes know and reach so many.
async fn meet(world: &World, nodes: usize) {
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
async fn end(world: &mut World, number: usize, cleanly: bool) {
    let node = world.nodes[number].take().unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        if cleanly {
            node.shutdown().unwrap();
        }
    });
    ended.await.unwrap();
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

async fn until(what: &str, node: &Node, condition: impl Fn() -> bool) {
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
async fn execute(
    node: &Node,
    namespace: NamespaceId,
    consistency: Consistency,
    lines: &[&str],
) -> Vec<String> {
    let mut session = Session::new();
    session.consistency = consistency;
    let words: Vec<Vec<&[u8]>> =
        lines.iter().map(|line| line.split(' ').map(str::as_bytes).collect()).collect();
    let requests: Vec<Request<'_>> = words
        .iter()
        .map(|words| {
            let args = Args::new(words);
            Request { namespace, spec: resolve(args).unwrap(), args }
        })
        .collect();
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
