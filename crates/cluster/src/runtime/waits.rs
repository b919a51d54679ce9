//! Requests that wait for answers of shards. A request takes a [`Wait`], and from it one [`Token`] for every answer that it expects; the tokens
//! travel through the shards, and [`Waits::complete`] brings each answer back, from whatever thread.

use kvorum_sync::Token;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

/// Answers that may be awaited at one time. More requests than that are refused as busy.
const TOKENS_MAX: usize = 1 << 20;

/// Tables that are locked apart from each other: a wait's tokens are all in one of them.
const STRIPES: usize = 16;

const STRIPE_TOKENS_MAX: usize = TOKENS_MAX / STRIPES;
const STRIPE_BITS: u32 = STRIPES.trailing_zeros();
const PLACE_BITS: u32 = STRIPE_TOKENS_MAX.trailing_zeros();

/// What is left of a token beside stripe and place says which use of the place it was.
const _: () = assert!(STRIPE_BITS + PLACE_BITS <= 32 && STRIPES.is_power_of_two());

/// All requests of a node that wait for answers of type `A`. Cheap to clone.
pub(crate) struct Waits<A> {
    shared: Arc<Shared<A>>,
}

struct Shared<A> {
    stripes: [Mutex<Stripe<A>>; STRIPES],
    /// Where the next wait goes.
    next: AtomicUsize,
}

struct Stripe<A> {
    places: Vec<Place<A>>,
    free: Vec<u32>,
}

struct Place<A> {
    /// Which use of the place this is: answers to an earlier one are dropped.
    use_number: u32,
    /// Whose answer it is, and the how manieth of its owner.
    owner: Option<(Arc<Owner<A>>, usize)>,
}

/// What a wait and the threads that answer it share.
struct Owner<A> {
    state: Mutex<State<A>>,
}

struct State<A> {
    answers: SmallVec<[Option<A>; 2]>,
    missing: usize,
    waker: Option<Waker>,
}

/// A request's wait: resolves to its answers, in the order in which their tokens were taken, when all are there. Dropped earlier, it forgets the
/// answers that are still to come.
pub(crate) struct Wait<A> {
    shared: Arc<Shared<A>>,
    owner: Arc<Owner<A>>,
    stripe: usize,
    tokens: SmallVec<[Token; 2]>,
}

impl<A> Clone for Waits<A> {
    fn clone(&self) -> Waits<A> {
        Waits { shared: Arc::clone(&self.shared) }
    }
}

impl<A> Default for Waits<A> {
    fn default() -> Waits<A> {
        let stripe = |_| Mutex::new(Stripe { places: Vec::new(), free: Vec::new() });
        let shared = Shared { stripes: std::array::from_fn(stripe), next: AtomicUsize::new(0) };
        Waits { shared: Arc::new(shared) }
    }
}

impl<A> Waits<A> {
    /// A wait that expects nothing yet.
    pub(crate) fn begin(&self) -> Wait<A> {
        let state = State { answers: SmallVec::new(), missing: 0, waker: None };
        Wait {
            shared: Arc::clone(&self.shared),
            owner: Arc::new(Owner { state: Mutex::new(state) }),
            stripe: self.shared.next.fetch_add(1, Relaxed) % STRIPES,
            tokens: SmallVec::new(),
        }
    }

    /// Brings an answer to whoever waits for it; nobody does if it came before or the wait was dropped.
    pub(crate) fn complete(&self, token: Token, answer: A) {
        let (stripe, place, use_number) = parts(token);
        let Some(stripe) = self.shared.stripes.get(stripe) else { return };
        let found = stripe.lock().take(place, use_number);
        if let Some((owner, number)) = found {
            owner.answer(number, answer);
        }
    }
}

impl<A> Wait<A> {
    /// A token for one more answer; `None` if the node waits for as many as it may. To be taken before the wait is awaited.
    pub(crate) fn token(&mut self) -> Option<Token> {
        let number = {
            let mut state = self.owner.state.lock();
            state.answers.push(None);
            state.missing += 1;
            state.answers.len() - 1
        };
        let entry = (Arc::clone(&self.owner), number);
        let added = self.shared.stripes.get(self.stripe).and_then(|stripe| stripe.lock().add(entry));
        let Some((place, use_number)) = added else {
            let mut state = self.owner.state.lock();
            state.answers.pop();
            state.missing -= 1;
            return None;
        };
        let token = join(self.stripe, place, use_number);
        self.tokens.push(token);
        Some(token)
    }

    /// Whether it expects no answer at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

impl<A> Future for Wait<A> {
    type Output = Vec<(Token, A)>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut state = this.owner.state.lock();
        if state.missing > 0 {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let answers = std::mem::take(&mut state.answers);
        drop(state);
        let tokens = std::mem::take(&mut this.tokens);
        Poll::Ready(tokens.into_iter().zip(answers.into_iter().flatten()).collect())
    }
}

impl<A> Drop for Wait<A> {
    fn drop(&mut self) {
        if self.owner.state.lock().missing == 0 {
            return;
        }
        let Some(stripe) = self.shared.stripes.get(self.stripe) else { return };
        for token in &self.tokens {
            let (_, place, use_number) = parts(*token);
            // Outside of the lock: what an answer holds is dropped with its owner.
            let forgotten = stripe.lock().take(place, use_number);
            drop(forgotten);
        }
    }
}

impl<A> Owner<A> {
    fn answer(&self, number: usize, answer: A) {
        let mut state = self.state.lock();
        if let Some(empty @ None) = state.answers.get_mut(number) {
            *empty = Some(answer);
            state.missing -= 1;
        }
        let waker = if state.missing == 0 { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<A> Stripe<A> {
    /// Answers the place and the number of its use.
    fn add(&mut self, entry: (Arc<Owner<A>>, usize)) -> Option<(u32, u32)> {
        if let Some(free) = self.free.pop() {
            let place = self.places.get_mut(free as usize)?;
            place.owner = Some(entry);
            return Some((free, place.use_number));
        }
        if self.places.len() == STRIPE_TOKENS_MAX {
            return None;
        }
        self.places.push(Place { use_number: 1, owner: Some(entry) });
        Some(((self.places.len() - 1) as u32, 1))
    }

    fn take(&mut self, at: u32, use_number: u32) -> Option<(Arc<Owner<A>>, usize)> {
        let place = self.places.get_mut(at as usize).filter(|place| place.use_number == use_number)?;
        let owner = place.owner.take()?;
        place.use_number = place.use_number.wrapping_add(1);
        self.free.push(at);
        Some(owner)
    }
}

/// Use of the place (32 bits) · stripe · place in it.
fn join(stripe: usize, place: u32, use_number: u32) -> Token {
    Token((u64::from(use_number) << 32) | ((stripe as u64) << PLACE_BITS) | u64::from(place))
}

fn parts(token: Token) -> (usize, u32, u32) {
    let low = token.0 as u32;
    let stripe = (low >> PLACE_BITS) as usize;
    (stripe, low & ((1 << PLACE_BITS) - 1), (token.0 >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::Wake;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn poll<A>(wait: &mut Wait<A>, count: &Arc<Count>) -> Poll<Vec<(Token, A)>> {
        Pin::new(wait).poll(&mut Context::from_waker(&Waker::from(Arc::clone(count))))
    }

    fn wait_of_one<A>(waits: &Waits<A>) -> Wait<A> {
        let mut wait = waits.begin();
        wait.token().unwrap();
        wait
    }

    #[test]
    fn answers_come_in_the_order_of_their_tokens_and_wake_once() {
        let (waits, count) = (Waits::default(), Arc::new(Count(AtomicUsize::new(0))));
        let mut wait = waits.begin();
        let tokens = [wait.token().unwrap(), wait.token().unwrap(), wait.token().unwrap()];
        assert!(poll(&mut wait, &count).is_pending());
        for (token, answer) in [(tokens[2], 'c'), (tokens[0], 'a'), (tokens[0], 'x'), (tokens[1], 'b')] {
            assert_eq!(count.0.load(SeqCst), 0, "not before the last");
            waits.complete(token, answer);
        }
        assert_eq!(count.0.load(SeqCst), 1);
        let expected = vec![(tokens[0], 'a'), (tokens[1], 'b'), (tokens[2], 'c')];
        assert_eq!(poll(&mut wait, &count), Poll::Ready(expected));
        assert!(waits.begin().is_empty() && !wait_of_one(&waits).is_empty());
        assert!(poll(&mut waits.begin(), &count).is_ready(), "one that expects nothing is over");
    }

    #[test]
    fn an_answer_to_a_dropped_wait_reaches_nobody_else() {
        let (waits, count) = (Waits::default(), Arc::new(Count(AtomicUsize::new(0))));
        let dropped = wait_of_one(&waits);
        let stale = dropped.tokens[0];
        drop(dropped);
        // Waits go round all stripes: one of these takes the place that was freed.
        let mut others: Vec<_> = (0..STRIPES).map(|_| waits.begin()).collect();
        let tokens: Vec<_> = others.iter_mut().map(|wait| wait.token().unwrap()).collect();
        assert!(tokens.iter().any(|token| token.0 as u32 == stale.0 as u32), "the place is used again");
        waits.complete(stale, 0);
        for (wait, token) in others.iter_mut().zip(tokens) {
            assert!(poll(wait, &count).is_pending());
            waits.complete(token, 1);
            assert_eq!(poll(wait, &count), Poll::Ready(vec![(token, 1)]));
        }
    }

    #[test]
    fn the_table_is_bounded_and_recovers() {
        let waits = Waits::<()>::default();
        let mut wait = waits.begin();
        assert_eq!(std::iter::from_fn(|| wait.token()).count(), STRIPE_TOKENS_MAX);
        drop(wait);
        let mut later: Vec<_> = (0..STRIPES).map(|_| waits.begin()).collect();
        assert!(later.iter_mut().all(|wait| wait.token().is_some()));
    }

    #[test]
    fn threads_answer_while_the_owner_waits() {
        let waits = Waits::default();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..200 {
            let mut wait = waits.begin();
            let tokens: Vec<_> = (0..4).map(|_| wait.token().unwrap()).collect();
            std::thread::scope(|scope| {
                for (number, token) in tokens.iter().enumerate() {
                    let waits = waits.clone();
                    scope.spawn(move || waits.complete(*token, number));
                }
                let answers = runtime.block_on(wait);
                assert_eq!(answers.into_iter().map(|(_, number)| number).collect::<Vec<_>>(), [0, 1, 2, 3]);
            });
        }
    }
}
