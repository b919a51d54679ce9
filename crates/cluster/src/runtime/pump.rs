//! Durability: the log is written and synced for all shards of a cluster's node by one thread at a time, which tells each of them how far it came.
//! Meanwhile the records of the next group gather.
//!
//! While the disk is quick, that is a thread that wrote some of the records, once it has seen to all that is ready: it need not wake another one, and what
//! comes while it syncs makes one group. A slow disk keeps nobody but the log's own thread waiting.

use super::moments;
use crate::latch::ShardId;
use kvorum_engine::{Durability, Sequence, Store};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Up to how long groups may have taken lately, on average, for threads with other work to sync the log, in microseconds. Where more threads want to run
/// than can, that is the device's own time and several waits for the processor.
const QUICK_MICROS_MAX: u64 = 2000;

/// The shards with records that are not known to be durable yet.
#[derive(Default)]
pub(crate) struct Pump {
    state: Mutex<State>,
    changed: Condvar,
    /// How long groups took lately, in microseconds: a slow one shows at once, and fades.
    sync_micros: AtomicU64,
    /// The same on average, for which one slow group says little.
    mean_micros: AtomicU64,
}

#[derive(Default)]
struct State {
    /// For each shard its last record. As many as there are shards at most.
    under_way: BTreeMap<ShardId, Sequence>,
    highest: Sequence,
    leader: Leader,
    stopped: bool,
}

/// Who sees to the records under way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Leader {
    /// There are none.
    #[default]
    Nobody,
    /// The log's own thread, which has been woken.
    Own,
    /// Whoever has the [`Duty`].
    Promised,
    /// Somebody is at it, and sees to the next ones as well.
    AtIt,
}

/// The duty to write and sync the log soon. Dropped, it is left to the log's own thread.
#[must_use = "others rely on it"]
pub(crate) struct Duty {
    pump: Arc<Pump>,
    done: bool,
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
        if self.add(records, Leader::Own) {
            self.changed.notify_one();
        }
    }

    /// As [`Pump::wrote`], on a thread that may sync the log itself as long as that is quick. Answers the duty to do so, unless somebody has it already.
    pub(crate) fn wrote_here(self: &Arc<Self>, records: &[(ShardId, Sequence)]) -> Option<Duty> {
        if self.is_quick() {
            let begins = self.add(records, Leader::Promised);
            return begins.then(|| Duty { pump: Arc::clone(self), done: false });
        }
        self.wrote(records);
        None
    }

    fn is_quick(&self) -> bool {
        self.mean_micros.load(Relaxed) <= QUICK_MICROS_MAX
    }

    /// Whether nobody saw to the records under way: it is `leader` from here on.
    fn add(&self, records: &[(ShardId, Sequence)], leader: Leader) -> bool {
        if records.is_empty() {
            return false;
        }
        let mut state = self.state.lock();
        for (shard, sequence) in records.iter().copied() {
            let last = state.under_way.entry(shard).or_insert(0);
            *last = sequence.max(*last);
            state.highest = state.highest.max(sequence);
        }
        let nobody = state.leader == Leader::Nobody;
        if nobody {
            state.leader = leader;
        }
        nobody
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
            self.group(store, target, &mut shards, tell);
            self.end(Leader::Own);
        }
    }

    /// Makes one group durable, up to this sequence at least.
    fn group(
        &self,
        store: &Store,
        target: Sequence,
        shards: &mut Vec<ShardId>,
        tell: &mut dyn FnMut(Pumped<'_>),
    ) {
        let begun = moments::now();
        let done = store.commit_at(target, Durability::Synced).wait();
        self.took(moments::now().micros_since(begun));
        shards.clear();
        match done {
            Ok(()) => {
                let synced = store.synced();
                self.take(synced, shards);
                tell(Pumped::Durable(shards, synced));
            }
            Err(error) => {
                self.take(Sequence::MAX, shards);
                tell(Pumped::Failed(error));
            }
        }
    }

    /// A group is done. Whether there are records under way: `next` sees to them.
    fn end(&self, next: Leader) -> bool {
        let mut state = self.state.lock();
        let more = !state.under_way.is_empty() && !state.stopped;
        state.leader = if more { next } else { Leader::Nobody };
        more
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

    /// A group took so long. Only whoever is at it says so.
    fn took(&self, micros: u64) {
        let mean = |before: u64| (before * 7 + micros) / 8;
        let seen = |before: u64| if micros > before { micros } else { mean(before) };
        // The closures always answer.
        let _ = self.sync_micros.fetch_update(Relaxed, Relaxed, |before| Some(seen(before)));
        let _ = self.mean_micros.fetch_update(Relaxed, Relaxed, |before| Some(mean(before)));
    }

    /// Waits for something to do: the sequence that must become durable. `None`: stopped.
    fn next(&self) -> Option<Sequence> {
        let mut state = self.state.lock();
        while state.leader != Leader::Own && !state.stopped {
            self.changed.wait(&mut state);
        }
        if state.stopped {
            return None;
        }
        state.leader = Leader::AtIt;
        Some(state.highest)
    }

    /// Whoever promised to lead begins.
    fn begin(&self) -> Option<Sequence> {
        let mut state = self.state.lock();
        if state.stopped {
            return None;
        }
        state.leader = Leader::AtIt;
        Some(state.highest)
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

impl Duty {
    /// Writes and syncs the log for all records under way, on this thread, and tells their shards. Answers the duty to do so again, if more came
    /// meanwhile.
    pub(crate) fn lead(mut self, store: &Store, tell: &mut dyn FnMut(Pumped<'_>)) -> Option<Duty> {
        let target = self.pump.begin()?;
        self.pump.group(store, target, &mut Vec::new(), tell);
        let more = self.pump.end(Leader::Promised);
        self.done = !more;
        (more && self.pump.is_quick()).then_some(self)
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        if !self.done {
            self.pump.state.lock().leader = Leader::Own;
            self.pump.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{shard_id, store_on};
    use kvorum_engine::fs::sim::{Fault, Operation, SimFs};
    use kvorum_engine::{Attributes, Batch, Tree, TreeSettings};

    /// One group as slow as that is enough.
    const SLOW_MICROS: u64 = QUICK_MICROS_MAX * 9;

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
    fn the_first_who_wrote_syncs_for_all_and_goes_on_while_more_comes() {
        let (store, tree) = open(&SimFs::new(4));
        let pump = Arc::new(Pump::default());
        let (first, second) = (shard_id(1), shard_id(2));
        let duty = pump.wrote_here(&[(first, write(&store, &tree, 1))]).unwrap();
        assert!(pump.wrote_here(&[(second, write(&store, &tree, 2))]).is_none(), "one is enough");
        pump.wrote(&[(second, write(&store, &tree, 3))]);
        let mut told = Vec::new();
        let duty = duty.lead(&store, &mut |pumped| {
            let Pumped::Durable(shards, synced) = pumped else { panic!("the log failed") };
            told.push((shards.to_vec(), synced));
            assert!(pump.wrote_here(&[(first, write(&store, &tree, 4))]).is_none(), "this thread is at it");
        });
        let last = duty.unwrap().lead(&store, &mut |pumped| {
            let Pumped::Durable(shards, synced) = pumped else { panic!("the log failed") };
            told.push((shards.to_vec(), synced));
        });
        assert!(last.is_none(), "nothing is left");
        assert_eq!(
            told.iter().map(|(shards, _)| shards.clone()).collect::<Vec<_>>(),
            [vec![first, second], vec![first]]
        );
        assert_eq!(told[1].1, store.synced());
        assert!(
            pump.wrote_here(&[(first, write(&store, &tree, 5))]).is_some(),
            "and the next one begins anew"
        );
    }

    #[test]
    fn a_duty_that_is_dropped_and_a_slow_disk_are_left_to_the_own_thread() {
        let (store, tree) = open(&SimFs::new(5));
        let pump = Arc::new(Pump::default());
        drop(pump.wrote_here(&[(shard_id(1), write(&store, &tree, 1))]));
        let mut told = 0;
        pump.run(&store, &mut |_| {
            told += 1;
            if told == 2 {
                return pump.stop();
            }
            pump.took(SLOW_MICROS);
            assert!(pump.wrote_here(&[(shard_id(1), write(&store, &tree, 2))]).is_none());
        });
        assert_eq!(told, 2, "it goes on with what came while it synced");
        let slow = Arc::new(Pump::default());
        slow.took(SLOW_MICROS);
        assert!(slow.wrote_here(&[(shard_id(1), write(&store, &tree, 3))]).is_none());
        slow.run(&store, &mut |_| slow.stop());
        assert!(store.synced() >= 3);
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
