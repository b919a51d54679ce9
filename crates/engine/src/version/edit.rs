//! What changes a store's file set: a list of changes that happen together.
//!
//! ```text
//! edit   = change · change · …
//! change = tag: varint · length: varint · body
//! ```
//! The tags are part of the format; a tag that is not known is damage, as the format's version stands in `FORMAT`.
#![warn(clippy::indexing_slicing)]

use crate::codec::{Reader, put_prefixed, put_varint};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::sst::{TableMeta, hash_file};
use crate::tree::TreeId;
use crate::types::{Sequence, Version};
use std::path::Path;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A tree begins to exist.
    TreeCreated { tree: TreeId, name: String, newest_only: bool },
    /// A tree ends, with all its files.
    TreeDropped { tree: TreeId },
    /// A tree has this name from now on.
    TreeNamed { tree: TreeId, name: String },
    /// A table joins a level. In level 0 a later one is newer.
    TableAdded { tree: TreeId, level: u8, meta: Box<TableMeta>, foreign: Option<Foreign> },
    /// A table leaves.
    TableRemoved { tree: TreeId, table: u64 },
    /// A table goes to another level as it is.
    TableMoved { tree: TreeId, table: u64, level: u8 },
    /// A blob file joins.
    BlobAdded { tree: TreeId, blob: BlobFile },
    /// A blob file leaves.
    BlobRemoved { tree: TreeId, blob: u64 },
    /// Everything of the tree up to this sequence stands in tables.
    Flushed { tree: TreeId, upto: Sequence },
    /// A floor has risen.
    Floor { tree: TreeId, floor: FloorKind, value: u64 },
    /// What the log must still hold begins here.
    NeededFrom { sequence: Sequence },
    /// Ids from these on were never given to a file or a tree.
    NextIds { file: u64, tree: TreeId },
    /// The log begins here: the files come from a store whose log did not come along.
    LogBegins { sequence: Sequence },
    /// The store was closed in order: the edits before it are whole.
    Closed,
}

/// What is particular to a table that came from another store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// Entries above this version are not seen and go when the table is rewritten.
    pub(crate) ceiling: Version,
}

/// What the manifest keeps of a blob file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobFile {
    /// Its id, in the same numbers as tables.
    pub(crate) id: u64,
    /// Its length.
    pub(crate) file_bytes: u64,
    /// XXH3 of the whole file.
    pub(crate) hash: u128,
    /// Its values, as stored.
    pub(crate) value_bytes: u64,
}

impl BlobFile {
    /// Gathers from a file that came from elsewhere what the manifest says of it; `id` is its name here.
    pub(crate) fn of_file(fs: &dyn Fs, path: &Path, id: u64) -> Result<BlobFile> {
        let file = fs.open(path, false).map_err(|e| Error::io("open", path, e))?;
        let (file_bytes, hash) = hash_file(&*file, path)?;
        Ok(BlobFile { id, file_bytes, hash, value_bytes: file_bytes })
    }

    /// Reads the whole file and compares it with what the manifest says.
    pub(crate) fn verify(&self, fs: &dyn Fs, path: &Path) -> Result<()> {
        let found = BlobFile::of_file(fs, path, self.id)?;
        if (found.file_bytes, found.hash) == (self.file_bytes, self.hash) {
            return Ok(());
        }
        let of = |file: &BlobFile| format!("{} bytes with hash {:032x}", file.file_bytes, file.hash);
        Err(Error::damaged(path, 0, of(self), of(&found)))
    }
}

/// Which floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FloorKind {
    /// History below is gone.
    History = 1,
    /// Tombstones and clears up to it may go.
    Tombstone = 2,
    /// Entries that expired up to it may become tombstones.
    Expiry = 3,
    /// The highest tombstone or clear dropped.
    Gc = 4,
    /// Notes below are released.
    Notes = 5,
}

impl FloorKind {
    pub(crate) const ALL: [FloorKind; 5] =
        [FloorKind::History, FloorKind::Tombstone, FloorKind::Expiry, FloorKind::Gc, FloorKind::Notes];

    fn from_number(number: u64) -> Option<FloorKind> {
        FloorKind::ALL.into_iter().find(|kind| *kind as u64 == number)
    }
}

mod tag {
    pub(super) const TREE_CREATED: u64 = 1;
    pub(super) const TREE_DROPPED: u64 = 2;
    pub(super) const TREE_NAMED: u64 = 3;
    pub(super) const TABLE_ADDED: u64 = 4;
    pub(super) const TABLE_REMOVED: u64 = 5;
    pub(super) const TABLE_MOVED: u64 = 6;
    pub(super) const BLOB_ADDED: u64 = 7;
    pub(super) const BLOB_REMOVED: u64 = 8;
    pub(super) const FLUSHED: u64 = 9;
    pub(super) const FLOOR: u64 = 10;
    pub(super) const NEEDED_FROM: u64 = 11;
    pub(super) const NEXT_IDS: u64 = 12;
    pub(super) const CLOSED: u64 = 13;
    pub(super) const LOG_BEGINS: u64 = 14;
}

/// Appends an edit.
pub(crate) fn encode(changes: &[Change], out: &mut Vec<u8>) {
    let mut body = Vec::new();
    for change in changes {
        body.clear();
        let tag = change.encode(&mut body);
        put_varint(out, tag);
        put_prefixed(out, &body);
    }
}

/// Reads an edit; what was expected and at which of its bytes otherwise.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Change>, (usize, &'static str)> {
    let mut reader = Reader::new(bytes);
    let mut changes = Vec::new();
    while !reader.is_empty() {
        let at = reader.position();
        let mut change = || {
            let tag = reader.varint()?;
            Change::decode(tag, &mut Reader::new(reader.prefixed()?))
        };
        changes.push(change().ok_or((at, "a known change of the file set"))?);
    }
    Ok(changes)
}

impl Change {
    /// The tree that must exist for the change to make sense.
    pub(crate) fn needs_tree(&self) -> Option<TreeId> {
        match self {
            Change::TreeCreated { .. }
            | Change::NeededFrom { .. }
            | Change::NextIds { .. }
            | Change::LogBegins { .. }
            | Change::Closed => None,
            Change::TreeDropped { tree }
            | Change::TreeNamed { tree, .. }
            | Change::TableAdded { tree, .. }
            | Change::TableRemoved { tree, .. }
            | Change::TableMoved { tree, .. }
            | Change::BlobAdded { tree, .. }
            | Change::BlobRemoved { tree, .. }
            | Change::Flushed { tree, .. }
            | Change::Floor { tree, .. } => Some(*tree),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) -> u64 {
        let mut numbers = |numbers: &[u64]| numbers.iter().for_each(|number| put_varint(out, *number));
        match self {
            Change::TreeCreated { tree, name, newest_only } => {
                numbers(&[u64::from(*tree), u64::from(*newest_only)]);
                put_prefixed(out, name.as_bytes());
                tag::TREE_CREATED
            }
            Change::TreeDropped { tree } => {
                numbers(&[u64::from(*tree)]);
                tag::TREE_DROPPED
            }
            Change::TreeNamed { tree, name } => {
                numbers(&[u64::from(*tree)]);
                put_prefixed(out, name.as_bytes());
                tag::TREE_NAMED
            }
            Change::TableAdded { tree, level, meta, foreign } => {
                numbers(&[u64::from(*tree), u64::from(*level), u64::from(foreign.is_some())]);
                if let Some(foreign) = foreign {
                    put_varint(out, foreign.ceiling);
                }
                meta.encode(out);
                tag::TABLE_ADDED
            }
            Change::TableRemoved { tree, table } => {
                numbers(&[u64::from(*tree), *table]);
                tag::TABLE_REMOVED
            }
            Change::TableMoved { tree, table, level } => {
                numbers(&[u64::from(*tree), *table, u64::from(*level)]);
                tag::TABLE_MOVED
            }
            Change::BlobAdded { tree, blob } => {
                numbers(&[u64::from(*tree), blob.id, blob.file_bytes, blob.value_bytes]);
                out.extend_from_slice(&blob.hash.to_le_bytes());
                tag::BLOB_ADDED
            }
            Change::BlobRemoved { tree, blob } => {
                numbers(&[u64::from(*tree), *blob]);
                tag::BLOB_REMOVED
            }
            Change::Flushed { tree, upto } => {
                numbers(&[u64::from(*tree), *upto]);
                tag::FLUSHED
            }
            Change::Floor { tree, floor, value } => {
                numbers(&[u64::from(*tree), *floor as u64, *value]);
                tag::FLOOR
            }
            Change::NeededFrom { sequence } => {
                numbers(&[*sequence]);
                tag::NEEDED_FROM
            }
            Change::NextIds { file, tree } => {
                numbers(&[*file, u64::from(*tree)]);
                tag::NEXT_IDS
            }
            Change::LogBegins { sequence } => {
                numbers(&[*sequence]);
                tag::LOG_BEGINS
            }
            Change::Closed => tag::CLOSED,
        }
    }

    fn decode(tag: u64, body: &mut Reader<'_>) -> Option<Change> {
        let change = match tag {
            tag::TREE_CREATED => {
                let (tree, newest_only) = (tree_id(body)?, flag(body)?);
                Change::TreeCreated { tree, newest_only, name: name(body)? }
            }
            tag::TREE_DROPPED => Change::TreeDropped { tree: tree_id(body)? },
            tag::TREE_NAMED => Change::TreeNamed { tree: tree_id(body)?, name: name(body)? },
            tag::TABLE_ADDED => {
                let (tree, level) = (tree_id(body)?, u8::try_from(body.varint()?).ok()?);
                let foreign = if flag(body)? { Some(Foreign { ceiling: body.varint()? }) } else { None };
                Change::TableAdded { tree, level, foreign, meta: Box::new(TableMeta::decode(body)?) }
            }
            tag::TABLE_REMOVED => Change::TableRemoved { tree: tree_id(body)?, table: body.varint()? },
            tag::TABLE_MOVED => {
                let (tree, table) = (tree_id(body)?, body.varint()?);
                Change::TableMoved { tree, table, level: u8::try_from(body.varint()?).ok()? }
            }
            tag::BLOB_ADDED => {
                let tree = tree_id(body)?;
                let (id, file_bytes, value_bytes) = (body.varint()?, body.varint()?, body.varint()?);
                Change::BlobAdded { tree, blob: BlobFile { id, file_bytes, value_bytes, hash: body.u128()? } }
            }
            tag::BLOB_REMOVED => Change::BlobRemoved { tree: tree_id(body)?, blob: body.varint()? },
            tag::FLUSHED => Change::Flushed { tree: tree_id(body)?, upto: body.varint()? },
            tag::FLOOR => {
                let (tree, floor) = (tree_id(body)?, FloorKind::from_number(body.varint()?)?);
                Change::Floor { tree, floor, value: body.varint()? }
            }
            tag::NEEDED_FROM => Change::NeededFrom { sequence: body.varint()? },
            tag::NEXT_IDS => {
                let file = body.varint()?;
                Change::NextIds { file, tree: tree_id(body)? }
            }
            tag::LOG_BEGINS => Change::LogBegins { sequence: body.varint()? },
            tag::CLOSED => Change::Closed,
            _ => return None,
        };
        body.is_empty().then_some(change)
    }
}

fn tree_id(body: &mut Reader<'_>) -> Option<TreeId> {
    TreeId::try_from(body.varint()?).ok()
}

fn flag(body: &mut Reader<'_>) -> Option<bool> {
    match body.varint()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn name(body: &mut Reader<'_>) -> Option<String> {
    String::from_utf8(body.prefixed()?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sst::{Compression, Properties};

    fn one_of_each() -> Vec<Change> {
        let meta = TableMeta {
            id: 9,
            file_bytes: 77,
            hash: 5,
            properties: Properties::empty(9, 0, 1, Compression::Lz4),
        };
        vec![
            Change::TreeCreated { tree: 3, name: "a tree".into(), newest_only: true },
            Change::TreeDropped { tree: 3 },
            Change::TreeNamed { tree: 3, name: "ü".into() },
            Change::TableAdded {
                tree: 3,
                level: 2,
                meta: Box::new(meta.clone()),
                foreign: Some(Foreign { ceiling: 12 }),
            },
            Change::TableAdded { tree: 3, level: 0, meta: Box::new(meta), foreign: None },
            Change::TableRemoved { tree: 3, table: 300 },
            Change::TableMoved { tree: 3, table: 300, level: 6 },
            Change::BlobAdded {
                tree: 3,
                blob: BlobFile { id: 4, file_bytes: 5, hash: 1 << 90, value_bytes: 6 },
            },
            Change::BlobRemoved { tree: 3, blob: 4 },
            Change::Flushed { tree: 3, upto: u64::MAX },
            Change::Floor { tree: 3, floor: FloorKind::Gc, value: 1 << 40 },
            Change::NeededFrom { sequence: 8 },
            Change::NextIds { file: 10, tree: 4 },
            Change::LogBegins { sequence: 77 },
            Change::Closed,
        ]
    }

    #[test]
    fn every_change_comes_back() {
        let mut bytes = Vec::new();
        encode(&one_of_each(), &mut bytes);
        assert_eq!(decode(&bytes), Ok(one_of_each()));
    }

    #[test]
    fn a_cut_or_unknown_change_is_refused() {
        for change in one_of_each() {
            let mut bytes = Vec::new();
            encode(&[change], &mut bytes);
            for cut in 1..bytes.len() {
                assert!(decode(&bytes[..cut]).is_err());
            }
        }
        assert_eq!(decode(&[99, 0]), Err((0, "a known change of the file set")));
    }
}
