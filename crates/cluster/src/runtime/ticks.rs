//! Time for the shards that have something under way. Idle shards are not ticked; with none busy nothing wakes up at all.

use crate::latch::ShardId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

/// How often a busy shard is told that time has passed: a quarter of the shortest time-out of the protocol.
const EVERY: Duration = Duration::from_millis(5);

/// The shards that are not idle.
#[derive(Default)]
pub(crate) struct Ticks {
    busy: Mutex<BTreeSet<ShardId>>,
    woken: Notify,
}

impl Ticks {
    /// A shard has something under way: it is ticked until it says otherwise.
    pub(crate) fn add(&self, shard: ShardId) {
        let mut busy = self.busy.lock();
        let was_empty = busy.is_empty();
        busy.insert(shard);
        drop(busy);
        if was_empty {
            self.woken.notify_one();
        }
    }

    /// Ticks the busy shards for ever; `tick` leaves those in the list that are still busy.
    pub(crate) async fn run(&self, mut tick: impl FnMut(&mut Vec<ShardId>)) {
        let mut interval = tokio::time::interval(EVERY);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shards = Vec::new();
        loop {
            while self.busy.lock().is_empty() {
                self.woken.notified().await;
            }
            interval.tick().await;
            shards.clear();
            // Taken out before they are ticked: a shard that becomes busy again meanwhile is added again.
            shards.extend(std::mem::take(&mut *self.busy.lock()));
            tick(&mut shards);
            self.busy.lock().extend(shards.drain(..));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::shard_id;
    use std::cell::RefCell;

    #[test]
    fn busy_shards_are_ticked_until_they_are_idle() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let ticks = Ticks::default();
        let ticked = RefCell::new(Vec::new());
        let (first, second) = (shard_id(1), shard_id(2));
        ticks.add(first);
        runtime.unwrap().block_on(async {
            let run = ticks.run(|shards| {
                shards.retain(|shard| {
                    ticked.borrow_mut().push(*shard);
                    if ticked.borrow().len() == 2 {
                        ticks.add(second);
                    }
                    // The first one has enough after two.
                    *shard == second || ticked.borrow().len() < 2
                });
            });
            tokio::select! {
                () = run => {}
                () = tokio::time::sleep(EVERY * 5) => {}
            }
        });
        let ticked = ticked.into_inner();
        assert_eq!(ticked[..2], [first, first]);
        assert!(ticked.len() > 3 && ticked[2..].iter().all(|shard| *shard == second), "{ticked:?}");
    }
}
