//! Verification: every byte of every file is read and compared with its checksums, and what stands in the tables with what may stand there.

use super::{Shared, Store};
use crate::error::{Error, Result};
use crate::iter::{Bounds, Cursor, Merge};
use crate::tree::TreeState;
use crate::types::{Kind, Space, Version};
use bytes::Bytes;
use std::sync::atomic::Ordering::Acquire;

/// Findings that are listed; more are counted only.
const LISTED_MAX: usize = 100;

/// What [`Store::verify`] found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Verified {
    /// Files read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries seen.
    pub entries: u64,
    /// What is damaged, the first hundred.
    pub damages: Vec<Error>,
    /// How many damages there are.
    pub damage_count: u64,
    /// Versions that were given to two different values of a key, the first hundred: an error of the caller, told but not mended.
    pub reused_versions: Vec<(Bytes, Version)>,
    /// How many of them there are.
    pub reused_count: u64,
}

impl Verified {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.damage_count == 0 && self.reused_count == 0
    }

    fn damaged(&mut self, error: Error) {
        self.damage_count += 1;
        if self.damages.len() < LISTED_MAX {
            self.damages.push(error);
        }
    }
}

impl Store {
    /// Reads everything and compares it with its checksums. Writes and reads go on meanwhile; what is written meanwhile is not looked at.
    ///
    /// # Errors
    /// `Closed`. Damage is no error of the call: the answer tells it.
    pub fn verify(&self) -> Result<Verified> {
        let mut verified = Verified::default();
        for tree in self.shared.tree_states() {
            if self.shared.closed.load(Acquire) {
                return Err(Error::Closed);
            }
            self.shared.verify_tree(&tree, &mut verified);
        }
        Ok(verified)
    }
}

impl Shared {
    fn verify_tree(&self, tree: &TreeState, verified: &mut Verified) {
        let (pin, blobs) = self.versions.read(|state| {
            let blobs =
                state.trees.get(&tree.id).map(|record| record.blobs.values().copied().collect::<Vec<_>>());
            (tree.sources.load_full(), blobs.unwrap_or_default())
        });
        let mut whole = true;
        for table in pin.levels.tables() {
            verified.files += 1;
            verified.bytes += table.meta.file_bytes;
            if let Err(error) = table.table().and_then(|table| table.verify_hash()) {
                verified.damaged(error);
                whole = false;
            }
        }
        for blob in blobs {
            verified.files += 1;
            verified.bytes += blob.file_bytes;
            if let Err(error) = blob.verify(&*self.parts.fs, &self.files.blob_path(blob.id)) {
                verified.damaged(error);
            }
        }
        // What can't be read was told; the rest can't be read in order any more.
        if whole {
            let merged = pin
                .cursors(Space::Data, &Bounds::all(), false)
                .map(|cursors| Merge::new(cursors, Space::Data, false));
            if let Err(error) = merged.and_then(|merge| verify_entries(merge, verified)) {
                verified.damaged(error);
            }
        }
    }
}

/// Looks for keys whose version was given to two values, with no retract between.
fn verify_entries(mut merge: Merge, verified: &mut Verified) -> Result<()> {
    let mut newer: Option<(Bytes, Version, Kind, Bytes)> = None;
    while let Some(head) = merge.head().copied() {
        verified.entries += 1;
        let (key, payload) = (merge.key_bytes(), merge.payload()?);
        if let Some((newer_key, version, kind, value)) = &newer {
            let same = *newer_key == key && *version == head.version;
            let inline = *kind == Kind::Value && head.kind == Kind::Value;
            if same && inline && *value != payload {
                verified.reused_count += 1;
                if verified.reused_versions.len() < LISTED_MAX {
                    verified.reused_versions.push((key.clone(), head.version));
                }
            }
        }
        newer = Some((key, head.version, head.kind, payload));
        merge.advance()?;
    }
    Ok(())
}
