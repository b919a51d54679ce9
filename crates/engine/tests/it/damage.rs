//! Any byte that changes on the device is found or harmless: every byte of every file of a small store, one after the other.

use kvorum_engine::fs::sim::SimFs;
use kvorum_engine::{
    Attributes, Batch, Checked, Direction, Durability, Error, FoundKind, Parts, Result, Settings, Store,
    SystemClock, Tree, TreeSettings, View,
};
use std::path::Path;
use std::sync::Arc;

const STORE: &str = "/store";

pub(crate) fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.memory_bytes = 1 << 20;
    settings.write_buffer_bytes = Some(64 << 10);
    settings.wal_segment_bytes = 16 << 10;
    settings.blob_threshold_bytes = 64;
    settings.block_bytes = 256;
    settings.background_threads = false;
    settings
}

pub(crate) fn parts(fs: &SimFs) -> Parts {
    Parts::new(Arc::new(fs.clone()), Arc::new(SystemClock::new()))
}

fn open(fs: &SimFs) -> Result<Store> {
    Store::open(STORE, settings(), parts(fs))
}

/// A store with tables, blobs and a log that all hold something.
fn small_store() -> SimFs {
    let fs = SimFs::new(7);
    let store = open(&fs).expect("a new store");
    let one = store.tree("one", TreeSettings::with_history()).expect("a tree");
    let other = store.tree("other", TreeSettings::newest_only()).expect("a tree");
    for version in 1..=30 {
        write(&store, &one, &other, version);
        if version == 12 || version == 24 {
            store.flush().expect("it flushes");
        }
    }
    store.close().expect("it closes");
    drop((one, other));
    fs
}

pub(crate) fn write(store: &Store, one: &Tree, other: &Tree, version: u64) {
    let mut batch = Batch::new();
    let key = [b'k', (version % 7) as u8];
    let value = vec![version as u8; if version.is_multiple_of(5) { 90 } else { 10 }];
    let attributes = Attributes { expires_at: version.is_multiple_of(3).then_some(version + 1000), tag: 3 };
    batch.put(one, &key, version, &value, attributes);
    batch.put(other, &key, version, &value, attributes);
    match version % 6 {
        0 => batch.delete(one, &[b'k', (version % 4) as u8], version, Attributes::default()),
        1 => batch.retract(one, &key, version - 1),
        2 => batch.note(one, version, b"a note"),
        _ => {}
    }
    store.write(batch, Durability::Synced).expect("taken").wait().expect("synced");
}

/// All that a store answers, as text.
pub(crate) fn content(store: &Store) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for name in store.tree_names() {
        let Some(tree) = store.find_tree(&name) else { continue };
        let ats = if tree.settings().newest_only { vec![u64::MAX] } else { vec![5, 11, 23, u64::MAX] };
        for at in ats {
            let range = tree.range(.., &View::at(at), Direction::Forward)?.with_tombstones();
            for entry in range {
                let (key, found) = entry?;
                let value = (found.kind == FoundKind::Value).then(|| found.value.to_vec());
                let attributes = (found.version, value, found.expires_at, found.tag);
                lines.push(format!("{name} {at} {key:?} {attributes:?}"));
                let again = tree.get(&key, &View::at(at))?.map(|found| found.version);
                assert_eq!(again, Some(found.version), "a range and a get of {key:?}");
            }
        }
        lines.extend(
            tree.notes(..)?.into_iter().map(|(version, note)| format!("{name} note {version} {note:?}")),
        );
    }
    Ok(lines)
}

/// Opens, reads and verifies.
fn read_all(fs: &SimFs) -> Result<Vec<String>> {
    let store = open(fs)?;
    let content = content(&store)?;
    match store.verify()?.damages.into_iter().next() {
        Some(damage) => Err(damage),
        None => Ok(content),
    }
}

/// The bytes that are tried: all that are not in a long row of zeros, and some of those.
fn places(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let used = |at: usize| {
        let near = &bytes[at.saturating_sub(40)..(at + 40).min(bytes.len())];
        near.iter().any(|&byte| byte != 0)
    };
    (0..bytes.len()).filter(move |&at| used(at) || at % 509 == 0).map(|at| at as u64)
}

#[test]
fn any_flipped_byte_is_found_or_harmless() {
    let fs = small_store();
    let expected = read_all(&fs.copy()).expect("the store is whole");
    assert!(expected.len() > 25);
    let (mut found, mut harmless, mut kinds) = (0, 0, std::collections::BTreeSet::new());
    for (path, _) in fs.files() {
        let bytes = fs.bytes(&path).expect("it is listed");
        for at in places(&bytes) {
            let damaged = fs.copy();
            damaged.damage(&path, at, 1 << (at % 8)).expect("there is such a byte");
            match read_all(&damaged) {
                Ok(content) => {
                    assert!(content == expected, "unnoticed: {} at {at}", path.display());
                    harmless += 1;
                }
                Err(Error::Damaged { path: named, .. } | Error::UnknownFormat { path: named, .. }) => {
                    found += 1;
                    kinds.insert(path.extension().map(|extension| extension.to_owned()));
                    assert!(named.starts_with(STORE), "{} is named for {}", named.display(), path.display());
                }
                Err(error) => panic!("{} at {at}: {error}", path.display()),
            }
        }
    }
    println!("{found} places are guarded, {harmless} don't matter");
    assert!(found > 3000 && kinds.len() > 3, "{found} found in {kinds:?}");
}

#[test]
fn a_missing_file_is_found() {
    let fs = small_store();
    let expected = read_all(&fs.copy()).expect("the store is whole");
    for (path, _) in fs.files() {
        let cut = fs.copy();
        kvorum_engine::fs::Fs::remove(&cut, &path).expect("it is there");
        match read_all(&cut) {
            Ok(content) => assert!(content == expected, "not missed: {}", path.display()),
            Err(Error::Damaged { .. }) => {}
            Err(Error::Io { path: named, .. }) => assert_eq!(named, path),
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

#[test]
fn a_file_cut_short_is_found() {
    let fs = small_store();
    let expected = read_all(&fs.copy()).expect("the store is whole");
    for (path, len) in fs.files().into_iter().filter(|(path, _)| path != Path::new("/store/LOCK")) {
        for left in [0, 1, len / 3, len / 2, len.saturating_sub(1)] {
            let cut = fs.copy();
            let file = kvorum_engine::fs::Fs::open(&cut, &path, true).expect("it is there");
            file.set_len(left).expect("it is cut");
            match read_all(&cut) {
                Ok(content) => assert!(content == expected, "not missed: {} at {left}", path.display()),
                Err(Error::Damaged { .. } | Error::UnknownFormat { .. }) => {}
                Err(error) => panic!("{} at {left}: {error}", path.display()),
            }
        }
    }
}

#[test]
fn a_whole_store_checks_clean_and_nothing_in_it_changes() {
    let fs = small_store();
    let before: Vec<_> = fs.files().into_iter().map(|(path, _)| (fs.bytes(&path), path)).collect();
    let mut shown = Vec::new();
    let checked = kvorum_engine::check_showing(STORE, &settings(), &parts(&fs), &mut |at| shown.push(at));
    let checked = checked.expect("it can be checked");
    assert!(shown.len() > 3 && shown.is_sorted_by_key(|at| at.bytes), "{shown:?}");
    assert!(shown.iter().all(|at| at.of_bytes == checked.bytes), "{shown:?}");
    assert_eq!(shown.last().map(|at| at.bytes), Some(checked.bytes));
    assert!(checked.is_clean(), "{:?}", checked.damages);
    assert!(checked.files > 2 && checked.bytes > 500 && checked.log_records > 0, "{checked:?}");
    let after: Vec<_> = fs.files().into_iter().map(|(path, _)| (fs.bytes(&path), path)).collect();
    assert!(before == after);
}

#[test]
fn check_finds_what_reading_everything_finds_and_salvage_saves_the_rest() {
    let fs = small_store();
    let expected = read_all(&fs.copy()).expect("the store is whole");
    let (mut found, mut saved) = (0, 0);
    for (path, _) in fs.files() {
        let bytes = fs.bytes(&path).expect("it is listed");
        for at in places(&bytes).step_by(17) {
            let damaged = fs.copy();
            damaged.damage(&path, at, 1 << (at % 8)).expect("there is such a byte");
            let clean = read_all(&damaged.copy()).is_ok();
            let looked = |checked: &Checked| (checked.files, checked.bytes, checked.log_records);
            let checked = kvorum_engine::check(STORE, &settings(), &parts(&damaged));
            match &checked {
                Ok(checked) => {
                    assert_eq!(checked.is_clean(), clean, "{} at {at}: {checked:?}", path.display());
                }
                Err(error) => assert!(!clean, "{} at {at}: {error}", path.display()),
            }
            found += u64::from(!clean);
            let Ok(salvaged) = kvorum_engine::salvage(STORE, "/saved", &settings(), &parts(&damaged)) else {
                continue;
            };
            assert_eq!(salvaged.checked.is_clean(), clean, "{} at {at}", path.display());
            assert_eq!(
                checked.as_ref().ok().map(looked),
                Some(looked(&salvaged.checked)),
                "what was looked at"
            );
            let store = Store::open("/saved", settings(), parts(&damaged)).expect("what was saved opens");
            let lines = content(&store).expect("and can be read");
            let kept = expected.iter().filter(|line| lines.contains(line)).count();
            assert!(!clean || kept == expected.len(), "{} at {at}: {kept}", path.display());
            saved += u64::from(!clean && kept * 2 > expected.len());
        }
    }
    assert!(found > 200 && saved > 100, "{found} found, of {saved} more than half was saved");
}
