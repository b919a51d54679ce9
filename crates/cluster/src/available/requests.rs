//! Requests that this node coordinates: a table of them, each stepped by whoever brings it an answer. None has a task, a timer or a channel of its own.

use super::mailbox::Mailbox;
use super::message::Draft;
use super::shell::{Frame, Wanted};
use super::{Answer, Ask, Coordination, Input, Outcome, Step};
use bytes::Bytes;
use hashbrown::HashMap;
use kvorum_sync::{Lane, StoreId};
use parking_lot::Mutex;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Poll, Waker};
use tokio::time::Instant;

/// Questions to one node that wait for its answer, at most: beyond that it counts as silent at once, so that one that stands still does not fill
/// the memory of the others.
const ASKED_PER_NODE_MAX: usize = 16 << 10;

/// Locks of the table.
const PARTS: usize = 16;

/// A message that has grown to so many bytes goes before the turn ends.
const MESSAGE_BYTES: usize = 64 << 10;

/// A request under way. It goes on when its client was told, until all that were asked have answered or the time is over.
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) wanted: Wanted,
    pub(super) frame: Frame,
    until: Instant,
    /// What each replica is asked: all are asked the same.
    pub(super) ask: OnceLock<Ask>,
    /// The same as it goes to other nodes.
    pub(super) encoded: OnceLock<Bytes>,
    state: Mutex<State>,
}

struct State {
    coordination: Coordination,
    /// Other nodes that have not answered yet.
    asked: Vec<StoreId>,
    outcome: Option<Outcome>,
    waits: Option<(Waker, Arc<Mailbox>)>,
    timed_out: bool,
}

/// The requests of a node.
#[derive(Default)]
pub(super) struct Requests {
    parts: [Mutex<HashMap<u64, Arc<Request>>>; PARTS],
    begun: AtomicU64,
    /// Questions that wait for an answer, by node.
    asked: Mutex<HashMap<StoreId, usize>>,
    /// What the requests of this turn ask others.
    drafts: Mutex<Vec<Asking>>,
}

/// A message of questions, and whose they are.
pub(super) struct Asking {
    pub(super) to: StoreId,
    pub(super) lane: Lane,
    pub(super) numbers: Vec<u64>,
    draft: Draft,
}

impl Asking {
    pub(super) fn finish(self) -> (Vec<u64>, Bytes) {
        (self.numbers, self.draft.finish())
    }
}

impl Requests {
    /// Enters a request into the table.
    pub(super) fn begin(
        &self,
        wanted: Wanted,
        frame: Frame,
        coordination: Coordination,
        until: Instant,
    ) -> Arc<Request> {
        let number = self.begun.fetch_add(1, Relaxed) + 1;
        let (asked, outcome, waits, timed_out) = (Vec::new(), None, None, false);
        let state = Mutex::new(State { coordination, asked, outcome, waits, timed_out });
        let (ask, encoded) = (OnceLock::new(), OnceLock::new());
        let request = Arc::new(Request { number, wanted, frame, until, ask, encoded, state });
        if let Some(part) = self.part(number) {
            part.lock().insert(number, Arc::clone(&request));
        }
        request
    }

    pub(super) fn get(&self, number: u64) -> Option<Arc<Request>> {
        self.part(number)?.lock().get(&number).cloned()
    }

    /// Steps a request; the steps are still to be carried out.
    pub(super) fn step(&self, request: &Request, input: Input) -> Vec<Step> {
        let mut state = request.state.lock();
        let mut answered = Vec::new();
        match &input {
            Input::Answered(from, _) | Input::Failed(from) => {
                if let Some(at) = state.asked.iter().position(|asked| asked == from) {
                    answered.push(state.asked.swap_remove(at));
                }
            }
            Input::Deadline => {
                state.timed_out = true;
                answered = std::mem::take(&mut state.asked);
            }
        }
        let steps = state.coordination.step(input);
        let is_over = state.coordination.is_over();
        drop(state);
        self.release(&answered);
        if is_over {
            self.end(request);
        }
        steps
    }

    /// Takes a request that is over out of the table.
    pub(super) fn end(&self, request: &Request) {
        if let Some(part) = self.part(request.number) {
            part.lock().remove(&request.number);
        }
    }

    /// Puts a question into the message that goes to a node with this turn's end. `Ok` with the message, if it is to go now; `Err` if too many wait
    /// for that node.
    pub(super) fn ask(
        &self,
        request: &Request,
        to: StoreId,
        lane: Lane,
        ask: &[u8],
    ) -> Result<Option<Asking>, ()> {
        {
            let mut state = request.state.lock();
            if state.coordination.is_over() {
                return Ok(None);
            }
            let mut asked = self.asked.lock();
            let count = asked.entry(to).or_default();
            if *count >= ASKED_PER_NODE_MAX {
                return Err(());
            }
            *count += 1;
            state.asked.push(to);
        }
        let mut drafts = self.drafts.lock();
        let at = drafts.iter().position(|asking| asking.to == to && asking.lane == lane);
        let at = at.unwrap_or_else(|| {
            drafts.push(Asking { to, lane, numbers: Vec::new(), draft: Draft::asks() });
            drafts.len() - 1
        });
        let Some(asking) = drafts.get_mut(at) else { return Ok(None) };
        asking.numbers.push(request.number);
        asking.draft.put(request.number, ask);
        let is_large = asking.draft.bytes() >= MESSAGE_BYTES;
        Ok(is_large.then(|| drafts.swap_remove(at)))
    }

    /// The messages of this turn.
    pub(super) fn asking(&self) -> Vec<Asking> {
        std::mem::take(&mut *self.drafts.lock())
    }

    /// Those whose time is over; all, if there is no time any more.
    pub(super) fn late(&self, now: Option<Instant>) -> Vec<Arc<Request>> {
        let is_late = |request: &&Arc<Request>| now.is_none_or(|now| request.until <= now);
        let late = |part: &Mutex<HashMap<u64, Arc<Request>>>| -> Vec<_> {
            part.lock().values().filter(is_late).cloned().collect()
        };
        self.parts.iter().flat_map(late).collect()
    }

    /// Those that wait for an answer of a node.
    pub(super) fn asking_of(&self, store: StoreId) -> Vec<Arc<Request>> {
        let mut all = self.late(None);
        all.retain(|request| request.state.lock().asked.contains(&store));
        all
    }

    fn release(&self, answered: &[StoreId]) {
        if answered.is_empty() {
            return;
        }
        let mut asked = self.asked.lock();
        for store in answered {
            if let Some(count) = asked.get_mut(store) {
                *count -= 1;
            }
        }
    }

    fn part(&self, number: u64) -> Option<&Mutex<HashMap<u64, Arc<Request>>>> {
        self.parts.get(number as usize % PARTS)
    }
}

impl Request {
    /// The client's answer is known.
    pub(super) fn tell(&self, outcome: Outcome) {
        let mut state = self.state.lock();
        state.outcome = Some(outcome);
        let waits = state.waits.take();
        drop(state);
        if let Some((waker, mailbox)) = waits {
            mailbox.wake(waker);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.lock().coordination.is_over()
    }

    pub(super) fn has_timed_out(&self) -> bool {
        self.state.lock().timed_out
    }

    /// Waits for the client's answer.
    pub(super) async fn told(&self) -> Outcome {
        poll_fn(|context| {
            let mut state = self.state.lock();
            if let Some(outcome) = state.outcome.take() {
                return Poll::Ready(outcome);
            }
            match &mut state.waits {
                Some((waker, _)) => waker.clone_from(context.waker()),
                None => state.waits = Some((context.waker().clone(), Mailbox::own())),
            }
            Poll::Pending
        })
        .await
    }
}

/// An input from an answer.
pub(super) fn answered(from: StoreId, answer: Option<Answer>) -> Input {
    answer.map_or(Input::Failed(from), |answer| Input::Answered(from, answer))
}

#[cfg(test)]
mod tests {
    use super::super::{Operation, Order};
    use super::*;

    const NODES: [(StoreId, &str); 3] = [(StoreId(1), "one"), (StoreId(2), "two"), (StoreId(3), "three")];

    fn read(requests: &Requests) -> (Arc<Request>, Vec<Step>) {
        let order = Arc::new(Order::of(NODES));
        let operation = Operation::Read { from: 3 };
        let wanted =
            Wanted { namespace: 16, key: "k".into(), operation: operation.clone(), ack: 2, durability: None };
        let (coordination, steps) = Coordination::begin("k".into(), 0, operation, 2, &order);
        let frame = Frame::patient(16, &order, None);
        let request = requests.begin(wanted, frame, coordination, Instant::now());
        (request, steps)
    }

    #[test]
    fn questions_of_a_turn_go_to_each_node_in_one_message() {
        let requests = Requests::default();
        for _ in 0..5 {
            let (request, steps) = read(&requests);
            assert_eq!(steps.len(), 3);
            for store in [2, 3].map(StoreId) {
                assert!(requests.ask(&request, store, Lane::Data(1), b"ask").unwrap().is_none());
            }
        }
        let messages = requests.asking();
        assert_eq!(messages.len(), 2);
        assert!(messages.iter().all(|asking| asking.numbers == [1, 2, 3, 4, 5]));
        assert!(requests.asking().is_empty());
        let (request, _) = read(&requests);
        let large = requests.ask(&request, StoreId(2), Lane::Data(1), &[0; MESSAGE_BYTES]).unwrap();
        assert_eq!(large.unwrap().numbers, [6]);
    }

    #[test]
    fn a_node_that_is_silent_takes_a_bounded_place_until_the_time_is_over() {
        let requests = Requests::default();
        let all: Vec<_> = (0..ASKED_PER_NODE_MAX).map(|_| read(&requests).0).collect();
        for request in &all {
            requests.ask(request, StoreId(2), Lane::Data(1), b"").unwrap();
        }
        let (more, _) = read(&requests);
        assert!(requests.ask(&more, StoreId(2), Lane::Data(1), b"").is_err());
        assert!(requests.ask(&more, StoreId(3), Lane::Data(1), b"").is_ok());
        assert_eq!(requests.asking_of(StoreId(2)).len(), all.len());
        requests.step(&all[0], Input::Answered(StoreId(2), Answer::Found(None)));
        // A second answer gives no second place.
        requests.step(&all[0], Input::Answered(StoreId(2), Answer::Found(None)));
        assert!(requests.ask(&more, StoreId(2), Lane::Data(1), b"").is_ok());
        assert!(requests.ask(&more, StoreId(2), Lane::Data(1), b"").is_err());
        for request in requests.late(Some(Instant::now())) {
            requests.step(&request, Input::Deadline);
            assert!(request.is_over() && request.has_timed_out());
        }
        assert!(requests.late(None).is_empty());
        assert!(requests.asked.lock().values().all(|count| *count == 0));
    }
}
