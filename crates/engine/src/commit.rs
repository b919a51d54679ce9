//! The promise that a write becomes durable.

use crate::error::Result;
use crate::types::Sequence;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A write that was taken: wait for it, or await it, to know that it is as durable as was asked for.
#[derive(Debug, Clone)]
#[must_use = "a write is durable only when its commit has resolved"]
pub struct Commit {
    sequence: Sequence,
}

impl Commit {
    pub(crate) fn resolved(sequence: Sequence) -> Commit {
        Commit { sequence }
    }

    /// The last sequence that it covers.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Waits.
    ///
    /// # Errors
    /// `Poisoned` if the log failed before the write was durable: whether it survives is unknown.
    pub fn wait(self) -> Result<()> {
        Ok(())
    }
}

impl Future for Commit {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}
