//! Files of released formats, each opened by a test: what an earlier program wrote is read for ever. Tables have theirs in `sst`.

use crate::blob::{BlobStore, BlobWriter};
use crate::cache::{Cache, CacheSettings};
use crate::error::Result;
use crate::fs::{Fs, StdFs};
use crate::options::WalRetention;
use crate::sst::{Access, BlobPointer};
use crate::types::{Durability, Sequence};
use crate::version::{BlobFile, Change, Files, FloorKind, Graveyard, Manifest, read_manifest};
use crate::wal::{Log, LogSettings};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A copy: opening a log takes a lock and begins a segment.
fn copied(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn log_settings() -> LogSettings {
    LogSettings {
        segment_bytes: 8 << 10,
        buffer_bytes_max: 2 << 10,
        retention: WalRetention::All,
        needed_from: 1,
        reaches: 0,
        begins_at: 1,
    }
}

/// Over several segments, with a torn end.
fn log_records() -> Vec<(Sequence, Vec<u8>)> {
    (0..12_u8).map(|at| (1 + 2 * u64::from(at), vec![at; 10 + 100 * usize::from(at)])).collect()
}

fn open_log(dir: &Path) -> Result<Vec<(Sequence, Vec<u8>)>> {
    let mut records = Vec::new();
    let (log, _) = Log::open(Arc::new(StdFs), dir, &log_settings(), &mut |first, record| {
        records.push((first, record.to_vec()));
        Ok(())
    })?;
    drop(log);
    Ok(records)
}

#[test]
fn a_log_of_format_1_is_read() {
    let dir = copied("log-1");
    assert_eq!(open_log(dir.path()).unwrap(), log_records());
    assert_eq!(open_log(dir.path()).unwrap(), log_records(), "and read again");
}

#[test]
#[ignore = "writes the fixture that another test reads"]
fn write_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = Log::open(Arc::new(StdFs), dir.path(), &log_settings(), &mut |_, _| Ok(())).unwrap();
    for (_, record) in log_records() {
        let first = log.push(&record, 2, Durability::Synced).unwrap();
        log.commit(first + 1, Durability::Synced).wait().unwrap();
    }
    // Not closed: it ends as a killed process leaves it, with something behind that is no group.
    drop(log);
    let mut segments: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    std::fs::create_dir_all(folder("log-1")).unwrap();
    for path in segments.iter().filter(|path| path.extension().is_some_and(|end| end == "wal")) {
        std::fs::copy(path, folder("log-1").join(path.file_name().unwrap())).unwrap();
    }
}

fn manifest_changes() -> Vec<Change> {
    let blob = BlobFile { id: 5, file_bytes: 900, hash: 77, value_bytes: 800 };
    vec![
        Change::TreeCreated { tree: 1, name: "one".to_owned(), newest_only: false },
        Change::TreeCreated { tree: 2, name: "zwei".to_owned(), newest_only: true },
        Change::TreeNamed { tree: 1, name: "eins".to_owned() },
        Change::BlobAdded { tree: 1, blob },
        Change::Flushed { tree: 1, upto: 40 },
        Change::Floor { tree: 1, floor: FloorKind::History, value: 12 },
        Change::Floor { tree: 2, floor: FloorKind::Gc, value: 3 },
        Change::NeededFrom { sequence: 41 },
        Change::NextIds { file: 70, tree: 3 },
    ]
}

#[test]
fn manifests_of_format_1_are_read_with_copies_and_without() {
    for name in ["manifest-1", "manifest-1-single"] {
        let stored = read_manifest(&StdFs, &folder(name)).unwrap().unwrap();
        assert_eq!((stored.number, stored.changes), (9, manifest_changes()), "{name}");
    }
}

#[test]
#[ignore = "writes the fixture that another test reads"]
fn write_the_manifest() {
    let dir = folder("manifest-1");
    std::fs::create_dir_all(&dir).unwrap();
    let changes = manifest_changes();
    let mut manifest = Manifest::create(&StdFs, &dir, 9, &changes[..2]).unwrap();
    manifest.append(&changes[2..5]).unwrap();
    manifest.append(&changes[5..]).unwrap();
}

/// Key, version, value.
fn blob_values() -> Vec<(&'static [u8], u64, Vec<u8>)> {
    vec![
        (b"plain", 1, (0..=255).collect()),
        (b"packed", u64::MAX, vec![7; 9_000]),
        (b"", 3, b"of the empty key".to_vec()),
    ]
}

/// What the writer answered for the fixture.
fn blob_pointers() -> Vec<BlobPointer> {
    let pointer =
        |offset, stored_bytes, value_bytes| BlobPointer { file: 4, offset, stored_bytes, value_bytes };
    vec![pointer(28, 265, 256), pointer(293, 56, 9_000), pointer(349, 25, 16)]
}

#[test]
fn a_blob_file_of_format_1_is_read() {
    let fs: Arc<dyn Fs> = Arc::new(StdFs);
    let files = Arc::new(Files {
        cache: Arc::new(Cache::new(CacheSettings { bytes_max: 1 << 20, open_files_max: 4 })),
        tables_dir: folder("blob-1"),
        blobs_dir: folder("blob-1"),
        graveyard: Graveyard::default(),
        fs: Arc::clone(&fs),
    });
    let path = files.blob_path(4);
    let store = BlobStore::new(&files, BlobFile::of_file(&*fs, &path, 4).unwrap());
    for ((key, version, value), pointer) in blob_values().iter().zip(blob_pointers()) {
        let read = store.read(&pointer, key, *version, Access::Wait).unwrap().unwrap();
        assert_eq!(&read[..], value);
        assert!(store.read(&BlobPointer { offset: 30, ..pointer }, key, *version, Access::Wait).is_err());
    }
}

#[test]
#[ignore = "writes the fixture that another test reads"]
fn write_the_blobs() {
    let dir = folder("blob-1");
    std::fs::create_dir_all(&dir).unwrap();
    let fs: Arc<dyn Fs> = Arc::new(StdFs);
    let mut writer = BlobWriter::new(&fs, &dir.join("000000000004.blob"), 4, true).unwrap();
    for (key, version, value) in blob_values() {
        println!("{:?}", writer.add(key, version, &value).unwrap());
    }
    writer.finish().unwrap();
}
