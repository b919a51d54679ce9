//! The log: the state machine of [`Core`] under one short lock, and the writer behind it.

use super::commit::Commit;
use super::core::{Core, Limits, Look, Work};
use super::format::{self, HEADER_BYTES};
use super::recovery::{Recovered, Replay};
use super::segments::{self, Chain, Prepared};
use super::waiters::Ticket;
use super::writer::{SealedSegment, Writer};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::options::WalRetention;
use crate::planted::{Planted, is_planted};
use crate::recovery::make_dir;
use crate::types::{Durability, Sequence};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

/// The file in the log's folder that keeps a second store out.
const LOCK_NAME: &str = "LOCK";
/// Keeps a group's length within its 32 bits.
const BUFFER_BYTES_LIMIT: usize = u32::MAX as usize - 4096;

/// How the log is kept.
#[derive(Debug, Clone)]
pub(crate) struct LogSettings {
    /// Bytes of a segment; raised to hold the largest group.
    pub(crate) segment_bytes: u64,
    /// Bytes of the forming group, and so of the largest record. One more group of this size may be in writing.
    pub(crate) buffer_bytes_max: usize,
    /// What happens to segments that are not needed any more.
    pub(crate) retention: WalRetention,
    /// The lowest sequence that may be missing in the tables (1 if there are none): records from here on must be in the log. Earlier ones of
    /// the same segment are replayed too.
    pub(crate) needed_from: Sequence,
    /// The log reaches at least as far: what was put into tables was durable here before.
    pub(crate) reaches: Sequence,
    /// The first sequence of a log without segments: 1, or more where the tables came without their log.
    pub(crate) begins_at: Sequence,
}

/// What the log takes on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LogUsage {
    /// Segments with records, the current one included.
    pub(crate) segments: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// The first sequence of the oldest one.
    pub(crate) oldest: Sequence,
    /// Bytes of all groups written since the log was opened.
    pub(crate) written_bytes: u64,
}

/// The write-ahead log. See the [module](super).
pub(crate) struct Log {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    retention: WalRetention,
    segment_bytes: u64,
    core: Mutex<Core>,
    writer: Mutex<Writer>,
    /// The segment that stands ready; put here before the core is told.
    ready: Mutex<Option<Prepared>>,
    /// Held by who makes one ready.
    preparing: Mutex<()>,
    segments: Mutex<Segments>,
    /// Copies of the core's watermarks, for looks without its lock.
    written: AtomicU64,
    synced: AtomicU64,
    acknowledged: AtomicU64,
    poisoned: AtomicBool,
    written_bytes: AtomicU64,
    _lock: Box<dyn Send + Sync>,
}

#[derive(Debug, Default)]
struct Segments {
    sealed: Vec<SealedSegment>,
    /// The first sequence of the current one.
    current_first: Option<Sequence>,
    next_id: u64,
}

impl Log {
    /// Recovers the folder's segments (created if missing): gives each record that may be missing in the tables to `replay`, in order, then
    /// prepares a new segment. A full device is no obstacle: the log then refuses pushes until there is space.
    ///
    /// # Errors
    /// `Damaged` with file and offset, `Locked`, what the file system refused, what `replay` answered.
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        settings: &LogSettings,
        replay: &mut dyn FnMut(Sequence, &[u8]) -> Result<()>,
    ) -> Result<(Arc<Log>, Recovered)> {
        let lock = open_folder(&*fs, dir)?;
        let limits = limits(settings);
        let chain = segments::resolve(&*fs, dir, settings.needed_from)?;
        let (recovered, sealed) = recover(&*fs, dir, settings, &chain, replay)?;
        for path in &chain.void {
            fs.remove(path).map_err(|error| Error::io("remove", path, error))?;
        }
        let last = recovered.next_sequence - 1;
        let previous = sealed.last().map_or((0, 0), |segment| (segment.id, segment.end));
        let log = Arc::new(Log {
            dir: dir.to_owned(),
            retention: settings.retention,
            segment_bytes: limits.segment_bytes,
            core: Mutex::new(Core::new(limits, recovered.next_sequence)),
            writer: Mutex::new(Writer::new(fs.clone(), previous)),
            ready: Mutex::new(None),
            preparing: Mutex::new(()),
            segments: Mutex::new(Segments { sealed, current_first: None, next_id: chain.highest_id + 1 }),
            written: AtomicU64::new(last),
            synced: AtomicU64::new(last),
            acknowledged: AtomicU64::new(last),
            poisoned: AtomicBool::new(false),
            written_bytes: AtomicU64::new(0),
            fs,
            _lock: lock,
        });
        log.prepare(true);
        Ok((log, recovered))
    }

    /// Adds a record that takes `operations` (at least 1) sequence numbers to the forming group and answers the first of them. Never blocks.
    ///
    /// # Errors
    /// All before a sequence is given: `Busy` when the buffer is full, `DiskFull`, `TooLarge`, `Poisoned`, `Closed`.
    pub(crate) fn push(&self, record: &[u8], operations: u64, durability: Durability) -> Result<Sequence> {
        let mut core = self.core.lock();
        let first = core.push(record, operations, durability)?;
        if durability == Durability::Buffered {
            self.publish(&core);
        }
        Ok(first)
    }

    /// As [`Log::push`], but never `Busy`: makes room by writing the forming group on this thread, or waits for whoever does. For writers that
    /// can't turn back. Nearly always there is room: who asked [`Log::admission`] first finds half of the buffer.
    ///
    /// # Errors
    /// As [`Log::push`], without `Busy`.
    pub(crate) fn push_admitted(
        &self,
        record: &[u8],
        operations: u64,
        durability: Durability,
    ) -> Result<Sequence> {
        loop {
            match self.push(record, operations, durability) {
                Err(Error::Busy { .. }) => self.make_room(),
                done => return done,
            }
        }
    }

    fn make_room(&self) {
        {
            let mut core = self.core.lock();
            let last = core.last();
            core.want(last, Durability::Written);
        }
        if !self.lead() {
            // Another one leads: until it has written, and handed its work back.
            drop(self.writer.lock());
            std::thread::yield_now();
        }
        self.prepare(true);
        drop(self.preparing.lock());
    }

    /// Whether the forming group has room to spare. If it has not, it is wanted from here on that it be written: somebody's [`Log::lead`] does it.
    ///
    /// # Errors
    /// `Busy` when half of the buffer is taken, or no segment stands ready for it; `DiskFull` and `Io` of why there is none.
    pub(crate) fn admission(&self) -> Result<()> {
        self.core.lock().admission()
    }

    /// The wait for everything up to `last` to be as safe as `durability` says: for a write, or for a read that rests on one.
    pub(crate) fn commit(self: &Arc<Self>, last: Sequence, durability: Durability) -> Commit {
        Commit::new(self.clone(), last, durability)
    }

    /// If somebody waits for a group and nobody writes: writes it on this thread, and syncs it if that is asked for. Whether it did something.
    pub(crate) fn lead(&self) -> bool {
        let Some(work) = self.core.lock().begin() else { return false };
        self.carry_out(work);
        self.prepare(false);
        true
    }

    /// The background's turn, at least once a second: syncs what was only written or buffered, keeps a segment ready, and puts the durability
    /// of the last group on disk when nothing goes on.
    pub(crate) fn maintain(&self) {
        let idle = {
            let mut core = self.core.lock();
            let last = core.last();
            core.want(last, Durability::Synced);
            core.stood_still()
        };
        self.lead();
        self.prepare(true);
        if idle {
            self.mark();
        }
    }

    /// The last sequence that was handed to the operating system.
    pub(crate) fn written(&self) -> Sequence {
        self.written.load(Ordering::Acquire)
    }

    /// The last sequence that survives power loss.
    pub(crate) fn synced(&self) -> Sequence {
        self.synced.load(Ordering::Acquire)
    }

    /// The last sequence that was acknowledged in its class: what readers may see after poison.
    pub(crate) fn acknowledged(&self) -> Sequence {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Whether a write or sync failed. Nobody is told so before this answers true.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    /// Why the log is poisoned.
    pub(crate) fn poison_reason(&self) -> Option<Arc<str>> {
        self.core.lock().poisoned()
    }

    /// Poisons the log for a failure elsewhere (the manifest's): no write is taken or acknowledged any more.
    pub(crate) fn poison(&self, reason: &str) {
        let mut wakers = Vec::new();
        let mut core = self.core.lock();
        core.poison(reason, &mut wakers);
        self.publish(&core);
        drop(core);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Frees the segments all of whose records are below `watermark`, the current one apart.
    ///
    /// # Errors
    /// What the file system refused; the rest is freed at the next call.
    pub(crate) fn release_below(&self, watermark: Sequence) -> Result<()> {
        if self.retention == WalRetention::All {
            return Ok(());
        }
        let mut freed = {
            let mut segments = self.segments.lock();
            let needed = segments.sealed.iter().position(|segment| {
                segment.last >= watermark
                    && !(is_planted(Planted::SegmentFreedTooEarly) && segment.first <= watermark)
            });
            // Until the first write of this life, the newest one alone knows the next sequence.
            let newest = usize::from(segments.current_first.is_none());
            let freeable = segments.sealed.len().saturating_sub(newest);
            let count = needed.unwrap_or(freeable).min(freeable);
            segments.sealed.drain(..count).collect::<Vec<_>>().into_iter()
        };
        // Not under the lock: the leader needs it. A removal that power loss undoes does no harm: recovery reads from the segment it needs.
        while let Some(segment) = freed.next() {
            if let Err(error) = self.fs.remove(&segment.path) {
                let error = Error::io("remove", &segment.path, error);
                let left = std::iter::once(segment).chain(freed);
                self.segments.lock().sealed.splice(0..0, left);
                return Err(error);
            }
        }
        Ok(())
    }

    #[cfg(test)]
    /// The next group goes to a new segment, so that this one can be freed once all of it is in tables.
    pub(crate) fn rotate(&self) {
        self.prepare(true);
        self.core.lock().rotate();
    }

    /// What the log takes on the device.
    pub(crate) fn usage(&self) -> LogUsage {
        let segments = self.segments.lock();
        let current = segments.current_first.map_or(0, |_| self.segment_bytes);
        let sealed: u64 = segments.sealed.iter().map(|segment| segment.file_bytes).sum();
        let oldest = segments.sealed.first().map(|segment| segment.first).or(segments.current_first);
        LogUsage {
            segments: segments.sealed.len() as u64 + u64::from(segments.current_first.is_some()),
            bytes: sealed + current,
            oldest: oldest.unwrap_or_else(|| self.synced() + 1),
            written_bytes: self.written_bytes.load(Ordering::Relaxed),
        }
    }

    /// Refuses further pushes, makes everything durable and says so on disk.
    ///
    /// # Errors
    /// `Poisoned`.
    pub(crate) fn close(self: &Arc<Self>) -> Result<()> {
        let last = {
            let mut core = self.core.lock();
            core.close();
            core.last()
        };
        self.commit(last, Durability::Synced).wait()?;
        self.mark();
        Ok(())
    }

    /// Writes a group without records: it says on disk that everything before it is durable.
    fn mark(&self) {
        let work = self.core.lock().begin_marker();
        if let Some(work) = work {
            self.carry_out(work);
        }
    }

    fn carry_out(&self, mut work: Work) {
        let result = self.write(&mut work);
        let mut wakers = Vec::new();
        let mut core = self.core.lock();
        core.finish(work, result, &mut wakers);
        self.publish(&core);
        drop(core);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn write(&self, work: &mut Work) -> Result<()> {
        let mut writer = self.writer.lock();
        if work.switch {
            let prepared = self.ready.lock().take();
            let prepared =
                prepared.ok_or_else(|| Error::Invalid("no log segment stands ready".to_owned()))?;
            let left = writer.switch(prepared, work.first)?;
            work.durable_seq = work.first - 1;
            let mut segments = self.segments.lock();
            segments.sealed.extend(left);
            segments.current_first = Some(work.first);
        }
        self.written_bytes.fetch_add(work.group.len() as u64, Ordering::Relaxed);
        writer.run(work)
    }

    /// Makes a segment ready if none is.
    fn prepare(&self, eager: bool) {
        if !self.core.lock().begin_segment(eager) {
            return;
        }
        let _preparing = self.preparing.lock();
        let id = {
            let mut segments = self.segments.lock();
            segments.next_id += 1;
            segments.next_id - 1
        };
        let result = segments::prepare(&*self.fs, &self.dir, id, self.segment_bytes)
            .map(|prepared| *self.ready.lock() = Some(prepared));
        if let Err(error) = &result {
            tracing::warn!(%error, "no log segment could be prepared: writes are refused when the current one is full");
        }
        self.core.lock().finish_segment(result);
    }

    /// Copies the watermarks; under the core's lock, so that they only rise.
    fn publish(&self, core: &Core) {
        let marks = core.watermarks();
        self.written.store(marks.written, Ordering::Release);
        self.synced.store(marks.synced, Ordering::Release);
        self.acknowledged.store(marks.acknowledged, Ordering::Release);
        self.poisoned.store(core.poisoned().is_some(), Ordering::Release);
    }

    pub(super) fn outcome(&self, sequence: Sequence, durability: Durability) -> Option<Result<()>> {
        if sequence <= self.synced() {
            return Some(Ok(()));
        }
        let mut core = self.core.lock();
        let outcome = core.outcome(sequence, durability);
        self.publish(&core);
        outcome
    }

    /// One whose write is buffered need not wait; when the buffer is half full it writes it, or the next ones would find no room.
    pub(super) fn relieve(&self, durability: Durability) {
        if durability == Durability::Buffered && self.core.lock().half_full() {
            self.lead();
        }
    }

    /// See [`Core::look`].
    pub(super) fn look(
        &self,
        sequence: Sequence,
        durability: Durability,
        ticket: &mut Option<Ticket>,
        waker: impl FnOnce() -> Waker,
    ) -> Look {
        if ticket.is_none() && sequence <= self.synced() {
            return Look::Done(Ok(()));
        }
        let mut core = self.core.lock();
        let look = core.look(sequence, durability, ticket, waker);
        if matches!(look, Look::Done(_)) {
            self.publish(&core);
        }
        look
    }

    /// A commit is dropped before its end: if it had been woken to lead, somebody else is.
    pub(super) fn forget(&self, ticket: Ticket) {
        let mut wakers = Vec::new();
        let mut core = self.core.lock();
        core.forget(ticket, &mut wakers);
        drop(core);
        wakers.into_iter().for_each(Waker::wake);
    }
}

fn limits(settings: &LogSettings) -> Limits {
    let buffer_bytes_max = settings.buffer_bytes_max.min(BUFFER_BYTES_LIMIT);
    let largest = HEADER_BYTES as u64 + format::aligned(buffer_bytes_max as u64);
    Limits { segment_bytes: settings.segment_bytes.max(largest), buffer_bytes_max }
}

/// Creates the folder if need be, its name durable, and locks it.
fn open_folder(fs: &dyn Fs, dir: &Path) -> Result<Box<dyn Send + Sync>> {
    make_dir(fs, dir)?;
    let path = dir.join(LOCK_NAME);
    fs.lock(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { path: dir.to_owned() },
        _ => Error::io("lock", &path, error),
    })
}

/// Tables that came without their log begin a new one: older records are another store's, the one that they were taken of as a rule.
fn refuse_foreign(dir: &Path, begins_at: Sequence, chain: &Chain) -> Result<()> {
    let segments = chain.older.iter().chain(&chain.live);
    let Some(foreign) = segments.map(|segment| segment.header.first_sequence).find(|&at| at < begins_at)
    else {
        return Ok(());
    };
    Err(Error::Invalid(format!(
        "{} holds the log of another store: it has records from sequence {foreign} on, this store's log begins at {begins_at}. \
         Name an empty folder for the log",
        dir.display()
    )))
}

/// Replays the chain; answers also the segments that are not written to any more, oldest first.
fn recover(
    fs: &dyn Fs,
    dir: &Path,
    settings: &LogSettings,
    chain: &Chain,
    replay: &mut dyn FnMut(Sequence, &[u8]) -> Result<()>,
) -> Result<(Recovered, Vec<SealedSegment>)> {
    let needed_from = settings.needed_from;
    refuse_foreign(dir, settings.begins_at, chain)?;
    let recovered = Recovered { next_sequence: settings.begins_at, records: 0, record_bytes: 0, torn: None };
    let mut run = Replay { fs, replay, recovered, sealed: Vec::new() };
    run.run(chain)?;
    let Replay { recovered, mut sealed, .. } = run;
    // Also where a flipped bit made a torn end of it: without the rest of a batch, the part of it in tables would be half a batch.
    let reaches = settings.reaches.max(needed_from.saturating_sub(1));
    if recovered.next_sequence <= reaches {
        let found = format!("a log that ends before sequence {}", recovered.next_sequence);
        let expected = format!("every record up to sequence {reaches}, which is in tables");
        return Err(Error::damaged(dir, 0, expected, found));
    }
    let older = chain.older.iter().map(|segment| SealedSegment {
        id: segment.header.id,
        path: segment.path.clone(),
        first: segment.header.first_sequence,
        last: 0,
        end: 0,
        file_bytes: segment.file_bytes,
    });
    sealed.splice(0..0, older);
    Ok((recovered, sealed))
}
