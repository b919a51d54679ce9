//! Messages between members of a shard, as bytes.
//!
//! ```text
//! frame   = length u32 · message │ length u32 · message │ …
//! message = namespace u16 · place u16 · kind u8 · the message's fields · what travels beside it (to the end)
//! ```
//!
//! Numbers are little endian; counts are varints. A reader takes nothing on trust: no list is made room for that the bytes can't hold.

mod decode;
mod encode;
#[cfg(test)]
pub(super) mod tests;

use super::bytes_in::{Expected, Reader};
use crate::latch::ShardId;
use bytes::Bytes;
use kvorum_sync::Message;

/// Bytes of the length before each message of a frame.
const LENGTH_BYTES: usize = 4;

/// A message with what travels beside it: the writes of a [`Message::Write`], the data of a [`Message::Piece`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMessage {
    /// What it says.
    pub message: Message,
    /// Empty for all others.
    pub payload: Bytes,
}

impl ShardMessage {
    /// A message that nothing travels beside.
    pub fn of(message: Message) -> ShardMessage {
        ShardMessage { message, payload: Bytes::new() }
    }

    /// Its size in bytes, about.
    pub fn bytes(&self) -> usize {
        self.payload.len() + 64
    }
}

/// Kinds of messages. The numbers are part of the protocol.
mod kind {
    pub(super) const GATHER: u8 = 1;
    pub(super) const PROMISED: u8 = 2;
    pub(super) const REFUSED: u8 = 3;
    pub(super) const ADOPT: u8 = 4;
    pub(super) const ADOPTED: u8 = 5;
    pub(super) const WRITE: u8 = 6;
    pub(super) const ACK: u8 = 7;
    pub(super) const POINT: u8 = 8;
    pub(super) const REACHED: u8 = 9;
    pub(super) const LACK: u8 = 10;
    pub(super) const ANNOUNCE: u8 = 11;
    pub(super) const HELLO: u8 = 12;
    pub(super) const RESUME: u8 = 13;
    pub(super) const FETCH: u8 = 14;
    pub(super) const PIECE: u8 = 15;
    pub(super) const CANNOT_SERVE: u8 = 16;
    pub(super) const PING: u8 = 17;
    pub(super) const PONG: u8 = 18;
    pub(super) const ASK_READ: u8 = 19;
    pub(super) const READ_ANSWER: u8 = 20;
    pub(super) const ASK_POINT: u8 = 21;
    pub(super) const POINT_AT: u8 = 22;
    pub(super) const FENCE: u8 = 23;
}

/// Bytes of a message before its payload, of nearly all.
const FIELDS_BYTES: usize = 128;

/// Adds a message for a shard's member.
pub fn encode(shard: ShardId, message: &ShardMessage, out: &mut Vec<u8>) {
    out.reserve(FIELDS_BYTES + message.payload.len());
    out.extend_from_slice(&shard.namespace.to_le_bytes());
    out.extend_from_slice(&shard.place.to_le_bytes());
    encode::message(out, &message.message);
    out.extend_from_slice(&message.payload);
}

/// Adds a message to the body of a frame: behind its length.
pub(crate) fn push(shard: ShardId, message: &ShardMessage, frame: &mut Vec<u8>) {
    let start = frame.len();
    frame.extend_from_slice(&[0; LENGTH_BYTES]);
    encode(shard, message, frame);
    // Frames are far below what the number can say.
    let length = u32::try_from(frame.len() - start - LENGTH_BYTES).unwrap_or(u32::MAX);
    if let Some(place) = frame.get_mut(start..start + LENGTH_BYTES) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// The messages in the body of a frame, in order. The last one is an error if the body does not end with it.
pub(crate) fn messages(frame: &Bytes) -> impl Iterator<Item = Result<Bytes, Expected>> {
    let mut reader = Reader::new(frame);
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed || reader.is_done() {
            return None;
        }
        let length = reader.u32("the length of a message");
        let message = length.and_then(|length| reader.bytes(length as usize, "a whole message"));
        failed = message.is_err();
        Some(message)
    })
}

/// Reads a message and the shard that it is for.
///
/// # Errors
/// What was expected and not found.
pub fn decode(body: &Bytes) -> Result<(ShardId, ShardMessage), Expected> {
    let mut reader = Reader::new(body);
    let shard = ShardId { namespace: reader.u16("a namespace")?, place: reader.u16("a place")? };
    let message = decode::message(&mut reader)?;
    let payload = match message {
        Message::Write { .. } | Message::Piece(_) => reader.bytes(reader.left(), "what is beside it")?,
        _ => {
            reader.end()?;
            Bytes::new()
        }
    };
    Ok((shard, ShardMessage { message, payload }))
}
