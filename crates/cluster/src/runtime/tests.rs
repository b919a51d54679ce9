//! Three nodes in one process, with real sockets between them.

mod all_keys;
mod available;
mod cold;
mod company;
mod conflicts;
mod one_shard;

use super::moments;
use crate::keys::{shard_of, user_key};
use crate::namespace::NamespaceId;
use crate::node::{Node, NodeParts};
use crate::runtime::ClusterStatus;
use crate::session::{Request, Session};
use crate::settings::{Bootstrap, ClusterSettings, NodeSettings, PeerListener};
use crate::shard::{Done, Draft, Outbox, Writes};
use kvorum_engine::fs::sim::{Fault, Operation, SimFs};
use kvorum_engine::{Attributes, Batch, Durability, Parts, SystemClock, View};
use kvorum_model::{Args, resolve};
use kvorum_sync::Refusal;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Far longer than anything here takes, members being moved one by one: a test that hangs says where.
const PATIENCE: Duration = Duration::from_secs(180);

struct World {
    dir: TempDir,
    addresses: Vec<SocketAddr>,
    nodes: Vec<Option<Node>>,
    /// Nodes on disks that can be made to fail.
    disks: BTreeMap<usize, SimFs>,
}

fn settings(dir: &TempDir, number: usize, listener: PeerListener, bootstrap: Bootstrap) -> NodeSettings {
    let mut settings = NodeSettings::new(dir.path().join(format!("n{number}")));
    settings.memory_bytes = 16 << 20;
    let mut cluster = ClusterSettings::new(format!("n{number}"), listener);
    cluster.bootstrap = bootstrap;
    cluster.secret = Some(b"a secret of the test".to_vec());
    settings.cluster = Some(cluster);
    settings
}

impl World {
    fn new(nodes: usize) -> World {
        World::with_disks(nodes, BTreeMap::new())
    }

    fn with_disks(nodes: usize, disks: BTreeMap<usize, SimFs>) -> World {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let listeners: Vec<_> = (0..nodes).map(|_| PeerListener::bind(loopback).unwrap()).collect();
        let addresses = listeners.iter().map(PeerListener::address).collect();
        let mut world = World { dir: TempDir::new().unwrap(), addresses, nodes: Vec::new(), disks };
        for (number, listener) in listeners.into_iter().enumerate() {
            let node = world.open_with(number, listener, world.peers());
            world.nodes.push(Some(node));
        }
        world
    }

    fn open_with(&self, number: usize, listener: PeerListener, bootstrap: Bootstrap) -> Node {
        let mut settings = settings(&self.dir, number, listener, bootstrap);
        let disk = self.disks.get(&number);
        if disk.is_some() {
            settings.data_dir = format!("/n{number}").into();
        }
        let begun = moments::now();
        loop {
            let mut parts = NodeParts::real().unwrap();
            if let Some(disk) = disk {
                parts.storage = Parts::new(Arc::new(disk.clone()), Arc::new(SystemClock::new()));
            }
            // A thread of the node that was here before may have been the last to let go of it, and is about to end it.
            match Node::open_with(settings.clone(), parts) {
                Err(error) if error.to_string().contains("is in use") && within_patience(begun) => {
                    std::thread::yield_now();
                }
                opened => return opened.unwrap(),
            }
        }
    }

    fn open_as(&mut self, number: usize, bootstrap: Bootstrap) {
        let listener = listen_again(self.addresses[number]);
        self.nodes[number] = Some(self.open_with(number, listener, bootstrap));
    }

    fn open(&mut self, number: usize) {
        self.open_as(number, self.peers());
    }

    fn peers(&self) -> Bootstrap {
        let named = |(number, address): (usize, &SocketAddr)| (format!("n{number}"), address.to_string());
        Bootstrap::Peers(self.addresses.iter().enumerate().map(named).collect())
    }

    fn node(&self, number: usize) -> &Node {
        self.nodes[number].as_ref().unwrap()
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().flatten()
    }

    /// Waits until every running node knows that each shard of the first namespace is led by one that runs.
    async fn settle(&self) {
        let names: Vec<String> =
            (0..self.nodes.len()).filter(|at| self.nodes[*at].is_some()).map(|at| format!("n{at}")).collect();
        for node in self.running() {
            let led = |status: &ClusterStatus| {
                let led = |shard: &crate::ShardStatus| {
                    shard.led && shard.leader.as_ref().is_some_and(|leader| names.contains(leader))
                };
                !status.shards.is_empty() && status.shards.iter().all(led)
            };
            within("every shard is led", node, node.cluster_until(led)).await;
        }
    }

    /// The running node that leads a key's shard.
    fn leader(&self, key: &[u8]) -> Option<usize> {
        let shard = shard_of(NamespaceId::ZERO, key);
        (0..self.nodes.len()).find(|at| {
            self.nodes[*at].as_ref().is_some_and(|node| {
                let writer = node.inner.shard(shard).unwrap().latch();
                writer.member.as_deref().is_some_and(crate::shard::Member::leads)
            })
        })
    }

    /// Writes a key through its leader, whoever that comes to be.
    async fn put(&self, key: &[u8], value: &[u8]) {
        let alone = self.running().find(|node| node.inner.alone().is_some());
        if let Some(node) = alone {
            return within("a write is answered", node, company::set(node, key, value)).await;
        }
        loop {
            let node = self.leader(key).map(|at| self.node(at));
            let done = match node {
                Some(node) => within("a write is answered", node, propose(node, key, value)).await,
                None => {
                    tokio::task::yield_now().await;
                    Done::Refused(Refusal::NotLeader(None))
                }
            };
            match done {
                Done::Committed => return,
                Done::Refused(_) | Done::Cancelled => self.settle().await,
                // The value is the same again: writing it twice does no harm.
                Done::Unknown => self.settle().await,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits until every running node shows the value at its checkpoint.
    async fn everywhere(&self, key: &[u8], value: &[u8]) {
        for node in self.running() {
            within("the value is there", node, shows(node, key, value)).await;
        }
    }
}

fn within_patience(begun: kvorum_sync::Moment) -> bool {
    u128::from(moments::now().micros_since(begun)) < PATIENCE.as_micros()
}

/// Listens where a node listened before. Meanwhile the port may belong to somebody's outgoing connection: it is given back.
fn listen_again(address: SocketAddr) -> PeerListener {
    let begun = moments::now();
    loop {
        match PeerListener::bind(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && within_patience(begun) => {
                std::thread::yield_now();
            }
            bound => return bound.unwrap(),
        }
    }
}

async fn within<T>(what: &str, node: &Node, future: impl Future<Output = T>) -> T {
    let Ok(done) = tokio::time::timeout(PATIENCE, future).await else {
        panic!("not within {PATIENCE:?}: {what}; {:#?}", node.cluster_status());
    };
    done
}

/// Proposes a write at a node, as commands do.
async fn propose(node: &Node, key: &[u8], value: &[u8]) -> Done {
    let shard = shard_of(NamespaceId::ZERO, key);
    let cluster = node.inner.cluster.get().unwrap();
    let mut wait = cluster.waits.begin();
    let mut writes = Writes::new();
    writes.put(&user_key(key), value, Attributes::default());
    let draft = Draft { token: wait.token(), wall_ms: node.now_ms(), writes, ..Draft::default() };
    let (mut out, mut batch) = (Outbox::default(), Batch::new());
    {
        let mut writer = node.inner.shard(shard).unwrap().latch();
        let Some(member) = writer.member.as_deref_mut() else {
            return Done::Refused(Refusal::NotLeader(None));
        };
        if let Err(why) = member.propose(moments::now(), draft, &mut batch, &mut out) {
            return Done::Refused(why);
        }
        match node.inner.store.write_admitted(&batch, Durability::Synced) {
            Ok(commit) => member.stored(commit.sequence(), &mut out),
            Err(error) => member.lost(error, &mut out),
        }
    }
    cluster.carry_out(shard, out);
    let answers = wait.await;
    answers.into_iter().next().unwrap().1
}

async fn shows(node: &Node, key: &[u8], value: &[u8]) {
    let shard = shard_of(NamespaceId::ZERO, key);
    let cluster = node.inner.cluster.get().unwrap();
    loop {
        let moved = cluster.moved.notified();
        let found = {
            let writer = node.inner.shard(shard).unwrap().latch();
            writer.member.as_deref().and_then(|member| {
                let view = View::at(member.checkpoint().op.version());
                member.tree().get(&user_key(key), &view).unwrap().map(|found| found.value)
            })
        };
        if found.as_deref() == Some(value) {
            return;
        }
        moved.await;
    }
}

/// The words of lines.
fn words<'l>(lines: impl IntoIterator<Item = &'l str>) -> Vec<Vec<&'l [u8]>> {
    lines.into_iter().map(|line| line.split(' ').map(str::as_bytes).collect()).collect()
}

/// A buffer of commands, of the words of each.
fn requests<'w>(namespace: NamespaceId, words: &'w [Vec<&'w [u8]>]) -> Vec<Request<'w>> {
    let request = |words: &'w Vec<&'w [u8]>| {
        let args = Args::new(words);
        Request { namespace, spec: resolve(args).unwrap(), args }
    };
    words.iter().map(request).collect()
}

fn keys(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("key:{number}").into_bytes()).collect()
}

/// What a node began for a request goes on beside the test, which waits at times without giving way: for a folder that such a task holds.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(test);
}

#[test]
fn three_nodes_found_a_cluster_and_keep_what_each_leader_took() {
    run(async {
        let world = World::new(3);
        world.settle().await;
        let keys = keys(64);
        for key in &keys {
            world.put(key, b"first").await;
        }
        for key in &keys {
            world.everywhere(key, b"first").await;
        }
        let status = world.node(0).cluster_status().unwrap();
        assert_eq!(status.nodes.len(), 3);
        assert!(status.shards.iter().all(|shard| shard.members.len() == 3));
    });
}

/// Two nodes go on after the third, which led, has died: the keys that were written before and after, and which node it was.
async fn without_a_leader() -> (World, Vec<Vec<u8>>, usize) {
    let mut world = World::new(3);
    world.settle().await;
    let keys = keys(48);
    for key in &keys {
        world.put(key, b"before").await;
    }
    let victim = world.leader(&keys[0]).unwrap();
    drop(world.nodes[victim].take());
    for key in &keys {
        world.put(key, b"after").await;
    }
    (world, keys, victim)
}

#[test]
fn a_leader_that_dies_takes_nothing_with_it() {
    run(async {
        let (mut world, keys, victim) = without_a_leader().await;
        world.open(victim);
        world.settle().await;
        for key in &keys {
            world.everywhere(key, b"after").await;
        }
    });
}

#[test]
fn shards_rest_though_a_node_is_dead() {
    run(async {
        let (world, _, _) = without_a_leader().await;
        for node in world.running() {
            let cluster = node.inner.cluster.get().unwrap();
            let is_ticked = |shard| node.inner.shard(shard).unwrap().is_ticked();
            let rests = async {
                while cluster.open_shards().into_iter().any(is_ticked) {
                    tokio::task::yield_now().await;
                }
            };
            within("no shard is ticked any more", node, rests).await;
        }
    });
}

#[test]
fn a_cluster_that_was_off_goes_on() {
    run(async {
        let mut world = World::new(3);
        world.settle().await;
        let keys = keys(32);
        for key in &keys {
            world.put(key, b"kept").await;
        }
        for node in &mut world.nodes {
            drop(node.take());
        }
        for number in 0..3 {
            world.open(number);
        }
        world.settle().await;
        for key in &keys {
            world.put(&[key.as_slice(), b":new"].concat(), b"written").await;
        }
        for key in &keys {
            world.everywhere(key, b"kept").await;
        }
    });
}

/// Writes a key at a node alone, as a connection does.
fn set_alone(node: &Node, key: &[u8], value: &[u8]) {
    let words: [&[u8]; 3] = [b"SET", key, value];
    let args = Args::new(&words);
    let request = Request { namespace: NamespaceId::ZERO, spec: resolve(args).unwrap(), args };
    let (mut session, mut replies) = (Session::new(), Vec::new());
    while replies.is_empty() {
        let progress = node.execute(&mut session, &[request], &mut replies);
        if let Some(prefetch) = progress.blocked {
            session.resume(prefetch.run());
        }
        if let Some(commit) = progress.commit {
            commit.wait().unwrap();
        }
    }
    assert_eq!(replies, [kvorum_model::Reply::Ok]);
}

#[test]
fn a_node_that_was_alone_founds_a_cluster_that_others_join() {
    run(async {
        let mut world = World::new(0);
        let loopback = "127.0.0.1:0".parse().unwrap();
        let mut alone = settings(&world.dir, 0, PeerListener::bind(loopback).unwrap(), Bootstrap::Alone);
        let cluster = alone.cluster.take();
        let keys = keys(40);
        let node = Node::open(alone.clone()).unwrap();
        for key in &keys {
            set_alone(&node, key, b"alone");
        }
        node.shutdown().unwrap();
        drop(node);
        alone.cluster = cluster.clone();
        world.addresses = vec![cluster.unwrap().listener.address()];
        world.nodes.push(Some(Node::open(alone.clone()).unwrap()));
        world.settle().await;
        world.put(b"founded", b"yes").await;
        for number in 1..3 {
            let listener = PeerListener::bind(loopback).unwrap();
            world.addresses.push(listener.address());
            let join = Bootstrap::Join(world.addresses[0].to_string());
            let node = world.open_with(number, listener, join);
            world.nodes.push(Some(node));
        }
        for node in world.running() {
            let whole = |status: &ClusterStatus| {
                let whole = |shard: &crate::ShardStatus| shard.led && shard.members.len() == 3;
                !status.shards.is_empty() && status.shards.iter().all(whole)
            };
            within("every shard has three members", node, node.cluster_until(whole)).await;
        }
        for key in &keys {
            world.everywhere(key, b"alone").await;
        }
        world.everywhere(b"founded", b"yes").await;
        // Its store belongs to the cluster now.
        drop(world.nodes[0].take());
        alone.cluster = None;
        let refused = Node::open(alone).err().unwrap().to_string();
        assert!(refused.contains("belongs to a cluster"), "{refused}");
    });
}

#[test]
fn a_leader_whose_log_fails_gives_way() {
    run(async {
        let disks: BTreeMap<usize, SimFs> =
            (0..3).map(|number| (number, SimFs::new(number as u64 + 1))).collect();
        let mut world = World::with_disks(3, disks.clone());
        world.settle().await;
        let keys = keys(48);
        for key in &keys {
            world.put(key, b"before").await;
        }
        let sick = world.leader(&keys[0]).unwrap();
        // All of them: some syncs of the log are tried again without harm.
        disks[&sick].inject(Fault { times: u64::MAX, ..Fault::once(Operation::Sync, "wal") });
        // Whatever it writes next fails: the map gives what it led to the others.
        world.put(&keys[0], b"after").await;
        let name = format!("n{sick}");
        let gave_way = |status: &ClusterStatus| {
            status.shards.iter().all(|shard| shard.led && shard.leader.as_ref() != Some(&name))
        };
        let other = world.node((sick + 1) % 3);
        within("others lead", other, other.cluster_until(gave_way)).await;
        let status = world.node(sick).cluster_status().unwrap();
        assert!(status.halted.is_some(), "it knows: {status:#?}");
        for key in &keys {
            world.put(key, b"after").await;
        }
        drop(world.nodes[sick].take());
        world.disks.insert(sick, disks[&sick].after_kill());
        world.open(sick);
        world.settle().await;
        for key in &keys {
            world.everywhere(key, b"after").await;
        }
    });
}
