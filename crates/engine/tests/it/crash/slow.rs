//! A device that takes its time: while a sync is under way nothing that it is to make durable is acknowledged, and the store goes on.

use super::model::Op;
use super::world::World;
use kvorum_engine::{Commit, Durability, Error, Result, Sequence, Store, TreeId};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// A batch that was taken while the device was busy.
struct Later {
    last: Sequence,
    ops: Vec<(TreeId, Op)>,
    durability: Durability,
}

impl World {
    /// Waits for a commit whose sync takes long. Meanwhile another batch is written, or the machine goes off.
    pub(super) fn wait_long(&mut self, store: &Store, commit: Commit) -> Result<()> {
        let takes = Duration::from_millis(1 + self.dice.below(3000));
        self.tell(|| format!("wait {takes:?} for {}", commit.sequence()));
        let begun = self.fs.clock().monotonic();
        let later = Arc::new(Mutex::new(None));
        if !commit.is_done() {
            self.slow_down(store, &commit, takes, &later);
        }
        let result = self.wait(commit, Durability::Synced);
        let came = !self.fs.withdraw_slow_sync();
        if let Some(Later { last, ops, durability }) = later.lock().take() {
            self.model.write(last, &ops);
            if durability == Durability::Buffered {
                self.acknowledged = self.acknowledged.max(last);
            }
            let took = self.fs.clock().monotonic() - begun;
            assert!(came && took >= takes, "it took {took:?}");
        }
        result
    }

    fn slow_down(
        &mut self,
        store: &Store,
        commit: &Commit,
        takes: Duration,
        later: &Arc<Mutex<Option<Later>>>,
    ) {
        let Some((batch, ops)) = self.compose(store) else { return };
        let durability = self.durability();
        let goes_off = self.dice.one_in(4) && !self.peaceful;
        let (store, commit, later, fs) = (store.clone(), commit.clone(), Arc::clone(later), self.fs.clone());
        let synced = store.synced();
        self.fs.clone().slow_sync("wal", takes, move || {
            assert!(!commit.is_done(), "{} is acknowledged before its sync is over", commit.sequence());
            assert_eq!(store.synced(), synced);
            match store.write(&batch, durability) {
                Ok(next) => {
                    assert!(durability == Durability::Buffered || !next.is_done());
                    *later.lock() = Some(Later { last: next.sequence(), ops, durability });
                }
                Err(Error::Busy { .. } | Error::DiskFull { .. } | Error::Io { .. }) => {}
                Err(error) => panic!("a write beside a slow sync: {error}"),
            }
            if goes_off {
                fs.switch_off();
            }
        });
    }
}
