//! The way of a write: checks, sequence and log, memtables, publication; all under the writer's lock, so that they happen in one order.

use super::Store;
use crate::batch::{Batch, BatchTree};
use crate::commit::Commit;
use crate::error::{Error, Result};
use crate::iter::{Cleared, Clears};
use crate::record::{Operation, Operations};
use crate::tree::{Sources, TreeState};
use crate::types::{Durability, InternalEntry, Kind, Sequence, Space};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// What is behind the writer's lock.
#[derive(Default)]
pub(crate) struct Writer {
    next_sequence: Sequence,
}

impl Store {
    /// Writes a batch: all of it or nothing. Readers see it when this returns; the commit tells when it is as durable as asked for. Never waits.
    ///
    /// # Errors
    /// `Busy` when the write buffers are full, `DiskFull`, `Poisoned`, `BelowFloor` for a version at or below a tree's floor, `TooLarge`,
    /// `Invalid` for a dropped tree, `Closed`. In all of them nothing was written.
    pub fn write(&self, batch: Batch, durability: Durability) -> Result<Commit> {
        let shared = &*self.shared;
        batch.check(shared.settings.batch_limit_bytes(), shared.settings.value_limit_bytes())?;
        if batch.is_empty() {
            return Ok(self.commit_at(self.visible(), durability));
        }
        let Batch { record, operations, trees, .. } = batch;
        let record = Bytes::from(record);
        let mut writer = shared.writer.lock();
        shared.check_open()?;
        trees.iter().try_for_each(check_tree)?;
        let first = writer.next_sequence.max(1);
        writer.next_sequence = first + operations;
        insert(&trees, &record, first)?;
        let last = first + operations - 1;
        shared.publish(last);
        drop(writer);
        Ok(self.commit_at(last, durability))
    }
}

fn check_tree(tree: &BatchTree) -> Result<()> {
    let state = &tree.state;
    if state.dropped.load(Acquire) {
        return Err(Error::Invalid(format!("tree {} ({}) was dropped", state.name.read(), state.id)));
    }
    let floor = state.write_floor();
    if floor > 0 && tree.lowest <= floor {
        return Err(Error::BelowFloor { version: tree.lowest, floor });
    }
    Ok(())
}

fn insert(trees: &[BatchTree], record: &Bytes, first: Sequence) -> Result<()> {
    let mut current = None;
    for (sequence, operation) in (first..).zip(Operations::new(record)) {
        let operation =
            operation.map_err(|expected| Error::Invalid(format!("a batch's record lacks {expected}")))?;
        if current.as_ref().is_none_or(|(state, _): &(&Arc<TreeState>, _)| state.id != operation.tree) {
            let tree = trees.iter().find(|t| t.state.id == operation.tree);
            let state = &tree
                .ok_or_else(|| {
                    Error::Invalid("a batch's record names a tree that the batch does not".into())
                })?
                .state;
            current = Some((state, state.writable()));
        }
        if let Some((state, memtable)) = &current {
            memtable.insert(operation.space, entry_of(state, record, &operation, sequence));
            if operation.space == Space::Clears {
                note_clear(state, &operation, sequence, first);
            }
        }
    }
    Ok(())
}

/// The entry of an operation: key and value are slices of the record.
fn entry_of(
    state: &TreeState,
    record: &Bytes,
    operation: &Operation<'_>,
    sequence: Sequence,
) -> InternalEntry {
    let late = operation.space == Space::Data && operation.version <= state.sealed_largest.load(Relaxed);
    InternalEntry {
        key: record.slice_ref(operation.key),
        version: operation.version,
        sequence,
        kind: operation.kind,
        late,
        expires_at: operation.expires_at,
        tag: operation.tag,
        payload: record.slice_ref(operation.payload),
    }
}

/// Readers hold a tree's clears ready: they are asked for every key.
fn note_clear(state: &TreeState, operation: &Operation<'_>, sequence: Sequence, batch: Sequence) {
    state.sources.rcu(|sources| {
        let clears = sources.clears.as_deref().cloned().unwrap_or_default();
        let clears: Clears = if operation.kind == Kind::Clear {
            clears.with(Cleared { version: operation.version, sequence, batch })
        } else {
            clears.without(operation.version, sequence)
        };
        Sources { clears: Some(Arc::new(clears)), ..Sources::clone(sources) }
    });
}
