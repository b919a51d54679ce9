//! Kvorum's storage engine: an embedded, multi-version LSM store.
//!
//! A [`Store`] is a folder that holds many [`Tree`]s behind one write-ahead log, one cache and one memory budget. A tree maps
//! `(key, version)` to a value or a tombstone. **The caller gives the version**: an operation id, a timestamp, a counter. The highest version of
//! a key wins, in whatever order writes arrive; reads can go back to an earlier version, and leave single versions out.
//!
//! ```
//! use kvorum_engine::{Attributes, Batch, Durability, Parts, Settings, Store, TreeSettings, View};
//!
//! # fn main() -> kvorum_engine::Result<()> {
//! # let dir = tempfile::tempdir().expect("a folder");
//! let store = Store::open(dir.path().join("store"), Settings::default(), Parts::real())?;
//! let users = store.tree("users", TreeSettings::default())?;
//!
//! let mut batch = Batch::new();
//! batch.put(&users, b"ada", 1, b"Lovelace", Attributes::default());
//! batch.put(&users, b"ada", 2, b"King", Attributes::default());
//! store.write(&batch, Durability::Synced)?.wait()?;
//!
//! let newest = users.get(b"ada", &View::newest())?.expect("it was written");
//! assert_eq!((newest.version, &newest.value[..]), (2, &b"King"[..]));
//! let earlier = users.get(b"ada", &View::at(1))?.expect("it was written");
//! assert_eq!(&earlier.value[..], b"Lovelace");
//! # Ok(())
//! # }
//! ```
//!
//! # Writing
//!
//! A [`Batch`] holds operations on any trees; it happens as a whole or not at all. [`Store::write`] never waits: readers see the batch when it
//! returns, and the [`Commit`] that it answers resolves when the batch is as safe as its [`Durability`] asks for:
//!
//! | class | resolved means |
//! | --- | --- |
//! | [`Durability::Buffered`] | it is in memory; a killed process loses it |
//! | [`Durability::Written`] | the system has it; it survives a killed process, and power loss from about a second later on |
//! | [`Durability::Synced`] | the device has it, and everything written before it |
//!
//! Commits are waited for with [`Commit::wait`] or awaited. Many that wait at once share one write and one sync, done by one of them.
//!
//! ```
//! # use kvorum_engine::{Attributes, Batch, Durability, Parts, Settings, Store, TreeSettings, View};
//! # fn main() -> kvorum_engine::Result<()> {
//! # let dir = tempfile::tempdir().expect("a folder");
//! # let store = Store::open(dir.path().join("store"), Settings::default(), Parts::real())?;
//! let (from, to) = (store.tree("from", TreeSettings::default())?, store.tree("to", TreeSettings::default())?);
//! let mut batch = Batch::new();
//! batch.delete(&from, b"k", 7, Attributes::default());
//! batch.put(&to, b"k", 7, b"moved", Attributes::default());
//! // Waits while the write buffers are full, where `write` would answer `Busy`.
//! let commit = store.write_waiting(&batch, Durability::Written)?;
//! commit.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! A write can be **late** (its version is below others of its key), can be **retracted** ([`Batch::retract`]: exactly that key and version is as
//! if it had never been written), and a whole tree is **cleared** up to a version in constant time ([`Batch::clear`]). [`Batch::note`] leaves
//! opaque bytes under a version beside the keys, such as a replication log's entry, in the same record and the same sync.
//!
//! # Reading
//!
//! A [`View`] says what is seen: the highest version, versions that are hidden, a [`Snapshot`]. [`Tree::get`] and [`Tree::range`] read what it
//! sees, [`Tree::version_of`] leaves the value unread, [`Tree::get_cached`] answers only if that needs no wait for the disk.
//!
//! ```
//! # use kvorum_engine::{Attributes, Batch, Direction, Durability, Parts, Settings, Store, TreeSettings, View};
//! # fn main() -> kvorum_engine::Result<()> {
//! # let dir = tempfile::tempdir().expect("a folder");
//! # let store = Store::open(dir.path().join("store"), Settings::default(), Parts::real())?;
//! # let tree = store.tree("t", TreeSettings::default())?;
//! let mut batch = Batch::new();
//! for (version, key) in (1..).zip(["plum", "pear", "apple"]) {
//!     batch.put(&tree, key.as_bytes(), version, b"fruit", Attributes::default());
//! }
//! store.write(&batch, Durability::Buffered)?.wait()?;
//! let snapshot = store.snapshot();
//! let mut batch = Batch::new();
//! batch.clear(&tree, 10);
//! store.write(&batch, Durability::Buffered)?.wait()?;
//!
//! assert_eq!(tree.range(.., &View::newest(), Direction::Forward)?.count(), 0);
//! let then = View::newest().of(&snapshot);
//! let keys: Result<Vec<_>, _> = tree.prefix(b"p", &then, Direction::Backward)?.map(|pair| Ok(pair?.0)).collect();
//! assert_eq!(keys.map_err(|e: kvorum_engine::Error| e)?, ["plum", "pear"]);
//! # Ok(())
//! # }
//! ```
//!
//! # History, and what may be forgotten
//!
//! Nothing is forgotten before the caller says so, by floors that only rise: [`Tree::set_floor`] (history below is gone),
//! [`Tree::set_tombstone_floor`] (deletions up to here are known everywhere), [`Tree::set_expiry_floor`] (what expired by then is deleted),
//! [`Tree::retain_notes_from`]. The store never asks a clock whether something has expired. A tree with
//! [`newest_only`](TreeSettings::newest_only) keeps no history at all.
//!
//! # Elsewhere
//!
//! [`Tree::delta`] streams what changed between two versions. [`Tree::export`] and [`Tree::ingest`] ship a tree as files,
//! [`Store::checkpoint`] makes a second store of links. [`Store::verify`] reads everything and compares it with its checksums.
//!
//! # When something fails
//!
//! [`Error`] has few kinds, by what the caller can do. After a failed write or sync of the log or the manifest it is unknown what the device
//! holds: the store is *poisoned*, shows what was acknowledged, and takes no writes until it is opened again. A full device refuses writes
//! before they count and recovers by itself. A damaged byte is an error with file and offset, never a wrong answer.
//!
//! # Files
//!
//! ```text
//! LOCK · FORMAT                    one process at a time; what this program does not know it does not touch
//! CURRENT → MANIFEST-NNNNNN        which files the store consists of: a log of edits
//! wal/NNNNNNNNNNNN.wal             batches, until they stand in tables; may be on a device of its own (docs/formats/log.md)
//! tables/NNNNNNNNNNNN.sst          sorted entries (docs/formats/table.md)
//! blobs/NNNNNNNNNNNN.blob          large values, apart from their keys (docs/formats/blob.md)
//! ```

mod background;
mod batch;
mod blob;
mod cache;
mod check;
mod checksum;
mod codec;
mod compaction;
mod error;
#[cfg(test)]
mod fixtures;
mod flush;
pub mod fs;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod iter;
mod memtable;
mod options;
mod output;
mod pace;
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
mod version;
mod view;
mod wal;

pub use batch::{Attributes, Batch};
pub use check::{CheckProgress, Checked, Salvaged, check, check_showing, rebuild, salvage};
pub use compaction::CompactionStats;
pub use error::{Error, Result};
pub use iter::Range;
pub use options::{Clock, Parts, Settings, SystemClock, TreeSettings, WalRetention};
#[cfg(feature = "planted-bugs")]
pub use planted::{Planted, plant};
pub use snapshot::Snapshot;
pub use stats::{LevelStats, StoreStats};
pub use store::{Checkpoint, Room, Store, Verified};
pub use tree::{Delta, DeltaEntry, Exported, Tree, TreeId, TreeStats};
pub use types::{Durability, KEY_BYTES_MAX, Kind, Sequence, Version};
pub use view::{Cached, Direction, Found, FoundKind, FoundVersion, View};
pub use wal::Commit;
