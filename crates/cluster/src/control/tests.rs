//! Whole control planes of several nodes in one process.

use super::mesh::{Machine, Mesh, peers};
use super::report::Report;
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
    machines[first].start(Bootstrap::Alone).await;
    machines[first].sees("what it missed", has("users")).await;
    for machine in &mut machines {
        machine.stop().await;
    }
    for machine in &mut machines {
        machine.start(Bootstrap::Alone).await;
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
    let new = b.store_id;
    let map = a.sees("the new store", |map| map.nodes.contains_key(&new)).await;
    assert_eq!((map.state(before), map.state(new)), (NodeState::Left, NodeState::Up));
    b.sees("its own row", |map| map.nodes.contains_key(&new)).await;
    b.stop().await;
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_is_free_only_after_a_long_silence() {
    let mesh = Mesh::new();
    let (mut a, mut b, mut twin) = (mesh.machine("a", 1), mesh.machine("b", 2), mesh.machine("twin", 3));
    a.start(Bootstrap::Alone).await;
    b.start(Bootstrap::Join(a.address())).await;
    a.sees("a second node", |map| map.nodes.len() == 2).await;
    b.sees("itself", |map| map.nodes.len() == 2).await;
    twin.called = Some("b");
    twin.start(Bootstrap::Join(a.address())).await;
    let seconds = std::time::Duration::from_secs;
    tokio::time::sleep(seconds(8)).await;
    // Silent for longer than a node takes to count as dead.
    mesh.set_cut(&b, &[&a], true);
    tokio::time::sleep(seconds(3)).await;
    mesh.set_cut(&b, &[&a], false);
    tokio::time::sleep(seconds(8)).await;
    let map = a.control().map();
    assert!(!map.nodes.contains_key(&twin.store_id) && map.state(b.store_id) == NodeState::Up, "{map:?}");
    b.stop().await;
    let (new, old) = (twin.store_id, b.store_id);
    let map = twin.sees("itself", |map| map.nodes.contains_key(&new)).await;
    assert_eq!(map.state(old), NodeState::Left);
    twin.stop().await;
    a.stop().await;
}

/// Members at work, as far as the control plane can tell: managers lead at once, learners are ready at once.
fn lead(machine: &Machine) {
    let control = machine.control();
    for (shard, row) in &control.map().shards {
        let Some((epoch, manager)) = row.manager().filter(|(_, manager)| *manager == machine.store_id) else {
            continue;
        };
        assert_eq!(manager, machine.store_id);
        control.report(&Report::Led { shard: *shard, epoch });
        for store in row.learners.as_slice() {
            control.report(&Report::LearnerReady { shard: *shard, epoch, store: *store });
        }
    }
}

/// Waits until the map is as wanted at the first of the machines, the members of all of them being at work.
async fn work_until(machines: &[Machine], what: &str, wanted: impl Fn(&Map) -> bool) {
    let working = async {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            looks.tick().await;
            machines.iter().filter(|machine| machine.runs()).for_each(lead);
        }
    };
    let first = machines.iter().find(|machine| machine.runs()).expect("one of them runs");
    tokio::select! {
        () = working => {}
        _ = first.sees(what, wanted) => {}
    }
}

fn all_led(copies: usize) -> impl Fn(&Map) -> bool {
    move |map| {
        let done = |row: &super::map::ShardRow| row.is_led() && row.members().as_slice().len() == copies;
        !map.shards.is_empty() && map.shards.values().all(done)
    }
}

#[tokio::test(start_paused = true)]
async fn copies_and_voters_grow_as_nodes_join_and_a_dead_leaders_shards_move() {
    let mesh = Mesh::new();
    let mut machines = vec![mesh.machine("a", 1), mesh.machine("b", 2), mesh.machine("c", 3)];
    machines[0].start(Bootstrap::Alone).await;
    work_until(&machines, "its shards led", all_led(1)).await;
    let address = machines[0].address();
    for machine in &mut machines[1..] {
        machine.start(Bootstrap::Join(address.clone())).await;
    }
    work_until(&machines, "three copies and three voters", |map| all_led(3)(map) && map.voters.len() == 3)
        .await;
    let [a, b, c] = [machines[0].store_id, machines[1].store_id, machines[2].store_id];
    let spread = |map: &Map| [a, b, c].iter().all(|store| map.managed()[store] >= 5);
    work_until(&machines, "the leaders spread", spread).await;
    // Whoever leads the control plane, its death and that of its shards' leaders are one.
    let dead = leader(&machines);
    let gone = machines[dead].store_id;
    machines[dead].stop().await;
    let moved = |map: &Map| all_led(3)(map) && map.managed()[&gone] == 0;
    work_until(&machines, "all shards led by the others", moved).await;
    for machine in machines.iter_mut().filter(|machine| machine.runs()) {
        machine.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_with_a_new_disk_founds_no_second_cluster() {
    let mesh = Mesh::new();
    let mut machines = three(&mesh).await;
    let list = peers(&machines.iter().collect::<Vec<_>>());
    let cluster = machines[0].control().map().cluster;
    let before = machines[1].store_id;
    machines[1].stop().await;
    // The lowest id of all: were they all new, this one would found the cluster.
    machines[1].wipe(5);
    machines[1].start(list).await;
    let new = machines[1].store_id;
    let map = machines[1].sees("the old cluster", |map| map.nodes.contains_key(&new)).await;
    assert_eq!((map.cluster, map.state(before)), (cluster, NodeState::Left));
    for machine in &mut machines {
        machine.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_on_the_list_says_so() {
    let mesh = Mesh::new();
    let (mut a, b) = (mesh.machine("a", 1), mesh.machine("b", 2));
    a.start(peers(&[&b])).await;
    let mut trouble = a.control().trouble();
    let told = trouble.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(told.contains("does not name this node"), "{told}");
    assert!(!a.control().is_alive(b.store_id) && a.control().is_alive(a.store_id));
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_openraft_has_stopped_gets_changes_to_the_leader() {
    for led in [false, true] {
        let mesh = Mesh::new();
        let mut machines = three(&mesh).await;
        let leader = leader(&machines);
        let stopped = if led { leader } else { (leader + 1) % 3 };
        // As after a failed write: for good. The node goes on to send and hear heartbeats.
        machines[stopped].control().0.raft.shutdown().await.unwrap();
        let done = machines[stopped].control().change(create("jobs")).await;
        assert_eq!(done, Ok(Applied::Namespace(17)), "it led before: {led}");
        for at in (0..3).filter(|at| *at != stopped) {
            machines[at].sees("what was changed", has("jobs")).await;
        }
        for machine in &mut machines {
            machine.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_the_map_goes_on_though_openraft_has_stopped() {
    let mesh = Mesh::new();
    let mut a = mesh.machine("a", 1);
    a.start(Bootstrap::Alone).await;
    a.sees("a map", Map::is_founded).await;
    let mut maps = a.control().changes();
    maps.mark_unchanged();
    // As after a failed write: for good.
    a.control().0.raft.shutdown().await.unwrap();
    let told = tokio::time::timeout(std::time::Duration::from_secs(5), maps.changed()).await;
    assert!(told.is_err(), "the last map holds, and nobody is sent home");
    assert_eq!(a.control().status().leader, None, "it knows of none");
    a.stop().await;
    assert!(maps.changed().await.is_err(), "now it is over");
}
