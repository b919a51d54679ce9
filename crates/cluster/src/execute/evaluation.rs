//! The evaluation of requests under one set of latches.

use super::blocked::{Needs, Room};
use super::grouped::Grouped;
use super::overlay::{Change, Overlay};
use super::plan::{Isolation, KnownShard, Plan};
use super::view::{BufferView, Missing, Rests, stamp};
use super::writing::put;
use crate::error::Error;
use crate::keys::USER_KEY_BYTES_MAX;
use crate::latch::{Latches, ShardId};
use crate::namespace::{Mode, NamespaceId, numbered};
use crate::namespaces::Namespace;
use crate::node::{Inner, Limits, Node};
use crate::prefetch::Fetched;
use crate::session::Request;
use kvorum_engine::{Batch, Durability, Sequence};
use kvorum_model::{DataFn, Effect, Effects, ErrorReply, Keyspace, Reply, Run, Stop, check_flush};
use std::cell::{Cell, RefCell};

/// What the store adds to each write, in bytes, at most.
const WRITE_OVERHEAD_BYTES: u64 = 64;

/// How a request ended.
pub(crate) enum Step {
    /// A reply was added.
    Done,
    /// It needs this first.
    Blocked(Needs),
}

/// Requests under evaluation, with the latches of their shards. The latches are given back before anything fetched is dropped, which takes them.
pub(crate) struct Evaluation<'n, 'r> {
    pub(super) node: &'n Node,
    pub(super) inner: &'n Inner,
    pub(super) latches: Latches<'n>,
    pub(super) now_ms: u64,
    /// The highest time that was used: `now_ms`, or the hybrid time.
    pub(super) time_used_ms: u64,
    pub(super) isolation: Isolation,
    /// What the writes survive once the replies may be sent.
    pub(super) durability: Durability,
    pub(super) overlay: Overlay<'r>,
    effects: Effects<'r>,
    pub(super) batch: Batch,
    /// The place of the first request that was evaluated since a batch was written.
    pub(super) batch_from: usize,
    /// Replies that were given on the assumption that `batch` is written.
    pub(super) dependents: Vec<usize>,
    shards: &'n [Option<ShardId>],
    known: KnownShard,
    pub(super) rests: Rests,
    pub(super) missing: RefCell<Option<Missing>>,
    stamp: Cell<Option<u64>>,
    /// The key of the record of the request under evaluation, if it has an id.
    pub(super) named: Option<Vec<u8>>,
    /// Set if members store what is written.
    pub(super) grouped: Option<Grouped>,
    pub(super) fetched: Fetched,
    /// Fetched and of no use any more.
    pub(super) spent: Fetched,
}

impl<'n, 'r> Evaluation<'n, 'r> {
    /// Waits for the latches.
    pub(crate) fn new(
        node: &'n Node,
        plan: &'n Plan,
        isolation: Isolation,
        fetched: Fetched,
    ) -> Evaluation<'n, 'r> {
        let inner = &*node.inner;
        let latches = Latches::take(&inner.namespaces, &plan.latches);
        // After the latches: not below the time of any write that is seen.
        let now_ms = inner.time.now();
        let mut evaluation = Evaluation {
            node,
            inner,
            latches,
            now_ms,
            time_used_ms: now_ms,
            isolation,
            durability: plan.durability,
            overlay: Overlay::default(),
            effects: Effects::new(),
            batch: Batch::new(),
            batch_from: 0,
            dependents: Vec::new(),
            shards: &plan.shards,
            known: KnownShard::default(),
            rests: Rests::default(),
            missing: RefCell::default(),
            stamp: Cell::default(),
            named: None,
            grouped: None,
            fetched,
            spent: Fetched::default(),
        };
        if plan.alone {
            evaluation.renew_worn_epochs();
        }
        evaluation
    }

    /// A shard that has used nearly all serials of its epoch goes on in the next one, which becomes durable with its first writes.
    fn renew_worn_epochs(&mut self) {
        for writer in self.latches.writers().filter(|writer| writer.is_worn()) {
            // Without a next epoch the writes that follow end in the serials that are left: a reserve of millions.
            if let Ok(epoch) = self.inner.system.next_epoch(&mut self.batch) {
                writer.begin_epoch(epoch);
            }
        }
    }

    /// Evaluates a request, the one at this place, and adds its reply. `last`: nothing after it looks at what it changes.
    pub(crate) fn step(
        &mut self,
        request: &Request<'r>,
        at: usize,
        last: bool,
        replies: &mut Vec<Reply>,
    ) -> Step {
        let reply = match request.spec.run {
            Run::Data(run) => match self.data(run, request, at, last, replies) {
                Ok(reply) => reply,
                Err(room) => return Step::Blocked(Needs::Room(room)),
            },
            Run::Keyspace(kind @ (Keyspace::FlushDb | Keyspace::FlushAll)) => match check_flush(request.args)
            {
                Ok(()) if kind == Keyspace::FlushDb => self.flush(&[request.namespace], replies.len()),
                Ok(()) => self.flush(&numbered().collect::<Vec<_>>(), replies.len()),
                Err(error) => Err(Stop::Error(error)),
            },
            Run::Keyspace(kind) => match self.keyspace(kind, request, at) {
                Ok(reply) => reply,
                Err(reading) => return Step::Blocked(Needs::Keyspace(at, reading)),
            },
            Run::Answer(answer) => answer(request.args).map_err(Stop::Error),
            Run::Session(_) | Run::Container => {
                let name = request.spec.name;
                Err(Stop::Error(ErrorReply::new(format!("ERR {name} concerns the connection, not the data"))))
            }
        };
        match reply {
            Ok(reply) => replies.push(reply),
            Err(Stop::Error(error)) => replies.push(Reply::Error(error)),
            Err(Stop::WouldRead) => return Step::Blocked(Needs::Keys),
        }
        Step::Done
    }

    fn data(
        &mut self,
        run: DataFn,
        request: &Request<'r>,
        at: usize,
        last: bool,
        replies: &mut [Reply],
    ) -> Result<Result<Reply, Stop>, Room> {
        let is_named = self.named.is_some() && self.isolation == Isolation::Each;
        if is_named && let Some(reply) = self.remembered(std::slice::from_ref(request)) {
            return Ok(reply);
        }
        let saw_overlay = Cell::new(false);
        self.known = KnownShard::of(request, self.shards.get(at).copied().flatten());
        let reply = self.evaluate(run, request, &saw_overlay).and_then(|reply| {
            check_size(self.inner.limits, self.effects.as_slice())?;
            Ok(reply)
        });
        if reply.is_err() {
            return Ok(reply);
        }
        if !self.effects.is_empty() {
            let bytes =
                self.batch.bytes() as u64 + self.effects.as_slice().iter().map(effect_bytes).sum::<u64>();
            if self.isolation == Isolation::Each && bytes > self.inner.limits.batch_bytes_max {
                self.write(at, replies)?;
            }
            self.apply(request.namespace, last);
            if let (true, Ok(reply)) = (is_named, &reply) {
                self.remember(std::slice::from_ref(request), reply);
            }
        }
        if saw_overlay.get() || !self.effects.is_empty() {
            self.dependents.push(replies.len());
        }
        Ok(reply)
    }

    fn evaluate(
        &mut self,
        run: DataFn,
        request: &Request<'r>,
        saw_overlay: &Cell<bool>,
    ) -> Result<Reply, Stop> {
        let namespace = request.namespace;
        let mut now_ms = self.now_ms;
        if namespace.mode() == Mode::Available {
            request.spec.check_available(request.args)?;
            now_ms = self.inner.hybrid.now_ms(now_ms);
            self.time_used_ms = self.time_used_ms.max(now_ms);
        }
        self.stamp.set(None);
        let view = BufferView {
            inner: self.inner,
            namespace,
            now_ms,
            overlay: &self.overlay,
            latches: &self.latches,
            fetched: &self.fetched,
            known: &self.known,
            rests: &self.rests,
            noted: self.grouped.as_ref().map(|grouped| grouped.noted),
            missing: &self.missing,
            saw_overlay,
            stamp: &self.stamp,
        };
        kvorum_model::evaluate(run, request.args, &view, now_ms, &mut self.effects)
    }

    /// Takes the effects of a command over: into the batch, and into the overlay for the commands that follow.
    fn apply(&mut self, namespace: NamespaceId, last: bool) {
        let hold = self.isolation == Isolation::All;
        if namespace.mode() == Mode::Strong {
            self.prepare_writers(namespace);
        }
        for effect in self.effects.as_slice() {
            let shard = self.known.shard_of(namespace, effect.key());
            let Some(writer) = self.latches.get_mut(shard) else { continue };
            writer.fetching.written(effect.key());
            let version = match namespace.mode() {
                Mode::Available => stamp(self.inner, &self.stamp),
                Mode::Strong if hold => writer.next(None),
                Mode::Strong => writer.write(),
            };
            if !hold && let Some(tree) = self.inner.tree(shard) {
                put(&mut self.batch, tree, version, namespace, effect);
            }
            if hold || !last {
                self.overlay.set(Change { namespace, version, effect: effect.clone() });
            }
        }
    }

    /// A command's writes to one shard make one item: none may find its key in the open one.
    fn prepare_writers(&mut self, namespace: NamespaceId) {
        for effect in self.effects.as_slice() {
            let rewritten_at = self.overlay.version(namespace, effect.key());
            let shard = self.known.shard_of(namespace, effect.key());
            if let Some(writer) = self.latches.get_mut(shard) {
                writer.prepare(rewritten_at);
            }
        }
    }

    /// Empties namespaces, in constant time.
    fn flush(&mut self, namespaces: &[NamespaceId], reply: usize) -> Result<Reply, Stop> {
        if let Some(available) = namespaces.iter().find(|namespace| namespace.mode() == Mode::Available) {
            let name = self.inner.namespaces.get(available.id()).map(Namespace::name).unwrap_or_default();
            let remedy = if available.is_built_in() { "" } else { ": drop and create it" };
            let text = format!("ERR {name} is an available namespace, which can't be flushed{remedy}");
            return Err(Stop::Error(ErrorReply::new(text)));
        }
        for namespace in namespaces {
            for shard in ShardId::all_of(*namespace) {
                let Some(writer) = self.latches.get_mut(shard) else { continue };
                writer.fetching.all_written();
                if self.isolation == Isolation::Each
                    && let Some(tree) = self.inner.tree(shard)
                {
                    // An item of its own, above all writes before it; those after it open another.
                    writer.close();
                    self.batch.clear(tree, writer.write());
                    writer.close();
                }
            }
            self.overlay.clear(*namespace);
        }
        self.dependents.push(reply);
        Ok(Reply::Ok)
    }

    /// The sequence that all replies rest on, and how durable it must be.
    pub(crate) fn rests_on(&self) -> (Sequence, Durability) {
        (self.rests.sequence(), self.durability)
    }

    /// The present version of a key; 0 if it is absent.
    pub(crate) fn version_of(&self, namespace: NamespaceId, key: &[u8]) -> Result<u64, Stop> {
        let saw_overlay = Cell::new(false);
        let view = BufferView {
            inner: self.inner,
            namespace,
            now_ms: self.now_ms,
            overlay: &self.overlay,
            latches: &self.latches,
            fetched: &self.fetched,
            known: &self.known,
            rests: &self.rests,
            noted: self.grouped.as_ref().map(|grouped| grouped.noted),
            missing: &self.missing,
            saw_overlay: &saw_overlay,
            stamp: &self.stamp,
        };
        let meta = kvorum_model::View::meta(&view, key)?;
        Ok(meta.map_or(0, |meta| meta.version))
    }
}

/// Refuses what the store would not take, before anything is changed.
pub(crate) fn check_size(limits: Limits, effects: &[Effect<'_>]) -> Result<(), Stop> {
    for effect in effects {
        let key = effect.key().len();
        if key > USER_KEY_BYTES_MAX {
            return Err(too_large("key", key as u64, USER_KEY_BYTES_MAX as u64, "a fixed limit"));
        }
        if let Effect::Put { value, .. } = effect {
            let value = value.as_slice().len() as u64;
            if value > limits.value_bytes_max {
                return Err(too_large("value", value, limits.value_bytes_max, "max_value_bytes"));
            }
        }
    }
    let bytes = effects.iter().map(effect_bytes).sum();
    if bytes > limits.batch_bytes_max {
        return Err(too_large("command", bytes, limits.batch_bytes_max, "an eighth of memory_bytes"));
    }
    Ok(())
}

pub(super) fn effect_bytes(effect: &Effect<'_>) -> u64 {
    let value = match effect {
        Effect::Put { value, .. } => value.as_slice().len(),
        Effect::Delete { .. } => 0,
    };
    (effect.key().len() + value) as u64 + WRITE_OVERHEAD_BYTES
}

fn too_large(what: &str, size: u64, limit: u64, setting: &str) -> Stop {
    let text = format!("{what} of {size} bytes is over the limit of {limit} ({setting})");
    Stop::Error(ErrorReply::new(Error::TooLarge(text).resp()))
}
