//! A connection at work: frames in, frames out, and signs of life.

use super::frame::{Decoder, Frame, Kind, Next};
use super::link::Link;
use super::stats::add;
use super::types::{CallError, Handler};
use bytes::{BufMut, Bytes, BytesMut};
use kvorum_sync::{Lane, StoreId};
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::MissedTickBehavior;

/// Bytes that are read at one time, at least and at most. What a header says of its body reserves no more than that before it comes.
const READ_BYTES_MIN: usize = 64 << 10;
const READ_BYTES_MAX: usize = 1 << 20;

/// As long as so much of it is left, in bytes, a buffer is read into: frames that are still used keep it from being used again.
const READ_BYTES_LEFT: usize = 16 << 10;

/// Bodies up to this are copied next to each other; larger ones are written by themselves.
const COPIED_BYTES_MAX: usize = 32 << 10;

/// Calls of one connection that are worked on at one time.
const CALLS_MAX: usize = 1024;

/// What a connection is read with.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How often a control connection is tried out, and how long it may be silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    pub(super) ping_every: Duration,
    pub(super) silence_max: Duration,
}

/// What is done with a changed identity: an error ends the session.
pub(super) type OnIdentity = Arc<dyn Fn(&[u8]) -> Result<(), String> + Send + Sync>;

/// One connection of a session.
pub(super) struct Connection {
    pub(super) peer: StoreId,
    pub(super) link: Arc<Link>,
    pub(super) handler: Arc<dyn Handler>,
    /// Hears of a changed identity.
    pub(super) on_identity: OnIdentity,
    calls: Arc<AtomicUsize>,
    heard: AtomicBool,
}

impl Connection {
    pub(super) fn new(
        peer: StoreId,
        link: Arc<Link>,
        handler: Arc<dyn Handler>,
        on_identity: OnIdentity,
    ) -> Connection {
        Connection { peer, link, handler, on_identity, calls: Arc::default(), heard: AtomicBool::new(true) }
    }

    /// Carries frames both ways until the connection ends or its link is closed; answers why.
    pub(super) async fn run(&self, io: Box<dyn Io>, life: Option<Life>) -> String {
        let (reader, writer) = tokio::io::split(io);
        tokio::select! {
            reason = self.read(reader) => reason,
            reason = self.write(writer) => reason,
            reason = self.live(life) => reason,
            () = self.link.closed() => self.link.end().unwrap_or_default(),
        }
    }

    /// Ends when nothing has come for too long. It counts pings and not a clock: a process that was stopped finds what came meanwhile first.
    async fn live(&self, life: Option<Life>) -> String {
        let Some(life) = life else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(life.ping_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent = Duration::ZERO;
        while silent < life.silence_max {
            ticks.tick().await;
            self.link.send_own(Kind::Ping, Bytes::new());
            silent = if self.heard.swap(false, Relaxed) { Duration::ZERO } else { silent + life.ping_every };
        }
        format!("nothing came for {} ms", silent.as_millis())
    }

    async fn write(&self, mut to: impl AsyncWrite + Unpin) -> String {
        let (mut frames, mut buffer) = (Vec::new(), BytesMut::new());
        loop {
            self.link.take(&mut frames).await;
            let (count, bytes) = (frames.len(), frames.iter().map(Frame::bytes).sum());
            if let Err(error) = write_frames(&mut to, &mut frames, &mut buffer).await {
                return format!("it can't be written to: {error}");
            }
            self.link.written(count, bytes);
        }
    }

    async fn read(&self, mut from: impl AsyncRead + Unpin) -> String {
        let mut decoder = Decoder::new(self.link.bounds.frame_bytes_max);
        let mut buffer = BytesMut::with_capacity(READ_BYTES_MIN);
        let is_data = self.link.lane != Lane::Control;
        loop {
            let wants = loop {
                match decoder.next(&mut buffer) {
                    Ok(Next::Frame(frame)) => {
                        add(&self.link.counts.frames_in, 1);
                        if let Err(reason) = self.take_in(frame) {
                            return reason;
                        }
                    }
                    Ok(Next::Wants(bytes)) => break bytes,
                    Err(bad) => return bad.to_string(),
                }
            };
            if is_data && let Some(pause) = self.handler.pause() {
                // What came so far need not wait for room in the store to become durable.
                self.handler.quiet();
                pause.await;
            }
            if buffer.capacity() - buffer.len() < wants.max(READ_BYTES_LEFT) {
                buffer.reserve(wants.clamp(READ_BYTES_MIN, READ_BYTES_MAX));
            }
            let read = tokio::select! {
                biased;
                read = from.read_buf(&mut buffer) => read,
                () = ready(()), if is_data => {
                    self.handler.quiet();
                    from.read_buf(&mut buffer).await
                }
            };
            match read {
                Ok(0) => return "the other side ended the connection".into(),
                Ok(bytes) => add(&self.link.counts.bytes_in, bytes),
                Err(error) => return format!("it can't be read from: {error}"),
            }
            self.heard.store(true, Relaxed);
        }
    }

    fn take_in(&self, frame: Frame) -> Result<(), String> {
        match frame.kind {
            Kind::Message => self.handler.message(self.peer, self.link.lane, frame.channel, frame.body),
            Kind::Call => self.carry_out(frame),
            Kind::Answer => self.link.answered(frame.call, Ok(frame.body)),
            Kind::Refusal => {
                let text = String::from_utf8_lossy(&frame.body).into_owned();
                self.link.answered(frame.call, Err(CallError::Refused(text)));
            }
            Kind::Ping => self.link.send_own(Kind::Pong, Bytes::new()),
            Kind::Pong => {}
            Kind::Identity => (self.on_identity)(&frame.body)?,
        }
        Ok(())
    }

    fn carry_out(&self, frame: Frame) {
        let (link, call, running) = (Arc::clone(&self.link), frame.call, Arc::clone(&self.calls));
        let before = running.fetch_add(1, Relaxed);
        if before >= 2 * CALLS_MAX {
            // Even refusals wait for room: whoever asks so much hears nothing.
            running.fetch_sub(1, Relaxed);
            return;
        }
        let answer = (before < CALLS_MAX).then(|| self.handler.call(self.peer, frame.channel, frame.body));
        tokio::spawn(async move {
            let carry_out = async {
                let result = match answer {
                    Some(answer) => answer.await,
                    None => Err(format!("{CALLS_MAX} calls are worked on already")),
                };
                link.answer(call, result).await;
            };
            tokio::select! {
                () = carry_out => {}
                () = link.closed() => {}
            }
            running.fetch_sub(1, Relaxed);
        });
    }
}

/// Writes frames one behind the other, many with one call.
pub(super) async fn write_frames(
    to: &mut (impl AsyncWrite + Unpin),
    frames: &mut Vec<Frame>,
    buffer: &mut BytesMut,
) -> std::io::Result<()> {
    for frame in frames.drain(..) {
        frame.put_header(buffer);
        if frame.body.len() <= COPIED_BYTES_MAX {
            buffer.put_slice(&frame.body);
        } else {
            to.write_all(buffer).await?;
            buffer.clear();
            to.write_all(&frame.body).await?;
        }
    }
    to.write_all(buffer).await?;
    buffer.clear();
    to.flush().await
}
