//! Transactions over shards of which this node is the only member: evaluated as on a node alone, and stored as one item a shard, all of them in one
//! batch. With one member what is durable is committed, and the log keeps its order, so nothing else is to be waited for.

use super::evaluation::{Evaluation, effect_bytes};
use crate::error::Error;
use crate::keys::{shard_of, with_user_key};
use crate::latch::ShardId;
use crate::runtime::now;
use crate::shard::{Draft, Outbox, Writes};
use kvorum_engine::{Attributes, Batch, Sequence};
use kvorum_model::Effect;
use kvorum_sync::{Names, OpId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a transaction waits before it looks for room in a member's window again.
const ROOM_AFTER: Duration = Duration::from_millis(1);

/// This node is not the only one that keeps all of the shards, or does not lead one of them now.
#[derive(Debug)]
pub(crate) struct NotAlone;

/// What is to be stored by the members of the latched shards.
pub(crate) struct Grouped {
    /// The earliest of their last items' times, and what must be durable for all of those times.
    pub(super) noted: (u64, Sequence),
    /// What each shard's item will hold.
    drafts: BTreeMap<ShardId, Writes>,
    /// What came of it: to be carried out once the latches are given back.
    done: Vec<Proposed>,
}

/// An item that a member took, and what it wants.
pub(crate) struct Proposed {
    pub(crate) shard: ShardId,
    /// None if the store refused it.
    pub(crate) op: Option<OpId>,
    pub(crate) out: Outbox,
}

impl Grouped {
    pub(super) fn writes(&mut self, shard: ShardId) -> &mut Writes {
        self.drafts.entry(shard).or_default()
    }
}

impl Evaluation<'_, '_> {
    /// From here on the members of the latched shards store what is written.
    pub(crate) fn group(&mut self) -> Result<(), NotAlone> {
        let mut noted = (u64::MAX, 0);
        for (shard, writer) in self.latches.iter_mut() {
            let member = writer.member.as_deref().filter(|member| member.leads_alone()).ok_or(NotAlone)?;
            let tree = self.inner.tree(shard).ok_or(NotAlone)?;
            let next = member.next_op().filter(|_| tree.id() == member.tree().id()).ok_or(NotAlone)?;
            self.now_ms = member.time_ms(self.now_ms);
            noted = (noted.0.min(member.item_time_ms()), noted.1.max(member.last_write()));
            let sequence = member.last_write();
            writer.follow_member(next, sequence);
        }
        self.time_used_ms = self.now_ms;
        self.grouped = Some(Grouped { noted, drafts: BTreeMap::new(), done: Vec::new() });
        Ok(())
    }

    /// What the members want, after the latches were given back.
    pub(crate) fn take_proposed(&mut self) -> Vec<Proposed> {
        self.grouped.as_mut().map(|grouped| std::mem::take(&mut grouped.done)).unwrap_or_default()
    }

    /// Adds everything that the transaction has changed to the drafts. Answers whether there is anything.
    pub(super) fn hold_to_drafts(&mut self) -> bool {
        let Some(grouped) = &mut self.grouped else { return false };
        for namespace in self.overlay.cleared() {
            ShardId::all_of(*namespace).for_each(|shard| grouped.writes(shard).clear());
        }
        for change in self.overlay.changes() {
            let shard = shard_of(change.namespace, change.effect.key());
            add(grouped.writes(shard), &change.effect);
        }
        !grouped.drafts.is_empty()
    }

    /// Proposes the drafts to their members, and writes them as one batch.
    pub(super) fn propose(&mut self) -> Result<(), Error> {
        let on_time = self.rests.take_on_time();
        let Some(grouped) = &mut self.grouped else { return Ok(()) };
        let mut drafts = std::mem::take(&mut grouped.drafts);
        if on_time {
            // Something was told as expired: items that carry the time.
            for (shard, _) in self.latches.iter_mut() {
                drafts.entry(shard).or_default();
            }
        }
        if drafts.is_empty() {
            return Ok(());
        }
        let bytes: u64 = self.overlay.changes().iter().map(|change| effect_bytes(&change.effect)).sum();
        if bytes > self.inner.limits.batch_bytes_max {
            let limit = self.inner.limits.batch_bytes_max;
            return Err(Error::TooLarge(format!(
                "transaction of {bytes} bytes is over the limit of {limit}"
            )));
        }
        self.inner.store.admission()?;
        for shard in drafts.keys() {
            let member = self.latches.get_mut(*shard).and_then(|writer| writer.member.as_deref_mut());
            let has_room = member.is_some_and(|member| member.room().is_ok());
            if !has_room {
                return Err(Error::Busy { retry_after: ROOM_AFTER });
            }
        }
        self.store_drafts(drafts)
    }

    fn store_drafts(&mut self, drafts: BTreeMap<ShardId, Writes>) -> Result<(), Error> {
        let Some(grouped) = &mut self.grouped else { return Ok(()) };
        let (mut batch, now) = (Batch::new(), now());
        let mut refused = None;
        for (shard, writes) in drafts {
            let member = self.latches.get_mut(shard).and_then(|writer| writer.member.as_deref_mut());
            let Some(member) = member else { continue };
            let mut proposed = Proposed { shard, op: None, out: Outbox::default() };
            let draft = Draft { token: None, wall_ms: self.now_ms, writes, reads: Names::none() };
            match member.propose(now, draft, &mut batch, &mut proposed.out) {
                Ok(op) => proposed.op = Some(op),
                // All were asked for room, under the latches that are held still.
                Err(why) => {
                    refused = Some(kvorum_engine::Error::Invalid(format!("{why:?} after there was room")));
                }
            }
            grouped.done.push(proposed);
        }
        let stored = match refused {
            None => self.inner.store.write_admitted(&batch, self.durability),
            Some(error) => Err(error),
        };
        for proposed in grouped.done.iter_mut().filter(|proposed| proposed.op.is_some()) {
            let member = self.latches.get_mut(proposed.shard).and_then(|writer| writer.member.as_deref_mut());
            match (member, &stored) {
                (Some(member), Ok(commit)) => member.stored(commit.sequence(), &mut proposed.out),
                (Some(member), Err(error)) => {
                    proposed.op = None;
                    member.lost(error.clone(), &mut proposed.out);
                }
                (None, _) => {}
            }
        }
        self.rests.on(stored?.sequence());
        Ok(())
    }
}

/// Adds an effect to what an item writes.
pub(crate) fn add(writes: &mut Writes, effect: &Effect<'_>) {
    with_user_key(effect.key(), |key| match effect {
        Effect::Put { value, expires_at, tag, .. } => {
            writes.put(key, value.as_slice(), Attributes { expires_at: *expires_at, tag: *tag });
        }
        Effect::Delete { .. } => writes.delete(key, Attributes::default()),
    });
}
