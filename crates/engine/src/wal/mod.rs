//! The write-ahead log: one record for each batch, one write and one sync for all who wait.
//!
//! ```text
//! NNNNNNNNNNNN.wal   reserved in full and made durable before it is used
//! ┌──────────────┬─────────┬─────────┬───┬──────────────────────┐
//! │ header, 4096 │ group   │ group   │ … │ zeros to the end     │
//! └──────────────┴─────────┴─────────┴───┴──────────────────────┘
//! header: magic "KVRMWAL\0" · format u32 · checksum u32 · id u64 · previous id u64 · previous end u64
//!         · first sequence u64 · salt u64 · zeros
//! group, at a multiple of 8 bytes:
//! ┌────────────┬──────────────┬────────────────────┬─────────────────┬───────────┐
//! │ length u32 │ checksum u32 │ first sequence u64 │ durable_seq u64 │ records … │   length: from its own first byte
//! └────────────┴──────────────┴────────────────────┴─────────────────┴───────────┘   to the end of the records
//! record: length u32 · operations u32 · bytes
//! ```
//!
//! Numbers are little-endian. A checksum is CRC-32C over salt, offset in the file and the group without the checksum itself, so that neither
//! bytes of another segment nor a group from another place pass for the right ones.
//!
//! **Order of durability.** A segment's header is written only after everything before it is synced, and synced before its first group is
//! written. So a header settles where the segment before it ends, and only the newest segment can have a torn end.
//!
//! **Recovery.** A bad group starting at sequence *s* in the newest segment is damage if any later valid group says `durable_seq ≥ s`: then it
//! had been synced. Else it is the torn end of what a crash interrupted, and everything behind it is void. Old segments are never appended
//! to: the next one names the end that recovery found.

mod catalog;
mod commit;
mod core;
#[cfg(test)]
mod crash_tests;
mod format;
mod lenient;
mod log;
mod reader;
mod recovery;
mod segments;
#[cfg(test)]
mod tests;
mod waiters;
#[cfg(test)]
mod wakeup_tests;
mod writer;

pub(crate) use catalog::{read_catalog, write_catalog};
pub use commit::Commit;
pub(crate) use lenient::read_whole_records;
pub(crate) use log::{Log, LogSettings};
