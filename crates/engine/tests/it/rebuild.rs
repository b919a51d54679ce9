//! A log that is kept whole is enough: the data folder may be lost.

use crate::damage::{content, parts, settings, write};
use kvorum_engine::fs::Fs;
use kvorum_engine::fs::sim::SimFs;
use kvorum_engine::{Error, Settings, Store, TreeSettings, View, WalRetention, rebuild};
use std::path::Path;

fn archived() -> Settings {
    let mut settings = settings();
    settings.wal_retention = WalRetention::All;
    settings.wal_dir = Some("/log".into());
    settings
}

/// Two lives with flushes, a swap and a drop; what the store holds in the end.
fn live(fs: &SimFs) -> Vec<String> {
    for life in 0..2 {
        let store = Store::open("/store", archived(), parts(fs)).expect("the store opens");
        let one = store.tree("one", TreeSettings::with_history()).expect("a tree");
        let other = store.tree("other", TreeSettings::newest_only()).expect("a tree");
        let gone = store.tree("gone", TreeSettings::with_history()).expect("a tree");
        for version in 1..=20 {
            write(&store, &one, &other, life * 20 + version);
            write(&store, &gone, &other, life * 20 + version);
            if version % 8 == 0 {
                store.flush().expect("it flushes");
                store.compact().expect("it compacts");
            }
        }
        assert!(store.drop_tree("gone").expect("it is dropped"));
        store.tree("last", TreeSettings::with_history()).expect("a tree");
        store.swap_trees("one", "last").expect("they are swapped");
        store.swap_trees("one", "last").expect("and back");
        if life == 1 {
            store.swap_trees("one", "last").expect("they are swapped");
            let lines = content(&store).expect("it can be read");
            let last = store.find_tree("last").expect("the tree is there");
            last.set_floor(4).expect("raised");
            store.close().expect("it closes");
            return lines;
        }
        store.close().expect("it closes");
    }
    Vec::new()
}

#[test]
fn a_lost_data_folder_is_rebuilt_from_the_log() {
    let fs = SimFs::new(3);
    let expected = live(&fs);
    assert!(expected.len() > 25);
    for (path, _) in fs.files().into_iter().filter(|(path, _)| path.starts_with("/store")) {
        fs.remove(&path).expect("it is removed");
    }
    let rebuilt = rebuild("/log", "/new", &settings(), &parts(&fs)).expect("it is rebuilt");
    assert!(rebuilt.checked.is_clean() && rebuilt.operations > 100, "{rebuilt:?}");
    assert_eq!(rebuilt.checked.log_records, 80, "each batch is a record");
    let store = Store::open("/new", settings(), parts(&fs)).expect("it opens");
    assert_eq!(content(&store).expect("it can be read"), expected);
    let tree = store.find_tree("last").expect("the tree is there");
    let below = tree.get(b"k", &View::at(3));
    assert!(matches!(below, Err(Error::HistoryGone { floor: 4, .. })), "its floor came back: {below:?}");
    let again = rebuild("/log", "/new", &settings(), &parts(&fs));
    assert!(matches!(again, Err(Error::Invalid(_))), "a folder that holds something is left alone");
}

#[test]
fn an_empty_data_folder_beside_a_log_is_not_taken_for_a_new_store() {
    let fs = SimFs::new(3);
    live(&fs);
    for (path, _) in fs.files().into_iter().filter(|(path, _)| path.starts_with("/store")) {
        fs.remove(&path).expect("it is removed");
    }
    let refused = Store::open("/store", archived(), parts(&fs)).expect_err("records without a manifest");
    assert!(matches!(refused, Error::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains("kvorum check /log --rebuild"), "{refused}");
    assert!(fs.exists(Path::new("/log/CURRENT")).expect("a look"));
}
