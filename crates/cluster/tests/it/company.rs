//! A node that keeps everything alone, until others join it: nothing of what it did is lost or done twice, and from then on groups do it.

use crate::cluster::{count, number_at};
use crate::world::{Client, PATIENCE, World, code, list, run, text};
use kvorum_cluster::{
    Bootstrap, ClusterStatus, Durability, Held, Mode, NamespaceSettings, Node, PeerListener, Request, Served,
    Session, Watched,
};
use kvorum_cluster::{NamespaceId, Progress};
use kvorum_model::{Args, Reply, resolve};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

impl World {
    /// One more node joins the first one.
    fn grow(&mut self) {
        let listener = PeerListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let number = self.nodes.len();
        self.addresses.push(listener.address());
        let join = Bootstrap::Join(self.addresses[0].to_string());
        let node = self.open_as(number, listener, join);
        self.nodes.push(Some(node));
    }

    /// Waits until all shards are led and have so many members.
    async fn members(&self, members: usize) {
        for node in self.nodes.iter().flatten() {
            let whole = |status: &ClusterStatus| {
                let is_whole = |shard: &kvorum_cluster::ShardStatus| {
                    shard.led && shard.members.len() == members && shard.learners.is_empty()
                };
                !status.shards.is_empty() && status.shards.iter().all(is_whole)
            };
            if tokio::time::timeout(PATIENCE, node.cluster_until(whole)).await.is_err() {
                panic!("not every shard has {members} members: {:#?}", node.cluster_status());
            }
        }
    }
}

/// Moves between two keys of different shards as one, until that is refused because others keep them, too. Answers how often it did, and how
/// often it does not know.
async fn shift(mut client: Client) -> (i64, i64) {
    let (mut shifted, mut unknown) = (0, 0);
    loop {
        match client.exec("DECR x:a · INCR x:b", &Watched::new()).await {
            Served::Done(replies) => {
                assert_eq!(replies.len(), 2);
                shifted += 1;
            }
            Served::Error(error) if error.code() == "CROSSSLOT" => return (shifted, unknown),
            Served::Error(error) if error.code() == "UNKNOWN" => unknown += 1,
            Served::Error(error) => assert_eq!(error.code(), "TRYAGAIN"),
            Served::Changed => panic!("nothing is watched"),
        }
    }
}

/// Executes under ids, each twice. Answers how many.
async fn once(mut client: Client, stop: Arc<AtomicBool>) -> usize {
    let mut round = 0;
    while !stop.load(SeqCst) {
        for _ in 0..2 {
            loop {
                client.session.request_id = Some(format!("id-{round}").into());
                match client.call(&format!("INCR once:{round}")).await {
                    Reply::Integer(number) => break assert_eq!(number, 1),
                    error => assert!(["UNKNOWN", "TRYAGAIN"].contains(&code(&error).as_str()), "{error:?}"),
                }
            }
        }
        round += 1;
    }
    round
}

#[test]
fn nothing_is_lost_or_done_twice_when_others_join_under_load() {
    run(async {
        let mut world = World::of(1).await;
        let mut client = world.client(0);
        assert_ne!(shard("x:a"), shard("x:b"));
        let both = client.exec("SET x:a 0 · SET x:b 0 · SET old 1 · SET e v PX 1", &Watched::new()).await;
        assert!(matches!(both, Served::Done(_)), "{both:?}");
        while client.call("GET e").await != Reply::Nil {}
        let versions = [text(&client.call("SETV v 1").await), text(&client.call("SETV u 1").await)];
        let (kept, changed) = (client.watch("old").await, client.watch("v").await);
        let stop = Arc::new(AtomicBool::new(false));
        let counting: Vec<_> =
            (0..3).map(|_| tokio::spawn(count(world.client(0), Arc::clone(&stop)))).collect();
        let shifting: Vec<_> = (0..2).map(|_| tokio::spawn(shift(world.client(0)))).collect();
        let naming = tokio::spawn(once(world.client(0), Arc::clone(&stop)));
        while number_at(&mut client, "n0").await < 50 {}
        world.grow();
        while number_at(&mut client, "n0").await < 100 {}
        world.grow();
        world.members(3).await;
        let before = number_at(&mut client, "n3").await;
        while number_at(&mut client, "n3").await < before + 20 {}
        stop.store(true, SeqCst);
        let mut told = [(0, 0); 4];
        for counting in counting {
            for (sum, own) in told.iter_mut().zip(counting.await.unwrap()) {
                *sum = (sum.0 + own.0, sum.1 + own.1);
            }
        }
        let (mut shifted, mut unknown) = (0, 0);
        for shifting in shifting {
            let own = shifting.await.unwrap();
            (shifted, unknown) = (shifted + own.0, unknown + own.1);
        }
        let named = naming.await.unwrap();
        // What was written last before the groups, too.
        let all = Held { local: true, replicas: 2 };
        assert_eq!(client.node.held(&client.session, all, Some(PATIENCE)).await, all);
        // Whoever has it now.
        drop(client);
        let mut lost = false;
        for at in [1, 2, 0] {
            let mut client = world.client(at);
            for (counter, (acknowledged, unknown)) in told.into_iter().enumerate() {
                let count = number_at(&mut client, &format!("n{counter}")).await;
                lost |= !(acknowledged..=acknowledged + unknown).contains(&count);
            }
            assert!(!lost, "{told:?}");
            let (from, to) = (number_at(&mut client, "x:a").await, number_at(&mut client, "x:b").await);
            assert!(from + to == 0 && (shifted..=shifted + unknown).contains(&to), "{from} {to}: {shifted}");
            assert!(shifted > 0);
            for round in 0..named {
                assert_eq!(number_at(&mut client, &format!("once:{round}")).await, 1);
            }
            assert_eq!(client.call("GET e").await, Reply::Nil, "what has expired has for all");
        }
        let mut other = world.client(1);
        let crossing = other.exec("SET x:a 1 · SET x:b 2", &Watched::new()).await;
        assert!(matches!(&crossing, Served::Error(error) if error.code() == "CROSSSLOT"), "{crossing:?}");
        assert_eq!(other.call(&format!("SET v 2 IFVERSION {}", versions[0])).await, Reply::Ok);
        let new = text(&other.call("SETV u 2").await);
        let [new, old] = [&new, &versions[1]].map(|version| version.parse::<u64>().unwrap());
        assert!(new > old, "versions rise");
        let done = other.exec("GET old", &kept).await;
        assert!(matches!(&done, Served::Done(replies) if replies[..] == [Reply::bulk("1")]), "{done:?}");
        let done = other.exec("GET v", &changed).await;
        assert!(matches!(done, Served::Changed), "{done:?}");
    });
}

fn shard(key: &str) -> u16 {
    NamespaceId::ZERO.place_of(key.as_bytes())
}

#[test]
fn a_store_that_had_company_goes_on_by_groups() {
    run(async {
        let mut world = World::of(1).await;
        let mut client = world.client(0);
        for key in 0..40 {
            assert_eq!(client.call(&format!("SET k{key} {key}")).await, Reply::Ok);
        }
        drop(client);
        world.restart(0);
        let mut client = world.client(0);
        assert_eq!(client.call("MSET k0 new k1 new").await, Reply::Ok, "it is alone still");
        world.grow();
        world.members(2).await;
        for round in 0..3 {
            for key in 40..60 {
                assert_eq!(client.call(&format!("SET k{key} {round}")).await, Reply::Ok);
            }
            drop(client);
            world.restart(round % 2);
            client = world.client(0);
            while client.call("GET k0").await != Reply::bulk("new") {}
        }
        for at in 0..2 {
            let mut client = world.client(at);
            for (key, value) in [("k1", "new"), ("k2", "2"), ("k39", "39"), ("k59", "2")] {
                assert_eq!(client.call(&format!("GET {key}")).await, Reply::bulk(value));
            }
        }
    });
}

fn execute(node: &Node, line: &str) -> Progress {
    let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let args = Args::new(&words);
    let request = Request { namespace: NamespaceId::ZERO, spec: resolve(args).unwrap(), args };
    node.execute(&mut Session::new(), &[request], &mut Vec::new())
}

#[test]
fn a_write_of_a_cluster_of_one_waits_for_no_more_than_its_class() {
    run(async {
        let mut world = World::of(1).await;
        let mut client = world.client(0);
        assert_eq!(client.call("SET k v").await, Reply::Ok);
        client.namespace = NamespaceId::ENTITY;
        assert_eq!(
            client.call("FLUSHALL").await,
            Reply::Ok,
            "it empties the numbered ones, wherever it is sent"
        );
        client.namespace = NamespaceId::ZERO;
        assert_eq!(client.call("GET k").await, Reply::Nil);
        drop(client);
        let node = world.node(0).clone();
        node.set_durability(Durability::Buffered);
        let progress = execute(&node, "SET k w");
        assert_eq!((progress.executed, progress.commit.is_some(), progress.elsewhere), (1, false, false));
        node.set_durability(Durability::Synced);
        let progress = execute(&node, "SET k x");
        assert!(progress.commit.is_some_and(|commit| !commit.is_done()));
        node.set_durability(Durability::Buffered);
        world.grow();
        world.members(2).await;
        let progress = execute(&node, "SET k y");
        assert_eq!((progress.executed, progress.elsewhere), (0, true), "it is a group's matter now");
        assert_eq!(world.client(1).call("GET k").await, Reply::bulk("x"));
    });
}

/// What concerns several shards is one wherever one node is the only member of their groups.
#[test]
fn shards_of_the_same_single_member_are_written_as_one() {
    run(async {
        let world = World::of(2).await;
        let mut single = NamespaceSettings::new(Mode::Strong);
        (single.replication, single.shards) = (Some(1), 64);
        let made = world.node(0).namespaces().create("single", single).await.unwrap();
        let mut client = world.client(0);
        client.namespace = made.id;
        assert_eq!(client.call("GET nothing").await, Reply::Nil);
        let led = |status: &ClusterStatus| {
            let own = |shard: &&kvorum_cluster::ShardStatus| shard.namespace == "single";
            let mut own = status.shards.iter().filter(own).peekable();
            own.peek().is_some() && own.all(|shard| shard.led && shard.members.len() == 1)
        };
        world.node(0).cluster_until(led).await;
        let status = world.node(0).cluster_status().unwrap();
        let member = |key: &str| {
            let place = made.id.place_of(key.as_bytes());
            let shard =
                status.shards.iter().find(|shard| shard.namespace == "single" && shard.place == place);
            shard.unwrap().members[0].clone()
        };
        let keys = |name: &str| {
            let all = (0..200).map(|number| format!("k{number}"));
            all.filter(|key| member(key) == name).take(4).collect::<Vec<_>>()
        };
        let (mine, others) = (keys("n0"), keys("n1"));
        let ([a, b, c, _], [far, ..]) = (&mine[..], &others[..]) else { panic!("{mine:?} {others:?}") };
        assert_eq!(client.call(&format!("MSET {a} 0 {b} 0 {c} 0")).await, Reply::Ok);
        let watched = client.watch(c).await;
        let movers: Vec<_> =
            (0..2).map(|_| tokio::spawn(between(world.client(0), made.id, mine.clone()))).collect();
        while movers.iter().any(|mover| !mover.is_finished()) {
            let both = client.call(&format!("MGET {a} {b}")).await;
            let both: Vec<i64> = list(&both).iter().map(|each| text(each).parse().unwrap()).collect();
            assert_eq!(both[0] + both[1], 0, "neither without the other");
        }
        for mover in movers {
            mover.await.unwrap();
        }
        assert_eq!(client.call(&format!("GET {b}")).await, Reply::bulk("100"));
        let done = client.exec(&format!("INCR {a} · SET {b} x"), &watched).await;
        assert!(matches!(&done, Served::Done(replies) if replies.len() == 2), "{done:?}");
        client.call(&format!("INCR {c}")).await;
        let changed = client.exec(&format!("INCR {a} · SET {b} y"), &watched).await;
        assert!(matches!(changed, Served::Changed), "{changed:?}");
        for _ in 0..2 {
            client.session.request_id = Some("id".into());
            let done = client.exec(&format!("INCR {c} · INCR {a}"), &Watched::new()).await;
            let expected = [Reply::Integer(2), Reply::Integer(-98)];
            assert!(matches!(&done, Served::Done(replies) if replies[..] == expected), "{done:?}");
        }
        let crossing = client.exec(&format!("INCR {a} · SET {far} x"), &Watched::new()).await;
        assert!(matches!(&crossing, Served::Error(error) if error.code() == "CROSSSLOT"), "{crossing:?}");
    });
}

async fn between(mut client: Client, namespace: NamespaceId, keys: Vec<String>) {
    client.namespace = namespace;
    for _ in 0..50 {
        let done = client.exec(&format!("DECR {} · INCR {}", keys[0], keys[1]), &Watched::new()).await;
        assert!(matches!(&done, Served::Done(replies) if replies.len() == 2), "{done:?}");
    }
}
