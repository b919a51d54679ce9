use super::*;

const A: StoreId = StoreId(10);
const B: StoreId = StoreId(20);
const C: StoreId = StoreId(30);
const D: StoreId = StoreId(40);
const SHARD: ShardId = ShardId { namespace: 0, place: 0 };

fn info(name: &str) -> NodeInfo {
    NodeInfo { name: name.into(), peer: format!("{name}:7000"), ..NodeInfo::default() }
}

fn namespace(name: &str, active: bool) -> NamespaceRow {
    let settings = NamespaceSettings { shards: 2, ..NamespaceSettings::new(Mode::Strong) };
    NamespaceRow { name: name.into(), settings, active, dropped: false }
}

fn cluster(nodes: &[(StoreId, &str)]) -> Map {
    let nodes = nodes.iter().map(|(store, name)| (*store, info(name))).collect();
    let namespaces = BTreeMap::from([(0, namespace("0", true)), (20, namespace("jobs", false))]);
    let mut map = Map::default();
    let found = Change::Found { cluster: ClusterId(7), nodes, namespaces };
    assert_eq!(map.apply(&found), Ok(Applied::Done));
    map.version = 1;
    assert_eq!(map.apply(&found), Ok(Applied::Outdated), "founded once");
    map
}

fn three() -> Map {
    cluster(&[(A, "a"), (B, "b"), (C, "c")])
}

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

fn nominate(map: &mut Map, last: u32, manager: StoreId, members: &[StoreId]) -> Answer {
    map.apply(&Change::Nominate {
        shard: SHARD,
        last: epoch(last),
        above: Epoch::ZERO,
        manager,
        members: Members::of(members),
    })
}

fn refused(answer: Answer, because: &str) {
    let why = answer.unwrap_err().0;
    assert!(why.contains(because), "{why}");
}

#[test]
fn nothing_happens_before_the_cluster_is_founded() {
    let mut map = Map::default();
    refused(map.apply(&Change::Activate { id: 0 }), "not founded");
    let mut map = three();
    let other = Change::Found { cluster: ClusterId(8), nodes: BTreeMap::new(), namespaces: BTreeMap::new() };
    refused(map.apply(&other), "already");
}

#[test]
fn shards_of_a_namespace_get_members_when_it_is_used() {
    let mut map = three();
    assert_eq!(map.shards.len(), 2, "the active one's");
    assert_eq!(map.shards[&SHARD].members().as_slice(), [A, B, C]);
    assert_eq!(map.apply(&Change::Activate { id: 20 }), Ok(Applied::Done));
    assert_eq!(map.apply(&Change::Activate { id: 20 }), Ok(Applied::Outdated));
    assert_eq!(map.shards.len(), 4);
    refused(map.apply(&Change::Activate { id: 9 }), "no namespace");
    assert_eq!(map.apply(&Change::DropNamespace { id: 20 }), Ok(Applied::Done));
    assert_eq!(map.shards.len(), 2);
    refused(map.apply(&Change::Activate { id: 20 }), "no namespace");
    refused(map.apply(&Change::DropNamespace { id: 20 }), "no namespace");
    refused(map.apply(&Change::DropNamespace { id: 0 }), "from the start");
}

#[test]
fn a_dropped_number_is_never_given_again() {
    let mut map = three();
    let create = |name: &str| Change::CreateNamespace {
        name: name.into(),
        settings: NamespaceSettings::new(Mode::Available),
    };
    assert_eq!(map.apply(&create("users")), Ok(Applied::Namespace(21)));
    refused(map.apply(&create("users")), "already");
    map.apply(&Change::DropNamespace { id: 21 }).unwrap();
    assert_eq!(map.apply(&create("users")), Ok(Applied::Namespace(22)));
    map.apply(&Change::Activate { id: 22 }).unwrap();
    assert!(map.shards.keys().all(|shard| shard.namespace == 0), "no leader, no shards in the map");
}

#[test]
fn namespaces_keep_to_limits() {
    let mut map = three();
    let with = |name: &str, shards| Change::CreateNamespace {
        name: name.into(),
        settings: NamespaceSettings { shards, ..NamespaceSettings::new(Mode::Strong) },
    };
    refused(map.apply(&with("", 1)), "can't be a namespace's name");
    refused(map.apply(&with("x", 0)), "shards");
    for n in 0..23 {
        map.apply(&with(&format!("n{n}"), 1024)).unwrap();
    }
    refused(map.apply(&with("x", 1024)), "over the limit");
    map.apply(&with("x", 1)).unwrap();
    let many = NamespaceChange::Replication(Some(REPLICATION_MAX + 1));
    refused(map.apply(&Change::SetNamespace { id: 0, changes: vec![many] }), "replication");
    let shards = NamespaceChange::Shards(5);
    refused(map.apply(&Change::SetNamespace { id: 0, changes: vec![shards] }), "stays");
}

#[test]
fn the_copies_asked_for_are_wanted() {
    let mut map = three();
    let set = |copies| Change::SetNamespace { id: 0, changes: vec![NamespaceChange::Replication(copies)] };
    assert_eq!(map.apply(&set(Some(1))), Ok(Applied::Done));
    assert_eq!(map.wanted(0), 1);
    assert_eq!(map.apply(&set(Some(1))), Ok(Applied::Outdated));
    assert_eq!(map.apply(&set(Some(5))), Ok(Applied::Done));
    assert_eq!(map.wanted(0), 3, "not more than nodes");
    assert_eq!(map.apply(&set(None)), Ok(Applied::Done));
    assert_eq!(map.wanted(0), 3);
}

#[test]
fn one_nomination_an_epoch() {
    let mut map = three();
    assert_eq!(nominate(&mut map, 0, A, &[A, B, C]), Ok(Applied::Nominated(epoch(1))));
    assert_eq!(nominate(&mut map, 0, B, &[A, B, C]), Ok(Applied::Outdated), "somebody was quicker");
    assert_eq!(map.shards[&SHARD].manager(), Some((epoch(1), A)));
    assert_eq!(nominate(&mut map, 1, B, &[A, B, C]), Ok(Applied::Nominated(epoch(2))));
    assert_eq!(map.apply(&Change::Led { shard: SHARD, epoch: epoch(1) }), Ok(Applied::Outdated));
    assert!(!map.shards[&SHARD].is_led());
    assert_eq!(map.apply(&Change::Led { shard: SHARD, epoch: epoch(2) }), Ok(Applied::Done));
    assert_eq!(map.apply(&Change::Led { shard: SHARD, epoch: epoch(2) }), Ok(Applied::Outdated));
}

#[test]
fn epochs_are_above_what_was_asked_and_what_members_wrote_alone() {
    let mut map = three();
    map.nodes.get_mut(&C).unwrap().info.epoch = epoch(900);
    assert_eq!(nominate(&mut map, 0, A, &[A, B, C]), Ok(Applied::Nominated(epoch(901))));
    let above = Change::Nominate {
        shard: SHARD,
        last: epoch(901),
        above: epoch(5000),
        manager: A,
        members: Members::of(&[A, B, C]),
    };
    assert_eq!(map.apply(&above), Ok(Applied::Nominated(epoch(5001))));
}

#[test]
fn members_change_one_at_a_time_and_by_the_last_nomination_only() {
    let mut map = cluster(&[(A, "a")]);
    for (store, name) in [(B, "b"), (C, "c"), (D, "d")] {
        let join = Change::Join { store, info: info(name), replaces: None };
        assert_eq!(map.apply(&join), Ok(Applied::Done));
    }
    refused(nominate(&mut map, 0, A, &[A, B, C]), "one after the other");
    refused(nominate(&mut map, 0, B, &[A, B]), "must be in the old and new");
    let learners = Change::Learners { shard: SHARD, last: Epoch::ZERO, learners: Members::of(&[B]) };
    assert_eq!(map.apply(&learners), Ok(Applied::Done));
    assert_eq!(map.apply(&learners), Ok(Applied::Outdated));
    assert_eq!(nominate(&mut map, 0, A, &[A, B]), Ok(Applied::Nominated(epoch(1))));
    assert_eq!(map.shards[&SHARD].members().as_slice(), [A], "until it leads, old stays old");
    assert_eq!(nominate(&mut map, 1, A, &[A, C]), Ok(Applied::Nominated(epoch(2))));
    map.apply(&Change::Led { shard: SHARD, epoch: epoch(1) }).unwrap();
    assert_eq!(map.shards[&SHARD].members().as_slice(), [A], "a late report of an earlier nomination");
    nominate(&mut map, 2, A, &[A, B]).unwrap();
    map.apply(&Change::Led { shard: SHARD, epoch: epoch(3) }).unwrap();
    assert_eq!(map.shards[&SHARD].members().as_slice(), [A, B]);
    assert_eq!(map.shards[&SHARD].learners.as_slice(), [], "a member is no learner");
}

#[test]
fn learners_are_nodes_and_no_members() {
    let mut map = three();
    let set = |learners: &[StoreId]| Change::Learners {
        shard: SHARD,
        last: Epoch::ZERO,
        learners: Members::of(learners),
    };
    refused(map.apply(&set(&[D])), "node of the cluster");
    refused(map.apply(&set(&[A])), "no learner");
}

#[test]
fn a_wiped_node_takes_the_place_of_its_name() {
    let mut map = three();
    let join = |replaces| Change::Join { store: D, info: info("c"), replaces };
    refused(map.apply(&join(None)), "another node called `c`");
    refused(map.apply(&join(Some(A))), "another node called `c`");
    assert_eq!(map.apply(&join(Some(C))), Ok(Applied::Done));
    assert_eq!((map.state(C), map.state(D)), (NodeState::Left, NodeState::Up));
    assert_eq!(map.apply(&join(Some(C))), Ok(Applied::Outdated));
    refused(map.apply(&Change::Join { store: C, info: info("c"), replaces: None }), "empty data folder");
    assert_ne!(map.nodes[&C].slot, map.nodes[&D].slot, "hybrid timestamps of both may be about");
    assert!(map.shards[&SHARD].members().contains(C), "the planner changes members, one by one");
}

#[test]
fn a_node_tells_new_addresses_and_never_a_lower_epoch() {
    let mut map = three();
    map.nodes.get_mut(&A).unwrap().info.epoch = epoch(7);
    let moved = NodeInfo { peer: "elsewhere:1".into(), epoch: epoch(3), ..info("a") };
    map.apply(&Change::Join { store: A, info: moved, replaces: None }).unwrap();
    assert_eq!((map.nodes[&A].info.peer.as_str(), map.nodes[&A].info.epoch), ("elsewhere:1", epoch(7)));
}

#[test]
fn slots_are_unique_and_rest_as_long_as_they_can() {
    let mut map = three();
    for n in 0..2 * NODES_MAX as u64 {
        let (old, new) = (StoreId(1000 + n), StoreId(1001 + n));
        let replaces = (n > 0).then_some(old);
        let join = Change::Join { store: new, info: info("d"), replaces };
        assert_eq!(map.apply(&join), Ok(Applied::Done));
        let slots: std::collections::BTreeSet<u16> = map.nodes.values().map(|row| row.slot).collect();
        assert_eq!(slots.len(), map.nodes.len());
        assert!(slots.iter().all(|slot| usize::from(*slot) < NODES_MAX));
        let before = n.checked_sub(1).map(|_| map.nodes.get(&old).map(|row| row.slot));
        assert!(before.flatten() != Some(map.nodes[&new].slot));
    }
    assert_eq!(map.nodes.len(), NODES_MAX);
}

#[test]
fn states_change_from_what_they_are() {
    let mut map = three();
    let set = |from, to| Change::SetNode { store: A, from, to };
    assert_eq!(map.apply(&set(NodeState::Down, NodeState::Up)), Ok(Applied::Outdated));
    assert_eq!(map.apply(&set(NodeState::Up, NodeState::Leaving)), Ok(Applied::Done));
    assert_eq!(map.wanted(0), 2);
    refused(map.apply(&set(NodeState::Leaving, NodeState::Up)), "can't come back");
    assert_eq!(map.apply(&set(NodeState::Leaving, NodeState::Left)), Ok(Applied::Done));
    refused(map.apply(&set(NodeState::Left, NodeState::Up)), "for good");
    refused(map.apply(&Change::SetNode { store: D, from: NodeState::Up, to: NodeState::Down }), "no node");
}

#[test]
fn a_node_that_drains_keeps_its_copies_and_the_last_one_stays() {
    let mut map = three();
    let set = |store, from, to| Change::SetNode { store, from, to };
    assert_eq!(map.apply(&set(A, NodeState::Up, NodeState::Draining)), Ok(Applied::Done));
    assert_eq!((map.wanted(0), map.eligible().count()), (3, 3));
    assert_eq!(map.apply(&set(A, NodeState::Draining, NodeState::Up)), Ok(Applied::Done));
    for store in [A, B] {
        assert_eq!(map.apply(&set(store, NodeState::Up, NodeState::Leaving)), Ok(Applied::Done));
    }
    refused(map.apply(&set(C, NodeState::Up, NodeState::Leaving)), "last one");
    assert_eq!(
        map.apply(&set(C, NodeState::Up, NodeState::Draining)),
        Ok(Applied::Done),
        "it leads what nobody else can"
    );
}
