//! What the shell does for other nodes' requests: questions come many in a message, and their answers go many in a message, as soon as what they rest on
//! is durable.

use super::message::{Draft, Message, Parts, read};
use super::replica::Refusal;
use super::requests::answered;
use super::resting::Rest;
use super::shell::{AGAIN_AFTER, ANSWER_TIME_MAX, Frame, Quick, Shell, durability_of};
use super::wire::{decode_ask, encode_answer};
use super::{Answer, Order};
use crate::node::Node;
use crate::transport::{Channel, NotSent};
use bytes::Bytes;
use kvorum_engine::Store;
use kvorum_sync::{Lane, StoreId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::time::Instant;

/// Questions that are worked on at one time because they need the disk, and messages that wait for room in a connection's queue, at most.
const BUSY_MAX: usize = 1024;

/// A message of answers is not made longer once it has so many bytes.
const MESSAGE_BYTES: usize = 64 << 10;

/// What other nodes' questions keep going.
#[derive(Default)]
pub(super) struct Busy(AtomicUsize);

impl Busy {
    fn enter(&self) -> bool {
        let has_room = self.0.fetch_add(1, Relaxed) < BUSY_MAX;
        if !has_room {
            self.leave();
        }
        has_room
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What becomes of a question.
enum Reply {
    Now(Bytes),
    Later,
}

/// Tells that a question was not carried out.
const REFUSED: Bytes = Bytes::new();

impl Shell {
    /// A message of another node. What it wrote is made durable with the next [`Shell::flush`].
    pub(crate) fn hear(self: &Arc<Self>, from: StoreId, lane: Lane, body: Bytes) {
        match read(body) {
            Some(Message::Asks(asks)) => self.hear_asks(from, lane, asks),
            Some(Message::Answers(answers)) => self.hear_answers(from, answers),
            None => tracing::warn!(%from, "a message about entities that can't be read: dropped"),
        }
    }

    fn hear_asks(self: &Arc<Self>, from: StoreId, lane: Lane, asks: Parts) {
        let Some(node) = self.node() else { return };
        let (order, mut draft) = (self.order(), Draft::answers());
        for (number, bytes) in asks {
            if let Reply::Now(answer) = self.reply(&node, &order, (from, lane), number, bytes) {
                draft.put(number, &answer);
            }
            if draft.bytes() >= MESSAGE_BYTES {
                self.send_answers(from, lane, std::mem::replace(&mut draft, Draft::answers()).finish());
            }
        }
        if !draft.is_empty() {
            self.send_answers(from, lane, draft.finish());
        }
    }

    fn reply(
        self: &Arc<Self>,
        node: &Node,
        order: &Arc<Order>,
        (from, lane): (StoreId, Lane),
        number: u64,
        ask: Bytes,
    ) -> Reply {
        let Some((head, ask)) = decode_ask(ask) else { return Reply::Now(REFUSED) };
        let mut frame = Frame::own(head.namespace, order);
        frame.durability = head.durability;
        if head != frame.head() {
            return Reply::Now(encode_answer(&Answer::OtherNodes));
        }
        match self.quick(node, &frame, &ask) {
            Quick::Answer(answer, rests_on) => {
                let durability = durability_of(node, &frame);
                if node.inner.store.acknowledged(durability) >= rests_on {
                    return Reply::Now(encode_answer(&answer));
                }
                let to = Some((from, lane));
                match self.resting.put(Rest { sequence: rests_on, durability, number, to, answer }) {
                    Ok(()) => Reply::Later,
                    Err(_) => Reply::Now(REFUSED),
                }
            }
            Quick::Refused(Refusal::Rebuilding) => Reply::Now(encode_answer(&Answer::Rebuilding)),
            Quick::Refused(refusal) => {
                tracing::debug!(store = from.0, %refusal, "refused what another node asked");
                Reply::Now(REFUSED)
            }
            Quick::Slow if self.busy.enter() => {
                let shell = Arc::clone(self);
                tokio::spawn(async move {
                    let answer =
                        shell.answer_here(from, &frame, ask).await.map(|answer| encode_answer(&answer));
                    let mut draft = Draft::answers();
                    draft.put(number, &answer.unwrap_or(REFUSED));
                    shell.busy.leave();
                    shell.send_answers(from, lane, draft.finish());
                });
                Reply::Later
            }
            Quick::Slow => Reply::Now(REFUSED),
        }
    }

    /// Sends answers as soon as there is room. Those that find too many waiting are lost, as they would be with the connection.
    fn send_answers(self: &Arc<Self>, to: StoreId, lane: Lane, body: Bytes) {
        let sent = self.transport.send(to, lane, Channel::Entity, body.clone());
        if sent != Err(NotSent::Full) || !self.busy.enter() {
            return;
        }
        let shell = Arc::clone(self);
        tokio::spawn(async move {
            // Nobody waits for it any longer than that.
            let until = Instant::now() + ANSWER_TIME_MAX;
            while Instant::now() < until {
                tokio::time::sleep(AGAIN_AFTER).await;
                if shell.transport.send(to, lane, Channel::Entity, body.clone()) != Err(NotSent::Full) {
                    break;
                }
            }
            shell.busy.leave();
        });
    }

    /// Makes durable what answers rest on, until the node ends.
    pub(crate) fn settle(self: &Arc<Self>, store: &Store) {
        self.resting.run(store, &mut |rests, well| self.rested(rests, well));
    }

    fn rested(self: &Arc<Self>, rests: Vec<Rest>, well: bool) {
        let mut drafts: Vec<(StoreId, Lane, Draft)> = Vec::new();
        for Rest { number, to, answer, .. } in rests {
            let Some((to, lane)) = to else {
                if let Some(request) = self.requests.get(number) {
                    self.feed(&request, answered(self.me, well.then_some(answer)));
                }
                continue;
            };
            let bytes = if well { encode_answer(&answer) } else { REFUSED };
            let is_room = |(other, on, draft): &(StoreId, Lane, Draft)| {
                (*other, *on) == (to, lane) && draft.bytes() < MESSAGE_BYTES
            };
            match drafts.iter_mut().find(|draft| is_room(draft)) {
                Some((_, _, draft)) => draft.put(number, &bytes),
                None => {
                    let mut draft = Draft::answers();
                    draft.put(number, &bytes);
                    drafts.push((to, lane, draft));
                }
            }
        }
        for (to, lane, draft) in drafts {
            self.send_answers(to, lane, draft.finish());
        }
        // What followed from the answers for this node's own requests.
        self.flush();
    }
}
