//! Which files a store consists of: edits, the manifest that keeps them, levels of tables.

mod edit;
mod levels;
mod manifest;
mod set;
mod state;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use edit::decode as decode_edit;
pub(crate) use edit::{BlobFile, Change, FloorKind, Foreign};
pub(crate) use levels::{Files, Graveyard, LEVELS, Levels, TableFile};
pub(crate) use manifest::{Manifest, read as read_manifest, read_whole, write_whole};
pub(crate) use set::VersionSet;
pub(crate) use state::{StoreState, TreeRecord};
