//! Nodes that are to rest, or to go.

use crate::world::{Client, PATIENCE, World, code, run};
use kvorum_cluster::{
    Bootstrap, ClusterSettings, ClusterStatus, Error, Node, NodeSettings, NodeStatus, PeerListener, Quorum,
};
use kvorum_model::Reply;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio::task::JoinHandle;

/// Waits until a node sees the cluster so.
async fn until(node: &Node, what: &str, condition: impl FnMut(&ClusterStatus) -> bool) {
    if tokio::time::timeout(PATIENCE, node.cluster_until(condition)).await.is_err() {
        panic!("not in time: {what}: {:#?}", node.cluster_status());
    }
}

fn row<'s>(status: &'s ClusterStatus, name: &str) -> Option<&'s NodeStatus> {
    status.nodes.iter().find(|node| node.name == name)
}

fn leads(status: &ClusterStatus, name: &str) -> Option<usize> {
    row(status, name).map(|node| node.leads)
}

fn all_led(status: &ClusterStatus) -> bool {
    status.shards.iter().all(|shard| shard.led)
}

/// Counts in many shards until it is told to stop; what it is answered must never be unknown. Answers how often it counted.
fn count(mut client: Client, stop: &Arc<AtomicBool>) -> JoinHandle<i64> {
    let stop = Arc::clone(stop);
    tokio::spawn(async move {
        let mut done = 0;
        while !stop.load(SeqCst) {
            match client.call(&format!("INCR counted:{}", done % 64)).await {
                Reply::Integer(_) => done += 1,
                reply => assert_eq!(code(&reply), "TRYAGAIN", "{reply:?}"),
            }
        }
        done
    })
}

async fn counted(client: &mut Client) -> i64 {
    let mut sum = 0;
    for key in 0..64 {
        if let Reply::Bulk(bytes) = client.call(&format!("GET counted:{key}")).await {
            sum += std::str::from_utf8(&bytes).unwrap().parse::<i64>().unwrap();
        }
    }
    sum
}

#[test]
fn a_node_that_drains_hands_over_with_nothing_unknown_and_leads_nothing_until_that_ends() {
    run(async {
        let mut world = World::of(3).await;
        until(world.node(0), "all lead something", |status| status.nodes.iter().all(|node| node.leads > 0))
            .await;
        let stop = Arc::new(AtomicBool::new(false));
        let counting: Vec<_> = (0..3).map(|at| count(world.client(at), &stop)).collect();
        let drained = world.node(1).nodes().drain("n0").await.unwrap();
        assert_eq!((drained.name.as_str(), drained.state), ("n0", "draining"));
        let hands_over = |status: &ClusterStatus| leads(status, "n0") == Some(0) && all_led(status);
        until(world.node(0), "n0 leads nothing", hands_over).await;
        stop.store(true, SeqCst);
        let mut sum = 0;
        for one in counting {
            sum += one.await.unwrap();
        }
        assert!(sum > 0);
        assert_eq!(counted(&mut world.client(0)).await, sum, "each was counted once, and n0 serves");
        let status = world.node(2).cluster_status().unwrap();
        assert_eq!(row(&status, "n0").unwrap().members, status.shards.len(), "it keeps its copies");
        let ends = world.node(0).clone();
        tokio::task::spawn_blocking(move || ends.shutdown()).await.unwrap().unwrap();
        world.restart(0);
        until(world.node(0), "it drains still", |status| {
            row(status, "n0").is_some_and(|node| node.state == "draining" && node.leads == 0)
                && all_led(status)
        })
        .await;
        assert_eq!(
            world.node(2).nodes().drain("n0").await.unwrap().state,
            "draining",
            "that changes nothing"
        );
        assert_eq!(world.node(0).nodes().end_drain("n0").await.unwrap().state, "up");
        assert_eq!(world.node(0).nodes().end_drain("n0").await.unwrap().state, "up", "that changes nothing");
    });
}

/// Opens a node on a folder of the world, on a port of its own.
fn open(world: &World, folder: &str, name: &str) -> Result<Node, Error> {
    open_through(world, 0, folder, name)
}

/// As [`open`], entering by another node than the first.
fn open_through(world: &World, through: usize, folder: &str, name: &str) -> Result<Node, Error> {
    let mut settings = NodeSettings::new(world.dir.path().join(folder));
    settings.memory_bytes = 16 << 20;
    let listener = PeerListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut cluster = ClusterSettings::new(name, listener);
    cluster.bootstrap = Bootstrap::Join(world.addresses[through].to_string());
    settings.cluster = Some(cluster);
    Node::open(settings)
}

async fn shut_down(world: &mut World, number: usize) {
    let node = world.nodes[number].take().unwrap();
    tokio::task::spawn_blocking(move || node.shutdown()).await.unwrap().unwrap();
}

async fn removed(node: &Node) -> String {
    let told = tokio::time::timeout(PATIENCE, node.removed()).await;
    told.unwrap_or_else(|_| panic!("it does not learn that it was removed: {:#?}", node.cluster_status()))
}

/// How many nodes have each entry on their own disks.
async fn copies(world: &World) -> BTreeMap<String, usize> {
    let mut copies = BTreeMap::new();
    for node in world.nodes.iter().flatten() {
        let mut range = node.entity().range(b"", None).await.unwrap();
        while let Some(entry) = range.next().await {
            let key = String::from_utf8(entry.unwrap().0.to_vec()).unwrap();
            *copies.entry(key).or_default() += 1;
        }
    }
    copies
}

const TWO: Quorum = Quorum { ack: Some(2), from: Some(2) };

#[test]
fn a_node_that_is_removed_under_load_takes_nothing_with_it() {
    run(async {
        let mut world = World::of(4).await;
        // The one that leads the control plane has most to hand over.
        until(world.node(0), "somebody leads the log", |status| status.control.is_some()).await;
        let leader = world.node(0).cluster_status().unwrap().control;
        let gone = (0..4).find(|at| Some(format!("n{at}")) == leader).unwrap();
        let (name, stay) = (format!("n{gone}"), (0..4).filter(|at| *at != gone).collect::<Vec<_>>());
        for number in 0..60 {
            let put = async {
                while world.node(gone).entity().put(format!("e{number}").as_bytes(), b"v", TWO).await.is_err()
                {
                }
            };
            tokio::time::timeout(PATIENCE, put).await.expect("an entity is taken");
        }
        let (stop, stop_there) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut counting: Vec<_> = stay.iter().map(|at| count(world.client(*at), &stop)).collect();
        counting.push(count(world.client(gone), &stop_there));
        let removal = world.node(stay[0]).nodes().remove(&name).await.unwrap();
        assert_eq!((removal.node.state, removal.notes.len()), ("leaving", 0));
        let again = world.node(gone).nodes().remove(&name).await.unwrap();
        assert!(again.node.leaving.is_some(), "it tells how far it is: {again:?}");
        let error = world.node(stay[1]).nodes().drain(&name).await.unwrap_err();
        assert!(
            matches!(error, Error::NotNow(_)) && error.to_string().contains("is being removed"),
            "{error}"
        );
        let why = removed(world.node(gone)).await;
        assert!(why.contains(&format!("`{name}`")) && why.contains("empty data folder"), "{why}");
        stop_there.store(true, SeqCst);
        until(world.node(stay[1]), "it is gone", |status| row(status, &name).is_none() && all_led(status))
            .await;
        stop.store(true, SeqCst);
        let mut sum = 0;
        for one in counting {
            sum += one.await.unwrap();
        }
        shut_down(&mut world, gone).await;
        assert_eq!(counted(&mut world.client(stay[0])).await, sum, "each was counted once");
        let status = world.node(stay[2]).cluster_status().unwrap();
        assert!(status.shards.iter().all(|shard| shard.members.len() == 3), "{status:#?}");
        assert_eq!(
            world.node(stay[1]).nodes().remove(&name).await.unwrap().node.state,
            "left",
            "again: that changes nothing"
        );
        let both = async { while copies(&world).await.values().filter(|count| **count == 2).count() < 60 {} };
        tokio::time::timeout(PATIENCE, both).await.expect("two nodes have each entity");
        for number in 0..60 {
            let key = format!("e{number}");
            let read = async {
                loop {
                    // Not before the new keeper knows that it has all.
                    if let Ok(found) = world.node(stay[number % 3]).entity().get(key.as_bytes(), TWO).await {
                        break found;
                    }
                }
            };
            let found = tokio::time::timeout(PATIENCE, read).await.expect("an entity is read");
            assert_eq!(found.unwrap().value, "v");
        }
        let error = open(&world, &name, &name).err().unwrap().to_string();
        assert!(error.contains("removed from its cluster") && error.contains(&name), "{error}");
        let back = open_through(&world, stay[0], "anew", &name).unwrap();
        until(&back, "it joins again", |status| row(status, &name).is_some_and(|node| node.state == "up"))
            .await;
    });
}

#[test]
fn a_store_that_was_replaced_while_it_was_away_hears_of_it_and_starts_no_more() {
    run(async {
        let mut world = World::of(3).await;
        shut_down(&mut world, 2).await;
        let refused = world.node(0).nodes().remove("n2").await.unwrap_err();
        assert!(
            matches!(refused, Error::NotNow(_)) && refused.to_string().contains("not heard"),
            "{refused}"
        );
        let new = open(&world, "anew", "n2").unwrap();
        until(&new, "it has the place", |status| row(status, "n2").is_some_and(|node| node.id == status.me))
            .await;
        let old = open(&world, "n2", "n2").unwrap();
        removed(&old).await;
        tokio::task::spawn_blocking(move || old.shutdown()).await.unwrap().unwrap();
        assert!(open(&world, "n2", "n2").err().unwrap().to_string().contains("removed from its cluster"));
    });
}

#[test]
fn there_are_only_the_nodes_that_there_are() {
    run(async {
        let world = World::of(1).await;
        let error = world.node(0).nodes().drain("n7").await.unwrap_err();
        assert!(matches!(error, Error::NoNode(_)) && error.to_string().ends_with("there are n0"), "{error}");
        // Nobody else could lead what it has: it goes on.
        assert_eq!(world.node(0).nodes().drain("n0").await.unwrap().state, "draining");
        assert_eq!(world.client(0).call("SET k v").await, Reply::Ok);
    });
}
