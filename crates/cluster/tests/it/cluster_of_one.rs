//! A cluster of one node: others may join it, and until then it does what a node alone does.

use crate::world::{Client, PATIENCE, World, list, run, text};
use kvorum_cluster::backup::{receive, restore};
use kvorum_cluster::{
    Bootstrap, ClusterSettings, ClusterStatus, Held, NamespaceId, Node, NodeParts, NodeSettings,
    PeerListener, Served, Watched,
};
use kvorum_engine::fs::StdFs;
use kvorum_model::Reply;

/// What concerns several shards is one where one node is the only member of them all.
#[test]
fn a_cluster_of_one_does_over_shards_what_a_node_alone_does() {
    run(async {
        let mut world = World::of(1).await;
        let mut client = world.client(0);
        let none = Watched::new();
        assert_eq!(client.call("MSET a 1 b 2 c 3").await, Reply::Ok);
        assert_eq!(client.call("MSETNX d 1 a 9").await, Reply::Integer(0));
        let replies =
            client.all("INCR a · MSET d 4 e 5 · INCR d · MGET a b c d e · DEL b c · EXISTS a b c").await;
        let values = Reply::Array(["2", "2", "3", "5", "5"].map(Reply::bulk).into());
        let number = Reply::Integer;
        assert_eq!(replies, [number(2), Reply::Ok, number(5), values, number(2), number(1)]);
        let watched = client.watch("e").await;
        let done = client.exec("SET b x · INCR a · DBSIZE · APPEND b y · GET b", &watched).await;
        let expected = [Reply::Ok, number(3), number(4), number(2), Reply::bulk("xy")];
        assert!(matches!(&done, Served::Done(replies) if replies[..] == expected), "{done:?}");
        client.call("INCR e").await;
        let changed = client.exec("SET a 0 · SET b 0", &watched).await;
        assert!(matches!(changed, Served::Changed), "{changed:?}");
        client.session.request_id = Some("once".into());
        let first = client.exec("INCR a · INCR d", &none).await;
        client.session.request_id = Some("once".into());
        let again = client.exec("INCR a · INCR d", &none).await;
        assert_eq!(format!("{first:?}"), format!("{again:?}"));
        assert_eq!(client.call("MGET a d").await, Reply::Array(["4", "6"].map(Reply::bulk).into()));
        let done = client.exec("FLUSHDB · SET f 1 · KEYS * · RANDOMKEY · MSET g 2 h 3", &none).await;
        let expected =
            [Reply::Ok, Reply::Ok, Reply::Array(vec![Reply::bulk("f")]), Reply::bulk("f"), Reply::Ok];
        assert!(matches!(&done, Served::Done(replies) if replies[..] == expected), "{done:?}");
        let scan = client.exec("SCAN 0 · SET a 1", &none).await;
        assert!(matches!(&scan, Served::Error(error) if error.code() == "CROSSSLOT"), "{scan:?}");
        let inactive = NamespaceId::numbered(9).unwrap();
        client.namespace = inactive;
        assert_eq!(client.call("MSET one 1 two 2").await, Reply::Ok, "nobody used the namespace before");
        let local = Held { local: true, replicas: 0 };
        assert_eq!(client.node.held(&client.session, local, Some(PATIENCE)).await, local);
        // What was acknowledged is there after a restart, whole.
        drop(client);
        world.restart(0);
        let mut client = world.client(0);
        assert_eq!(
            client.call("MGET a f g h").await,
            Reply::Array(vec![Reply::Nil, Reply::bulk("1"), Reply::bulk("2"), Reply::bulk("3"),])
        );
        client.namespace = inactive;
        assert_eq!(client.call("MGET one two").await, Reply::Array(["1", "2"].map(Reply::bulk).into()));
    });
}

/// Moves money between two accounts of different shards, some of the time through transactions that read first.
async fn transfer(mut client: Client, seed: u64, rounds: usize) {
    let mut dice = fastrand::Rng::with_seed(seed);
    for _ in 0..rounds {
        let (from, to) = (dice.u8(0..4), dice.u8(0..4));
        let amount = dice.u8(1..9);
        let lines = format!("DECRBY account:{from} {amount} · INCRBY account:{to} {amount}");
        let done = client.exec(&lines, &Watched::new()).await;
        assert!(matches!(&done, Served::Done(_)), "{done:?}");
    }
}

#[test]
fn nobody_sees_half_of_what_a_cluster_of_one_does_over_shards() {
    run(async {
        let world = World::of(1).await;
        let movers: Vec<_> = (0..3).map(|seed| tokio::spawn(transfer(world.client(0), seed, 200))).collect();
        let mut reader = world.client(0);
        while movers.iter().any(|mover| !mover.is_finished()) {
            let all = reader.call("MGET account:0 account:1 account:2 account:3").await;
            let value = |reply: &Reply| match reply {
                Reply::Nil => 0,
                reply => text(reply).parse::<i64>().unwrap(),
            };
            assert_eq!(list(&all).iter().map(value).sum::<i64>(), 0, "{all:?}");
        }
        for mover in movers {
            mover.await.unwrap();
        }
    });
}

#[test]
fn a_restored_backup_of_a_member_is_a_store_of_its_own() {
    run(async {
        let world = World::of(1).await;
        let mut client = world.client(0);
        let keys: Vec<String> = (0..40).map(|key| format!("MSET a:{key} {key} b:{key} {key}")).collect();
        for line in &keys {
            assert_eq!(client.call(line).await, Reply::Ok);
        }
        let mut bytes = Vec::new();
        let mut backup = world.node(0).backup().unwrap().unwrap();
        while let Some(piece) = backup.next_piece().unwrap() {
            bytes.extend_from_slice(&piece);
        }
        let (source, data) = (world.dir.path().join("backup"), world.dir.path().join("restored"));
        receive(&StdFs, &mut &bytes[..], &source, &mut |_| ()).unwrap();
        restore(&NodeParts::real().unwrap(), &source, &data, &mut |_| ()).unwrap();
        // The one that it was made of goes on. This one knows nothing of its cluster, and may found another.
        let listener = PeerListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut settings = NodeSettings::new(data);
        settings.memory_bytes = 16 << 20;
        let mut cluster = ClusterSettings::new("restored".to_owned(), listener);
        cluster.bootstrap = Bootstrap::Alone;
        settings.cluster = Some(cluster);
        let node = Node::open(settings).unwrap();
        let led =
            |status: &ClusterStatus| !status.shards.is_empty() && status.shards.iter().all(|shard| shard.led);
        if tokio::time::timeout(PATIENCE, node.cluster_until(led)).await.is_err() {
            panic!("not every shard is led: {:#?}", node.cluster_status());
        }
        let mut restored =
            Client { node, session: kvorum_cluster::Session::new(), namespace: NamespaceId::ZERO };
        assert_eq!(restored.call("DBSIZE").await, Reply::Integer(80));
        assert_eq!(restored.call("MSET a:1 new c:1 new").await, Reply::Ok);
        assert_eq!(restored.call("MGET a:1 b:1").await, Reply::Array(["new", "1"].map(Reply::bulk).into()));
        assert_eq!(client.call("GET a:1").await, Reply::bulk("1"));
    });
}
