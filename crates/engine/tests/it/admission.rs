//! Who must know that a write will be taken before it commits itself to it.

use kvorum_engine::fs::sim::{Fault, Operation, SimFs};
use kvorum_engine::{
    Attributes, Batch, Clock, Durability, Error, Parts, Settings, Store, Tree, TreeSettings, View,
};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const MEMORY_BYTES: u64 = 4 << 20;
/// A quarter of it.
const WRITE_BUFFERS_BYTES: u64 = MEMORY_BYTES / 4;

#[derive(Default)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }

    fn unix_ms(&self) -> u64 {
        0
    }
}

fn open(fs: &SimFs, clock: &Arc<Hand>) -> (Store, Tree) {
    let mut settings = Settings::default();
    settings.memory_bytes = MEMORY_BYTES;
    settings.wal_segment_bytes = 1 << 20;
    settings.disk_reserve_bytes = 1 << 20;
    settings.background_threads = false;
    let parts = Parts::new(Arc::new(fs.clone()), Arc::clone(clock) as Arc<dyn Clock>);
    let store = Store::open("/store", settings, parts).expect("the store opens");
    let tree = store.tree("t", TreeSettings::default()).expect("a tree");
    (store, tree)
}

fn batch(tree: &Tree, version: u64) -> Batch {
    let mut batch = Batch::new();
    batch.put(tree, &version.to_be_bytes(), version, &[7; 10_000], Attributes::default());
    batch
}

fn is_busy<T>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Busy { .. }))
}

/// Writes until the store refuses because its memory is full; the next version.
fn fill(store: &Store, tree: &Tree, clock: &Hand) -> u64 {
    let mut version = 1;
    while store.stats().memtable_bytes < WRITE_BUFFERS_BYTES {
        let asked = store.admission();
        let written = store.write(batch(tree, version), Durability::Written);
        assert_eq!(is_busy(&asked), is_busy(&written), "asking and writing answer alike");
        match written {
            Ok(commit) => {
                commit.wait().expect("written");
                version += 1;
            }
            Err(Error::Busy { retry_after }) => {
                clock.0.fetch_add(u64::try_from(retry_after.as_nanos()).expect("short"), Relaxed);
            }
            Err(error) => panic!("{error}"),
        }
    }
    version
}

#[test]
fn an_admitted_write_is_taken_when_the_buffers_are_full() {
    let (fs, clock) = (SimFs::new(1), Arc::default());
    let (store, tree) = open(&fs, &clock);
    let full = fill(&store, &tree, &clock);
    assert!(is_busy(&store.admission()));
    assert!(is_busy(&store.write(batch(&tree, full), Durability::Written)));
    let before = store.stats();
    for version in full..full + 20 {
        let commit = store.write_admitted(batch(&tree, version), Durability::Synced).expect("taken");
        commit.wait().expect("synced");
    }
    let after = store.stats();
    let grown = after.memtable_bytes - before.memtable_bytes;
    assert!(
        (200_000..300_000).contains(&grown),
        "what is taken is counted, with the unused end of its chunk: {grown}"
    );
    assert_eq!((after.refused_writes, after.batches), (before.refused_writes, before.batches + 20));
    store.flush().expect("flushed");
    assert_eq!(store.stats().memtable_bytes, 0, "and given back");
    clock.0.fetch_add(1 << 34, Relaxed);
    store.admission().expect("there is room again");
    for version in 1..full + 20 {
        assert!(tree.get(&version.to_be_bytes(), &View::newest()).expect("readable").is_some());
    }
}

#[test]
fn the_log_makes_room_for_who_cannot_turn_back() {
    let (fs, clock) = (SimFs::new(2), Arc::default());
    let (store, tree) = open(&fs, &clock);
    // Nobody waits for the commits: all of it stays in the log's buffer, of about half the write buffers.
    let mut refused = 0;
    for version in 1..150 {
        refused += u32::from(is_busy(&store.admission()));
        let commit = store.write_admitted(batch(&tree, version), Durability::Synced).expect("taken");
        drop(commit);
    }
    assert!(refused > 50, "who asks is told to wait");
    assert!(store.acknowledged(Durability::Written) > 0, "the writer wrote the group itself");
    store.commit_at(store.visible(), Durability::Synced).wait().expect("synced");
    assert_eq!(store.synced(), 149);
}

#[test]
fn an_admitted_write_meets_all_other_refusals() {
    let (fs, clock) = (SimFs::new(3), Arc::default());
    let (store, tree) = open(&fs, &clock);
    store.write_admitted(batch(&tree, 10), Durability::Synced).expect("taken").wait().expect("synced");
    tree.set_floor(10).expect("the floor rises");
    let below = store.write_admitted(batch(&tree, 10), Durability::Synced).map(drop);
    assert!(matches!(below, Err(Error::BelowFloor { version: 10, floor: 10 })), "{below:?}");
    fs.set_capacity(fs.files().iter().map(|(_, bytes)| bytes).sum::<u64>() + 1000);
    clock.0.fetch_add(1 << 34, Relaxed);
    let full =
        (11..200).find_map(|version| store.write_admitted(batch(&tree, version), Durability::Written).err());
    assert!(matches!(full, Some(Error::DiskFull { .. })), "{full:?}");
    assert!(matches!(store.admission(), Err(Error::DiskFull { .. })));
    fs.set_capacity(u64::MAX);
    clock.0.fetch_add(1 << 34, Relaxed);
    store.admission().expect("there is room again");
    fs.inject(Fault::once(Operation::Sync, "wal"));
    let commit = store.write_admitted(batch(&tree, 200), Durability::Synced).expect("taken");
    assert!(matches!(commit.wait(), Err(Error::Poisoned { .. })));
    let poisoned = store.write_admitted(batch(&tree, 201), Durability::Synced).map(drop);
    assert!(matches!(poisoned, Err(Error::Poisoned { .. })), "{poisoned:?}");
    assert!(matches!(store.admission(), Err(Error::Poisoned { .. })));
    store.close().expect_err("it is poisoned");
    assert!(matches!(store.admission(), Err(Error::Closed)));
}

#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn who_awaits_room_is_woken_when_memory_was_freed() {
    let (fs, clock) = (SimFs::new(4), Arc::default());
    let (store, tree) = open(&fs, &clock);
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut context = Context::from_waker(&waker);
    assert_eq!(pin!(store.room()).poll(&mut context), Poll::Ready(()), "nothing to wait for");
    fill(&store, &tree, &clock);
    let mut room = pin!(store.room());
    assert_eq!(room.as_mut().poll(&mut context), Poll::Pending);
    assert_eq!(room.as_mut().poll(&mut context), Poll::Pending);
    assert_eq!(bell.0.load(Relaxed), 0);
    store.flush().expect("flushed");
    assert_eq!(bell.0.load(Relaxed), 1, "woken once, however often it was polled");
    assert_eq!(room.poll(&mut context), Poll::Ready(()));
}
