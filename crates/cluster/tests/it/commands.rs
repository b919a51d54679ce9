//! Pipelines of commands: in order, on top of each other, over all shards.

use crate::support::{Client, World, show};
use kvorum_model::Reply;

#[test]
fn a_pipeline_sees_what_it_wrote() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    let text = "SET a 1; GET a; INCR a; INCR a; GET a; APPEND a 0; STRLEN a; DEL a; GET a; INCR a; EXISTS a a b; TYPE a";
    assert_eq!(client.text(text), "OK 1 2 3 3 2 2 1 nil 1 2 string");
    assert_eq!(client.text("GET a"), "1");
}

#[test]
fn commands_over_shards_are_one() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    let keys: Vec<_> = (0..100).map(|i| format!("k{i}")).collect();
    let sets: Vec<_> = keys.iter().map(|key| format!("{key} v{key}")).collect();
    assert_eq!(client.text(&format!("MSET {}", sets.join(" "))), "OK");
    let all = keys.join(" ");
    let values: Vec<_> = keys.iter().map(|key| format!("v{key}")).collect();
    assert_eq!(client.text(&format!("MGET {all}; DBSIZE")), format!("[{}] 100", values.join(" ")));
    assert_eq!(client.text(&format!("DEL {all} nothing; DBSIZE; EXISTS {all}")), "100 0 0");
}

#[test]
fn namespaces_are_apart() {
    let world = World::new();
    let node = world.open();
    let (mut zero, mut one) = (Client::new(&node), Client::of(&node, "1"));
    assert_eq!(zero.text("SET a 0"), "OK");
    assert_eq!(one.text("GET a; SET a 1; GET a"), "nil OK 1");
    assert_eq!(one.text("FLUSHDB; GET a; DBSIZE"), "OK nil 0");
    assert_eq!(zero.text("GET a; FLUSHALL ASYNC; GET a; SET b 1; DBSIZE"), "0 OK nil OK 1");
    assert!(zero.text("FLUSHALL NOW").starts_with("-ERR syntax error"));
}

#[test]
fn a_flush_in_a_pipeline() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    assert_eq!(
        client.text("SET a 1; FLUSHDB; GET a; SET b 2; GET b; INCR a; DBSIZE; KEYS *"),
        "OK OK nil OK 2 1 2 [b a]"
    );
    assert_eq!(client.text("GET a; GET b"), "1 2");
    // Of a namespace that was never written to.
    assert_eq!(Client::of(&client.node, "9").text("FLUSHDB; DBSIZE"), "OK 0");
}

#[test]
fn an_item_takes_each_key_once() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    client.run("SET warm up");
    // One buffer, one shard: the first three writes are one item, the next write of a key opens another.
    let replies = client.run("SETV {t}a 1; SETV {t}b 1; SETV {t}c 1; SETV {t}a 2; SETV {t}b 2; SETV {t}b 3");
    let versions: Vec<u64> = replies.iter().map(|reply| show(reply).parse().unwrap()).collect();
    let first = versions[0];
    assert_eq!(versions, [first, first, first, first + 1, first + 1, first + 2]);
    assert_eq!(
        [client.version("{t}a"), client.version("{t}b"), client.version("{t}c")],
        [first + 1, first + 2, first]
    );
    // The next buffer opens an item.
    assert_eq!(client.text("SETV {t}c 4"), (first + 3).to_string());
}

#[test]
fn conditions_on_versions() {
    let world = World::new();
    let mut client = Client::new(&world.open());
    assert_eq!(client.text("SET a 1 IFVERSION 0; SET a 2 IFVERSION 0").split(' ').next(), Some("OK"));
    let version = client.version("a");
    assert_eq!(client.text("SET a 2 IFVERSION 0"), format!("-CONFLICT {version}"));
    assert_eq!(client.text(&format!("SET a 3 IFVERSION {version}; GET a")), "OK 3");
    let version = client.version("a");
    assert_eq!(
        client.text(&format!("DELEX a IFVERSION {version}; GETV a; DELEX a IFVERSION 0")),
        "1 [nil 0 stable] 0"
    );
}

#[test]
fn what_is_too_large_is_refused_alone() {
    let mut world = World::new();
    world.settings.memory_bytes = 8 << 20;
    let mut client = Client::new(&world.open());
    let large = vec![b'x'; (1 << 20) + 1];
    let words = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
    let key = vec![b'k'; 65_535];
    let replies = client.pipeline(&[
        words(&[b"SET", b"a", b"1"]),
        words(&[b"SET", b"b", &large]),
        words(&[b"SET", &key, b"1"]),
        words(&[b"SET", &key[1..], b"1"]),
        words(&[b"MSET", b"c", &large[..600_000], b"d", &large[..600_000]]),
        words(&[b"INCR", b"a"]),
    ]);
    let texts: Vec<_> = replies.iter().map(show).collect();
    assert_eq!([&texts[0], &texts[3], &texts[5]], ["OK", "OK", "2"]);
    assert!(texts[1].contains("max_value_bytes"), "{}", texts[1]);
    assert!(texts[2].starts_with("-ERR key of 65535 bytes is over the limit of 65534"), "{}", texts[2]);
    assert!(texts[4].starts_with("-ERR command of"), "{}", texts[4]);
    assert_eq!(client.text("EXISTS b c d"), "0");
}

#[test]
fn a_buffer_larger_than_a_batch() {
    let mut world = World::new();
    world.settings.memory_bytes = 8 << 20;
    let mut client = Client::new(&world.open());
    let value = vec![b'v'; 100_000];
    // About as much as the write buffers hold.
    let sets: Vec<_> =
        (0..20).map(|i| vec![b"SET".to_vec(), format!("k{i}").into_bytes(), value.clone()]).collect();
    assert!(client.pipeline(&sets).iter().all(|reply| *reply == Reply::Ok));
    for i in 0..20 {
        assert_eq!(client.get(format!("k{i}").as_bytes()).as_deref(), Some(&value[..]));
    }
}

#[test]
fn figures() {
    let world = World::new();
    let node = world.open();
    let mut client = Client::of(&node, "3");
    client.run("SET a 1; SET b 1");
    let stats = node.stats();
    assert_eq!(stats.store_id.len(), 32);
    let names: Vec<_> =
        stats.namespaces.iter().map(|each| (each.name.as_str(), each.keys_estimate)).collect();
    assert_eq!(names, [("3", 2)]);
}
