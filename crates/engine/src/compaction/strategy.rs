//! What to compact next: a pure choice over the tables' properties. Leveled (O'Neil et al.: *The Log-Structured Merge-Tree*, 1996; levels of
//! disjoint tables as LevelDB made them known), with level sizes that follow the largest level, so that space stays near that of the
//! live data whatever the tree's size.

use super::garbage::{Disposal, Forgettable};
use crate::sst::TableMeta;

/// How many levels there are, level 0 included.
pub(crate) const LEVELS: usize = crate::version::LEVELS;

/// A level is this many times larger than the one above.
const LEVEL_FACTOR: u64 = 10;
/// Tables in level 0 from which on some are merged, however small they are: each costs every lookup a look at its filter.
const LEVEL_0_TABLES_MAX: usize = 8;
/// Level 0 goes down, rather than being merged within itself, when what it meets there is at most this many times its size.
const MEETS_FACTOR_MAX: u64 = 8;
/// Level 0 is brought down in quiet times unless what it meets there is more than this many times its size.
const SETTLED_PART: u64 = 16;
/// Bytes that one compaction may take of level 0, in targets of that level.
const LEVEL_0_TARGETS_MAX: u64 = 4;

/// The sizes that a tree's levels strive for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Level 0 is compacted from this many bytes on; the least target of any level.
    pub(crate) level_0_bytes: u64,
    /// Bytes at which an output table is closed.
    pub(crate) table_bytes: u64,
    /// Whether there is time for what does not press: nobody has written for a while, or it was asked for.
    pub(crate) idle: bool,
}

/// The tables of a tree, by level: of level 0 the newest first, of others by key.
#[derive(Debug, Clone)]
pub(crate) struct Shape<'a> {
    pub(crate) levels: [Vec<&'a TableMeta>; LEVELS],
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Tables that hold nothing any more go unread; the collection floor must be at least this.
    Drop { tables: Vec<u64>, collects: u64 },
    /// A table goes to another level as it is.
    Move { table: u64, to: usize },
    /// Tables are merged into new ones of a level.
    Merge { inputs: Vec<u64>, to: usize },
}

/// The next thing to do for a tree; `None` if it is in order. `victims` are blob files that are to be emptied.
pub(crate) fn choose(
    shape: &Shape<'_>,
    sizes: &Sizes,
    forgettable: &Forgettable<'_>,
    victims: &[u64],
) -> Option<Choice> {
    if let Some(Disposal { tables, collects }) = forgettable.unread(shape) {
        return Some(Choice::Drop { tables, collects });
    }
    let targets = Targets::of(shape, sizes);
    let pressing = targets.most_pressing(shape);
    match pressing {
        Some(0) => Some(from_level_0(shape, sizes, targets.base)),
        Some(level) => Some(down(shape, level, cheapest(shape, level)?)),
        None => {
            let wasteful = forgettable.worst(shape).or_else(|| points_into(shape, victims));
            if let Some((level, table)) = wasteful {
                return Some(rewrite(shape, level, table, targets.base));
            }
            (sizes.idle && worth_settling(shape, targets.base)).then(|| all_of_level_0(shape, targets.base))
        }
    }
}

/// Bytes that stand above where they belong: all of level 0, and what levels hold beyond their targets.
pub(crate) fn debt(shape: &Shape<'_>, sizes: &Sizes) -> u64 {
    let targets = Targets::of(shape, sizes);
    let beyond = |level: usize| bytes_of(&shape.levels[level]).saturating_sub(targets.bytes[level]);
    bytes_of(&shape.levels[0]) + (1..LEVELS - 1).map(beyond).sum::<u64>()
}

/// Where each level's target lies.
struct Targets {
    bytes: [u64; LEVELS],
    /// Where level 0 goes.
    base: usize,
}

impl Targets {
    fn of(shape: &Shape<'_>, sizes: &Sizes) -> Targets {
        let largest = (1..LEVELS).map(|level| bytes_of(&shape.levels[level])).max().unwrap_or(0);
        let mut bytes = [0; LEVELS];
        let mut base = LEVELS - 1;
        bytes[base] = largest.max(sizes.level_0_bytes);
        while base > 1 && bytes[base] / LEVEL_FACTOR >= sizes.level_0_bytes {
            bytes[base - 1] = bytes[base] / LEVEL_FACTOR;
            base -= 1;
        }
        // What stands above the base (the tree has shrunk) must not be passed by.
        let filled = (1..LEVELS).find(|&level| !shape.levels[level].is_empty()).unwrap_or(base);
        bytes[0] = sizes.level_0_bytes;
        Targets { bytes, base: base.min(filled) }
    }

    /// The level that is furthest beyond its target; of level 0 the number of tables counts too.
    fn most_pressing(&self, shape: &Shape<'_>) -> Option<usize> {
        let score = |level: usize| {
            let tables = &shape.levels[level];
            // In thousandths, so that no floating point decides.
            let by_bytes = bytes_of(tables).saturating_mul(1000) / self.bytes[level].max(1);
            let by_count = if level == 0 { tables.len() * 1000 / LEVEL_0_TABLES_MAX } else { 0 };
            by_bytes.max(by_count as u64)
        };
        let last = LEVELS - 1;
        let most =
            (0..last).map(|level| (score(level), level)).max_by_key(|&(score, level)| (score, last - level));
        most.filter(|&(score, level)| score > 1000 || level == 0 && score >= 1000).map(|(_, level)| level)
    }
}

/// Level 0 goes to the base level, a single table unchanged if it meets nothing. Where it would meet far more than it is itself, its
/// smallest tables are merged first.
fn from_level_0(shape: &Shape<'_>, sizes: &Sizes, base: usize) -> Choice {
    let tables = &shape.levels[0];
    let mut inputs: Vec<&TableMeta> = Vec::new();
    // From the oldest: no table may pass by an older one.
    for table in tables.iter().rev() {
        if bytes_of(&inputs) >= sizes.level_0_bytes * LEVEL_0_TARGETS_MAX {
            break;
        }
        inputs.push(table);
    }
    if let Some(oldest) = tables.last()
        && overlapping(&shape.levels[base], &[oldest]).is_empty()
        && tables[..tables.len() - 1].iter().all(|newer| !overlap(newer, oldest))
    {
        return Choice::Move { table: oldest.id, to: base };
    }
    let met = overlapping(&shape.levels[base], &inputs);
    let level_0 = bytes_of(&inputs);
    if bytes_of(&met) > level_0 * MEETS_FACTOR_MAX
        && bytes_of(tables) < sizes.level_0_bytes
        && let Some(run) = youngest_run(tables)
    {
        return Choice::Merge { inputs: run, to: 0 };
    }
    Choice::Merge { inputs: ids(inputs.iter().rev().copied().chain(met)), to: base }
}

/// Whether level 0 is worth bringing down though nothing presses: what stands there hides what stands below, and costs each lookup.
fn worth_settling(shape: &Shape<'_>, base: usize) -> bool {
    let tables = &shape.levels[0];
    let met = bytes_of(&overlapping(&shape.levels[base], tables));
    bytes_of(tables) * SETTLED_PART > met && !tables.is_empty()
}

fn all_of_level_0(shape: &Shape<'_>, base: usize) -> Choice {
    let tables = &shape.levels[0];
    let met = overlapping(&shape.levels[base], tables);
    match (&tables[..], &met[..]) {
        ([only], []) => Choice::Move { table: only.id, to: base },
        _ => Choice::Merge { inputs: ids(tables.iter().copied().chain(met)), to: base },
    }
}

/// The newest tables of level 0, as far as none is larger than all newer ones together: so each entry is merged a logarithmic number of
/// times.
fn youngest_run(tables: &[&TableMeta]) -> Option<Vec<u64>> {
    let mut run: Vec<&TableMeta> = Vec::new();
    for table in tables {
        if run.len() >= 2 && table.file_bytes > bytes_of(&run) {
            break;
        }
        run.push(table);
    }
    (run.len() >= 2).then(|| ids(run.into_iter()))
}

/// The table of a level that meets least below, for its size.
fn cheapest<'a>(shape: &Shape<'a>, level: usize) -> Option<&'a TableMeta> {
    let cost = |table: &&TableMeta| {
        let met = bytes_of(&overlapping(&shape.levels[level + 1], &[*table]));
        (met.saturating_mul(1000) / table.file_bytes.max(1), table.id)
    };
    shape.levels[level].iter().copied().min_by_key(cost)
}

/// One table goes a level down.
fn down(shape: &Shape<'_>, level: usize, table: &TableMeta) -> Choice {
    let met = overlapping(&shape.levels[level + 1], &[table]);
    if met.is_empty() {
        return Choice::Move { table: table.id, to: level + 1 };
    }
    Choice::Merge { inputs: ids([table].into_iter().chain(met)), to: level + 1 }
}

/// A table with garbage is merged with what it meets in the next level that holds some of its keys; alone, where none does.
fn rewrite(shape: &Shape<'_>, level: usize, table: &TableMeta, base: usize) -> Choice {
    if level == 0 {
        // With all that is older: its garbage hides or is hidden by what stands there.
        let place = shape.levels[0].iter().position(|other| other.id == table.id).unwrap_or(0);
        let inputs: Vec<_> = shape.levels[0][place..].to_vec();
        let met = overlapping(&shape.levels[base], &inputs);
        return Choice::Merge { inputs: ids(inputs.into_iter().chain(met)), to: base };
    }
    let next = (level + 1..LEVELS).find(|&below| !overlapping(&shape.levels[below], &[table]).is_empty());
    match next {
        Some(below) if below == level + 1 => down(shape, level, table),
        // Through the empty levels between: no entry of its keys stands there.
        Some(below) => Choice::Move { table: table.id, to: below - 1 },
        None => Choice::Merge { inputs: vec![table.id], to: level },
    }
}

/// A table that points into a blob file that is to be emptied, the lowest level first: what lies there stays.
fn points_into<'a>(shape: &Shape<'a>, victims: &[u64]) -> Option<(usize, &'a TableMeta)> {
    let points = |table: &&&TableMeta| table.blobs().iter().any(|blob| victims.contains(&blob.file));
    let level = |level: usize| shape.levels[level].iter().find(points).map(|table| (level, *table));
    (0..LEVELS).rev().find_map(level)
}

fn ids<'a>(tables: impl Iterator<Item = &'a TableMeta>) -> Vec<u64> {
    tables.map(|table| table.id).collect()
}

pub(super) fn bytes_of(tables: &[&TableMeta]) -> u64 {
    tables.iter().map(|table| table.file_bytes).sum()
}

/// Whether the key ranges of two tables have a key in common. A table without data has no range.
pub(super) fn overlap(a: &TableMeta, b: &TableMeta) -> bool {
    let (a, b) = (&a.properties, &b.properties);
    a.entries > 0 && b.entries > 0 && a.smallest_key <= b.largest_key && b.smallest_key <= a.largest_key
}

/// The tables of a level within the range from the smallest to the largest key of others.
fn overlapping<'a>(level: &[&'a TableMeta], others: &[&TableMeta]) -> Vec<&'a TableMeta> {
    let others: Vec<_> = others.iter().map(|t| &t.properties).filter(|p| p.entries > 0).collect();
    let smallest = others.iter().map(|p| &p.smallest_key).min();
    let largest = others.iter().map(|p| &p.largest_key).max();
    let (Some(smallest), Some(largest)) = (smallest, largest) else { return Vec::new() };
    let within = |table: &&&TableMeta| {
        let p = &table.properties;
        p.entries > 0 && p.smallest_key <= *largest && *smallest <= p.largest_key
    };
    level.iter().filter(within).copied().collect()
}
