//! A batch over several trees is seen whole or not at all, by readers that look while it is written.

use kvorum_engine::fs::sim::SimFs;
use kvorum_engine::{
    Attributes, Batch, Durability, Error, Parts, Settings, Store, SystemClock, TreeSettings, View,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Operations between those that the readers compare: time to look.
const BETWEEN: u64 = 50;

/// Writes so many batches while somebody reads; whether half a batch was seen. `begin` runs on the writing thread.
pub(crate) fn half_a_batch_is_seen(batches: u64, begin: impl FnOnce() + Send) -> bool {
    let parts = Parts::new(Arc::new(SimFs::new(1)), Arc::new(SystemClock::new()));
    let mut settings = Settings::default();
    settings.background_threads = false;
    let store = Store::open("/store", settings, parts).expect("a new store");
    let [first, last] =
        ["first", "last"].map(|name| store.tree(name, TreeSettings::default()).expect("a tree"));
    let (done, seen) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            begin();
            for version in 1..=batches {
                let mut batch = Batch::new();
                batch.put(&first, b"key", version, b"", Attributes::default());
                for between in 0..BETWEEN {
                    batch.put(&first, &between.to_le_bytes(), version, b"", Attributes::default());
                }
                batch.put(&last, b"key", version, b"", Attributes::default());
                while let Err(error) =
                    store.write(&batch, Durability::Buffered).and_then(|commit| commit.wait())
                {
                    assert!(matches!(error, Error::Busy { .. }), "{error}");
                    store.run_background().expect("the background works");
                }
                if seen.load(Ordering::SeqCst) {
                    break;
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let snapshot = store.snapshot();
            let view = View { snapshot: Some(&snapshot), ..View::default() };
            // The tree that is written last is read first.
            let [last, first] = [&last, &first]
                .map(|tree| tree.version_of(b"key", &view).expect("a read").map(|found| found.version));
            if first != last {
                seen.store(true, Ordering::SeqCst);
            }
        }
    });
    seen.into_inner()
}

#[test]
fn nobody_sees_half_a_batch() {
    assert!(!half_a_batch_is_seen(3000, || {}));
}

/// A key's version never goes back for a reader, however flushes, compactions and the caches of answers lie.
#[test]
fn no_reader_sees_a_version_go_back() {
    use kvorum_engine::{Attributes, Batch, Durability, Parts, Settings, Store, TreeSettings, View};
    use std::sync::atomic::{AtomicBool, Ordering};

    let dir = tempfile::tempdir().expect("a folder");
    let mut settings = Settings::default();
    settings.memory_bytes = 8 << 20;
    settings.write_buffer_bytes = Some(64 << 10);
    settings.wal_segment_bytes = 1 << 20;
    let store = Store::open(dir.path(), settings, Parts::real()).expect("the store opens");
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = [0; 8];
                while !done.load(Ordering::Relaxed) {
                    for key in 0..8_u8 {
                        let found = tree.version_of(&[key], &View::newest()).expect("readable");
                        let version = found.map_or(0, |found| found.version);
                        let before = std::mem::replace(&mut last[usize::from(key)], version);
                        assert!(version >= before, "key {key} went back from {before} to {version}");
                    }
                }
            });
        }
        for version in 1..=6_000_u64 {
            let mut batch = Batch::new();
            batch.put(
                &tree,
                &[u8::try_from(version % 8).expect("small")],
                version,
                &[1; 100],
                Attributes::default(),
            );
            let commit = store.write_waiting(&batch, Durability::Buffered).expect("taken");
            let seen = tree
                .version_of(&[u8::try_from(version % 8).expect("small")], &View::newest())
                .expect("readable");
            assert_eq!(seen.map(|found| found.version), Some(version), "a writer sees what it wrote");
            drop(commit);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(store.stats().flushes > 2);
}
