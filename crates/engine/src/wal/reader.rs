//! Reading a segment: group by group, and the search behind a bad one.

use super::format::{self, ALIGNMENT, GROUP_HEADER_BYTES, GroupHeader, HEADER_BYTES, group_checksum};
use super::segments::{Segment, read_some};
use crate::error::{Error, Result};
use crate::fs::{File, Fs};
use crate::types::Sequence;
use std::sync::Arc;

/// Bytes read at once, unless a group is larger.
const WINDOW_BYTES: usize = 1 << 20;
/// The search for later groups skips zeros in pieces of this size.
const ZERO_PIECE_BYTES: u64 = 4096;

/// A group whose checksum is right for its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) header: GroupHeader,
    /// Where it stands.
    pub(super) offset: u64,
}

impl Group {
    /// Where the next group starts.
    pub(super) fn end(&self) -> u64 {
        format::aligned(self.offset + u64::from(self.header.length))
    }
}

/// What stands where a group should.
#[derive(Debug)]
pub(super) struct BadGroup {
    pub(super) found: String,
    /// Nothing was written there.
    pub(super) blank: bool,
}

/// Reads one segment by way of a window that moves over it.
pub(super) struct SegmentReader {
    pub(super) segment: Segment,
    file: Arc<dyn File>,
    window: Vec<u8>,
    window_at: u64,
}

impl SegmentReader {
    /// Opens the segment for reading.
    pub(super) fn open(fs: &dyn Fs, segment: Segment) -> Result<SegmentReader> {
        let file = fs.open(&segment.path, false).map_err(|error| Error::io("open", &segment.path, error))?;
        Ok(SegmentReader { segment, file, window: Vec::new(), window_at: 0 })
    }

    /// Up to `len` bytes at `offset`; fewer at the end of the file. Never more memory than the file has bytes.
    fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let left = self.segment.file_bytes.saturating_sub(offset);
        let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
        let inside = offset.checked_sub(self.window_at).and_then(|start| usize::try_from(start).ok());
        let held = |start: usize| start.checked_add(len).is_some_and(|end| end <= self.window.len());
        let start = match inside {
            Some(start) if held(start) => start,
            _ => {
                let wanted = len.max(WINDOW_BYTES).min(usize::try_from(left).unwrap_or(usize::MAX));
                self.window.resize(wanted, 0);
                let read = read_some(&*self.file, &self.segment.path, &mut self.window, offset)?;
                self.window.truncate(read);
                self.window_at = offset;
                0
            }
        };
        let end = start.saturating_add(len).min(self.window.len());
        Ok(self.window.get(start..end).unwrap_or_default())
    }

    /// Forgets what was read: the device is asked again.
    pub(super) fn forget(&mut self) {
        self.window.clear();
    }

    /// The group at `offset`, or why there is none.
    pub(super) fn group_at(&mut self, offset: u64) -> Result<std::result::Result<Group, BadGroup>> {
        let bad = |found: String| Ok(Err(BadGroup { found, blank: false }));
        let salt = self.segment.header.salt;
        let Some(header) = GroupHeader::decode(self.bytes(offset, GROUP_HEADER_BYTES)?) else {
            return Ok(Err(BadGroup { found: "the end of the file".to_owned(), blank: true }));
        };
        let length = header.length as usize;
        if length < GROUP_HEADER_BYTES {
            return Ok(Err(BadGroup { found: format!("a group length of {length}"), blank: length == 0 }));
        }
        let group = self.bytes(offset, length)?;
        if group.len() < length {
            return bad(format!("a group length of {length} with {} bytes left", group.len()));
        }
        let computed = group_checksum(salt, offset, group);
        if computed != header.checksum {
            return bad(format!("checksum {computed:08x}, stored {:08x}", header.checksum));
        }
        Ok(Ok(Group { header, offset }))
    }

    /// Gives each record of the group to `replay` and answers the sequence after the last one.
    pub(super) fn records(
        &mut self,
        group: Group,
        replay: &mut dyn FnMut(Sequence, &[u8]) -> Result<()>,
    ) -> Result<Sequence> {
        let path = self.segment.path.clone();
        let bytes = self.bytes(group.offset, group.header.length as usize)?;
        let mut records = bytes.get(GROUP_HEADER_BYTES..).unwrap_or_default();
        let mut sequence = group.header.first_sequence;
        while !records.is_empty() {
            let left = records.len();
            let Some((operations, record)) = format::split_record(&mut records) else {
                let at = group.offset + u64::from(group.header.length) - left as u64;
                return Err(Error::damaged(&path, at, "a whole record", format!("{left} bytes")));
            };
            replay(sequence, record)?;
            sequence = sequence.saturating_add(u64::from(operations));
        }
        Ok(sequence)
    }

    /// Looks behind the bad group at `bad` for a valid one which says that sequence `first` was durable; where it stands.
    pub(super) fn proof_of_durability(&mut self, bad: u64, first: Sequence) -> Result<Option<u64>> {
        self.search(bad, first, |header| header.durable_seq >= first)
    }

    /// Looks behind the bad group at `bad`, which began at sequence `first`, for the next valid one.
    pub(super) fn next_group(&mut self, bad: u64, first: Sequence) -> Result<Option<u64>> {
        self.search(bad, first, |header| header.first_sequence >= first)
    }

    fn search(
        &mut self,
        bad: u64,
        first: Sequence,
        sought: impl Fn(&GroupHeader) -> bool,
    ) -> Result<Option<u64>> {
        let end = self.segment.file_bytes;
        let mut offset = bad.next_multiple_of(ALIGNMENT as u64) + ALIGNMENT as u64;
        while offset + (GROUP_HEADER_BYTES as u64) <= end {
            if offset.is_multiple_of(ZERO_PIECE_BYTES) {
                let piece = self.bytes(offset, ZERO_PIECE_BYTES as usize)?;
                if piece.iter().all(|&byte| byte == 0) {
                    // A group's length stands in its first bytes and is not zero.
                    offset += ZERO_PIECE_BYTES;
                    continue;
                }
            }
            if self.may_be_group(offset, first, &sought)? && self.group_at(offset)?.is_ok() {
                return Ok(Some(offset));
            }
            offset += ALIGNMENT as u64;
        }
        Ok(None)
    }

    /// Whether what stands at `offset` could be a group that is sought: the cheap tests before the checksum.
    fn may_be_group(
        &mut self,
        offset: u64,
        first: Sequence,
        sought: impl Fn(&GroupHeader) -> bool,
    ) -> Result<bool> {
        let left = self.segment.file_bytes - offset;
        let Some(header) = GroupHeader::decode(self.bytes(offset, GROUP_HEADER_BYTES)?) else {
            return Ok(false);
        };
        Ok(header.length as usize >= GROUP_HEADER_BYTES
            && u64::from(header.length) <= left
            && sought(&header)
            && header.durable_seq < header.first_sequence
            && header.first_sequence >= first
            // Each operation takes at least one byte of a record.
            && header.first_sequence - first <= self.segment.file_bytes)
    }

    /// Writes the header and the bytes in `from..to` once more and syncs them: after a failed sync the system may hold them in memory as if
    /// they were on the device.
    pub(super) fn make_durable(&mut self, fs: &dyn Fs, from: u64, to: u64) -> Result<()> {
        let path = self.segment.path.clone();
        let file = fs.open(&path, true).map_err(|error| Error::io("open", &path, error))?;
        let write =
            |bytes: &[u8], at| file.write_at(bytes, at).map_err(|error| Error::io("write", &path, error));
        write(&self.segment.header.encode(), 0)?;
        let mut at = from;
        while at < to {
            // Only what was just seen to be whole is written: a misread must not become damage.
            let group = self.group_at(at)?.map_err(|bad| {
                Error::damaged(&path, at, "the group that was there a moment ago", bad.found)
            })?;
            write(self.bytes(at, group.header.length as usize)?, at)?;
            at = group.end();
        }
        file.sync().map_err(|error| Error::io("sync", &path, error))
    }
}

/// Where the groups of a segment begin.
pub(super) const FIRST_GROUP_AT: u64 = HEADER_BYTES as u64;
