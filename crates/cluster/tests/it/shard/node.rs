//! A machine with a simulated disk, on which a member may run.

use crate::support::TestClock;
use bytes::Bytes;
use kvorum_cluster::shard::{Job, Member, MemberConfig, MemberParts, Outbox, Rows, ShardId};
use kvorum_engine::fs::sim::SimFs;
use kvorum_engine::{Direction, Durability, Parts, Settings, Store, View};
use kvorum_sync::{Moment, StoreId};
use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) const SHARD: ShardId = ShardId { namespace: 0, place: 3 };

/// What runs on a machine.
pub(crate) struct Process {
    pub(crate) store: Store,
    pub(crate) member: Member,
    pub(crate) jobs: VecDeque<Job>,
    /// The store holds something that others wait for.
    pub(crate) wants_sync: bool,
    pub(crate) next_tick: u64,
    pub(crate) next_upkeep: u64,
}

pub(crate) struct Node {
    pub(crate) id: StoreId,
    pub(crate) fs: SimFs,
    pub(crate) process: Option<Process>,
    pub(crate) down_until: u64,
}

/// Small numbers, so that little data makes many pieces and windows fill.
pub(crate) fn config() -> MemberConfig {
    let mut config = MemberConfig::for_memory(8 << 20);
    config.core.window_items = 48;
    config.core.retain_items = 8;
    config.core.small_gap_items = 12;
    config.core.resend_micros = 20_000;
    config.core.gather_grace_micros = 5_000;
    config.core.manage_micros = 400_000;
    config.core.stall_micros = 300_000;
    config.core.ask_micros = 50_000;
    config.window_bytes = 8 << 10;
    config.recent_bytes = 10 << 10;
    config.piece_bytes = 700;
    config.tombstone_micros = 150_000;
    config.lazy_micros = 10_000;
    config
}

impl Node {
    pub(crate) fn new(id: StoreId, seed: u64) -> Node {
        Node { id, fs: SimFs::new(seed), process: None, down_until: 0 }
    }

    /// Starts a process over what the disk has.
    pub(crate) fn start(&mut self, now: u64, nonce: u64, out: &mut Outbox) {
        let parts = self.parts(nonce);
        let store = parts.store.clone();
        let member = Member::open(parts, Moment(now), out).unwrap();
        let (jobs, wants_sync) = (VecDeque::new(), false);
        let (next_tick, next_upkeep) = (now, now);
        self.process = Some(Process { store, member, jobs, wants_sync, next_tick, next_upkeep });
    }

    /// Opens the store.
    pub(crate) fn parts(&self, nonce: u64) -> MemberParts {
        let parts = Parts::new(Arc::new(self.fs.clone()), TestClock::new());
        let mut settings = Settings::default();
        settings.background_threads = false;
        settings.memory_bytes = 8 << 20;
        settings.memtable_bytes = Some(8 << 10);
        settings.wal_segment_bytes = 64 << 10;
        settings.blob_threshold_bytes = 200;
        let store = Store::open("/data", settings, parts).unwrap();
        MemberParts {
            rows: Rows::open(&store).unwrap(),
            store,
            fs: Arc::new(self.fs.clone()),
            shard: SHARD,
            me: self.id,
            nonce,
            config: config(),
        }
    }

    /// The process dies, and with it perhaps the power.
    pub(crate) fn crash(&mut self, power: bool, until: u64) {
        let fs = if power { self.fs.after_power_loss() } else { self.fs.after_kill() };
        self.fs = fs;
        self.process = None;
        self.down_until = until;
    }

    pub(crate) fn member(&self) -> Option<&Member> {
        self.process.as_ref().map(|process| &process.member)
    }
}

/// What a view at the checkpoint shows: key, version, value.
pub(crate) type Shown = Vec<(Bytes, u64, Bytes)>;

impl Process {
    pub(crate) fn sync(&mut self) -> u64 {
        self.wants_sync = false;
        let _synced = self.store.commit_at(self.store.visible(), Durability::Synced).wait();
        self.store.synced()
    }

    pub(crate) fn shown(&self) -> Shown {
        let view = View::at(self.member.checkpoint().op.version());
        let range = self.member.tree().range(.., &view, Direction::Forward).unwrap();
        range.map(|entry| entry.map(|(key, found)| (key, found.version, found.value)).unwrap()).collect()
    }
}
