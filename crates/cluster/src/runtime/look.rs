//! What the shell looks after now and then: peers, silent leaders, learners that are ready, the health of the store.

use super::Cluster;
use crate::control::{Map, Report, ShardRow};
use crate::latch::ShardId;
use crate::shard::{Member, MemberInput, MemberRole, Outbox};
use kvorum_sync::{Ask, StepDown, StoreId};
use std::sync::Arc;

/// Why the store takes no writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Halt {
    /// A write or sync failed: for good, until the node is started again.
    Poisoned(String),
    /// The disk is full: until there is space.
    DiskFull(String),
}

impl Halt {
    fn step_down(&self) -> StepDown {
        match self {
            Halt::Poisoned(_) => StepDown::Poisoned,
            Halt::DiskFull(_) => StepDown::DiskFull,
        }
    }

    pub(super) fn reason(&self) -> &str {
        match self {
            Halt::Poisoned(reason) | Halt::DiskFull(reason) => reason,
        }
    }
}

impl Cluster {
    /// The shards that have a member here.
    pub(super) fn open_shards(&self) -> Vec<ShardId> {
        self.open.lock().iter().copied().collect()
    }

    /// Tells all members that a node can be reached, or can't any more.
    pub(super) fn tell_peers(self: &Arc<Self>, store: StoreId, reachable: bool) {
        self.in_turn(|| {
            for shard in self.open_shards() {
                self.step(shard, MemberInput::Peer { store, reachable });
            }
        });
    }

    /// Ticks busy shards. Those that are busy still stay in the list.
    pub(super) fn tick_all(self: &Arc<Self>, shards: &mut Vec<ShardId>) {
        self.in_turn(|| shards.retain(|shard| self.tick(*shard)));
    }

    fn tick(self: &Arc<Self>, shard: ShardId) -> bool {
        let Some(place) = self.table.shard(shard) else { return false };
        let mut out = Outbox::default();
        let is_busy = {
            let mut writer = place.latch();
            let is_busy = writer.member.as_deref_mut().is_some_and(|member| {
                member.step(super::moments::now(), MemberInput::Tick, &mut out);
                !member.is_idle()
            });
            if !is_busy {
                place.rests();
            }
            is_busy
        };
        self.do_all(shard, out);
        is_busy
    }

    /// Repeats what holds still, and looks how the store is.
    pub(super) fn look_around(self: &Arc<Self>) {
        self.look_at_store();
        self.tell_refused();
        let halted = self.halt.lock().is_some();
        self.control.report(&Report::Disk { sync_micros: self.pump.sync_micros(), halted });
        let map = self.control.map();
        self.retire(&map);
        let keeping = if map.lets_go(self.me) { self.available.keeping() } else { None };
        self.control.report(&Report::Keeping(keeping));
        let is_behind = self.open_shards().into_iter().any(|shard| self.is_behind(shard, &map));
        self.control.report(&Report::Behind(is_behind));
        for shard in self.open_shards() {
            if let Some(report) = self.silent_leader(shard) {
                self.control.report(&report);
            }
            let learners = map.shards.get(&shard).filter(|row| !row.learners.as_slice().is_empty());
            if let Some(row) = learners {
                self.look_at_learners(shard, row);
            }
        }
    }

    /// The report of a member whose leader can't be reached: it is to be repeated while that holds.
    fn silent_leader(&self, shard: ShardId) -> Option<Report> {
        let writer = self.table.shard(shard)?.latch();
        let member = writer.member.as_deref()?;
        let is_alone = matches!(member.role(), MemberRole::Alone { .. });
        let (epoch, at) = (member.promised(), member.checkpoint().op);
        is_alone.then_some(Report::LeaderMissing { shard, epoch, at })
    }

    /// Whether the own member counts, and has yet to get what the others have.
    fn is_behind(&self, shard: ShardId, map: &Map) -> bool {
        let counts = map.shards.get(&shard).is_some_and(|row| row.members().contains(self.me));
        counts
            && self
                .table
                .shard(shard)
                .is_some_and(|place| place.latch().member.as_deref().is_some_and(Member::is_behind))
    }

    fn look_at_learners(&self, shard: ShardId, row: &ShardRow) {
        let Some(place) = self.table.shard(shard) else { return };
        let writer = place.latch();
        let Some(member) = writer.member.as_deref() else { return };
        let MemberRole::Leading { epoch } = member.role() else { return };
        for store in row.learners.as_slice().iter().copied().filter(|store| member.is_caught_up(*store)) {
            self.control.report(&Report::LearnerReady { shard, epoch, store });
        }
    }

    /// A member stands still, because the store refused its record.
    pub(super) fn halted(self: &Arc<Self>, shard: ShardId, error: &kvorum_engine::Error) {
        self.still.lock().insert(shard);
        let found = match error {
            kvorum_engine::Error::DiskFull { .. } => Some(Halt::DiskFull(error.to_string())),
            kvorum_engine::Error::Poisoned { .. } => Some(Halt::Poisoned(error.to_string())),
            _ => None,
        };
        if found.is_some() {
            self.set_halt(found);
        }
    }

    fn look_at_store(self: &Arc<Self>) {
        let found = match self.store.admission() {
            Ok(()) | Err(kvorum_engine::Error::Busy { .. }) => self.short_of_space(),
            Err(kvorum_engine::Error::Closed) => None,
            Err(error @ kvorum_engine::Error::DiskFull { .. }) => Some(Halt::DiskFull(error.to_string())),
            Err(error) => Some(Halt::Poisoned(error.to_string())),
        };
        let takes_writes = found.is_none();
        self.set_halt(found);
        self.step_down();
        let still: Vec<ShardId> = self.still.lock().iter().copied().collect();
        if still.is_empty() {
            return;
        }
        if takes_writes {
            // Opened again from what is durable, as after a crash.
            for shard in still {
                self.close_member(shard);
            }
            self.reconcile.notify_one();
            return;
        }
        // They can't speak for themselves.
        let map = self.control.map();
        let why = self.halt.lock().as_ref().map_or(StepDown::Poisoned, Halt::step_down);
        for shard in still {
            if let Some((above, manager)) = map.shards.get(&shard).and_then(ShardRow::manager)
                && manager == self.me
            {
                self.control.report(&Report::Wants { shard, above, why: Ask::StepDown(why) });
            }
        }
    }

    /// The store asks its device now and then, by what it wrote: who leads is to know at once.
    fn short_of_space(&self) -> Option<Halt> {
        let (path, reserve) = (self.store.path(), self.store.settings().disk_reserve_bytes);
        let free = self.fs.free_bytes(path).ok().filter(|free| *free < reserve)?;
        let path = path.display();
        Some(Halt::DiskFull(format!("{path} has {free} bytes left, less than the reserve of {reserve}")))
    }

    /// The store takes no writes, or takes them again: what others can lead they are to lead.
    pub(super) fn set_halt(self: &Arc<Self>, found: Option<Halt>) {
        let why = found.as_ref().map(|found| found.reason().to_owned());
        let before = {
            let mut halt = self.halt.lock();
            if halt.as_ref().map(std::mem::discriminant) == found.as_ref().map(std::mem::discriminant) {
                return;
            }
            std::mem::replace(&mut *halt, found)
        };
        let Some(why) = why else {
            let reason = before.as_ref().map(Halt::reason).unwrap_or_default();
            tracing::info!("this node takes writes again, after: {reason}");
            return;
        };
        tracing::error!("this node takes no writes, others are to lead its shards: {why}");
        self.step_down();
    }

    /// Asks for other leaders as long as the store takes no writes: who had no heir, or was not leading yet, asks later.
    fn step_down(self: &Arc<Self>) {
        let Some(why) = self.halt.lock().as_ref().map(Halt::step_down) else { return };
        let map = self.control.map();
        for shard in self.open_shards() {
            if self.has_heir(&map, shard) {
                self.step(shard, MemberInput::StepDown(why));
            }
        }
    }
}
