//! One connection of a session as senders see it: a queue bounded in bytes, and the calls that wait for answers.
//!
//! A call is *not sent* as long as it waits in the queue, and *lost* from the moment when the writer has taken it: both are decided under one lock.

use super::frame::{Frame, HEADER_BYTES, Kind};
use super::stats::{Counts, add};
use super::types::{CallError, Channel, NotSent};
use bytes::Bytes;
use hashbrown::HashMap;
use kvorum_sync::Lane;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};

/// What one write carries at most, unless a single frame is larger.
const WRITE_BYTES: usize = 256 << 10;

/// What a link may keep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) queue_bytes_max: usize,
    pub(super) frame_bytes_max: usize,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) lane: Lane,
    pub(super) bounds: Bounds,
    pub(super) counts: Arc<Counts>,
    state: Mutex<State>,
    /// There is something for the writer.
    wake: Notify,
    /// There is room again.
    room: Notify,
    closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Frame>,
    /// Bytes of the queue and of what is being written.
    bytes: usize,
    calls: HashMap<u64, Waiting>,
    calls_begun: u64,
    /// Why there is no connection any more.
    end: Option<String>,
}

#[derive(Debug)]
struct Waiting {
    /// Whether the writer has taken it.
    sent: bool,
    answer: oneshot::Sender<Result<Bytes, CallError>>,
}

/// A call that waits for its answer. Dropped, it is forgotten, and not sent if that has not happened yet.
pub(super) struct Call {
    link: Arc<Link>,
    number: u64,
    answer: oneshot::Receiver<Result<Bytes, CallError>>,
}

impl Link {
    pub(super) fn new(lane: Lane, bounds: Bounds, counts: Arc<Counts>) -> Arc<Link> {
        Arc::new(Link {
            lane,
            bounds,
            counts,
            state: Mutex::default(),
            wake: Notify::new(),
            room: Notify::new(),
            closed: watch::Sender::new(false),
        })
    }

    /// Takes a message.
    pub(super) fn send(&self, channel: Channel, body: Bytes) -> Result<(), NotSent> {
        let frame = Frame { kind: Kind::Message, channel, call: 0, body };
        self.check(&frame)?;
        let mut state = self.state.lock();
        state.push(frame, &self.bounds).map_err(|(reason, _)| self.refused(reason))?;
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Takes a call.
    pub(super) fn call(self: &Arc<Self>, channel: Channel, body: Bytes) -> Result<Call, NotSent> {
        let mut frame = Frame { kind: Kind::Call, channel, call: 0, body };
        self.check(&frame)?;
        let (sender, answer) = oneshot::channel();
        let mut state = self.state.lock();
        let number = state.calls_begun + 1;
        frame.call = number;
        state.push(frame, &self.bounds).map_err(|(reason, _)| self.refused(reason))?;
        state.calls_begun = number;
        state.calls.insert(number, Waiting { sent: false, answer: sender });
        drop(state);
        self.wake.notify_one();
        add(&self.counts.calls, 1);
        Ok(Call { link: Arc::clone(self), number, answer })
    }

    /// Takes an answer as soon as there is room. Answers are bounded in number by the calls that are worked on at one time.
    pub(super) async fn answer(&self, call: u64, result: Result<Bytes, String>) {
        let mut frame = match result {
            Ok(body) if body.len() > self.bounds.frame_bytes_max => {
                refusal(call, &NotSent::TooLarge.to_string())
            }
            Ok(body) => Frame { kind: Kind::Answer, channel: Channel::Control, call, body },
            Err(text) => refusal(call, &text),
        };
        loop {
            let room = self.room.notified();
            match self.state.lock().push(frame, &self.bounds) {
                Err((NotSent::Full, back)) => frame = back,
                Err(_) => return,
                Ok(()) => break,
            }
            room.await;
        }
        self.wake.notify_one();
    }

    /// Takes a frame of the session itself, whatever waits.
    pub(super) fn send_own(&self, kind: Kind, body: Bytes) {
        let mut state = self.state.lock();
        let frame = Frame { kind, channel: Channel::Control, call: 0, body };
        // One of a kind says all: an identity's place is taken by the newer one.
        if let Some(waits) = state.queue.iter_mut().find(|waits| waits.kind == kind) {
            *waits = frame;
        } else if state.end.is_none() {
            state.bytes += frame.bytes();
            state.queue.push_back(frame);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Waits until there are frames to write, and takes some of them.
    pub(super) async fn take(&self, into: &mut Vec<Frame>) {
        loop {
            if self.take_ready(into) > 0 {
                return;
            }
            self.wake.notified().await;
        }
    }

    /// Takes frames for one write. From here on their calls count as sent.
    fn take_ready(&self, into: &mut Vec<Frame>) -> usize {
        let mut state = self.state.lock();
        let (mut bytes, mut forgotten) = (0, 0);
        while bytes < WRITE_BYTES
            && let Some(frame) = state.queue.pop_front()
        {
            if frame.kind == Kind::Call {
                let Some(waiting) = state.calls.get_mut(&frame.call) else {
                    // Nobody waits any more: whoever did was told that it was not sent.
                    forgotten += frame.bytes();
                    continue;
                };
                waiting.sent = true;
            }
            bytes += frame.bytes();
            into.push(frame);
        }
        state.bytes -= forgotten;
        bytes
    }

    /// So many bytes have left.
    pub(super) fn written(&self, frames: usize, bytes: usize) {
        self.state.lock().bytes -= bytes;
        self.room.notify_waiters();
        add(&self.counts.frames_out, frames);
        add(&self.counts.bytes_out, bytes);
        add(&self.counts.writes, 1);
    }

    /// The answer to a call came. One that nobody waits for any more is dropped.
    pub(super) fn answered(&self, call: u64, result: Result<Bytes, CallError>) {
        let waiting = self.state.lock().calls.remove(&call);
        if let Some(waiting) = waiting {
            let _ = waiting.answer.send(result);
        }
    }

    /// There is no connection any more. Tells those who wait what became of their calls.
    pub(super) fn close(&self, reason: &str) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        state.end = Some(reason.to_owned());
        let calls = std::mem::take(&mut state.calls);
        state.queue.clear();
        drop(state);
        for waiting in calls.into_values() {
            let _ = waiting.answer.send(Err(self.unanswered(waiting.sent, reason.to_owned())));
        }
        self.closed.send_replace(true);
        self.room.notify_waiters();
    }

    /// Waits for [`Link::close`].
    pub(super) async fn closed(&self) {
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Why there is no connection any more.
    pub(super) fn end(&self) -> Option<String> {
        self.state.lock().end.clone()
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.state.lock().bytes
    }

    fn check(&self, frame: &Frame) -> Result<(), NotSent> {
        if frame.body.len() > self.bounds.frame_bytes_max { Err(NotSent::TooLarge) } else { Ok(()) }
    }

    fn refused(&self, reason: NotSent) -> NotSent {
        if reason == NotSent::Full {
            add(&self.counts.refused_full, 1);
        }
        reason
    }

    fn unanswered(&self, sent: bool, reason: String) -> CallError {
        if sent {
            add(&self.counts.calls_lost, 1);
            CallError::Lost(reason)
        } else {
            CallError::NotSent(reason)
        }
    }

    /// Nobody waits for this call any more. Answers whether it was sent, `None` if its fate has been told.
    fn forget(&self, call: u64) -> Option<bool> {
        self.state.lock().calls.remove(&call).map(|waiting| waiting.sent)
    }
}

fn refusal(call: u64, text: &str) -> Frame {
    let body = Bytes::copy_from_slice(text.as_bytes());
    Frame { kind: Kind::Refusal, channel: Channel::Control, call, body }
}

impl State {
    fn push(&mut self, frame: Frame, bounds: &Bounds) -> Result<(), (NotSent, Frame)> {
        if self.end.is_some() {
            return Err((NotSent::Down, frame));
        }
        if self.bytes + frame.bytes() > bounds.queue_bytes_max.max(bounds.frame_bytes_max + HEADER_BYTES) {
            return Err((NotSent::Full, frame));
        }
        self.bytes += frame.bytes();
        self.queue.push_back(frame);
        Ok(())
    }
}

impl Call {
    /// The answer, or what is known of the call when the time is over.
    pub(super) async fn wait(mut self, deadline: Duration) -> Result<Bytes, CallError> {
        let lost = || CallError::Lost("the connection ended".into());
        match tokio::time::timeout(deadline, &mut self.answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(lost())),
            Err(_) => match self.link.forget(self.number) {
                Some(sent) => Err(self.link.unanswered(sent, "the time was over".into())),
                None => self.answer.try_recv().unwrap_or_else(|_| Err(lost())),
            },
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let _ = self.link.forget(self.number);
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
