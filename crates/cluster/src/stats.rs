//! Figures about a node.

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
        engine: engine(node),
    }
}

fn engine(node: &Node) -> Vec<(&'static str, u64)> {
    let store = &node.inner.store;
    vec![("visible_sequence", store.visible()), ("synced_sequence", store.synced())]
}
