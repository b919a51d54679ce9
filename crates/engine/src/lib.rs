//! Kvorum's storage engine: an embedded, multi-version LSM store.

mod background;
mod batch;
mod blob;
mod cache;
mod check;
mod checksum;
mod codec;
mod compaction;
mod error;
mod flush;
pub mod fs;
mod iter;
mod memtable;
mod options;
mod output;
mod planted;
mod record;
mod recovery;
mod snapshot;
mod sst;
mod stall;
mod stats;
mod store;
mod tree;
mod types;
#[allow(dead_code, unused_imports, reason = "compaction and blobs are landing on top of it")]
mod version;
mod view;
#[allow(dead_code, unused_imports, reason = "statistics and checks are landing on top of it")]
mod wal;

pub use batch::{Attributes, Batch};
pub use check::{Checked, Salvaged, check, salvage};
pub use compaction::CompactionStats;
pub use error::{Error, Result};
pub use iter::Range;
pub use options::{Clock, Parts, Settings, SystemClock, TreeSettings, WalRetention};
#[cfg(feature = "planted-bugs")]
pub use planted::{Planted, plant};
pub use snapshot::Snapshot;
pub use stats::{LevelStats, StoreStats};
pub use store::{Checkpoint, Store, Verified};
pub use tree::{Delta, DeltaEntry, Exported, Tree, TreeId, TreeStats};
pub use types::{Durability, InternalEntry, KEY_BYTES_MAX, Kind, Sequence, Version};
pub use view::{Cached, Direction, Found, FoundKind, FoundVersion, View};
pub use wal::Commit;
