//! The file set's one writer: an edit is durable in the manifest before anyone sees what it changes.

use super::edit::Change;
use super::manifest::Manifest;
use super::state::StoreState;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::tree::TreeId;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// File ids are made durable this many at a time, before one of them is used: so an orphan always has an id below the stored one.
const FILE_IDS_AHEAD: u64 = 64;
/// A manifest is rewritten when it is larger than this and several times the state.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
const REWRITE_FACTOR: u64 = 4;

pub(crate) struct VersionSet {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    inner: Mutex<Inner>,
    next_file: AtomicU64,
    failed: AtomicBool,
}

struct Inner {
    manifest: Manifest,
    /// The manifest's size when it was begun.
    begun_bytes: u64,
    state: StoreState,
}

impl VersionSet {
    /// Begins a fresh manifest with a recovered (or new) state.
    pub(crate) fn begin(
        fs: Arc<dyn Fs>,
        dir: &Path,
        number: u64,
        mut state: StoreState,
    ) -> Result<VersionSet> {
        let next_file = state.next_file.max(1);
        state.next_file = next_file + FILE_IDS_AHEAD;
        state.next_tree = state.next_tree.max(1);
        let manifest = Manifest::create(&*fs, dir, number, &state.to_changes())?;
        let begun_bytes = manifest.bytes();
        Ok(VersionSet {
            fs,
            dir: dir.to_owned(),
            inner: Mutex::new(Inner { manifest, begun_bytes, state }),
            next_file: AtomicU64::new(next_file),
            failed: AtomicBool::new(false),
        })
    }

    /// An id for a new file.
    pub(crate) fn new_file_id(&self) -> Result<u64> {
        let id = self.next_file.fetch_add(1, Relaxed);
        let mut inner = self.inner.lock();
        if id >= inner.state.next_file {
            let ahead = Change::NextIds { file: id + FILE_IDS_AHEAD, tree: inner.state.next_tree };
            self.write(&mut inner, &[ahead])?;
        }
        Ok(id)
    }

    /// An id for a new tree. It counts as given only with the edit that creates it.
    pub(crate) fn next_tree(&self) -> TreeId {
        self.inner.lock().state.next_tree
    }

    /// Makes an edit durable, made of the state as it then is, then lets `install` show it to readers. Edits happen one after the other.
    ///
    /// # Errors
    /// `Poisoned` after an earlier failure; `Invalid` for a tree that was dropped; `Io` of this one, after which the store must be poisoned: it is
    /// unknown whether the edit counts.
    pub(crate) fn apply_with<T>(
        &self,
        changes: impl FnOnce(&StoreState) -> Vec<Change>,
        install: impl FnOnce() -> T,
    ) -> Result<T> {
        let mut inner = self.inner.lock();
        let changes = changes(&inner.state);
        self.write(&mut inner, &changes)?;
        Ok(install())
    }

    /// Looks at the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&StoreState) -> T) -> T {
        look(&self.inner.lock().state)
    }

    /// Whether an edit failed: then it is unknown what the manifest holds.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Acquire)
    }

    fn write(&self, inner: &mut Inner, changes: &[Change]) -> Result<()> {
        if self.failed.load(Acquire) {
            return Err(Error::Poisoned { reason: "an earlier edit of the manifest failed".into() });
        }
        if let Some(gone) = changes
            .iter()
            .find_map(|change| change.needs_tree().filter(|tree| !inner.state.trees.contains_key(tree)))
        {
            return Err(Error::Invalid(format!("tree {gone} was dropped")));
        }
        // In place, before it is durable: if that fails, nobody looks at the state again.
        let applied = changes.iter().cloned().try_for_each(|change| inner.state.apply(change));
        let applied = applied.map_err(|what| Error::Invalid(format!("an edit that can't be: {what}")));
        let written =
            applied.and_then(|()| inner.manifest.append(changes)).and_then(|()| self.rewrite_if_long(inner));
        if written.is_err() {
            self.failed.store(true, Release);
        }
        written
    }

    fn rewrite_if_long(&self, inner: &mut Inner) -> Result<()> {
        if inner.manifest.bytes() < REWRITE_BYTES_MIN.max(inner.begun_bytes * REWRITE_FACTOR) {
            return Ok(());
        }
        inner.manifest =
            Manifest::create(&*self.fs, &self.dir, inner.manifest.number() + 1, &inner.state.to_changes())?;
        inner.begun_bytes = inner.manifest.bytes();
        Ok(())
    }
}
