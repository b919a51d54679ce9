//! Readers of bytes that may be anything, one function for each format: they answer errors and never panic. `fuzz/` runs them with libFuzzer,
//! a test of this module over the corpus and changes of it.

use crate::blob::BlobSet;
use crate::cache::{Cache, CacheSettings};
use crate::error::Result;
use crate::fs::Fs;
use crate::fs::sim::SimFs;
use crate::options::WalRetention;
use crate::record::Operations;
use crate::sst::{Access, BlobPointer, Table, TableMeta, walk_block, walk_table};
use crate::version::{BlobFile, Files, Graveyard, StoreState, decode_edit, read_manifest};
use crate::wal::{Log, LogSettings, read_whole_records};
use std::path::Path;
use std::sync::Arc;

/// A target: its name, as in `fuzz/`, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("wal", |bytes| _ = wal(bytes)),
    ("record", |bytes| _ = record(bytes)),
    ("manifest", |bytes| _ = manifest(bytes)),
    ("table", |bytes| _ = table(bytes)),
    ("block", |bytes| _ = walk_block(bytes)),
    ("blob", |bytes| _ = blob(bytes)),
];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    TARGETS.iter().filter(|(target, _)| *target == name).for_each(|(_, run)| run(bytes));
}

/// A device with one file.
fn device(path: &str, bytes: &[u8]) -> Result<SimFs> {
    let (fs, path) = (SimFs::new(1), Path::new(path));
    let io = |error| crate::Error::io("prepare", path, error);
    fs.create_dir_all(path.parent().unwrap_or(path)).map_err(io)?;
    fs.create(path).and_then(|file| file.write_at(bytes, 0)).map_err(io)?;
    Ok(fs)
}

/// A log of one segment: read around damage, then recovered.
fn wal(bytes: &[u8]) -> Result<u64> {
    let (fs, dir) = (device("/wal/000000000001.wal", bytes)?, Path::new("/wal"));
    let mut records = 0;
    read_whole_records(&fs, dir, 1, &mut |_, _| records += 1)?;
    let settings = LogSettings {
        segment_bytes: 8192,
        buffer_bytes_max: 1024,
        retention: WalRetention::Freed,
        needed_from: 1,
        reaches: 0,
        begins_at: 1,
    };
    let (_, recovered) = Log::open(Arc::new(fs), dir, &settings, &mut |_, _| Ok(()))?;
    Ok(records + recovered.records)
}

/// A batch as it stands in the log.
fn record(bytes: &[u8]) -> Result<usize, &'static str> {
    let mut operations = 0;
    for operation in Operations::new(bytes) {
        operation?;
        operations += 1;
    }
    Ok(operations)
}

/// A manifest, and the same bytes as the body of one edit: no checksum is in the way there.
fn manifest(bytes: &[u8]) -> Result<StoreState, String> {
    let name = "MANIFEST-000001";
    let fs = device(&format!("/{name}"), bytes).map_err(|error| error.to_string())?;
    let current = format!("{name} {:08x}\n", crc32c::crc32c(name.as_bytes()));
    let written = fs.create(Path::new("/CURRENT")).and_then(|file| file.write_at(current.as_bytes(), 0));
    written.map_err(|error| error.to_string())?;
    let mut state = StoreState::default();
    let stored = read_manifest(&fs, Path::new("/")).ok().flatten().map(|stored| stored.changes);
    for change in stored.into_iter().flatten().chain(decode_edit(bytes).into_iter().flatten()) {
        state.apply(change)?;
    }
    Ok(state)
}

fn files(fs: SimFs) -> Arc<Files> {
    let cache = CacheSettings { bytes_max: 1 << 20, open_files_max: 4 };
    Arc::new(Files {
        fs: Arc::new(fs),
        cache: Arc::new(Cache::new(cache)),
        tables_dir: "/tables".into(),
        blobs_dir: "/blobs".into(),
        graveyard: Graveyard::default(),
    })
}

/// A table.
fn table(bytes: &[u8]) -> Result<usize> {
    let files = files(device("/tables/000000000001.sst", bytes)?);
    let path = files.table_path(1);
    let meta = TableMeta::of_file(&*files.fs, &path, 1)?;
    walk_table(&Table::open(Arc::clone(&files.fs), &path, meta, &files.cache)?)
}

/// A blob file, read at a place that its last bytes name.
fn blob(bytes: &[u8]) -> Result<usize> {
    let files = files(device("/blobs/000000000001.blob", bytes)?);
    let meta = BlobFile::of_file(&*files.fs, &files.blob_path(1), 1)?;
    let number = |at: usize| {
        bytes.len().checked_sub(at).and_then(|at| bytes.get(at)).map_or(0, |&byte| u64::from(byte))
    };
    let pointer = BlobPointer { file: 1, offset: number(1), stored_bytes: number(2), value_bytes: number(3) };
    let blobs = BlobSet::new(&files, std::iter::once(meta));
    let value = blobs.read(&pointer.encode(), b"key", number(4), Access::Wait)?;
    Ok(value.map_or(0, |value| value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::sim::Dice;
    use crate::{Attributes, Batch, Durability, Parts, Settings, Store, SystemClock, TreeSettings};
    use std::path::PathBuf;

    /// Changes of each file of the corpus that are tried; `SEEDS=n` tries more.
    const CHANGES: u64 = 1000;

    fn corpus(target: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
    }

    /// Flips, overwrites, cuts, doubles: a few at once.
    fn change(bytes: &mut Vec<u8>, dice: &mut Dice) {
        for _ in 0..=dice.below(4) {
            let at = dice.index(bytes.len());
            match dice.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.extend_from_within(at..),
                2 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][dice.index(5)],
                _ if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
                _ => bytes.push(dice.next_u64() as u8),
            }
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic() {
        let changes = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(CHANGES);
        for (name, run) in TARGETS {
            let mut seeds: Vec<_> = std::fs::read_dir(corpus(name)).expect("a corpus").collect();
            assert!(!seeds.is_empty(), "{name} has no corpus");
            seeds.sort_by_key(|seed| seed.as_ref().map(std::fs::DirEntry::path).ok());
            for seed in seeds {
                let bytes = std::fs::read(seed.expect("a name").path()).expect("a file");
                run(&bytes);
                for number in 0..changes {
                    let mut changed = bytes.clone();
                    change(&mut changed, &mut Dice::new(number));
                    run(&changed);
                }
            }
        }
    }

    #[test]
    fn the_corpus_is_what_the_readers_read() {
        let first = |name| std::fs::read(corpus(name).join("whole")).expect("a file");
        assert!(wal(&first("wal")).expect("a log") > 10);
        assert!(record(&first("record")).expect("a batch") > 2);
        assert!(!manifest(&first("manifest")).expect("a manifest").trees.is_empty());
        assert!(table(&first("table")).expect("a table") > 10);
        assert!(walk_block(&first("block")).is_ok_and(|entries| entries > 2));
    }

    /// Writes the corpus anew: `cargo test -p kvorum-engine write_corpus -- --ignored`.
    #[test]
    #[ignore = "it writes into the repository"]
    fn write_corpus() {
        let fs = SimFs::new(7);
        let mut settings = Settings::default();
        (settings.memory_bytes, settings.write_buffer_bytes) = (1 << 20, Some(64 << 10));
        (settings.wal_segment_bytes, settings.blob_threshold_bytes) = (8 << 10, 64);
        (settings.compression, settings.background_threads) = (false, false);
        let parts = Parts::new(Arc::new(fs.clone()), Arc::new(SystemClock::new()));
        let store = Store::open("/store", settings, parts).unwrap();
        let tree = store.tree("tree", TreeSettings::with_history()).unwrap();
        let mut last = Vec::new();
        for version in 1..=20_u64 {
            let mut batch = Batch::new();
            let value = vec![version as u8; if version.is_multiple_of(7) { 100 } else { 5 }];
            batch.put(
                &tree,
                &version.to_be_bytes(),
                version,
                &value,
                Attributes { expires_at: Some(9), tag: 1 },
            );
            batch.delete(&tree, b"gone", version, Attributes::default());
            batch.note(&tree, version, b"note");
            last.clone_from(&batch.record);
            store.write(&batch, Durability::Synced).unwrap().wait().unwrap();
        }
        store.flush().unwrap();
        store.close().unwrap();
        let keep = |target: &str, bytes: &[u8]| {
            std::fs::create_dir_all(corpus(target)).unwrap();
            std::fs::write(corpus(target).join("whole"), bytes).unwrap();
        };
        for (path, _) in fs.files() {
            let mut bytes = fs.bytes(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match path.extension().and_then(|end| end.to_str()) {
                Some("wal") if bytes.iter().any(|&byte| byte != 0) => {
                    bytes.truncate(bytes.iter().rposition(|&byte| byte != 0).unwrap() + 9);
                    keep("wal", &bytes);
                }
                Some("sst") => {
                    keep("table", &bytes);
                    keep("block", &raw_block(&path, &bytes));
                }
                Some("blob") => keep("blob", &bytes),
                _ if name.starts_with("MANIFEST") => keep("manifest", &bytes),
                _ => {}
            }
        }
        keep("record", &last);
    }

    /// The first data block, unpacked.
    fn raw_block(path: &Path, bytes: &[u8]) -> Vec<u8> {
        let id = path.file_stem().unwrap().to_string_lossy().parse().unwrap();
        let found = (1..bytes.len()).find_map(|end| {
            let starts = [0, 4, 8, 12, 16, 20, 24, 28, 32];
            starts.into_iter().filter(|&start| start < end).find_map(|start| {
                crate::sst::open_block(path, id, start as u64, bytes[start..end].to_vec()).ok()
            })
        });
        found.expect("a block").to_vec()
    }
}
