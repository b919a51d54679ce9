//! Whole compactions in a store.

use crate::batch::{Attributes, Batch};
use crate::error::Error;
use crate::options::{Parts, Settings, TreeSettings};
use crate::store::Store;
use crate::tree::Tree;
use crate::types::Durability;
use crate::view::{Direction, View};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

fn open(path: &Path) -> Store {
    let settings = Settings {
        memory_bytes: 4 << 20,
        write_buffer_bytes: Some(1 << 20),
        wal_segment_bytes: 1 << 18,
        background_threads: false,
        ..Settings::default()
    };
    Store::open(path, settings, Parts::real()).unwrap()
}

fn write(store: &Store, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    fill(&mut batch);
    loop {
        match store.write(&batch, Durability::Buffered) {
            Err(Error::Busy { .. }) => store.flush().unwrap(),
            written => return written.unwrap().wait().unwrap(),
        }
    }
}

fn key(i: u64) -> [u8; 8] {
    (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).to_be_bytes()
}

fn rows(tree: &Tree) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let range = tree.range(.., &View::newest(), Direction::Forward).unwrap();
    range.map(|row| row.map(|(key, found)| (key.to_vec(), found.value.to_vec())).unwrap()).collect()
}

fn files(path: &Path) -> usize {
    std::fs::read_dir(path.join("tables")).unwrap().count()
}

/// Fills a tree with several versions of each key, in many flushes.
fn fill(store: &Store, tree: &Tree, rounds: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut model = BTreeMap::new();
    let mut version = 0;
    for round in 0..rounds {
        for i in 0..300 {
            version += 1;
            let (key, value) = (key(i % 200), format!("round {round}, row {i}").repeat(8).into_bytes());
            write(store, |batch| batch.put(tree, &key, version, &value, Attributes::default()));
            model.insert(key.to_vec(), value);
        }
        store.flush().unwrap();
    }
    model
}

#[test]
fn a_compacted_tree_answers_as_before_and_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let tree = store.tree("t", TreeSettings::with_history()).unwrap();
    let model = fill(&store, &tree, 30);
    let before = tree.stats();
    tree.set_floor(9000).unwrap();
    store.compact().unwrap();
    assert_eq!(rows(&tree), model);
    let after = tree.stats();
    assert_eq!(after.entries, 200, "all but the newest of each key lie below the floor: {after:?}");
    assert!(after.table_bytes < before.table_bytes / 5);
    assert_eq!(files(dir.path()) as u64, after.tables, "inputs are gone");
    let stats = store.stats().compaction;
    assert!(stats.jobs > 0 && stats.read_bytes > stats.written_bytes);
    drop(tree);
    store.close().unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(rows(&store.find_tree("t").unwrap()), model);
}

#[test]
fn a_snapshot_and_the_history_above_the_floor_stay() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let tree = store.tree("t", TreeSettings::with_history()).unwrap();
    fill(&store, &tree, 4);
    let snapshot = store.snapshot();
    let then = rows(&tree);
    write(&store, |batch| (0..200).for_each(|i| batch.delete(&tree, &key(i), 5000, Attributes::default())));
    store.flush().unwrap();
    tree.set_floor(600).unwrap();
    tree.set_tombstone_floor(5000).unwrap();
    store.compact().unwrap();
    assert!(rows(&tree).is_empty());
    let seen = |view: &View<'_>| tree.range(.., view, Direction::Forward).unwrap().count();
    assert_eq!(seen(&View::newest().of(&snapshot)), then.len());
    assert_eq!(seen(&View::at(600)), 200);
    assert_eq!(seen(&View::at(4999)), 200);
    drop(snapshot);
    tree.set_floor(5000).unwrap();
    store.compact().unwrap();
    assert_eq!((tree.stats().entries, tree.stats().tables), (0, 0), "nothing is left but the floor");
    assert_eq!(files(dir.path()), 0);
}

#[test]
fn a_cleared_tree_is_dropped_unread() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let tree = store.tree("t", TreeSettings::newest_only()).unwrap();
    fill(&store, &tree, 5);
    store.compact().unwrap();
    let read = store.stats().compaction.read_bytes;
    write(&store, |batch| batch.clear(&tree, 9000));
    store.flush().unwrap();
    tree.set_tombstone_floor(9000).unwrap();
    store.compact().unwrap();
    assert!(store.stats().compaction.read_bytes < read + 4096, "only the clear itself was read");
    assert_eq!((tree.stats().tables, files(dir.path())), (0, 0));
    assert!(rows(&tree).is_empty());
    write(&store, |batch| batch.put(&tree, b"k", 9001, b"lives", Attributes::default()));
    assert_eq!(rows(&tree).len(), 1);
}

#[test]
fn a_batch_below_what_was_collected_is_refused() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let tree = store.tree("t", TreeSettings::newest_only()).unwrap();
    write(&store, |batch| batch.delete(&tree, b"k", 70, Attributes::default()));
    store.flush().unwrap();
    tree.set_tombstone_floor(100).unwrap();
    store.compact().unwrap();
    assert_eq!(tree.stats().entries, 0);
    let mut batch = Batch::new();
    batch.put(&tree, b"k", 70, b"back from the dead", Attributes::default());
    assert!(matches!(store.write(batch, Durability::Buffered), Err(crate::Error::BelowFloor { .. })));
    write(&store, |batch| batch.put(&tree, b"k", 71, b"new", Attributes::default()));
    // Another copy of the tree knows better.
    write(&store, |batch| {
        batch.take_over();
        batch.put(&tree, b"never deleted", 5, b"old", Attributes::default());
    });
    let old =
        || tree.get(b"never deleted", &View::newest()).unwrap().map(|found| (found.version, found.value));
    assert_eq!(old(), Some((5, "old".into())));
    store.flush().unwrap();
    store.compact().unwrap();
    assert_eq!(old(), Some((5, "old".into())));
}

#[test]
fn flushes_wait_for_a_level_0_that_has_grown_too_large() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let tree = store.tree("t", TreeSettings::newest_only()).unwrap();
    let mut version = 0;
    while !store.shared.compaction_is_behind(tree.state()) {
        version += 1;
        write(&store, |batch| batch.put(&tree, &key(version), version, b"v", Attributes::default()));
        store.flush().unwrap();
    }
    assert!(version > 20, "it takes more than a few");
    let stats = store.stats();
    assert_eq!((stats.levels[0].tables, stats.compaction_debt_bytes), (version, stats.levels[0].bytes));
    // What would be flushed now waits, until a compaction has run.
    write(&store, |batch| batch.put(&tree, b"k", 1000, &vec![7; 300 << 10], Attributes::default()));
    write(&store, |batch| batch.put(&tree, b"l", 1001, &vec![7; 300 << 10], Attributes::default()));
    assert!(!store.shared.flush_some().unwrap());
    assert!(store.shared.compact_some().unwrap());
    assert!(store.shared.flush_some().unwrap());
    store.compact().unwrap();
    assert_eq!(rows(&tree).len() as u64, version + 2);
}

/// Two hundred entries that expire at `at`, in one table.
fn fill_expiring(store: &Store, tree: &Tree, at: u64) {
    let attributes = Attributes { expires_at: Some(at), ..Attributes::default() };
    (0..200).for_each(|i| write(store, |batch| batch.put(tree, &key(i), 1 + i, b"v", attributes)));
    store.flush().unwrap();
}

#[test]
fn what_expired_becomes_a_tombstone_of_its_version() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let tree = store.tree("t", TreeSettings::newest_only()).unwrap();
    fill_expiring(&store, &tree, 1000);
    tree.set_expiry_floor(999).unwrap();
    store.compact().unwrap();
    assert_eq!(rows(&tree).len(), 200, "the engine does not judge by a clock");
    tree.set_expiry_floor(1000).unwrap();
    store.compact().unwrap();
    assert_eq!(tree.stats().entries, 200, "deletions may not be forgotten yet");
    assert!(rows(&tree).is_empty());
    let found = tree.get(&key(7), &View::newest()).unwrap().unwrap();
    assert_eq!((found.version, found.is_value()), (8, false), "the same deletion on every replica");
    tree.set_tombstone_floor(200).unwrap();
    store.compact().unwrap();
    assert_eq!((tree.stats().tables, files(dir.path())), (0, 0));
}

#[test]
fn a_table_that_expired_whole_goes_unread() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let tree = store.tree("t", TreeSettings::newest_only()).unwrap();
    fill_expiring(&store, &tree, 1000);
    tree.set_expiry_floor(1000).unwrap();
    tree.set_tombstone_floor(200).unwrap();
    let snapshot = store.snapshot();
    store.compact().unwrap();
    drop(snapshot);
    store.compact().unwrap();
    let stats = store.stats().compaction;
    assert_eq!((tree.stats().tables, stats.read_bytes, files(dir.path())), (0, 0, 0));
    let mut batch = Batch::new();
    batch.put(&tree, &key(7), 8, b"back from the dead", Attributes::default());
    assert!(matches!(store.write(&batch, Durability::Buffered), Err(crate::Error::BelowFloor { .. })));
}

/// Writers, a reader, flushes and compactions on threads of their own: each reader's view of a key only rises, and the end is exact.
#[test]
fn compactions_in_the_background_change_no_answer() {
    const KEYS: u64 = 300;
    const ROUNDS: u64 = 40;
    let dir = TempDir::new().unwrap();
    let settings = Settings {
        memory_bytes: 4 << 20,
        write_buffer_bytes: Some(1 << 19),
        blob_threshold_bytes: 200,
        wal_segment_bytes: 1 << 18,
        ..Settings::default()
    };
    let store = Store::open(dir.path(), settings, Parts::real()).unwrap();
    let tree = store.tree("t", TreeSettings::newest_only()).unwrap();
    let value = |version: u64| version.to_be_bytes().repeat(if version.is_multiple_of(3) { 100 } else { 4 });
    let write_all = |first: u64| {
        for version in (1..=KEYS * ROUNDS).filter(|version| version % 2 == first) {
            let mut batch = Batch::new();
            if version % 7 == 0 {
                batch.delete(&tree, &key(version % KEYS), version, Attributes::default());
            } else {
                batch.put(&tree, &key(version % KEYS), version, &value(version), Attributes::default());
            }
            drop(store.write_waiting(&batch, Durability::Buffered).unwrap());
        }
    };
    let done = std::sync::atomic::AtomicBool::new(false);
    let read = || {
        let mut seen = BTreeMap::new();
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            for i in 0..KEYS {
                let Some(found) = tree.get(&key(i), &View::newest()).unwrap() else { continue };
                assert!(
                    seen.insert(i, found.version).is_none_or(|before| before <= found.version),
                    "key {i} went back"
                );
                assert!(!found.is_value() || found.value[..] == value(found.version)[..]);
            }
        }
    };
    std::thread::scope(|scope| {
        let reader = scope.spawn(read);
        // Odd and even versions of a key come from one writer each, so every key's versions rise.
        let writers = [scope.spawn(|| write_all(0)), scope.spawn(|| write_all(1))];
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap();
    });
    let newest = |i: u64| (1..=KEYS * ROUNDS).rev().find(|version| version % KEYS == i).unwrap();
    let check = || {
        for i in 0..KEYS {
            let found = tree.get(&key(i), &View::newest()).unwrap().unwrap();
            assert_eq!((found.version, found.is_value()), (newest(i), newest(i) % 7 != 0));
        }
    };
    check();
    store.flush().unwrap();
    store.compact().unwrap();
    check();
    assert_eq!(tree.stats().entries, KEYS, "one entry a key is left");
}
