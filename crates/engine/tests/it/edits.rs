//! Changes of the file set on a device that fails at one operation, each in turn: whatever the change answered, what an edit may name is there, and
//! nothing acknowledged is lost.

use crate::damage::parts;
use kvorum_engine::fs::sim::{Fault, Operation, SimFs};
use kvorum_engine::{
    Attributes, Batch, Durability, Found, Result, Settings, Store, Tree, TreeSettings, View, WalRetention,
};
use std::path::PathBuf;

const OPERATIONS: [Operation; 6] = [
    Operation::Create,
    Operation::Name,
    Operation::SyncDir,
    Operation::Write,
    Operation::Sync,
    Operation::Read,
];

fn settings(wal_retention: WalRetention) -> Settings {
    let mut settings = Settings::default();
    settings.memory_bytes = 1 << 20;
    settings.wal_segment_bytes = 16 << 10;
    settings.blob_threshold_bytes = 64;
    settings.background_threads = false;
    settings.wal_dir = Some("/log".into());
    settings.wal_retention = wal_retention;
    settings
}

fn put(store: &Store, tree: &Tree, version: u64) -> Result<()> {
    let mut batch = Batch::new();
    let value = vec![version as u8; if version.is_multiple_of(2) { 90 } else { 10 }];
    batch.put(tree, format!("k{version}").as_bytes(), version, &value, Attributes::default());
    store.write(&batch, Durability::Synced)?.wait()
}

/// The version that stands at the key of each version up to the last one.
fn versions(store: &Store, name: &str, last: u64) -> Vec<u64> {
    let Some(tree) = store.find_tree(name) else { return Vec::new() };
    let read = |key: String| tree.get(key.as_bytes(), &View::newest()).expect("readable");
    (1..=last)
        .filter_map(|v| read(format!("k{v}")).filter(Found::is_value).map(|found| found.version))
        .collect()
}

/// A store with two tables in a tree, a third one's worth in memory, a raised floor, and the files of another tree beside it.
fn prepared(retention: WalRetention) -> (SimFs, Vec<PathBuf>) {
    let fs = SimFs::new(5);
    let store = Store::open("/store", settings(retention), parts(&fs)).expect("a new store");
    let other = store.tree("other", TreeSettings::with_history()).expect("a tree");
    (1..=4).for_each(|version| put(&store, &other, version).expect("synced"));
    let exported = other.export("/shipped").expect("its files");
    let tree = store.tree("t", TreeSettings::with_history()).expect("a tree");
    for version in 1..=9 {
        put(&store, &tree, version).expect("synced");
        if version.is_multiple_of(3) && version < 9 {
            store.flush().expect("flushed");
        }
    }
    store.close().expect("closed");
    (fs, exported.files.into_iter().map(|(path, _)| path).collect())
}

/// What went well, one after the other, of all that edits the file set.
#[derive(Debug)]
struct Told {
    all: bool,
    arrived: bool,
}

fn change(store: &Store, shipped: &[PathBuf]) -> Told {
    let tree = store.find_tree("t").expect("it was made durable");
    let early = [tree.set_floor(2).is_ok(), store.flush().is_ok(), store.compact().is_ok()];
    let new = store.tree("new", TreeSettings::with_history()).ok();
    let arrived = new.is_some_and(|new| new.ingest(shipped, 100).is_ok() && put(store, &new, 5).is_ok());
    let late = [store.swap_trees("t", "new").is_ok(), store.drop_tree("other").is_ok()];
    Told { all: early.iter().chain(&late).all(|&well| well) && arrived, arrived }
}

fn check(store: &Store, told: &Told, case: &str) {
    let (mut old, mut new) = ("t", "new");
    if versions(store, old, 9).len() < 9 {
        (old, new) = (new, old);
    }
    assert_eq!(versions(store, old, 9), (1..=9).collect::<Vec<_>>(), "{case}");
    if told.arrived {
        assert_eq!(versions(store, new, 9), (1..=5).collect::<Vec<_>>(), "{case}");
    }
    let damages = store.verify().expect("it can be looked at").damages;
    assert!(damages.is_empty(), "{case}: {damages:?}");
}

fn fails_once_at_each_operation(retention: WalRetention) {
    let (device, shipped) = prepared(retention);
    for operation in OPERATIONS {
        for skip in 0.. {
            let case = format!("{operation:?} fails after {skip}");
            let fs = device.after_kill();
            let store = Store::open("/store", settings(retention), parts(&fs)).expect("it opens");
            fs.inject(Fault { skip, ..Fault::once(operation, "") });
            let told = change(&store, &shipped);
            let struck = !fs.heal();
            check(&store, &told, &case);
            let fs = fs.after_kill();
            drop(store);
            let store = Store::open("/store", settings(retention), parts(&fs));
            let store = store.unwrap_or_else(|error| panic!("{case}: {error}"));
            check(&store, &told, &case);
            put(&store, &store.find_tree("t").expect("a tree"), 20).expect("it takes writes again");
            if !struck {
                assert!(told.all, "{told:?}");
                assert!(skip > 1, "{operation:?} is among what is done");
                break;
            }
        }
    }
}

#[test]
fn what_an_edit_names_outlives_its_failure() {
    fails_once_at_each_operation(WalRetention::Freed);
}

#[test]
fn what_an_edit_names_outlives_its_failure_beside_a_log_that_is_kept() {
    fails_once_at_each_operation(WalRetention::All);
}
