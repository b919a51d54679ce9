//! Commands over all keys within a transaction of one shard. The keys are read without the latch, where waiting does no harm, and count as long as
//! no item has come after.

use super::evaluator::Evaluator;
use super::{Ops, add};
use bytes::Bytes;
use kvorum_model::{Args, Effect, ErrorReply, Keyspace, Reply, Stop, check_flush, pattern_matches};
use kvorum_sync::OpId;
use std::collections::BTreeSet;

/// How often the keys are read for a transaction, at most, beyond once for each of its commands: others may write meanwhile.
const AGAIN_MAX: usize = 8;

/// What a command wants of all keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Those that match this pattern.
    Keys(Bytes),
    /// How many there are.
    Count,
    /// Any.
    RandomKey,
}

/// What is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) wanted: Wanted,
    /// Keys that do not count: those that the transaction has changed so far.
    pub(crate) hidden: BTreeSet<Vec<u8>>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Keys(Vec<Bytes>),
    Count(u64),
}

/// What was read of all keys for the commands of a transaction.
#[derive(Debug)]
pub(crate) struct AllKeys {
    /// The item that came next then.
    next: OpId,
    /// Items that were pending then.
    pending: Ops,
    /// Expiry was judged by this time, Unix milliseconds.
    now_ms: u64,
    looked: Vec<Looked>,
    times: usize,
}

#[derive(Debug)]
struct Looked {
    /// The command's place in the transaction.
    at: usize,
    look: Look,
    found: Found,
    /// The latest expiry that hid a key.
    expired_at: u64,
}

impl AllKeys {
    /// Nothing was read yet. The op id is none that an item gets.
    pub(crate) fn new() -> AllKeys {
        AllKeys { next: OpId::ZERO, pending: Ops::new(), now_ms: 0, looked: Vec::new(), times: 0 }
    }

    /// The time by which what was read was judged, if it counts still.
    pub(crate) fn time_before(&self, next: OpId) -> Option<u64> {
        (self.next == next).then_some(self.now_ms)
    }

    /// Another look begins, before the item `next`. What was read before another item counts no more.
    pub(crate) fn begin(&mut self, next: OpId, pending: Ops, now_ms: u64) {
        if self.next != next {
            (self.next, self.pending, self.now_ms) = (next, pending, now_ms);
            self.looked.clear();
        }
        self.times += 1;
    }

    /// Adds what was found.
    pub(crate) fn add(&mut self, at: usize, look: Look, found: Found, expired_at: u64) {
        self.looked.retain(|looked| looked.at != at);
        self.looked.push(Looked { at, look, found, expired_at });
    }

    /// Whether there is no use in reading on for so many commands.
    pub(crate) fn is_enough(&self, commands: usize) -> bool {
        self.times >= commands + AGAIN_MAX
    }

    fn get(&self, next: OpId, at: usize, look: &Look) -> Option<&Looked> {
        let looked = self.looked.iter().filter(|_| self.next == next);
        looked.into_iter().find(|looked| looked.at == at && looked.look == *look)
    }
}

impl Evaluator<'_, '_, '_> {
    /// The reply of a command over all keys, the one at this place. What it lacks is noted.
    pub(super) fn all_keys(&mut self, kind: Keyspace, args: Args<'_>, at: usize) -> Result<Reply, Stop> {
        self.effects.clear();
        self.saw.reset();
        let namespace = self.ground.namespace;
        let wanted = match kind {
            Keyspace::FlushDb => {
                check_flush(args).map_err(Stop::Error)?;
                self.overlay.clear(namespace);
                return Ok(Reply::Ok);
            }
            Keyspace::Keys => Wanted::Keys(Bytes::copy_from_slice(args.at(1))),
            Keyspace::DbSize => Wanted::Count,
            Keyspace::RandomKey => Wanted::RandomKey,
            Keyspace::Scan | Keyspace::FlushAll => {
                return Err(Stop::Error(ErrorReply::new("ERR this is not for the keys of one shard")));
            }
        };
        let mut found = match wanted {
            Wanted::Count => Found::Count(0),
            Wanted::Keys(_) | Wanted::RandomKey => Found::Keys(Vec::new()),
        };
        let changed = self.overlay.changes().iter();
        let hidden = changed.map(|change| change.effect.key().to_vec()).collect();
        let look = Look { wanted, hidden };
        if !self.overlay.is_cleared(namespace) {
            found = self.looked(at, &look)?;
        }
        let now_ms = self.ground.now_ms;
        for change in self.overlay.changes() {
            if let Effect::Put { key, expires_at, .. } = &change.effect
                && expires_at.is_none_or(|expires_at| expires_at > now_ms)
            {
                found.add(&look.wanted, key);
            }
        }
        Ok(match (found, look.wanted) {
            (Found::Count(count), _) => Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX)),
            (Found::Keys(keys), Wanted::RandomKey) => keys.into_iter().next().map_or(Reply::Nil, Reply::Bulk),
            (Found::Keys(keys), _) => Reply::Array(keys.into_iter().map(Reply::Bulk).collect()),
        })
    }

    fn looked(&mut self, at: usize, look: &Look) -> Result<Found, Stop> {
        let all = self.ground.all_keys;
        let Some((all, looked)) = all.and_then(|all| Some((all, all.get(self.ground.next, at, look)?)))
        else {
            self.look = Some((at, look.clone()));
            return Err(Stop::WouldRead);
        };
        for op in all.pending.iter().filter(|op| !self.ground.leader.is_committed(**op)) {
            add(&mut self.saw.ops.borrow_mut(), *op);
        }
        self.saw.expired_at.set(looked.expired_at);
        Ok(looked.found.clone())
    }
}

impl Found {
    /// Adds a key that the transaction has put.
    fn add(&mut self, wanted: &Wanted, key: &[u8]) {
        match (self, wanted) {
            (Found::Count(count), _) => *count += 1,
            (Found::Keys(keys), Wanted::RandomKey) if keys.is_empty() => {
                keys.push(Bytes::copy_from_slice(key));
            }
            (Found::Keys(keys), Wanted::Keys(pattern)) if pattern_matches(pattern, key) => {
                keys.push(Bytes::copy_from_slice(key));
            }
            _ => {}
        }
    }
}
