//! Errors as clients see them.

use std::borrow::Cow;
use std::fmt;

/// An error reply: a code in capitals, a space, a sentence; without the leading `-`. The texts are those of Redis 7.2, which clients match on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply(Cow<'static, str>);

impl ErrorReply {
    /// An error with a text of its own. Line ends become spaces: they would break the protocol.
    pub fn new(text: impl Into<Cow<'static, str>>) -> ErrorReply {
        let text = text.into();
        if text.contains(['\r', '\n']) {
            return ErrorReply(Cow::Owned(text.replace(['\r', '\n'], " ")));
        }
        ErrorReply(text)
    }

    /// The whole text, code first.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The code: the first word.
    pub fn code(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// Options that do not fit together or are not known.
    pub fn syntax() -> ErrorReply {
        ErrorReply(Cow::Borrowed("ERR syntax error"))
    }

    /// An integer was expected, or it overflows.
    pub fn not_an_integer() -> ErrorReply {
        ErrorReply(Cow::Borrowed("ERR value is not an integer or out of range"))
    }

    /// The key holds another data type.
    pub fn wrong_type() -> ErrorReply {
        ErrorReply(Cow::Borrowed("WRONGTYPE Operation against a key holding the wrong kind of value"))
    }

    /// The key's version is not the one that `IFVERSION` asked for.
    pub fn conflict(current: u64) -> ErrorReply {
        ErrorReply(Cow::Owned(format!("CONFLICT {current}")))
    }

    /// The namespace is an available one, and the command reads before it writes or needs more than strings.
    pub fn needs_strong() -> ErrorReply {
        ErrorReply(Cow::Borrowed("ERR needs a strong namespace"))
    }

    /// Too few or too many words; `name` as in the table (`get`, `client|setname`).
    pub fn wrong_arity(name: &str) -> ErrorReply {
        ErrorReply(Cow::Owned(format!("ERR wrong number of arguments for '{name}' command")))
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ErrorReply {}

/// Why a command has no ordinary reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The view needs the disk: fetch what it lacks, then evaluate again.
    WouldRead,
    /// The client gets this error; the command has no effects.
    Error(ErrorReply),
}

impl From<ErrorReply> for Stop {
    fn from(error: ErrorReply) -> Stop {
        Stop::Error(error)
    }
}
