//! A checkpoint: the store as it is now, as a store of its own in another folder. Its files are links, so it costs little and takes no room
//! until the originals are compacted away.

use super::Store;
use crate::error::{Error, Result};
use crate::recovery::write_format;
use crate::tree::{link, new_folder};
use crate::types::Sequence;
use crate::version::Manifest;
use std::path::{Path, PathBuf};

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Everything up to this sequence is in it.
    pub sequence: Sequence,
    /// Its tables and blob files, with length and the hash (XXH3, 128 bits) that the manifest keeps.
    pub files: Vec<(PathBuf, u64, u128)>,
}

impl Store {
    /// Makes a checkpoint in a new folder. It opens as a store that holds what this one holds now.
    ///
    /// # Errors
    /// `Invalid` if the folder is not empty; `Io` and `DiskFull` of the files written, `Poisoned`, `Closed`.
    pub fn checkpoint(&self, dir: impl AsRef<Path>) -> Result<Checkpoint> {
        let (dir, shared) = (dir.as_ref(), &self.shared);
        shared.check_open()?;
        let fs = &*shared.parts.fs;
        new_folder(fs, dir)?;
        // All trees are flushed to the same sequence, and pinned before another flush takes one of them further.
        let (sequence, state, _pins) = shared.flush_all_then(|sequence| {
            let sources =
                || shared.tree_states().iter().map(|tree| tree.sources.load_full()).collect::<Vec<_>>();
            shared.versions.read(|state| (sequence, state.clone(), sources()))
        })?;
        let mut checkpoint = Checkpoint { sequence, files: Vec::new() };
        let (tables, blobs) = (dir.join("tables"), dir.join("blobs"));
        for folder in [&tables, &blobs] {
            fs.create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        }
        for record in state.trees.values() {
            for (meta, _) in record.levels.iter().flatten() {
                let to = tables.join(format!("{:012}.sst", meta.id));
                link(fs, &shared.files.table_path(meta.id), &to)?;
                checkpoint.files.push((to, meta.file_bytes, meta.hash));
            }
            for blob in record.blobs.values() {
                let to = blobs.join(format!("{:012}.blob", blob.id));
                link(fs, &shared.files.blob_path(blob.id), &to)?;
                checkpoint.files.push((to, blob.file_bytes, blob.hash));
            }
        }
        for folder in [&tables, &blobs, dir] {
            fs.sync_dir(folder).map_err(|e| Error::io("sync", folder, e))?;
        }
        let state = state.without_log(sequence);
        drop(Manifest::create(fs, dir, 1, &state.to_changes())?);
        // Last: without it nobody takes the folder for a store.
        write_format(fs, dir)?;
        Ok(checkpoint)
    }
}
