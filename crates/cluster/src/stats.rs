//! Figures about a node.

use crate::namespace::NamespaceId;
use std::time::Duration;

/// Figures about a node, for `INFO` and `/metrics`.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NodeStats {
    /// Time since it was opened.
    pub uptime: Duration,
    /// The store's id, as 32 hexadecimal digits: random, made with the store.
    pub store_id: String,
    /// The store's epoch: rises by one at every start.
    pub epoch: u64,
    /// Namespaces that hold something.
    pub namespaces: Vec<NamespaceStats>,
    /// Bytes of the store's files.
    pub disk_bytes: u64,
    /// Bytes of memory that the store's buffers and caches take.
    pub memory_bytes: u64,
    /// Figures of the storage engine by name, for `/metrics`.
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
    /// About how many keys it has; `DBSIZE` counts.
    pub keys_estimate: u64,
}
