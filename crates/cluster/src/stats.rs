//! Figures about a node.

use crate::backup::SaveStats;
use crate::namespace::{self, NamespaceId};
use crate::node::Node;
use std::time::Duration;

/// Figures about a node, for `INFO` and `/metrics`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeStats {
    /// Time since it was opened.
    pub uptime: Duration,
    /// The store's id, as 32 hexadecimal digits: random, made with the store.
    pub store_id: String,
    /// The store's epoch: rises by one at every start.
    pub epoch: u64,
    /// Namespaces that were ever written to.
    pub namespaces: Vec<NamespaceStats>,
    /// Why the store takes no writes until the node is started again, if so.
    pub poisoned: Option<String>,
    /// Checkpoints and backups.
    pub saves: SaveStats,
    /// Figures of the storage engine, by name, for `/metrics`.
    pub engine: Vec<(&'static str, u64)>,
}

/// Figures about a namespace.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NamespaceStats {
    /// The namespace.
    pub namespace: NamespaceId,
    /// Its name.
    pub name: String,
    /// About how many keys it has, entries of older versions and tombstones counted in; `DBSIZE` counts exactly.
    pub keys_estimate: u64,
}

pub(crate) fn collect(node: &Node) -> NodeStats {
    let inner = &*node.inner;
    let used = namespace::all().filter(|namespace| inner.has_trees(*namespace));
    let namespaces = used.map(|namespace| NamespaceStats {
        namespace,
        name: namespace::name(namespace, &inner.settings.entity_namespace),
        keys_estimate: inner.trees(namespace).map(|(_, tree)| tree.stats().entries).sum(),
    });
    NodeStats {
        uptime: inner.clock.monotonic().saturating_sub(inner.opened_at),
        store_id: inner.store_id.iter().map(|byte| format!("{byte:02x}")).collect(),
        epoch: inner.epoch,
        namespaces: namespaces.collect(),
        poisoned: inner.store.stats().poisoned,
        saves: inner.saves.stats(inner.store.visible()),
        engine: engine(node),
    }
}

fn engine(node: &Node) -> Vec<(&'static str, u64)> {
    let stats = node.inner.store.stats();
    let age = stats.oldest_snapshot_age.map_or(0, |age| age.as_secs());
    vec![
        ("trees", stats.trees),
        ("visible_sequence", stats.visible),
        ("synced_sequence", stats.synced),
        ("memtable_bytes", stats.memtable_bytes),
        ("tables", stats.tables),
        ("table_bytes", stats.table_bytes),
        ("entries", stats.entries),
        ("wal_segments", stats.wal_segments),
        ("wal_bytes", stats.wal_bytes),
        ("refused_writes", stats.refused_writes),
        ("snapshots", stats.snapshots),
        ("oldest_snapshot_seconds", age),
    ]
}
