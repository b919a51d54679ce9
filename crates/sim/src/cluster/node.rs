//! A machine: a device, and on it a store with the shard's member.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvorum_cluster::rehearsal::NodeSide;
use kvorum_cluster::shard::{Job, Member, MemberInput, MemberParts, Outbox, Rows, ShardId, wire};
use kvorum_engine::fs::sim::SimFs;
use kvorum_engine::{Durability, Error, Parts, Settings, Store};
use kvorum_sync::{Alarm, StoreId, Token};

use super::{Event, TICK_MICROS, UPKEEP_MICROS, World};
use crate::client::{Reply, Request};
use crate::dice::Dice;

pub(super) const SHARD: ShardId = ShardId { namespace: 0, place: 0 };

/// A process that runs.
pub(super) struct Up {
    pub(super) store: Store,
    rows: Rows,
    pub(super) member: Member,
    syncing: bool,
    pub(super) side: NodeSide,
    /// When it last looked for what is to be repeated.
    pub(super) looked: u64,
    pub(super) requests: BTreeMap<Token, Request>,
    pub(super) tokens: u64,
}

/// A machine.
pub(super) struct Node {
    pub(super) store_id: StoreId,
    pub(super) fs: SimFs,
    pub(super) boot: u64,
    pub(super) up: Option<Up>,
    pub(super) paused_until: u64,
    pub(super) slow_until: u64,
    /// The control plane hears nothing from it.
    pub(super) unheard_until: u64,
    /// Of its monotonic clock, in thousandths.
    pub(super) speed: u64,
    /// By how much its wall clock is ahead of that, in milliseconds.
    pub(super) ahead_ms: u64,
    skewed: bool,
}

impl Node {
    pub(super) fn new(store_id: StoreId, skewed: bool, dice: &mut Dice) -> Node {
        Node {
            store_id,
            fs: SimFs::new(dice.any()),
            boot: 0,
            up: None,
            paused_until: 0,
            slow_until: 0,
            unheard_until: 0,
            speed: if skewed { dice.range(960, 1041) } else { 1000 },
            ahead_ms: 0,
            skewed,
        }
    }
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.memory_bytes = 4 << 20;
    settings.wal_segment_bytes = 64 << 10;
    settings.disk_reserve_bytes = 1 << 12;
    settings.background_threads = false;
    settings
}

impl World {
    fn parts(&mut self, node: usize, store: &Store, rows: &Rows) -> MemberParts {
        let config = self.config.clone();
        let at = &self.nodes[node];
        MemberParts {
            store: store.clone(),
            fs: Arc::new(at.fs.clone()),
            rows: rows.clone(),
            shard: SHARD,
            me: at.store_id,
            nonce: self.dice.any(),
            config,
        }
    }

    /// Starts the process over what its device holds; tries again later if the device does not let it.
    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].up.is_some() {
            return;
        }
        let fs = self.nodes[node].fs.clone();
        let parts = Parts::new(Arc::new(fs.clone()), fs.clock());
        let opened =
            Store::open(Path::new("/data"), settings(), parts).map_err(|error| error.to_string()).and_then(
                |store| Rows::open(&store).map(|rows| (store, rows)).map_err(|error| error.to_string()),
            );
        match opened {
            Ok((store, rows)) => self.open_member(node, store, rows),
            Err(error) => self.not_started(node, &error),
        }
    }

    fn not_started(&mut self, node: usize, error: &str) {
        let id = self.nodes[node].store_id;
        self.trace.line(self.now, || format!("{id} does not start: {error}"));
        if self.now > self.plan.heal_at + 1_000_000 {
            self.fail(|| format!("start: {id} does not start though all is well: {error}"));
        }
        self.nodes[node].fs = self.nodes[node].fs.after_kill();
        self.after(50_000, Event::Restart { node });
    }

    fn open_member(&mut self, node: usize, store: Store, rows: Rows) {
        // What an earlier member wrote counts as durable for the next one: so it has to be.
        let synced = store.commit_at(store.visible(), Durability::Synced).wait();
        let parts = self.parts(node, &store, &rows);
        let (now, mut out) = (self.moment(node), Outbox::default());
        let opened = synced
            .map_err(|error| error.to_string())
            .and_then(|()| Member::open(parts, now, &mut out).map_err(|error| error.to_string()));
        let member = match opened {
            Ok(member) => member,
            Err(error) => {
                drop(store);
                self.not_started(node, &error);
                return;
            }
        };
        let at = &mut self.nodes[node];
        at.boot += 1;
        at.ahead_ms = if at.skewed { self.dice.range(0, 5_000) } else { 0 };
        let side = self.enter(node);
        let (requests, syncing) = (BTreeMap::new(), false);
        let up = Up { store, rows, member, syncing, side, looked: self.now, requests, tokens: 0 };
        let at = &mut self.nodes[node];
        at.up = Some(up);
        let (boot, id) = (at.boot, at.store_id);
        self.trace.line(self.now, || format!("{id} starts (run {boot})"));
        self.carry_out(node, out);
        self.after(TICK_MICROS, Event::Tick { node, boot });
        self.after(UPKEEP_MICROS, Event::Upkeep { node, boot });
        for other in 0..self.nodes.len() {
            self.tell_peers(node, other);
        }
    }

    /// The process dies, with the machine's power or without.
    pub(super) fn crash(&mut self, node: usize, power: bool, until: u64) {
        let at = &mut self.nodes[node];
        let Some(up) = at.up.take() else { return };
        at.fs = if power { at.fs.after_power_loss() } else { at.fs.after_kill() };
        at.paused_until = 0;
        let requests = up.requests;
        drop((up.member, up.store, up.rows));
        for request in requests.into_values() {
            self.answer(&request, Reply::Unknown);
        }
        for other in 0..self.nodes.len() {
            self.tell_peers(node, other);
        }
        self.at(until, Event::Restart { node });
    }

    pub(super) fn input(&mut self, node: usize, boot: u64, input: MemberInput) {
        if self.nodes[node].boot == boot {
            self.step(node, input);
        }
    }

    pub(super) fn step(&mut self, node: usize, input: MemberInput) {
        let (now, id) = (self.moment(node), self.nodes[node].store_id);
        let Some(up) = &mut self.nodes[node].up else { return };
        if !matches!(input, MemberInput::Tick) {
            self.trace.line(self.now, || format!("{id} ← {input:?}"));
        }
        let mut out = Outbox::default();
        up.member.step(now, input, &mut out);
        self.carry_out(node, out);
    }

    pub(super) fn arrives(&mut self, from: StoreId, to: StoreId, body: &Bytes) {
        let Some(node) = self.index_of(to) else { return };
        match wire::decode(body) {
            Ok((SHARD, message)) => self.step(node, MemberInput::Message { from, message }),
            Ok((shard, _)) => self.fail(|| format!("wire: a message for {shard:?}")),
            Err(expected) => self.fail(|| format!("wire: a message lacks {expected}")),
        }
    }

    pub(super) fn tick(&mut self, node: usize, boot: u64) {
        if self.nodes[node].boot != boot || self.nodes[node].up.is_none() {
            return;
        }
        self.after(TICK_MICROS, Event::Tick { node, boot });
        // The device's clock moves with its operations only, and whoever was told to come again later waits by it.
        self.nodes[node].fs.pass(Duration::from_micros(TICK_MICROS));
        self.repeat_lead(node);
        let idle = self.nodes[node].up.as_ref().is_some_and(|up| up.member.is_idle());
        if !idle {
            self.step(node, MemberInput::Tick);
        }
    }

    /// Floors rise, tables are flushed and compacted.
    pub(super) fn upkeep(&mut self, node: usize, boot: u64) {
        let now = self.moment(node);
        if self.nodes[node].boot != boot {
            return;
        }
        self.after(UPKEEP_MICROS, Event::Upkeep { node, boot });
        let (flushes, collects) = (self.dice.chance(0.3), self.plan.collect && self.dice.chance(0.7));
        let history_micros = self.dice.range(0, 60_000);
        let Some(up) = &mut self.nodes[node].up else { return };
        let mut out = Outbox::default();
        let kept = if collects { up.member.upkeep(now, history_micros, &mut out) } else { Ok(()) };
        // A device that is full lets nothing be written; the log says so to those who write.
        let flushed = if flushes { up.store.flush() } else { up.store.run_background().map(|_| ()) };
        let id = self.nodes[node].store_id;
        let errors: Vec<Error> = [kept.err(), flushed.err()].into_iter().flatten().collect();
        self.carry_out(node, out);
        for error in errors {
            self.trace.line(self.now, || format!("{id} upkeep: {error}"));
            if matches!(error, Error::Poisoned { .. }) {
                // The store takes no writes until it is opened again: the process goes.
                let again = self.now + 50_000;
                self.crash(node, false, again);
            }
        }
    }

    pub(super) fn job(&mut self, node: usize, boot: u64, job: Job) {
        if self.nodes[node].boot != boot {
            return;
        }
        let refused = self.dice.chance(0.02);
        let Some(up) = &mut self.nodes[node].up else { return };
        let done = if refused { job.refuse() } else { job.run(&up.store) };
        self.step(node, MemberInput::JobDone(Box::new(done)));
    }

    /// What was written is synced.
    pub(super) fn synced(&mut self, node: usize, boot: u64) {
        if self.nodes[node].boot != boot {
            return;
        }
        let syncs = self.duties.syncs_before_durable;
        let Some(up) = &mut self.nodes[node].up else { return };
        up.syncing = false;
        if !syncs {
            let written = up.store.visible();
            self.step(node, MemberInput::Durable(written));
            return;
        }
        match up.store.commit_at(up.store.visible(), Durability::Synced).wait() {
            Ok(()) => {
                let sequence = up.store.synced();
                self.step(node, MemberInput::Durable(sequence));
            }
            Err(error) => {
                let id = self.nodes[node].store_id;
                self.trace.line(self.now, || format!("{id} can't sync: {error}"));
                // The process goes: what it wrote and could not sync is nobody's.
                let again = self.now + 50_000;
                self.crash(node, true, again);
            }
        }
    }

    pub(super) fn carry_out(&mut self, node: usize, out: Outbox) {
        let boot = self.nodes[node].boot;
        let id = self.nodes[node].store_id;
        if !out.is_empty() {
            self.trace.line(self.now, || format!("{id} →   {out:?}"));
        }
        for send in out.sends {
            let mut body = Vec::new();
            wire::encode(SHARD, &send.message, &mut body);
            self.send(node, send.to, &body.into());
        }
        for (token, done) in out.done {
            self.done(node, token, done);
        }
        for job in out.jobs {
            let slow = self.dice.chance(0.1);
            let micros = if slow { self.dice.range(3_000, 80_000) } else { self.dice.range(50, 3_000) };
            self.after(micros, Event::Job { node, boot, job: Box::new(job) });
        }
        for report in out.reports {
            self.noticed(node, report);
        }
        for alarm in out.alarms {
            if !matches!(alarm, Alarm::NoSource) {
                self.fail(|| format!("digests: {id} says {alarm:?}, and nothing was damaged"));
            }
        }
        if out.written.is_some() {
            self.begin_sync(node);
        }
        if let Some(op) = out.visible {
            self.see(node, op);
        }
        if let Some(error) = out.halted {
            // Opened again when the store writes again; until then it is as dead.
            self.trace.line(self.now, || format!("{id} stands still: {error}"));
            let again = self.now + 50_000;
            self.crash(node, false, again);
        }
    }

    fn begin_sync(&mut self, node: usize) {
        let slow = self.nodes[node].slow_until > self.now;
        let micros = if slow { self.dice.range(20_000, 300_000) } else { self.dice.range(100, 2_000) };
        let boot = self.nodes[node].boot;
        let Some(up) = &mut self.nodes[node].up else { return };
        if !up.syncing {
            up.syncing = true;
            self.after(micros, Event::Synced { node, boot });
        }
    }
}
