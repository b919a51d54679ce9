//! Nodes that are to rest.

use crate::world::{Client, PATIENCE, World, code, run};
use kvorum_cluster::{ClusterStatus, Error, Node, NodeStatus};
use kvorum_model::Reply;
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
