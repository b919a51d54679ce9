//! Tables: immutable sorted files. The format is drawn in `docs/formats/table.md`.

mod block;
mod block_builder;
mod filter;
mod format;
mod index;
mod iter;
mod meta;
mod properties;
mod table;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "fuzzing"))]
mod walk;
mod writer;

pub(crate) use crate::types::Space;
pub(crate) use block::Block;
pub(crate) use block_builder::Head;
pub(crate) use format::{Compression, RAW_BLOCK_BYTES_MAX as VALUE_BYTES_MAX};
pub(crate) use iter::TableIter;
pub(crate) use meta::{BlobPointer, TableMeta};
#[cfg(test)]
pub(crate) use properties::BlobUse;
pub(crate) use properties::Properties;
pub(crate) use table::{Access, Looked, Lookup, Table, hash_file};
pub(crate) use writer::{TableOptions, TableWriter};

/// Number of spaces: each has blocks and an index of its own.
pub(crate) const SPACES: usize = 3;

/// The spaces in the order in which they stand in a table.
pub(crate) const ALL_SPACES: [Space; SPACES] = [Space::Data, Space::Notes, Space::Clears];
#[cfg(test)]
pub(crate) use format::open_block;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use walk::{walk_block, walk_table};
