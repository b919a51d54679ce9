//! Replies, independent of the protocol's version.

use crate::error::ErrorReply;
use bytes::Bytes;
use std::borrow::Cow;

/// What a command answers. The server's writer turns it into RESP2 or RESP3; the notes say what becomes of the types that RESP2 lacks.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// `+OK`.
    Ok,
    /// A short text without line ends.
    Simple(Cow<'static, str>),
    /// An error.
    Error(ErrorReply),
    /// A 64-bit integer.
    Integer(i64),
    /// Bytes of any content.
    Bulk(Bytes),
    /// Nothing (RESP2: the nil bulk string).
    Nil,
    /// Nothing where an array is usual (RESP2: the nil array; RESP3 knows one null only).
    NilArray,
    /// An ordered sequence.
    Array(Vec<Reply>),
    /// Pairs (RESP2: a flat array).
    Map(Vec<(Reply, Reply)>),
    /// A set (RESP2: an array).
    Set(Vec<Reply>),
    /// A floating point number (RESP2: a bulk string).
    Double(f64),
    /// A truth value (RESP2: 1 or 0).
    Boolean(bool),
    /// Text for people (RESP3: verbatim, format `txt`; RESP2: a bulk string).
    Verbatim(String),
}

impl Reply {
    /// A bulk string with a copy of `bytes`.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Reply {
        Reply::Bulk(Bytes::copy_from_slice(bytes.as_ref()))
    }

    /// A bulk string of a text that lives as long as the program.
    pub fn text(text: &'static str) -> Reply {
        Reply::Bulk(Bytes::from_static(text.as_bytes()))
    }

    /// A version: a decimal string, because a JavaScript client would round a number.
    pub fn version(version: u64) -> Reply {
        Reply::Bulk(Bytes::from(version.to_string()))
    }

    /// A number of things.
    pub fn count(count: usize) -> Reply {
        Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// Whether the command failed.
    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }
}
