//! Writing groups into segments, and freeing segments that nobody needs.

use super::core::Work;
use super::format::{self, SegmentHeader};
use super::reader::FIRST_GROUP_AT;
use super::segments::Prepared;
use crate::error::{Error, Result};
use crate::fs::{File, Fs};
use crate::planted::{Planted, is_planted};
use crate::types::Sequence;
use std::path::PathBuf;
use std::sync::Arc;

/// A segment that is not written to any more.
#[derive(Debug, Clone)]
pub(super) struct SealedSegment {
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) first: Sequence,
    /// The sequence of its last operation; below its first if it has none.
    pub(super) last: Sequence,
    /// Where its groups end.
    pub(super) end: u64,
    /// Bytes that it takes on the device.
    pub(super) file_bytes: u64,
}

/// Where the leader writes. Only the leader uses it.
pub(super) struct Writer {
    fs: Arc<dyn Fs>,
    current: Option<Current>,
    /// The number and end of the segment before the next one.
    previous: (u64, u64),
}

struct Current {
    file: Arc<dyn File>,
    path: PathBuf,
    header: SegmentHeader,
    /// Where the next group goes.
    at: u64,
}

impl Writer {
    /// A writer whose first segment follows the given one.
    pub(super) fn new(fs: Arc<dyn Fs>, previous: (u64, u64)) -> Writer {
        Writer { fs, current: None, previous }
    }

    /// Writes and syncs what the work asks for, into the segment that the work says.
    pub(super) fn run(&mut self, work: &mut Work) -> Result<()> {
        let Some(current) = &mut self.current else {
            // Nothing was written since the log was opened, and all before is durable.
            return Ok(());
        };
        if is_planted(Planted::DurabilityOverstated) {
            work.durable_seq = work.first - 1;
        }
        if !work.group.is_empty() {
            let (salt, at) = (current.header.salt, current.at);
            format::seal_group(&mut work.group, salt, at, work.first, work.durable_seq);
            current
                .file
                .write_at(&work.group, at)
                .map_err(|error| Error::io("write", &current.path, error))?;
            current.at = format::aligned(at + work.group.len() as u64);
        }
        if work.sync && !is_planted(Planted::AcknowledgedBeforeSync) {
            current.file.sync().map_err(|error| Error::io("sync", &current.path, error))?;
        }
        Ok(())
    }

    /// Goes on to the prepared segment, whose first sequence is `first`. Everything before is synced, then the new header: so the header can
    /// say where the segment before it ends, and no group is ever written behind a header that could vanish. Answers the segment left.
    pub(super) fn switch(&mut self, prepared: Prepared, first: Sequence) -> Result<Option<SealedSegment>> {
        let mut sealed = None;
        if let Some(current) = self.current.take() {
            if !is_planted(Planted::SegmentLeftUnsynced) {
                current.file.sync().map_err(|error| Error::io("sync", &current.path, error))?;
            }
            self.previous = (current.header.id, current.at);
            sealed = Some(SealedSegment {
                id: current.header.id,
                file_bytes: current.file.len().unwrap_or(current.at),
                path: current.path,
                first: current.header.first_sequence,
                last: first - 1,
                end: current.at,
            });
        }
        let Prepared { id, path, file } = prepared;
        let (previous_id, previous_end) = self.previous;
        let header =
            SegmentHeader { id, previous_id, previous_end, first_sequence: first, salt: self.fs.random() };
        file.write_at(&header.encode(), 0).map_err(|error| Error::io("write", &path, error))?;
        file.sync().map_err(|error| Error::io("sync", &path, error))?;
        self.current = Some(Current { file, path, header, at: FIRST_GROUP_AT });
        Ok(sealed)
    }
}
