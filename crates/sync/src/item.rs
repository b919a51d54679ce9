//! One write transaction as the log knows it: names, no values.

use crate::names::Names;
use crate::types::{Digest, KeyHash, OpId};

/// What an item writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Keys {
    /// Every key of the shard (a clear): the item counts as pending for all of them.
    All,
    /// These keys; none for an item that carries only the time.
    Of(Names<KeyHash>),
}

impl Default for Keys {
    fn default() -> Self {
        Keys::Of(Names::none())
    }
}

/// An entry of the *tiny log*. The values stand once, in the tree, at `version = op`; the driver finds them by the op id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Item {
    /// The item's name for ever.
    pub op: OpId,
    /// The shard's time in milliseconds, never falling along the log, over reigns too.
    pub time: u64,
    /// Digest of the values, computed by each member over what it stores.
    pub digest: Digest,
    /// What it writes.
    pub keys: Keys,
    /// Items that were pending when this one was evaluated on top of them: it is committed only if they are.
    pub reads: Names<OpId>,
}

/// What the driver asks the leader to write. It becomes an [`Item`] under the next op id ([`crate::Replica::next_op`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The driver's name for it.
    pub token: crate::types::Token,
    /// The wall clock of the leader in milliseconds; the item gets at least the time of the item before it.
    pub time: u64,
    /// Digest of the values at the next op id.
    pub digest: Digest,
    /// What it writes.
    pub keys: Keys,
    /// Pending items that it rests on: the session's last item, the last writer of a key that it read.
    pub reads: Names<OpId>,
}
