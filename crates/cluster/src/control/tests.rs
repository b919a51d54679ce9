//! Whole control planes of several nodes in one process.

use super::mesh::{Machine, Mesh, peers};
use super::{Applied, Bootstrap, Change, ControlError, Map, NodeState};
use crate::namespace::Mode;
use crate::namespaces::NamespaceSettings;

fn create(name: &str) -> Change {
    Change::CreateNamespace { name: name.into(), settings: NamespaceSettings::new(Mode::Strong) }
}

fn has(name: &'static str) -> impl Fn(&Map) -> bool {
    move |map| map.namespace(name).is_some()
}

/// Three nodes that found a cluster together.
async fn three(mesh: &Mesh) -> Vec<Machine> {
    let mut machines = vec![mesh.machine("a", 30), mesh.machine("b", 10), mesh.machine("c", 20)];
    let list = peers(&machines.iter().collect::<Vec<_>>());
    for machine in &mut machines {
        machine.start(list.clone()).await;
    }
    for machine in &machines {
        machine.sees("three voters", |map| map.voters.len() == 3 && map.is_founded()).await;
    }
    machines
}

/// The place of the raft leader among the machines, as one of the others sees it.
fn leader(machines: &[Machine]) -> usize {
    let leader = machines[0].control().status().leader.expect("somebody leads");
    machines.iter().position(|machine| machine.store_id == leader).expect("one of them")
}

#[tokio::test(start_paused = true)]
async fn a_node_alone_is_a_cluster_and_is_one_again_after_a_restart() {
    let mesh = Mesh::new();
    let mut a = mesh.machine("a", 1);
    a.start(Bootstrap::Alone).await;
    let map = a.sees("a map", Map::is_founded).await;
    assert_eq!((map.nodes.len(), map.namespaces.len(), map.shards.len()), (1, 17, 16));
    assert_eq!(a.control().change(create("jobs")).await, Ok(Applied::Namespace(17)));
    let again = a.control().change(create("jobs")).await;
    assert!(matches!(again, Err(ControlError::Refused(_))), "{again:?}");
    a.stop().await;
    a.start(Bootstrap::Alone).await;
    let after = a.sees("the namespace", has("jobs")).await;
    assert_eq!(after.cluster, map.cluster);
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn three_found_a_cluster_and_outlive_its_leader() {
    let mesh = Mesh::new();
    let mut machines = three(&mesh).await;
    let first = leader(&machines);
    let follower = (first + 1) % 3;
    assert_eq!(machines[follower].control().change(create("jobs")).await, Ok(Applied::Namespace(17)));
    for machine in &machines {
        machine.sees("what was changed at a follower", has("jobs")).await;
    }
    machines[first].stop().await;
    let done = machines[follower].control().change(create("users")).await;
    assert_eq!(done, Ok(Applied::Namespace(18)), "another one leads by now");
    machines[first].start(Bootstrap::Resume).await;
    machines[first].sees("what it missed", has("users")).await;
    for machine in &mut machines {
        machine.stop().await;
    }
    for machine in &mut machines {
        machine.start(Bootstrap::Resume).await;
    }
    for machine in &machines {
        machine.sees("what was there", has("users")).await;
    }
    assert_eq!(machines[2].control().change(create("more")).await, Ok(Applied::Namespace(19)));
    for machine in &mut machines {
        machine.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_minority_changes_nothing_and_the_majority_goes_on() {
    let mesh = Mesh::new();
    let mut machines = three(&mesh).await;
    let alone = leader(&machines);
    let (b, c) = ((alone + 1) % 3, (alone + 2) % 3);
    mesh.set_cut(&machines[alone], &[&machines[b], &machines[c]], true);
    let cut_off = machines[alone].control().change(create("lost")).await;
    assert!(matches!(cut_off, Err(ControlError::Unknown(_))), "{cut_off:?}");
    machines[b].control().change(create("jobs")).await.unwrap();
    mesh.set_cut(&machines[alone], &[&machines[b], &machines[c]], false);
    let map = machines[alone].sees("what the others did", has("jobs")).await;
    assert_eq!(map.namespace("lost"), None, "what had no majority is taken back");
    for machine in &mut machines {
        machine.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_enters_and_a_wiped_one_takes_the_place_of_its_name() {
    let mesh = Mesh::new();
    let (mut a, mut b) = (mesh.machine("a", 1), mesh.machine("b", 2));
    a.start(Bootstrap::Alone).await;
    b.start(Bootstrap::Join(a.address())).await;
    a.sees("a second node", |map| map.nodes.len() == 2).await;
    b.stop().await;
    let before = b.store_id;
    b.wipe(3);
    b.start(Bootstrap::Join(a.address())).await;
    let map = a.sees("the new store", |map| map.nodes.len() == 3).await;
    assert_eq!((map.state(before), map.state(b.store_id)), (NodeState::Left, NodeState::Up));
    b.stop().await;
    a.stop().await;
}
