//! What replicas say to each other. Any message may be lost, repeated, delayed or overtaken; none needs an order.

use std::sync::Arc;

use crate::item::Item;
use crate::membership::Membership;
use crate::names::Names;
use crate::types::{
    Checkpoint, Digest, Epoch, KeyHash, Moment, OpId, Promise, Standing, StoreId, TransferId,
};

/// A message between two replicas of one shard. Rare large ones are boxed, so that the frequent ones stay small.
///
/// The driver carries values beside two of them: with [`Message::Write`] the item's keys and values, with [`Message::Piece`] what the
/// source's driver read for that piece.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Manager → member: promise to follow this reign, and tell your tail.
    Gather(Box<Gather>),
    /// Member → manager: promised, durably.
    Promised(Box<Promised>),
    /// Member → manager or leader: a higher reign (or another manager of this one) has my promise.
    Refused {
        /// The reign that was refused.
        epoch: Epoch,
        /// The reign promised.
        promised: Epoch,
    },
    /// Manager or leader → member: become part of this reign.
    Adopt(Box<Adopt>),
    /// Member → manager or leader: I stand in the reign, durably.
    Adopted {
        /// The reign.
        epoch: Epoch,
        /// The member's checkpoint.
        checkpoint: OpId,
        /// Whether it counts.
        standing: Standing,
    },
    /// Leader → follower: store this item. The commit point travels along.
    Write {
        /// The reign.
        epoch: Epoch,
        /// The item; its values travel beside the message.
        item: Item,
        /// Every item up to here is committed.
        point: OpId,
    },
    /// Follower → leader: these serials of the reign are durable here.
    Ack {
        /// The reign.
        epoch: Epoch,
        /// First serial.
        first: u64,
        /// Last serial.
        last: u64,
        /// The follower's checkpoint.
        checkpoint: OpId,
    },
    /// Leader → follower: the commit point, with the digest of everything up to it.
    Point {
        /// The reign.
        epoch: Epoch,
        /// Every item up to here is committed.
        point: OpId,
        /// The leader's digest at `point`.
        digest: Digest,
        /// The leader's last serial: what the follower lacks up to it is on its way or lost.
        head: u64,
    },
    /// Follower → leader: my checkpoint was at exactly this commit point, and my digest was this.
    Reached {
        /// The reign.
        epoch: Epoch,
        /// The point.
        point: OpId,
        /// The follower's digest there.
        digest: Digest,
    },
    /// Follower → leader: I lack these serials.
    Lack {
        /// The reign.
        epoch: Epoch,
        /// First serial.
        first: u64,
        /// Last serial.
        last: u64,
    },
    /// Leader → member that was connected anew: I lead; say what you hold.
    Announce {
        /// The reign and its manager.
        promise: Promise,
    },
    /// Member → leader: what I hold. It replaces the leader's idea of it.
    Hello(Box<Hello>),
    /// Leader → follower of its reign: fetch what is final up to here; later items come to you as writes.
    Resume {
        /// The reign.
        epoch: Epoch,
        /// The target, with the leader's digest and time there.
        upto: Checkpoint,
        /// Who can serve it, best first.
        sources: Names<StoreId>,
    },
    /// Receiver → source: begin or go on with a transfer.
    Fetch(Box<Fetch>),
    /// Source → receiver: one piece; its data travels beside the message.
    Piece(Box<Piece>),
    /// Source → receiver: I can't serve that; ask another.
    CannotServe {
        /// The transfer.
        transfer: TransferId,
    },
    /// Leader → member: do you still follow me? Numbered, so that a late answer counts for its own round only.
    Ping {
        /// The reign.
        epoch: Epoch,
        /// The round.
        round: u64,
    },
    /// Member → leader: yes.
    Pong {
        /// The reign.
        epoch: Epoch,
        /// The round.
        round: u64,
    },
    /// Follower → leader: what may I answer for these keys?
    AskRead(Box<AskRead>),
    /// Leader → follower: this.
    ReadAnswer(Box<ReadAnswer>),
    /// Follower → leader: which commit point stands? (for the age of stale reads)
    AskPoint {
        /// The reign.
        epoch: Epoch,
        /// The follower's own time of sending.
        sent: Moment,
    },
    /// Leader → follower, confirmed by a quorum round started after the question arrived.
    PointAt {
        /// The reign.
        epoch: Epoch,
        /// The question's time of sending, as the follower wrote it.
        sent: Moment,
        /// The highest committed op.
        committed: OpId,
    },
    /// Leader → member: your digest is the odd one against a majority. Rebuild.
    Fence {
        /// The reign.
        epoch: Epoch,
        /// Where the digests differed.
        point: OpId,
    },
}

/// See [`Message::Gather`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gather {
    /// What to promise.
    pub promise: Promise,
    /// The reign's member lists.
    pub membership: Membership,
}

/// See [`Message::Promised`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Promised {
    /// What was promised.
    pub promise: Promise,
    /// The last reign that the member adopted.
    pub epoch: Epoch,
    /// Its checkpoint.
    pub checkpoint: Checkpoint,
    /// Its items above the checkpoint, by op id; holes are allowed.
    pub tail: Vec<Item>,
    /// Whether it counts.
    pub standing: Standing,
}

/// See [`Message::Adopt`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adopt {
    /// The reign; a member that was not gathered makes the promise together with the adoption.
    pub promise: Promise,
    /// The highest reign among the gathered: its members' own items up to S are final by their position. A leader that brings in a late
    /// member names its own reign here, because its S may lie above items that it skipped.
    pub basis_epoch: Epoch,
    /// S: everything up to here is final.
    pub checkpoint: Checkpoint,
    /// T: the basis' items above S, by op id, each with the members that had it.
    pub basis: Vec<BasisItem>,
    /// The last op of the basis, or S where that is higher.
    pub basis_end: OpId,
    /// Who can serve what is final up to S, best first.
    pub sources: Names<StoreId>,
    /// The leader's highest op now: a member being rebuilt counts once it has passed it.
    pub head: OpId,
}

/// An item of the basis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BasisItem {
    /// The item.
    pub item: Item,
    /// Who had it.
    pub holders: Names<StoreId>,
    /// On all of the sync quorum; else it was interrupted.
    pub completed: bool,
}

/// See [`Message::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    /// The reign promised.
    pub promised: Epoch,
    /// The reign adopted.
    pub epoch: Epoch,
    /// The checkpoint.
    pub checkpoint: OpId,
    /// Durable serials of the adopted reign, as ranges.
    pub held: Vec<(u64, u64)>,
    /// Whether it counts.
    pub standing: Standing,
}

/// See [`Message::Fetch`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// The transfer.
    pub transfer: TransferId,
    /// The receiver's reign; pieces of another one are dropped.
    pub epoch: Epoch,
    /// What is wanted.
    pub want: Want,
    /// The first piece not yet taken.
    pub next: u64,
    /// Pieces below this number may be sent.
    pub credit: u64,
    /// Where the last piece taken ended, in the words of the source's driver: a source that does not know the transfer begins behind it.
    pub cursor: Arc<[u8]>,
}

/// What a transfer carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// These items with their values (for the staging buffer).
    Items(Vec<OpId>),
    /// What is final above `since`, up to `upto`.
    Final {
        /// What the receiver holds without a gap.
        since: OpId,
        /// The target.
        upto: OpId,
        /// The receiver's own items up to `upto` whose fate it does not know; the source confirms those that its tree has.
        doubtful: Vec<OpId>,
    },
}

/// See [`Message::Piece`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// The transfer.
    pub transfer: TransferId,
    /// The receiver's reign, as it was in the fetch.
    pub epoch: Epoch,
    /// Counted from 0 in each transfer.
    pub number: u64,
    /// How the source serves it.
    pub way: Way,
    /// Items of this piece, where it carries whole items.
    pub items: Vec<OpId>,
    /// Where the piece ends.
    pub cursor: Arc<[u8]>,
    /// Set on the last piece: which of the doubtful ones are final.
    pub end: Option<Vec<OpId>>,
}

/// How a transfer is served, chosen by the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Items with values read from the tree at their version.
    Items,
    /// Versions in between that still stand, with clears.
    Delta,
    /// Table and blob files whole; what is above the ceiling is invisible and dropped.
    Files,
}

/// See [`Message::AskRead`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AskRead {
    /// The reign in which the follower asks.
    pub epoch: Epoch,
    /// The follower's number for the question.
    pub id: u64,
    /// The follower's checkpoint.
    pub checkpoint: OpId,
    /// Which keys.
    pub what: ReadWhat,
}

/// Which keys a read touches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReadWhat {
    /// These.
    Keys(Names<KeyHash>),
    /// A range, or all.
    Range,
}

/// See [`Message::ReadAnswer`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadAnswer {
    /// The reign.
    pub epoch: Epoch,
    /// The question.
    pub id: u64,
    /// One answer for each key asked, one for a range.
    pub keys: Names<KeyState>,
}

/// What the leader knows of one key, from memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyState {
    /// The highest committed op that wrote the key above the follower's checkpoint; zero: unchanged since.
    pub committed: OpId,
    /// The highest op in flight that writes the key; zero: none.
    pub pending: OpId,
    /// The answer holds only from a checkpoint at or above this (ranges, and followers too far behind for the leader's memory).
    pub wait: OpId,
}
