//! A range of keys as a view sees it.

use super::merge::Merge;
use super::visible::{Cleared, Visibility};
use crate::error::Result;
use crate::types::{InternalEntry, Kind};
use crate::view::{Found, FoundKind};
use bytes::Bytes;
use std::sync::Arc;

/// A streaming range: the newest visible entry of each key, in key order or backwards. It reads a fixed state, whatever is written meanwhile,
/// and keeps the files of that state in place as long as it lives.
pub struct Range {
    merge: Merge,
    view: Visibility,
    cleared: Option<Cleared>,
    backward: bool,
    tombstones: bool,
    keys_only: bool,
    failed: bool,
    /// Keeps tables from being removed while they are read.
    _pin: Option<Arc<dyn Send + Sync>>,
}

/// What a range is made of.
pub(crate) struct RangeParts {
    pub(crate) merge: Merge,
    pub(crate) view: Visibility,
    pub(crate) cleared: Option<Cleared>,
    pub(crate) backward: bool,
    pub(crate) pin: Option<Arc<dyn Send + Sync>>,
}

impl Range {
    pub(crate) fn new(parts: RangeParts) -> Range {
        let RangeParts { merge, view, cleared, backward, pin } = parts;
        Range {
            merge,
            view,
            cleared,
            backward,
            tombstones: false,
            keys_only: false,
            failed: false,
            _pin: pin,
        }
    }

    /// Shows tombstones too (of keys, not those that only a clear makes).
    #[must_use]
    pub fn with_tombstones(self) -> Range {
        Range { tombstones: true, ..self }
    }

    /// Leaves values that stand apart from their keys unread: they come empty.
    #[must_use]
    pub fn keys_only(self) -> Range {
        Range { keys_only: true, ..self }
    }

    fn advance_to_found(&mut self) -> Result<Option<(Bytes, Found)>> {
        loop {
            let Some(first) = self.merge.entry() else { return Ok(None) };
            let key = first.key.clone();
            let visible =
                if self.backward { self.resolve_backward(&key)? } else { self.resolve_forward(&key)? };
            let Some((entry, value)) = visible else { continue };
            if self.cleared.is_some_and(|cleared| cleared.deletes(&entry)) {
                continue;
            }
            let kind = FoundKind::of(entry.kind);
            if kind == FoundKind::Value || self.tombstones {
                let InternalEntry { version, sequence, expires_at, tag, .. } = entry;
                return Ok(Some((key, Found { version, sequence, kind, value, expires_at, tag })));
            }
        }
    }

    /// The entry that stands first and its value, which may stand apart.
    fn materialise(&self, entry: &InternalEntry) -> Result<(InternalEntry, Bytes)> {
        let value = match (entry.kind, self.merge.payloads()) {
            (Kind::Value, _) => entry.payload.clone(),
            (Kind::BlobPointer, Some(payloads)) if !self.keys_only => payloads.read(entry)?,
            _ => Bytes::new(),
        };
        Ok((entry.clone(), value))
    }

    /// Entries of a key come from the highest version down: the first that is seen decides.
    fn resolve_forward(&mut self, key: &Bytes) -> Result<Option<(InternalEntry, Bytes)>> {
        let mut found = None;
        let mut retracted = None;
        while let Some(entry) = self.merge.entry().filter(|e| e.key == *key) {
            if found.is_none()
                && self.view.admits(entry.version, entry.sequence)
                && retracted != Some(entry.version)
            {
                if entry.kind == Kind::Retract {
                    retracted = Some(entry.version);
                } else {
                    found = Some(self.materialise(entry)?);
                }
            }
            self.merge.advance()?;
        }
        Ok(found)
    }

    /// Entries of a key come from the lowest version up, of one version the oldest first: the last that is seen decides.
    fn resolve_backward(&mut self, key: &Bytes) -> Result<Option<(InternalEntry, Bytes)>> {
        let mut lower: Option<(InternalEntry, Bytes)> = None;
        let mut current: Option<(InternalEntry, Bytes)> = None;
        while let Some(entry) = self.merge.entry().filter(|e| e.key == *key) {
            if self.view.admits(entry.version, entry.sequence) {
                if current.as_ref().is_some_and(|(e, _)| e.version != entry.version) {
                    lower = current.take();
                }
                current = if entry.kind == Kind::Retract { None } else { Some(self.materialise(entry)?) };
            }
            self.merge.advance()?;
        }
        Ok(current.or(lower))
    }
}

impl Iterator for Range {
    type Item = Result<(Bytes, Found)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let found = self.advance_to_found();
        self.failed = found.is_err();
        found.transpose()
    }
}

impl std::fmt::Debug for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Range")
            .field("view", &self.view)
            .field("backward", &self.backward)
            .finish_non_exhaustive()
    }
}
