//! From entries to answers: what a view sees of one key, and of many.

mod lookup;
mod memory;
mod merge;
mod range;
mod table;
mod visible;

pub(crate) use lookup::{Lookup, Step};
pub(crate) use memory::MemoryCursor;
pub(crate) use merge::Merge;
pub use range::Range;
pub(crate) use range::RangeParts;
pub(crate) use table::{LevelCursor, TableCursor};
pub(crate) use visible::{Bounds, ClearMark, Cleared, Clears, Visibility};

use crate::error::Result;
use crate::sst::Head;
use bytes::Bytes;

/// A source of entries that runs one way through a part of one space.
pub(crate) trait Cursor: Send {
    /// The entry where it stands, without key and payload; `None` at the end.
    fn head(&self) -> Option<&Head>;
    /// The entry's key.
    fn key(&self) -> &[u8];
    /// The entry's key, to keep.
    fn key_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.key())
    }
    /// The entry's payload; a blob pointer as it is.
    fn payload(&self) -> Result<Bytes>;
    /// Takes one step.
    fn advance(&mut self) -> Result<()>;
}
