//! The evaluation of requests under one set of latches.

use super::overlay::{Change, Overlay};
use super::plan::{Isolation, Plan, strong};
use super::view::{BufferView, Missing, Rests, stamp};
use crate::error::Error;
use crate::keys::{SHARDS, USER_KEY_BYTES_MAX, shard_of, with_user_key};
use crate::keyspace::Reading;
use crate::namespace::{Mode, NamespaceId};
use crate::node::{Inner, Node};
use crate::prefetch::{Fetched, Interest, Prefetch, WantedKey, Work};
use crate::session::Request;
use crate::shard::{Latches, ShardId};
use kvorum_engine::{Attributes, Batch, Sequence, Tree};
use kvorum_model::{Effect, Effects, ErrorReply, Keyspace, Reply, Run, Stop, check_flush};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// What the store adds to each write, in bytes, at most.
const WRITE_OVERHEAD_BYTES: u64 = 64;

/// Keys that are fetched together at most, those that the blocked request itself needs not counted.
const LOOKAHEAD_KEYS_MAX: usize = 64;

/// How often a transaction's command over all keys is read again because they have changed meanwhile.
const SCANS_MAX: usize = 8;

/// The tag of an entry in an available namespace: the number of its copies. A node alone keeps one.
pub(crate) const FROM_ONE: u8 = 1;

/// How a request ended.
pub(crate) enum Step {
    /// A reply was added.
    Done,
    /// It needs this first.
    Blocked(Needs),
}

/// What a blocked request needs.
pub(crate) enum Needs {
    /// The keys that it reads.
    Keys,
    /// All keys.
    Keyspace(usize, Box<Reading>),
}

/// Requests under evaluation, with the latches of their shards. The latches are given back before anything fetched is dropped, which takes them.
pub(crate) struct Evaluation<'n, 'r> {
    node: &'n Node,
    inner: &'n Inner,
    latches: Latches<'n>,
    now_ms: u64,
    /// The highest time that was used: `now_ms`, or the hybrid time.
    time_used_ms: u64,
    isolation: Isolation,
    overlay: Overlay<'r>,
    effects: Effects<'r>,
    batch: Batch,
    /// Replies that were given on the assumption that `batch` is written.
    dependents: Vec<usize>,
    rests: Rests,
    missing: RefCell<Option<Missing>>,
    stamp: Cell<Option<u64>>,
    fetched: Fetched,
    /// Fetched and of no use any more.
    spent: Fetched,
}

impl<'n, 'r> Evaluation<'n, 'r> {
    /// Waits for the latches.
    pub(crate) fn new(
        node: &'n Node,
        plan: &Plan,
        isolation: Isolation,
        fetched: Fetched,
    ) -> Evaluation<'n, 'r> {
        let inner = &*node.inner;
        let latches = Latches::take(&inner.shards, &plan.latches);
        // After the latches: not below the time of any write that is seen.
        let now_ms = inner.time.now();
        let mut evaluation = Evaluation {
            node,
            inner,
            latches,
            now_ms,
            time_used_ms: now_ms,
            isolation,
            overlay: Overlay::default(),
            effects: Effects::new(),
            batch: Batch::new(),
            dependents: Vec::new(),
            rests: Rests::default(),
            missing: RefCell::default(),
            stamp: Cell::default(),
            fetched,
            spent: Fetched::default(),
        };
        evaluation.renew_worn_epochs();
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
            Run::Data(_) => self.data(request, last, replies),
            Run::Keyspace(kind @ (Keyspace::FlushDb | Keyspace::FlushAll)) => match check_flush(request.args)
            {
                Ok(()) if kind == Keyspace::FlushDb => self.flush(&[request.namespace], replies),
                Ok(()) => self.flush(&strong().collect::<Vec<_>>(), replies),
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

    fn data(&mut self, request: &Request<'r>, last: bool, replies: &mut [Reply]) -> Result<Reply, Stop> {
        let Run::Data(run) = request.spec.run else { return Ok(Reply::Nil) };
        let namespace = request.namespace;
        let mut now_ms = self.now_ms;
        if namespace.mode() == Mode::Available {
            request.spec.check_available(request.args)?;
            now_ms = self.inner.hybrid.now_ms(now_ms);
            self.time_used_ms = self.time_used_ms.max(now_ms);
        }
        let saw_overlay = Cell::new(false);
        let view = BufferView {
            inner: self.inner,
            namespace,
            now_ms,
            overlay: &self.overlay,
            latches: &self.latches,
            fetched: &self.fetched,
            rests: &self.rests,
            missing: &self.missing,
            saw_overlay: &saw_overlay,
            stamp: &self.stamp,
        };
        self.stamp.set(None);
        let reply = kvorum_model::evaluate(run, request.args, &view, now_ms, &mut self.effects)?;
        if !self.effects.is_empty() {
            self.check_size()?;
            if self.isolation == Isolation::Each {
                self.make_room(replies);
            }
            self.apply(namespace, last);
        }
        if saw_overlay.get() || !self.effects.is_empty() {
            self.dependents.push(replies.len());
        }
        Ok(reply)
    }

    /// Refuses what the store would not take, before anything is changed.
    fn check_size(&self) -> Result<(), Stop> {
        let limits = self.inner.limits;
        for effect in self.effects.as_slice() {
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
        let bytes = self.effect_bytes();
        if bytes > limits.batch_bytes_max {
            return Err(too_large("command", bytes, limits.batch_bytes_max, "an eighth of memory_bytes"));
        }
        Ok(())
    }

    fn effect_bytes(&self) -> u64 {
        self.effects.as_slice().iter().map(effect_bytes).sum()
    }

    /// Writes the batch if the command's effects don't fit in it any more.
    fn make_room(&mut self, replies: &mut [Reply]) {
        if self.batch.bytes() as u64 + self.effect_bytes() > self.inner.limits.batch_bytes_max {
            self.write(replies);
        }
    }

    /// Takes the effects of a command over: into the batch, and into the overlay for the commands that follow.
    fn apply(&mut self, namespace: NamespaceId, last: bool) {
        let hold = self.isolation == Isolation::All;
        if namespace.mode() == Mode::Strong {
            self.prepare_writers(namespace);
        }
        for effect in self.effects.as_slice() {
            let shard = shard_of(namespace, effect.key());
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
            let shard = shard_of(namespace, effect.key());
            if let Some(writer) = self.latches.get_mut(shard) {
                writer.prepare(rewritten_at);
            }
        }
    }

    /// Empties namespaces, in constant time.
    fn flush(&mut self, namespaces: &[NamespaceId], replies: &mut [Reply]) -> Result<Reply, Stop> {
        if namespaces.iter().any(|namespace| namespace.mode() == Mode::Available) {
            let name = self.inner.settings.entity_namespace.as_str();
            let text =
                format!("ERR {name} is an available namespace, which can't be flushed: drop and create it");
            return Err(Stop::Error(ErrorReply::new(text)));
        }
        for namespace in namespaces {
            for place in 0..SHARDS {
                let shard = ShardId::of(*namespace, place);
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
        self.dependents.push(replies.len());
        Ok(Reply::Ok)
    }

    /// The reply of a command over all keys, or what is to be read for it. `at`: its place among the requests.
    fn keyspace(
        &mut self,
        kind: Keyspace,
        request: &Request<'_>,
        at: usize,
    ) -> Result<Result<Reply, Stop>, Box<Reading>> {
        let mut reading = match Reading::parse(self.inner, kind, request) {
            Ok(reading) => Box::new(reading),
            Err(error) => return Ok(Err(Stop::Error(error))),
        };
        let scanned = self.fetched.scanned.iter().find(|(of, _)| *of == at).map(|(_, scanned)| scanned);
        if self.isolation == Isolation::Each {
            // Read after everything before it was written, so the trees have shown all.
            let Some(scanned) = scanned else { return Err(reading) };
            self.rests.on(scanned.rests_on);
            return Ok(Ok(scanned.answer.clone().into_reply()));
        }
        let namespace = request.namespace;
        let mut answer = reading.empty();
        if !self.overlay.is_cleared(namespace) {
            reading.hidden = self.hidden(namespace, reading.is_page());
            let Some(scanned) = scanned else { return Err(reading) };
            if scanned.hidden != reading.hidden || self.has_changed(namespace, scanned.as_of) {
                return if self.fetched.scans < SCANS_MAX { Err(reading) } else { Ok(Err(keeps_changing())) };
            }
            answer = scanned.answer.clone();
            self.rests.on(scanned.rests_on);
        }
        for change in self.overlay.changes().iter().filter(|change| change.namespace == namespace) {
            if let Effect::Put { key, tag, .. } = change.effect {
                reading.add(&mut answer, key, tag);
            }
        }
        Ok(Ok(answer.into_reply()))
    }

    /// The keys that a transaction has changed, or (for a page of a scan) deleted.
    fn hidden(&self, namespace: NamespaceId, deleted_only: bool) -> BTreeSet<Vec<u8>> {
        let changes = self.overlay.changes().iter().filter(|change| change.namespace == namespace);
        let changes =
            changes.filter(|change| !deleted_only || matches!(change.effect, Effect::Delete { .. }));
        changes.map(|change| change.effect.key().to_vec()).collect()
    }

    /// Whether a shard of the namespace was written to behind a sequence. Asked by transactions, which hold all its latches.
    fn has_changed(&self, namespace: NamespaceId, as_of: Sequence) -> bool {
        let mut shards = (0..SHARDS).map(|place| self.latches.get(ShardId::of(namespace, place)));
        shards.any(|writer| writer.is_some_and(|writer| writer.sequence() > as_of))
    }

    /// Adds everything that a transaction has changed to the batch, of each key the last change.
    pub(crate) fn hold_to_batch(&mut self) {
        for namespace in strong().filter(|namespace| self.overlay.is_cleared(*namespace)) {
            for (shard, tree) in self.inner.trees(namespace) {
                if let Some(writer) = self.latches.get_mut(shard) {
                    self.batch.clear(tree, writer.write());
                }
            }
        }
        for change in self.overlay.changes() {
            let shard = shard_of(change.namespace, change.effect.key());
            let Some(tree) = self.inner.tree(shard) else { continue };
            let version = match (change.namespace.mode(), self.latches.get_mut(shard)) {
                (Mode::Strong, Some(writer)) => writer.write(),
                _ => change.version,
            };
            put(&mut self.batch, tree, version, change.namespace, &change.effect);
        }
    }

    /// Writes the batch. If the store does not take it, the replies that assumed it become the error.
    pub(crate) fn write(&mut self, replies: &mut [Reply]) {
        if let Err(error) = self.try_write() {
            for at in &self.dependents {
                if let Some(reply) = replies.get_mut(*at) {
                    *reply = error.reply();
                }
            }
            // What was shown on top of the trees never came to be, and what was fetched may be older than what was written before.
            self.overlay.reset();
            self.spent = std::mem::take(&mut self.fetched);
        }
        self.dependents.clear();
    }

    /// Writes the batch, if there is anything in it.
    pub(crate) fn try_write(&mut self) -> Result<(), Error> {
        let note_time =
            self.rests.take_on_time() || (!self.batch.is_empty() && self.inner.time.is_stale(self.now_ms));
        if note_time {
            self.inner.system.put_time(&mut self.batch, self.time_used_ms);
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        match self.inner.store.write(batch, self.node.durability()) {
            Ok(commit) => {
                let sequence = commit.sequence();
                self.rests.on(sequence);
                self.latches.writers().for_each(|writer| writer.taken(sequence));
                if note_time {
                    self.inner.time.note(self.time_used_ms, sequence);
                }
                Ok(())
            }
            Err(error) => {
                self.latches.writers().for_each(|writer| writer.refused());
                Err(error.into())
            }
        }
    }

    /// The sequence that all replies rest on.
    pub(crate) fn rests_on(&self) -> Sequence {
        self.rests.sequence()
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
            rests: &self.rests,
            missing: &self.missing,
            saw_overlay: &saw_overlay,
            stamp: &self.stamp,
        };
        let meta = kvorum_model::View::meta(&view, key)?;
        Ok(meta.map_or(0, |meta| meta.version))
    }

    /// The work that the first of `rest` is blocked on. `again`: it is the request that the fetched records were fetched for, and may need
    /// them still.
    pub(crate) fn prefetch(&mut self, needs: Needs, rest: &[Request<'_>], again: bool) -> Prefetch {
        let work = match needs {
            // Outside of a transaction the blocked request is the first when it is executed again.
            Needs::Keyspace(_, reading) if self.isolation == Isolation::Each => Work::Keyspace(0, reading),
            Needs::Keyspace(at, reading) => Work::Keyspace(at, reading),
            Needs::Keys => Work::Keys(self.wanted(rest)),
        };
        let had = std::mem::take(&mut self.fetched);
        if again {
            return Prefetch::new(self.node, work, had);
        }
        self.spent = had;
        Prefetch::new(self.node, work, Fetched::default())
    }

    /// The key that was missing; all keys of the blocked request, which needs them at once; and some of those like it that follow.
    fn wanted(&mut self, rest: &[Request<'_>]) -> Vec<WantedKey> {
        let (Some(missing), Some(blocked)) = (self.missing.take(), rest.first()) else { return Vec::new() };
        let mut wanted: BTreeMap<(NamespaceId, &[u8]), bool> = BTreeMap::new();
        wanted.insert((blocked.namespace, &missing.key), true);
        for (at, request) in rest.iter().enumerate() {
            let is_alike = std::ptr::eq(request.spec, blocked.spec);
            if at == 0 || (is_alike && wanted.len() < LOOKAHEAD_KEYS_MAX) {
                for key in request.spec.keys_of(request.args) {
                    wanted.entry((request.namespace, key)).or_insert(at == 0);
                }
            }
        }
        let wanted = wanted.into_iter();
        wanted
            .map(|((namespace, key), needed)| self.want(namespace, key, missing.with_value, needed))
            .collect()
    }

    /// A key to be fetched; if its shard is latched, for a command that must see its newest state.
    fn want(&mut self, namespace: NamespaceId, key: &[u8], with_value: bool, needed: bool) -> WantedKey {
        let shard = shard_of(namespace, key);
        let interest = self.latches.get_mut(shard).map(|writer| {
            let mark = writer.fetching.begin(key);
            Interest { node: self.node.clone(), shard, key: key.to_vec(), mark }
        });
        WantedKey { namespace, shard, key: key.to_vec(), with_value, needed, interest }
    }

    /// The work for the keys that a connection watches.
    pub(crate) fn prefetch_watched(&mut self, keys: &[(NamespaceId, &[u8])]) -> Prefetch {
        let keys = keys.iter().map(|(namespace, key)| self.want(*namespace, key, false, true)).collect();
        let had = std::mem::take(&mut self.fetched);
        Prefetch::new(self.node, Work::Keys(keys), had)
    }
}

fn put(batch: &mut Batch, tree: &Tree, version: u64, namespace: NamespaceId, effect: &Effect<'_>) {
    let of = |tag| match namespace.mode() {
        Mode::Strong => tag,
        Mode::Available => FROM_ONE,
    };
    with_user_key(effect.key(), |key| match effect {
        Effect::Put { value, expires_at, tag, .. } => {
            let attributes = Attributes { expires_at: *expires_at, tag: of(*tag) };
            batch.put(tree, key, version, value.as_slice(), attributes);
        }
        Effect::Delete { .. } => {
            batch.delete(tree, key, version, Attributes { expires_at: None, tag: of(0) });
        }
    });
}

fn effect_bytes(effect: &Effect<'_>) -> u64 {
    let value = match effect {
        Effect::Put { value, .. } => value.as_slice().len(),
        Effect::Delete { .. } => 0,
    };
    (effect.key().len() + value) as u64 + WRITE_OVERHEAD_BYTES
}

fn keeps_changing() -> Stop {
    Stop::Error(ErrorReply::new(
        "BUSY the keys change faster than they can be read inside MULTI: ask outside of it",
    ))
}

fn too_large(what: &str, size: u64, limit: u64, setting: &str) -> Stop {
    let text = format!("{what} of {size} bytes is over the limit of {limit} ({setting})");
    Stop::Error(ErrorReply::new(Error::TooLarge(text).resp()))
}
