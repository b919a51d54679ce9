//! What a member's tree may forget. Floors never pass the durable checkpoint: what lies above may yet be taken back.

use super::member::Member;
use super::outbox::Outbox;
use kvorum_sync::{Input, Moment, OpId, RoleName};
use std::collections::VecDeque;

/// Checkpoints remembered with their moments.
const SAMPLES_MAX: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Floors {
    /// The checkpoint of the last durable record of it, and the shard's time there.
    durable: OpId,
    time_ms: u64,
    /// The durable checkpoint at moments gone by, the oldest first.
    samples: VecDeque<(Moment, OpId)>,
    history: OpId,
    tombstones: OpId,
}

impl Floors {
    pub(super) fn checkpoint_durable(&mut self, checkpoint: OpId, time_ms: u64) {
        if checkpoint > self.durable {
            (self.durable, self.time_ms) = (checkpoint, time_ms);
        }
    }

    /// What the tree's history was cut at.
    pub(super) fn history(&self) -> OpId {
        self.history
    }

    /// Up to where the tree may have dropped tombstones.
    pub(super) fn tombstones(&self) -> OpId {
        self.tombstones
    }

    /// The floors of a tree that is new here, and of which no history at or below `history` is given out: it may have been cut elsewhere, or in an
    /// earlier run.
    pub(super) fn of_tree(history: OpId) -> Floors {
        Floors { history, ..Floors::default() }
    }

    /// Remembers the durable checkpoint. When there are too many moments, every other one goes.
    fn sample(&mut self, now: Moment) {
        if self.samples.back().is_some_and(|(_, last)| *last >= self.durable) {
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.samples.push_back((now, self.durable));
    }

    /// The checkpoint that was durable so long ago.
    fn aged(&self, now: Moment, micros: u64) -> OpId {
        let old = self.samples.iter().rev().find(|(at, _)| now.micros_since(*at) >= micros);
        old.map_or(OpId::ZERO, |(_, op)| *op)
    }
}

impl Member {
    /// Lets compaction know what nobody needs any more; every second or so. `history_micros`: for how long what was overwritten can still be read.
    ///
    /// # Errors
    /// `Invalid` if the tree was dropped.
    pub fn upkeep(
        &mut self,
        now: Moment,
        history_micros: u64,
        out: &mut Outbox,
    ) -> kvorum_engine::Result<()> {
        if self.halted.is_some() || !self.waiting.is_empty() {
            return Ok(());
        }
        self.floors.sample(now);
        let pinned = self.sources.lowest_needed();
        let history = self.floors.aged(now, history_micros).min(pinned).min(self.replica.floor_limit());
        if history > self.floors.history {
            self.tree.set_floor(history.version())?;
            self.floors.history = history;
        }
        let tombstones = self.known_everywhere(now).min(self.floors.history);
        if tombstones > self.floors.tombstones {
            self.tree.set_tombstone_floor(tombstones.version())?;
            self.floors.tombstones = tombstones;
        }
        self.tree.set_expiry_floor(self.floors.time_ms)?;
        let Floors { history, tombstones, .. } = self.floors;
        self.tree.retain_notes_from(history.version() + 1);
        let told = Input::Floors { floor: history, gc_floor: tombstones };
        self.feed(now, told, super::carry::Beside::Nothing, out);
        Ok(())
    }

    /// Up to here all members know of deletions, or have been away for too long.
    fn known_everywhere(&self, now: Moment) -> OpId {
        let aged = self.floors.aged(now, self.config.tombstone_micros);
        match self.replica.slowest_checkpoint() {
            Some(slowest) if self.replica.role() == RoleName::Leader => slowest.max(aged),
            _ => aged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_a_checkpoint_that_was_durable_long_enough_ago() {
        let mut floors = Floors::default();
        for second in 1..=300 {
            floors.checkpoint_durable(OpId::from_version(second), second);
            floors.sample(Moment(second * 1_000_000));
        }
        assert!(floors.samples.len() <= SAMPLES_MAX);
        let now = Moment(300_000_000);
        assert_eq!(floors.aged(now, 0), OpId::from_version(300));
        let old = floors.aged(now, 100_000_000);
        assert!(old <= OpId::from_version(200) && old >= OpId::from_version(190), "{old}");
        assert_eq!(floors.aged(now, 400_000_000), OpId::ZERO);
    }
}
