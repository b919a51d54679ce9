//! What a store holds is there again when it is opened again: from the log, from tables, from both.

use kvorum_engine::{
    Attributes, Batch, Direction, Durability, Error, Found, Parts, Settings, Store, Tree, TreeSettings, View,
};
use std::path::Path;

fn open(dir: &Path) -> Store {
    let settings = Settings::default();
    Store::open(dir, settings, Parts::real()).expect("the store opens")
}

fn put(store: &Store, tree: &Tree, key: &str, version: u64, value: &str) {
    let mut batch = Batch::new();
    batch.put(tree, key.as_bytes(), version, value.as_bytes(), Attributes { expires_at: Some(9), tag: 3 });
    store.write(batch, Durability::Synced).expect("taken").wait().expect("synced");
}

fn text(found: Option<Found>) -> Option<String> {
    found.filter(Found::is_value).map(|f| String::from_utf8(f.value.to_vec()).expect("text"))
}

fn all(tree: &Tree, direction: Direction) -> Vec<(String, String)> {
    let range = tree.range(.., &View::newest(), direction).expect("a range");
    let pairs = range.map(|pair| pair.expect("readable"));
    pairs
        .map(|(key, found)| {
            (String::from_utf8(key.to_vec()).expect("text"), text(Some(found)).expect("a value"))
        })
        .collect()
}

#[test]
fn from_the_log_and_from_tables() {
    let dir = tempfile::tempdir().expect("a folder");
    for round in 0..4_u64 {
        let store = open(dir.path());
        let tree = store.tree("t", TreeSettings::default()).expect("a tree");
        for i in 0..50_u64 {
            put(
                &store,
                &tree,
                &format!("k{:03}", (i * 7 + round) % 100),
                round * 100 + i,
                &format!("{round}/{i}"),
            );
        }
        if round % 2 == 1 {
            store.flush().expect("flushed");
        }
        let mut backward = all(&tree, Direction::Backward);
        backward.reverse();
        let before = all(&tree, Direction::Forward);
        assert_eq!(before, backward);
        let snapshot_of_one = tree.get(b"k000", &View::newest()).expect("readable");
        drop((store, tree));
        let store = open(dir.path());
        let tree = store.find_tree("t").expect("the tree is there");
        assert_eq!(all(&tree, Direction::Forward), before);
        let again = tree.get(b"k000", &View::newest()).expect("readable");
        assert_eq!(
            again.as_ref().map(|f| (&f.value, f.tag, f.expires_at)),
            snapshot_of_one.as_ref().map(|f| (&f.value, f.tag, f.expires_at))
        );
    }
}

#[test]
fn clears_notes_floors_and_names_come_back() {
    let dir = tempfile::tempdir().expect("a folder");
    for flush in [false, true] {
        let store = open(dir.path());
        let tree = store.tree("t", TreeSettings::default()).expect("a tree");
        let base = if flush { 100 } else { 1 };
        put(&store, &tree, "old", base, "old");
        let mut batch = Batch::new();
        batch.clear(&tree, base + 5);
        batch.put(&tree, b"with", base + 5, b"with", Attributes::default());
        batch.note(&tree, base + 5, b"note");
        store.write(&batch, Durability::Written).expect("taken").wait().expect("written");
        if flush {
            store.flush().expect("flushed");
        }
        drop((store, tree, batch));
        let store = open(dir.path());
        let tree = store.find_tree("t").expect("the tree is there");
        assert_eq!(all(&tree, Direction::Forward), [("with".to_owned(), "with".to_owned())]);
        assert_eq!(tree.note(base + 5).expect("readable").as_deref(), Some(&b"note"[..]));
        assert_eq!(text(tree.get(b"old", &View::at(base + 4)).expect("readable")), Some("old".into()));
    }
    let store = open(dir.path());
    store.tree("u", TreeSettings::newest_only()).expect("a tree");
    store.swap_trees("t", "u").expect("swapped");
    store.find_tree("u").expect("a tree").set_floor(50).expect("raised");
    store.flush().expect("flushed");
    drop(store);
    let store = open(dir.path());
    let tree = store.find_tree("u").expect("a tree");
    assert!(matches!(tree.get(b"old", &View::at(49)), Err(Error::HistoryGone { .. })));
    assert!(store.find_tree("t").expect("a tree").settings().newest_only);
    let id = tree.id();
    assert!(store.drop_tree("u").expect("dropped"));
    drop((store, tree));
    let store = open(dir.path());
    assert!(store.find_tree("u").is_none());
    assert!(store.tree("u", TreeSettings::default()).expect("a tree").id() > id);
    let tables = std::fs::read_dir(dir.path().join("tables")).expect("a folder").count();
    assert_eq!(tables, 0, "a dropped tree leaves no file");
}

#[test]
fn a_second_opener_is_kept_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    assert!(matches!(Store::open(dir.path(), Settings::default(), Parts::real()), Err(Error::Locked { .. })));
    drop(store);
    open(dir.path());
}

#[test]
fn an_unknown_format_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(open(dir.path()));
    std::fs::write(dir.path().join("FORMAT"), "kvorum store\nformat 2\n").expect("writable");
    let refused = Store::open(dir.path(), Settings::default(), Parts::real());
    assert!(matches!(refused, Err(Error::UnknownFormat { .. })), "{refused:?}");
}

#[test]
fn a_missing_table_is_an_error_and_an_orphan_is_removed() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    put(&store, &tree, "k", 1, "v");
    store.flush().expect("flushed");
    drop((store, tree));
    let tables = dir.path().join("tables");
    let table =
        std::fs::read_dir(&tables).expect("a folder").next().expect("a table").expect("readable").path();
    let orphan = tables.join("000000000009.sst");
    std::fs::copy(&table, &orphan).expect("copied");
    drop(open(dir.path()));
    assert!(!orphan.exists());
    std::fs::remove_file(&table).expect("removed");
    let refused = Store::open(dir.path(), Settings::default(), Parts::real());
    assert!(matches!(refused, Err(Error::Damaged { .. })), "{refused:?}");
}

#[test]
fn memory_stays_within_its_budget_under_load() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut settings = Settings::default();
    settings.memory_bytes = 4 << 20;
    settings.wal_segment_bytes = 1 << 20;
    let store = Store::open(dir.path(), settings.clone(), Parts::real()).expect("the store opens");
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    let mut refused = 0;
    for i in 0..20_000_u64 {
        let mut batch = Batch::new();
        batch.put(
            &tree,
            format!("key {:06}", (i * 7919) % 20_000).as_bytes(),
            i + 1,
            &[7; 100],
            Attributes::default(),
        );
        while let Err(error) = store.write(&batch, Durability::Buffered) {
            assert!(matches!(error, Error::Busy { .. }), "{error}");
            refused += 1;
            std::thread::yield_now();
        }
        assert!(tree.stats().memtable_bytes <= 2 << 20);
    }
    store.flush().expect("flushed");
    assert_eq!(tree.stats().memtable_bytes, 0);
    assert_eq!(all_keys(&tree), 20_000, "refused {refused} times");
    drop((store, tree));
    let store = Store::open(dir.path(), settings, Parts::real()).expect("the store opens");
    assert_eq!(all_keys(&store.find_tree("t").expect("a tree")), 20_000);
}

fn all_keys(tree: &Tree) -> usize {
    let range = tree.range(.., &View::newest(), Direction::Forward).expect("a range");
    range.fold(0, |count, pair| count + usize::from(pair.expect("readable").1.is_value()))
}
