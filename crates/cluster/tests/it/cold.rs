//! Data that lies on disk, under a cache too small for it.

use crate::support::{Client, World};
use kvorum_cluster::Node;
use kvorum_model::Reply;

/// A node with little memory and far more data, most of it on disk.
fn cold(world: &mut World, keys: usize, value_bytes: usize) -> Node {
    world.settings.memory_bytes = 1 << 20;
    world.settings.max_value_bytes = Some(64 << 10);
    let node = world.open();
    let mut client = Client::new(&node);
    for i in 0..keys {
        let words = vec![b"SET".to_vec(), key(i), value(i, value_bytes)];
        assert_eq!(client.pipeline(&[words]), [Reply::Ok]);
    }
    node.flush().unwrap();
    node
}

fn key(i: usize) -> Vec<u8> {
    format!("key:{i}").into_bytes()
}

fn value(i: usize, bytes: usize) -> Vec<u8> {
    let mut state = i as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn every_command_ends_however_small_the_cache() {
    let mut world = World::new();
    let node = cold(&mut world, 150, 40_000);
    let mut client = Client::new(&node);
    for i in 0..150 {
        assert_eq!(client.get(&key(i)), Some(value(i, 40_000)), "{i}");
    }
    let all: Vec<_> = (0..150).map(key).collect();
    let mget: Vec<_> = std::iter::once(b"MGET".to_vec()).chain(all.iter().cloned()).collect();
    let Reply::Array(values) = client.pipeline(&[mget]).remove(0) else { panic!("no array") };
    for (i, found) in values.iter().enumerate() {
        assert_eq!(*found, Reply::bulk(value(i, 40_000)), "{i}");
    }
    // Commands that read and write, in one buffer.
    let appends: Vec<_> =
        all.iter().map(|key| vec![b"APPEND".to_vec(), key.clone(), b"!".to_vec()]).collect();
    assert!(client.pipeline(&appends[..20]).iter().all(|reply| *reply == Reply::Integer(40_001)));
    let words: Vec<_> = all[..30].iter().map(|key| String::from_utf8(key.clone()).unwrap()).collect();
    let gets: Vec<_> = words.iter().map(|key| format!("STRLEN {key}; EXISTS {key}")).collect();
    let replies = client.exec(&format!("{}; APPEND key:3 !", gets.join(";"))).unwrap();
    assert_eq!(replies[2 * 3], Reply::Integer(40_001));
    assert_eq!(replies[60], Reply::Integer(40_002));
    assert_eq!(client.text("DBSIZE"), "150");
    client.watch(&[b"key:100", b"key:101"]);
    assert_eq!(client.exec_text("DEL key:100 key:101; EXISTS key:100"), "2 0");
    assert!(client.fetches > 0, "nothing was cold: the test shows nothing");
}

#[test]
fn what_was_fetched_gives_way_to_a_newer_write() {
    let mut world = World::new();
    let node = cold(&mut world, 150, 40_000);
    let words: [&[u8]; 3] = [b"APPEND", b"key:7", b"!"];
    let mut client = Client::new(&node);
    let request = crate::support::request(client.namespace, &words);
    let mut replies = Vec::new();
    let progress = node.execute(&mut client.session, &[request], &mut replies);
    let prefetch = progress.blocked.expect("key:7 is cold");
    let fetched = prefetch.run();
    // Written, flushed and out of the cache before the command goes on.
    let mut other = Client::new(&node);
    other.run("SET key:7 new");
    node.flush().unwrap();
    for i in 20..150 {
        other.get(&key(i));
    }
    client.session.resume(fetched);
    loop {
        let progress = node.execute(&mut client.session, &[request], &mut replies);
        match progress.blocked {
            Some(prefetch) => client.session.resume(prefetch.run()),
            None => break,
        }
    }
    assert_eq!(replies, [Reply::Integer(4)]);
    assert_eq!(client.get(b"key:7"), Some(b"new!".to_vec()));
}
