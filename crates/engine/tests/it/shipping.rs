//! Trees and stores that leave as files or as changes, and arrive elsewhere.

use kvorum_engine::{
    Attributes, Batch, Delta, Direction, Durability, Error, Found, FoundKind, Parts, Settings, Store, Tree,
    TreeSettings, View,
};
use std::path::Path;

fn open(dir: &Path) -> Store {
    let mut settings = Settings::default();
    settings.memory_bytes = 16 << 20;
    settings.wal_segment_bytes = 1 << 20;
    settings.blob_threshold_bytes = 512;
    Store::open(dir, settings, Parts::real()).expect("the store opens")
}

fn write(store: &Store, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    fill(&mut batch);
    store.write(&batch, Durability::Written).expect("taken").wait().expect("written");
}

fn put(store: &Store, tree: &Tree, key: &str, version: u64, value: &str) {
    write(store, |batch| batch.put(tree, key.as_bytes(), version, value.as_bytes(), Attributes::default()));
}

fn rows(tree: &Tree, view: &View<'_>) -> Vec<(String, u64, Vec<u8>)> {
    let range =
        tree.range(.., view, Direction::Forward).expect("a range").map(|pair| pair.expect("readable"));
    range
        .map(|(key, f)| (String::from_utf8(key.to_vec()).expect("text"), f.version, f.value.to_vec()))
        .collect()
}

/// A tree with some of everything, up to version 40.
fn fill(store: &Store) -> Tree {
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    for i in 0..20_u64 {
        put(
            store,
            &tree,
            &format!("k{:02}", i % 10),
            i + 1,
            &format!("value {i} ").repeat(if i % 3 == 0 { 200 } else { 1 }),
        );
        if i % 7 == 0 {
            store.flush().expect("flushed");
        }
    }
    write(store, |batch| batch.delete(&tree, b"k03", 30, Attributes::default()));
    write(store, |batch| {
        batch.put(&tree, b"k04", 31, b"pending", Attributes::default());
        batch.put(&tree, b"k05", 31, b"pending", Attributes::default());
    });
    write(store, |batch| batch.retract(&tree, b"k05", 31));
    tree
}

fn carry_out(delta: Delta, store: &Store, tree: &Tree) {
    write(store, |batch| delta.clears().iter().for_each(|&version| batch.clear(tree, version)));
    for entry in delta {
        let e = entry.expect("readable");
        let attributes = Attributes { expires_at: e.expires_at, tag: e.tag };
        write(store, |batch| match e.kind {
            FoundKind::Value => batch.put(tree, &e.key, e.version, &e.value, attributes),
            FoundKind::Tombstone => batch.delete(tree, &e.key, e.version, attributes),
        });
    }
}

#[test]
fn a_delta_brings_a_copy_up_to_date() {
    let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (source, target) = (open(from.path()), open(to.path()));
    let tree = fill(&source);
    let copy = target.tree("copy", TreeSettings::default()).expect("a tree");
    carry_out(tree.delta(0, &View::at(12)).expect("a delta"), &target, &copy);
    assert_eq!(rows(&copy, &View::newest()), rows(&tree, &View::at(12)));
    put(&source, &tree, "late", 13, "arrives later than 31");
    carry_out(tree.delta(12, &View::newest().hiding(&[31])).expect("a delta"), &target, &copy);
    assert_eq!(rows(&copy, &View::newest()), rows(&tree, &View::newest().hiding(&[31])));
    write(&source, |batch| batch.clear(&tree, 50));
    put(&source, &tree, "after", 51, "after");
    let delta = tree.delta(31, &View::newest()).expect("a delta");
    assert_eq!(delta.clears(), [50]);
    carry_out(delta, &target, &copy);
    assert_eq!(rows(&copy, &View::newest()), [("after".to_owned(), 51, b"after".to_vec())]);
}

#[test]
fn files_are_taken_in_up_to_a_ceiling() {
    let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (source, target) = (open(from.path()), open(to.path()));
    let tree = fill(&source);
    let exported = tree.export(from.path().join("out")).expect("exported");
    assert!(
        exported.files.iter().any(|(path, _)| path.extension().is_some_and(|e| e == "blob")),
        "values stand apart"
    );
    let files: Vec<_> = exported.files.into_iter().map(|(path, _)| path).collect();
    let copy = target.tree("copy", TreeSettings::default()).expect("a tree");
    // What was there before, and what comes after, below and above.
    put(&target, &copy, "k01", 3, "older than the files");
    put(&target, &copy, "own", 100, "its own");
    copy.ingest(&files, 30).expect("taken in");
    put(&target, &copy, "k02", 5, "late");
    put(&target, &copy, "k06", 60, "newer");
    let mut expected = rows(&tree, &View::at(30));
    expected.retain(|(key, ..)| key != "k06");
    expected.push(("k06".into(), 60, b"newer".to_vec()));
    expected.push(("own".into(), 100, b"its own".to_vec()));
    expected.sort();
    assert_eq!(rows(&copy, &View::newest()), expected);
    for (key, version, value) in &expected {
        let found = copy
            .get(key.as_bytes(), &View::newest())
            .expect("readable")
            .filter(Found::is_value)
            .expect("there");
        assert_eq!((found.version, found.value.to_vec()), (*version, value.clone()));
    }
    target.flush().expect("flushed");
    target.compact().expect("compacted");
    assert_eq!(rows(&copy, &View::newest()), expected);
    assert!(target.verify().expect("readable").is_clean());
    drop((copy, target));
    let target = open(to.path());
    assert_eq!(rows(&target.find_tree("copy").expect("a tree"), &View::newest()), expected);
}

#[test]
fn a_table_without_its_blobs_is_refused_and_leaves_nothing() {
    let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (source, target) = (open(from.path()), open(to.path()));
    let exported = fill(&source).export(from.path().join("out")).expect("exported");
    let tables: Vec<_> = exported
        .files
        .into_iter()
        .map(|(path, _)| path)
        .filter(|p| p.extension().is_some_and(|e| e == "sst"))
        .collect();
    let copy = target.tree("copy", TreeSettings::default()).expect("a tree");
    assert!(matches!(copy.ingest(&tables, 100), Err(Error::Invalid(_))));
    assert_eq!(rows(&copy, &View::newest()), []);
    assert_eq!(std::fs::read_dir(to.path().join("tables")).expect("a folder").count(), 0);
}

#[test]
fn a_checkpoint_opens_as_a_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir.path().join("store"));
    let tree = fill(&store);
    let snapshot = store.snapshot();
    put(&store, &tree, "k07", 40, "seen by no snapshot");
    let target = dir.path().join("checkpoint");
    let checkpoint = store.checkpoint(&target).expect("a checkpoint");
    assert!(!checkpoint.files.is_empty());
    let expected = rows(&tree, &View::newest());
    assert!(matches!(store.checkpoint(&target), Err(Error::Invalid(_))), "the folder is not empty");
    put(&store, &tree, "k08", 41, "not in the checkpoint");
    drop((snapshot, tree, store));
    for round in 0..3 {
        let copy = open(&target);
        let tree = copy.find_tree("t").expect("a tree");
        assert_eq!(rows(&tree, &View::newest()).len(), expected.len() + round);
        assert!(rows(&tree, &View::newest()).starts_with(&expected));
        assert!(copy.verify().expect("readable").is_clean());
        assert!(copy.visible() >= checkpoint.sequence);
        put(&copy, &tree, &format!("z{round}"), 100, "goes on");
        if round == 1 {
            copy.flush().expect("flushed");
        }
    }
}

#[test]
fn a_checkpoint_takes_no_log_of_another_store() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir.path().join("store"));
    let tree = fill(&store);
    let target = dir.path().join("checkpoint");
    store.checkpoint(&target).expect("a checkpoint");
    for round in 0..20 {
        put(&store, &tree, &format!("later{round}"), 100, "not in the checkpoint");
    }
    drop((tree, store));
    let mut settings = Settings::default();
    settings.wal_dir = Some(dir.path().join("store/wal"));
    let refused = Store::open(&target, settings, Parts::real()).expect_err("a refusal");
    assert!(refused.to_string().contains("the log of another store"), "{refused}");
    let copy = open(&target);
    let tree = copy.find_tree("t").expect("a tree");
    assert!(rows(&tree, &View::newest()).iter().all(|row| !format!("{row:?}").contains("later")));
}

#[test]
fn verify_tells_of_flipped_bytes_and_reused_versions() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let tree = fill(&store);
    put(&store, &tree, "k01", 12, "another value of the same version");
    store.flush().expect("flushed");
    let verified = store.verify().expect("readable");
    assert_eq!(verified.reused_versions, [(b"k01".to_vec().into(), 12)]);
    assert_eq!(verified.damage_count, 0);
    let table = std::fs::read_dir(dir.path().join("tables"))
        .expect("a folder")
        .next()
        .expect("a table")
        .expect("readable")
        .path();
    let mut bytes = std::fs::read(&table).expect("readable");
    bytes[20] ^= 1;
    std::fs::write(&table, bytes).expect("writable");
    assert!(!store.verify().expect("readable").damages.is_empty());
}

#[test]
fn what_arrives_stands_between_what_was_and_what_comes_also_after_compactions_and_a_restart() {
    let (theirs, ours) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (source, target) = (open(theirs.path()), open(ours.path()));
    // Their log counts far more writes than ours.
    let from = source.tree("t", TreeSettings::default()).expect("a tree");
    for version in 1..=40 {
        put(&source, &from, "busy", version, "theirs");
    }
    // So that their tables keep sequences, which mean nothing here.
    let held = source.snapshot();
    put(&source, &from, "high", 90, "theirs");
    put(&source, &from, "low", 5, "theirs");
    let exported = from.export(theirs.path().join("out")).expect("exported");
    let files: Vec<_> = exported.files.iter().map(|(path, _)| path.clone()).collect();
    drop(held);
    let to = target.tree("t", TreeSettings::default()).expect("a tree");
    put(&target, &to, "high", 50, "ours before");
    put(&target, &to, "low", 50, "ours before");
    to.ingest(&files, u64::MAX).expect("taken in");
    for round in 0..9 {
        put(&target, &to, "high", 60 + round, "ours after");
        put(&target, &to, "low", 60 + round, "ours after");
        target.flush().expect("flushed");
    }
    let check = |to: &Tree| {
        let newest =
            |key: &str| to.get(key.as_bytes(), &View::default()).expect("readable").expect("there").version;
        assert_eq!((newest("busy"), newest("high"), newest("low")), (40, 90, 68));
        let at = |key: &str, at| to.get(key.as_bytes(), &View::at(at)).expect("readable").map(|f| f.version);
        assert_eq!(
            (at("low", 49), at("low", 59), at("high", 89), at("busy", 7)),
            (Some(5), Some(50), Some(68), Some(7))
        );
        assert_eq!(rows(to, &View::default()).len(), 3);
    };
    check(&to);
    target.compact().expect("compacted");
    check(&to);
    drop(to);
    target.close().expect("closed");
    drop(target);
    let target = open(ours.path());
    let to = target.find_tree("t").expect("the tree");
    check(&to);
    target.compact().expect("compacted");
    check(&to);
}

#[test]
fn what_came_as_files_goes_on_as_files() {
    let dirs: Vec<_> = (0..5).map(|_| tempfile::tempdir().expect("a folder")).collect();
    let first = open(dirs[0].path());
    let tree = fill(&first);
    let out = dirs[3].path().join("out");
    let files: Vec<_> =
        tree.export(&out).expect("exported").files.into_iter().map(|(path, _)| path).collect();

    // The numbers of its own files are those of other files there.
    let second = open(dirs[1].path());
    let copy = second.tree("copy", TreeSettings::default()).expect("a tree");
    for version in 50..53 {
        put(&second, &copy, "own", version, &"x".repeat(5000));
        second.flush().expect("flushed");
    }
    copy.ingest(&files, 30).expect("taken in");
    put(&second, &copy, "later", 60, "after");

    let again = dirs[4].path().join("again");
    let files: Vec<_> =
        copy.export(&again).expect("exported").files.into_iter().map(|(path, _)| path).collect();
    let third = open(dirs[2].path());
    let copied = third.tree("copied", TreeSettings::default()).expect("a tree");
    copied.ingest(&files, 100).expect("taken in");
    let view = View::newest();
    assert_eq!(rows(&copied, &view), rows(&copy, &view), "also what the ceiling hid is hidden still");
    assert!(rows(&copied, &view).iter().all(|(key, version, _)| *version != 31 || key == "own"));
    third.flush().expect("flushed");
    third.compact().expect("compacted");
    assert_eq!(rows(&copied, &view), rows(&copy, &view));
}
