//! Waiting until writes are durable.

use crate::error::Result;
use crate::node::Node;

/// A wait until everything up to some place in the log is durable in the node's class. [`Commit::durable`] for a task, [`Commit::wait`] for
/// a thread.
#[must_use = "a reply that rests on this may only be sent once it resolved"]
pub struct Commit {
    pub(crate) node: Node,
    pub(crate) sequence: u64,
}

impl Commit {
    /// Resolves when durable. Lets the tasks that are ready run first, so that their writes join the group, then writes and syncs the group
    /// on this thread unless another one is at it.
    ///
    /// Fails with [`Error::Unknown`](crate::Error::Unknown): what it waited for may have happened.
    pub async fn durable(self) -> Result<()> {
        tokio::task::yield_now().await;
        self.wait()
    }

    /// As [`durable`](Commit::durable), blocking the thread.
    pub fn wait(self) -> Result<()> {
        Err(crate::Error::Unknown(format!(
            "sequence {} of {:?} has no log yet",
            self.sequence,
            self.node.durability()
        )))
    }

    /// The one of both that resolves last: by then the other has, too.
    pub fn later(self, other: Commit) -> Commit {
        if self.sequence >= other.sequence { self } else { other }
    }
}
