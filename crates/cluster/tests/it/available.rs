//! The available namespace.

use crate::support::{Client, World};
use kvorum_cluster::{Entity, Quorum};
use std::future::Future;

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

pub(crate) const ANY: Quorum = Quorum { ack: None, from: None };

async fn all(entity: &Entity, start: &[u8], end: Option<&[u8]>) -> Vec<(String, String)> {
    let mut range = entity.range(start, end).await.unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = range.next().await {
        let (key, value) = entry.unwrap();
        entries.push((key.escape_ascii().to_string(), value.escape_ascii().to_string()));
    }
    entries
}

#[test]
fn put_get_delete() {
    let world = World::new();
    let entity = world.open().entity();
    wait(async {
        assert_eq!(entity.get(b"a", ANY).await.unwrap(), None);
        let first = entity.put(b"a", b"1", ANY).await.unwrap();
        let second = entity.put(b"a", b"2", Quorum { ack: Some(1), from: Some(1) }).await.unwrap();
        assert!(second > first);
        let found = entity.get(b"a", ANY).await.unwrap().unwrap();
        assert_eq!((found.version, &found.value[..]), (second, &b"2"[..]));
        assert!(entity.delete(b"a", ANY).await.unwrap() > second);
        assert_eq!(entity.get(b"a", ANY).await.unwrap(), None);
        entity.delete(b"never", ANY).await.unwrap();
        let refused = entity.put(b"a", b"3", Quorum { ack: None, from: Some(2) }).await.unwrap_err();
        assert_eq!(refused.to_string(), "from is 2, but the cluster has 1 node");
        assert!(entity.put(&vec![b'k'; 70_000], b"", ANY).await.is_err());
    });
}

#[test]
fn ranges_run_in_key_order_over_all_shards() {
    let world = World::new();
    let entity = world.open().entity();
    wait(async {
        assert_eq!(all(&entity, b"", None).await, []);
        let mut expected = Vec::new();
        for i in 0..3000 {
            let (key, value) = (format!("k{i:04}"), format!("v{i}"));
            entity.put(key.as_bytes(), value.as_bytes(), ANY).await.unwrap();
            expected.push((key, value));
        }
        entity.delete(b"k0005", ANY).await.unwrap();
        expected.remove(5);
        assert_eq!(all(&entity, b"", None).await, expected);
        assert_eq!(all(&entity, b"k0010", Some(b"k0013")).await, expected[9..12]);
        assert_eq!(all(&entity, b"k0010", Some(b"k0010")).await, []);
        assert_eq!(all(&entity, b"k0010", Some(b"k0001")).await, []);
        assert_eq!(all(&entity, b"k2999\0", None).await, []);
    });
}

#[test]
fn a_range_reads_one_moment() {
    let world = World::new();
    let entity = world.open().entity();
    wait(async {
        for i in 0..2500 {
            entity.put(format!("k{i:04}").as_bytes(), b"old", ANY).await.unwrap();
        }
        let mut range = entity.range(b"", None).await.unwrap();
        range.next().await.unwrap().unwrap();
        for i in 0..2500 {
            entity.put(format!("k{i:04}").as_bytes(), b"new", ANY).await.unwrap();
        }
        let mut count = 1;
        while let Some(entry) = range.next().await {
            assert_eq!(&entry.unwrap().1[..], b"old");
            count += 1;
        }
        assert_eq!(count, 2500);
    });
}

#[test]
fn a_long_run_raises_the_bound() {
    let world = World::new();
    let node = world.open();
    wait(async {
        let mut last = 0;
        for _ in 0..50 {
            let version = node.entity().put(b"a", b"1", ANY).await.unwrap();
            assert!(version > last);
            last = version;
            world.clock.add(3_000);
        }
    });
}

#[test]
fn plain_strings_over_resp() {
    let world = World::new();
    let node = world.open();
    let mut client = Client::of(&node, "entity");
    assert_eq!(client.text("SET a 1; GET a; EXISTS a; DBSIZE; KEYS *; TYPE a"), "OK 1 1 1 [a] string");
    for command in ["INCR a", "APPEND a b", "SET a 1 NX", "SET a 1 GET", "FLUSHDB"] {
        assert!(client.text(command).starts_with("-ERR "), "{command}: {}", client.text(command));
    }
    assert_eq!(client.text("INCR a"), "-ERR needs a strong namespace");
    assert_eq!(client.text("FLUSHALL; GET a"), "OK 1");
    let found = wait(node.entity().get(b"a", ANY)).unwrap().unwrap();
    assert_eq!(client.version("a"), found.version);
    assert!(node.namespace(b"16").is_none());
}
