//! From entries to answers: what a view sees of one key, and of many.

mod lookup;
mod memory;
mod merge;
mod range;
mod visible;

pub(crate) use lookup::{Lookup, Step};
pub(crate) use memory::MemoryCursor;
pub(crate) use merge::Merge;
pub use range::Range;
pub(crate) use range::RangeParts;
pub(crate) use visible::{Bounds, ClearMark, Cleared, Clears, Visibility};

use crate::error::Result;
use crate::types::InternalEntry;

/// A source of entries that runs one way through a part of internal order.
pub(crate) trait Cursor: Send {
    /// Where it stands; `None` at the end.
    fn entry(&self) -> Option<&InternalEntry>;
    /// Takes one step.
    fn advance(&mut self) -> Result<()>;
    /// Where payloads that stand apart are read from.
    fn payloads(&self) -> Option<&dyn PayloadSource> {
        None
    }
}

/// Reads the value that a blob pointer names.
pub(crate) trait PayloadSource: Send + Sync {
    fn read(&self, entry: &InternalEntry) -> Result<bytes::Bytes>;
}
