//! What a replica wants done, each with the condition that it waits for.

use crate::durable::Record;
use std::sync::Arc;

use crate::error::Refusal;
use crate::message::{KeyState, Message, Want, Way};
use crate::names::Names;
use crate::types::{Checkpoint, Epoch, OpId, RecordId, StoreId, Token, TransferId};

/// When an effect may be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum After {
    /// At once.
    Now,
    /// When this record, and so every record before it, is durable. If the replica stops before that, the effect is void.
    Durable(RecordId),
}

/// Over which connection a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The control connection: never behind data.
    Control,
    /// One of the data connections.
    Data(u8),
}

/// What became of an item whose fate a client waits for after its leader was deposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It stands: answer as if committed.
    Kept,
    /// It was retracted: surely not executed.
    Cancelled,
    /// Not known, and never will be here. The client is told so, in a code that no library repeats by itself.
    Unknown,
}

/// Why the control plane is asked for a new nomination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Ask {
    /// The epoch is at or below a promise: a fresh one is needed.
    StaleEpoch,
    /// A manager does not get to lead in its time.
    NotLeading,
    /// A leader commits nothing.
    NoCommit,
    /// The serials run out.
    Serials,
    /// The leader's data is the odd one against a majority.
    OddDigest,
    /// Storage or operator wants it.
    StepDown(crate::input::StepDown),
    /// The member is being rebuilt and may not manage.
    Rebuilding,
}

/// What an operator must hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// Digests differ at this point and no majority says which is right.
    Digests(OpId),
    /// A member was fenced at this point and will be rebuilt.
    Fenced(StoreId, OpId),
    /// A transfer found no source that can serve it.
    NoSource,
}

/// A wish of the core. The driver carries effects out in order, except that a waiting one holds up nothing behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Store the record, in one engine batch, behind all records before it. See [`Record`] for what must be atomic.
    Persist {
        /// Its name; [`crate::Input::Persisted`] says when it is durable.
        id: RecordId,
        /// What to store.
        record: Record,
        /// `Synced` always; otherwise the group's own durability class is enough (a group of one), or none at all (checkpoints).
        durability: Durability,
    },
    /// Send a message.
    Send {
        /// To whom.
        to: StoreId,
        /// Over which connection.
        lane: Lane,
        /// What.
        message: Message,
        /// When.
        after: After,
    },
    /// The proposal is an item now; its record and writes follow.
    Accepted {
        /// The proposal.
        token: Token,
        /// Its op id.
        op: OpId,
    },
    /// The proposal or read was surely not executed.
    Refused {
        /// The request.
        token: Token,
        /// Why.
        why: Refusal,
    },
    /// There is room again after [`Refusal::Busy`].
    Room,
    /// These items are committed, with everything in their reads: answer their clients.
    Committed {
        /// First.
        first: OpId,
        /// Last, of the same epoch.
        last: OpId,
    },
    /// This replica no longer leads. Clients of its uncommitted items wait for [`Effect::Settled`].
    Deposed,
    /// What became of an item of a deposed leader.
    Settled {
        /// The item.
        op: OpId,
        /// Its fate.
        outcome: Outcome,
    },
    /// The checkpoint moved: views of followers read at it, but only while [`crate::Replica::is_readable`]. Floors may rise to
    /// [`crate::Replica::floor_limit`], which waits for the record that carries it.
    Visible {
        /// The checkpoint.
        checkpoint: Checkpoint,
    },
    /// The reply may go out.
    ReadReady {
        /// The read.
        token: Token,
    },
    /// What the read rested on is gone, or this replica does not lead any more: evaluate it again (here or at the new leader).
    ReadAgain {
        /// The read.
        token: Token,
    },
    /// Answer the read from this store. For each key: at version `committed` if it is not zero (and if what is found there has another
    /// version, hand the read to the leader: two keys of one hash), else at the checkpoint.
    ReadHere {
        /// The read.
        token: Token,
        /// The view.
        checkpoint: OpId,
        /// For each key of the question, what the leader knows; `pending` gives the label.
        keys: Names<KeyState>,
    },
    /// Hand the read to the leader.
    ReadAtLeader {
        /// The read.
        token: Token,
        /// The leader, if known.
        leader: Option<StoreId>,
    },
    /// Pin a snapshot (on the first piece) and read a piece for a receiver; answer with [`crate::Input::PieceRead`], or
    /// [`crate::Input::PieceFailed`] if the history is gone: for final data if the tree's floor is above the target, for items if one is at or
    /// below both the floor and the own checkpoint. (Items above the own checkpoint are given with what stands of them, wherever the floor is:
    /// whoever adopts them shows nothing before the end of the basis.)
    ReadPiece {
        /// The transfer.
        transfer: TransferId,
        /// Its receiver.
        to: StoreId,
        /// The piece.
        number: u64,
        /// How.
        way: Way,
        /// What.
        want: Want,
        /// Begin behind this place (empty: at the start). Set on the first piece.
        cursor: Arc<[u8]>,
    },
    /// The transfer is over: unpin.
    EndServing {
        /// The transfer.
        transfer: TransferId,
    },
    /// Store the data that came with a piece: in the tree at its own versions if final, dropping what is above `ceiling`; else in the
    /// staging buffer until the [`Record::Adopt`] that names it. Answer with [`crate::Input::Ingested`].
    ///
    /// *Items and deltas* are put beside what is there, except what is at or below the tree's floor: that stands already.
    ///
    /// *Files* are put aside until the last piece, and then take, in one atomic step, the place of all that the tree has at or below the ceiling
    /// (what is absent from them is gone); own values above it stay, and so do the notes of items above the checkpoint. The same step sets the
    /// tree's floor to the ceiling and remembers it, for all later runs, as the least `gc_floor` (the source may have collected
    /// tombstones up to there). So the floor stands above the checkpoint until the record that follows, perhaps after a restart: until then
    /// [`crate::Replica::is_readable`] is false, and of items at or below the floor only the notes are stored and retracted.
    Ingest {
        /// The transfer.
        transfer: TransferId,
        /// The piece.
        number: u64,
        /// How it was read.
        way: Way,
        /// The ceiling of final data; none: stage it.
        ceiling: Option<OpId>,
    },
    /// The transfer is void: drop what is staged or half-shipped of it. Nothing of it may land behind this effect, also not from a job that
    /// is under way.
    DropTransfer {
        /// The transfer.
        transfer: TransferId,
    },
    /// This replica leads. Tell the control plane `led(epoch)`, again and again until it is known there.
    Lead {
        /// The reign.
        epoch: Epoch,
    },
    /// The leader can't be reached: tell the control plane.
    LeaderMissing {
        /// The reign.
        epoch: Epoch,
    },
    /// Ask the control plane for a nomination above `above`.
    Ask {
        /// Why.
        why: Ask,
        /// The highest reign known here.
        above: Epoch,
    },
    /// Tell the operator.
    Alarm(Alarm),
}

/// The durability that a record needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// Power loss must not take it: promises, adoptions, and the items of a group of more than one.
    Synced,
    /// The shard's own class: items of a group of one.
    Class,
    /// Whenever the next record goes: checkpoints.
    Lazy,
}

/// The effects of a step, in order; kept by the driver and reused, so that a step allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    list: Vec<Effect>,
}

impl Effects {
    /// An empty list.
    #[must_use]
    pub fn new() -> Effects {
        Effects::default()
    }

    /// What the steps since the last drain want.
    #[must_use]
    pub fn as_slice(&self) -> &[Effect] {
        &self.list
    }

    /// Takes the effects out, keeping the memory.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Effect> {
        self.list.drain(..)
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    pub(crate) fn send(&mut self, to: StoreId, message: Message) {
        self.list.push(Effect::Send { to, lane: Lane::Control, message, after: After::Now });
    }

    /// Adds a committed item, to the range before it where it continues that.
    pub(crate) fn committed(&mut self, op: OpId) {
        if let Some(Effect::Committed { last, .. }) = self.list.last_mut()
            && op.version() == last.version().wrapping_add(1)
        {
            *last = op;
        } else {
            self.list.push(Effect::Committed { first: op, last: op });
        }
    }
}
