//! Values apart from their keys: records, damage, and what stores do with them.

use super::format::{HEAD_BYTES, RecordSealer, check_head, encode_head, open_record};
use crate::batch::{Attributes, Batch};
use crate::error::{Error, Result};
use crate::options::{Parts, Settings, TreeSettings};
use crate::store::Store;
use crate::tree::Tree;
use crate::types::Durability;
use crate::view::{Cached, Direction, View};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn settings(threshold: u64) -> Settings {
    Settings {
        memory_bytes: 4 << 20,
        write_buffer_bytes: Some(1 << 20),
        blob_threshold_bytes: threshold,
        wal_segment_bytes: 1 << 16,
        background_threads: false,
        ..Settings::default()
    }
}

fn open(path: &Path, threshold: u64) -> Store {
    Store::open(path, settings(threshold), Parts::real()).unwrap()
}

fn write(store: &Store, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    fill(&mut batch);
    store.write(batch, Durability::Buffered).unwrap().wait().unwrap();
}

fn put(store: &Store, tree: &Tree, key: &str, version: u64, value: &[u8]) {
    write(store, |batch| batch.put(tree, key.as_bytes(), version, value, Attributes::default()));
}

fn get(tree: &Tree, key: &str) -> Option<Vec<u8>> {
    tree.get(key.as_bytes(), &View::newest()).unwrap().map(|found| found.value.to_vec())
}

fn blobs(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(path.join("blobs")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

fn bytes(files: &[PathBuf]) -> u64 {
    files.iter().map(|file| file.metadata().unwrap().len()).sum()
}

/// Bytes that compression does nothing to.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

proptest! {
    #[test]
    fn records_come_back_and_no_flip_passes(
        key: Vec<u8>, version: u64, value in proptest::collection::vec(0u8..3, 0..400), offset in 28u64..1000,
        at: prop::sample::Index, bit in 0..8,
    ) {
        let path = Path::new("b.blob");
        for compress in [false, true] {
            let mut record = Vec::new();
            RecordSealer::new(compress).seal(&key, version, &value, offset, &mut record);
            let len = value.len() as u64;
            prop_assert_eq!(&open_record(path, offset, (&key, version), len, record.clone()).unwrap()[..], &value[..]);
            prop_assert!(open_record(path, offset, (&key, version ^ 1), len, record.clone()).is_err());
            prop_assert!(open_record(path, offset + 1, (&key, version), len, record.clone()).is_err());
            prop_assert!(open_record(path, offset, (&key, version), len + 1, record.clone()).is_err());
            prop_assert!(open_record(path, offset, (&[&key[..], b"x"].concat(), version), len, record.clone()).is_err());
            let at = at.index(record.len());
            record[at] ^= 1u8 << bit;
            prop_assert!(open_record(path, offset, (&key, version), len, record).is_err());
        }
    }

    #[test]
    fn any_bytes_are_refused_without_panic(bytes: Vec<u8>, len: u64) {
        prop_assert!(open_record(Path::new("b"), 30, (b"k", 1), len, bytes.clone()).is_err());
        prop_assert!(check_head(Path::new("b"), &bytes).is_err());
    }
}

#[test]
fn a_head_of_another_format_is_named() {
    let head = encode_head(7);
    assert_eq!(head.len(), HEAD_BYTES);
    check_head(Path::new("b"), &head).unwrap();
    for at in 0..head.len() {
        let mut flipped = head.clone();
        flipped[at] ^= 4;
        assert!(check_head(Path::new("b"), &flipped).is_err(), "byte {at}");
    }
}

#[test]
fn every_threshold_works() {
    for threshold in [0, 1, 100, u64::MAX] {
        let dir = TempDir::new().unwrap();
        let store = open(dir.path(), threshold);
        let tree = store.tree("t", TreeSettings::newest_only()).unwrap();
        for (i, len) in [0, 1, 99, 100, 5000].into_iter().enumerate() {
            put(&store, &tree, &format!("k{i}"), 1 + i as u64, &noise(len, 1));
        }
        store.flush().unwrap();
        let apart = [0, 1, 99, 100, 5000].into_iter().filter(|&len| len >= threshold).count();
        assert_eq!(blobs(dir.path()).len(), usize::from(apart > 0));
        store.compact().unwrap();
        drop(tree);
        store.close().unwrap();
        drop(store);
        let tree = open(dir.path(), threshold).find_tree("t").unwrap();
        for (i, len) in [0, 1, 99, 100, 5000].into_iter().enumerate() {
            assert_eq!(get(&tree, &format!("k{i}")), Some(noise(len, 1)));
        }
        let rows: Vec<_> =
            tree.range(.., &View::newest(), Direction::Backward).unwrap().map(Result::unwrap).collect();
        assert_eq!(
            rows.iter().map(|(_, found)| found.value.len()).collect::<Vec<_>>(),
            [5000, 100, 99, 1, 0]
        );
    }
}

#[test]
fn the_version_is_told_without_reading_the_value() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1000);
    let tree = store.tree("t", TreeSettings::newest_only()).unwrap();
    put(&store, &tree, "k", 7, &noise(5000, 1));
    store.flush().unwrap();
    std::fs::write(&blobs(dir.path())[0], b"").unwrap();
    assert_eq!(tree.version_of(b"k", &View::newest()).unwrap().unwrap().version, 7);
    let keys = tree.range(.., &View::newest(), Direction::Forward).unwrap().keys_only();
    assert_eq!(keys.map(Result::unwrap).count(), 1);
    assert!(matches!(tree.get(b"k", &View::newest()), Err(Error::Damaged { .. })));
}

#[test]
fn every_flipped_byte_of_a_blob_file_is_found() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 10);
    let tree = store.tree("t", TreeSettings::newest_only()).unwrap();
    (0..3).for_each(|i| {
        put(&store, &tree, &format!("k{i}"), 1, format!("value {i}, value {i}, value {i}").as_bytes());
    });
    store.flush().unwrap();
    drop(tree);
    store.close().unwrap();
    drop(store);
    let path = &blobs(dir.path())[0];
    let whole = std::fs::read(path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        std::fs::write(path, bytes).unwrap();
        let tree = open(dir.path(), 10).find_tree("t").unwrap();
        let read: Result<Vec<_>> = tree.range(.., &View::newest(), Direction::Forward).unwrap().collect();
        match read {
            Err(Error::Damaged { path: found, .. }) => assert_eq!(found, *path),
            Err(Error::UnknownFormat { .. }) => {}
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn dead_values_give_their_space_back_and_snapshots_keep_theirs() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1000);
    let tree = store.tree("t", TreeSettings::newest_only()).unwrap();
    let mut version = 0;
    let mut round = |seed: u64, step: usize| {
        for i in (0..100).step_by(step) {
            version += 1;
            put(&store, &tree, &format!("k{i:03}"), version, &noise(2000, seed + i as u64));
        }
        store.flush().unwrap();
    };
    round(0, 1);
    let snapshot = store.snapshot();
    (1..10).for_each(|seed| round(seed * 1000, 1 + seed as usize % 3));
    store.compact().unwrap();
    for i in 0..100 {
        let seen = tree.get(format!("k{i:03}").as_bytes(), &View::newest().of(&snapshot)).unwrap().unwrap();
        assert_eq!(&seen.value[..], &noise(2000, i));
    }
    drop(snapshot);
    round(20_000, 2);
    store.compact().unwrap();
    let files = blobs(dir.path());
    assert!(
        bytes(&files) < 100 * 2009 * 8 / 5,
        "{} bytes in {} files for 100 values",
        bytes(&files),
        files.len()
    );
    for i in (0..100).step_by(2) {
        assert_eq!(get(&tree, &format!("k{i:03}")), Some(noise(2000, 20_000 + i)));
    }
    write(&store, |batch| batch.clear(&tree, 100_000));
    store.flush().unwrap();
    tree.set_tombstone_floor(100_000).unwrap();
    store.compact().unwrap();
    assert!(blobs(dir.path()).is_empty(), "no table points at a value any more");
}

#[test]
fn a_value_being_read_outlives_its_file_s_removal() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1000);
    let tree = store.tree("t", TreeSettings::newest_only()).unwrap();
    (0..50).for_each(|i| put(&store, &tree, &format!("k{i:03}"), 1, &noise(2000, i)));
    store.flush().unwrap();
    let mut range = tree.range(.., &View::newest(), Direction::Forward).unwrap();
    assert_eq!(&range.next().unwrap().unwrap().1.value[..], &noise(2000, 0));
    // Enough tables that level 0 goes down.
    for version in 2..10 {
        (0..50).for_each(|i| put(&store, &tree, &format!("k{i:03}"), version, b"small"));
        store.flush().unwrap();
    }
    store.compact().unwrap();
    assert_eq!(blobs(dir.path()).len(), 1, "the range still reads it");
    assert_eq!(&range.last().unwrap().unwrap().1.value[..], &noise(2000, 49));
    store.compact().unwrap();
    assert!(blobs(dir.path()).is_empty());
}

#[test]
fn a_separated_value_is_answered_from_memory_once_it_was_read() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path(), 1000);
    let tree = store.tree("t", TreeSettings::newest_only()).unwrap();
    put(&store, &tree, "k", 7, &noise(2000, 1));
    store.flush().unwrap();
    assert!(
        matches!(tree.get_cached(b"k", &View::newest()).unwrap(), Cached::WouldRead),
        "no file is open yet"
    );
    assert_eq!(get(&tree, "k"), Some(noise(2000, 1)));
    let Cached::Ready(Some(found)) = tree.get_cached(b"k", &View::newest()).unwrap() else {
        panic!("it was read")
    };
    assert_eq!(&found.value[..], &noise(2000, 1));
}
