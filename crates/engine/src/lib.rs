//! Kvorum's storage engine: an embedded, multi-version LSM store.

mod batch;
#[allow(dead_code, reason = "flush and compaction are landing on top of it")]
mod cache;
mod checksum;
#[allow(dead_code, reason = "flush and compaction are landing on top of it")]
mod codec;
mod commit;
#[allow(dead_code, unused_imports, reason = "the background that runs it is landing on top of it")]
mod compaction;
mod error;
pub mod fs;
mod iter;
mod memtable;
mod options;
mod record;
mod snapshot;
#[allow(dead_code, unused_imports, unreachable_pub, reason = "flush and compaction are landing on top of it")]
mod sst;
mod store;
mod tree;
mod types;
mod view;
#[allow(dead_code, unused_imports, unreachable_pub, reason = "the store that uses the log lands next")]
mod wal;

pub use batch::{Attributes, Batch};
pub use commit::Commit;
pub use error::{Error, Result};
pub use iter::Range;
pub use options::{Clock, Parts, Settings, SystemClock, TreeSettings, WalRetention};
pub use snapshot::Snapshot;
pub use store::Store;
pub use tree::{Tree, TreeId, TreeStats};
pub use types::{Durability, InternalEntry, KEY_BYTES_MAX, Kind, Sequence, Version};
pub use view::{Cached, Direction, Found, FoundKind, FoundVersion, View};
