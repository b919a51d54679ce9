//! Replies as they travel between nodes.
//!
//! ```text
//! reply    := kind (1 byte) · body
//! simple   := length (4) · bytes          error, bulk, verbatim alike
//! integer  := 8 bytes                     double alike (its bits)
//! array    := count (4) · replies         set alike; map: count of pairs · replies, keys and values in turn
//! ```
//!
//! Numbers are little endian.

use super::bytes::{Bad, Reader, Result, put_bytes, put_count};
use bytes::{BufMut, BytesMut};
use kvorum_model::{ErrorReply, Reply};

/// Replies within replies, at most. Commands nest two or three deep.
const DEPTH_MAX: u32 = 16;

const OK: u8 = 1;
const SIMPLE: u8 = 2;
const ERROR: u8 = 3;
const INTEGER: u8 = 4;
const BULK: u8 = 5;
const NIL: u8 = 6;
const NIL_ARRAY: u8 = 7;
const ARRAY: u8 = 8;
const MAP: u8 = 9;
const SET: u8 = 10;
const DOUBLE: u8 = 11;
const BOOLEAN: u8 = 12;
const VERBATIM: u8 = 13;

/// Adds a reply.
pub(crate) fn put(reply: &Reply, to: &mut BytesMut) {
    let mut text = |kind: u8, bytes: &[u8]| {
        to.put_u8(kind);
        put_bytes(bytes, to);
    };
    match reply {
        Reply::Ok => to.put_u8(OK),
        Reply::Simple(words) => text(SIMPLE, words.as_bytes()),
        Reply::Error(error) => text(ERROR, error.text().as_bytes()),
        Reply::Bulk(bytes) => text(BULK, bytes),
        Reply::Verbatim(words) => text(VERBATIM, words.as_bytes()),
        Reply::Nil => to.put_u8(NIL),
        Reply::NilArray => to.put_u8(NIL_ARRAY),
        Reply::Integer(number) => {
            to.put_u8(INTEGER);
            to.put_i64_le(*number);
        }
        Reply::Double(number) => {
            to.put_u8(DOUBLE);
            to.put_u64_le(number.to_bits());
        }
        Reply::Boolean(truth) => to.put_slice(&[BOOLEAN, u8::from(*truth)]),
        Reply::Array(all) => put_all(ARRAY, all, to),
        Reply::Set(all) => put_all(SET, all, to),
        Reply::Map(pairs) => {
            to.put_u8(MAP);
            put_count(pairs.len(), to);
            for (key, value) in pairs {
                put(key, to);
                put(value, to);
            }
        }
    }
}

fn put_all(kind: u8, all: &[Reply], to: &mut BytesMut) {
    to.put_u8(kind);
    put_count(all.len(), to);
    all.iter().for_each(|each| put(each, to));
}

/// Reads a reply.
pub(crate) fn get(from: &mut Reader) -> Result<Reply> {
    get_nested(from, 0)
}

fn get_nested(from: &mut Reader, depth: u32) -> Result<Reply> {
    if depth > DEPTH_MAX {
        return Err(Bad("replies nested at most 16 deep"));
    }
    Ok(match from.byte()? {
        OK => Reply::Ok,
        SIMPLE => Reply::Simple(from.text()?.into()),
        ERROR => Reply::Error(ErrorReply::new(from.text()?)),
        INTEGER => Reply::Integer(from.number()?.cast_signed()),
        BULK => Reply::Bulk(from.bytes()?),
        NIL => Reply::Nil,
        NIL_ARRAY => Reply::NilArray,
        ARRAY => Reply::Array(get_all(from, depth)?),
        SET => Reply::Set(get_all(from, depth)?),
        MAP => {
            let count = from.count(2)?;
            let pair = |_| Ok((get_nested(from, depth + 1)?, get_nested(from, depth + 1)?));
            Reply::Map((0..count).map(pair).collect::<Result<_>>()?)
        }
        DOUBLE => Reply::Double(f64::from_bits(from.number()?)),
        BOOLEAN => Reply::Boolean(from.flag()?),
        VERBATIM => Reply::Verbatim(from.text()?),
        _ => return Err(Bad("a kind of reply")),
    })
}

fn get_all(from: &mut Reader, depth: u32) -> Result<Vec<Reply>> {
    let count = from.count(1)?;
    (0..count).map(|_| get_nested(from, depth + 1)).collect()
}
