//! What of a table is garbage, as far as its properties tell: tables that can go unread, and those that are worth rewriting though no
//! level is too large.

use super::rules::{MemorySpan, Rules, Span};
use super::strategy::{LEVELS, Shape, overlap};
use crate::sst::{Properties, TableMeta};
use crate::types::{Sequence, Version};
use std::collections::HashMap;

/// A table is rewritten when at least one entry in this many is garbage.
const GARBAGE_PART: u64 = 5;

/// What the tree's floors and views allow to be forgotten.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Forgettable<'a> {
    /// History below is gone; `None` for a tree that keeps none.
    pub(crate) floor: Option<Version>,
    /// Tombstones up to here may be forgotten.
    pub(crate) tombstone_floor: Version,
    /// What expired up to here is deleted.
    pub(crate) expiry_floor: u64,
    /// Notes below are released.
    pub(crate) notes_floor: Version,
    /// The highest clear that every view sees and nobody can take back.
    pub(crate) settled_clear: Option<Version>,
    /// The oldest sequence that someone may read at; `u64::MAX` without any.
    pub(crate) oldest_view: Sequence,
    /// What memtables hold.
    pub(crate) memory: MemorySpan,
    /// Garbage that tables seemed to hold right after they were written: that much is no garbage, or can't be dropped.
    pub(crate) baseline: &'a HashMap<u64, u64>,
}

/// Tables that can be dropped unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disposal {
    pub(crate) tables: Vec<u64>,
    /// The highest version of a tombstone that goes with them, be it one that an expired entry stands for.
    pub(crate) collects: Version,
}

impl Forgettable<'_> {
    /// Up to which version deletions may be forgotten.
    fn forget_upto(&self) -> Version {
        self.floor.map_or(self.tombstone_floor, |floor| floor.min(self.tombstone_floor))
    }

    /// All tables that hold nothing any more.
    pub(crate) fn unread(&self, shape: &Shape<'_>) -> Option<Disposal> {
        let mut disposal = Disposal { tables: Vec::new(), collects: 0 };
        for (level, tables) in shape.levels.iter().enumerate() {
            for (place, table) in tables.iter().enumerate() {
                if let Some(collects) = self.goes_unread(shape, (level, place), table) {
                    disposal.tables.push(table.id);
                    disposal.collects = disposal.collects.max(collects);
                }
            }
        }
        (!disposal.tables.is_empty()).then_some(disposal)
    }

    /// If the table can go unread, up to which version that collects.
    fn goes_unread(&self, shape: &Shape<'_>, place: (usize, usize), table: &TableMeta) -> Option<Version> {
        let p = &table.properties;
        if p.note_versions.is_some_and(|(_, largest)| largest >= self.notes_floor) {
            return None;
        }
        if p.entries == 0 && p.clears == 0 {
            return Some(0);
        }
        if let Some(clear) = self.settled_clear.filter(|&clear| p.largest_version < clear) {
            return Some(clear);
        }
        self.wholly_expired(shape, place, table).then_some(p.largest_version)
    }

    /// Whether all entries have expired, and the tombstones that they stand for hide nothing.
    fn wholly_expired(&self, shape: &Shape<'_>, place: (usize, usize), table: &TableMeta) -> bool {
        let p = &table.properties;
        let expired = p.expiry.is_some_and(|(_, latest)| latest <= self.expiry_floor)
            && p.expiring == p.entries
            && (p.tombstones, p.retracts, p.clears) == (0, 0, 0);
        expired
            && p.largest_version <= self.forget_upto()
            && p.largest_sequence <= self.oldest_view
            && self.memory.smallest_version > p.largest_version
            && !self.memory.has_retracts
            && shape.levels.iter().enumerate().all(|(level, tables)| {
                tables.iter().enumerate().all(|(at, other)| {
                    other.id == table.id
                        || !overlap(other, table)
                        || apart(&other.properties, p, (level, at) > place)
                })
            })
    }

    /// The table of which most is garbage, if that is enough to rewrite it.
    pub(crate) fn worst<'t>(&self, shape: &Shape<'t>) -> Option<(usize, &'t TableMeta)> {
        let garbage = |level: usize, table: &'t TableMeta| {
            let p = &table.properties;
            let all = (p.entries + p.notes + p.clears).max(1);
            // To look through all deeper tables costs more than to read properties: only where it could matter.
            let most = self.estimate(p, true);
            let bottom =
                || (level + 1..LEVELS).all(|below| !shape.levels[below].iter().any(|t| overlap(t, table)));
            let deep = level > 0 && most >= all / GARBAGE_PART && bottom();
            let found = if deep { most } else { self.estimate(p, false) };
            let found = found + self.idle_clears(shape, table);
            let found = found.saturating_sub(self.baseline.get(&table.id).copied().unwrap_or(0));
            (found.saturating_mul(1000) / all, level, table)
        };
        let tables = shape
            .levels
            .iter()
            .enumerate()
            .flat_map(|(level, tables)| tables.iter().map(move |t| (level, *t)));
        let worst = tables
            .map(|(level, table)| garbage(level, table))
            .max_by_key(|(part, _, table)| (*part, table.id));
        worst.filter(|(part, _, _)| *part >= 1000 / GARBAGE_PART).map(|(_, level, table)| (level, table))
    }

    /// How many clears of a table could be forgotten, as nothing stands under them any more.
    fn idle_clears(&self, shape: &Shape<'_>, table: &TableMeta) -> u64 {
        let p = &table.properties;
        let Some(highest) =
            p.largest_tombstone.filter(|&highest| p.clears > 0 && highest <= self.forget_upto())
        else {
            return 0;
        };
        let above = |other: &&TableMeta| other.id == table.id || other.properties.smallest_version > highest;
        let idle = p.largest_sequence <= self.oldest_view
            && self.memory.smallest_version > highest
            && shape.levels.iter().flatten().all(above);
        if idle { p.clears } else { 0 }
    }

    /// About how many of a table's entries a rewrite would drop; `bottom` if nothing deeper holds its keys. Where only part of a range
    /// of versions or times counts, entries are taken as spread evenly.
    pub(crate) fn estimate(&self, p: &Properties, bottom: bool) -> u64 {
        if p.largest_sequence > self.oldest_view {
            return 0;
        }
        let below = |upto: Version| part_of(p.smallest_version, p.largest_version, upto);
        let shadowed = scale(p.shadowed, self.floor.map_or(1000, below));
        let released = p
            .note_versions
            .map_or(0, |(low, high)| scale(p.notes, part_of(low, high, self.notes_floor.saturating_sub(1))));
        let cleared = self.settled_clear.map_or(0, |clear| scale(p.entries, below(clear)));
        let expired =
            p.expiry.map_or(0, |(low, high)| scale(p.expiring, part_of(low, high, self.expiry_floor)));
        let forgotten = if self.memory.has_retracts || self.memory.smallest_version <= p.smallest_version {
            0
        } else {
            let largest = p.largest_tombstone.unwrap_or(p.largest_version);
            scale(p.tombstones, part_of(p.smallest_version, largest, self.forget_upto()))
        };
        // Higher up, tombstones are worth taking down to what they hide; what has expired becomes one of them.
        let deleted = if bottom { expired + forgotten } else { expired.max(forgotten) };
        (shadowed + cleared + deleted).min(p.entries) + released
    }
}

/// Whether another table's entries neither show once a deletion in this one is forgotten nor are taken back by it.
fn apart(other: &Properties, this: &Properties, older: bool) -> bool {
    if older {
        other.smallest_version > this.largest_version
    } else {
        other.retracts == 0 && other.smallest_late.is_none_or(|late| late > this.largest_version)
    }
}

/// Which part of the range lies at or below `upto`, in thousandths.
fn part_of(low: u64, high: u64, upto: u64) -> u64 {
    if upto < low {
        return 0;
    }
    if upto >= high {
        return 1000;
    }
    (u128::from(upto - low) * 1000 / u128::from(high - low)) as u64
}

fn scale(count: u64, thousandths: u64) -> u64 {
    (u128::from(count) * u128::from(thousandths) / 1000) as u64
}

/// The state that is judged by, for a compaction of these tables.
pub(crate) fn spans<'a>(tables: impl Iterator<Item = &'a TableMeta>) -> Vec<Span> {
    tables.map(|table| Span::of(&table.properties)).collect()
}

impl Rules {
    /// The rules as the strategy sees them.
    pub(crate) fn forgettable<'a>(
        &self,
        tombstone_floor: Version,
        baseline: &'a HashMap<u64, u64>,
    ) -> Forgettable<'a> {
        Forgettable {
            floor: self.floor,
            tombstone_floor,
            expiry_floor: self.expiry_floor,
            notes_floor: self.notes_floor,
            settled_clear: Rules { drop_upto: tombstone_floor, ..self.clone() }
                .settled_clear()
                .map(|(version, _)| version),
            oldest_view: self.views.first().copied().unwrap_or(Sequence::MAX),
            memory: self.memory,
            baseline,
        }
    }
}
