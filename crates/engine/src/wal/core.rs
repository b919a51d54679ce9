//! Group commit as a state machine without input or output: what is pushed, what the next group is, who is done after it.
//!
//! [`Log`](super::Log) holds it under one short lock; whoever gets a [`Work`] from it is the leader until it hands the work back.

use super::format::{self, GROUP_HEADER_BYTES, HEADER_BYTES, RECORD_HEADER_BYTES};
use super::waiters::{Ticket, Waiters};
use crate::error::{Error, Result};
use crate::planted::{Planted, is_planted};
use crate::types::{Durability, Sequence};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// When to come back after `Busy`: a sync takes a fraction of it.
const RETRY_AFTER: Duration = Duration::from_millis(5);

/// What a buffer keeps for the next group; more is given back after a large one.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// The state of the log between two locks.
#[derive(Debug)]
pub(super) struct Core {
    limits: Limits,
    /// The forming group: room for its header, then records.
    forming: Vec<u8>,
    /// The buffer of the group before, to be used again.
    spare: Vec<u8>,
    /// The sequence that the next operation gets.
    next: Sequence,
    written: Sequence,
    synced: Sequence,
    acknowledged: Sequence,
    /// Somebody wants everything up to here written, synced.
    write_wanted: Sequence,
    sync_wanted: Sequence,
    /// The last operation in the forming group whose writer is content once it is written.
    content_with_written: Sequence,
    leading: bool,
    /// Bytes that still fit into the current segment; 0 before the first.
    room_bytes: u64,
    /// Whether a segment stands ready.
    segment_ready: bool,
    preparing: bool,
    /// Why no segment could be made ready at the last attempt.
    unavailable: Option<Error>,
    /// A group was written after the last marker: its durability is not yet on disk.
    marker_due: bool,
    /// Sequence and time don't stand still between two looks if this differs.
    seen_next: Sequence,
    poisoned: Option<Arc<str>>,
    closed: bool,
    waiters: Waiters,
}

/// The limits that pushing obeys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of a segment.
    pub(super) segment_bytes: u64,
    /// Bytes of one group, and with it of a record.
    pub(super) buffer_bytes_max: usize,
}

/// What a leader has to do.
#[derive(Debug)]
pub(super) struct Work {
    /// The group, its header still to be filled in; empty if there is only something to sync.
    pub(super) group: Vec<u8>,
    /// The group's first sequence.
    pub(super) first: Sequence,
    /// The last sequence written once this is done.
    pub(super) last: Sequence,
    /// Everything up to here is durable.
    pub(super) durable_seq: Sequence,
    /// Go on to the segment that stands ready first.
    pub(super) switch: bool,
    /// Sync afterwards.
    pub(super) sync: bool,
    content_with_written: Sequence,
    marker: bool,
}

/// What a look at the log tells one who waits.
pub(super) enum Look {
    /// The wait is over.
    Done(Result<()>),
    /// Nobody leads: do it.
    Lead,
    /// Somebody leads; the waker is registered.
    Wait,
}

/// Where the watermarks stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watermarks {
    pub(super) written: Sequence,
    pub(super) synced: Sequence,
    pub(super) acknowledged: Sequence,
}

impl Core {
    /// A log whose next operation gets `next` (at least 1), everything before it durable.
    pub(super) fn new(limits: Limits, next: Sequence) -> Core {
        let last = next - 1;
        Core {
            limits,
            forming: vec![0; GROUP_HEADER_BYTES],
            spare: vec![0; GROUP_HEADER_BYTES],
            next,
            written: last,
            synced: last,
            acknowledged: last,
            write_wanted: last,
            sync_wanted: last,
            content_with_written: 0,
            leading: false,
            room_bytes: 0,
            segment_ready: false,
            preparing: false,
            unavailable: None,
            marker_due: false,
            seen_next: next,
            poisoned: None,
            closed: false,
            waiters: Waiters::default(),
        }
    }

    /// Adds a record to the forming group and gives its first sequence.
    pub(super) fn push(
        &mut self,
        record: &[u8],
        operations: u64,
        durability: Durability,
    ) -> Result<Sequence> {
        self.check_open()?;
        let operations = plausible(record, operations)?;
        self.check_room(record.len())?;
        let first = self.next;
        format::append_record(&mut self.forming, record, operations);
        self.next += u64::from(operations);
        let last = self.next - 1;
        match durability {
            Durability::Buffered => self.acknowledged = self.acknowledged.max(last),
            Durability::Written => self.content_with_written = last,
            Durability::Synced => {}
        }
        self.want(last, durability);
        Ok(first)
    }

    fn check_open(&self) -> Result<()> {
        match &self.poisoned {
            Some(reason) => Err(Error::Poisoned { reason: reason.to_string() }),
            None if self.closed => Err(Error::Closed),
            None => Ok(()),
        }
    }

    /// Whether a record of this size has a place: in the buffer, and on the device, where space is reserved before a sequence is given.
    fn check_room(&self, record_bytes: usize) -> Result<()> {
        let needed = self.forming.len() + RECORD_HEADER_BYTES + record_bytes;
        if needed > self.limits.buffer_bytes_max {
            let alone = GROUP_HEADER_BYTES + RECORD_HEADER_BYTES + record_bytes;
            if alone > self.limits.buffer_bytes_max {
                return Err(Error::TooLarge {
                    what: "log record",
                    size: record_bytes as u64,
                    limit: self.limits.buffer_bytes_max as u64,
                    setting: "wal buffer_bytes_max",
                });
            }
            return Err(Error::Busy { retry_after: RETRY_AFTER });
        }
        self.check_segment(needed)
    }

    /// Whether the forming group, grown to this size, has a place on the device.
    fn check_segment(&self, group_bytes: usize) -> Result<()> {
        // A segment that stands ready holds any group: asserted where the limits are set.
        if format::aligned(group_bytes as u64) > self.room_bytes && !self.segment_ready {
            return Err(self.unavailable.clone().unwrap_or(Error::Busy { retry_after: RETRY_AFTER }));
        }
        Ok(())
    }

    /// Whether a record would find its place, with room to spare for those that ask at the same time.
    pub(super) fn admission(&mut self) -> Result<()> {
        self.check_open()?;
        if self.half_full() {
            return Err(Error::Busy { retry_after: RETRY_AFTER });
        }
        self.check_segment(self.forming.len() + RECORD_HEADER_BYTES)
    }

    /// Somebody wants `sequence` to be this safe.
    pub(super) fn want(&mut self, sequence: Sequence, durability: Durability) {
        debug_assert!(sequence < self.next, "sequence {sequence} was not given yet");
        if durability >= Durability::Written {
            self.write_wanted = self.write_wanted.max(sequence);
        }
        if durability >= Durability::Synced {
            self.sync_wanted = self.sync_wanted.max(sequence);
        }
    }

    /// Whether half of the forming group's room is taken; then it is to be written.
    pub(super) fn half_full(&mut self) -> bool {
        let half_full = self.forming.len() > self.limits.buffer_bytes_max / 2;
        if half_full {
            self.want(self.last(), Durability::Written);
        }
        half_full
    }

    /// The last sequence given.
    pub(super) fn last(&self) -> Sequence {
        self.next - 1
    }

    /// `Some` once `sequence` is as safe as asked for, or never will be.
    pub(super) fn outcome(&mut self, sequence: Sequence, durability: Durability) -> Option<Result<()>> {
        let safe = match durability {
            Durability::Buffered => self.acknowledged.max(self.written),
            Durability::Written => self.written,
            Durability::Synced => self.synced,
        };
        if sequence <= safe || (durability == Durability::Buffered && self.poisoned.is_none()) {
            self.acknowledged = self.acknowledged.max(sequence.min(safe));
            return Some(Ok(()));
        }
        self.poisoned.as_ref().map(|reason| Err(Error::Poisoned { reason: reason.to_string() }))
    }

    /// One look for one who waits: over, to be led, or registered to be woken. Who is to lead is running, or woken and will look again, so it
    /// needs no place; one that it has it keeps, so that [`Core::forget`] passes the lead on.
    pub(super) fn look(
        &mut self,
        sequence: Sequence,
        durability: Durability,
        ticket: &mut Option<Ticket>,
        waker: impl FnOnce() -> Waker,
    ) -> Look {
        if let Some(result) = self.outcome(sequence, durability) {
            if let Some(ticket) = ticket.take() {
                self.waiters.remove(ticket);
            }
            return Look::Done(result);
        }
        self.want(sequence, durability);
        if self.leader_missing() {
            return Look::Lead;
        }
        match *ticket {
            Some(ticket) => self.waiters.update(ticket, &waker()),
            None => *ticket = Some(self.waiters.insert(sequence, durability, &waker())),
        }
        Look::Wait
    }

    /// A waiting commit is dropped. If it had been woken to lead, somebody else is.
    pub(super) fn forget(&mut self, ticket: Ticket, wakers: &mut Vec<Waker>) {
        self.waiters.remove(ticket);
        self.nominate(wakers);
    }

    /// Whether somebody waits for what nobody is doing.
    fn leader_missing(&self) -> bool {
        !self.leading && self.poisoned.is_none() && self.wanted()
    }

    fn wanted(&self) -> bool {
        self.write_wanted > self.written || self.sync_wanted > self.synced
    }

    /// Makes the caller the leader if there is something to do and nobody does it.
    pub(super) fn begin(&mut self) -> Option<Work> {
        if !self.leader_missing() {
            return None;
        }
        Some(self.take_work(self.sync_wanted > self.synced))
    }

    /// As [`Core::begin`], for a group without records that puts the durability of the last one on disk. Only when all is synced.
    pub(super) fn begin_marker(&mut self) -> Option<Work> {
        let all_synced = self.synced == self.last();
        let fits = self.room_bytes >= GROUP_HEADER_BYTES as u64 || self.segment_ready;
        if self.leading || self.poisoned.is_some() || !self.marker_due || !all_synced || !fits {
            return None;
        }
        let mut work = self.take_work(true);
        work.marker = true;
        if work.group.is_empty() {
            work.group.resize(GROUP_HEADER_BYTES, 0);
            self.place(&mut work);
        }
        Some(work)
    }

    fn take_work(&mut self, sync: bool) -> Work {
        self.leading = true;
        let mut work = Work {
            group: Vec::new(),
            first: self.written + 1,
            last: self.last(),
            durable_seq: self.synced,
            switch: false,
            sync,
            content_with_written: self.content_with_written,
            marker: false,
        };
        if self.forming.len() > GROUP_HEADER_BYTES {
            work.group = std::mem::replace(&mut self.forming, std::mem::take(&mut self.spare));
            self.forming.resize(GROUP_HEADER_BYTES, 0);
            self.place(&mut work);
        }
        work
    }

    /// Decides which segment the group goes to, and takes the room there.
    fn place(&mut self, work: &mut Work) {
        let bytes = format::aligned(work.group.len() as u64);
        if bytes > self.room_bytes {
            work.switch = true;
            self.segment_ready = false;
            self.room_bytes = self.limits.segment_bytes - HEADER_BYTES as u64;
        }
        self.room_bytes -= bytes;
    }

    /// The leader is done. Fills `wakers` with everyone whose wait is over and with one who is to lead next.
    pub(super) fn finish(&mut self, work: Work, result: Result<()>, wakers: &mut Vec<Waker>) {
        self.leading = false;
        if let Err(error) = result {
            self.poison(&error.to_string(), wakers);
        }
        if self.poisoned.is_some() {
            // Everyone was told so: the watermarks stay where they are.
            return;
        }
        self.written = work.last;
        self.marker_due = !work.marker && (self.marker_due || !work.group.is_empty() || work.sync);
        self.acknowledged = self.acknowledged.max(work.content_with_written);
        if work.switch {
            self.synced = self.synced.max(work.first - 1);
        }
        if work.sync {
            self.synced = work.last;
        }
        self.acknowledged = self.acknowledged.max(self.synced);
        self.spare = work.group;
        self.spare.clear();
        self.spare.shrink_to(SPARE_BYTES_MAX);
        let (written, synced, acknowledged) = (self.written, self.synced, &mut self.acknowledged);
        let done = |sequence: Sequence, durability| {
            let done = match durability {
                Durability::Buffered => true,
                Durability::Written => sequence <= written,
                Durability::Synced => sequence <= synced,
            };
            if done {
                *acknowledged = sequence.max(*acknowledged);
            }
            done
        };
        self.waiters.take_done(done, wakers);
        self.nominate(wakers);
    }

    /// If there is something to do and nobody does it: one of those who wait is woken to lead.
    fn nominate(&self, wakers: &mut Vec<Waker>) {
        if self.leader_missing() && !is_planted(Planted::NobodyNominated) {
            wakers.extend(self.waiters.anybody().cloned());
        }
    }

    /// What the log holds on disk is unknown from here on: nothing more is written, everyone is told.
    pub(super) fn poison(&mut self, reason: &str, wakers: &mut Vec<Waker>) {
        self.poisoned.get_or_insert_with(|| Arc::from(reason));
        self.waiters.take_done(|_, _| true, wakers);
    }

    /// Why the log is poisoned.
    pub(super) fn poisoned(&self) -> Option<Arc<str>> {
        self.poisoned.clone()
    }

    /// No push from here on.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Where the watermarks stand.
    pub(super) fn watermarks(&self) -> Watermarks {
        Watermarks { written: self.written, synced: self.synced, acknowledged: self.acknowledged }
    }

    /// Whether nothing was pushed since this was asked the last time.
    pub(super) fn stood_still(&mut self) -> bool {
        std::mem::replace(&mut self.seen_next, self.next) == self.next
    }

    #[cfg(test)]
    /// The next group goes to a new segment.
    pub(super) fn rotate(&mut self) {
        if self.segment_ready {
            self.room_bytes = 0;
        }
    }

    /// Makes the caller the one who prepares a segment, if none is ready. Leaders (`eager` false) do it only when the current one is half
    /// full and the last attempt did not fail; the background earlier and again.
    pub(super) fn begin_segment(&mut self, eager: bool) -> bool {
        let soon = self.room_bytes < self.limits.segment_bytes / 2 && self.unavailable.is_none();
        let begin = !self.segment_ready && !self.preparing && self.poisoned.is_none() && (eager || soon);
        self.preparing |= begin;
        begin
    }

    /// The segment is ready, or could not be made.
    pub(super) fn finish_segment(&mut self, result: Result<()>) {
        self.preparing = false;
        self.segment_ready = result.is_ok();
        self.unavailable = result.err();
    }
}

/// Recovery's search for groups relies on records that have at least as many bytes as operations.
fn plausible(record: &[u8], operations: u64) -> Result<u32> {
    match u32::try_from(operations) {
        Ok(count) if count > 0 && operations <= record.len() as u64 => Ok(count),
        _ => Err(Error::Invalid(format!(
            "a log record of {} bytes with {operations} operations",
            record.len()
        ))),
    }
}
