//! The trees' names and floors beside a log that is kept for ever: its records know trees by their number only, and the folder that knows the rest may be
//! lost. Floors stand here as they were at the last edit of the file set that took one along: lower ones only keep more. The file is a manifest that holds nothing but trees.

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::version::{Change, Manifest, StoreState, read_manifest};
use std::path::Path;

/// Writes the trees of `state` into the log's folder, durably, in the place of what stood there.
pub(crate) fn write_catalog(fs: &dyn Fs, dir: &Path, state: &StoreState) -> Result<()> {
    let mut changes = vec![Change::NextIds { file: 1, tree: state.next_tree }];
    for (&tree, record) in &state.trees {
        let (name, newest_only) = (record.name.clone(), record.newest_only);
        changes.push(Change::TreeCreated { tree, name, newest_only });
        changes.extend(record.risen_floors().map(|(floor, value)| Change::Floor { tree, floor, value }));
    }
    let number = read_manifest(fs, dir)?.map_or(0, |stored| stored.number) + 1;
    Manifest::create(fs, dir, number, &changes).map(drop)
}

/// The trees that stand in the log's folder.
///
/// # Errors
/// `Damaged` also if there is none.
pub(crate) fn read_catalog(fs: &dyn Fs, dir: &Path) -> Result<StoreState> {
    let current = dir.join("CURRENT");
    let stored = read_manifest(fs, dir)?;
    let stored =
        stored.ok_or_else(|| Error::damaged(&current, 0, "the trees of a log that is kept", "no file"))?;
    let mut state = StoreState::default();
    for change in stored.changes {
        let applied = state.apply(change);
        applied.map_err(|what| Error::damaged(&current, 0, "a manifest whose edits fit together", what))?;
    }
    Ok(state)
}
