//! What a compaction must know of the rest of the tree to judge an entry: who may still look at it, and what else may hold its key.

use crate::iter::{ClearMark, Clears};
use crate::sst::Properties;
use crate::types::{InternalEntry, Sequence, Version};
use bytes::Bytes;
use std::sync::Arc;

/// The keys and versions of a table that is not part of the compaction, in as far as they matter to it.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) smallest_key: Bytes,
    pub(crate) largest_key: Bytes,
    /// Whether it holds data: the keys mean nothing otherwise.
    pub(crate) has_data: bool,
    pub(crate) smallest_version: Version,
    pub(crate) largest_version: Version,
    pub(crate) smallest_late: Option<Version>,
    pub(crate) has_retracts: bool,
    pub(crate) note_versions: Option<(Version, Version)>,
}

impl Span {
    pub(crate) fn of(properties: &Properties) -> Span {
        Span {
            smallest_key: properties.smallest_key.clone(),
            largest_key: properties.largest_key.clone(),
            has_data: properties.entries > 0,
            smallest_version: properties.smallest_version,
            largest_version: properties.largest_version,
            smallest_late: properties.smallest_late,
            has_retracts: properties.retracts > 0,
            note_versions: properties.note_versions,
        }
    }

    fn holds(&self, version: Version) -> bool {
        self.smallest_version <= version && version <= self.largest_version
    }
}

/// What memtables hold, over all keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemorySpan {
    /// Smallest version of data; `u64::MAX` without any.
    pub(crate) smallest_version: Version,
    /// Whether there are retract markers.
    pub(crate) has_retracts: bool,
}

impl MemorySpan {
    /// Memtables without an entry.
    pub(crate) const EMPTY: MemorySpan = MemorySpan { smallest_version: Version::MAX, has_retracts: false };
}

/// The rules of one compaction: a fixed state, taken before it began.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// The sequences that someone may read at, ascending: snapshots, and what is published, where inputs hold more than that.
    pub(crate) views: Vec<Sequence>,
    /// History below is gone; `None` for a tree that keeps none at all.
    pub(crate) floor: Option<Version>,
    /// Tombstones and clears up to here may be dropped: the collection floor says so durably.
    pub(crate) drop_upto: Version,
    /// What expired up to here is deleted.
    pub(crate) expiry_floor: u64,
    /// Notes below are released.
    pub(crate) notes_floor: Version,
    /// All clears of the tree, wherever they stand.
    pub(crate) clears: Arc<Clears>,
    /// Tables that are older than the inputs where keys overlap.
    pub(crate) older: Vec<Span>,
    /// Tables that are newer.
    pub(crate) newer: Vec<Span>,
    /// Memtables, newer than any table.
    pub(crate) memory: MemorySpan,
}

impl Rules {
    /// The first of the views that sees the sequence; the number of views if only the newest state does.
    #[inline]
    pub(crate) fn stripe(&self, sequence: Sequence) -> usize {
        self.views.partition_point(|&view| view < sequence)
    }

    /// Whether an entry at `version` hides lower ones for good: nobody can read or retract below the floor.
    pub(crate) fn shadows(&self, version: Version) -> bool {
        self.floor.is_none_or(|floor| version <= floor)
    }

    /// Up to which version what every view sees as deleted may be forgotten.
    fn forget_upto(&self) -> Version {
        self.floor.map_or(self.drop_upto, |floor| floor.min(self.drop_upto))
    }

    /// The version and the batch of the highest clear that every view sees and nobody can take back any more.
    pub(crate) fn settled_clear(&self) -> Option<(Version, Sequence)> {
        let settled = |mark: &&ClearMark| {
            mark.retracted.is_none()
                && mark.cleared.version <= self.forget_upto()
                && self.stripe(mark.cleared.sequence) == 0
        };
        self.clears.marks.iter().rev().find(settled).map(|mark| (mark.cleared.version, mark.cleared.batch))
    }

    /// Whether the entry's sequence must be told from that of a clear of the same version.
    pub(crate) fn stands_with_clear(&self, entry: &InternalEntry) -> bool {
        self.clears.marks.iter().any(|mark| {
            mark.cleared.version == entry.version
                && mark.cleared.batch <= entry.sequence
                && entry.sequence > 0
        })
    }

    /// Whether a clear may be forgotten: nothing outside the inputs stands under it.
    pub(crate) fn clear_may_go(&self, version: Version) -> bool {
        version <= self.forget_upto()
            && self.older.iter().chain(&self.newer).all(|span| span.smallest_version > version)
            && self.memory.smallest_version > version
    }

    /// Whether a table outside the inputs may hold a note of this version.
    pub(crate) fn note_elsewhere(&self, version: Version) -> bool {
        let holds =
            |span: &Span| span.note_versions.is_some_and(|(low, high)| low <= version && version <= high);
        self.older.iter().any(holds)
    }
}

/// The rules at a key. Keys must rise: tables are entered and left in passing.
pub(crate) struct AtKey<'r> {
    rules: &'r Rules,
    older: Sweep<'r>,
    newer: Sweep<'r>,
}

impl<'r> AtKey<'r> {
    pub(crate) fn new(rules: &'r Rules) -> AtKey<'r> {
        AtKey { rules, older: Sweep::new(&rules.older), newer: Sweep::new(&rules.newer) }
    }

    pub(crate) fn enter(&mut self, key: &[u8]) {
        self.older.enter(key);
        self.newer.enter(key);
    }

    /// Whether an older source may hold this pair of key and version.
    pub(crate) fn older_may_hold(&self, version: Version) -> bool {
        self.older.any(|span| span.holds(version))
    }

    /// Whether an older source may hold the key at a higher version.
    pub(crate) fn older_may_surpass(&self, version: Version) -> bool {
        self.older.any(|span| span.largest_version > version)
    }

    /// Whether a newer source may take back an entry of the key.
    pub(crate) fn newer_may_retract(&self) -> bool {
        self.rules.memory.has_retracts || self.newer.any(|span| span.has_retracts)
    }

    /// Whether a tombstone that every view sees, and that hides all that the inputs hold below it, may be forgotten.
    pub(crate) fn tombstone_may_go(&self, version: Version) -> bool {
        version <= self.rules.forget_upto()
            && self.rules.memory.smallest_version > version
            && !self.newer_may_retract()
            && !self.older.any(|span| span.smallest_version <= version)
            && !self.newer.any(|span| span.smallest_late.is_some_and(|late| late <= version))
    }
}

/// The tables that a rising key is within.
struct Sweep<'r> {
    /// By smallest key.
    spans: Vec<&'r Span>,
    next: usize,
    active: Vec<&'r Span>,
}

impl<'r> Sweep<'r> {
    fn new(spans: &'r [Span]) -> Sweep<'r> {
        let mut spans: Vec<_> = spans.iter().filter(|span| span.has_data).collect();
        spans.sort_by(|a, b| a.smallest_key.cmp(&b.smallest_key));
        Sweep { spans, next: 0, active: Vec::new() }
    }

    fn enter(&mut self, key: &[u8]) {
        while let Some(span) = self.spans.get(self.next).filter(|span| *span.smallest_key <= *key) {
            self.active.push(span);
            self.next += 1;
        }
        self.active.retain(|span| *span.largest_key >= *key);
    }

    fn any(&self, test: impl Fn(&Span) -> bool) -> bool {
        self.active.iter().any(|span| test(span))
    }
}
