//! A folder written by the first release opens, and everything is in it: tables, values apart from their keys, the log, both kinds of
//! namespaces.
//!
//! To write it anew after a change of a format that is not released yet: `cargo test -p kvorum-cluster --test it fixture -- --ignored`.

use crate::available::{ANY, wait};
use crate::support::{Client, World, copy, open};
use kvorum_cluster::NodeSettings;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/node-1")
}

/// Large enough to stand apart from its key.
fn large() -> String {
    (0..1000).map(|number| format!("{number:05}")).collect()
}

#[test]
#[ignore = "writes the fixture"]
fn write_it() {
    let mut world = World::new();
    let _ = std::fs::remove_dir_all(folder());
    world.settings.data_dir = folder();
    let node = world.open();
    let mut client = Client::new(&node);
    client.run("MSET a 1 b 2 c 3; INCR a; DEL b; SET short lived PX 1000; SET long lived PX 1000000000");
    client.run(&format!("SET large {}", large()));
    // These stand in tables, what follows in the log alone.
    node.flush().unwrap();
    client.run("SET c 4; SET d 5; DEL a");
    let mut seven = Client::of(&node, "7");
    seven.run("SET gone 1; FLUSHDB; SET here 2");
    wait(async {
        node.entity().put(b"one", b"first", ANY).await.unwrap();
        node.entity().put(b"two", b"second", ANY).await.unwrap();
        node.entity().delete(b"one", ANY).await.unwrap();
    });
    node.shutdown().unwrap();
    drop(node);
    // Space that was reserved and not written is not worth keeping.
    for entry in std::fs::read_dir(folder().join("wal")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        std::fs::write(&path, &bytes[..end.next_multiple_of(4096).min(bytes.len())]).unwrap();
    }
}

#[test]
fn a_folder_of_the_first_release_opens() {
    let world = World::new();
    copy(&folder(), &world.settings.data_dir);
    world.clock.add(1000);
    let node = world.open();
    assert_eq!(node.stats().epoch, 2);
    let mut client = Client::new(&node);
    assert_eq!(client.text("MGET a b c d short long; DBSIZE"), "[nil nil 4 5 nil lived] 4");
    assert_eq!(client.text("GET large"), large());
    assert!(client.version("c") > 1 << 40, "epoch 1 and a serial");
    assert_eq!(Client::of(&node, "7").text("GET gone; GET here; DBSIZE"), "nil 2 1");
    wait(async {
        assert_eq!(node.entity().get(b"one", ANY).await.unwrap(), None);
        let two = node.entity().get(b"two", ANY).await.unwrap().unwrap();
        assert_eq!(&two.value[..], b"second");
        assert!(node.entity().put(b"two", b"third", ANY).await.unwrap() > two.version);
    });
    assert_eq!(client.text("INCR d; SET e 1; DBSIZE"), "6 OK 5");
    node.shutdown().unwrap();
    drop((client, node));
    let mut settings = NodeSettings::new(&world.settings.data_dir);
    settings.memory_bytes = world.settings.memory_bytes;
    assert_eq!(Client::new(&open(&settings, &world.clock)).text("GET d"), "6");
}
