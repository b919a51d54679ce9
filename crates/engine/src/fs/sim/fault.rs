//! What goes wrong on request.

use std::io;
use std::path::Path;

/// What the engine asks of a file system, as far as faults distinguish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// Creating a file.
    Create,
    /// Opening one.
    Open,
    /// Renaming, linking, removing, creating a folder.
    Name,
    /// Looking: lists, lengths, existence, locks, free space.
    Look,
    /// Making a folder's names durable.
    SyncDir,
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// Making a file's bytes durable.
    Sync,
    /// Reserving space or changing the length.
    Allocate,
}

/// How an operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// It fails with an input/output error. A write may have written a part; a sync may have synced a part, and what it did not sync the system
    /// forgets to sync later.
    Error,
    /// It fails because the device is full.
    Full,
    /// A read answers with bytes from another place of the file, without an error.
    Misdirected,
    /// A write takes only a part, and the rest is written by another operation, as by one who asks the system again: in between, everything may
    /// happen.
    Short,
}

/// A rule: the operations it applies to go wrong.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The operations; `None` for all.
    pub operation: Option<Operation>,
    /// Only on paths that contain this.
    pub path_contains: String,
    /// So many matching operations go well first.
    pub skip: u64,
    /// Then so many go wrong.
    pub times: u64,
    /// How.
    pub kind: FaultKind,
}

impl Fault {
    /// The next matching operation fails with an input/output error.
    pub fn once(operation: Operation, path_contains: &str) -> Fault {
        let path_contains = path_contains.to_owned();
        Fault { operation: Some(operation), path_contains, skip: 0, times: 1, kind: FaultKind::Error }
    }

    /// Whether this operation goes wrong; counts it.
    pub(super) fn strikes(&mut self, operation: Operation, path: &Path) -> bool {
        let matches = self.operation.is_none_or(|wanted| wanted == operation)
            && (self.path_contains.is_empty() || path.to_string_lossy().contains(&self.path_contains))
            && match self.kind {
                FaultKind::Misdirected => operation == Operation::Read,
                FaultKind::Short => operation == Operation::Write,
                FaultKind::Error | FaultKind::Full => true,
            };
        if !matches {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times = self.times.saturating_sub(1);
        true
    }
}

/// `EIO`.
pub(super) fn device_error() -> io::Error {
    io::Error::from_raw_os_error(5)
}

/// `ENOSPC`.
pub(super) fn full() -> io::Error {
    io::Error::from_raw_os_error(28)
}

/// What every operation answers once the power is off.
pub(super) fn power_off() -> io::Error {
    io::Error::other("the simulated machine is off")
}
