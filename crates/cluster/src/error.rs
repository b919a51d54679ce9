//! What a node answers when it can't do what was asked: few kinds, so that a caller knows whether the request may have been carried out.

use kvorum_model::{ErrorReply, Reply};
use std::time::Duration;

/// The cluster's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a node.
///
/// All kinds but [`Error::Unknown`] and [`Error::TooFew`] mean that the request was *surely not* carried out (or asked for nothing to be carried out).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The write buffers are full: nothing was written. Try again after the given time.
    #[error("the write buffers are full, try again in {} ms", retry_after.as_millis())]
    Busy {
        /// When a retry is likely to be taken.
        retry_after: Duration,
    },
    /// The disk is full: nothing was written. Passes by itself once there is space.
    #[error("{0}")]
    DiskFull(String),
    /// An earlier write or sync of the store failed; it takes no writes until the node is restarted. Reads go on.
    #[error("{0}")]
    ReadOnly(String),
    /// The outcome of a write is not known: it may have been carried out, and may or may not survive.
    #[error("the outcome of the write is unknown: {0}")]
    Unknown(String),
    /// Too few replicas answered in time. A write may stand on some of them, and may come through later.
    #[error("Not Enough Replicas: {wanted} must answer, {at_most} can")]
    TooFew {
        /// Those that answered, or might have yet when it was known that they are too few.
        at_most: u32,
        /// Those that had to.
        wanted: u32,
    },
    /// The request is over a limit; the message names the limit's setting.
    #[error("{0}")]
    TooLarge(String),
    /// The request does not make sense as it stands.
    #[error("{0}")]
    Invalid(String),
    /// There is no namespace of this name, or not any more.
    #[error("there is no namespace {0}")]
    NoNamespace(String),
    /// There is a namespace of this name already.
    #[error("there is a namespace {0} already")]
    Exists(String),
    /// There is no node of this name; the message names those that there are.
    #[error("{0}")]
    NoNode(String),
    /// As the cluster stands now it would lose something, or can't be done: the message says what.
    #[error("{0}")]
    NotNow(String),
    /// An available namespace can't do this.
    #[error("needs a strong namespace")]
    NeedsStrong,
    /// The store could not be read or opened: the message names file, offset, what was expected and what was found.
    #[error("{0}")]
    Storage(String),
}

impl Error {
    /// The error as a RESP client sees it: an upper-case code, then the message, without the leading `-`. Codes are those that Redis' clients
    /// know where there is one; `UNKNOWN` is Kvorum's own, because clients repeat the others by themselves.
    pub fn resp(&self) -> String {
        match self {
            Error::Busy { .. } => format!("BUSY {self}"),
            Error::DiskFull(_) => format!("ERR {self}"),
            Error::ReadOnly(_) => format!("MISCONF {self}"),
            Error::TooFew { .. } => format!("NOREPLICAS {self}"),
            Error::Unknown(_) => format!("UNKNOWN {self}"),
            Error::TooLarge(_)
            | Error::Invalid(_)
            | Error::NoNamespace(_)
            | Error::Exists(_)
            | Error::NoNode(_)
            | Error::NotNow(_)
            | Error::NeedsStrong => format!("ERR {self}"),
            Error::Storage(_) => format!("ERR storage: {self}"),
        }
    }

    /// The error as a reply.
    pub fn reply(&self) -> Reply {
        Reply::Error(self.error_reply())
    }

    pub(crate) fn error_reply(&self) -> ErrorReply {
        ErrorReply::new(self.resp())
    }
}

impl From<kvorum_engine::Error> for Error {
    /// An error of a read, of opening, or of a write that the engine refused to take.
    fn from(error: kvorum_engine::Error) -> Self {
        use kvorum_engine::Error as Engine;
        match error {
            Engine::Busy { retry_after } => Error::Busy { retry_after },
            Engine::DiskFull { .. } => Error::DiskFull(error.to_string()),
            Engine::Poisoned { .. } | Engine::Closed => Error::ReadOnly(error.to_string()),
            Engine::TooLarge { .. } => Error::TooLarge(error.to_string()),
            Engine::Invalid(message) => Error::Invalid(message),
            _ => Error::Storage(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_commit_is_unknown() {
        let busy: Error = kvorum_engine::Error::Busy { retry_after: Duration::from_millis(7) }.into();
        assert_eq!(busy.resp(), "BUSY the write buffers are full, try again in 7 ms");
        let poisoned: Error = kvorum_engine::Error::Poisoned { reason: "a sync failed".into() }.into();
        assert!(poisoned.resp().starts_with("MISCONF the store takes no writes"), "{}", poisoned.resp());
        assert_eq!(Error::NeedsStrong.resp(), "ERR needs a strong namespace");
        assert!(Error::Unknown("a sync failed".into()).resp().starts_with("UNKNOWN "));
    }
}
