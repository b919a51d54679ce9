//! Three nodes in one process: any of them takes any command.

use crate::world::{Client, PATIENCE, World, code, list, number, request, run, text, words};
use kvorum_cluster::{Held, NamespaceId, ReadMode, STALE_AGE_MAX_MS, Served, Watched};
use kvorum_model::Reply;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

#[test]
fn any_node_takes_any_command() {
    run(async {
        let world = World::new().await;
        for at in 0..3 {
            let (mut here, mut there) = (world.client(at), world.client((at + 1) % 3));
            strings(&mut here, &mut there).await;
            many_keys(&mut here, &mut there).await;
            transactions(&mut here, &mut there).await;
            over_all_keys(&mut here, &mut there).await;
            reads(&mut here, &mut there).await;
            names(&mut here, &mut there).await;
            replicas(&mut here, &mut there).await;
        }
        inactive(&world).await;
    });
}

/// What `SETV` answers to so many connections of a node that write at one moment, each the key that is said for it.
async fn versions(world: &World, node: usize, key: impl Fn(usize) -> String) -> BTreeSet<String> {
    let write = |number: usize| {
        let (mut client, line) = (world.client(node), format!("SETV {} x", key(number)));
        tokio::spawn(async move { text(&client.call(&line).await) })
    };
    let writing: Vec<_> = (0..CONNECTIONS).map(write).collect();
    let mut versions = BTreeSet::new();
    for one in writing {
        versions.insert(one.await.unwrap());
    }
    versions
}

const CONNECTIONS: usize = 8;

#[test]
fn what_is_ready_at_one_moment_makes_one_item_and_each_write_of_a_key_its_own() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new().await;
        let mut items = Vec::new();
        for node in 0..3 {
            items.push(versions(&world, node, |number| format!("{{tag}}{number}")).await.len());
            assert_eq!(versions(&world, node, |_| "{tag}".into()).await.len(), CONNECTIONS);
        }
        // At the leader: what comes from another node comes in as many goes as it likes.
        assert!(items.contains(&1), "{items:?}");
    });
}

async fn strings(here: &mut Client, there: &mut Client) {
    let version = text(&here.call("SETV k v").await);
    assert_eq!(there.call("GET k").await, Reply::bulk("v"));
    assert_eq!(
        list(&there.call("GETV k").await)[..],
        [Reply::bulk("v"), Reply::bulk(&version), Reply::bulk("stable")]
    );
    assert_eq!(there.code("SET k w IFVERSION 1").await, "CONFLICT");
    assert_eq!(there.call(&format!("SET k w IFVERSION {version}")).await, Reply::Ok);
    assert_eq!(here.call("SETNX k x").await, Reply::Integer(0));
    assert_eq!(here.call("APPEND k !").await, Reply::Integer(2));
    assert_eq!(there.code("INCR k").await, "ERR");
    assert_eq!(there.call("SET k v PX 5000000").await, Reply::Ok);
    assert!(number(&here.call("PTTL k").await) > 0);
    assert_eq!(here.call("PERSIST k").await, Reply::Integer(1));
    assert_eq!(there.call("PEXPIRE k 1").await, Reply::Integer(1));
    while here.call("GET k").await != Reply::Nil {}
    assert_eq!(there.call("EXISTS k").await, Reply::Integer(0), "what has expired for one has for all");
    assert_eq!(there.call("TYPE k").await, Reply::Simple("none".into()));
}

async fn many_keys(here: &mut Client, there: &mut Client) {
    let replies = here
        .all("SET a 1 · SET b 2 · INCR a · GET b · PING · SET c 3 · INCR a · MGET a b c none a · GET a · INCRBY b 5 · GET b")
        .await;
    let (number, ok, bulk) = (Reply::Integer, Reply::Ok, |text: &str| Reply::bulk(text));
    let all = Reply::Array(vec![bulk("3"), bulk("2"), bulk("3"), Reply::Nil, bulk("3")]);
    let pong = Reply::Simple("PONG".into());
    let expected = [
        ok.clone(),
        ok.clone(),
        number(2),
        bulk("2"),
        pong,
        ok,
        number(3),
        all,
        bulk("3"),
        number(7),
        bulk("7"),
    ];
    assert_eq!(replies, expected);
    assert_eq!(there.call("EXISTS a b c none a").await, number(4));
    assert_eq!(there.call("TOUCH a b c").await, number(3));
    assert_eq!(there.code("MSET a 1 b 2").await, "CROSSSLOT");
    assert_eq!(there.call("MSET {t}a 1 {t}b 2").await, Reply::Ok);
    assert_eq!(here.call("MSETNX {t}b 1 {t}c 2").await, number(0));
    assert_eq!(here.call("MGET {t}a {t}b {t}c").await, Reply::Array(vec![bulk("1"), bulk("2"), Reply::Nil]));
    assert_eq!(here.call("DEL a b c none").await, number(3));
    assert_eq!(here.call("UNLINK {t}a {t}b").await, number(2));
    assert_eq!(there.call("EXISTS a b c {t}a {t}b").await, number(0));
}

async fn transactions(here: &mut Client, there: &mut Client) {
    let none = Watched::new();
    let done = here.exec("SET {m}a 1 · INCR {m}a · GET {m}a · SET {m}b x", &none).await;
    let expected = [Reply::Ok, Reply::Integer(2), Reply::bulk("2"), Reply::Ok];
    assert!(matches!(&done, Served::Done(replies) if replies[..] == expected), "{done:?}");
    let watched = there.watch("{m}a").await;
    here.call("SET {m}b y").await;
    let unchanged = there.exec("APPEND {m}a !", &watched).await;
    assert!(
        matches!(&unchanged, Served::Done(replies) if replies[..] == [Reply::Integer(2)]),
        "{unchanged:?}"
    );
    let changed = here.exec("DEL {m}a", &watched).await;
    assert!(matches!(changed, Served::Changed), "{changed:?}");
    let over = here.exec("SET a 1 · SET b 2", &none).await;
    assert!(matches!(&over, Served::Error(error) if error.code() == "CROSSSLOT"), "{over:?}");
    assert_eq!(there.call("MGET {m}a {m}b").await, Reply::Array(vec![Reply::bulk("2!"), Reply::bulk("y")]));
    assert_eq!(there.call("DEL {m}a {m}b").await, Reply::Integer(2));
}

async fn over_all_keys(here: &mut Client, there: &mut Client) {
    assert_eq!(here.call("FLUSHDB").await, Reply::Ok);
    for key in 0..60 {
        here.call(&format!("SET key:{key} {key}")).await;
    }
    assert_eq!(
        here.all("SET other x · DBSIZE · DEL other · DBSIZE").await[1..],
        [61, 1, 60].map(Reply::Integer)
    );
    assert_eq!(there.call("DBSIZE").await, Reply::Integer(60));
    let keys: BTreeSet<String> = list(&there.call("KEYS key:*").await).iter().map(text).collect();
    assert_eq!(keys.len(), 60);
    let (mut found, mut cursor, mut call) = (BTreeSet::new(), "0".to_owned(), 0);
    loop {
        // Whichever connection asks: the cursor names the node that knows the place.
        let client = if call % 2 == 0 { &mut *here } else { &mut *there };
        let page = client.call(&format!("SCAN {cursor} COUNT 7 MATCH key:*")).await;
        let [next, keys] = list(&page) else { panic!("{page:?}") };
        found.extend(list(keys).iter().map(text));
        (cursor, call) = (text(next), call + 1);
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(found, keys);
    assert_eq!(there.code("SCAN 12345").await, "ERR");
    let mut drawn = BTreeSet::new();
    for _ in 0..100 {
        drawn.insert(text(&there.call("RANDOMKEY").await));
    }
    assert!(drawn.len() > 10 && drawn.is_subset(&keys), "{drawn:?}");
    assert_eq!(there.call("FLUSHALL").await, Reply::Ok);
    assert_eq!(here.call("DBSIZE").await, Reply::Integer(0));
    assert_eq!(here.call("RANDOMKEY").await, Reply::Nil);
}

async fn reads(here: &mut Client, there: &mut Client) {
    for round in 0..20 {
        here.call(&format!("SET r {round}")).await;
        there.session.consistency.read = Some(ReadMode::Follower);
        assert_eq!(there.call("GET r").await, Reply::bulk(round.to_string()), "fresh");
        there.session.consistency.read = Some(ReadMode::Stale);
        let stale = there.call("GET r").await;
        assert!(stale == Reply::Nil || text(&stale).parse::<u32>().unwrap() <= round);
        there.session.consistency.read = None;
        assert_eq!(there.call("GET r").await, Reply::bulk(round.to_string()));
    }
    for client in [&mut *here, &mut *there] {
        // From whichever member: what it says of its age is at most what the mode allows.
        client.session.consistency.read = Some(ReadMode::Stale);
        let reply = client.call("GETV r").await;
        let label = text(&list(&reply)[2]);
        match label.strip_prefix("stale:") {
            Some(age) => {
                let age: u64 = age.parse().unwrap();
                assert!(age <= STALE_AGE_MAX_MS && age == client.session.age_ms, "{label}");
            }
            None => assert_eq!((label.as_str(), client.session.age_ms), ("stable", 0), "the leader's answer"),
        }
        // What expires is judged by the shard's time, not by a follower's clock: nobody tells it as gone before the leader does.
        client.session.consistency.read = None;
        client.call("SET e v PX 5000000").await;
        client.session.consistency.read = Some(ReadMode::Follower);
        assert_eq!(client.call("GET e").await, Reply::bulk("v"));
        assert!(number(&client.call("PTTL e").await) > 4_000_000);
        client.call("PEXPIRE e 1").await;
        while client.call("GET e").await != Reply::Nil {}
        client.session.consistency.read = None;
        assert_eq!(client.call("EXISTS e").await, Reply::Integer(0), "gone for one is gone for all");
    }
    here.call("DEL r").await;
}

async fn names(here: &mut Client, there: &mut Client) {
    for client in [&mut *here, &mut *there] {
        client.session.request_id = Some("the-same".into());
        assert_eq!(client.call("INCR once").await, Reply::Integer(1));
    }
    there.session.request_id = Some("the-same".into());
    assert_eq!(there.code("INCRBY once 5").await, "ERR");
    assert_eq!(there.call("GET once").await, Reply::bulk("1"));
    for client in [&mut *here, &mut *there] {
        client.session.request_id = Some("whole".into());
        let done = client.exec("INCR once · INCR once", &Watched::new()).await;
        assert!(
            matches!(&done, Served::Done(replies) if replies[..] == [2, 3].map(Reply::Integer)),
            "{done:?}"
        );
    }
    // Together with what it remembers of them.
    assert_eq!(here.call("FLUSHDB").await, Reply::Ok);
}

async fn replicas(here: &mut Client, there: &mut Client) {
    let all = Held { local: true, replicas: 2 };
    for client in [&mut *here, &mut *there] {
        client.call("SET {w}a 1").await;
        client.all("SET b 2 · INCR b · SET c 3").await;
        client.exec("INCR {w}a · SET {w}b x", &Watched::new()).await;
        assert_eq!(client.node.held(&client.session, all, Some(PATIENCE)).await, all);
        assert_eq!(client.node.held_now(&client.session).await, all);
        // There is no third one: the time it waits is over.
        let too_many = Held { replicas: 3, ..all };
        assert_eq!(client.node.held(&client.session, too_many, Some(Duration::from_millis(20))).await, all);
    }
    assert_eq!(here.call("DEL {w}a {w}b b c").await, Reply::Integer(4));
}

async fn inactive(world: &World) {
    let mut client = world.client(1);
    client.namespace = NamespaceId::numbered(7).unwrap();
    assert_eq!(client.call("GET nobody").await, Reply::Nil, "nobody used the namespace before");
    assert_eq!(client.call("SET somebody x").await, Reply::Ok);
    let mut other = world.client(2);
    assert_eq!(other.call("GET somebody").await, Reply::Nil);
    other.namespace = client.namespace;
    assert_eq!(other.call("GET somebody").await, Reply::bulk("x"));
}

/// Increments some counters until told to stop; answers how often it was told so, and how often it does not know.
pub(crate) async fn count(mut client: Client, stop: Arc<AtomicBool>) -> [(i64, i64); 4] {
    let mut told = [(0, 0); 4];
    let mut highest = [0; 4];
    while !stop.load(SeqCst) {
        let replies = client.all("INCR n0 · INCR n1 · INCR n2 · INCR n3 · INCR n0").await;
        for (reply, counter) in replies.iter().zip([0, 1, 2, 3, 0]) {
            match reply {
                Reply::Integer(count) => {
                    assert!(*count > highest[counter], "a counter went back");
                    highest[counter] = *count;
                    told[counter].0 += 1;
                }
                error if code(error) == "UNKNOWN" => told[counter].1 += 1,
                error => assert_eq!(code(error), "TRYAGAIN"),
            }
        }
    }
    told
}

#[test]
fn counters_count_what_was_acknowledged_though_a_leader_dies() {
    run(async {
        let mut world = World::new().await;
        let stop = Arc::new(AtomicBool::new(false));
        let counting: Vec<_> = (0..2)
            .flat_map(|at| [world.client(at), world.client(at)])
            .map(|client| tokio::spawn(count(client, Arc::clone(&stop))))
            .collect();
        let mut watcher = world.client(0);
        while number_at(&mut watcher, "n0").await < 100 {}
        // Nobody is connected to it; it leads some of the counters' shards, with the third node's share of all.
        drop(world.nodes[2].take());
        let mut seen = Vec::new();
        for counter in 0..4 {
            seen.push(number_at(&mut watcher, &format!("n{counter}")).await);
        }
        for (counter, before) in seen.into_iter().enumerate() {
            while number_at(&mut watcher, &format!("n{counter}")).await < before + 50 {}
        }
        stop.store(true, SeqCst);
        let mut told = [(0, 0); 4];
        for counting in counting {
            for (sum, own) in told.iter_mut().zip(counting.await.unwrap()) {
                *sum = (sum.0 + own.0, sum.1 + own.1);
            }
        }
        for (counter, (acknowledged, unknown)) in told.into_iter().enumerate() {
            let count = number_at(&mut watcher, &format!("n{counter}")).await;
            assert!(
                (acknowledged..=acknowledged + unknown).contains(&count),
                "n{counter} = {count}: {acknowledged} acknowledged, {unknown} unknown"
            );
        }
    });
}

pub(crate) async fn number_at(client: &mut Client, key: &str) -> i64 {
    loop {
        match client.call(&format!("GET {key}")).await {
            Reply::Nil => return 0,
            Reply::Bulk(bytes) => return std::str::from_utf8(&bytes).unwrap().parse().unwrap(),
            error => assert_eq!(code(&error), "TRYAGAIN"),
        }
    }
}

#[test]
fn transactions_of_all_nodes_are_atomic() {
    run(async {
        let world = World::new().await;
        let stop = Arc::new(AtomicBool::new(false));
        let moving: Vec<_> =
            (0..3).map(|at| tokio::spawn(shift(world.client(at), Arc::clone(&stop)))).collect();
        let mut watcher = world.client(1);
        assert_eq!(watcher.call("MSET {x}a 0 {x}b 0").await, Reply::Ok);
        for _ in 0..300 {
            let both = watcher.call("MGET {x}a {x}b").await;
            let both: Vec<i64> = list(&both).iter().map(|each| text(each).parse().unwrap()).collect();
            assert_eq!(both[0] + both[1], 0, "neither without the other");
        }
        stop.store(true, SeqCst);
        let mut shifted = 0;
        for moving in moving {
            shifted += moving.await.unwrap();
        }
        assert!(shifted > 0);
        assert_eq!(text(&watcher.call("GET {x}b").await), shifted.to_string());
    });
}

async fn shift(mut client: Client, stop: Arc<AtomicBool>) -> i64 {
    let mut shifted = 0;
    while client.call("EXISTS {x}a").await == Reply::Integer(0) {}
    while !stop.load(SeqCst) {
        let done = client.exec("DECR {x}a · INCR {x}b", &Watched::new()).await;
        assert!(matches!(&done, Served::Done(replies) if replies.len() == 2), "{done:?}");
        shifted += 1;
    }
    shifted
}

/// Polls a buffer's execution once, as far as it comes without waiting, and lets go of it: a connection that is lost after it sent a write.
async fn send_and_leave(client: &mut Client, line: &str) {
    let words = words(line);
    let requests = [request(client.namespace, &words)];
    let serving = client.node.serve(&mut client.session, &requests);
    tokio::select! {
        biased;
        _ = serving => {}
        () = std::future::ready(()) => {}
    }
}

#[test]
fn a_retry_finds_the_first_outcome_whoever_leads() {
    run(async {
        let mut world = World::new().await;
        let once = async |world: &World, at: usize, round: usize| {
            let mut client = world.client(at);
            client.session.request_id = Some(format!("id-{round}").into());
            client.call(&format!("INCR once:{round}")).await
        };
        for round in 0..30 {
            let mut lost = world.client(round % 3);
            lost.session.request_id = Some(format!("id-{round}").into());
            send_and_leave(&mut lost, &format!("INCR once:{round}")).await;
            if round % 2 == 0 {
                assert_eq!(once(&world, (round + 1) % 3, round).await, Reply::Integer(1));
            }
        }
        // A third of the shards gets another leader, and some of the writes were never asked about before.
        drop(world.nodes[2].take());
        for round in 0..30 {
            for at in 0..2 {
                let mut reply = once(&world, at, round).await;
                // Until somebody leads again; what may have been executed is asked for by the same id, too.
                while matches!(&reply, Reply::Error(error) if ["UNKNOWN", "TRYAGAIN"].contains(&error.code()))
                {
                    reply = once(&world, at, round).await;
                }
                assert_eq!(reply, Reply::Integer(1), "round {round}");
            }
            assert_eq!(number_at(&mut world.client(0), &format!("once:{round}")).await, 1);
        }
    });
}
