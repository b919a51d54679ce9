//! Waking the tasks of a thread's runtime from another thread: many with one call of the system. A runtime that is asleep, or may be, is woken by a
//! write to a file handle, for each task; here only the task that wakes the others is woken so.

use parking_lot::Mutex;
use std::cell::RefCell;
use std::sync::Arc;
use std::task::Waker;
use tokio::sync::Notify;

/// Tasks to be woken by a task of their own runtime. As many as wait at most.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    wakers: Vec<Waker>,
    /// Its runtime has ended, or never was: nobody looks into it.
    closed: bool,
}

thread_local! {
    static OWN: RefCell<Option<Arc<Mailbox>>> = const { RefCell::new(None) };
}

/// Closes the mailbox however its task ends.
struct Open(Arc<Mailbox>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.wakers);
        drop(state);
        left.into_iter().for_each(Waker::wake);
    }
}

impl Mailbox {
    /// That of this thread. To be called where tokio runs.
    pub(super) fn own() -> Arc<Mailbox> {
        OWN.with_borrow_mut(|own| match own {
            Some(mailbox) if !mailbox.state.lock().closed => Arc::clone(mailbox),
            _ => {
                let mailbox = Arc::<Mailbox>::default();
                tokio::spawn(Open(Arc::clone(&mailbox)).deliver());
                Arc::clone(own.insert(mailbox))
            }
        })
    }

    /// Wakes a task of the mailbox's runtime soon.
    pub(super) fn wake(&self, waker: Waker) {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return waker.wake();
        }
        let was_empty = state.wakers.is_empty();
        state.wakers.push(waker);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }
}

impl Open {
    async fn deliver(self) {
        loop {
            self.0.filled.notified().await;
            let wakers = std::mem::take(&mut self.0.state.lock().wakers);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::mpsc;
    use std::task::Poll;

    #[test]
    fn a_task_is_woken_from_another_thread_also_in_the_next_runtime_of_the_thread() {
        for _ in 0..2 {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (tell, told) = mpsc::channel::<(Arc<Mailbox>, Waker)>();
                let other = std::thread::spawn(move || {
                    let (mailbox, waker) = told.recv().unwrap();
                    mailbox.wake(waker);
                });
                let mut polled = 0;
                poll_fn(|context| {
                    polled += 1;
                    if polled == 1 {
                        tell.send((Mailbox::own(), context.waker().clone())).unwrap();
                        return Poll::Pending;
                    }
                    Poll::Ready(())
                })
                .await;
                other.join().unwrap();
            });
        }
    }

    #[test]
    fn what_comes_when_its_runtime_has_ended_is_woken_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mailbox = runtime.block_on(async { Mailbox::own() });
        drop(runtime);
        assert!(mailbox.state.lock().closed);
        mailbox.wake(Waker::noop().clone());
        assert!(mailbox.state.lock().wakers.is_empty());
    }
}
