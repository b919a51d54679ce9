//! What stays in memory of files: blocks, open handles, and the count of what is pinned (indexes and filters), under one budget.
//!
//! The block cache is sharded and resists scans: a block read once leaves before blocks that were read again (S3-FIFO, Yang et al.:
//! *FIFO queues are all you need for cache eviction*, 2023; by `quick_cache`).

mod records;

pub(crate) use records::{Records, Stamp};

use crate::error::{Error, Result};
use crate::fs::{File, Fs};
use crate::sst::Block;
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache as QuickCache;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes that a cached block costs beyond its own: key, reference counts, the cache's tables.
const BLOCK_OVERHEAD_BYTES: u64 = 120;
/// What blocks keep of the budget however much is pinned, so that reads don't fall off a cliff: one part in this many.
const BLOCKS_PART_MIN: u64 = 8;
/// The size of a block that the cache's tables are laid out for, in bytes.
const BLOCK_BYTES_TYPICAL: u64 = 4096;
/// Pinned bytes that may change before the blocks' share is set anew: that takes all shards' locks.
const PINNED_STEP_BYTES: u64 = 64 << 10;

/// What an allocation of so many bytes takes: allocators have few sizes, four in each doubling, and round up. Blocks end a little
/// behind their nominal size, so that a fifth would go uncounted.
fn allocated_bytes(bytes: usize) -> u64 {
    let step = (bytes.max(16).next_power_of_two() / 8) as u64;
    (bytes as u64).next_multiple_of(step.max(8))
}

/// Limits of a [`Cache`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheSettings {
    /// Blocks and pinned memory together, in bytes.
    pub(crate) bytes_max: u64,
    /// Files that may be open at once for reading.
    pub(crate) open_files_max: usize,
}

#[derive(Clone)]
struct ByBytes;

/// What is cached of a place in a file.
#[derive(Clone)]
enum Cached {
    Block(Block),
    Value(Bytes),
}

impl Weighter<(u64, u64), Cached> for ByBytes {
    fn weight(&self, _: &(u64, u64), cached: &Cached) -> u64 {
        let bytes = match cached {
            Cached::Block(block) => block.len(),
            Cached::Value(value) => value.len(),
        };
        allocated_bytes(bytes) + BLOCK_OVERHEAD_BYTES
    }
}

/// A file as the caches know it. Ids of tables and blob files may repeat between stores; this does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileKey(u64);

/// The caches of a store, shared by all its trees and threads.
pub(crate) struct Cache {
    settings: CacheSettings,
    blocks: QuickCache<(u64, u64), Cached, ByBytes>,
    handles: QuickCache<u64, Arc<dyn File>>,
    next_file: AtomicU64,
    pinned_bytes: AtomicU64,
    /// What was pinned when the blocks' share was last set.
    settled_bytes: AtomicU64,
    misses: AtomicU64,
}

/// What the caches hold and how they did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheStats {
    /// Bytes of cached blocks, overhead included.
    pub(crate) block_bytes: u64,
    /// Bytes of indexes and filters.
    pub(crate) pinned_bytes: u64,
    /// Files open for reading.
    pub(crate) open_files: u64,
    /// Blocks that lookups did not find here.
    pub(crate) misses: u64,
}

impl Cache {
    pub(crate) fn new(settings: CacheSettings) -> Cache {
        let items = (settings.bytes_max / BLOCK_BYTES_TYPICAL).max(64) as usize;
        Cache {
            settings,
            blocks: QuickCache::with_weighter(items, settings.bytes_max, ByBytes),
            handles: QuickCache::new(settings.open_files_max.max(1)),
            next_file: AtomicU64::new(1),
            pinned_bytes: AtomicU64::new(0),
            settled_bytes: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// A key for a file that is to be read through the caches.
    pub(crate) fn register(&self) -> FileKey {
        FileKey(self.next_file.fetch_add(1, Relaxed))
    }

    /// Forgets the handle of a file. Its blocks leave by themselves: nobody asks for them again.
    pub(crate) fn forget(&self, file: FileKey) {
        self.handles.remove(&file.0);
    }

    #[inline]
    pub(crate) fn block(&self, file: FileKey, offset: u64) -> Option<Block> {
        match self.blocks.get(&(file.0, offset)) {
            Some(Cached::Block(block)) => Some(block),
            _ => {
                self.misses.fetch_add(1, Relaxed);
                None
            }
        }
    }

    /// A value of a blob file, if it is here.
    pub(crate) fn value(&self, file: FileKey, offset: u64) -> Option<Bytes> {
        match self.blocks.get(&(file.0, offset)) {
            Some(Cached::Value(value)) => Some(value),
            _ => {
                self.misses.fetch_add(1, Relaxed);
                None
            }
        }
    }

    pub(crate) fn keep_value(&self, file: FileKey, offset: u64, value: Bytes) {
        self.blocks.insert((file.0, offset), Cached::Value(value));
    }

    pub(crate) fn keep_block(&self, file: FileKey, offset: u64, block: Block) {
        self.blocks.insert((file.0, offset), Cached::Block(block));
    }

    /// The open file; opens it if it is not.
    pub(crate) fn handle(&self, file: FileKey, fs: &dyn Fs, path: &Path) -> Result<Arc<dyn File>> {
        self.handles
            .get_or_insert_with(&file.0, || fs.open(path, false))
            .map_err(|e| Error::io("open", path, e))
    }

    /// The file if it is open.
    pub(crate) fn handle_if_open(&self, file: FileKey) -> Option<Arc<dyn File>> {
        self.handles.get(&file.0)
    }

    /// Counts memory that stays as long as the answer lives; blocks make room for it.
    pub(crate) fn pin(self: &Arc<Self>, bytes: u64) -> Pinned {
        self.pinned_bytes.fetch_add(bytes, Relaxed);
        self.settle();
        Pinned { cache: Arc::clone(self), bytes }
    }

    fn settle(&self) {
        let pinned = self.pinned_bytes.load(Relaxed);
        let settled = self.settled_bytes.load(Relaxed);
        let moved = pinned.abs_diff(settled) >= PINNED_STEP_BYTES;
        if moved && self.settled_bytes.compare_exchange(settled, pinned, Relaxed, Relaxed).is_ok() {
            let least = self.settings.bytes_max / BLOCKS_PART_MIN;
            self.blocks.set_capacity(self.settings.bytes_max.saturating_sub(pinned).max(least));
        }
    }

    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats {
            block_bytes: self.blocks.weight(),
            pinned_bytes: self.pinned_bytes.load(Relaxed),
            open_files: self.handles.len() as u64,
            misses: self.misses.load(Relaxed),
        }
    }
}

/// Pinned memory, counted until this is dropped.
pub(crate) struct Pinned {
    cache: Arc<Cache>,
    bytes: u64,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.cache.pinned_bytes.fetch_sub(self.bytes, Relaxed);
        self.cache.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_what_an_allocator_takes() {
        let counted = [1, 16, 100, 400, 4096, 4097, 5120, 5121, 6145, 7169, 8193].map(allocated_bytes);
        assert_eq!(counted, [8, 16, 112, 448, 4096, 5120, 5120, 6144, 7168, 8192, 10240]);
    }
}
