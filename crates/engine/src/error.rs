//! What can go wrong, in few coarse kinds, so that the caller knows what to do; the message carries file, offset, expected and found.

use crate::types::Version;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the engine. Cheap to clone: the same failure is told to everyone who waits for it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "write", "sync", "open" …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// Bytes on disk are not what was written there. Nothing is guessed: `kvorum check` verifies and salvages.
    #[error("damaged file {} at offset {offset}: expected {expected}, found {found}", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What should stand there.
        expected: String,
        /// What does.
        found: String,
    },
    /// The folder was written by a version of this program whose format is not known here.
    #[error("{} has format {found}, this program reads {supported}: use the program that wrote it, or a newer one", path.display())]
    UnknownFormat {
        /// The store's folder or file.
        path: PathBuf,
        /// The format found.
        found: String,
        /// The formats that can be read.
        supported: &'static str,
    },
    /// Another process has the store open.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The store's folder.
        path: PathBuf,
    },
    /// The write buffers are full; the write was not taken. Try again after the given time.
    #[error("busy: the write buffers are full, try again in {} ms", retry_after.as_millis())]
    Busy {
        /// When a retry is likely to be taken.
        retry_after: Duration,
    },
    /// The device is full; the write was not taken. Passes by itself once there is space.
    #[error("disk full: {available_bytes} bytes free below {}, {needed_bytes} needed", path.display())]
    DiskFull {
        /// The store's folder.
        path: PathBuf,
        /// Bytes that the device still has.
        available_bytes: u64,
        /// Bytes that must be free for a write to be taken.
        needed_bytes: u64,
    },
    /// A write or sync of the log or manifest failed earlier: what it left on disk is unknown, so writes refuse until the store is reopened.
    /// Reads go on.
    #[error("the store takes no writes until it is reopened, because {reason}")]
    Poisoned {
        /// The failure that poisoned it.
        reason: String,
    },
    /// The version asked for lies below the history that is kept.
    #[error("history below version {floor} is gone (asked for {asked})")]
    HistoryGone {
        /// The version asked for.
        asked: Version,
        /// The lowest version that can still be read.
        floor: Version,
    },
    /// A write or retract at or below the floor.
    #[error("version {version} is at or below the floor {floor}")]
    BelowFloor {
        /// The version of the write.
        version: Version,
        /// The floor.
        floor: Version,
    },
    /// A key, value, batch or name beyond a limit. Names the limit's setting.
    #[error("{what} of {size} bytes is over the limit of {limit} ({setting})")]
    TooLarge {
        /// What is too large: "key", "value", "batch" …
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
        /// The setting that gives the limit.
        setting: &'static str,
    },
    /// A call that can't be carried out as it stands: an unknown tree, a store of another tree's batch …
    #[error("{0}")]
    Invalid(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl Error {
    /// Wraps a system error with what was tried on which file.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }

    /// Bytes at `offset` of `path` that are not what they should be.
    pub(crate) fn damaged(
        path: &Path,
        offset: u64,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Error {
        Error::Damaged { path: path.to_owned(), offset, expected: expected.into(), found: found.into() }
    }
}
