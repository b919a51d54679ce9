//! Work in the background keeps to its rate: by the store's clock, and not when it is urgent.

use kvorum_engine::fs::sim::SimFs;
use kvorum_engine::{Attributes, Batch, Durability, Parts, Settings, Store, Tree, TreeSettings};
use std::sync::Arc;
use std::time::Duration;

/// Values are of so many bytes, a flush brings ten of them.
const VALUE_BYTES: usize = 4000;

fn open(fs: &SimFs, background_bytes_per_second: u64) -> (Store, Tree) {
    open_with(fs, background_bytes_per_second, false)
}

fn open_with(fs: &SimFs, background_bytes_per_second: u64, background_threads: bool) -> (Store, Tree) {
    let mut settings = Settings::default();
    settings.memory_bytes = 1 << 20;
    settings.write_buffer_bytes = Some(64 << 10);
    settings.blob_threshold_bytes = 1 << 20;
    settings.compression = false;
    settings.background_threads = background_threads;
    settings.background_bytes_per_second = background_bytes_per_second;
    let store = Store::open("/store", settings, Parts::new(Arc::new(fs.clone()), fs.clock()));
    let store = store.expect("a new store");
    let tree = store.tree("t", TreeSettings::newest_only()).expect("a tree");
    (store, tree)
}

/// Writes keys all over the place, and flushes them.
fn fill(store: &Store, tree: &Tree, round: u64) {
    for key in 0..10_u64 {
        let mut batch = Batch::new();
        let value = vec![round as u8; VALUE_BYTES];
        batch.put(tree, &key.to_be_bytes(), round * 10 + key + 1, &value, Attributes::default());
        store.write(&batch, Durability::Buffered).expect("taken").wait().expect("written");
    }
    store.flush().expect("flushed");
}

fn compactions(store: &Store) -> u64 {
    let stats = store.stats();
    stats.compaction.jobs + stats.compaction.moves
}

#[test]
fn a_compaction_begins_when_the_flushes_before_it_are_paid_for() {
    let fs = SimFs::new(1);
    let (store, tree) = open(&fs, 10_000);
    (0..4).for_each(|round| fill(&store, &tree, round));
    let begun = fs.clock().monotonic();
    while !store.run_background().expect("it works") {
        assert_eq!(compactions(&store), 0);
        fs.pass(Duration::from_millis(100));
    }
    let took = fs.clock().monotonic() - begun;
    assert!(compactions(&store) > 0);
    // Four flushes of 40 000 bytes, at 10 000 a second.
    assert!((Duration::from_secs(15)..Duration::from_secs(18)).contains(&took), "{took:?}");
}

#[test]
fn without_a_rate_nothing_waits() {
    let fs = SimFs::new(1);
    let (store, tree) = open(&fs, 0);
    (0..4).for_each(|round| fill(&store, &tree, round));
    assert!(store.run_background().expect("it works") && compactions(&store) > 0);
}

#[test]
fn who_asks_for_a_compaction_does_not_wait() {
    let fs = SimFs::new(1);
    let (store, tree) = open(&fs, 1);
    (0..4).for_each(|round| fill(&store, &tree, round));
    store.compact().expect("it works");
    assert!(compactions(&store) > 0);
}

#[test]
fn what_piles_up_is_brought_down_whatever_the_rate() {
    let fs = SimFs::new(1);
    let (store, tree) = open(&fs, 1);
    let mut rounds = 0;
    while !store.run_background().expect("it works") {
        assert!(rounds < 7, "level 0 holds {} bytes", store.stats().levels[0].bytes);
        fill(&store, &tree, rounds);
        rounds += 1;
    }
    assert!(rounds > 4 && compactions(&store) > 0, "{rounds} rounds");
}

#[test]
fn a_store_that_waits_closes_at_once() {
    let fs = SimFs::new(1);
    let (store, tree) = open_with(&fs, 1, true);
    (0..4).for_each(|round| fill(&store, &tree, round));
    // On its clock, which stands nearly still, the background has an age to wait.
    store.close().expect("closed");
}
