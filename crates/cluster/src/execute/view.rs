//! What a command sees: the overlay of its buffer, over the newest state of the trees, over what was fetched for it from the disk.

use super::overlay::{Overlay, Seen};
use super::plan::KnownShard;
use crate::error::Error;
use crate::keys::with_user_key;
use crate::latch::{Latches, ShardId};
use crate::namespace::{Mode, NamespaceId};
use crate::node::Inner;
use crate::prefetch::Fetched;
use kvorum_engine::{Cached, FoundKind, Sequence};
use kvorum_model::{Effect, ErrorReply, Meta, Record, Stop, TAG_STRING, View};
use std::cell::{Cell, RefCell};

/// What the replies of a buffer rest on: they may be sent once that is durable.
#[derive(Default)]
pub(crate) struct Rests {
    /// Highest sequence that was read or written.
    sequence: Cell<Sequence>,
    /// Whether something was told as expired at a time that the store does not know yet.
    on_time: Cell<bool>,
}

impl Rests {
    pub(crate) fn on(&self, sequence: Sequence) {
        self.sequence.set(self.sequence.get().max(sequence));
    }

    pub(crate) fn sequence(&self) -> Sequence {
        self.sequence.get()
    }

    pub(crate) fn need_time(&self) {
        self.on_time.set(true);
    }

    /// Whether the time must be noted; it is, after this.
    pub(crate) fn take_on_time(&self) -> bool {
        self.on_time.take()
    }
}

/// Which key a command could not be evaluated for, and whether its value is needed.
pub(crate) struct Missing {
    pub(crate) key: Vec<u8>,
    pub(crate) with_value: bool,
}

/// The view of one command.
pub(crate) struct BufferView<'a, 'n, 'r> {
    pub(crate) inner: &'n Inner,
    pub(crate) namespace: NamespaceId,
    /// The command's time, Unix milliseconds.
    pub(crate) now_ms: u64,
    pub(crate) overlay: &'a Overlay<'r>,
    pub(crate) latches: &'a Latches<'n>,
    pub(crate) fetched: &'a Fetched,
    pub(crate) known: &'a KnownShard,
    pub(crate) rests: &'a Rests,
    /// Of shards whose members store what is written: the time that their items carry at least, and what must be durable for that.
    pub(crate) noted: Option<(u64, Sequence)>,
    pub(crate) missing: &'a RefCell<Option<Missing>>,
    /// Set when the command read what its buffer wrote.
    pub(crate) saw_overlay: &'a Cell<bool>,
    /// The command's timestamp in an available namespace, once it has asked for one.
    pub(crate) stamp: &'a Cell<Option<u64>>,
}

impl BufferView<'_, '_, '_> {
    /// Whether something with this expiry is gone; notes that the reply rests on it.
    fn is_expired(&self, expires_at: Option<u64>) -> bool {
        let Some(expires_at) = expires_at.filter(|at| *at <= self.now_ms) else { return false };
        let noted = match self.noted {
            Some((noted_ms, sequence)) => (expires_at <= noted_ms).then_some(sequence),
            None => self.inner.time.noted_by(expires_at),
        };
        match noted {
            Some(sequence) => self.rests.on(sequence),
            None => self.rests.need_time(),
        }
        true
    }

    fn missing(&self, key: &[u8], with_value: bool) -> Stop {
        *self.missing.borrow_mut() = Some(Missing { key: key.to_vec(), with_value });
        Stop::WouldRead
    }

    /// What was fetched of the key, if it is the newest still.
    fn fetched(&self, shard: ShardId, key: &[u8], with_value: bool) -> Option<&crate::prefetch::FetchedKey> {
        let found = self.fetched.get(self.namespace, key, with_value)?;
        let is_newest = found.mark.is_none_or(|mark| {
            self.latches.get(shard).is_some_and(|writer| writer.fetching.is_newest(key, mark))
        });
        is_newest.then_some(found)
    }

    fn in_tree(&self, key: &[u8]) -> Result<Option<Record>, Stop> {
        let shard = self.known.shard_of(self.namespace, key);
        let Some(tree) = self.inner.tree(shard) else { return Ok(None) };
        let found =
            match with_user_key(key, |tree_key| tree.get_cached(tree_key, &kvorum_engine::View::newest())) {
                Ok(Cached::Ready(found)) => found,
                Ok(Cached::WouldRead) => match self.fetched(shard, key, true) {
                    Some(fetched) => fetched.record.clone(),
                    None => return Err(self.missing(key, true)),
                },
                Err(error) => return Err(stop(error)),
            };
        let Some(found) = found else { return Ok(None) };
        self.rests.on(found.sequence);
        if found.kind == FoundKind::Tombstone || self.is_expired(found.expires_at) {
            return Ok(None);
        }
        let (version, value, expires_at) = (found.version, found.value, found.expires_at);
        Ok(Some(Record { version, value, expires_at, tag: self.data_type(found.tag) }))
    }

    fn meta_in_tree(&self, key: &[u8]) -> Result<Option<Meta>, Stop> {
        let shard = self.known.shard_of(self.namespace, key);
        let Some(tree) = self.inner.tree(shard) else { return Ok(None) };
        let view = kvorum_engine::View::newest();
        let found = match with_user_key(key, |tree_key| tree.version_of_cached(tree_key, &view)) {
            Ok(Cached::Ready(found)) => found,
            Ok(Cached::WouldRead) => match self.fetched(shard, key, false) {
                Some(fetched) => fetched.version,
                None => return Err(self.missing(key, false)),
            },
            Err(error) => return Err(stop(error)),
        };
        let Some(found) = found else { return Ok(None) };
        self.rests.on(found.sequence);
        if found.kind == FoundKind::Tombstone || self.is_expired(found.expires_at) {
            return Ok(None);
        }
        let (version, expires_at) = (found.version, found.expires_at);
        Ok(Some(Meta { version, expires_at, tag: self.data_type(found.tag) }))
    }

    /// In an available namespace the tag is `from`, and all values are strings.
    fn data_type(&self, tag: u8) -> u8 {
        match self.namespace.mode() {
            Mode::Strong => tag,
            Mode::Available => TAG_STRING,
        }
    }
}

fn stop(error: kvorum_engine::Error) -> Stop {
    Stop::Error(ErrorReply::new(Error::from(error).resp()))
}

impl View for BufferView<'_, '_, '_> {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, Stop> {
        let change = match self.overlay.get(self.namespace, key) {
            Seen::Nothing => return self.in_tree(key),
            Seen::Cleared => {
                self.saw_overlay.set(true);
                return Ok(None);
            }
            Seen::Change(change) => change,
        };
        self.saw_overlay.set(true);
        Ok(match &change.effect {
            Effect::Put { value, expires_at, tag, .. } if !self.is_expired(*expires_at) => Some(Record {
                version: change.version,
                value: value.to_bytes(),
                expires_at: *expires_at,
                tag: *tag,
            }),
            _ => None,
        })
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Meta>, Stop> {
        let change = match self.overlay.get(self.namespace, key) {
            Seen::Nothing => return self.meta_in_tree(key),
            Seen::Cleared => {
                self.saw_overlay.set(true);
                return Ok(None);
            }
            Seen::Change(change) => change,
        };
        self.saw_overlay.set(true);
        Ok(match &change.effect {
            Effect::Put { expires_at, tag, .. } if !self.is_expired(*expires_at) => {
                Some(Meta { version: change.version, expires_at: *expires_at, tag: *tag })
            }
            _ => None,
        })
    }

    fn next_version(&self, key: &[u8]) -> u64 {
        if self.namespace.mode() == Mode::Available {
            return stamp(self.inner, self.stamp);
        }
        let rewritten_at = self.overlay.version(self.namespace, key);
        let shard = self.known.shard_of(self.namespace, key);
        // Only a command that writes asks, and its shards are latched.
        self.latches.get(shard).map_or(0, |writer| writer.next(rewritten_at))
    }
}

/// The timestamp of the command under evaluation.
pub(crate) fn stamp(inner: &Inner, stamp: &Cell<Option<u64>>) -> u64 {
    let value = stamp.get().unwrap_or_else(|| inner.hybrid.stamp(inner.time.now()));
    stamp.set(Some(value));
    value
}
