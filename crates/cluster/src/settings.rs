//! What a node can be told: plain data.

pub use kvorum_engine::Durability;
use std::path::PathBuf;

/// Settings of a node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeSettings {
    /// The store's folder; made if missing.
    pub data_dir: PathBuf,
    /// Where the write-ahead log lies, if not in the store's folder.
    pub wal_dir: Option<PathBuf>,
    /// Memory for write buffers, caches and filters, in bytes.
    pub memory_bytes: u64,
    /// Largest value, in bytes; `None` for the engine's default (an eighth of `memory_bytes`, at most 512 MiB).
    pub max_value_bytes: Option<u64>,
    /// What a write survives once it is acknowledged. Can be changed at run time: [`Node::set_durability`](crate::Node::set_durability).
    pub durability: Durability,
    /// The name of the available namespace behind `/v0/entity`.
    pub entity_namespace: String,
    /// Keep all of the write-ahead log, so that an empty data folder can be rebuilt from it.
    pub keep_whole_wal: bool,
}

impl NodeSettings {
    /// The defaults, for a store in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> NodeSettings {
        NodeSettings {
            data_dir: data_dir.into(),
            wal_dir: None,
            memory_bytes: 256 << 20,
            max_value_bytes: None,
            durability: Durability::Synced,
            entity_namespace: "entity".to_owned(),
            keep_whole_wal: false,
        }
    }
}
