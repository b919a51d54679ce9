//! A range of keys as a view sees it.

use super::visible::{Cleared, Visibility};
use super::{Cursor, Merge};
use crate::error::Result;
use crate::sst::{Access, Head};
use crate::tree::Sources;
use crate::types::{Kind, Version};
use crate::view::{Found, FoundKind};
use bytes::Bytes;
use std::sync::Arc;

/// A streaming range: the newest visible entry of each key, in key order or backwards. It reads a fixed state, whatever is written meanwhile,
/// and keeps the files of that state in place as long as it lives.
pub struct Range {
    parts: RangeParts,
    tombstones: bool,
    keys_only: bool,
    failed: bool,
}

/// What a range is made of.
pub(crate) struct RangeParts {
    pub(crate) merge: Merge,
    pub(crate) view: Visibility,
    pub(crate) cleared: Option<Cleared>,
    pub(crate) backward: bool,
    /// Keeps the files in place.
    pub(crate) pin: Arc<Sources>,
}

/// What decides for a key: the entry, and its payload as it stands.
type Decided = (Head, Bytes);

impl Range {
    pub(crate) fn new(parts: RangeParts) -> Range {
        Range { parts, tombstones: false, keys_only: false, failed: false }
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
        while self.parts.merge.head().is_some() {
            let key = self.parts.merge.key_bytes();
            let decided =
                if self.parts.backward { self.resolve_backward(&key)? } else { self.resolve_forward(&key)? };
            let Some((head, payload)) = decided else { continue };
            if self.parts.cleared.is_some_and(|cleared| cleared.deletes(&head)) {
                continue;
            }
            let kind = FoundKind::of(head.kind);
            if kind == FoundKind::Value || self.tombstones {
                let Head { version, sequence, expires_at, tag, .. } = head;
                let value = match head.kind {
                    Kind::BlobPointer if self.keys_only => Bytes::new(),
                    Kind::BlobPointer => {
                        let blobs = &self.parts.pin.blobs;
                        blobs.read(&payload, &key, head.version, Access::Wait)?.unwrap_or_default()
                    }
                    _ => payload,
                };
                return Ok(Some((key, Found { version, sequence, kind, value, expires_at, tag })));
            }
        }
        Ok(None)
    }

    /// Entries of a key come from the highest version down: the first that is seen decides.
    fn resolve_forward(&mut self, key: &Bytes) -> Result<Option<Decided>> {
        let RangeParts { merge, view, .. } = &mut self.parts;
        let mut decided = None;
        let mut retracted: Option<Version> = None;
        while let Some(head) = merge.head().copied().filter(|_| merge.key() == &key[..]) {
            if decided.is_none()
                && view.admits(head.version, head.sequence)
                && retracted != Some(head.version)
            {
                if head.kind == Kind::Retract {
                    retracted = Some(head.version);
                } else {
                    decided = Some((head, merge.payload()?));
                }
            }
            merge.advance()?;
        }
        Ok(decided)
    }

    /// Entries of a key come from the lowest version up, of one version the oldest first: the last that is seen decides.
    fn resolve_backward(&mut self, key: &Bytes) -> Result<Option<Decided>> {
        let RangeParts { merge, view, .. } = &mut self.parts;
        let mut lower: Option<Decided> = None;
        let mut current: Option<Decided> = None;
        while let Some(head) = merge.head().copied().filter(|_| merge.key() == &key[..]) {
            if view.admits(head.version, head.sequence) {
                if current.as_ref().is_some_and(|(seen, _)| seen.version != head.version) {
                    lower = current.take();
                }
                current = if head.kind == Kind::Retract { None } else { Some((head, merge.payload()?)) };
            }
            merge.advance()?;
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
        let tables = self.parts.pin.levels.tables().count();
        f.debug_struct("Range")
            .field("view", &self.parts.view)
            .field("tables", &tables)
            .finish_non_exhaustive()
    }
}
