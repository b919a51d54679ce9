//! What nodes ask of each other for their clients, and what they answer: the bodies on the `Forward` channel.
//!
//! ```text
//! ask       := version (1) · namespace (2) · place (2) · patience in ms (4) · request id (flag, bytes) · kind (1) · body
//! commands  := count (4) · commands; a command is a count (4) of words, a word its length (4) and bytes
//! answer    := kind (1) · body
//! ```
//!
//! Numbers are little endian. Whatever comes in that is not exactly this is refused with what was expected.

use super::bytes::{Bad, Reader, Result, put_bytes, put_count, put_maybe};
use super::reply;
use crate::latch::ShardId;
use bytes::{BufMut, Bytes, BytesMut};
use kvorum_model::Reply;
use kvorum_sync::{Holders, StoreId};

/// The version of these bodies.
const VERSION: u8 = 1;

/// Commands in one ask at most; more go in several.
pub(crate) const COMMANDS_MAX: usize = 65_536;

/// Something that another node asks of the leader of a shard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ask {
    pub(crate) shard: ShardId,
    /// How long whoever asks will wait, in milliseconds.
    pub(crate) patience_ms: u32,
    /// The name of the request that makes its retry harmless: of the first command that writes, or of the transaction.
    pub(crate) request_id: Option<Bytes>,
    pub(crate) work: Work<Bytes>,
}

/// What is asked. `B`: bytes, borrowed where it is sent, owned where it came in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Work<B> {
    /// Commands, one by one, in this order.
    Commands(Vec<Vec<B>>),
    /// Commands as one, unless a watched key has another version now.
    Transaction { watched: Vec<(B, u64)>, commands: Vec<Vec<B>> },
    /// The present versions of keys.
    Versions(Vec<B>),
    /// Empty the shard.
    Clear,
    /// Keys of the shard, in order, behind a key: at most as many are looked at.
    Page { after: Option<B>, looked_at_max: u32, pattern: Option<B>, type_name: Option<B> },
    /// All keys that match a pattern.
    Keys(B),
    /// The number of keys.
    Count,
    /// Any key.
    RandomKey,
    /// Wait until so many members hold an item durably.
    Held { op: u64, wanted: Holders },
    /// A call of `SCAN` with a cursor that the asked node gave out. Its shard says the namespace alone.
    Scan(Vec<B>),
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// It was executed, and this is final.
    Reply(Reply),
    /// It was surely not executed: ask again, here or at the new leader.
    Again,
    /// It may have been executed, or may yet be.
    Unknown,
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// Of each command (of a transaction: of it as a whole). `last`: the highest op id that they wrote; zero: none.
    Said {
        last: u64,
        all: Vec<Said>,
    },
    /// A watched key has another version; nothing was executed.
    Changed,
    /// Of each key its version; zero: absent.
    Versions(Vec<u64>),
    /// Keys, and behind which one it goes on; `None`: that was all.
    Page {
        next: Option<Bytes>,
        keys: Vec<Bytes>,
    },
    Count(u64),
    /// Which members hold the item, as far as the leader was told.
    Held(Holders),
    /// This node does not lead the shard; nothing was executed. The leader, if it knows.
    NotHere(Option<StoreId>),
    /// Surely not executed, and asking again will not help: the error for the client.
    Refused(String),
}

const COMMANDS: u8 = 1;
const TRANSACTION: u8 = 2;
const VERSIONS: u8 = 3;
const CLEAR: u8 = 4;
const PAGE: u8 = 5;
const KEYS: u8 = 6;
const COUNT: u8 = 7;
const SCAN: u8 = 8;
const HELD: u8 = 9;
const RANDOM_KEY: u8 = 10;

/// The body of an ask.
pub(crate) fn encode_ask<B: AsRef<[u8]>>(
    shard: ShardId,
    patience_ms: u32,
    request_id: Option<&[u8]>,
    work: &Work<B>,
) -> Bytes {
    let mut to = BytesMut::new();
    to.put_u8(VERSION);
    to.put_u16_le(shard.namespace);
    to.put_u16_le(shard.place);
    to.put_u32_le(patience_ms);
    put_maybe(request_id, &mut to, put_bytes);
    work.put(&mut to);
    to.freeze()
}

impl<B: AsRef<[u8]>> Work<B> {
    fn put(&self, to: &mut BytesMut) {
        let some = |bytes: &Option<B>, to: &mut BytesMut| {
            put_maybe(bytes.as_ref(), to, |bytes, to| put_bytes(bytes.as_ref(), to));
        };
        match self {
            Work::Commands(commands) => {
                to.put_u8(COMMANDS);
                put_commands(commands, to);
            }
            Work::Transaction { watched, commands } => {
                to.put_u8(TRANSACTION);
                put_count(watched.len(), to);
                for (key, version) in watched {
                    put_bytes(key.as_ref(), to);
                    to.put_u64_le(*version);
                }
                put_commands(commands, to);
            }
            Work::Versions(keys) => {
                to.put_u8(VERSIONS);
                put_words(keys, to);
            }
            Work::Clear => to.put_u8(CLEAR),
            Work::Page { after, looked_at_max, pattern, type_name } => {
                to.put_u8(PAGE);
                some(after, to);
                to.put_u32_le(*looked_at_max);
                some(pattern, to);
                some(type_name, to);
            }
            Work::Keys(pattern) => {
                to.put_u8(KEYS);
                put_bytes(pattern.as_ref(), to);
            }
            Work::Count => to.put_u8(COUNT),
            Work::RandomKey => to.put_u8(RANDOM_KEY),
            Work::Scan(words) => {
                to.put_u8(SCAN);
                put_words(words, to);
            }
            Work::Held { op, wanted } => {
                to.put_u8(HELD);
                to.put_u64_le(*op);
                put_holders(*wanted, to);
            }
        }
    }
}

/// A count above what a byte holds is as good as any that no group reaches.
fn put_holders(holders: Holders, to: &mut BytesMut) {
    to.put_slice(&[u8::from(holders.leader), u8::try_from(holders.others).unwrap_or(u8::MAX)]);
}

fn get_holders(from: &mut Reader) -> Result<Holders> {
    Ok(Holders { leader: from.flag()?, others: from.byte()?.into() })
}

fn put_words<B: AsRef<[u8]>>(words: &[B], to: &mut BytesMut) {
    put_count(words.len(), to);
    words.iter().for_each(|word| put_bytes(word.as_ref(), to));
}

fn put_commands<B: AsRef<[u8]>>(commands: &[Vec<B>], to: &mut BytesMut) {
    put_count(commands.len(), to);
    commands.iter().for_each(|words| put_words(words, to));
}

/// Reads what another node asks.
pub(crate) fn decode_ask(body: Bytes) -> Result<Ask> {
    let mut from = Reader::new(body);
    if from.byte()? != VERSION {
        return Err(Bad("version 1 of forwarded commands"));
    }
    let shard = ShardId { namespace: from.short()?, place: from.short()? };
    let patience_ms = from.word()?;
    let request_id = from.maybe(Reader::bytes)?;
    let work = get_work(&mut from)?;
    from.end()?;
    Ok(Ask { shard, patience_ms, request_id, work })
}

fn get_work(from: &mut Reader) -> Result<Work<Bytes>> {
    Ok(match from.byte()? {
        COMMANDS => Work::Commands(get_commands(from)?),
        TRANSACTION => {
            let count = from.count(12)?;
            let watched = (0..count).map(|_| Ok((from.bytes()?, from.number()?))).collect::<Result<_>>()?;
            Work::Transaction { watched, commands: get_commands(from)? }
        }
        VERSIONS => Work::Versions(get_words(from)?),
        CLEAR => Work::Clear,
        PAGE => Work::Page {
            after: from.maybe(Reader::bytes)?,
            looked_at_max: from.word()?,
            pattern: from.maybe(Reader::bytes)?,
            type_name: from.maybe(Reader::bytes)?,
        },
        KEYS => Work::Keys(from.bytes()?),
        COUNT => Work::Count,
        RANDOM_KEY => Work::RandomKey,
        SCAN => Work::Scan(get_words(from)?),
        HELD => Work::Held { op: from.number()?, wanted: get_holders(from)? },
        _ => return Err(Bad("a kind of work")),
    })
}

fn get_words(from: &mut Reader) -> Result<Vec<Bytes>> {
    let count = from.count(4)?;
    (0..count).map(|_| from.bytes()).collect()
}

fn get_commands(from: &mut Reader) -> Result<Vec<Vec<Bytes>>> {
    let count = from.count(4)?;
    if count > COMMANDS_MAX {
        return Err(Bad("at most 65536 commands"));
    }
    (0..count).map(|_| get_words(from)).collect()
}

const SAID: u8 = 1;
const CHANGED: u8 = 2;
const VERSIONS_ARE: u8 = 3;
const PAGE_IS: u8 = 4;
const COUNT_IS: u8 = 5;
const NOT_HERE: u8 = 6;
const REFUSED: u8 = 7;
const HELD_IS: u8 = 8;

const SAID_REPLY: u8 = 0;
const SAID_AGAIN: u8 = 1;
const SAID_UNKNOWN: u8 = 2;

impl Answer {
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        self.put(&mut to);
        to.freeze()
    }

    pub(super) fn put(&self, to: &mut BytesMut) {
        match self {
            Answer::Said { last, all } => {
                to.put_u8(SAID);
                to.put_u64_le(*last);
                put_count(all.len(), to);
                all.iter().for_each(|said| said.put(to));
            }
            Answer::Changed => to.put_u8(CHANGED),
            Answer::Versions(versions) => {
                to.put_u8(VERSIONS_ARE);
                put_count(versions.len(), to);
                versions.iter().for_each(|version| to.put_u64_le(*version));
            }
            Answer::Page { next, keys } => {
                to.put_u8(PAGE_IS);
                put_maybe(next.as_ref(), to, |next, to| put_bytes(next, to));
                put_words(keys, to);
            }
            Answer::Count(count) => {
                to.put_u8(COUNT_IS);
                to.put_u64_le(*count);
            }
            Answer::Held(holders) => {
                to.put_u8(HELD_IS);
                put_holders(*holders, to);
            }
            Answer::NotHere(leader) => {
                to.put_u8(NOT_HERE);
                put_maybe(*leader, to, |leader, to| to.put_u64_le(leader.0));
            }
            Answer::Refused(text) => {
                to.put_u8(REFUSED);
                put_bytes(text.as_bytes(), to);
            }
        }
    }

    pub(super) fn get(from: &mut Reader) -> Result<Answer> {
        Ok(match from.byte()? {
            SAID => {
                let last = from.number()?;
                let count = from.count(1)?;
                Answer::Said { last, all: (0..count).map(|_| Said::get(from)).collect::<Result<_>>()? }
            }
            CHANGED => Answer::Changed,
            VERSIONS_ARE => {
                let count = from.count(8)?;
                Answer::Versions((0..count).map(|_| from.number()).collect::<Result<_>>()?)
            }
            PAGE_IS => Answer::Page { next: from.maybe(Reader::bytes)?, keys: get_words(from)? },
            COUNT_IS => Answer::Count(from.number()?),
            HELD_IS => Answer::Held(get_holders(from)?),
            NOT_HERE => Answer::NotHere(from.maybe(|from| from.number().map(StoreId))?),
            REFUSED => Answer::Refused(from.text()?),
            _ => return Err(Bad("a kind of answer")),
        })
    }
}

impl Said {
    fn put(&self, to: &mut BytesMut) {
        match self {
            Said::Reply(reply) => {
                to.put_u8(SAID_REPLY);
                reply::put(reply, to);
            }
            Said::Again => to.put_u8(SAID_AGAIN),
            Said::Unknown => to.put_u8(SAID_UNKNOWN),
        }
    }

    fn get(from: &mut Reader) -> Result<Said> {
        Ok(match from.byte()? {
            SAID_REPLY => Said::Reply(reply::get(from)?),
            SAID_AGAIN => Said::Again,
            SAID_UNKNOWN => Said::Unknown,
            _ => return Err(Bad("what came of a command")),
        })
    }
}

/// Reads what another node answers.
pub(crate) fn decode_answer(body: Bytes) -> Result<Answer> {
    let mut from = Reader::new(body);
    let answer = Answer::get(&mut from)?;
    from.end()?;
    Ok(answer)
}

#[cfg(test)]
#[path = "codec_tests.rs"]
pub(super) mod tests;
