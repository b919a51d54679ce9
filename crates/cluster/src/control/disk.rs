//! Where the control plane keeps its log, vote and snapshots: a tree of the engine.
//!
//! ```text
//! log/ index (u64, big-endian)   an entry, as JSON
//! vote · committed · purged      as openraft has them, as JSON
//! snapshot                       length of the head (u32, little-endian) · head: openraft's meta as JSON · the state as JSON
//! founding                       what this node knows of its cluster before the log says it, as JSON
//! removed                        that this store has left its cluster for good, as JSON
//! ```

use kvorum_engine::{
    Attributes, Batch, Commit, Direction, Durability, Error, Store, Tree, TreeSettings, View,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub(crate) const TREE: &str = "control";
pub(crate) const VOTE: &[u8] = b"vote";
pub(crate) const COMMITTED: &[u8] = b"committed";
pub(crate) const PURGED: &[u8] = b"purged";
pub(crate) const SNAPSHOT: &[u8] = b"snapshot";
pub(crate) const FOUNDING: &[u8] = b"founding";
pub(crate) const REMOVED: &[u8] = b"removed";
const LOG: &[u8] = b"log/";

/// How long to wait before a write is tried again that a full disk refused.
const DISK_FULL_WAIT: Duration = Duration::from_millis(200);

/// The tree, and the store that it is in.
pub(crate) struct Disk {
    store: Store,
    tree: Tree,
    /// The version of the last write: the tree keeps only the newest of each key.
    version: AtomicU64,
}

/// Whether the store belongs to a cluster, or is about to. May wait for the disk.
pub(crate) fn has_something(store: &Store) -> kvorum_engine::Result<bool> {
    let Some(tree) = store.find_tree(TREE) else { return Ok(false) };
    Ok(tree.range(.., &View::newest(), Direction::Forward)?.next().transpose()?.is_some())
}

/// A value of the store of a node that may never have belonged to a cluster. May wait for the disk.
pub(crate) fn find_json<T: DeserializeOwned>(store: &Store, key: &[u8]) -> io::Result<Option<T>> {
    match store.find_tree(TREE) {
        Some(_) => Disk::open(store)?.get_json(key),
        None => Ok(None),
    }
}

impl Disk {
    pub(crate) fn open(store: &Store) -> io::Result<Disk> {
        let tree = store.tree(TREE, TreeSettings::newest_only()).map_err(io::Error::other)?;
        let mut version = 0;
        for entry in tree.range(.., &View::newest(), Direction::Forward).map_err(io::Error::other)? {
            version = version.max(entry.map_err(io::Error::other)?.1.version);
        }
        // Deleted keys may have had higher versions; none comes near in one run.
        let version = AtomicU64::new(version + VERSIONS_APART);
        Ok(Disk { store: store.clone(), tree, version })
    }

    pub(crate) fn put(&self, batch: &mut Batch, key: &[u8], value: &[u8]) {
        let version = self.version.fetch_add(1, Relaxed) + 1;
        batch.put(&self.tree, key, version, value, Attributes::default());
    }

    pub(crate) fn put_json<T: Serialize>(&self, batch: &mut Batch, key: &[u8], value: &T) -> io::Result<()> {
        self.put(batch, key, &serde_json::to_vec(value)?);
        Ok(())
    }

    pub(crate) fn delete(&self, batch: &mut Batch, key: &[u8]) {
        let version = self.version.fetch_add(1, Relaxed) + 1;
        batch.delete(&self.tree, key, version, Attributes::default());
    }

    /// Reads a value. May wait for the disk.
    pub(crate) fn get(&self, key: &[u8]) -> io::Result<Option<bytes::Bytes>> {
        let found = self.tree.get(key, &View::newest()).map_err(io::Error::other)?;
        Ok(found.filter(|found| found.is_value()).map(|found| found.value))
    }

    /// Reads a JSON value. May wait for the disk.
    pub(crate) fn get_json<T: DeserializeOwned>(&self, key: &[u8]) -> io::Result<Option<T>> {
        self.get(key)?.map(|bytes| decode(key, &bytes)).transpose()
    }

    /// The log's entries in order. May wait for the disk.
    pub(crate) fn entries<T: DeserializeOwned>(&self) -> io::Result<Vec<(u64, T)>> {
        let range = self.tree.prefix(LOG, &View::newest(), Direction::Forward).map_err(io::Error::other)?;
        let mut entries = Vec::new();
        for entry in range {
            let (key, found) = entry.map_err(io::Error::other)?;
            if !found.is_value() {
                continue;
            }
            let index = key.strip_prefix(LOG).and_then(|rest| rest.try_into().ok()).map(u64::from_be_bytes);
            let index = index.ok_or_else(|| damaged(&key, "an index of eight bytes"))?;
            entries.push((index, decode(&key, &found.value)?));
        }
        Ok(entries)
    }

    /// Writes a batch, waiting as long as the store is busy or its disk full: raft stops for good at the first error it sees, and both pass.
    pub(crate) async fn write(&self, batch: &Batch, durability: Durability) -> io::Result<Commit> {
        let mut told = false;
        loop {
            let wait = match self.store.write(batch, durability) {
                Ok(commit) => return Ok(commit),
                Err(Error::Busy { retry_after }) => retry_after,
                Err(error @ Error::DiskFull { .. }) => {
                    if !told {
                        tracing::warn!(%error, "the control plane waits for space on its disk");
                        told = true;
                    }
                    DISK_FULL_WAIT
                }
                Err(error) => return Err(io::Error::other(error)),
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Writes a batch and waits, on a thread that may block, until it is durable.
    pub(crate) async fn write_synced(&self, batch: &Batch) -> io::Result<()> {
        let commit = self.write(batch, Durability::Synced).await?;
        let waited = tokio::task::spawn_blocking(move || commit.wait()).await;
        waited.map_err(io::Error::other)?.map_err(io::Error::other)
    }
}

/// Versions between those found at a start and the first one used: more than deletes can have taken since the last snapshot of the tree.
const VERSIONS_APART: u64 = 1 << 32;

/// The key of a log entry.
pub(crate) fn log_key(index: u64) -> Vec<u8> {
    [LOG, &index.to_be_bytes()].concat()
}

fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|error| damaged(key, &error.to_string()))
}

/// An error that names the entry.
pub(crate) fn damaged(key: &[u8], expected: &str) -> io::Error {
    let key = key.escape_ascii();
    io::Error::new(io::ErrorKind::InvalidData, format!("the entry `{key}` of the tree {TREE}: {expected}"))
}
