//! What a command sees of the keys.

use crate::error::Stop;
use bytes::Bytes;
use std::borrow::Cow;

/// The tag byte of a string, the data type that every namespace has.
pub const TAG_STRING: u8 = 0;

/// A key's newest value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The version it was written at; never 0.
    pub version: u64,
    /// The value.
    pub value: Bytes,
    /// Absolute Unix milliseconds at which it ceases to exist.
    pub expires_at: Option<u64>,
    /// Data type; [`TAG_STRING`] for strings.
    pub tag: u8,
}

/// What is known of a key without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The version it was written at; never 0.
    pub version: u64,
    /// Absolute Unix milliseconds at which it ceases to exist.
    pub expires_at: Option<u64>,
    /// Data type; [`TAG_STRING`] for strings.
    pub tag: u8,
}

/// Whether a write of the key is in flight at the time of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Label {
    /// No write in flight.
    #[default]
    Stable,
    /// A write is in flight; this is the value before it.
    Old,
    /// A write is in flight; this is the value it brings, which may yet be cancelled.
    New,
    /// Nobody was asked whether there is one: this is what was so at most so many milliseconds ago.
    Stale(u64),
}

impl Label {
    /// The word in the reply of `GETV`.
    pub fn word(self) -> Cow<'static, str> {
        match self {
            Label::Stable => "stable".into(),
            Label::Old => "old".into(),
            Label::New => "new".into(),
            Label::Stale(age_ms) => format!("stale:{age_ms}").into(),
        }
    }
}

/// The newest state of a namespace's keys, pending writes included. Deleted keys are absent. A view need not judge expiry: [`Context`](crate::Context)
/// compares `expires_at` with the command's time, so expired records may be returned.
pub trait View {
    /// The key's record. `Err(Stop::WouldRead)` if that needs the disk.
    fn get(&self, key: &[u8]) -> Result<Option<Record>, Stop>;

    /// The key's record without the value, which a view can often tell more cheaply.
    fn meta(&self, key: &[u8]) -> Result<Option<Meta>, Stop> {
        let record = self.get(key)?;
        Ok(record.map(|found| Meta { version: found.version, expires_at: found.expires_at, tag: found.tag }))
    }

    /// The version that a write of `key` by the command under evaluation will get: the op id that its shard gives next.
    fn next_version(&self, key: &[u8]) -> u64;

    /// Whether a write of the key is in flight, for `GETV`.
    fn label(&self, _key: &[u8]) -> Label {
        Label::Stable
    }
}

/// The name of the data type with this tag, as `TYPE` and `SCAN … TYPE` know it.
pub fn type_name(tag: u8) -> &'static str {
    match tag {
        TAG_STRING => "string",
        _ => "unknown",
    }
}
