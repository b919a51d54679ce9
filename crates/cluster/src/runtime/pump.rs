//! Durability: one thread that writes and syncs the log for all shards of a cluster's node, and tells each of them how far it came. While it
//! syncs one group, the records of the next one gather.

use super::moments;
use crate::latch::ShardId;
use kvorum_engine::{Durability, Sequence, Store};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The shards with records that are not known to be durable yet.
#[derive(Default)]
pub(crate) struct Pump {
    state: Mutex<State>,
    changed: Condvar,
    /// How long groups took lately, in microseconds.
    sync_micros: AtomicU64,
}

#[derive(Default)]
struct State {
    /// For each shard its last record. As many as there are shards at most.
    under_way: BTreeMap<ShardId, Sequence>,
    highest: Sequence,
    stopped: bool,
}

/// What came of a group.
pub(crate) enum Pumped<'p> {
    /// Everything up to the sequence is durable: these shards wait to hear it.
    Durable(&'p [ShardId], Sequence),
    /// The log failed: nothing becomes durable any more. Which of what was written is on disk shows when the store is opened again.
    Failed(kvorum_engine::Error),
}

impl Pump {
    /// Shards wrote records at these sequences and want to hear when they are durable.
    pub(crate) fn wrote(&self, records: &[(ShardId, Sequence)]) {
        if records.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        for (shard, sequence) in records.iter().copied() {
            let last = state.under_way.entry(shard).or_insert(0);
            *last = sequence.max(*last);
            state.highest = state.highest.max(sequence);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Ends [`Pump::run`] after the group in hand.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Pumps until it is stopped. `tell` gets what came of each group, the shards in order.
    pub(crate) fn run(&self, store: &Store, tell: &mut dyn FnMut(Pumped<'_>)) {
        let mut shards = Vec::new();
        while let Some(target) = self.next() {
            let begun = moments::now();
            let done = store.commit_at(target, Durability::Synced).wait();
            self.took(moments::now().micros_since(begun));
            shards.clear();
            match done {
                Ok(()) => {
                    let synced = store.synced();
                    self.take(synced, &mut shards);
                    tell(Pumped::Durable(&shards, synced));
                }
                Err(error) => {
                    self.take(Sequence::MAX, &mut shards);
                    tell(Pumped::Failed(error));
                }
            }
        }
    }

    /// How long it took lately to make a group durable, in microseconds; 0 before the first one. To be asked now and then, a few times a second: while
    /// there is nothing to make durable, what was slow once fades.
    pub(crate) fn sync_micros(&self) -> u64 {
        if !self.state.lock().under_way.is_empty() {
            return self.sync_micros.load(Relaxed);
        }
        let faded = |before: u64| before / 4 * 3;
        self.sync_micros.fetch_update(Relaxed, Relaxed, |before| Some(faded(before))).unwrap_or_default()
    }

    /// A moving mean, in which one slow sync shows at once and fades.
    fn took(&self, micros: u64) {
        let mean = |before: u64| if micros > before { micros } else { (before * 7 + micros) / 8 };
        // The closure always answers.
        let _ = self.sync_micros.fetch_update(Relaxed, Relaxed, |before| Some(mean(before)));
    }

    /// Waits for something to do: the sequence that must become durable. `None`: stopped.
    fn next(&self) -> Option<Sequence> {
        let mut state = self.state.lock();
        while state.under_way.is_empty() && !state.stopped {
            self.changed.wait(&mut state);
        }
        (!state.stopped).then_some(state.highest)
    }

    /// The shards with records under way: all are told, and those with later records stay.
    fn take(&self, synced: Sequence, shards: &mut Vec<ShardId>) {
        let mut state = self.state.lock();
        state.under_way.retain(|shard, last| {
            shards.push(*shard);
            *last > synced
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{shard_id, store_on};
    use kvorum_engine::fs::sim::{Fault, Operation, SimFs};
    use kvorum_engine::{Attributes, Batch, Tree, TreeSettings};

    fn open(fs: &SimFs) -> (Store, Tree) {
        store_on(fs, TreeSettings::with_history())
    }

    fn write(store: &Store, tree: &Tree, version: u64) -> Sequence {
        let mut batch = Batch::new();
        batch.put(tree, b"k", version, b"v", Attributes::default());
        store.write(&batch, Durability::Synced).unwrap().sequence()
    }

    #[test]
    fn every_shard_hears_of_each_group_until_its_last_record_is_durable() {
        let (store, tree) = open(&SimFs::new(1));
        let pump = Pump::default();
        let (first, second) = (shard_id(2), shard_id(1));
        pump.wrote(&[(first, write(&store, &tree, 1))]);
        pump.wrote(&[(second, write(&store, &tree, 2))]);
        let mut told = Vec::new();
        let mut later = 0;
        pump.run(&store, &mut |pumped| {
            let Pumped::Durable(shards, synced) = pumped else { panic!("the log failed") };
            assert_eq!(synced, store.synced());
            told.push(shards.to_vec());
            if told.len() == 1 {
                later = write(&store, &tree, 3);
                pump.wrote(&[(second, later)]);
            } else {
                pump.stop();
            }
        });
        assert_eq!(told, [vec![second, first], vec![second]]);
        pump.took(800_000);
        pump.took(0);
        assert_eq!(pump.sync_micros(), 700_000);
        assert_eq!(pump.sync_micros(), 525_000, "with nothing under way it fades");
        pump.wrote(&[(first, later + 1)]);
        let slow = pump.sync_micros();
        assert_eq!(pump.sync_micros(), slow, "not while a sync takes its time");
        assert!(later > 0 && store.synced() >= later);
    }

    #[test]
    fn a_shard_with_later_records_is_told_of_the_earlier_ones() {
        let (store, tree) = open(&SimFs::new(2));
        let pump = Pump::default();
        let done = write(&store, &tree, 1);
        store.commit_at(done, Durability::Synced).wait().unwrap();
        pump.wrote(&[(shard_id(1), done + 5)]);
        let mut shards = Vec::new();
        pump.take(done, &mut shards);
        assert_eq!(shards, [shard_id(1)]);
        shards.clear();
        pump.take(done + 5, &mut shards);
        assert_eq!(shards, [shard_id(1)], "it stayed for its last record");
        shards.clear();
        pump.take(done + 5, &mut shards);
        assert_eq!(shards, []);
    }

    #[test]
    fn a_failed_sync_is_told_to_all() {
        let fs = SimFs::new(3);
        let (store, tree) = open(&fs);
        let pump = Pump::default();
        fs.inject(Fault::once(Operation::Sync, "wal"));
        pump.wrote(&[(shard_id(3), write(&store, &tree, 1))]);
        pump.run(&store, &mut |pumped| {
            let Pumped::Failed(error) = pumped else { panic!("a failed sync made something durable") };
            assert!(matches!(error, kvorum_engine::Error::Poisoned { .. }), "{error}");
            pump.stop();
        });
    }
}
