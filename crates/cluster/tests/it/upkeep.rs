//! What a node does by itself: threads that end with it, history and expired entries that go.

use crate::available::{ANY, wait};
use crate::support::{Client, World};
use kvorum_cluster::{Durability, Node};

fn entries(node: &Node) -> u64 {
    node.stats().namespaces.iter().map(|each| each.keys_estimate).sum()
}

/// Everything to tables, and all compaction that there is a reason for.
fn settle(node: &Node) {
    node.flush().unwrap();
    for _ in 0..1000 {
        if !node.run_background().unwrap() {
            return;
        }
    }
    panic!("the background work does not end");
}

#[test]
fn a_node_alone_keeps_no_history() {
    let world = World::new();
    let node = world.open();
    let mut client = Client::new(&node);
    for round in 0..20 {
        let sets: Vec<_> = (0..50).map(|i| format!("SET k{i} {round}")).collect();
        client.run(&sets.join(";"));
    }
    assert!(entries(&node) >= 1000);
    // A floor is set once what it rests on is known to be durable: a round later.
    node.set_durability(Durability::Synced);
    client.run("SET k0 19");
    node.upkeep().unwrap();
    node.upkeep().unwrap();
    settle(&node);
    assert_eq!(entries(&node), 50, "one version of each key is left");
    assert_eq!(client.text("DBSIZE; GET k7"), "50 19");
    assert_eq!(client.text("SET k7 again; GET k7"), "OK again");
}

#[test]
fn upkeep_changes_nothing_that_can_be_seen() {
    let world = World::new();
    let node = world.open();
    let mut client = Client::new(&node);
    let mut expected = 0;
    for round in 0..200 {
        client.run(&format!("INCR n; SET k{round} v PX 5000; DEL gone; SET gone 1"));
        expected += 1;
        world.clock.add(100);
        if round % 3 == 0 {
            node.upkeep().unwrap();
        }
        if round % 20 == 0 {
            settle(&node);
        }
        // Those of the last five seconds, the counter, and what is written again and again.
        let alive = (round + 1).min(49);
        assert_eq!(client.text("GET n; DBSIZE"), format!("{expected} {}", alive + 2), "round {round}");
    }
}

#[test]
fn threads_end_with_the_node() {
    let world = World::new();
    for round in 1..4 {
        let node = Node::open(world.settings.clone()).unwrap();
        assert_eq!(Client::new(&node).text("INCR n"), round.to_string());
        wait(node.entity().put(b"a", b"1", ANY)).unwrap();
        if round == 2 {
            node.shutdown().unwrap();
        }
        // The next start finds the folder unlocked.
        drop(node);
    }
}

#[test]
fn a_folder_in_use_is_refused() {
    let world = World::new();
    let _node = world.open();
    let error = Node::open(world.settings).err().expect("opened twice");
    assert!(error.to_string().contains("in use"), "{error}");
}
