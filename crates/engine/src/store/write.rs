//! The way of a write: checks, sequence and log, memtables, publication; all under the writer's lock, so that they happen in one order.

use super::{Shared, Store, Trees};
use crate::batch::{Batch, BatchTree};
use crate::checksum::key_hash;
use crate::error::{Error, Result};
use crate::memtable::Memtable;
use crate::planted::{Planted, is_planted};
use crate::record::{Operation, Operations};
use crate::sst::Head;
use crate::tree::{TreeState, clear_payload};
use crate::types::{Durability, Kind, Sequence, Space};
use crate::wal::Commit;
use std::borrow::Borrow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::task::{Context, Poll};

/// Hashes for which room is kept between batches.
const HASHES_KEPT_MAX: usize = 1 << 16;

/// What is behind the writer's lock.
#[derive(Default)]
pub(crate) struct Writer {
    /// Hashes of the keys of the batch in hand.
    written: Vec<u64>,
}

/// Whether a batch may still be told to come again.
#[derive(Clone, Copy)]
enum Admission {
    Asked,
    Granted,
}

/// The wait for room in the write buffers: see [`Store::room`].
#[must_use = "nothing waits before it is awaited"]
pub struct Room {
    shared: Arc<Shared>,
    /// Easings of the store's memory before this one was asked for.
    seen: u64,
}

impl Future for Room {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Shared { stall, log, parts, path, .. } = &*self.shared;
        let busy = |looked: Result<()>| matches!(looked, Err(Error::Busy { .. }));
        if !busy(stall.admission(parts, path)) && !busy(log.admission()) {
            return Poll::Ready(());
        }
        if stall.await_easing(self.seen, context.waker()) { Poll::Pending } else { Poll::Ready(()) }
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

impl Store {
    /// Writes a batch: all of it or nothing. Readers see it when this returns; the commit tells when it is as durable as asked for. Never waits.
    ///
    /// # Errors
    /// `Busy` when the write buffers are full, `DiskFull`, `Poisoned`, `BelowFloor` for a version at or below a tree's floor, `TooLarge`,
    /// `Invalid` for a dropped tree, `Closed`. In all of them nothing was written, and the batch can be written again.
    pub fn write(&self, batch: impl Borrow<Batch>, durability: Durability) -> Result<Commit> {
        self.write_as(batch.borrow(), durability, Admission::Asked)
    }

    /// Whether the store would take a write now: for who must know before it commits itself to one, and then uses
    /// [`Store::write_admitted`]. Takes nothing: what several writers learn from it at the same time they all may do.
    ///
    /// It is a little stricter than [`Store::write`]: it refuses when half of the log's buffer waits to be written, so that admitted batches
    /// find their place in the other half. Whoever waits for a commit writes it, or [`Store::lead`].
    ///
    /// # Errors
    /// What [`Store::write`] would answer for the store's state: `Busy` with the time after which to ask again, `DiskFull`, `Poisoned`, `Closed`.
    pub fn admission(&self) -> Result<()> {
        let shared = &*self.shared;
        shared.check_open()?;
        shared.stall.admission(&shared.parts, &shared.path)?;
        shared.log.admission()
    }

    /// As [`Store::write`], but never `Busy`: for a batch whose writer asked [`Store::admission`] before it committed itself to writing it (a
    /// replication log's entry that the others may have by now).
    ///
    /// The write buffers may be overshot by what is written so after they are full: the caller bounds it by asking for admission again and again.
    /// Other writes wait the longer for it. Waits for the device only if the log's buffer, of half the write buffers, is full.
    ///
    /// # Errors
    /// As [`Store::write`], without `Busy`.
    pub fn write_admitted(&self, batch: impl Borrow<Batch>, durability: Durability) -> Result<Commit> {
        self.write_as(batch.borrow(), durability, Admission::Granted)
    }

    /// Resolves when memory was freed or compaction caught up, at once if [`Store::admission`] is not `Busy`. Whoever was told to come again in a
    /// time waits for whichever is first, this or the time, and asks again: the slowing of writes ends by the clock, too.
    pub fn room(&self) -> Room {
        Room { seen: self.shared.stall.easings(), shared: Arc::clone(&self.shared) }
    }

    /// Tells the store how long a writer that was told to come again has been held back by now: the longest is in
    /// [`StoreStats::longest_pause`](crate::StoreStats::longest_pause). [`Store::write_waiting`] does so by itself.
    pub fn held_back(&self, time: std::time::Duration) {
        self.shared.stall.paused(time);
    }

    fn write_as(&self, batch: &Batch, durability: Durability, admission: Admission) -> Result<Commit> {
        let shared = &*self.shared;
        batch.check(shared.settings.batch_limit_bytes(), shared.settings.value_limit_bytes())?;
        if batch.is_empty() {
            return Ok(self.commit_at(self.visible(), durability));
        }
        let mut writer = shared.writer.lock();
        shared.check_open()?;
        let bytes = batch.record.len() as u64;
        let (stall, parts, path) = (&shared.stall, &shared.parts, &*shared.path);
        // Before anything is taken: what is refused here costs the others no time.
        batch.trees.iter().try_for_each(|tree| check_tree(tree, batch.takes_over))?;
        let first = match admission {
            Admission::Asked => {
                stall.admit(bytes, parts, path)?;
                shared.log.push(&batch.record, batch.operations, durability)?
            }
            Admission::Granted => {
                stall.admitted(bytes, parts, path)?;
                shared.log.push_admitted(&batch.record, batch.operations, durability)?
            }
        };
        if is_planted(Planted::PublishedTooEarly) {
            shared.published.store(first + batch.operations - 1, Release);
        }
        shared.insert(&mut writer, batch, first)?;
        let last = first + batch.operations - 1;
        shared.published.store(last, Release);
        // After publication: who looks from now on finds the new entries.
        if let Some(records) = &shared.records {
            writer.written.iter().for_each(|&hash| records.written(hash));
        }
        drop(writer);
        let counters = &shared.counters;
        counters.batches.fetch_add(1, Relaxed);
        counters.record_bytes.fetch_add(bytes, Relaxed);
        Ok(self.commit_at(last, durability))
    }

    /// As [`Store::write`], but waits on this thread while the store is busy instead of refusing. The longest wait is in
    /// [`StoreStats::longest_pause`](crate::StoreStats::longest_pause).
    ///
    /// # Errors
    /// As [`Store::write`], without `Busy`.
    pub fn write_waiting(&self, batch: &Batch, durability: Durability) -> Result<Commit> {
        let mut begun = None;
        loop {
            match self.write(batch, durability) {
                Err(Error::Busy { retry_after }) => {
                    begun.get_or_insert_with(|| self.shared.parts.clock.monotonic());
                    // The log's buffer may be full because nobody waits for what is in it.
                    if !self.lead() {
                        self.shared.stall.wait(retry_after);
                    }
                }
                done => {
                    if let Some(begun) = begun {
                        self.shared.stall.paused(self.shared.parts.clock.monotonic().saturating_sub(begun));
                    }
                    return done;
                }
            }
        }
    }
}

fn check_tree(tree: &BatchTree, takes_over: bool) -> Result<()> {
    tree.state.check_exists()?;
    let floor = tree.state.write_floor();
    let is_asked = !takes_over || !tree.state.settings.newest_only;
    if is_asked && floor > 0 && tree.lowest <= floor {
        return Err(Error::BelowFloor { version: tree.lowest, floor });
    }
    Ok(())
}

impl Shared {
    fn insert(&self, writer: &mut Writer, batch: &Batch, first: Sequence) -> Result<()> {
        let mut added = 0;
        writer.written.clear();
        writer.written.shrink_to(HASHES_KEPT_MAX);
        let mut current: Option<(&Arc<TreeState>, Arc<dyn Memtable>)> = None;
        for (sequence, operation) in (first..).zip(Operations::new(&batch.record)) {
            let operation =
                operation.map_err(|expected| Error::Invalid(format!("a batch's record lacks {expected}")))?;
            let (state, memtable) = match current.take().filter(|(state, _)| state.id == operation.tree) {
                Some(same) => same,
                None => {
                    let tree = batch.trees.iter().find(|t| t.state.id == operation.tree);
                    let state = &tree
                        .ok_or_else(|| {
                            Error::Invalid("a batch's record names a tree that the batch does not".into())
                        })?
                        .state;
                    (state, state.writable())
                }
            };
            let hash = if operation.space == Space::Data { key_hash(operation.key) } else { 0 };
            let (bytes, late) = insert_operation(state, &*memtable, &operation, hash, (first, sequence));
            added += bytes;
            if operation.space == Space::Data {
                writer.written.push(hash);
            }
            self.counters.operation(operation.kind, late);
            current = Some((state, memtable));
        }
        self.after_insert(&batch.trees, added);
        Ok(())
    }

    /// Seals what has become large, and wakes who flushes.
    fn after_insert(&self, trees: &[BatchTree], added: u64) {
        let limit = self.settings.memtable_limit_bytes();
        let mut wanted = self.stall.add(added);
        for tree in trees {
            let full = tree
                .state
                .sources
                .load()
                .active
                .as_ref()
                .is_some_and(|active| active.summary().bytes >= limit);
            wanted |= full && tree.state.seal();
        }
        if wanted {
            self.signals.flush_wanted();
        }
    }
}

/// Puts one operation into its tree's memtable; answers the memory taken and whether it was late.
fn insert_operation(
    state: &TreeState,
    memtable: &dyn Memtable,
    operation: &Operation<'_>,
    hash: u64,
    (batch, sequence): (Sequence, Sequence),
) -> (u64, bool) {
    let late = operation.space == Space::Data && operation.version <= state.sealed_largest.load(Relaxed);
    let &Operation { space, kind, version, expires_at, tag, key, payload, .. } = operation;
    let head = Head { version, sequence, kind, late, expires_at, tag };
    if space == Space::Clears {
        let payload = if kind == Kind::Clear { &clear_payload(batch)[..] } else { &[] };
        let added = memtable.insert(space, &head, 0, key, payload);
        state.note_clear(&head, payload);
        return (added, late);
    }
    (memtable.insert(space, &head, hash, key, payload), late)
}

/// Puts a record of the log back into the memtables, but for what stands in tables already; what was expected in it otherwise.
pub(crate) fn replay(trees: &Trees, first: Sequence, record: &[u8]) -> Result<(), &'static str> {
    for (sequence, operation) in (first..).zip(Operations::new(record)) {
        let operation = operation?;
        if is_planted(Planted::HalfBatchReplayed) && sequence > first {
            break;
        }
        // A tree that is not there was dropped later.
        let Some(state) = trees.by_id.get(&operation.tree) else { continue };
        if sequence > state.flushed.load(Acquire) {
            let hash = if operation.space == Space::Data { key_hash(operation.key) } else { 0 };
            insert_operation(state, &*state.writable(), &operation, hash, (first, sequence));
        }
    }
    Ok(())
}
