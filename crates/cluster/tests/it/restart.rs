//! What a restart keeps, and what it never repeats.

use crate::available::{ANY, wait};
use crate::support::{Client, NOW, World, copy, open};
use kvorum_cluster::{Durability, NodeSettings};
use std::collections::HashSet;

#[test]
fn everything_is_there_again() {
    let world = World::new();
    let node = world.open();
    let mut client = Client::new(&node);
    client.run("MSET a 1 b 2 c 3; DEL b; SET d 4 PX 100000");
    Client::of(&node, "7").run("SET a seven");
    let version = client.version("a");
    node.shutdown().unwrap();
    drop((client, node));
    let node = world.open();
    let mut client = Client::new(&node);
    assert_eq!(client.text("MGET a b c d; PTTL d; DBSIZE"), "[1 nil 3 4] 100000 3");
    assert_eq!(client.version("a"), version);
    assert_eq!(Client::of(&node, "7").text("GET a"), "seven");
}

#[test]
fn epochs_rise_and_op_ids_never_repeat() {
    let world = World::new();
    let mut seen = HashSet::new();
    let mut last = (0, 0);
    let mut store_id = None;
    for round in 0..6 {
        let node = world.open();
        let stats = node.stats();
        assert_eq!(*store_id.get_or_insert(stats.store_id.clone()), stats.store_id);
        let mut client = Client::new(&node);
        client.run("INCR {t}n");
        let version = client.version("{t}n");
        assert!(seen.insert(version), "op id {version} came twice");
        assert_eq!(version >> 40, stats.epoch);
        assert!((stats.epoch, version) > last, "epoch {} after {last:?}", stats.epoch);
        last = (stats.epoch, version);
        if round % 2 == 0 {
            node.shutdown().unwrap();
        }
    }
    assert_eq!(Client::new(&world.open()).text("GET {t}n"), "6");
}

#[test]
fn a_copy_of_the_folder_under_way_holds_every_acknowledged_write() {
    let mut world = World::new();
    world.settings.durability = Durability::Synced;
    let node = world.open();
    let mut client = Client::new(&node);
    for i in 0..50 {
        client.run(&format!("SET k{i} {i}; INCR n"));
    }
    let elsewhere = world.settings.data_dir.with_file_name("copy");
    copy(&world.settings.data_dir, &elsewhere);
    let mut settings = NodeSettings::new(&elsewhere);
    settings.memory_bytes = world.settings.memory_bytes;
    let mut copied = Client::new(&open(&settings, &world.clock));
    assert_eq!(copied.text("GET n; DBSIZE"), "50 51");
}

#[test]
fn after_the_end_writes_refuse_and_say_so() {
    let world = World::new();
    let node = world.open();
    let mut client = Client::new(&node);
    client.run("SET a 1");
    node.shutdown().unwrap();
    let text = client.text("SET a 2");
    assert!(text.starts_with("-MISCONF "), "{text}");
    assert_eq!(client.text("GET a"), "1");
    // On top of a write that never was.
    let text = client.text("SET b 2; GET b");
    assert_eq!(text.matches("-MISCONF").count(), 2, "{text}");
}

#[test]
fn versions_rise_over_a_restart_with_the_clock_set_back() {
    let world = World::new();
    let mut last = 0;
    for round in 0u64..6 {
        let node = world.open();
        let entity = node.entity();
        wait(async {
            for _ in 0..100 {
                let version = entity.put(b"a", b"1", ANY).await.unwrap();
                assert!(version > last, "round {round}: {version} after {last}");
                last = version;
            }
        });
        if round % 2 == 0 {
            node.shutdown().unwrap();
        }
        world.clock.set(NOW - round * 1_000_000);
    }
    assert_eq!(last & 1023, 0, "the slot of a node alone");
}

#[test]
fn another_name() {
    let mut world = World::new();
    wait(world.open().entity().put(b"a", b"1", ANY)).unwrap();
    world.settings.entity_namespace = "things".into();
    let node = world.open();
    assert!(node.namespace(b"entity").is_none());
    assert_eq!(Client::of(&node, "things").text("GET a"), "1");
}
