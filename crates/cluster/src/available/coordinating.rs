//! What the shell does for the requests that a node coordinates: steps are carried out by whoever brings what they follow from.

use super::counts;
use super::hints::Hint;
use super::message::Parts;
use super::replica::Refusal;
use super::requests::{Asking, Request, answered};
use super::resting::Rest;
use super::shell::{AGAIN_AFTER, ANSWER_TIME_MAX, Frame, Quick, Shell, Wanted, durability_of};
use super::wire::{decode_answer, encode_ask};
use super::{Answer, Ask, Coordination, Input, Outcome, Step, Why};
use crate::error::{Error, Result};
use crate::transport::Channel;
use kvorum_model::slot;
use kvorum_sync::{Lane, StoreId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked for requests whose time is over.
const LATE_EVERY: Duration = Duration::from_millis(50);

/// Larger questions go over the lane of their slot, smaller ones all over [`SMALL`], together.
const SMALL_BYTES_MAX: usize = 16 << 10;

/// Not that of what is called.
const SMALL: Lane = Lane::Data(1);

impl Shell {
    /// Coordinates a request. It goes on when the client was answered, and when it went away.
    ///
    /// Fails with [`Error::TooFew`].
    pub(crate) async fn coordinate(self: &Arc<Self>, wanted: Wanted) -> Result<Outcome> {
        let ack = wanted.ack.into();
        let outcome = loop {
            let frame = Frame::patient(wanted.namespace, &self.order(), wanted.durability);
            let request = self.enter(wanted.clone(), frame);
            if !request.is_over() {
                // Those that are ready run first: what all of them ask and write goes together.
                tokio::task::yield_now().await;
                self.flush();
            }
            let outcome = request.told().await;
            // The nodes changed meanwhile: others may have to be asked. Writing the same version once more does no harm.
            let again = matches!(outcome, Outcome::TooFew { .. }) && !request.has_timed_out();
            if !again || self.order().print() == request.frame.order.print() {
                break outcome;
            }
        };
        match outcome {
            Outcome::Written { newer: Some(newer) } => {
                counts::add(&self.counts.superseded, 1);
                Ok(Outcome::Written { newer: Some(newer) })
            }
            Outcome::TooFew { at_most } => Err(Error::TooFew { at_most: at_most.into(), wanted: ack }),
            outcome => Ok(outcome),
        }
    }

    fn enter(self: &Arc<Self>, wanted: Wanted, frame: Frame) -> Arc<Request> {
        let Wanted { key, operation, ack, .. } = &wanted;
        let (coordination, steps) =
            Coordination::begin(key.clone(), slot(key), operation.clone(), *ack, &frame.order);
        let until = Instant::now() + ANSWER_TIME_MAX;
        let request = self.requests.begin(wanted, frame, coordination, until);
        self.carry_out(&request, steps);
        if request.is_over() {
            self.requests.end(&request);
        }
        request
    }

    /// The end of a turn: what was asked in it goes out, what was written is made durable.
    pub(crate) fn flush(self: &Arc<Self>) {
        for asking in self.requests.asking() {
            self.send_asks(asking);
        }
        self.resting.flush();
    }

    /// Ends requests whose time is over, and what was asked of nodes over connections that broke, until the node ends.
    pub(crate) async fn watch_times(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LATE_EVERY) => {}
                () = self.lost.1.notified() => {}
            }
            let lost = std::mem::take(&mut *self.lost.0.lock());
            for store in lost {
                for request in self.requests.asking_of(store) {
                    self.feed(&request, Input::Failed(store));
                }
            }
            for request in self.requests.late(Some(Instant::now())) {
                self.feed(&request, Input::Deadline);
            }
            // Of clients that went away in the middle of a turn.
            self.flush();
        }
    }

    /// The node ends: nothing more is waited for.
    pub(crate) fn stop(self: &Arc<Self>) {
        self.resting.stop();
        for request in self.requests.late(None) {
            self.feed(&request, Input::Deadline);
        }
    }

    /// What a node was asked may be lost with a connection to it.
    pub(crate) fn lost(&self, store: StoreId) {
        let mut lost = self.lost.0.lock();
        if !lost.contains(&store) {
            lost.push(store);
        }
        drop(lost);
        self.lost.1.notify_one();
    }

    /// Another node, or this one's log, brings answers.
    pub(super) fn hear_answers(self: &Arc<Self>, from: StoreId, answers: Parts) {
        for (number, bytes) in answers {
            let Some(request) = self.requests.get(number) else { continue };
            let refused = bytes.is_empty();
            match decode_answer(bytes) {
                Some(Answer::OtherNodes) if self.order().print() != request.frame.order.print() => {
                    self.feed(&request, Input::Failed(from));
                }
                Some(Answer::OtherNodes | Answer::Rebuilding) => self.ask_patiently(&request, from, true),
                Some(answer) => {
                    self.heard(&answer);
                    self.feed(&request, Input::Answered(from, answer));
                }
                None => {
                    let why = if refused { "refused" } else { "gave an answer that can't be read" };
                    tracing::debug!(store = from.0, "a replica {why}");
                    self.feed(&request, Input::Failed(from));
                }
            }
        }
    }

    pub(super) fn feed(self: &Arc<Self>, request: &Arc<Request>, input: Input) {
        let steps = self.requests.step(request, input);
        self.carry_out(request, steps);
    }

    fn carry_out(self: &Arc<Self>, request: &Arc<Request>, mut steps: Vec<Step>) {
        let mut inputs = Vec::new();
        loop {
            for step in steps {
                match step {
                    Step::Ask(to, ask) => {
                        let ask = request.ask.get_or_init(|| ask);
                        inputs.extend(if to == self.me {
                            self.ask_own(request, ask)
                        } else {
                            self.ask_other(request, to, ask)
                        });
                    }
                    Step::Done(outcome) => request.tell(outcome),
                    Step::Hint(to, entry) => {
                        let (shell, wanted) = (Arc::clone(self), &request.wanted);
                        let hint = Hint { to, namespace: wanted.namespace, key: wanted.key.clone(), entry };
                        tokio::spawn(async move { shell.keep_hint(hint).await });
                    }
                    Step::Repair(to, entry) => {
                        counts::add(&self.counts.repaired, 1);
                        let (shell, frame) = (Arc::clone(self), request.frame.clone());
                        let key = request.wanted.key.clone();
                        tokio::spawn(async move {
                            shell.ask(&frame, to, Ask::Write { key, entry, why: Why::Mend }).await
                        });
                    }
                }
            }
            let Some(input) = inputs.pop() else { return };
            steps = self.requests.step(request, input);
        }
    }

    fn ask_other(self: &Arc<Self>, request: &Request, to: StoreId, ask: &Ask) -> Option<Input> {
        let bytes = request.encoded.get_or_init(|| encode_ask(&request.frame.head(), ask));
        let is_small = bytes.len() <= SMALL_BYTES_MAX;
        let lane = if is_small { SMALL } else { Lane::Data(slot(&request.wanted.key) as u8) };
        match self.requests.ask(request, to, lane, bytes) {
            Ok(message) => {
                message.into_iter().for_each(|asking| self.send_asks(asking));
                None
            }
            Err(()) => Some(Input::Failed(to)),
        }
    }

    fn send_asks(self: &Arc<Self>, asking: Asking) {
        let (to, lane) = (asking.to, asking.lane);
        let (numbers, body) = asking.finish();
        if let Err(reason) = self.transport.send(to, lane, Channel::Entity, body) {
            tracing::debug!(store = to.0, %reason, "a replica can't be asked");
            for request in numbers.into_iter().filter_map(|number| self.requests.get(number)) {
                self.feed(&request, Input::Failed(to));
            }
        }
    }

    /// Asks the replica of this node, on this thread unless it needs the disk.
    fn ask_own(self: &Arc<Self>, request: &Arc<Request>, ask: &Ask) -> Option<Input> {
        let Some(node) = self.node() else { return Some(Input::Failed(self.me)) };
        match self.quick(&node, &request.frame, ask) {
            // Written, but not counted yet.
            Quick::Answer(Answer::Rebuilding, _) | Quick::Refused(Refusal::Rebuilding) => {
                self.ask_patiently(request, self.me, true);
                None
            }
            Quick::Answer(answer, rests_on) => {
                self.heard(&answer);
                let durability = durability_of(&node, &request.frame);
                if node.inner.store.acknowledged(durability) >= rests_on {
                    return Some(Input::Answered(self.me, answer));
                }
                let rest = Rest { sequence: rests_on, durability, number: request.number, to: None, answer };
                self.resting.put(rest).err().map(|_| Input::Failed(self.me))
            }
            Quick::Refused(refusal) => {
                tracing::debug!(%refusal, "this node's replica refused");
                Some(Input::Failed(self.me))
            }
            Quick::Slow => {
                self.ask_patiently(request, self.me, false);
                None
            }
        }
    }

    /// Calls a replica, again and again as long as it can't answer yet.
    fn ask_patiently(self: &Arc<Self>, request: &Arc<Request>, to: StoreId, later: bool) {
        let (shell, request) = (Arc::clone(self), Arc::clone(request));
        tokio::spawn(async move {
            if later {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            let Some(ask) = request.ask.get().cloned() else { return };
            let answer = shell.ask(&request.frame, to, ask).await;
            shell.feed(&request, answered(to, answer));
            shell.flush();
        });
    }
}
