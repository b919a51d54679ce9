//! Answers that rest on what is not durable yet. One thread writes and syncs the log for all of them, and hands them out group by group: while it
//! syncs one, the next one gathers.

use super::Answer;
use kvorum_engine::{Durability, Sequence, Store};
use kvorum_sync::{Lane, StoreId};
use parking_lot::{Condvar, Mutex};

/// Answers that wait, at most: the coordinators of all nodes wait for far fewer.
const RESTING_MAX: usize = 256 << 10;

/// An answer, and what it rests on.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) sequence: Sequence,
    pub(super) durability: Durability,
    /// Of the coordinator's request.
    pub(super) number: u64,
    /// `None`: this node is the coordinator.
    pub(super) to: Option<(StoreId, Lane)>,
    pub(super) answer: Answer,
}

/// The answers of a node that wait.
#[derive(Default)]
pub(super) struct Resting {
    state: Mutex<State>,
    wanted: Condvar,
}

#[derive(Default)]
struct State {
    resting: Vec<Rest>,
    /// Somebody wants those that rest now to become durable.
    wanted: bool,
    stopped: bool,
}

impl Resting {
    /// Keeps an answer until it may be told; hands it back if there is no room for it.
    pub(super) fn put(&self, rest: Rest) -> Result<(), Rest> {
        let mut state = self.state.lock();
        if state.resting.len() >= RESTING_MAX || state.stopped {
            return Err(rest);
        }
        state.resting.push(rest);
        Ok(())
    }

    /// Nothing more comes in this turn: what rests is made durable.
    pub(super) fn flush(&self) {
        let mut state = self.state.lock();
        if state.resting.is_empty() || state.wanted {
            return;
        }
        state.wanted = true;
        drop(state);
        self.wanted.notify_one();
    }

    /// Ends [`Resting::run`].
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.wanted.notify_all();
    }

    /// Makes durable what rests, until it is stopped. `tell` gets the answers of a group and whether they may be told: if not, the log has failed.
    pub(super) fn run(&self, store: &Store, tell: &mut dyn FnMut(Vec<Rest>, bool)) {
        while let Some((sequence, durability)) = self.next() {
            // A failed log fails all that rests on what it does not have.
            let failed = store.commit_at(sequence, durability).wait().is_err();
            let (done, left) = self.take(|rest| store.acknowledged(rest.durability) >= rest.sequence, failed);
            if !done.is_empty() {
                tell(done, true);
            }
            if !left.is_empty() {
                tell(left, false);
            }
        }
    }

    /// Waits for something to do: up to where the log should be how safe. `None`: stopped.
    fn next(&self) -> Option<(Sequence, Durability)> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if std::mem::take(&mut state.wanted)
                && let Some(first) = state.resting.first()
            {
                let durability = first.durability;
                let alike = state.resting.iter().filter(|rest| rest.durability == durability);
                return Some((alike.map(|rest| rest.sequence).max().unwrap_or_default(), durability));
            }
            self.wanted.wait(&mut state);
        }
    }

    /// Those that are done, and, if the log has failed, all the others. What stays is wanted.
    fn take(&self, is_done: impl Fn(&Rest) -> bool, failed: bool) -> (Vec<Rest>, Vec<Rest>) {
        let mut state = self.state.lock();
        let (done, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.resting).into_iter().partition(is_done);
        if failed {
            return (done, left);
        }
        state.wanted |= !left.is_empty();
        state.resting = left;
        (done, Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::store_on;
    use kvorum_engine::fs::sim::{Fault, Operation, SimFs};
    use kvorum_engine::{Attributes, Batch, Tree, TreeSettings};

    fn open(fs: &SimFs) -> (Store, Tree) {
        store_on(fs, TreeSettings::newest_only())
    }

    fn write(store: &Store, tree: &Tree, number: u64, durability: Durability) -> Rest {
        let mut batch = Batch::new();
        batch.put(tree, b"k", number, b"v", Attributes::default());
        let sequence = store.write(&batch, durability).unwrap().sequence();
        Rest { sequence, durability, number, to: None, answer: Answer::OtherNodes }
    }

    /// Numbers of each group, and whether they were told.
    fn run(resting: &Resting, store: &Store, groups: usize, mut more: impl FnMut()) -> Vec<(Vec<u64>, bool)> {
        let mut told = Vec::new();
        resting.flush();
        resting.run(store, &mut |rests, well| {
            told.push((rests.iter().map(|rest| rest.number).collect(), well));
            more();
            if told.len() == groups {
                resting.stop();
            }
        });
        told
    }

    #[test]
    fn what_was_written_in_a_turn_is_told_together_when_it_is_durable() {
        let (store, tree) = open(&SimFs::new(1));
        let resting = Resting::default();
        for number in [1, 2] {
            resting.put(write(&store, &tree, number, Durability::Synced)).unwrap();
        }
        let mut later = Some(3);
        let told = run(&resting, &store, 2, || {
            assert!(store.synced() >= store.visible());
            if let Some(number) = later.take() {
                resting.put(write(&store, &tree, number, Durability::Synced)).unwrap();
                resting.flush();
            }
        });
        assert_eq!(told, [(vec![1, 2], true), (vec![3], true)]);
    }

    #[test]
    fn every_answer_waits_for_its_own_class() {
        let (store, tree) = open(&SimFs::new(2));
        let resting = Resting::default();
        resting.put(write(&store, &tree, 1, Durability::Written)).unwrap();
        resting.put(write(&store, &tree, 2, Durability::Written)).unwrap();
        let told = run(&resting, &store, 1, || assert!(store.synced() < store.visible()));
        assert_eq!(told, [(vec![1, 2], true)]);
        let resting = Resting::default();
        let (first, second) =
            (write(&store, &tree, 3, Durability::Written), write(&store, &tree, 4, Durability::Synced));
        resting.put(first).unwrap();
        resting.put(second).unwrap();
        // The second one wants the log synced: the first one may have come with it.
        let told = run(&resting, &store, 1, || {});
        assert!(told[0].0.starts_with(&[3]) && told[0].1);
    }

    #[test]
    fn a_failed_log_is_told_to_all_that_rest_on_it() {
        let fs = SimFs::new(3);
        let (store, tree) = open(&fs);
        fs.inject(Fault::once(Operation::Sync, "wal"));
        let resting = Resting::default();
        resting.put(write(&store, &tree, 1, Durability::Synced)).unwrap();
        resting.put(write(&store, &tree, 2, Durability::Synced)).unwrap();
        assert_eq!(run(&resting, &store, 1, || {}), [(vec![1, 2], false)]);
    }

    #[test]
    fn nothing_is_taken_after_the_end() {
        let (store, tree) = open(&SimFs::new(4));
        let resting = Resting::default();
        resting.stop();
        assert!(resting.put(write(&store, &tree, 1, Durability::Synced)).is_err());
        resting.run(&store, &mut |_, _| panic!("nothing rests"));
    }
}
