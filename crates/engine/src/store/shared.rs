//! What all handles, trees and workers of a store share.

use super::trees::Trees;
use super::write::Writer;
use crate::background::Signals;
use crate::cache::Records;
use crate::compaction::Compactions;
use crate::error::{Error, Result};
use crate::options::{Parts, Settings, WalRetention};
use crate::pace::Pace;
use crate::planted::{Planted, is_planted};
use crate::snapshot::Snapshots;
use crate::sst::{Compression, TableOptions};
use crate::stall::Stall;
use crate::stats::Counters;
use crate::tree::TreeState;
use crate::types::Sequence;
use crate::version::{Change, Files, FloorKind, StoreState, VersionSet};
use crate::wal::{Log, write_catalog};
use parking_lot::{Mutex, RwLock};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) parts: Parts,
    pub(crate) files: Arc<Files>,
    pub(crate) log: Arc<Log>,
    pub(crate) versions: VersionSet,
    /// Held by who gives out sequences: log record, memtables and publication happen in the same order.
    pub(crate) writer: Mutex<Writer>,
    /// Everything up to this sequence is in the memtables of all trees.
    pub(crate) published: AtomicU64,
    pub(crate) trees: RwLock<Trees>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) stall: Stall,
    /// What flushes and compactions may read and write.
    pub(crate) pace: Pace,
    pub(crate) signals: Signals,
    pub(crate) counters: Counters,
    /// Answers for keys that are asked for often.
    pub(crate) records: Option<Records>,
    /// Held by a flush: there is one at a time.
    pub(crate) flushing: Mutex<()>,
    pub(crate) closed: AtomicBool,
    pub(crate) compactions: Compactions,
    floors_dirty: AtomicBool,
    /// Keeps other processes out, until the store is closed.
    pub(crate) lock: Mutex<Option<Box<dyn Send + Sync>>>,
}

/// What recovery hands over.
pub(crate) struct Recovered {
    pub(crate) path: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) parts: Parts,
    pub(crate) files: Arc<Files>,
    pub(crate) log: Arc<Log>,
    pub(crate) versions: VersionSet,
    pub(crate) trees: Trees,
    pub(crate) last_sequence: Sequence,
    pub(crate) lock: Box<dyn Send + Sync>,
}

impl Shared {
    pub(crate) fn new(recovered: Recovered) -> Shared {
        let Recovered { path, settings, parts, files, log, versions, trees, last_sequence, lock } = recovered;
        let stall = Stall::new(&settings);
        let pace = Pace::new(settings.background_bytes_per_second);
        let records = Records::new(settings.record_cache_bytes());
        for state in trees.by_id.values() {
            stall.add(state.memory().bytes);
        }
        Shared {
            path,
            settings,
            parts,
            files,
            log,
            versions,
            writer: Mutex::default(),
            published: AtomicU64::new(last_sequence),
            trees: RwLock::new(trees),
            snapshots: Arc::default(),
            stall,
            pace,
            signals: Signals::default(),
            counters: Counters::default(),
            records,
            flushing: Mutex::default(),
            closed: AtomicBool::new(false),
            compactions: Compactions::default(),
            floors_dirty: AtomicBool::new(false),
            lock: Mutex::new(Some(lock)),
        }
    }

    /// The last sequence that readers see. After poison: the last one that was acknowledged, as it is unknown what becomes of the others.
    pub(crate) fn visible(&self) -> Sequence {
        let published = self.published.load(Acquire);
        if self.log.is_poisoned() && !is_planted(Planted::ServesAfterPoison) {
            published.min(self.log.acknowledged())
        } else {
            published
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Acquire) { Err(Error::Closed) } else { self.check_unpoisoned() }
    }

    pub(crate) fn check_unpoisoned(&self) -> Result<()> {
        match self.log.is_poisoned().then(|| self.log.poison_reason()).flatten() {
            Some(reason) => Err(Error::Poisoned { reason: reason.to_string() }),
            None => Ok(()),
        }
    }

    /// Makes an edit of the file set durable, with floors that rose meanwhile, then shows it by `install`.
    ///
    /// # Errors
    /// Nothing was shown. `Io` of the manifest: unknown whether the edit counts, so its files must stay, and the store is poisoned. A failure that comes after
    /// the edit counts is none of this edit: it poisons the store, which the next write is told.
    pub(crate) fn edit<T>(&self, changes: Vec<Change>, install: impl FnOnce() -> T) -> Result<T> {
        let trees = if self.floors_dirty.swap(false, Acquire) { self.tree_states() } else { Vec::new() };
        let renamed = |change: &Change| {
            matches!(
                change,
                Change::TreeCreated { .. } | Change::TreeDropped { .. } | Change::TreeNamed { .. }
            )
        };
        // Floors alone are no reason: they rise all the time.
        let catalog_changes = changes.iter().any(renamed) || (!trees.is_empty() && !changes.is_empty());
        let changes = |state: &StoreState| {
            // First: one of the changes may drop a tree whose floor rose.
            let mut all = risen_floors(state, &trees);
            all.extend(changes);
            all
        };
        let applied = self.versions.apply_with(changes, install);
        if let Err(error) = &applied
            && self.versions.has_failed()
        {
            self.log.poison(&error.to_string());
        }
        if applied.is_ok() && catalog_changes && self.settings.wal_retention == WalRetention::All {
            let dir = self.settings.log_dir(&self.path);
            let written = self.versions.read(|state| write_catalog(&*self.parts.fs, &dir, state));
            if let Err(error) = written {
                // A log that is kept for ever is worth nothing without the names of its trees.
                tracing::error!(folder = %dir.display(), %error, "the names of the trees beside the log could not be made durable; the store takes no more writes until it is opened again");
                self.log.poison(&error.to_string());
            }
        }
        applied
    }

    /// How a table of a level is written.
    pub(crate) fn table_options(&self, level: u8) -> TableOptions {
        TableOptions {
            level,
            block_bytes: self.settings.block_bytes as usize,
            compression: if self.settings.compression { Compression::Lz4 } else { Compression::None },
            filter_bits_per_key: self.settings.filter_bits_per_key,
            created_at_ms: self.parts.clock.unix_ms(),
        }
    }

    /// A floor rose: the next edit takes it along.
    pub(crate) fn floors_rose(&self) {
        self.floors_dirty.store(true, Release);
    }

    /// Makes floors durable that are not yet.
    pub(crate) fn persist_floors(&self) -> Result<()> {
        if self.floors_dirty.load(Relaxed) { self.edit(Vec::new(), || ()) } else { Ok(()) }
    }

    /// All trees.
    pub(crate) fn tree_states(&self) -> Vec<Arc<TreeState>> {
        self.trees.read().by_id.values().cloned().collect()
    }
}

fn risen_floors(state: &StoreState, trees: &[Arc<TreeState>]) -> Vec<Change> {
    let mut changes = Vec::new();
    for tree in trees {
        let Some(record) = state.trees.get(&tree.id) else { continue };
        for floor in FloorKind::ALL {
            let value = tree.floor(floor);
            if value > record.floor(floor) {
                changes.push(Change::Floor { tree: tree.id, floor, value });
            }
        }
    }
    changes
}
