//! Who waits for the log: a slot for each waiting [`Commit`](super::Commit).

use crate::types::{Durability, Sequence};
use std::task::Waker;

/// A waiting commit's place. Its owner gives it back with [`Waiters::remove`], also after it was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(usize);

#[derive(Debug)]
struct Waiter {
    sequence: Sequence,
    durability: Durability,
    /// Taken when the wait is over.
    waker: Option<Waker>,
}

/// The waiting commits. As many slots as ever waited at once; none is allocated after that.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    slots: Vec<Option<Waiter>>,
    free: Vec<usize>,
}

impl Waiters {
    /// Registers a commit.
    pub(super) fn insert(&mut self, sequence: Sequence, durability: Durability, waker: &Waker) -> Ticket {
        let waiter = Some(Waiter { sequence, durability, waker: Some(waker.clone()) });
        if let Some(index) = self.free.pop() {
            self.slots[index] = waiter;
            return Ticket(index);
        }
        self.slots.push(waiter);
        Ticket(self.slots.len() - 1)
    }

    /// The commit is now to be woken by `waker`.
    pub(super) fn update(&mut self, ticket: Ticket, waker: &Waker) {
        if let Some(Some(waiter)) = self.slots.get_mut(ticket.0)
            && !waiter.waker.as_ref().is_some_and(|old| old.will_wake(waker))
        {
            waiter.waker = Some(waker.clone());
        }
    }

    /// Forgets a commit.
    pub(super) fn remove(&mut self, ticket: Ticket) {
        if self.slots.get_mut(ticket.0).and_then(Option::take).is_some() {
            self.free.push(ticket.0);
        }
    }

    /// Moves the wakers of all whose wait is over into `wakers`.
    pub(super) fn take_done(
        &mut self,
        mut done: impl FnMut(Sequence, Durability) -> bool,
        wakers: &mut Vec<Waker>,
    ) {
        for waiter in self.slots.iter_mut().flatten() {
            if waiter.waker.is_some() && done(waiter.sequence, waiter.durability) {
                wakers.extend(waiter.waker.take());
            }
        }
    }

    /// Somebody whose wait is not over.
    pub(super) fn anybody(&self) -> Option<&Waker> {
        self.slots.iter().flatten().find_map(|waiter| waiter.waker.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn those_who_are_done_are_woken_once_and_keep_their_place_until_they_leave() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut waiters = Waiters::default();
        let first = waiters.insert(1, Durability::Synced, &waker);
        let second = waiters.insert(2, Durability::Synced, &waker);
        let mut wakers = Vec::new();
        for _ in 0..2 {
            waiters.take_done(|sequence, _| sequence <= 1, &mut wakers);
            wakers.drain(..).for_each(Waker::wake);
        }
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        let third = waiters.insert(3, Durability::Written, &waker);
        assert_ne!(third, first);
        waiters.remove(first);
        waiters.remove(first);
        assert_eq!(waiters.insert(4, Durability::Synced, &waker), first);
        assert_ne!(waiters.insert(5, Durability::Synced, &waker), first);
        assert!(waiters.anybody().is_some());
        waiters.update(second, &waker);
        waiters.take_done(|_, _| true, &mut wakers);
        assert_eq!(wakers.len(), 4);
        assert!(waiters.anybody().is_none());
    }
}
