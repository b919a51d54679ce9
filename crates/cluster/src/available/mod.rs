//! Available namespaces: no leader; any node coordinates, `ack` of `from` replicas answer, the highest hybrid timestamp wins.
//!
//! All of it is *step in, effects out*: no clock, socket or thread. What keeps replicas equal in the end, in the order in which it comes:
//! the coordinator's own messages, its read repair, hints for those that were down, and anti-entropy.

mod anti_entropy;
mod calm;
mod collect;
mod conflicts;
mod contact;
mod coordinating;
mod coordinator;
mod counts;
mod floors;
mod hints;
mod keyspace;
mod leaving;
#[cfg(test)]
mod loss;
mod mailbox;
mod marks;
mod mend;
mod message;
mod order;
mod planted;
mod range;
mod rebuild;
mod replica;
mod replying;
mod requests;
mod resting;
mod serve;
mod shell;
#[cfg(test)]
mod sim;
mod standing;
mod touch;
mod wire;

use anti_entropy::{Exchange, Exchanged};
use coordinator::{Coordination, Input, Step};
pub(crate) use coordinator::{Operation, Outcome};
pub(crate) use hints::TREE as HINTS_TREE;
pub(crate) use keyspace::keyspace;
use order::Order;
pub(crate) use range::{Merged, Span};
pub(crate) use serve::serve;
pub(crate) use shell::{Frame, Shell, Wanted};
pub(crate) use wire::{Answer, Ask, Stands, Why};

use bytes::Bytes;

/// Copies of an entry at most: what fits into an entry's tag, and far more than anybody keeps.
pub(crate) const COPIES_MAX: u8 = 64;

/// How often a write is tried that finds a higher version there, of a clock that is ahead: each time above all that was seen, so that a write that
/// was acknowledged before is not what stays.
pub(crate) const TRIES: usize = 4;

/// What stands under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// A hybrid timestamp, given once by the coordinator of the write.
    pub(crate) version: u64,
    /// `None`: deleted at this version.
    pub(crate) value: Option<Bytes>,
    /// Unix milliseconds; judged by coordinators only.
    pub(crate) expires_at: Option<u64>,
    /// How many replicas keep it: a prefix of the order of its slot.
    pub(crate) from: u8,
    /// Not the entry, but what is remembered of it where only an older copy had to go. Has no value, and gives way to the entry itself.
    pub(crate) shadow: bool,
    /// Where losers are kept: the version that the writer had seen.
    pub(crate) base: Option<u64>,
}
