//! Kvorum's storage engine: an embedded, multi-version LSM store.

mod error;
pub mod fs;
mod types;

pub use error::{Error, Result};
pub use types::{Durability, InternalEntry, KEY_BYTES_MAX, Kind, Sequence, Version};
