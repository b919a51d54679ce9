//! Settings (plain data), apart from the parts that a store is made of (file system, clock).

use crate::fs::{Fs, StdFs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The log's two buffers take one part in so many of [`Settings::memory_bytes`].
const LOG_PART: u64 = 16;
/// What is not counted byte by byte: the program's code, threads and connections, what flushes and compactions have in hand, what was freed and the
/// allocator has not given back. It hardly grows with the setting: 55 to 85 MiB were measured at settings from 32 to 256 MiB.
const PROCESS_BYTES: u64 = 80 << 20;
/// It gets no more than so many eighths of a small setting, which is then exceeded: a store without a cache would serve nobody.
const PROCESS_EIGHTHS_MAX: u64 = 3;

/// How a store behaves. Plain data with documented defaults; sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Memory of the process that the store lives in, in bytes. Default 256 MiB. Of it go: a quarter to the write buffers
    /// ([`Settings::write_buffer_bytes`]); a sixteenth to the log's two buffers; 80 MiB, at most three eighths, to the program itself, its
    /// threads and connections, flushes and compactions, and what the allocator holds back; the rest to the caches, 96 MiB by default:
    /// three quarters of it to blocks, indexes and filters, a quarter to whole answers. Below about 128 MiB it is exceeded: the program takes
    /// some 50 MiB with few connections.
    pub memory_bytes: u64,
    /// The part of [`Settings::memory_bytes`] that memtables may take, sealed ones included. `None`: a quarter. A batch must fit in half of it.
    pub write_buffer_bytes: Option<u64>,
    /// A tree's memtable is sealed and flushed when it reaches this size, even when the budget has room. `None`: half of the write buffers.
    pub memtable_bytes: Option<u64>,
    /// Longest value. `None`: an eighth of [`Settings::memory_bytes`], at most 512 MiB.
    pub max_value_bytes: Option<u64>,
    /// Folder of the write-ahead log, for a log on a device of its own. `None`: `wal` in the store's folder.
    pub wal_dir: Option<PathBuf>,
    /// Whether log segments are freed once their content stands in tables.
    pub wal_retention: WalRetention,
    /// Size of one log segment. Default 64 MiB.
    pub wal_segment_bytes: u64,
    /// From half of this on, the trees that hold back the oldest segment are flushed. Default 512 MiB.
    pub wal_bytes_max: u64,
    /// Writes refuse with [`Error::DiskFull`](crate::Error::DiskFull) when less than this is free on the device. Default 64 MiB: room for a flush to finish.
    pub disk_reserve_bytes: u64,
    /// Values of at least this size stand in blob files, apart from their keys. Default 4 KiB; 0 separates every value.
    pub blob_threshold_bytes: u64,
    /// Raw size of a table's data block. Default 4 KiB.
    pub block_bytes: u32,
    /// Bloom filter bits for a key of a table. Default 10.
    pub filter_bits_per_key: u32,
    /// Whether blocks and blobs are compressed (LZ4). Default on.
    pub compression: bool,
    /// What flushes and compactions may read and write in a second, in bytes; 0, the default: as much as the device gives. Flushes count and never wait;
    /// compactions wait, until so much has piled up that writes would soon be slowed.
    pub background_bytes_per_second: u64,
    /// Whether the store runs its own background threads. Without them nothing is flushed or compacted but by
    /// [`Store::run_background`](crate::Store::run_background): for simulations, which decide themselves who runs when. Default on.
    pub background_threads: bool,
}

/// What becomes of log segments whose content stands in tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalRetention {
    /// They are freed.
    Freed,
    /// Nothing is ever freed: an empty data folder is rebuilt from the log.
    All,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            memory_bytes: 256 << 20,
            write_buffer_bytes: None,
            memtable_bytes: None,
            max_value_bytes: None,
            wal_dir: None,
            wal_retention: WalRetention::Freed,
            wal_segment_bytes: 64 << 20,
            wal_bytes_max: 512 << 20,
            disk_reserve_bytes: 64 << 20,
            blob_threshold_bytes: 4 << 10,
            block_bytes: 4 << 10,
            filter_bits_per_key: 10,
            compression: true,
            background_bytes_per_second: 0,
            background_threads: true,
        }
    }
}

impl Settings {
    /// The log's folder, of a store in `path`.
    pub(crate) fn log_dir(&self, path: &Path) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| path.join("wal"))
    }

    /// What memtables may take, sealed ones included.
    pub(crate) fn write_budget_bytes(&self) -> u64 {
        self.write_buffer_bytes.unwrap_or(self.memory_bytes / 4).max(1 << 12)
    }

    /// When a single memtable is sealed.
    pub(crate) fn memtable_limit_bytes(&self) -> u64 {
        let half = self.write_budget_bytes() / 2;
        self.memtable_bytes.unwrap_or(half).min(half).max(1 << 12)
    }

    /// What all caches may take: what the others leave (see [`Settings::memory_bytes`]).
    fn caches_bytes(&self) -> u64 {
        let others = self.write_budget_bytes()
            + self.memory_bytes / LOG_PART
            + PROCESS_BYTES.min(self.memory_bytes / 8 * PROCESS_EIGHTHS_MAX);
        self.memory_bytes.saturating_sub(others).max(1 << 16)
    }

    /// What blocks, indexes and filters may take.
    pub(crate) fn cache_bytes(&self) -> u64 {
        self.caches_bytes() - self.record_cache_bytes()
    }

    /// What whole answers may take.
    pub(crate) fn record_cache_bytes(&self) -> u64 {
        self.caches_bytes() / 4
    }

    /// Longest record of one batch.
    pub(crate) fn batch_limit_bytes(&self) -> u64 {
        (self.write_budget_bytes() / 2).min(u64::from(u32::MAX))
    }

    /// Longest value.
    pub(crate) fn value_limit_bytes(&self) -> u64 {
        self.max_value_bytes.unwrap_or((self.memory_bytes / 8).min(512 << 20))
    }
}

/// How one tree behaves; fixed when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TreeSettings {
    /// Keeps no history: a shadowed entry goes once no snapshot sees it, whatever its version. Such a tree has no `floor`.
    pub newest_only: bool,
}

impl TreeSettings {
    /// A tree that keeps the history above its floor (the default).
    pub fn with_history() -> TreeSettings {
        TreeSettings { newest_only: false }
    }

    /// A tree of which only the newest entry of each key counts.
    pub fn newest_only() -> TreeSettings {
        TreeSettings { newest_only: true }
    }
}

/// Time as the store sees it. Comes in from outside, so that a simulation replays.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment; never runs backwards.
    fn monotonic(&self) -> Duration;
    /// Milliseconds since 1970, for the "created at" of files.
    fn unix_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    origin: std::time::Instant,
}

impl SystemClock {
    /// A clock that counts from now.
    #[expect(clippy::disallowed_methods, reason = "this is the injected clock")]
    pub fn new() -> SystemClock {
        SystemClock { origin: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the injected clock")]
    fn unix_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }
}

/// What a store is made of: replaced in simulations.
#[derive(Clone)]
#[non_exhaustive]
pub struct Parts {
    /// The file system.
    pub fs: Arc<dyn Fs>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Parts {
    /// The machine's file system and clock.
    pub fn real() -> Parts {
        Parts::new(Arc::new(StdFs), Arc::new(SystemClock::new()))
    }

    /// A store of the given parts.
    pub fn new(fs: Arc<dyn Fs>, clock: Arc<dyn Clock>) -> Parts {
        Parts { fs, clock }
    }
}
