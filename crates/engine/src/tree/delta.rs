//! What changed between two versions: enough to bring a copy that stands at the one to the other.

use super::{Sources, Tree};
use crate::error::{Error, Result};
use crate::iter::{Bounds, Cleared, Cursor, Merge, Visibility};
use crate::sst::{Access, Head};
use crate::types::{Kind, Sequence, Space, Version};
use crate::version::FloorKind;
use crate::view::{FoundKind, View};
use bytes::Bytes;
use std::sync::Arc;

/// One change of a [`Delta`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaEntry {
    /// The key.
    pub key: Bytes,
    /// The version.
    pub version: Version,
    /// Value or tombstone.
    pub kind: FoundKind,
    /// The value; empty for a tombstone.
    pub value: Bytes,
    /// When it expires.
    pub expires_at: Option<u64>,
    /// The caller's tag.
    pub tag: u8,
}

/// The changes of a tree between two versions, in key order, of a key the highest version first. Reads a fixed state, as a range does.
///
/// Carry out [`Delta::clears`] first, then the entries, in any order: versions decide.
pub struct Delta {
    merge: Merge,
    view: Visibility,
    since: Version,
    cleared: Option<Cleared>,
    clears: Vec<Version>,
    /// The key and version that are decided already.
    decided: Option<(Bytes, Version)>,
    failed: bool,
    /// Keeps the files in place.
    pin: Arc<Sources>,
}

impl Tree {
    /// What stands in the view with a version above `since` (and at or below `view.at`): values, tombstones and clears, not what was taken back.
    /// Tables that end below `since` are not read.
    ///
    /// # Errors
    /// `HistoryGone` if a tombstone above `since` was dropped already: the copy would keep what is deleted here. `Io` and `Damaged` of the
    /// files read, also by the iterator, which then ends.
    pub fn delta(&self, since: Version, view: &View<'_>) -> Result<Delta> {
        let (pin, upto) = self.pin(view);
        self.state.check_readable(view.at)?;
        let gone = self.state.floor(FloorKind::Gc);
        if since < gone {
            return Err(Error::HistoryGone { asked: since, floor: gone });
        }
        let view = Visibility { at: view.at, upto, hidden: view.hidden.to_vec() };
        let cleared = pin.clears.as_ref().and_then(|clears| clears.seen(&view));
        let marks = pin.clears.iter().flat_map(|clears| clears.marks.iter());
        let standing = marks.filter(|mark| mark.cleared.version > since && mark.stands(&view));
        let mut clears: Vec<Version> = standing.map(|mark| mark.cleared.version).collect();
        clears.dedup();
        let cursors = pin.cursors_above(Space::Data, &Bounds::all(), false, Some(since))?;
        let merge = Merge::new(cursors, Space::Data, false);
        Ok(Delta { merge, view, since, cleared, clears, decided: None, failed: false, pin })
    }
}

impl Delta {
    /// The clears that stand, lowest first.
    pub fn clears(&self) -> &[Version] {
        &self.clears
    }

    /// Everything up to this sequence is in it.
    pub fn sequence(&self) -> Sequence {
        self.view.upto
    }

    fn advance(&mut self) -> Result<Option<DeltaEntry>> {
        while let Some(head) = self.merge.head().copied() {
            let seen = head.version > self.since && self.view.admits(head.version, head.sequence);
            let fresh = self
                .decided
                .as_ref()
                .is_none_or(|(key, version)| *version != head.version || key[..] != *self.merge.key());
            let mut entry = None;
            if seen && fresh {
                let key = self.merge.key_bytes();
                self.decided = Some((key.clone(), head.version));
                // Of one key and version the newest operation decides; a marker says that there is nothing.
                if head.kind != Kind::Retract && !self.cleared.is_some_and(|cleared| cleared.deletes(&head)) {
                    let Head { version, expires_at, tag, kind, .. } = head;
                    let value = self.value(&key, &head)?;
                    entry =
                        Some(DeltaEntry { key, version, kind: FoundKind::of(kind), value, expires_at, tag });
                }
            }
            self.merge.advance()?;
            if entry.is_some() {
                return Ok(entry);
            }
        }
        Ok(None)
    }

    fn value(&self, key: &[u8], head: &Head) -> Result<Bytes> {
        let payload = self.merge.payload()?;
        match head.kind {
            Kind::BlobPointer => {
                Ok(self.pin.blobs.read(&payload, key, head.version, Access::Wait)?.unwrap_or_default())
            }
            _ => Ok(payload),
        }
    }
}

impl Iterator for Delta {
    type Item = Result<DeltaEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let entry = self.advance();
        self.failed = entry.is_err();
        entry.transpose()
    }
}

impl std::fmt::Debug for Delta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tables = self.pin.levels.tables().count();
        f.debug_struct("Delta")
            .field("since", &self.since)
            .field("view", &self.view)
            .field("tables", &tables)
            .finish_non_exhaustive()
    }
}
