//! Values apart from their keys: immutable files of records that tables point at. Drawn in `docs/formats/blob.md`.

mod file;
mod format;
mod garbage;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use file::{BlobSet, BlobStore};
pub(crate) use garbage::{live_bytes, victims};
pub(crate) use writer::BlobWriter;
