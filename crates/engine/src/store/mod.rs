//! A store: many trees behind one log, one cache and one memory budget.

mod checkpoint;
mod shared;
mod trees;
mod verify;
mod write;

pub use checkpoint::Checkpoint;
pub(crate) use shared::{Recovered, Shared};
pub(crate) use trees::Trees;
pub use verify::Verified;
pub use write::Room;
pub(crate) use write::replay;

use crate::background::{self, Workers};
use crate::error::Result;
use crate::options::{Parts, Settings};
use crate::recovery;
use crate::snapshot::Snapshot;
use crate::types::{Durability, Sequence};
use crate::version::Change;
use crate::wal::Commit;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

/// An open store. Cheap to clone; closed by [`Store::close`], or when the last clone is dropped.
///
/// The folder stays locked until the trees' handles are gone too.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    closer: Arc<Closer>,
}

/// Closes the store with its last handle.
struct Closer {
    shared: Arc<Shared>,
    workers: Mutex<Option<Workers>>,
}

impl Store {
    /// Opens the store in a folder, or creates it.
    ///
    /// # Errors
    /// `Locked` if another process has it, `UnknownFormat`, `Damaged` and `Io` of what lies there.
    pub fn open(path: impl AsRef<Path>, settings: Settings, parts: Parts) -> Result<Store> {
        let shared = Arc::new(Shared::new(recovery::open(path.as_ref(), settings, parts)?));
        let workers = shared.settings.background_threads.then(|| Workers::start(&shared)).transpose()?;
        let closer = Closer { shared: Arc::clone(&shared), workers: Mutex::new(workers) };
        Ok(Store { shared, closer: Arc::new(closer) })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// The settings that it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// The last sequence that readers see.
    pub fn visible(&self) -> Sequence {
        self.shared.visible()
    }

    /// The last sequence that is as safe as this class asks for, with all before it.
    pub fn acknowledged(&self, durability: Durability) -> Sequence {
        match durability {
            Durability::Buffered => self.shared.visible(),
            Durability::Written => self.shared.log.written(),
            Durability::Synced => self.shared.log.synced(),
        }
    }

    /// The last sequence that survives power loss, with all before it.
    pub fn synced(&self) -> Sequence {
        self.shared.log.synced()
    }

    /// A commit of everything up to a sequence: what a reply waits for that rests on what was read.
    pub fn commit_at(&self, sequence: Sequence, durability: Durability) -> Commit {
        self.shared.log.commit(sequence, durability)
    }

    /// Writes and syncs a group of commits that waits, on this thread. Answers whether there was one.
    pub fn lead(&self) -> bool {
        self.shared.log.lead()
    }

    /// A moment of the whole store to read from.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshots.take(|| self.shared.visible(), self.shared.parts.clock.monotonic())
    }

    /// Brings everything that was written so far from memory into tables, and the floors to disk.
    ///
    /// # Errors
    /// `Io` and `DiskFull` of the files written, `Poisoned`, `Closed`.
    pub fn flush(&self) -> Result<()> {
        self.shared.check_open()?;
        self.shared.flush_all()?;
        self.shared.persist_floors()
    }

    /// Compacts until every tree is in order: no level too large, and little that can be dropped. Flush first to have everything in it.
    ///
    /// # Errors
    /// `Io`, `DiskFull` and `Damaged` of the files, `Poisoned`, `Closed`.
    pub fn compact(&self) -> Result<()> {
        self.shared.check_open()?;
        while self.shared.settle_some()? {
            self.shared.check_open()?;
        }
        self.shared.note_debt();
        self.shared.files.graveyard.sweep(&*self.shared.parts.fs);
        Ok(())
    }

    /// One turn of background work, for stores without threads of their own: syncs the log and, if there is a reason to, flushes or compacts
    /// once, unless [`Settings::background_bytes_per_second`] says that it is too early. Answers whether there may be more to do.
    ///
    /// # Errors
    /// `Io` and `DiskFull` of the files written, `Poisoned`, `Closed`.
    pub fn run_background(&self) -> Result<bool> {
        self.shared.check_open()?;
        self.shared.log.maintain();
        if background::turn(&self.shared)? {
            return Ok(true);
        }
        let more = self.shared.compact_some()?;
        self.shared.note_debt();
        Ok(more)
    }

    /// Closes the store: writes refuse from here on, everything written becomes durable, and the folder says that it was closed in order.
    ///
    /// # Errors
    /// `Poisoned`, `Io` of the log's last write.
    pub fn close(&self) -> Result<()> {
        self.closer.close()
    }
}

impl Closer {
    fn close(&self) -> Result<()> {
        let shared = &self.shared;
        {
            let _writer = shared.writer.lock();
            if shared.closed.swap(true, AcqRel) {
                return Ok(());
            }
        }
        shared.signals.stop();
        if let Some(workers) = self.workers.lock().take() {
            workers.join();
        }
        let closed = shared.log.close().and_then(|()| shared.edit(vec![Change::Closed], || ()));
        let closed = closed.and_then(|()| shared.check_unpoisoned());
        shared.files.graveyard.sweep(&*shared.parts.fs);
        *shared.lock.lock() = None;
        closed
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        if !self.shared.closed.load(Acquire)
            && let Err(error) = self.close()
        {
            tracing::warn!(path = %self.shared.path.display(), %error, "the store was not closed in order; it recovers when it is opened");
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.shared.path)
            .field("visible", &self.visible())
            .finish_non_exhaustive()
    }
}
