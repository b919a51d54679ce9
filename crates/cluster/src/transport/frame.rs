//! The frame: what a connection carries once both sides have shaken hands. Drawn in `docs/formats/peer.md`.

use super::types::Channel;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::fmt;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes before the body: length (4), kind (1), channel (1), zero (2), call (8), checksum (8).
pub(super) const HEADER_BYTES: usize = 24;

/// Bytes of the header that the checksum covers.
const SUMMED_BYTES: usize = 16;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message that wants no answer.
    Message,
    /// A call; its number comes back with the answer.
    Call,
    /// The result of a call.
    Answer,
    /// The text that came instead of a result.
    Refusal,
    /// Says that this end is there, and wants to hear the same.
    Ping,
    /// What a ping wants to hear.
    Pong,
    /// The sender's identity has changed.
    Identity,
}

const KINDS: [Kind; 7] =
    [Kind::Message, Kind::Call, Kind::Answer, Kind::Refusal, Kind::Ping, Kind::Pong, Kind::Identity];

impl Kind {
    fn number(self) -> u8 {
        self as u8
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) channel: Channel,
    /// Number of the call that this is or answers; else zero.
    pub(super) call: u64,
    pub(super) body: Bytes,
}

/// Why the bytes of a connection are not frames. Nothing behind them can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadFrame {
    /// Of the frame, in the connection.
    offset: u64,
    what: String,
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad frame at byte {} of the connection: {}", self.offset, self.what)
    }
}

impl Frame {
    pub(super) fn bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// Adds the header. The body follows it; the caller has bounded it.
    pub(super) fn put_header(&self, to: &mut BytesMut) {
        let mut summed = [0; SUMMED_BYTES];
        let mut rest = &mut summed[..];
        rest.put_u32_le(u32::try_from(self.body.len()).unwrap_or(u32::MAX));
        rest.put_u8(self.kind.number());
        rest.put_u8(self.channel.number());
        rest.put_u16_le(0);
        rest.put_u64_le(self.call);
        to.put_slice(&summed);
        to.put_u64_le(checksum(&summed, &self.body));
    }
}

/// Over the header's fields and the body.
fn checksum(summed: &[u8], body: &[u8]) -> u64 {
    xxh3_64_with_seed(body, xxh3_64(summed))
}

/// Takes frames from the front of what has been read.
#[derive(Debug)]
pub(super) struct Decoder {
    body_bytes_max: usize,
    offset: u64,
}

impl Decoder {
    pub(super) fn new(body_bytes_max: usize) -> Decoder {
        Decoder { body_bytes_max, offset: 0 }
    }

    /// The next frame; `Err(Ok(n))`-like answers are avoided: [`Next::Wants`] says how many more bytes help.
    pub(super) fn next(&mut self, from: &mut BytesMut) -> Result<Next, BadFrame> {
        let Some((summed, mut rest)) = from.split_at_checked(SUMMED_BYTES) else {
            return Ok(Next::Wants(HEADER_BYTES - from.len()));
        };
        let mut fields = summed;
        let length = fields.get_u32_le() as usize;
        let (kind, channel) = (fields.get_u8(), fields.get_u8());
        let (zero, call) = (fields.get_u16_le(), fields.get_u64_le());
        // Before anything is read or kept for it.
        if length > self.body_bytes_max {
            let most = self.body_bytes_max;
            return Err(self.bad(format!("its body is said to have {length} bytes, and {most} are the most")));
        }
        let kind = KINDS.get(usize::from(kind)).copied();
        let kind = kind.ok_or_else(|| self.bad("its kind is unknown".into()))?;
        let channel = Channel::of(channel).ok_or_else(|| self.bad("its channel is unknown".into()))?;
        if zero != 0 {
            return Err(self.bad("bytes that must be zero are not".into()));
        }
        let whole = HEADER_BYTES + length;
        if from.len() < whole {
            return Ok(Next::Wants(whole - from.len()));
        }
        let expected = rest.get_u64_le();
        let found = checksum(summed, rest.get(..length).unwrap_or_default());
        if expected != found {
            return Err(self.bad(format!("its checksum says {expected:016x}, its content is {found:016x}")));
        }
        let mut frame = from.split_to(whole);
        frame.advance(HEADER_BYTES);
        self.offset += whole as u64;
        Ok(Next::Frame(Frame { kind, channel, call, body: frame.freeze() }))
    }

    fn bad(&self, what: String) -> BadFrame {
        BadFrame { offset: self.offset, what }
    }
}

/// What stands at the front.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A whole frame.
    Frame(Frame),
    /// A part of one: so many bytes more are needed to tell, or to have it whole.
    Wants(usize),
}

/// Reads all frames of these bytes; answers how many there were.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn decode_all(bytes: &[u8]) -> Result<usize, String> {
    let (mut decoder, mut rest) = (Decoder::new(1 << 16), BytesMut::from(bytes));
    let mut frames = 0;
    while let Next::Frame(_) = decoder.next(&mut rest).map_err(|bad| bad.to_string())? {
        frames += 1;
    }
    Ok(frames)
}

/// A frame of each kind, one behind the other.
#[cfg(test)]
pub(super) fn one_of_each() -> BytesMut {
    let mut bytes = BytesMut::new();
    for (call, kind) in (7..).zip(KINDS) {
        let frame = Frame { kind, channel: Channel::Forward, call, body: Bytes::from_static(b"some body") };
        frame.put_header(&mut bytes);
        bytes.put_slice(&frame.body);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let body = proptest::collection::vec(any::<u8>(), 0..300);
        (0..KINDS.len(), 0..4_u8, any::<u64>(), body).prop_map(|(kind, channel, call, body)| Frame {
            kind: KINDS[kind],
            channel: Channel::of(channel).unwrap(),
            call,
            body: body.into(),
        })
    }

    fn encode(frames: &[Frame]) -> BytesMut {
        let mut bytes = BytesMut::new();
        for frame in frames {
            frame.put_header(&mut bytes);
            bytes.put_slice(&frame.body);
        }
        bytes
    }

    /// Gives the bytes in pieces that end at `cuts`, and takes what can be taken in between.
    fn decode(bytes: &[u8], cuts: &[usize], most: usize) -> Result<Vec<Frame>, BadFrame> {
        let (mut decoder, mut buffer, mut frames) = (Decoder::new(most), BytesMut::new(), Vec::new());
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(bytes.len());
        let mut from = 0;
        for end in ends {
            buffer.extend_from_slice(&bytes[from..end]);
            from = end;
            loop {
                match decoder.next(&mut buffer)? {
                    Next::Frame(frame) => frames.push(frame),
                    Next::Wants(more) => {
                        assert!(more > 0);
                        break;
                    }
                }
            }
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_come_back_however_they_are_cut(frames in proptest::collection::vec(frame(), 0..6), cuts in proptest::collection::vec(any::<usize>(), 0..8)) {
            prop_assert_eq!(decode(&encode(&frames), &cuts, 300), Ok(frames));
        }

        #[test]
        fn a_flipped_bit_is_found_or_waits_for_more(frames in proptest::collection::vec(frame(), 1..4), at in any::<usize>(), bit in 0..8_u8) {
            let mut bytes = encode(&frames);
            let at = at % bytes.len();
            bytes[at] ^= 1_u8 << bit;
            // A length that grew waits for more: what came is a beginning of what was sent.
            if let Ok(found) = decode(&bytes, &[], 300) {
                prop_assert!(found.len() < frames.len() && frames.starts_with(&found));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cuts in proptest::collection::vec(any::<usize>(), 0..4)) {
            let _ = decode(&bytes, &cuts, 1 << 20);
        }
    }

    #[test]
    fn a_length_is_judged_before_its_body_is_there() {
        let frame = Frame { kind: Kind::Call, channel: Channel::Forward, call: 7, body: vec![1; 101].into() };
        let bytes = encode(std::slice::from_ref(&frame));
        let bad = decode(&bytes[..HEADER_BYTES], &[], 100).unwrap_err();
        assert_eq!(
            bad.to_string(),
            "bad frame at byte 0 of the connection: its body is said to have 101 bytes, and 100 are the most"
        );
        let mut rest = BytesMut::from(&bytes[..HEADER_BYTES + 1]);
        assert_eq!(Decoder::new(101).next(&mut rest), Ok(Next::Wants(100)));
        assert_eq!(decode(&bytes, &[], 101), Ok(vec![frame]));
    }
}
