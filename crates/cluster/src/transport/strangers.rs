//! Single calls between nodes that need not be peers: what bootstrap and joining are made of. A connection for each.

use super::connect::{Guest, Shaken, Wish, dial};
use super::core::Core;
use super::frame::{Decoder, Frame, Kind, Next};
use super::handshake::Purpose;
use super::lane::{Io, write_frames};
use super::types::{CallError, Channel, Identity, NotSent};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::OwnedSemaphorePermit;

/// How long the answer to a stranger may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

const READ_BYTES: usize = 64 << 10;

/// How far a question has come. Decided under its lock: a question that was given up is not sent afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    Sent,
    GivenUp,
}

/// Asks the node at an address.
pub(super) async fn ask(
    core: Arc<Core>,
    address: String,
    channel: Channel,
    body: Bytes,
    deadline: Duration,
) -> Result<(Identity, Bytes), CallError> {
    if body.len() > core.settings.frame_bytes_max {
        return Err(NotSent::TooLarge.into());
    }
    let progress = Arc::new(Mutex::new(Progress::Waiting));
    let frame = Frame { kind: Kind::Call, channel, call: 1, body };
    let mut task = core.control.spawn(ask_now(Arc::clone(&core), address, frame, Arc::clone(&progress)));
    match tokio::time::timeout(deadline, &mut task).await {
        Ok(Ok(answer)) => answer,
        over => {
            task.abort();
            let sent = std::mem::replace(&mut *progress.lock(), Progress::GivenUp) == Progress::Sent;
            let reason = if over.is_err() { "the time was over" } else { "this node ends" };
            Err(if sent { CallError::Lost(reason.into()) } else { CallError::NotSent(reason.into()) })
        }
    }
}

async fn ask_now(
    core: Arc<Core>,
    address: String,
    frame: Frame,
    progress: Arc<Mutex<Progress>>,
) -> Result<(Identity, Bytes), CallError> {
    let manners = core.manners();
    let wish = Wish { purpose: Purpose::Ask, session: 0, expected: None };
    let shaken = core.in_time(dial(&manners, &address, wish)).await;
    let Shaken { mut io, hello } = shaken.map_err(|reason| {
        core.complain(&address, &reason);
        CallError::NotSent(format!("{address}: {reason}"))
    })?;
    core.is_content(&address);
    {
        let mut progress = progress.lock();
        if *progress == Progress::GivenUp {
            return Err(CallError::NotSent("the time was over".into()));
        }
        *progress = Progress::Sent;
    }
    let lost = |reason: String| CallError::Lost(format!("{address}: {reason}"));
    write(&mut *io, frame).await.map_err(lost)?;
    let answer = read(&mut *io, core.settings.frame_bytes_max).await.map_err(lost)?;
    match answer.kind {
        Kind::Answer => Ok((hello.identity, answer.body)),
        Kind::Refusal => Err(CallError::Refused(String::from_utf8_lossy(&answer.body).into_owned())),
        _ => Err(lost("it says something else than an answer".into())),
    }
}

/// Answers a node that asks.
pub(super) async fn serve(core: &Core, guest: Guest, permit: OwnedSemaphorePermit) -> Result<(), String> {
    let identity = guest.hello.identity.clone();
    let mut io = core.in_time(guest.welcome()).await?;
    let bytes_max = core.settings.frame_bytes_max;
    let call = core.in_time(read(&mut *io, bytes_max)).await?;
    if call.kind != Kind::Call {
        return Err("it asks nothing".into());
    }
    let answer = core.handler.strangers_call(&identity, call.channel, call.body);
    let answer = tokio::time::timeout(ANSWER_TIME_MAX, answer).await;
    let (kind, body) = match answer.unwrap_or_else(|_| Err("no answer was found in time".into())) {
        Ok(body) if body.len() <= bytes_max => (Kind::Answer, body),
        Ok(_) => (Kind::Refusal, NotSent::TooLarge.to_string().into()),
        Err(text) => (Kind::Refusal, text.into()),
    };
    let frame = Frame { kind, channel: call.channel, call: call.call, body };
    core.in_time(write(&mut *io, frame)).await?;
    drop(permit);
    Ok(())
}

async fn write(io: &mut dyn Io, frame: Frame) -> Result<(), String> {
    let mut io = io;
    let written = write_frames(&mut io, &mut vec![frame], &mut BytesMut::new()).await;
    written.map_err(|error| format!("it can't be written to: {error}"))
}

async fn read(io: &mut dyn Io, bytes_max: usize) -> Result<Frame, String> {
    let (mut decoder, mut buffer) = (Decoder::new(bytes_max), BytesMut::new());
    loop {
        match decoder.next(&mut buffer).map_err(|bad| bad.to_string())? {
            Next::Frame(frame) => return Ok(frame),
            Next::Wants(_) => buffer.reserve(READ_BYTES),
        }
        match io.read_buf(&mut buffer).await {
            Ok(0) => return Err("the connection ended".into()),
            Ok(_) => {}
            Err(error) => return Err(format!("it can't be read from: {error}")),
        }
    }
}
