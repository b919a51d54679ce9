//! The judgement of a compaction: from the inputs' entries in order to those that must stay. It reads and writes nothing, so that it is
//! tested against a model of what every view sees.
//!
//! Entries of a key and version come from the newest source to the oldest. *Views* are the sequences that someone may read at; an entry
//! belongs to the *stripe* of views that see it and not the next newer one of its pair.

use super::rules::{AtKey, Rules};
use crate::iter::Cleared;
use crate::planted::{Planted, is_planted};
use crate::types::{InternalEntry, Kind, Sequence, Space, Version};
use bytes::Bytes;

/// An entry that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) entry: InternalEntry,
    /// Whether its sequence still tells something.
    pub(crate) keep_sequence: bool,
}

/// What was dropped that others must know of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    /// Entries of all kinds.
    pub(crate) entries: u64,
    /// The highest version of a tombstone or clear that was forgotten.
    pub(crate) tombstone: Option<Version>,
    /// Clears that are no more, by version and sequence.
    pub(crate) clears: Vec<(Version, Sequence)>,
}

/// The stream of one space.
pub(crate) struct Stream<'r> {
    rules: &'r Rules,
    space: Space,
    at: AtKey<'r>,
    clear: Option<(Version, Sequence)>,
    key: Option<Bytes>,
    /// For each view, and at the end the newest state, whether it sees an entry of the key that hides all lower ones.
    covered: Vec<bool>,
    /// Entries of the current key and version that differ for some view, the newest first, each with its stripe's first view.
    pair: Vec<(usize, InternalEntry)>,
    clears: Vec<InternalEntry>,
    dropped: Dropped,
}

impl<'r> Stream<'r> {
    pub(crate) fn new(rules: &'r Rules, space: Space) -> Stream<'r> {
        Stream {
            rules,
            space,
            at: AtKey::new(rules),
            clear: rules.settled_clear(),
            key: None,
            covered: vec![false; rules.views.len() + 1],
            pair: Vec::new(),
            clears: Vec::new(),
            dropped: Dropped::default(),
        }
    }

    /// Takes the next entry; what is decided is appended to `out`.
    pub(crate) fn offer(&mut self, entry: InternalEntry, out: &mut Vec<Kept>) {
        if self.space == Space::Clears {
            self.clears.push(entry);
            return;
        }
        let same_key = self.key.as_ref() == Some(&entry.key);
        if !same_key || self.pair.first().is_none_or(|(_, first)| first.version != entry.version) {
            self.close_pair(out);
        }
        if !same_key {
            self.at.enter(&entry.key);
            self.key = Some(entry.key.clone());
            self.covered.fill(false);
        }
        self.take(entry);
    }

    /// Decides what is left.
    pub(crate) fn finish(mut self, out: &mut Vec<Kept>) -> Dropped {
        self.close_pair(out);
        self.decide_clears(out);
        self.dropped
    }

    /// Adds an entry to its pair unless a newer one stands before it for every view that sees it.
    fn take(&mut self, mut entry: InternalEntry) {
        let under_clear = self.clear.is_some_and(|(version, batch)| {
            entry.version < version || entry.version == version && entry.sequence < batch
        });
        let released = self.space == Space::Notes && entry.version < self.rules.notes_floor;
        let stripe = self.rules.stripe(entry.sequence);
        let hidden = self.pair.last().is_some_and(|(newer, _)| *newer <= stripe);
        if hidden || released || under_clear && self.space == Space::Data {
            self.dropped.entries += 1;
            return;
        }
        let expired = entry.expires_at.is_some_and(|at| at <= self.rules.expiry_floor);
        if expired && matches!(entry.kind, Kind::Value | Kind::BlobPointer) {
            // The same on every replica, whenever each of them compacts: the version stays.
            entry.kind = Kind::Tombstone;
            entry.expires_at = None;
            entry.payload = Bytes::new();
        }
        self.pair.push((stripe, entry));
    }

    fn close_pair(&mut self, out: &mut Vec<Kept>) {
        let Some(version) = self.pair.first().map(|(_, entry)| entry.version) else { return };
        let before = self.pair.len();
        if self.space == Space::Data {
            let seen = self.cover(version);
            self.drop_covered();
            self.drop_markers();
            self.drop_tombstone(version);
            self.covered = seen;
        } else {
            self.drop_markers();
        }
        self.dropped.entries += (before - self.pair.len()) as u64;
        let surpassed = self.space == Space::Data && self.at.older_may_surpass(version);
        for (stripe, mut entry) in self.pair.drain(..) {
            entry.late &= surpassed && !is_planted(Planted::LateBitCleared);
            let keep_sequence =
                // Where a note stands tells nothing of its age.
                stripe > 0 || self.space == Space::Notes || self.rules.stands_with_clear(&entry);
            out.push(Kept { entry, keep_sequence });
        }
    }

    /// What each view sees, once it sees this pair too.
    fn cover(&self, version: Version) -> Vec<bool> {
        let mut covered = self.covered.clone();
        if self.rules.shadows(version) && !self.at.newer_may_retract() {
            let mut end = covered.len();
            for (stripe, entry) in &self.pair {
                if entry.kind != Kind::Retract {
                    covered.iter_mut().take(end).skip(*stripe).for_each(|view| *view = true);
                }
                end = *stripe;
            }
        }
        covered
    }

    /// Drops what a higher version hides from every view. Markers stay: another rule is theirs.
    fn drop_covered(&mut self) {
        let mut end = self.covered.len();
        let covered = &self.covered;
        self.pair.retain(|(stripe, entry)| {
            let views = covered.iter().take(end).skip(*stripe);
            end = *stripe;
            entry.kind == Kind::Retract || !views.copied().all(|view| view)
        });
    }

    /// Drops retract markers that hide nothing: the pair has no older entry here, and no older source can hold one.
    fn drop_markers(&mut self) {
        let Some(version) = self.pair.first().map(|(_, entry)| entry.version) else { return };
        let older = match self.space {
            Space::Notes => self.rules.note_elsewhere(version),
            _ => self.at.older_may_hold(version),
        };
        let older = older && !is_planted(Planted::RetractDroppedTooEarly);
        while !older && self.pair.last().is_some_and(|(_, entry)| entry.kind == Kind::Retract) {
            self.pair.pop();
        }
    }

    /// Drops a tombstone that hides nothing, for no view.
    fn drop_tombstone(&mut self, version: Version) {
        if let [(0, entry)] = &self.pair[..]
            && entry.kind == Kind::Tombstone
            && self.rules.shadows(version)
            && (self.at.tombstone_may_go(version) || is_planted(Planted::TombstoneDroppedTooEarly))
        {
            self.pair.clear();
            self.forgot(version);
        }
    }

    fn forgot(&mut self, version: Version) {
        self.dropped.tombstone = self.dropped.tombstone.max(Some(version));
    }

    /// Clears are few: they are judged together, by what is known of all clears of the tree.
    fn decide_clears(&mut self, out: &mut Vec<Kept>) {
        let entries = std::mem::take(&mut self.clears);
        let (clears, markers): (Vec<_>, Vec<_>) = entries.into_iter().partition(|e| e.kind == Kind::Clear);
        let mut kept = Vec::new();
        let mut gone = Vec::new();
        for clear in clears {
            if self.clear_goes(&clear) {
                gone.push((clear.version, clear.sequence));
            } else {
                kept.push(clear);
            }
        }
        // A marker goes with the last clear that it takes back.
        let rules = self.rules;
        let stands = |marker: &InternalEntry| {
            let target = |cleared: &Cleared| {
                cleared.version == marker.version
                    && cleared.sequence < marker.sequence
                    && !gone.contains(&(cleared.version, cleared.sequence))
            };
            rules.clears.marks.iter().any(|mark| target(&mark.cleared))
        };
        kept.extend(markers.into_iter().filter(stands));
        kept.sort_by_key(|entry| (!entry.version, !entry.sequence));
        self.dropped.entries += gone.len() as u64;
        self.dropped.clears.append(&mut gone);
        out.extend(kept.into_iter().map(|entry| Kept { entry, keep_sequence: true }));
    }

    fn clear_goes(&mut self, clear: &InternalEntry) -> bool {
        let here = (clear.version, clear.sequence);
        let mark = self.rules.clears.marks.iter().find(|m| (m.cleared.version, m.cleared.sequence) == here);
        let retracted = mark.and_then(|mark| mark.retracted);
        let stripe = self.rules.stripe(clear.sequence);
        if self.clear.is_some_and(|(settled, _)| clear.version < settled) {
            return true;
        }
        if let Some(retracted) = retracted {
            // Taken back before anyone could see it.
            return self.rules.stripe(retracted) == stripe;
        }
        let Some((settled, _)) = self.clear else { return false };
        let goes = clear.version == settled && stripe == 0 && self.rules.clear_may_go(clear.version);
        if goes {
            self.forgot(clear.version);
        }
        goes
    }
}
