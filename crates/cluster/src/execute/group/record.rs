//! The records of request ids: `{fingerprint of the command, reply}`, written by the item that the command's effects make, read by the command
//! when it comes again. A shard remembers a request for [`RECORD_LIFE_MS`]; a retry must come before.

use crate::keys::KeyKind;
use crate::route::{Reader, reply};
use bytes::{BufMut, Bytes, BytesMut};
use kvorum_model::Reply;
use xxhash_rust::xxh3::Xxh3;

/// How long a shard remembers a request, in milliseconds of its time.
pub(crate) const RECORD_LIFE_MS: u64 = 600_000;

/// A request with an id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'n> {
    /// The key of its record in the tree.
    pub(crate) key: &'n [u8],
    /// What was read of the record beforehand, if that is the newest still: what stands in the tree, and its version.
    pub(crate) fetched: Option<&'n Option<kvorum_engine::Found>>,
}

/// What a record says to a command with its id.
#[derive(Debug, PartialEq)]
pub(crate) enum Remembered {
    /// It was executed, with this reply.
    Reply(Reply),
    /// The id was another command's.
    Other,
}

/// The key of a record in the tree.
pub(crate) fn record_key(id: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(id.len() + 1);
    key.push(KeyKind::Request as u8);
    key.extend_from_slice(id);
    key
}

/// Tells commands apart.
pub(crate) fn fingerprint<'w>(commands: impl Iterator<Item = &'w [&'w [u8]]>) -> u128 {
    let mut hasher = Xxh3::new();
    for words in commands {
        hasher.update(&(words.len() as u64).to_le_bytes());
        for (place, word) in words.iter().enumerate() {
            hasher.update(&(word.len() as u64).to_le_bytes());
            if place == 0 {
                hasher.update(&word.to_ascii_lowercase());
            } else {
                hasher.update(word);
            }
        }
    }
    hasher.digest128()
}

pub(crate) fn encode(fingerprint: u128, answer: &Reply) -> Vec<u8> {
    let mut to = BytesMut::new();
    to.put_u128_le(fingerprint);
    reply::put(answer, &mut to);
    to.into()
}

/// Reads a record; `None` if it makes no sense.
pub(crate) fn decode(record: &Bytes, fingerprint: u128) -> Option<Remembered> {
    let (known, _) = record.split_first_chunk::<16>()?;
    if u128::from_le_bytes(*known) != fingerprint {
        return Some(Remembered::Other);
    }
    let mut from = Reader::new(record.slice(16..));
    let answer = reply::get(&mut from).ok()?;
    from.end().ok()?;
    Some(Remembered::Reply(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_knows_its_command() {
        let of = |words: &[&[u8]]| fingerprint(std::iter::once(words));
        let incr = of(&[b"INCR", b"k"]);
        assert_eq!(incr, of(&[b"incr", b"k"]));
        assert_ne!(incr, of(&[b"INCR", b"K"]));
        assert_ne!(of(&[b"SET", b"ab", b"c"]), of(&[b"SET", b"a", b"bc"]));
        let record = Bytes::from(encode(incr, &Reply::Integer(7)));
        assert_eq!(decode(&record, incr), Some(Remembered::Reply(Reply::Integer(7))));
        assert_eq!(decode(&record, incr + 1), Some(Remembered::Other));
        assert_eq!(decode(&record.slice(..record.len() - 1), incr), None);
        assert_eq!(decode(&record.slice(..9), incr), None);
    }
}
