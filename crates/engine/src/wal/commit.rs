//! The wait for a write to be as safe as its writer asked for.

use super::core::Look;
use super::log::Log;
use super::waiters::Ticket;
use crate::error::Result;
use crate::types::{Durability, Sequence};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// Resolves once everything up to a sequence is as safe as asked for: wait for it with [`Commit::wait`] or `.await` it.
///
/// Whoever waits may find itself writing and syncing the group for all who wait: a hand-off to another thread would cost more. Awaiting does so
/// only after it gave the other tasks of its executor one turn, so that their writes are in the same group. Dropping it withdraws the wait,
/// not the write.
#[must_use = "the write is not yet as safe as it was asked to be"]
pub struct Commit {
    log: Arc<Log>,
    sequence: Sequence,
    durability: Durability,
    ticket: Option<Ticket>,
    /// Whether the others had their turn since this one first found nobody leading.
    gave_way: bool,
}

impl Commit {
    pub(super) fn new(log: Arc<Log>, sequence: Sequence, durability: Durability) -> Commit {
        Commit { log, sequence, durability, ticket: None, gave_way: false }
    }

    /// The sequence of the write's last operation.
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// The class that is waited for.
    pub fn durability(&self) -> Durability {
        self.durability
    }

    /// Whether waiting would be over at once.
    pub fn is_done(&self) -> bool {
        self.log.outcome(self.sequence, self.durability).is_some()
    }

    /// Waits on this thread, leading the group if nobody does.
    ///
    /// # Errors
    /// [`Error::Poisoned`](crate::Error::Poisoned) if the log failed: whether the write is on disk shows when the store is reopened.
    pub fn wait(mut self) -> Result<()> {
        loop {
            match self
                .log
                .look(self.sequence, self.durability, &mut self.ticket, || UNPARK.with(Waker::clone))
            {
                Look::Done(result) => {
                    self.log.relieve(self.durability);
                    return result;
                }
                Look::Lead => {
                    self.log.lead();
                }
                Look::Wait => thread::park(),
            }
        }
    }
}

impl Future for Commit {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        loop {
            match this.log.look(this.sequence, this.durability, &mut this.ticket, || context.waker().clone())
            {
                Look::Done(result) => {
                    this.log.relieve(this.durability);
                    return Poll::Ready(result);
                }
                Look::Wait => {
                    this.gave_way = false;
                    return Poll::Pending;
                }
                Look::Lead if this.gave_way => {
                    this.gave_way = false;
                    this.log.lead();
                }
                Look::Lead => {
                    this.gave_way = true;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Clone for Commit {
    fn clone(&self) -> Commit {
        Commit::new(self.log.clone(), self.sequence, self.durability)
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.log.forget(ticket);
        }
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Commit")
            .field("sequence", &self.sequence)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// Wakes a thread that waits in [`Commit::wait`]; made once for each thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static UNPARK: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}
