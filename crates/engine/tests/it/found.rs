//! Failures that a crash test found once, made again without luck (`docs/bugs-found.md`).

use kvorum_engine::fs::sim::{Fault, FaultKind, Operation, SimFs};
use kvorum_engine::{
    Attributes, Batch, Durability, Error, Parts, Result, Settings, Store, TreeSettings, View,
};
use std::path::Path;
use std::sync::Arc;

/// Ends of the power that are tried for each case: which names and bytes survive is a matter of luck.
const LUCK: u64 = 12;

fn open(fs: &SimFs, path: &str) -> Result<Store> {
    let mut settings = Settings::default();
    settings.memory_bytes = 1 << 20;
    settings.wal_segment_bytes = 16 << 10;
    settings.background_threads = false;
    Store::open(path, settings, Parts::new(Arc::new(fs.clone()), fs.clock()))
}

fn put(store: &Store, version: u64) -> Result<()> {
    let tree = store.tree("t", TreeSettings::default())?;
    let mut batch = Batch::new();
    batch.put(&tree, b"k", version, b"value", Attributes::default());
    store.write(&batch, Durability::Synced)?.wait()
}

fn try_version(store: &Store) -> Result<Option<u64>> {
    let Some(tree) = store.find_tree("t") else { return Ok(None) };
    Ok(tree.get(b"k", &View::newest())?.map(|found| found.version))
}

fn version(store: &Store) -> Option<u64> {
    try_version(store).expect("readable")
}

/// The first life is killed in the middle of each of its operations; what the second one promises must outlive the power.
#[test]
fn a_killed_life_leaves_nothing_that_the_next_one_takes_for_durable() {
    let operations = {
        let fs = SimFs::new(0);
        put(&open(&fs, "/store").expect("a new store"), 1).expect("written");
        fs.operations()
    };
    assert!(operations > 15);
    for at in 1..=operations {
        for luck in 0..LUCK {
            let fs = SimFs::new(luck);
            fs.off_at(at);
            let _ = open(&fs, "/store").and_then(|store| put(&store, 1));
            let fs = fs.after_kill();
            let store = open(&fs, "/store").expect("a killed life is no obstacle");
            put(&store, 2).expect("written");
            let store = open(&fs.after_power_loss(), "/store").expect("the store survives");
            assert_eq!(version(&store), Some(2), "killed at operation {at}, luck {luck}");
        }
    }
}

/// The folders above the store, too, are durable before anything is promised.
#[test]
fn folders_made_on_the_way_are_durable() {
    for luck in 0..LUCK {
        let fs = SimFs::new(luck);
        put(&open(&fs, "/some/where/store").expect("a new store"), 1).expect("written");
        let store = open(&fs.after_power_loss(), "/some/where/store").expect("the store survives");
        assert_eq!(version(&store), Some(1), "luck {luck}");
    }
}

/// A sync fails, the process is killed; what it wrote is still in the page cache, and not durable.
#[test]
fn what_a_failed_sync_left_is_made_durable_before_anything_rests_on_it() {
    for skip in 0..12 {
        for luck in 0..LUCK {
            let fs = SimFs::new(luck);
            put(&open(&fs, "/store").expect("a new store"), 1).expect("written");
            let fs = fs.after_kill();
            fs.inject(Fault { skip, ..Fault::once(Operation::Sync, "wal") });
            let promised = match open(&fs, "/store").and_then(|store| put(&store, 2)) {
                Ok(()) => 2,
                Err(_) => 1,
            };
            let fs = fs.after_kill();
            let store = open(&fs, "/store").expect("the store opens");
            put(&store, 3).expect("written");
            let store = open(&fs.after_power_loss(), "/store").expect("the store survives");
            assert!(promised < 3 && version(&store) == Some(3), "sync {skip} failed, luck {luck}");
        }
    }
}

/// Any one read of an opening goes to the wrong place: that is an error or nothing, and leaves nothing behind.
#[test]
fn one_misread_is_no_damage_for_good() {
    let fs = SimFs::new(3);
    let store = open(&fs, "/store").expect("a new store");
    for at in 1..=6 {
        put(&store, at).expect("written");
        if at % 2 == 0 {
            store.flush().expect("flushed");
        }
    }
    drop(store);
    let fs = fs.after_kill();
    let mut noticed = 0;
    for skip in 0..80 {
        let copy = fs.copy();
        let misread = Fault::once(Operation::Read, "");
        copy.inject(Fault { skip, kind: FaultKind::Misdirected, ..misread });
        match open(&copy, "/store").and_then(|store| try_version(&store)) {
            Ok(version) => assert_eq!(version, Some(6), "read {skip} went astray"),
            Err(Error::Damaged { .. } | Error::UnknownFormat { .. }) => noticed += 1,
            Err(error) => panic!("read {skip} went astray: {error}"),
        }
        let store = open(&copy.after_kill(), "/store").expect("the device has what it had");
        assert_eq!(version(&store), Some(6), "after read {skip} went astray");
    }
    assert!(noticed > 3, "{noticed}");
}

#[test]
fn an_old_manifest_that_stays_is_no_failure() {
    let fs = SimFs::new(4);
    put(&open(&fs, "/store").expect("a new store"), 1).expect("written");
    fs.inject(Fault { times: 100, ..Fault::once(Operation::Name, "/store/MANIFEST-") });
    let store = open(&fs, "/store").expect("the new manifest counts");
    put(&store, 2).expect("written");
    assert!(fs.bytes(Path::new("/store/MANIFEST-000001")).is_some(), "it could not be removed");
    drop(store);
    fs.heal();
    let store = open(&fs, "/store").expect("the store opens");
    assert_eq!(version(&store), Some(2));
    assert!(fs.bytes(Path::new("/store/MANIFEST-000001")).is_none());
}
