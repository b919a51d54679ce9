//! Waiting until writes are durable.

use crate::error::{Error, Result};
use crate::node::Node;
use kvorum_engine::{Durability, Sequence};

/// A wait until everything up to some place in the log is durable in the node's class. [`Commit::durable`] for a task, [`Commit::wait`] for
/// a thread.
#[must_use = "a reply that rests on this may only be sent once it resolved"]
pub struct Commit {
    pub(crate) node: Node,
    pub(crate) sequence: Sequence,
    pub(crate) durability: Durability,
}

impl Commit {
    /// Resolves when durable. Lets the tasks that are ready run first, so that their writes join the group, then writes and syncs the group
    /// on this thread, unless another one is at it.
    ///
    /// Fails with [`Error::Unknown`]: what it waited for may have happened.
    pub async fn durable(self) -> Result<()> {
        if self.is_done() {
            return Ok(());
        }
        tokio::task::yield_now().await;
        let store = &self.node.inner.store;
        if !self.is_done() {
            store.lead();
        }
        store.commit_at(self.sequence, self.durability).await.map_err(unknown)
    }

    /// As [`durable`](Commit::durable), blocking the thread.
    pub fn wait(self) -> Result<()> {
        self.node.inner.store.commit_at(self.sequence, self.durability).wait().map_err(unknown)
    }

    /// The one of both that resolves last: by then the other has, too.
    pub fn later(self, other: Commit) -> Commit {
        let durability = self.durability.max(other.durability);
        let later = if self.sequence >= other.sequence { self } else { other };
        Commit { durability, ..later }
    }

    /// Whether it has resolved.
    pub fn is_done(&self) -> bool {
        self.node.inner.store.acknowledged(self.durability) >= self.sequence
    }
}

/// Whatever kept a write from becoming durable: it was taken, so it may survive.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unknown(error: kvorum_engine::Error) -> Error {
    Error::Unknown(error.to_string())
}
