//! What happens at the edges: a failing device, a full one, too much at once, many small trees.

use kvorum_engine::fs::sim::{Fault, Operation, SimFs};
use kvorum_engine::{
    Attributes, Batch, Durability, Error, Found, Parts, Settings, Store, SystemClock, Tree, TreeSettings,
    View,
};
use std::sync::Arc;

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.memory_bytes = 4 << 20;
    settings.wal_segment_bytes = 1 << 20;
    settings.disk_reserve_bytes = 1 << 20;
    settings.background_threads = false;
    settings
}

fn open(fs: &SimFs, settings: Settings) -> Store {
    Store::open("/store", settings, Parts::new(Arc::new(fs.clone()), Arc::new(SystemClock::new())))
        .expect("the store opens")
}

fn put(
    store: &Store,
    tree: &Tree,
    key: &str,
    version: u64,
    value: &[u8],
    durability: Durability,
) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.put(tree, key.as_bytes(), version, value, Attributes::default());
    store.write(&batch, durability)?.wait()
}

fn value(tree: &Tree, key: &str) -> Option<Vec<u8>> {
    tree.get(key.as_bytes(), &View::newest())
        .expect("readable")
        .filter(Found::is_value)
        .map(|f| f.value.to_vec())
}

#[test]
fn a_failed_sync_poisons_until_the_store_is_reopened() {
    let fs = SimFs::new(1);
    let store = open(&fs, settings());
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    put(&store, &tree, "a", 1, b"acknowledged", Durability::Synced).expect("synced");
    let snapshot = store.snapshot();
    fs.inject(Fault::once(Operation::Sync, "wal"));
    let mut batch = Batch::new();
    batch.put(&tree, b"a", 2, b"unknown", Attributes::default());
    let commit = store.write(&batch, Durability::Synced).expect("taken");
    assert_eq!(value(&tree, "a").as_deref(), Some(&b"unknown"[..]), "seen at once");
    assert!(matches!(commit.wait(), Err(Error::Poisoned { .. })));
    fs.heal();
    assert_eq!(
        value(&tree, "a").as_deref(),
        Some(&b"acknowledged"[..]),
        "only what was acknowledged is seen"
    );
    assert!(tree.get(b"a", &View::newest().of(&snapshot)).expect("readable").is_some());
    assert!(matches!(put(&store, &tree, "b", 3, b"x", Durability::Synced), Err(Error::Poisoned { .. })));
    assert!(store.flush().is_err());
    assert!(store.tree("another", TreeSettings::default()).is_err());
    assert!(store.stats().poisoned.is_some());
    drop((snapshot, tree, batch, store));
    let store = open(&fs, settings());
    let tree = store.find_tree("t").expect("the tree is there");
    assert!(value(&tree, "a").is_some());
    put(&store, &tree, "b", 3, b"x", Durability::Synced).expect("synced");
}

#[test]
fn a_failed_manifest_edit_poisons() {
    let fs = SimFs::new(2);
    let store = open(&fs, settings());
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    put(&store, &tree, "a", 1, b"v", Durability::Synced).expect("synced");
    fs.inject(Fault::once(Operation::Sync, "MANIFEST"));
    assert!(store.flush().is_err());
    fs.heal();
    assert!(matches!(put(&store, &tree, "b", 2, b"x", Durability::Synced), Err(Error::Poisoned { .. })));
    assert_eq!(value(&tree, "a").as_deref(), Some(&b"v"[..]));
    drop((tree, store));
    let store = open(&fs, settings());
    assert_eq!(value(&store.find_tree("t").expect("the tree is there"), "a").as_deref(), Some(&b"v"[..]));
}

#[test]
fn a_failed_table_is_written_again() {
    let fs = SimFs::new(3);
    let store = open(&fs, settings());
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    put(&store, &tree, "a", 1, b"v", Durability::Synced).expect("synced");
    for operation in
        [Operation::Create, Operation::Write, Operation::Sync, Operation::Name, Operation::SyncDir]
    {
        fs.inject(Fault::once(operation, "tables"));
        assert!(store.flush().is_err(), "{operation:?}");
        fs.heal();
        put(&store, &tree, "b", 2, b"goes on", Durability::Synced).expect("a table is no reason to stop");
    }
    store.flush().expect("flushed");
    let tables = fs.files().into_iter().filter(|(path, _)| path.starts_with("/store/tables")).count() as u64;
    assert_eq!((tables, tree.stats().tables, tree.stats().memtable_bytes), (1, 1, 0), "no file is left over");
    assert_eq!(value(&tree, "a").as_deref(), Some(&b"v"[..]));
}

#[test]
fn a_full_device_refuses_before_a_sequence_is_given_and_recovers() {
    let fs = SimFs::new(4);
    let store = open(&fs, settings());
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    put(&store, &tree, "a", 1, b"v", Durability::Synced).expect("synced");
    fs.set_capacity(fs.files().iter().map(|(_, bytes)| bytes).sum::<u64>() + (512 << 10));
    let visible = loop {
        let visible = store.visible();
        match put(&store, &tree, "b", visible + 1, &[1; 1000], Durability::Written) {
            Ok(()) => {}
            Err(Error::DiskFull { .. }) => break visible,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(store.visible(), visible);
    store.flush().expect("the reserve lets a flush finish");
    assert_eq!(value(&tree, "a").as_deref(), Some(&b"v"[..]));
    fs.set_capacity(u64::MAX);
    let recovered = || put(&store, &tree, "c", visible + 100, b"v", Durability::Synced);
    while let Err(error) = recovered() {
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    }
}

#[test]
fn what_is_too_large_names_its_setting() {
    let fs = SimFs::new(5);
    let store = open(&fs, settings());
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    let refused = put(&store, &tree, "k", 1, &vec![0; 600 << 10], Durability::Written);
    assert!(matches!(&refused, Err(Error::TooLarge { setting: "max_value_bytes", .. })), "{refused:?}");
    let mut batch = Batch::new();
    batch.put(&tree, &[0; 65_536], 1, b"", Attributes::default());
    assert!(matches!(store.write(&batch, Durability::Written), Err(Error::TooLarge { what: "key", .. })));
    let mut batch = Batch::new();
    (0..600).for_each(|i| batch.put(&tree, &[0; 100], i + 1, &[0; 1000], Attributes::default()));
    let refused = store.write(&batch, Durability::Written).map(drop);
    assert!(matches!(&refused, Err(Error::TooLarge { what: "batch", .. })), "{refused:?}");
    assert_eq!(store.visible(), 0);
}

#[test]
fn many_trees_written_once_cost_little() {
    let fs = SimFs::new(6);
    let mut settings = settings();
    settings.memory_bytes = 16 << 20;
    settings.wal_bytes_max = 8 << 20;
    let store = open(&fs, settings);
    let trees: Vec<_> = (0..256)
        .map(|i| store.tree(&format!("tree {i}"), TreeSettings::default()).expect("a tree"))
        .collect();
    let empty = store.stats().memtable_bytes;
    assert_eq!(empty, 0, "an empty tree takes no write buffer");
    for tree in &trees {
        put(&store, tree, "k", 1, b"once", Durability::Written).expect("written");
    }
    assert!(store.stats().memtable_bytes <= 256 * (4 << 10), "{} bytes", store.stats().memtable_bytes);
    // One busy tree must not let the others hold the log for ever.
    for i in 0..40_000_u64 {
        let mut batch = Batch::new();
        batch.put(&trees[0], &(i % 500).to_be_bytes(), i + 2, &[3; 400], Attributes::default());
        while let Err(error) = store.write(&batch, Durability::Buffered) {
            assert!(matches!(error, Error::Busy { .. }), "{error}");
            store.run_background().expect("background work");
        }
        if i % 64 == 0 {
            store.run_background().expect("background work");
        }
        assert!(store.stats().wal_bytes <= 8 << 20, "the log is bounded");
    }
    let flushes = store.stats().flushes;
    assert!(flushes < 60, "{flushes} flushes: the small trees go in one job");
    assert!(trees.iter().skip(1).all(|tree| value(tree, "k").as_deref() == Some(&b"once"[..])));
    drop((trees, store));
}

#[test]
fn a_waiting_writer_gets_through() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut settings = settings();
    settings.memory_bytes = 1 << 20;
    settings.background_threads = true;
    let store = Store::open(dir.path(), settings, Parts::real()).expect("the store opens");
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    for i in 0..5_000_u64 {
        let mut batch = Batch::new();
        batch.put(&tree, &i.to_be_bytes(), i + 1, &[1; 200], Attributes::default());
        let commit = store.write_waiting(&batch, Durability::Buffered).expect("taken");
        drop(commit);
    }
    store.flush().expect("flushed");
    let stats = store.stats();
    assert!(stats.refused_writes == 0 || !stats.longest_pause.is_zero());
    assert_eq!((stats.batches, stats.flushed_bytes > 0), (5_000, true));
    assert_eq!(value(&tree, "\0\0\0\0\0\0\0\u{7}"), Some(vec![1; 200]));
}
