//! What a first user of the library tries.

use kvorum_engine::{
    Attributes, Batch, Direction, Durability, Error, Found, FoundKind, Parts, Settings, Store, Tree,
    TreeSettings, View,
};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(dir.path(), Settings::default(), Parts::real()).expect("a new store");
    (dir, store)
}

fn put(store: &Store, tree: &Tree, key: &str, version: u64, value: &str) {
    let mut batch = Batch::new();
    batch.put(tree, key.as_bytes(), version, value.as_bytes(), Attributes::default());
    store.write(batch, Durability::Written).expect("taken").wait().expect("written");
}

fn value(found: Option<Found>) -> Option<String> {
    found.filter(Found::is_value).map(|f| String::from_utf8(f.value.to_vec()).expect("text"))
}

#[test]
fn the_highest_version_wins_in_whatever_order_writes_come() {
    let (_dir, store) = store();
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    put(&store, &tree, "k", 5, "five");
    put(&store, &tree, "k", 3, "three");
    assert_eq!(value(tree.get(b"k", &View::newest()).unwrap()), Some("five".into()));
    assert_eq!(value(tree.get(b"k", &View::at(4)).unwrap()), Some("three".into()));
    assert_eq!(value(tree.get(b"k", &View::newest().hiding(&[5])).unwrap()), Some("three".into()));
    assert_eq!(tree.get(b"k", &View::at(2)).unwrap(), None);
    put(&store, &tree, "k", 5, "five again");
    assert_eq!(
        value(tree.get(b"k", &View::newest()).unwrap()),
        Some("five again".into()),
        "of equal versions the later write wins"
    );
}

#[test]
fn a_snapshot_stands_still() {
    let (_dir, store) = store();
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    put(&store, &tree, "k", 1, "one");
    let snapshot = store.snapshot();
    put(&store, &tree, "k", 2, "two");
    assert_eq!(value(tree.get(b"k", &View::newest().of(&snapshot)).unwrap()), Some("one".into()));
    assert_eq!(value(tree.get(b"k", &View::newest()).unwrap()), Some("two".into()));
}

#[test]
fn a_clear_deletes_everything_but_its_own_batch() {
    let (_dir, store) = store();
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    put(&store, &tree, "a", 1, "one");
    let mut batch = Batch::new();
    batch.put(&tree, b"b", 2, b"with the clear", Attributes::default());
    batch.clear(&tree, 2);
    store.write(batch, Durability::Written).expect("taken").wait().expect("written");
    put(&store, &tree, "late", 1, "arrives after the clear");
    let gone = tree.get(b"a", &View::newest()).unwrap().expect("a clear answers as a tombstone");
    assert_eq!((gone.kind, gone.version), (FoundKind::Tombstone, 2));
    let keys: Vec<_> =
        tree.range(.., &View::newest(), Direction::Forward).unwrap().map(|r| r.unwrap().0).collect();
    assert_eq!(keys, ["b"]);
    assert_eq!(value(tree.get(b"a", &View::at(1)).unwrap()), Some("one".into()));
    let mut batch = Batch::new();
    batch.retract_clear(&tree, 2);
    store.write(batch, Durability::Written).expect("taken").wait().expect("written");
    assert_eq!(value(tree.get(b"a", &View::newest()).unwrap()), Some("one".into()));
}

#[test]
fn ranges_run_both_ways() {
    let (_dir, store) = store();
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    for (i, key) in ["a", "ab", "abc", "b", "c"].iter().enumerate() {
        put(&store, &tree, key, 10 + i as u64, key);
    }
    let mut batch = Batch::new();
    batch.delete(&tree, b"b", 20, Attributes::default());
    batch.put(&tree, b"c", 21, b"c2", Attributes::default());
    batch.retract(&tree, b"c", 21);
    store.write(batch, Durability::Written).expect("taken").wait().expect("written");
    let read = |range: kvorum_engine::Range| {
        range.map(|r| r.map(|(_, f)| value(Some(f)).unwrap()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(read(tree.range(.., &View::newest(), Direction::Forward).unwrap()), ["a", "ab", "abc", "c"]);
    assert_eq!(read(tree.range(.., &View::newest(), Direction::Backward).unwrap()), ["c", "abc", "ab", "a"]);
    assert_eq!(read(tree.prefix(b"ab", &View::newest(), Direction::Backward).unwrap()), ["abc", "ab"]);
    assert_eq!(
        read(tree.range(&b"ab"[..]..&b"b"[..], &View::newest(), Direction::Forward).unwrap()),
        ["ab", "abc"]
    );
}

#[test]
fn notes_stand_apart_from_keys() {
    let (_dir, store) = store();
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    let mut batch = Batch::new();
    batch.put(&tree, b"k", 7, b"v", Attributes::default());
    batch.note(&tree, 7, b"seven");
    batch.note(&tree, 8, b"eight");
    store.write(batch, Durability::Written).expect("taken").wait().expect("written");
    assert_eq!(tree.note(7).unwrap().as_deref(), Some(&b"seven"[..]));
    let versions: Vec<_> = tree.notes(..).unwrap().into_iter().map(|(version, _)| version).collect();
    assert_eq!(versions, [8, 7]);
    let mut batch = Batch::new();
    batch.retract_note(&tree, 8);
    store.write(batch, Durability::Written).expect("taken").wait().expect("written");
    assert_eq!(tree.note(8).unwrap(), None);
}

#[test]
fn nothing_is_written_at_or_below_the_floor() {
    let (_dir, store) = store();
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    put(&store, &tree, "k", 5, "five");
    tree.set_floor(5).unwrap();
    let mut batch = Batch::new();
    batch.put(&tree, b"k", 6, b"six", Attributes::default());
    batch.retract(&tree, b"k", 5);
    assert!(matches!(
        store.write(batch, Durability::Written),
        Err(Error::BelowFloor { version: 5, floor: 5 })
    ));
    assert!(matches!(tree.get(b"k", &View::at(4)), Err(Error::HistoryGone { asked: 4, floor: 5 })));
    assert_eq!(
        value(tree.get(b"k", &View::newest()).unwrap()),
        Some("five".into()),
        "nothing of the batch was written"
    );
}

#[test]
fn trees_are_dropped_and_swap_names() {
    let (_dir, store) = store();
    let one = store.tree("one", TreeSettings::default()).expect("a tree");
    let two = store.tree("two", TreeSettings::default()).expect("a tree");
    put(&store, &one, "k", 1, "in one");
    store.swap_trees("one", "two").unwrap();
    assert_eq!(&*one.name(), "two");
    assert_eq!(
        value(store.find_tree("two").unwrap().get(b"k", &View::newest()).unwrap()),
        Some("in one".into())
    );
    assert!(store.drop_tree("two").unwrap());
    assert!(!store.drop_tree("two").unwrap());
    let again = store.tree("two", TreeSettings::default()).expect("a tree");
    assert!(again.id() > two.id(), "ids are never reused");
    let mut batch = Batch::new();
    batch.put(&one, b"k", 2, b"", Attributes::default());
    assert!(matches!(store.write(batch, Durability::Written), Err(Error::Invalid(_))));
}

#[test]
fn trees_made_together_are_all_there_and_keep_their_ids() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(folder.path(), Settings::default(), Parts::real()).unwrap();
    let store = open();
    let old = store.tree("b", TreeSettings::default()).unwrap();
    let trees = store.trees(&["c", "a", "b", "a"], TreeSettings::default()).unwrap();
    assert_eq!(trees.iter().map(|tree| tree.name().to_string()).collect::<Vec<_>>(), ["c", "a", "b", "a"]);
    assert_eq!(trees[2].id(), old.id());
    assert_eq!(trees[1].id(), trees[3].id());
    assert_ne!(trees[0].id(), trees[1].id());
    let long = "x".repeat(256);
    assert!(store.trees(&["d", &long], TreeSettings::default()).is_err());
    assert!(store.find_tree("d").is_none(), "all or none");
    let ids: Vec<_> = trees.iter().map(|tree| tree.id()).collect();
    drop((store, old, trees));
    let store = open();
    let again = store.trees(&["c", "a", "b", "a"], TreeSettings::default()).unwrap();
    assert_eq!(again.iter().map(|tree| tree.id()).collect::<Vec<_>>(), ids);
}

#[test]
fn a_batch_is_used_again() {
    let (_dir, store) = store();
    let (one, two) = (
        store.tree("one", TreeSettings::default()).unwrap(),
        store.tree("two", TreeSettings::default()).unwrap(),
    );
    let mut batch = Batch::new();
    batch.put(&one, &[0; 70_000], 1, b"", Attributes::default());
    assert!(matches!(store.write(&batch, Durability::Written), Err(Error::TooLarge { what: "key", .. })));
    batch.reset();
    assert!(batch.is_empty());
    batch.put(&two, b"k", 9, b"v", Attributes::default());
    for _ in 0..2 {
        store.write(&batch, Durability::Written).expect("taken").wait().expect("written");
        batch.reset();
        batch.put(&one, b"k", 9, b"v", Attributes::default());
    }
    assert_eq!(value(one.get(b"k", &View::newest()).unwrap()), Some("v".into()));
    assert_eq!(value(two.get(b"k", &View::newest()).unwrap()), Some("v".into()));
}
