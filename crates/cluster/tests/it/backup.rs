//! Backups over a disk that loses power at any operation: there whole, or not at all.
//!
//! `SEED=7 cargo test -p kvorum-cluster --test it backup` begins with another device, `STEP=1` breaks off at every operation.

use crate::support::{Client, TestClock, Words, try_open};
use kvorum_cluster::backup::{self, inspect, receive, restore};
use kvorum_cluster::{Node, NodeParts, NodeSettings};
use kvorum_engine::fs::Fs;
use kvorum_engine::fs::sim::SimFs;
use kvorum_engine::{Clock, Parts, Settings, Store};
use kvorum_model::Reply;
use std::path::Path;
use std::sync::Arc;

const DATA: &str = "/data";
const KEYS: usize = 12;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

fn settings(data: &str) -> NodeSettings {
    let mut settings = NodeSettings::new(data);
    settings.memory_bytes = 16 << 20;
    settings
}

fn set(key: usize, value: &str) -> Words {
    vec![b"SET".to_vec(), format!("key:{key}").into_bytes(), value.as_bytes().to_vec()]
}

fn value(key: usize) -> String {
    format!("{key}").repeat(if key == 3 { 6000 } else { 40 })
}

/// A device with a node on it that has stored something.
fn begin(clock: &Arc<TestClock>) -> (SimFs, Node) {
    let fs = SimFs::new(number("SEED", 1));
    let node = try_open(&settings(DATA), clock, Arc::new(fs.clone())).unwrap();
    let commands: Vec<_> = (0..KEYS).map(|key| set(key, &value(key))).collect();
    Client::new(&node).pipeline(&commands);
    (fs, node)
}

fn stream(node: &Node) -> Vec<u8> {
    let mut backup = node.backup().unwrap().expect("no other backup");
    assert!(node.backup().unwrap().is_none(), "one at a time");
    let mut bytes = Vec::new();
    while let Some(piece) = backup.next_piece().unwrap() {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(bytes.len() as u64, backup.page.bytes() + backup.page.text().len() as u64);
    bytes
}

/// Whether a node in `data` has all that was stored; `Err` if it does not open.
fn has_all(data: &str, clock: &Arc<TestClock>, fs: &SimFs) -> kvorum_cluster::Result<bool> {
    let node = try_open(&settings(data), clock, Arc::new(fs.clone()))?;
    let mut client = Client::new(&node);
    let commands: Vec<Words> =
        (0..KEYS).map(|key| vec![b"GET".to_vec(), format!("key:{key}").into_bytes()]).collect();
    let replies = client.pipeline(&commands);
    Ok(replies.iter().enumerate().all(|(key, reply)| *reply == Reply::Bulk(value(key).into())))
}

fn parts(clock: &Arc<TestClock>, fs: &SimFs) -> NodeParts {
    let storage = Parts::new(Arc::new(fs.clone()), Arc::clone(clock) as Arc<dyn Clock>);
    NodeParts { storage, seed: 8, background_threads: false }
}

/// Runs `work` on copies of a device, broken off at one operation after the other; `check` looks at what the next life finds, and at whether
/// the work was done.
fn at_every_operation(
    start: &SimFs,
    work: &mut dyn FnMut(&SimFs) -> bool,
    check: &mut dyn FnMut(&SimFs, bool, u64),
) {
    let step = number("STEP", 3);
    let mut at = 1;
    loop {
        for power_lost in [false, true] {
            let fs = start.copy();
            fs.off_at(fs.operations() + at);
            let done = work(&fs);
            let was_off = fs.is_off();
            let next = if power_lost { fs.after_power_loss() } else { fs.after_kill() };
            check(&next, done, at);
            if power_lost && !was_off {
                assert!(done, "nothing went wrong");
                return;
            }
        }
        at += step;
    }
}

#[test]
fn a_backup_is_received_whole_or_not_at_all() {
    let clock = TestClock::new();
    let (_, node) = begin(&clock);
    let bytes = stream(&node);
    let target = Path::new("/backups/one");
    let mut unfinished = 0;
    at_every_operation(
        &SimFs::new(number("SEED", 1)),
        &mut |fs| receive(fs, &mut &bytes[..], target, &mut |_| ()).is_ok(),
        &mut |fs, done, at| {
            if done || fs.exists(target).unwrap() {
                let (page, damages) = inspect(fs, target, &mut |_| ()).unwrap();
                assert!(damages.is_empty(), "broken off at {at}: {damages:?}");
                assert_eq!(page.bytes() + page.text().len() as u64, bytes.len() as u64);
            } else {
                unfinished += 1;
                receive(fs, &mut &bytes[..], target, &mut |_| ()).unwrap();
            }
        },
    );
    assert!(unfinished > 5, "the runs show too little: {unfinished}");
}

#[test]
fn a_restore_is_served_whole_or_not_at_all() {
    let clock = TestClock::new();
    let (fs, node) = begin(&clock);
    let source = Path::new("/backup");
    receive(&fs, &mut &stream(&node)[..], source, &mut |_| ()).unwrap();
    let data = "/new/data";
    let mut unfinished = 0;
    at_every_operation(
        &fs,
        &mut |fs| restore(&parts(&clock, fs), source, Path::new(data), &mut |_| ()).is_ok(),
        &mut |fs, done, at| {
            // Served at once, it has all or nothing; and nothing only where the restore may simply be run again.
            let served = has_all(data, &clock, &fs.copy());
            let again = fs.copy();
            let repeated = restore(&parts(&clock, &again), source, Path::new(data), &mut |_| ()).is_ok();
            match served {
                Ok(true) => assert!(!repeated, "broken off at {at}: a store was overwritten"),
                Ok(false) => assert!(repeated && !done, "broken off at {at}: a part is served"),
                Err(error) => assert!(!done, "broken off at {at}: {error}"),
            }
            if repeated {
                unfinished += 1;
                assert!(has_all(data, &clock, &again).unwrap(), "broken off at {at}");
            }
        },
    );
    assert!(unfinished > 5, "the runs show too little: {unfinished}");
    let error = try_open(&settings("/backup"), &clock, Arc::new(fs)).err().unwrap();
    assert!(error.to_string().contains("belongs to a backup"), "{error}");
}

#[test]
fn a_checkpoint_stays_until_the_next_one_is_whole() {
    let clock = TestClock::new();
    let (fs, node) = begin(&clock);
    assert!(node.save().unwrap());
    drop(node);
    let mut opened = 0;
    at_every_operation(
        &fs.after_kill(),
        &mut |fs| {
            let Ok(node) = try_open(&settings(DATA), &clock, Arc::new(fs.clone())) else { return false };
            clock.add(10);
            node.save().is_ok()
        },
        &mut |fs, _, at| {
            assert!(has_all(DATA, &clock, fs).unwrap(), "broken off at {at}");
            opened += 1;
            let all = fs.list(Path::new("/data/checkpoints")).unwrap();
            let dirs = all.iter().map(|entry| Path::new("/data/checkpoints").join(&entry.name));
            let whole: Vec<_> = dirs.filter(|dir| backup::is_backup(fs, dir).unwrap()).collect();
            assert!(!whole.is_empty(), "broken off at {at}: no checkpoint is left in {all:?}");
            for dir in whole {
                let (_, damages) = inspect(fs, &dir, &mut |_| ()).unwrap();
                assert!(damages.is_empty(), "broken off at {at}: {damages:?}");
            }
        },
    );
    assert!(opened > 10, "the runs show too little: {opened}");
}

#[test]
fn a_store_that_lost_its_epoch_begins_far_above_all_that_it_can_have_given() {
    let clock = TestClock::new();
    let (fs, node) = begin(&clock);
    let epoch = node.stats().epoch;
    node.shutdown().unwrap();
    drop(node);
    // As a salvage leaves it whose damage took the state of the store itself.
    let store = Store::open(DATA, Settings::default(), parts(&clock, &fs).storage).unwrap();
    assert!(store.drop_tree("sys").unwrap());
    store.close().unwrap();
    drop(store);
    backup::make_own(&parts(&clock, &fs), Path::new(DATA)).unwrap();
    assert!(has_all(DATA, &clock, &fs).unwrap());
    let node = try_open(&settings(DATA), &clock, Arc::new(fs)).unwrap();
    assert!(node.stats().epoch > epoch + (1 << 20), "{}", node.stats().epoch);
    let mut client = Client::new(&node);
    client.pipeline(&[set(1, "newer")]);
    assert_eq!(client.get(b"key:1").as_deref(), Some(&b"newer"[..]), "the new op id is above the old ones");
}
