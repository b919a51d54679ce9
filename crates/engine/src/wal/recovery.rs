//! What the log holds when a store is opened.

use super::reader::BadGroup;
use super::reader::{FIRST_GROUP_AT, Group, SegmentReader};
use super::segments::{Chain, Segment};
use super::writer::SealedSegment;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::planted::{Planted, is_planted};
use crate::types::Sequence;
use std::collections::VecDeque;
use std::path::PathBuf;

/// What recovery found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The sequence that the next operation gets.
    pub(crate) next_sequence: Sequence,
    /// Records given to `replay`.
    pub(crate) records: u64,
    /// Their bytes.
    pub(crate) record_bytes: u64,
    /// Where a crash tore the log: what stood behind was never acknowledged as synced, and is void.
    pub(crate) torn: Option<(PathBuf, u64)>,
}

/// Reads the live segments in order.
pub(super) struct Replay<'a> {
    pub(super) fs: &'a dyn Fs,
    pub(super) replay: &'a mut dyn FnMut(Sequence, &[u8]) -> Result<()>,
    pub(super) recovered: Recovered,
    pub(super) sealed: Vec<SealedSegment>,
}

impl Replay<'_> {
    /// Replays all of them and makes durable what the newest one holds.
    pub(super) fn run(&mut self, chain: &Chain) -> Result<()> {
        for (index, segment) in chain.live.iter().enumerate() {
            if index == 0 {
                self.recovered.next_sequence = segment.header.first_sequence;
            }
            let next = chain.live.get(index + 1);
            self.check_link(segment, next)?;
            let end = self.segment(segment, next.map(|next| next.header.previous_end))?;
            self.sealed.push(SealedSegment {
                id: segment.header.id,
                path: segment.path.clone(),
                first: segment.header.first_sequence,
                last: self.recovered.next_sequence - 1,
                end,
                file_bytes: segment.file_bytes,
            });
        }
        Ok(())
    }

    fn check_link(&self, segment: &Segment, next: Option<&Segment>) -> Result<()> {
        let expected = self.recovered.next_sequence;
        if segment.header.first_sequence != expected {
            return Err(Error::damaged(
                &segment.path,
                0,
                format!("a segment that begins at sequence {expected}"),
                format!("one that begins at {}", segment.header.first_sequence),
            ));
        }
        match next {
            Some(next) if next.header.previous_id != segment.header.id => Err(Error::damaged(
                &next.path,
                0,
                format!("a segment that follows {}", segment.header.id),
                format!("one that follows {}", next.header.previous_id),
            )),
            _ => Ok(()),
        }
    }

    /// Replays one segment up to `end`, or to where it is torn if it is the newest; answers where it ends.
    fn segment(&mut self, segment: &Segment, end: Option<u64>) -> Result<u64> {
        let mut reader = SegmentReader::open(self.fs, segment.clone())?;
        let mut unproven = Unproven::default();
        let mut at = FIRST_GROUP_AT;
        let mut read_again = false;
        while end.is_none_or(|end| at < end) {
            let expected = self.recovered.next_sequence;
            let bad = match reader.group_at(at)? {
                Ok(group) if group.header.first_sequence != expected => BadGroup {
                    found: format!("one that begins at {}", group.header.first_sequence),
                    blank: false,
                },
                Ok(group) if end.is_some_and(|end| group.end() > end) => {
                    BadGroup { found: format!("one that reaches to {}", group.end()), blank: false }
                }
                Ok(group) => {
                    self.group(&mut reader, group)?;
                    unproven.add(group, self.recovered.next_sequence);
                    at = group.end();
                    read_again = false;
                    continue;
                }
                Err(bad) => bad,
            };
            if !read_again {
                // What a device misread once is not the end of the log.
                read_again = true;
                reader.forget();
                continue;
            }
            self.judge(&mut reader, at, end, bad)?;
            break;
        }
        if end.is_none() && !is_planted(Planted::ReplayedNotMadeDurable) {
            reader.make_durable(self.fs, unproven.from(at), at)?;
        }
        Ok(at)
    }

    fn group(&mut self, reader: &mut SegmentReader, group: Group) -> Result<()> {
        let recovered = &mut self.recovered;
        let replay = &mut *self.replay;
        recovered.next_sequence = reader.records(group, &mut |sequence, record| {
            recovered.records += 1;
            recovered.record_bytes += record.len() as u64;
            replay(sequence, record)
        })?;
        Ok(())
    }

    /// The group at `at` is bad: damage, or the torn end of the log?
    fn judge(&mut self, reader: &mut SegmentReader, at: u64, end: Option<u64>, bad: BadGroup) -> Result<()> {
        let first = self.recovered.next_sequence;
        let path = &reader.segment.path.clone();
        let expected = format!("a group that begins at sequence {first}");
        if let Some(end) = end {
            let expected = format!("{expected} (the segment goes on to {end})");
            return Err(Error::damaged(path, at, expected, bad.found));
        }
        if let Some(proof) = reader.proof_of_durability(at, first)? {
            let expected = format!("{expected} (synced, as the group at {proof} says)");
            return Err(Error::damaged(path, at, expected, bad.found));
        }
        if !bad.blank {
            self.recovered.torn = Some((path.clone(), at));
        }
        Ok(())
    }
}

/// The groups at the end of which no later group says that they were synced.
#[derive(Debug, Default)]
struct Unproven {
    /// Where each stands, and the sequence after its last.
    groups: VecDeque<(u64, Sequence)>,
}

impl Unproven {
    fn add(&mut self, group: Group, next_sequence: Sequence) {
        while self.groups.front().is_some_and(|&(_, next)| next <= group.header.durable_seq.saturating_add(1))
        {
            self.groups.pop_front();
        }
        self.groups.push_back((group.offset, next_sequence));
    }

    fn from(&self, end: u64) -> u64 {
        self.groups.front().map_or(end, |&(offset, _)| offset)
    }
}
