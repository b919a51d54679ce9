//! Commands for several shards in one body on the `Forward` channel: what one connection wants of one node.
//!
//! ```text
//! asks    := version 2 (1) · patience in ms (4) · parts to the end
//! part    := namespace (2) · place (2) · commands, as in an ask
//! answers := answers of the parts, in their order, to the end
//! ```

use super::bytes::{Bad, Reader, Result, put_count};
use super::codec::{Answer, COMMANDS_MAX};
use super::plan::Part;
use crate::latch::ShardId;
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Range;

/// The version of these bodies; version 1 are asks of one shard.
pub(super) const VERSION: u8 = 2;

/// What a command takes beside its words, about.
const COMMAND_BYTES: usize = 24;

/// What is asked of some shards of one node. It keeps the bytes in which it came.
#[derive(Debug)]
pub(crate) struct Asks {
    body: Bytes,
    /// How long whoever asks will wait, in milliseconds.
    pub(super) patience_ms: u32,
    pub(super) parts: Vec<Asked>,
    /// For each command, behind which word it ends.
    ends: Vec<usize>,
    /// Where words lie in the body.
    words: Vec<Range<usize>>,
}

/// Commands of one shard.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(super) shard: ShardId,
    commands: Range<usize>,
}

/// The body that asks for these parts of a buffer.
pub(super) fn encode<'p, 'r: 'p>(
    patience_ms: u32,
    parts: impl Iterator<Item = &'p Part<'r>> + Clone,
) -> Bytes {
    let pieces = parts.clone().flat_map(|part| &part.pieces);
    let bytes: usize =
        pieces.map(|piece| COMMAND_BYTES + piece.words.iter().map(|word| word.len()).sum::<usize>()).sum();
    let mut to = BytesMut::with_capacity(bytes + COMMAND_BYTES);
    to.put_u8(VERSION);
    to.put_u32_le(patience_ms);
    for part in parts {
        to.put_u16_le(part.shard.namespace);
        to.put_u16_le(part.shard.place);
        put_count(part.pieces.len(), &mut to);
        for piece in &part.pieces {
            put_count(piece.words.len(), &mut to);
            for word in &piece.words {
                put_count(word.len(), &mut to);
                to.put_slice(word);
            }
        }
    }
    to.freeze()
}

/// Reads what is asked.
pub(crate) fn decode(body: Bytes) -> Result<Asks> {
    let mut from = Reader::new(body.clone());
    if from.byte()? != VERSION {
        return Err(Bad("version 2 of forwarded commands"));
    }
    let patience_ms = from.word()?;
    let (mut parts, mut ends, mut words) = (Vec::new(), Vec::new(), Vec::new());
    while !from.is_done() {
        let shard = ShardId { namespace: from.short()?, place: from.short()? };
        let count = from.count(4)?;
        let first = ends.len();
        if count > COMMANDS_MAX {
            return Err(Bad("at most 65536 commands"));
        }
        for _ in 0..count {
            for _ in 0..from.count(4)? {
                let length = from.count(1)?;
                let start = body.len() - from.left();
                from.skip(length)?;
                words.push(start..start + length);
            }
            ends.push(words.len());
        }
        parts.push(Asked { shard, commands: first..ends.len() });
    }
    Ok(Asks { body, patience_ms, parts, ends, words })
}

impl Asks {
    /// All words, one command's behind the other's.
    pub(super) fn words(&self) -> Vec<&[u8]> {
        self.words.iter().map(|word| self.body.get(word.clone()).unwrap_or_default()).collect()
    }

    /// The words of each command of a part, of what [`Asks::words`] answered.
    pub(super) fn commands<'w>(
        &self,
        part: &Asked,
        words: &'w [&'w [u8]],
    ) -> impl Iterator<Item = &'w [&'w [u8]]> {
        part.commands.clone().map(|command| {
            let end = |command: Option<usize>| command.and_then(|command| self.ends.get(command)).copied();
            let start = end(command.checked_sub(1)).unwrap_or(0);
            words.get(start..end(Some(command)).unwrap_or(start)).unwrap_or_default()
        })
    }
}

/// The body that answers.
pub(super) fn encode_answers(answers: &[Answer]) -> Bytes {
    let mut to = BytesMut::with_capacity(COMMAND_BYTES * answers.len());
    answers.iter().for_each(|answer| answer.put(&mut to));
    to.freeze()
}

/// Reads the answers of so many parts.
pub(super) fn decode_answers(body: Bytes, parts: usize) -> Result<Vec<Answer>> {
    let mut from = Reader::new(body);
    let answers = (0..parts).map(|_| Answer::get(&mut from)).collect::<Result<_>>()?;
    from.end()?;
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::super::plan::Parts;
    use super::*;
    use crate::namespace::NamespaceId;
    use crate::session::Request;
    use kvorum_model::{Args, resolve};
    use proptest::prelude::*;

    /// What a body asks: of each shard its commands.
    fn shown(asks: &Asks) -> Vec<(ShardId, Vec<Vec<Vec<u8>>>)> {
        let words = asks.words();
        let commands = |part: &Asked| {
            let commands = asks.commands(part, &words);
            commands.map(|words| words.iter().map(|word| word.to_vec()).collect()).collect()
        };
        asks.parts.iter().map(|part| (part.shard, commands(part))).collect()
    }

    #[test]
    fn parts_come_back_with_their_commands_and_a_cut_body_says_no_more_than_whole_parts() {
        let commands: [&[&[u8]]; 5] = [
            &[b"SET", b"{a}1", b"x"],
            &[b"SET", b"{b}1", b""],
            &[b"GET", b"{a}1"],
            &[b"MSET", b"{c}1", b"1", b"{c}2", b"2"],
            &[b"GET", b"{b}1"],
        ];
        let requests: Vec<Request<'_>> = commands
            .iter()
            .map(|words| {
                let args = Args::new(words);
                Request { namespace: NamespaceId::ZERO, spec: resolve(args).unwrap(), args }
            })
            .collect();
        let parts = Parts::of(&requests).parts;
        let expected: Vec<_> = parts
            .iter()
            .map(|part| {
                let words = |at: usize| commands[at].iter().map(|word| word.to_vec()).collect();
                (part.shard, part.pieces.iter().map(|piece| words(piece.at)).collect())
            })
            .collect();
        let body = encode(77, parts.iter());
        let asks = decode(body.clone()).unwrap();
        assert_eq!((asks.patience_ms, shown(&asks)), (77, expected.clone()));
        for cut in 0..body.len() {
            if let Ok(asks) = decode(body.slice(..cut)) {
                let found = shown(&asks);
                assert!(found.len() < expected.len() && expected.starts_with(&found), "cut at {cut}");
            }
        }
    }

    #[test]
    fn answers_come_back_and_one_too_many_or_too_few_is_refused() {
        let answers = [Answer::NotHere(None), Answer::Said { last: 7, all: Vec::new() }, Answer::Count(3)];
        let body = encode_answers(&answers);
        assert_eq!(decode_answers(body.clone(), 3).as_deref(), Ok(&answers[..]));
        assert!(decode_answers(body.clone(), 2).is_err() && decode_answers(body, 4).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(0..9_u8, 0..120)) {
            bytes.insert(0, VERSION);
            if let Ok(asks) = decode(bytes.clone().into()) {
                _ = shown(&asks);
            }
            _ = decode_answers(bytes.into(), 3);
        }
    }
}
