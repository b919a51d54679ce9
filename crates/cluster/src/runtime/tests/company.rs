//! A node that keeps everything alone gets company, and is killed on the way.

use super::*;
use kvorum_model::Reply;

/// Writes a key as a connection does, until it is acknowledged.
pub(super) async fn set(node: &Node, key: &[u8], value: &[u8]) {
    while serve(node, &[b"SET", key, value]).await != Reply::Ok {}
}

async fn serve(node: &Node, words: &[&[u8]]) -> Reply {
    let args = Args::new(words);
    let request = Request { namespace: NamespaceId::ZERO, spec: resolve(args).unwrap(), args };
    node.serve(&mut Session::new(), &[request]).await.remove(0)
}

async fn version(node: &Node, key: &[u8]) -> u64 {
    loop {
        if let Reply::Bulk(version) = serve(node, &[b"SETV", key, b"again"]).await {
            return std::str::from_utf8(&version).unwrap().parse().unwrap();
        }
    }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(default),
    }
}

/// `SEED=7 cargo test -p kvorum-cluster --lib whatever_moment` repeats one run, `SEEDS=200` runs more of them.
#[test]
fn whatever_moment_it_is_killed_when_it_gets_company() {
    for seed in seeds(6) {
        println!("SEED={seed}");
        run(killed_with_company(seed));
    }
}

async fn killed_with_company(seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let disk = SimFs::new(seed + 1);
    let mut world = World::with_disks(1, BTreeMap::from([(0, disk.clone())]));
    world.settle().await;
    let keys = keys(24);
    let class = if dice.bool() { Durability::Synced } else { Durability::Written };
    world.node(0).set_durability(class);
    for key in &keys {
        set(world.node(0), key, b"alone").await;
    }
    let before = version(world.node(0), b"v").await;
    // Somewhere between the first word of the other and the first reign of the groups.
    disk.off_at(disk.operations() + dice.u64(0..160));
    let listener = PeerListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    world.addresses.push(listener.address());
    let join = Bootstrap::Join(world.addresses[0].to_string());
    let other = world.open_with(1, listener, join);
    world.nodes.push(Some(other));
    let was_off = {
        let company = |status: &ClusterStatus| {
            let has_two = |shard: &crate::ShardStatus| shard.led && shard.members.len() == 2;
            disk.is_off() || !status.shards.is_empty() && status.shards.iter().all(has_two)
        };
        let begun = moments::now();
        let node = world.node(0);
        let mut changes = node.inner.cluster.get().unwrap().control.changes();
        // A disk that is off tells nobody: it is looked at now and then.
        while !node.cluster_status().as_ref().is_some_and(company) {
            assert!(within_patience(begun), "{:#?}", node.cluster_status());
            let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
        }
        disk.is_off()
    };
    drop(world.nodes[0].take());
    // What was only written survives the end of a process, and no more.
    let left = if class == Durability::Synced { disk.after_power_loss() } else { disk.after_kill() };
    world.disks.insert(0, left);
    world.open(0);
    for node in [1, 0] {
        let node = world.node(node);
        for key in &keys {
            let read = async {
                loop {
                    match serve(node, &[b"GET", key]).await {
                        Reply::Error(error) => assert_eq!(error.code(), "TRYAGAIN"),
                        reply => break reply,
                    }
                }
            };
            let value = within("a read is answered", node, read).await;
            assert_eq!(value, Reply::bulk("alone"), "seed {seed}, off {was_off}");
        }
        let after = within("a write is answered", node, version(node, b"v")).await;
        assert!(after > before, "no op id comes twice: {after} after {before}, seed {seed}");
    }
}

#[test]
fn a_member_whose_jobs_find_no_room_waits() {
    run(async {
        let mut world = World::new(1);
        world.settle().await;
        for key in &keys(64) {
            set(world.node(0), key, b"value").await;
        }
        let listener = PeerListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        world.addresses.push(listener.address());
        let join = Bootstrap::Join(world.addresses[0].to_string());
        let other = world.open_with(1, listener, join);
        let cluster = Arc::clone(other.inner.cluster.get().unwrap());
        // No thread takes a job any more, as in a node that ends, or one with too many of them.
        cluster.jobs.stop();
        world.nodes.push(Some(other));
        let refused = async {
            while cluster.refused.lock().is_empty() {
                tokio::task::yield_now().await;
            }
            cluster.tell_refused();
            assert!(!cluster.refused.lock().is_empty(), "it asked again, and was refused again");
        };
        within("a job is refused", world.node(1), refused).await;
    });
}
