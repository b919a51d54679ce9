//! What a command sees at the leader: the overlay of its buffer, over the newest state of the tree, over what was fetched for it from the disk.

use super::{Ground, Ops, add};
use crate::error::Error;
use crate::execute::overlay::{Overlay, Seen};
use crate::keys::with_user_key;
use kvorum_engine::{Cached, FoundKind};
use kvorum_model::{Effect, ErrorReply, Label, Meta, Record, Stop, View};
use kvorum_sync::OpId;
use std::cell::{Cell, RefCell};

/// What a command has read, and so rests on.
#[derive(Default)]
pub(super) struct Saw {
    /// Items not known to be committed.
    pub(super) ops: RefCell<Ops>,
    /// The latest expiry by which something was told as gone; 0: none.
    pub(super) expired_at: Cell<u64>,
    /// What is not in memory: the key, and whether its value is wanted.
    pub(super) missing: RefCell<Option<(Vec<u8>, bool)>>,
    /// Something in flight was seen.
    pub(super) in_flight: Cell<bool>,
}

impl Saw {
    pub(super) fn reset(&self) {
        self.ops.borrow_mut().clear();
        self.expired_at.set(0);
        self.in_flight.set(false);
    }
}

pub(super) struct GroupView<'v, 'g, 'r> {
    pub(super) ground: &'v Ground<'g>,
    pub(super) overlay: &'v Overlay<'r>,
    pub(super) saw: &'v Saw,
    /// The op id of the item that the command's effects join, unless they write one of its keys again.
    pub(super) open: Option<OpId>,
    /// The op id of the item after it.
    pub(super) next: OpId,
}

/// The buffer has cleared the shard.
struct Cleared;

impl GroupView<'_, '_, '_> {
    fn is_expired(&self, expires_at: Option<u64>) -> bool {
        let Some(expires_at) = expires_at.filter(|at| *at <= self.ground.now_ms) else { return false };
        self.saw.expired_at.set(self.saw.expired_at.get().max(expires_at));
        true
    }

    /// Notes that something of this version was read.
    fn rest_on(&self, version: u64) {
        let op = OpId::from_version(version);
        if !self.ground.leader.is_committed(op) {
            self.saw.in_flight.set(true);
            add(&mut self.saw.ops.borrow_mut(), op);
        }
    }

    /// Notes that nothing was found: a clear may have taken it away.
    fn rest_on_absence(&self) {
        if let Some(clear) = self.ground.leader.pending_clear() {
            self.rest_on(clear.version());
        }
    }

    fn missing(&self, key: &[u8], with_value: bool) -> Stop {
        *self.saw.missing.borrow_mut() = Some((key.to_vec(), with_value));
        Stop::WouldRead
    }

    /// What was fetched of the key, if it is the newest still.
    fn fetched(&self, key: &[u8], with_value: bool) -> Option<&crate::prefetch::FetchedKey> {
        let found = self.ground.fetched.get(self.ground.namespace, key, with_value)?;
        let is_newest = found.mark.is_some_and(|mark| self.ground.fetching.is_newest(key, mark));
        is_newest.then_some(found)
    }

    fn in_tree(&self, key: &[u8]) -> Result<Option<Record>, Stop> {
        let newest = kvorum_engine::View::newest();
        let found = match with_user_key(key, |tree_key| self.ground.tree.get_cached(tree_key, &newest)) {
            Ok(Cached::Ready(found)) => found,
            Ok(Cached::WouldRead) => match self.fetched(key, true) {
                Some(fetched) => fetched.record.clone(),
                None => return Err(self.missing(key, true)),
            },
            Err(error) => return Err(stop(error)),
        };
        let Some(found) = found else {
            self.rest_on_absence();
            return Ok(None);
        };
        self.rest_on(found.version);
        if found.kind == FoundKind::Tombstone {
            self.rest_on_absence();
            return Ok(None);
        }
        if self.is_expired(found.expires_at) {
            return Ok(None);
        }
        let (version, value, expires_at, tag) = (found.version, found.value, found.expires_at, found.tag);
        Ok(Some(Record { version, value, expires_at, tag }))
    }

    fn meta_in_tree(&self, key: &[u8]) -> Result<Option<Meta>, Stop> {
        let newest = kvorum_engine::View::newest();
        let found = match with_user_key(key, |tree_key| self.ground.tree.version_of_cached(tree_key, &newest))
        {
            Ok(Cached::Ready(found)) => found,
            Ok(Cached::WouldRead) => match self.fetched(key, false) {
                Some(fetched) => fetched.version,
                None => return Err(self.missing(key, false)),
            },
            Err(error) => return Err(stop(error)),
        };
        let Some(found) = found else {
            self.rest_on_absence();
            return Ok(None);
        };
        self.rest_on(found.version);
        if found.kind == FoundKind::Tombstone {
            self.rest_on_absence();
            return Ok(None);
        }
        if self.is_expired(found.expires_at) {
            return Ok(None);
        }
        Ok(Some(Meta { version: found.version, expires_at: found.expires_at, tag: found.tag }))
    }

    /// The buffer's own change of a key, noted as read; `Err`: there is none, and the tree does not count either.
    fn changed(&self, key: &[u8]) -> Result<Option<(u64, &Effect<'_>)>, Cleared> {
        match self.overlay.get(self.ground.namespace, key) {
            Seen::Change(change) => {
                self.saw.in_flight.set(true);
                add(&mut self.saw.ops.borrow_mut(), OpId::from_version(change.version));
                Ok(Some((change.version, &change.effect)))
            }
            Seen::Nothing => Ok(None),
            Seen::Cleared => Err(Cleared),
        }
    }
}

pub(super) fn stop(error: kvorum_engine::Error) -> Stop {
    Stop::Error(ErrorReply::new(Error::from(error).resp()))
}

impl View for GroupView<'_, '_, '_> {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, Stop> {
        let (version, effect) = match self.changed(key) {
            Ok(Some(changed)) => changed,
            Ok(None) => return self.in_tree(key),
            Err(Cleared) => return Ok(None),
        };
        Ok(match effect {
            Effect::Put { value, expires_at, tag, .. } if !self.is_expired(*expires_at) => {
                Some(Record { version, value: value.to_bytes(), expires_at: *expires_at, tag: *tag })
            }
            _ => None,
        })
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Meta>, Stop> {
        let (version, effect) = match self.changed(key) {
            Ok(Some(changed)) => changed,
            Ok(None) => return self.meta_in_tree(key),
            Err(Cleared) => return Ok(None),
        };
        Ok(match effect {
            Effect::Put { expires_at, tag, .. } if !self.is_expired(*expires_at) => {
                Some(Meta { version, expires_at: *expires_at, tag: *tag })
            }
            _ => None,
        })
    }

    fn next_version(&self, key: &[u8]) -> u64 {
        let written_at = self.overlay.version(self.ground.namespace, key);
        let op = self.open.filter(|open| written_at != Some(open.version())).unwrap_or(self.next);
        op.version()
    }

    fn label(&self, _key: &[u8]) -> Label {
        if self.saw.in_flight.get() { Label::New } else { Label::Stable }
    }
}
