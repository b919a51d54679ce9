//! Commands one after the other, or as one.

use super::record::{self, Named, RECORD_LIFE_MS, Remembered};
use super::view::{GroupView, Saw, stop};
use super::{
    Evaluated, Ground, ITEM_BYTES_MAX, ITEM_KEYS_MAX, Item, Look, Ops, Rests, Stopped, add, next_after,
};
use crate::execute::evaluation::{check_size, effect_bytes};
use crate::execute::overlay::{Change, Overlay};
use kvorum_engine::{Cached, Found, FoundKind};
use kvorum_model::{Args, CommandSpec, Effects, ErrorReply, Reply, Run, Stop};
use kvorum_sync::OpId;

/// What came of commands that are executed one by one.
#[derive(Debug, Default)]
pub(crate) struct Commanded<'r> {
    /// Of the commands up to where it stopped.
    pub(crate) done: Vec<Evaluated>,
    pub(crate) items: Vec<Item<'r>>,
    pub(crate) rests: Rests,
    pub(crate) stopped: Option<Stopped>,
}

/// What came of commands that are executed as one.
#[derive(Debug)]
pub(crate) enum Transacted<'r> {
    /// Their replies, or one that stands for all; what they change; what the replies rest on if they change nothing.
    Done { reply: Reply, item: Option<Item<'r>>, rests: Rests },
    /// A watched key has another version: that this is told rests on something, too.
    Changed(Rests),
    /// Something is not in memory.
    Stopped(Stopped),
}

/// A command under evaluation.
pub(crate) type Command<'r> = (&'static CommandSpec, Args<'r>);

/// Evaluates commands one by one. `named`: the request with an id among them.
pub(crate) fn commands<'r>(
    ground: &Ground<'_>,
    list: impl Iterator<Item = Command<'r>>,
    named: Option<(usize, Named<'_>)>,
) -> Commanded<'r> {
    let mut evaluator = Evaluator::new(ground);
    let mut commanded = Commanded::default();
    let mut bytes = 0;
    for (at, command) in list.enumerate() {
        if bytes >= ground.limits.batch_bytes_max {
            commanded.stopped = Some(Stopped::Full);
            break;
        }
        evaluator.close_full(&commanded.items);
        let named = named.filter(|(place, _)| *place == at).map(|(_, named)| named);
        let stop = match named.map(|named| evaluator.remembered(named, std::iter::once(command.1))) {
            Some(Err(stop)) => Err(stop),
            Some(Ok(Some(reply))) => Ok(reply),
            _ => evaluator.evaluate(command),
        };
        let reply = match stop {
            Ok(reply) => reply,
            Err(Stop::Error(error)) => Reply::Error(error),
            Err(Stop::WouldRead) => {
                commanded.stopped = Some(evaluator.stopped(named.is_some()));
                break;
            }
        };
        if evaluator.effects.is_empty() {
            evaluator.rest(&mut commanded.rests, command.0.name == "getv");
            commanded.done.push(Evaluated { reply, item: None });
            continue;
        }
        bytes += evaluator.effects.as_slice().iter().map(effect_bytes).sum::<u64>();
        let item = evaluator.take_effects(&mut commanded.items);
        if let (Some(named), Some(item)) = (named, commanded.items.get_mut(item)) {
            let fingerprint = record::fingerprint(std::iter::once(command.1.words()));
            item.record = Some(evaluator.record(named, fingerprint, &reply));
        }
        commanded.done.push(Evaluated { reply, item: Some(item) });
    }
    commanded
}

/// Evaluates commands as one, unless a watched key has another version.
pub(crate) fn transaction<'r>(
    ground: &Ground<'_>,
    list: &[Command<'r>],
    watched: &[(&[u8], u64)],
    named: Option<Named<'_>>,
) -> Transacted<'r> {
    let mut evaluator = Evaluator::new(ground);
    let words = || list.iter().map(|(_, args)| *args);
    let mut rests = Rests::default();
    match named.map(|named| evaluator.remembered(named, words())) {
        None | Some(Ok(None)) => {}
        Some(Ok(Some(reply))) => {
            evaluator.rest(&mut rests, false);
            return Transacted::Done { reply, item: None, rests };
        }
        Some(Err(Stop::WouldRead)) => return Transacted::Stopped(Stopped::ColdRecord),
        Some(Err(Stop::Error(error))) => {
            evaluator.rest(&mut rests, false);
            return Transacted::Done { reply: Reply::Error(error), item: None, rests };
        }
    }
    for (key, version) in watched {
        match evaluator.version_of(key) {
            Ok(found) if found == *version => evaluator.rest(&mut rests, false),
            Ok(_) => {
                let mut rests = Rests::default();
                evaluator.rest(&mut rests, false);
                return Transacted::Changed(rests);
            }
            Err(Stop::WouldRead) => return Transacted::Stopped(evaluator.stopped(false)),
            Err(Stop::Error(error)) => {
                return Transacted::Done { reply: Reply::Error(error), item: None, rests };
            }
        }
    }
    let mut replies = Vec::with_capacity(list.len());
    for (at, command) in list.iter().enumerate() {
        let evaluated = match command.0.run {
            Run::Keyspace(kind) => evaluator.all_keys(kind, command.1, at),
            _ => evaluator.evaluate(*command),
        };
        replies.push(match evaluated {
            Ok(reply) => reply,
            Err(Stop::Error(error)) => Reply::Error(error),
            Err(Stop::WouldRead) => return Transacted::Stopped(evaluator.stopped(false)),
        });
        evaluator.rest(&mut rests, false);
        evaluator.hold_effects();
    }
    let reply = Reply::Array(replies);
    let clears = evaluator.overlay.is_cleared(ground.namespace);
    let mut item = Item { clears, ..Item::default() };
    for change in evaluator.overlay.changes() {
        item.bytes += effect_bytes(&change.effect) as usize;
        item.effects.push(change.effect.clone());
    }
    if item.bytes as u64 > ground.limits.batch_bytes_max {
        let text =
            format!("ERR the transaction is over the limit of {} bytes", ground.limits.batch_bytes_max);
        let reply = Reply::Error(ErrorReply::new(text));
        return Transacted::Done { reply, item: None, rests: Rests { wanted: true, ..Rests::default() } };
    }
    if item.effects.is_empty() && !item.clears {
        return Transacted::Done { reply, item: None, rests };
    }
    item.record = named.map(|named| {
        let fingerprint = record::fingerprint(words().map(Args::words));
        evaluator.record(named, fingerprint, &reply)
    });
    // Its own changes are no reads of others'.
    item.reads = rests.ops.into_iter().filter(|op| *op != ground.next).collect();
    Transacted::Done { reply, item: Some(item), rests: Rests::default() }
}

/// The present versions of keys; 0: absent.
pub(crate) fn versions(
    ground: &Ground<'_>,
    keys: &[&[u8]],
) -> Result<(Vec<u64>, Rests), (Stopped, Option<ErrorReply>)> {
    let mut evaluator = Evaluator::new(ground);
    let mut rests = Rests { wanted: true, ..Rests::default() };
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        match evaluator.version_of(key) {
            Ok(version) => found.push(version),
            Err(Stop::WouldRead) => return Err((evaluator.stopped(false), None)),
            Err(Stop::Error(error)) => return Err((Stopped::Full, Some(error))),
        }
        evaluator.rest(&mut rests, false);
    }
    Ok((found, rests))
}

pub(super) struct Evaluator<'e, 'g, 'r> {
    pub(super) ground: &'e Ground<'g>,
    pub(super) overlay: Overlay<'r>,
    pub(super) effects: Effects<'r>,
    pub(super) saw: Saw,
    /// What is to be read of all keys, and for which command.
    pub(super) look: Option<(usize, Look)>,
    /// The item that is open, and the op id that the one after it gets.
    open: Option<OpId>,
    next: OpId,
    /// The item that remembers the request.
    met: Option<OpId>,
}

impl<'e, 'g, 'r> Evaluator<'e, 'g, 'r> {
    fn new(ground: &'e Ground<'g>) -> Evaluator<'e, 'g, 'r> {
        Evaluator {
            ground,
            overlay: Overlay::default(),
            effects: Effects::new(),
            saw: Saw::default(),
            look: None,
            open: None,
            next: ground.next,
            met: None,
        }
    }

    /// The next write opens an item if the open one has no room.
    fn close_full(&mut self, items: &[Item<'r>]) {
        let is_full = |item: &Item<'_>| item.effects.len() >= ITEM_KEYS_MAX || item.bytes >= ITEM_BYTES_MAX;
        if items.last().is_some_and(is_full) {
            self.open = None;
        }
    }

    fn evaluate(&mut self, (spec, args): Command<'r>) -> Result<Reply, Stop> {
        self.effects.clear();
        let run = match spec.run {
            Run::Data(run) => run,
            Run::Answer(answer) => return answer(args).map_err(Stop::Error),
            _ => {
                let text = format!("ERR {} is not for the keys of one shard", spec.name);
                return Err(Stop::Error(ErrorReply::new(text)));
            }
        };
        self.saw.reset();
        let view = GroupView {
            ground: self.ground,
            overlay: &self.overlay,
            saw: &self.saw,
            open: self.open,
            next: self.next,
        };
        let reply = kvorum_model::evaluate(run, args, &view, self.ground.now_ms, &mut self.effects)?;
        if let Err(stop) = check_size(self.ground.limits, self.effects.as_slice()) {
            self.effects.clear();
            return Err(stop);
        }
        Ok(reply)
    }

    fn version_of(&mut self, key: &[u8]) -> Result<u64, Stop> {
        self.saw.reset();
        let view = GroupView {
            ground: self.ground,
            overlay: &self.overlay,
            saw: &self.saw,
            open: None,
            next: self.next,
        };
        let meta = kvorum_model::View::meta(&view, key)?;
        Ok(meta.map_or(0, |meta| meta.version))
    }

    /// What the shard remembers of a request.
    fn remembered<'w>(
        &mut self,
        named: Named<'_>,
        words: impl Iterator<Item = Args<'w>>,
    ) -> Result<Option<Reply>, Stop> {
        self.effects.clear();
        self.saw.reset();
        let newest = kvorum_engine::View::newest();
        let found = match self.ground.tree.get_cached(named.key, &newest) {
            Ok(Cached::Ready(found)) => found,
            Ok(Cached::WouldRead) => named.fetched.ok_or(Stop::WouldRead)?.clone(),
            Err(error) => return Err(stop(error)),
        };
        let is_there = |found: &Found| {
            found.kind == FoundKind::Value && found.expires_at.is_none_or(|at| at > self.ground.now_ms)
        };
        let Some(found) = found.filter(is_there) else { return Ok(None) };
        let op = OpId::from_version(found.version);
        if !self.ground.leader.is_committed(op) {
            add(&mut self.saw.ops.borrow_mut(), op);
        }
        self.met = Some(op);
        let words: Vec<_> = words.collect();
        match record::decode(&found.value, record::fingerprint(words.iter().map(|args| args.words()))) {
            Some(Remembered::Reply(reply)) => Ok(Some(reply)),
            _ => Err(Stop::Error(ErrorReply::new("ERR the request id was used for another command"))),
        }
    }

    fn record(&self, named: Named<'_>, fingerprint: u128, reply: &Reply) -> (Vec<u8>, Vec<u8>, u64) {
        let expires_at = self.ground.now_ms.saturating_add(RECORD_LIFE_MS);
        (named.key.to_vec(), record::encode(fingerprint, reply), expires_at)
    }

    /// Notes what the last command has read. `labelled`: its reply says itself that something is in flight.
    fn rest(&self, rests: &mut Rests, labelled: bool) {
        rests.wanted = true;
        rests.met = rests.met.max(self.met);
        if !labelled {
            self.saw.ops.borrow().iter().for_each(|op| add(&mut rests.ops, *op));
        }
        let expired_at = self.saw.expired_at.get();
        let last = self.ground.leader.last_time_ms();
        if expired_at > last {
            rests.on_time = true;
        } else if expired_at > 0 && self.ground.next.serial() > 1 {
            // Carried by an item that may be in flight still: no item's time is later than the last one's.
            let last = OpId::new(self.ground.next.epoch(), self.ground.next.serial() - 1);
            if !self.ground.leader.is_committed(last) {
                add(&mut rests.ops, last);
            }
        }
    }

    /// Takes the last command's effects into the open item or another one; answers which.
    fn take_effects(&mut self, items: &mut Vec<Item<'r>>) -> usize {
        let namespace = self.ground.namespace;
        let is_written = |op: OpId| {
            let written = |key| self.overlay.version(namespace, key) == Some(op.version());
            self.effects.as_slice().iter().any(|effect| written(effect.key()))
        };
        let op = match self.open.filter(|open| !is_written(*open)) {
            Some(open) => open,
            None => {
                items.push(Item::default());
                let op = self.next;
                self.open = Some(op);
                self.next = next_after(op);
                op
            }
        };
        let place = items.len().saturating_sub(1);
        if let Some(item) = items.get_mut(place) {
            for read in self.saw.ops.borrow().iter().filter(|read| **read != op) {
                add(&mut item.reads, *read);
            }
            for effect in self.effects.as_slice() {
                item.bytes += effect_bytes(effect) as usize;
                item.effects.push(effect.clone());
            }
        }
        self.show_effects(op);
        place
    }

    /// Keeps the last command's effects for the end of the transaction.
    fn hold_effects(&mut self) {
        self.show_effects(self.ground.next);
    }

    fn show_effects(&mut self, op: OpId) {
        let namespace = self.ground.namespace;
        for effect in self.effects.as_slice() {
            self.overlay.set(Change { namespace, version: op.version(), effect: effect.clone() });
        }
    }

    fn stopped(&mut self, is_named: bool) -> Stopped {
        if let Some((at, look)) = self.look.take() {
            return Stopped::Look(at, look);
        }
        match self.saw.missing.borrow_mut().take() {
            Some((key, with_value)) => Stopped::Cold { key, with_value },
            None if is_named => Stopped::ColdRecord,
            None => Stopped::Full,
        }
    }
}

impl Rests {
    /// Op ids in the order in which they were seen.
    pub(crate) fn into_ops(self) -> Ops {
        self.ops
    }
}
