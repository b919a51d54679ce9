//! Where the states of members stand: the tree of the store's own state.

use super::row::Row;
use crate::error::{Error, Result};
use crate::latch::ShardId;
use crate::system::System;
use kvorum_engine::{Batch, Store};
use std::sync::Arc;

/// The states of all members of a store. Cheap to clone.
#[derive(Clone)]
pub struct Rows(Arc<System>);

impl Rows {
    /// Of a store that is not opened as a node.
    ///
    /// # Errors
    /// What can't be read of its state.
    pub fn open(store: &Store) -> Result<Rows> {
        Ok(Rows(Arc::new(System::open(store)?.0)))
    }

    pub(crate) fn of(system: &Arc<System>) -> Rows {
        Rows(Arc::clone(system))
    }

    pub(super) fn read(&self, shard: ShardId) -> Result<Option<Row>> {
        let Some(bytes) = self.0.shard(shard)? else { return Ok(None) };
        Row::decode(&bytes).map(Some).map_err(|expected| {
            let ShardId { namespace, place } = shard;
            Error::Storage(format!(
                "the state of shard {place} of namespace {namespace} lacks {expected}: {}",
                bytes.escape_ascii()
            ))
        })
    }

    pub(super) fn put(&self, batch: &mut Batch, shard: ShardId, row: &Row) {
        self.0.put_shard(batch, shard, &row.encode());
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").finish_non_exhaustive()
    }
}
