//! From a buffer's effects to a batch in the store.

use super::blocked::Room;
use super::evaluation::Evaluation;
use crate::error::Error;
use crate::keys::{shard_of, with_user_key};
use crate::namespace::{Mode, NamespaceId};
use crate::node::ROOM_WAIT_MAX;
use kvorum_engine::{Attributes, Batch, Tree};
use kvorum_model::{Effect, Reply};
use std::time::Duration;

/// The tag of an entry in an available namespace: the number of its copies. A node alone keeps one.
pub(crate) const FROM_ONE: u8 = 1;

impl Evaluation<'_, '_> {
    /// Adds everything that a transaction has changed to the batch, of each key the last change. Answers whether there is anything.
    pub(crate) fn hold_to_batch(&mut self) -> bool {
        if self.grouped.is_some() {
            return self.hold_to_drafts();
        }
        for namespace in self.overlay.cleared() {
            for (shard, tree) in self.inner.trees(*namespace) {
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
        !self.batch.is_empty()
    }

    /// Writes the batch; the requests from `next` on go into another. If the store does not take it, the replies that assumed it become the
    /// error, unless waiting may help.
    pub(super) fn write(&mut self, next: usize, replies: &mut [Reply]) -> Result<(), Room> {
        let from = std::mem::replace(&mut self.batch_from, next);
        let dependents = std::mem::take(&mut self.dependents);
        let Err(error) = self.try_write() else { return Ok(()) };
        // What was shown on top of the trees never came to be.
        self.overlay.reset();
        if let Some(retry_after) = self.may_wait(&error) {
            return Err(Room { from, retry_after });
        }
        // What was fetched may be older than what was written before.
        self.spent = std::mem::take(&mut self.fetched);
        for at in dependents {
            if let Some(reply) = replies.get_mut(at) {
                *reply = error.reply();
            }
        }
        Ok(())
    }

    /// How long to wait before the store may take what it has refused.
    pub(crate) fn may_wait(&self, error: &Error) -> Option<Duration> {
        match error {
            Error::Busy { retry_after } if self.fetched.waited < ROOM_WAIT_MAX => Some(*retry_after),
            _ => None,
        }
    }

    /// Writes the batch, if there is anything in it.
    pub(crate) fn try_write(&mut self) -> Result<(), Error> {
        if self.grouped.is_some() {
            return self.propose();
        }
        let note_time =
            self.rests.take_on_time() || (!self.batch.is_empty() && self.inner.time.is_stale(self.now_ms));
        if note_time {
            self.inner.system.put_time(&mut self.batch, self.time_used_ms);
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        match self.inner.store.write(&batch, self.durability) {
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
}

pub(super) fn put(batch: &mut Batch, tree: &Tree, version: u64, namespace: NamespaceId, effect: &Effect<'_>) {
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
