//! The namespaces of a node. They are found without a lock, because every command looks them up: a place is filled once, and stays.

use super::row::Row;
use super::settings::{Conflicts, NamespaceSettings};
use crate::error::{Error, Result};
use crate::keys::tree_name;
use crate::latch::{Shard, ShardId};
use crate::namespace::{BUILT_IN, NamespaceId};
use kvorum_engine::{Durability, Store};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::*};

/// Namespaces of a node at most.
pub const NAMESPACES_MAX: usize = 1024;

/// Shards of all namespaces together at most: each is a tree, and some need a second one while they are moved.
pub(crate) const SHARDS_IN_ALL_MAX: u32 = 24_576;

/// The places of the table come in rows of so many.
const ROW: usize = 64;

/// A row of the table.
type Places = Box<[OnceLock<Namespace>]>;

/// All namespaces, by id.
pub(crate) struct Table {
    /// The first row, which holds nearly all that are ever used.
    first: Places,
    rows: Box<[OnceLock<Places>]>,
    names: RwLock<BTreeMap<String, u16>>,
}

/// A namespace.
pub(crate) struct Namespace {
    pub(crate) id: NamespaceId,
    shards: Box<[Shard]>,
    dropped: AtomicBool,
    /// In a cluster: whether the map has its shards.
    in_use: AtomicBool,
    /// The least that a write must survive, as a number; [`NODES_OWN`] without a setting.
    durability: AtomicU8,
    keeps_losers: AtomicBool,
    described: RwLock<(String, NamespaceSettings)>,
}

/// In [`Namespace::durability`]: what the node is set to.
const NODES_OWN: u8 = u8::MAX;

impl Namespace {
    pub(crate) fn name(&self) -> String {
        self.described.read().0.clone()
    }

    pub(crate) fn settings(&self) -> NamespaceSettings {
        self.described.read().1.clone()
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Acquire)
    }

    /// Whether the cluster's map has its shards, as far as this node has looked.
    pub(crate) fn is_in_use(&self) -> bool {
        self.in_use.load(Acquire)
    }

    /// The cluster's map has its shards. Answers whether that is news.
    pub(crate) fn set_in_use(&self) -> bool {
        !self.in_use.swap(true, AcqRel)
    }

    /// Whether it has trees: it was written to.
    pub(crate) fn has_trees(&self) -> bool {
        self.shards.last().is_some_and(|shard| shard.tree.get().is_some())
    }

    /// Whether it keeps what was written at the same time.
    pub(crate) fn keeps_losers(&self) -> bool {
        self.keeps_losers.load(Relaxed)
    }

    /// Its shards, in order.
    pub(crate) fn shards(&self) -> impl Iterator<Item = (ShardId, &Shard)> {
        (0..).zip(&self.shards).map(|(place, shard)| (ShardId { namespace: self.id.id(), place }, shard))
    }

    /// What a write must survive: what the connection asked for, else what the node is set to; and what the namespace asks for at least.
    pub(crate) fn durability(&self, asked: Option<Durability>, node: Durability) -> Durability {
        let own = match self.durability.load(Relaxed) {
            0 => Some(Durability::Buffered),
            1 => Some(Durability::Written),
            2 => Some(Durability::Synced),
            _ => None,
        };
        own.max(asked).unwrap_or(node)
    }

    fn describe(&self, name: &str, settings: &NamespaceSettings) {
        let own = settings.durability.map_or(NODES_OWN, |durability| durability as u8);
        self.durability.store(own, Relaxed);
        self.keeps_losers.store(settings.conflicts == Conflicts::Keep, Relaxed);
        *self.described.write() = (name.to_owned(), settings.clone());
    }
}

impl Table {
    /// The table as the store has it; with the trees that are there. Writers go on in this epoch.
    pub(crate) fn open(store: &Store, rows: &BTreeMap<u16, Row>, epoch: u64) -> Result<Table> {
        let table = Table {
            first: places(),
            rows: (0..(1 << 16) / ROW).map(|_| OnceLock::new()).collect(),
            names: RwLock::default(),
        };
        for (id, row) in rows {
            match row {
                Row::Kept { name, settings } => {
                    let added = table.add(*id, name, settings, epoch)?;
                    for (shard, place) in added.shards() {
                        if let Some(tree) = store.find_tree(&tree_name(shard)) {
                            let _ = place.tree.set(tree);
                        }
                    }
                }
                Row::Dropped => drop_trees(store, *id)?,
            }
        }
        Ok(table)
    }

    /// The namespace of an id, also if it was dropped while this node ran.
    pub(crate) fn get(&self, id: u16) -> Option<&Namespace> {
        let (row, place) = (usize::from(id) / ROW, usize::from(id) % ROW);
        let places = if row == 0 { &self.first } else { self.rows.get(row)?.get()? };
        places.get(place)?.get()
    }

    /// A shard of a namespace that was not dropped before this node was started.
    pub(crate) fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.get(id.namespace)?.shards.get(usize::from(id.place))
    }

    /// The namespace of a name.
    pub(crate) fn named(&self, name: &[u8]) -> Option<&Namespace> {
        let id = *self.names.read().get(std::str::from_utf8(name).ok()?)?;
        self.get(id)
    }

    /// All that are there, by id.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Namespace> {
        let mut ids: Vec<u16> = self.names.read().values().copied().collect();
        ids.sort_unstable();
        ids.into_iter().filter_map(|id| self.get(id))
    }

    /// Whether one more fits.
    pub(crate) fn check_room(&self, shards: u16) -> Result<()> {
        let (count, used) = self
            .all()
            .fold((0, 0), |(count, used), namespace| (count + 1, used + u32::from(namespace.id.shards())));
        if count >= NAMESPACES_MAX {
            return Err(Error::Invalid(format!(
                "there are {NAMESPACES_MAX} namespaces, more are not possible"
            )));
        }
        if used + u32::from(shards) > SHARDS_IN_ALL_MAX {
            return Err(Error::Invalid(format!(
                "all namespaces have {used} shards, {shards} more would be over the limit of {SHARDS_IN_ALL_MAX}"
            )));
        }
        Ok(())
    }

    /// Adds a namespace, or changes what was told of it.
    pub(crate) fn add(
        &self,
        id: u16,
        name: &str,
        settings: &NamespaceSettings,
        epoch: u64,
    ) -> Result<&Namespace> {
        let wrong = |what: &str| Err(Error::Storage(format!("namespace {id} ({name}): {what}")));
        let (row, place) = (usize::from(id) / ROW, usize::from(id) % ROW);
        let row = match row {
            0 => Some(&self.first),
            _ => self.rows.get(row).map(|row| row.get_or_init(places)),
        };
        let Some(place) = row.and_then(|row| row.get(place)) else {
            return wrong("its id has no place");
        };
        let mut names = self.names.write();
        if names.get(name).is_some_and(|other| *other != id) {
            return wrong("another one has the name");
        }
        let namespace = place.get_or_init(|| Namespace {
            id: NamespaceId::new(id, settings.mode, settings.shards),
            shards: (0..settings.shards).map(|_| Shard::new(epoch)).collect(),
            dropped: AtomicBool::new(false),
            in_use: AtomicBool::new(false),
            durability: AtomicU8::new(NODES_OWN),
            keeps_losers: AtomicBool::new(false),
            described: RwLock::new((name.to_owned(), settings.clone())),
        });
        if namespace.is_dropped()
            || namespace.id.mode() != settings.mode
            || namespace.id.shards() != settings.shards
        {
            return wrong("it was another one before");
        }
        namespace.describe(name, settings);
        names.retain(|_, other| *other != id);
        names.insert(name.to_owned(), id);
        Ok(namespace)
    }

    /// Takes the namespace out: its name is free, who comes with its id is refused.
    pub(crate) fn remove(&self, id: u16) {
        if let Some(namespace) = self.get(id) {
            namespace.dropped.store(true, Release);
        }
        self.names.write().retain(|_, other| *other != id);
    }
}

fn places() -> Places {
    (0..ROW).map(|_| OnceLock::new()).collect()
}

/// Drops the trees of a namespace, all at once.
pub(crate) fn drop_trees(store: &Store, id: u16) -> Result<()> {
    debug_assert!(id >= BUILT_IN);
    let prefix = format!("n{id}/");
    let names = store.tree_names();
    let names: Vec<&str> =
        names.iter().map(|name| &**name).filter(|name| name.starts_with(&prefix)).collect();
    store.drop_trees(&names)?;
    Ok(())
}

/// Whether a namespace can be called so.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let fits = (1..=64).contains(&name.len())
        && name.bytes().all(plain)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
        && !name.bytes().all(|byte| byte.is_ascii_digit());
    if fits {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "{name:?} can't be a namespace's name: 1 to 64 letters, digits, `.`, `-`, `_`, beginning with a letter, digit or `_`, and not a number"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["a", "users", "_x", "2024-logs", "a.b-c_d", &"x".repeat(64)] {
            check_name(name).unwrap();
        }
        for name in ["", "16", "0", "-a", ".a", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
