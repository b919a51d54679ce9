//! What a driver tells a replica.

use std::sync::Arc;

use crate::item::Proposal;
use crate::membership::{Members, Membership};
use crate::message::{Message, ReadWhat};
use crate::names::Names;
use crate::types::{Epoch, OpId, RecordId, StoreId, Token, TransferId};

/// Something that happened. [`crate::Replica::step`] turns it into effects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A message arrived, from the store that the connection's handshake named.
    Message {
        /// Who sent it.
        from: StoreId,
        /// What it says.
        message: Message,
    },
    /// Time passed. Give one every few milliseconds while something is in flight, and whenever [`crate::Replica::is_idle`] is false.
    Tick,
    /// Every record up to this one is durable in its class, in the order in which they were handed out.
    Persisted {
        /// The last durable record.
        upto: RecordId,
    },
    /// Write this (leader).
    Propose(Proposal),
    /// The control plane named this store the manager of a new reign.
    Nominate {
        /// The reign, fresh.
        epoch: Epoch,
        /// Its member lists.
        membership: Membership,
    },
    /// The control plane's list of learners of this shard (leader). They are caught up and fed, and count nowhere.
    Learners(Members),
    /// A node pair's connection came up or broke.
    Peer {
        /// The other store.
        store: StoreId,
        /// Whether it can be reached.
        reachable: bool,
    },
    /// A reply without effects wants out (leader): it was computed from the newest state and rests on these pending items.
    Read {
        /// The driver's name for it.
        token: Token,
        /// Pending items that it saw.
        rests_on: Names<OpId>,
    },
    /// A read arrived at a follower: may it be answered here?
    FollowerRead {
        /// The driver's name for it.
        token: Token,
        /// Which keys.
        what: ReadWhat,
        /// A labelled read takes what is in flight with a label instead of waiting.
        labelled: bool,
    },
    /// The tree's floors: what this replica may serve as items or delta. Tell them whenever they moved (before anything is dropped on their
    /// account), and once at the start, behind the effects of [`crate::Replica::recover`]: then `floor` is at least the durable checkpoint,
    /// because the last transfer may have brought items in part, and `gc_floor` at least the ceiling of the last files taken in.
    Floors {
        /// History below is gone.
        floor: OpId,
        /// The highest tombstone dropped.
        gc_floor: OpId,
    },
    /// The driver read a piece that [`crate::Effect::ReadPiece`] asked for; it sends the data beside the [`Message::Piece`] that follows.
    PieceRead {
        /// The transfer.
        transfer: TransferId,
        /// The piece.
        number: u64,
        /// Items of the piece, where it carries whole items.
        items: Vec<OpId>,
        /// Where the piece ends, for a receiver that has to go on elsewhere.
        cursor: Arc<[u8]>,
        /// Set on the last piece: the doubtful items whose values the pinned snapshot has.
        end: Option<Vec<OpId>>,
    },
    /// The driver could not read what was asked (history gone, disk error): another source must serve it.
    PieceFailed {
        /// The transfer.
        transfer: TransferId,
    },
    /// A piece that [`crate::Effect::Ingest`] handed over is durable (staged pieces: in the buffer).
    Ingested {
        /// The transfer.
        transfer: TransferId,
        /// The piece.
        number: u64,
    },
    /// Storage or operator wants this replica to stop leading.
    StepDown(StepDown),
}

/// Why a leader should hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum StepDown {
    /// The store refuses writes after a failed write or fsync.
    Poisoned,
    /// The disk is full.
    DiskFull,
    /// The own fsync is slow against the others'.
    SlowDisk,
    /// An operator drains the node: proposals stop, what is pending settles, then the hand-over is asked for.
    Drain,
}
