//! The state of the store itself: epoch, store id, bounds on time, the table of namespaces. It stands in the tree `sys`, under versions of a
//! counter of its own, and is written in the same batch as what it belongs to.

use crate::available::HINTS_TREE;
use crate::control::TREE as CONTROL_TREE;
use crate::error::{Error, Result};
use crate::keys::SYSTEM_TREE;
use crate::latch::ShardId;
use crate::namespace;
use crate::namespaces::{NamespaceSettings, Row};
use crate::op_id::EPOCH_MAX;
use crate::shard::promised_epoch;
use bytes::Bytes;
use kvorum_engine::{Attributes, Batch, Direction, Durability, Store, Tree, TreeSettings, View};
use parking_lot::Mutex;
use std::collections::BTreeMap;

const STORE_ID: &[u8] = b"store";
const EPOCH: &[u8] = b"epoch";
const TIME: &[u8] = b"time";
const STAMP_BOUND: &[u8] = b"stamp-bound";
const NAMESPACE: &[u8] = b"namespace/";
/// States of members of shards: `shard/{namespace}/{place}`, read by whoever opens the member.
const SHARD: &[u8] = b"shard/";
/// Set once the store's shards are kept by members of groups, and no more by the node alone.
const GROUPED: &[u8] = b"grouped";
/// What the replicas of available namespaces must not forget: read by whoever opens them.
const AVAILABLE: &[u8] = b"available/";

/// The system tree.
pub(crate) struct System {
    tree: Tree,
    state: Mutex<State>,
}

struct State {
    /// The version of the last entry.
    version: u64,
    epoch: u64,
    /// The highest id that a namespace ever had.
    namespace: u16,
}

/// What stood in the store when it was opened.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) store_id: Option<[u8; 16]>,
    pub(crate) epoch: u64,
    /// Unix milliseconds; no lower time was ever told to anybody.
    pub(crate) time_ms: u64,
    /// Milliseconds since 2020; every hybrid timestamp is below.
    pub(crate) stamp_bound: u64,
    /// Rows of the namespaces, by id.
    pub(crate) namespaces: BTreeMap<u16, Row>,
}

impl System {
    /// Reads the state of the store; nothing in a new one.
    pub(crate) fn open(store: &Store) -> Result<(System, Found)> {
        let tree = store.tree(SYSTEM_TREE, TreeSettings::with_history())?;
        let mut found = Found::default();
        let mut version = 0;
        for entry in tree.range(.., &View::newest(), Direction::Forward)? {
            let (key, entry) = entry?;
            version = version.max(entry.version);
            found.take(&key, &entry.value)?;
        }
        let state = Mutex::new(State {
            version,
            epoch: found.epoch,
            namespace: found.namespaces.keys().last().copied().unwrap_or(0),
        });
        Ok((System { tree, state }, found))
    }

    /// Begins the epoch of this start, durably, before anything else is written: op ids of earlier starts are all below. Adds the namespaces
    /// that are there from the start.
    pub(crate) fn begin(&self, store: &Store, found: &mut Found, id: [u8; 16], entity: &str) -> Result<u64> {
        let mut batch = Batch::new();
        if found.store_id.is_none() {
            self.put(&mut batch, STORE_ID, &id);
        }
        for namespace in namespace::built_in() {
            let name = namespace::built_in_name(namespace, entity);
            let row = match found.namespaces.get(&namespace.id()) {
                Some(Row::Kept { name: known, .. }) if *known == name => continue,
                Some(Row::Kept { settings, .. }) => Row::kept(name, settings.clone()),
                _ => Row::kept(name, NamespaceSettings::new(namespace.mode())),
            };
            self.put_namespace(&mut batch, namespace.id(), &row);
            found.namespaces.insert(namespace.id(), row);
        }
        let epoch = self.next_epoch(&mut batch)?;
        store.write(batch, Durability::Synced)?.wait().map_err(Error::from)?;
        Ok(epoch)
    }

    /// Takes the next epoch; `batch` makes it durable, together with the first op ids of it.
    pub(crate) fn next_epoch(&self, batch: &mut Batch) -> Result<u64> {
        let mut state = self.state.lock();
        if state.epoch == EPOCH_MAX {
            return Err(Error::Storage(format!(
                "epoch {EPOCH_MAX} was the last one: export the data to a new store"
            )));
        }
        state.epoch += 1;
        state.version += 1;
        let epoch = state.epoch;
        self.put_at(batch, EPOCH, state.version, &epoch.to_le_bytes());
        Ok(epoch)
    }

    /// Makes a store that was copied from another one a store of its own: with its own id, and an epoch so far above that the other one does
    /// not come there: an op id of the one is none of the other's. Where damage took the epoch, half of all epochs are passed by. What the other
    /// one was in a cluster it is not: it has promised nothing, and follows nobody. Answers the epoch.
    pub(crate) fn become_new(&self, store: &Store, id: [u8; 16]) -> Result<u64> {
        let mut batch = Batch::new();
        self.put(&mut batch, STORE_ID, &id);
        let promised = self.forget_cluster(&mut batch)?;
        {
            let mut state = self.state.lock();
            // `next_epoch` takes the last step, and refuses at the end.
            let known = if state.epoch == 0 { EPOCH_MAX / 2 } else { state.epoch.max(promised) };
            state.epoch = (known + EPOCHS_APART - 1).min(EPOCH_MAX);
        }
        let epoch = self.next_epoch(&mut batch)?;
        store.write(batch, Durability::Synced)?.wait().map_err(Error::from)?;
        let trees = store.tree_names();
        let of_cluster: Vec<&str> = [CONTROL_TREE, HINTS_TREE]
            .into_iter()
            .filter(|name| trees.iter().any(|tree| **tree == **name))
            .collect();
        store.drop_trees(&of_cluster)?;
        Ok(epoch)
    }

    /// Deletes what the store was in a cluster. Answers the highest epoch that one of its members has promised: op ids reach as far.
    fn forget_cluster(&self, batch: &mut Batch) -> Result<u64> {
        let mut promised = 0;
        for entry in self.tree.range(.., &View::newest(), Direction::Forward)? {
            let (key, entry) = entry?;
            let is_of_cluster = key.starts_with(SHARD) || key.starts_with(AVAILABLE) || key == GROUPED;
            if !entry.is_value() || !is_of_cluster {
                continue;
            }
            if key.starts_with(SHARD) {
                promised = promised.max(promised_epoch(&entry.value).unwrap_or(0));
            }
            let mut state = self.state.lock();
            state.version += 1;
            batch.delete(&self.tree, &key, state.version, Attributes::default());
        }
        Ok(promised)
    }

    /// Adds the node's time to a batch.
    pub(crate) fn put_time(&self, batch: &mut Batch, time_ms: u64) {
        self.put(batch, TIME, &time_ms.to_le_bytes());
    }

    /// An id that no namespace ever had.
    pub(crate) fn next_namespace(&self) -> Result<u16> {
        let next = self.state.lock().namespace.checked_add(1);
        next.ok_or_else(|| {
            Error::Invalid("all ids of namespaces were given: export the data to a new store".into())
        })
    }

    /// Adds a namespace's row to a batch.
    pub(crate) fn put_namespace(&self, batch: &mut Batch, id: u16, row: &Row) {
        let key = [NAMESPACE, id.to_string().as_bytes()].concat();
        self.put(batch, &key, &row.encode());
        let mut state = self.state.lock();
        state.namespace = state.namespace.max(id);
    }

    /// The state of the own member of a shard, as [`System::put_shard`] left it.
    pub(crate) fn shard(&self, shard: ShardId) -> Result<Option<Bytes>> {
        let found = self.tree.get(&shard_key(shard), &View::newest())?;
        Ok(found.filter(kvorum_engine::Found::is_value).map(|found| found.value))
    }

    /// Adds the state of the own member of a shard to a batch. The caller holds the shard's latch.
    pub(crate) fn put_shard(&self, batch: &mut Batch, shard: ShardId, state: &[u8]) {
        self.put(batch, &shard_key(shard), state);
    }

    /// Whether members of groups keep the store's shards, or kept one of them: a node alone can't go on with those.
    pub(crate) fn is_grouped(&self) -> Result<bool> {
        let mark = self.tree.get(GROUPED, &View::newest())?;
        if mark.is_some_and(|mark| mark.is_value()) {
            return Ok(true);
        }
        for entry in self.tree.range(SHARD.., &View::newest(), Direction::Forward)? {
            let (key, entry) = entry?;
            if !key.starts_with(SHARD) {
                break;
            }
            if entry.is_value() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds to a batch that from here on members of groups keep the store's shards.
    pub(crate) fn put_grouped(&self, batch: &mut Batch) {
        self.put(batch, GROUPED, &[]);
    }

    /// A row of the replicas of available namespaces, as [`System::put_available`] left it.
    pub(crate) fn available(&self, row: &str) -> Result<Option<Bytes>> {
        let found = self.tree.get(&[AVAILABLE, row.as_bytes()].concat(), &View::newest())?;
        Ok(found.filter(kvorum_engine::Found::is_value).map(|found| found.value))
    }

    /// Adds a row of the replicas of available namespaces to a batch.
    pub(crate) fn put_available(&self, batch: &mut Batch, row: &str, value: &[u8]) {
        self.put(batch, &[AVAILABLE, row.as_bytes()].concat(), value);
    }

    /// Adds the bound on hybrid timestamps to a batch.
    pub(crate) fn put_stamp_bound(&self, batch: &mut Batch, bound: u64) {
        self.put(batch, STAMP_BOUND, &bound.to_le_bytes());
    }

    /// Nothing reads older states: compaction may drop them.
    pub(crate) fn forget_history(&self) -> Result<()> {
        // One below, because writers that have a version may not have written yet; they are few.
        let version = self.state.lock().version;
        Ok(self.tree.set_floor(version.saturating_sub(WRITERS_MAX))?)
    }

    fn put(&self, batch: &mut Batch, key: &[u8], value: &[u8]) {
        let mut state = self.state.lock();
        state.version += 1;
        self.put_at(batch, key, state.version, value);
    }

    fn put_at(&self, batch: &mut Batch, key: &[u8], version: u64, value: &[u8]) {
        batch.put(&self.tree, key, version, value, Attributes::default());
    }
}

fn shard_key(shard: ShardId) -> Vec<u8> {
    [SHARD, format!("{}/{}", shard.namespace, shard.place).as_bytes()].concat()
}

/// Epochs between a store and one restored from its backup: more starts than come between a backup and a restore, few enough for thousands of
/// restores.
const EPOCHS_APART: u64 = 1024;

/// More threads than will ever be between taking a version and writing it.
const WRITERS_MAX: u64 = 65_536;

impl Found {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            STORE_ID => self.store_id = Some(fixed(key, value)?),
            EPOCH => self.epoch = u64::from_le_bytes(fixed(key, value)?),
            TIME => self.time_ms = u64::from_le_bytes(fixed(key, value)?),
            STAMP_BOUND => self.stamp_bound = u64::from_le_bytes(fixed(key, value)?),
            GROUPED => {}
            _ if key.starts_with(SHARD) || key.starts_with(AVAILABLE) => {}
            _ if key.starts_with(NAMESPACE) => {
                let (id, row) = namespace_row(key, value)?;
                self.namespaces.insert(id, row);
            }
            _ => {
                let key = key.escape_ascii();
                return Err(Error::Storage(format!(
                    "the tree {SYSTEM_TREE} holds `{key}`, which this program does not know: use a newer one"
                )));
            }
        }
        Ok(())
    }
}

fn fixed<const N: usize>(key: &[u8], value: &[u8]) -> Result<[u8; N]> {
    value.try_into().map_err(|_| {
        let (key, length) = (key.escape_ascii(), value.len());
        Error::Storage(format!(
            "the entry `{key}` of the tree {SYSTEM_TREE} has {length} bytes instead of {N}"
        ))
    })
}

fn namespace_row(key: &[u8], value: &[u8]) -> Result<(u16, Row)> {
    let wrong = |expected: &str| {
        let (key, value) = (key.escape_ascii(), value.escape_ascii());
        Error::Storage(format!("the entry `{key}` of the tree {SYSTEM_TREE} lacks {expected}: `{value}`"))
    };
    let id = key.get(NAMESPACE.len()..).and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
    let id = id.ok_or_else(|| wrong("a namespace's id"))?;
    Ok((id, Row::decode(value).map_err(wrong)?))
}
