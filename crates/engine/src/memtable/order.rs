//! Order, made when somebody asks for it: entries that came since the last time are sorted into a run of their own, and runs of like size are
//! merged. So each entry is moved a few times at most, however scans and writes alternate.

use super::Position;
use super::entries::{Entries, Entry};
use crate::codec::common_prefix;
use parking_lot::Mutex;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// Entries in internal order.
type Run = Arc<[u32]>;

#[derive(Default)]
pub(super) struct Order {
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    /// Entries below are in runs.
    covered: u32,
    /// The largest first.
    runs: Vec<Run>,
}

fn internal_order(entries: &Entries, a: u32, b: u32) -> Ordering {
    let (Some(a), Some(b)) = (entries.get(a), entries.get(b)) else { return Ordering::Equal };
    a.key()
        .cmp(b.key())
        .then_with(|| b.version().cmp(&a.version()))
        .then_with(|| b.sequence().cmp(&a.sequence()))
}

/// The first bytes as a number: decides most comparisons without a look at the key.
fn first_bytes(key: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = key.len().min(8);
    bytes[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(bytes)
}

fn sort(entries: &Entries, from: u32, to: u32) -> Run {
    let key = |index: u32| entries.get(index).map_or(&[][..], Entry::key);
    let one = key(from);
    // What all keys begin with tells nothing.
    let shared = (from..to).map(|index| common_prefix(one, key(index))).min().unwrap_or(0);
    let mut fresh: Vec<(u64, u32)> =
        (from..to).map(|index| (first_bytes(&key(index)[shared..]), index)).collect();
    fresh.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| internal_order(entries, a.1, b.1)));
    fresh.into_iter().map(|(_, index)| index).collect()
}

fn merge(entries: &Entries, a: &[u32], b: &[u32]) -> Run {
    let mut merged = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().copied().peekable(), b.iter().copied().peekable());
    while let (Some(&x), Some(&y)) = (a.peek(), b.peek()) {
        if internal_order(entries, x, y) == Ordering::Greater {
            merged.extend(b.next());
        } else {
            merged.extend(a.next());
        }
    }
    merged.extend(a);
    merged.extend(b);
    merged.into()
}

impl Order {
    /// Runs that hold all entries that are there now.
    fn runs(&self, entries: &Entries) -> Vec<Run> {
        let mut made = self.made.lock();
        let len = entries.len();
        if made.covered < len {
            let fresh = sort(entries, made.covered, len);
            made.covered = len;
            made.runs.push(fresh);
            while let [.., larger, last] = &made.runs[..] {
                if larger.len() > last.len() * 2 {
                    break;
                }
                let merged = merge(entries, larger, last);
                let kept = made.runs.len() - 2;
                made.runs.truncate(kept);
                made.runs.push(merged);
            }
        }
        made.runs.clone()
    }

    /// Shows up to `limit` entries between two places, in order or from the end backwards.
    pub(super) fn scan(
        &self,
        entries: &Entries,
        range: (Bound<&Position>, Bound<&Position>),
        backward: bool,
        limit: usize,
        show: &mut dyn FnMut(u32),
    ) {
        let runs = self.runs(entries);
        let mut parts: Vec<&[u32]> =
            runs.iter().map(|run| within(entries, run, range)).filter(|part| !part.is_empty()).collect();
        for _ in 0..limit {
            let next = match (&mut parts[..], backward) {
                ([], _) => return,
                ([part], false) => part.split_off_first().copied(),
                ([part], true) => part.split_off_last().copied(),
                (parts, false) => least(entries, parts),
                (parts, true) => greatest(entries, parts),
            };
            if let Some(next) = next {
                show(next);
            }
            parts.retain(|part| !part.is_empty());
        }
    }
}

fn least(entries: &Entries, parts: &mut [&[u32]]) -> Option<u32> {
    let compare = |a: &&mut &[u32], b: &&mut &[u32]| match (a.first(), b.first()) {
        (Some(&a), Some(&b)) => internal_order(entries, a, b),
        _ => Ordering::Equal,
    };
    parts.iter_mut().min_by(compare)?.split_off_first().copied()
}

fn greatest(entries: &Entries, parts: &mut [&[u32]]) -> Option<u32> {
    let compare = |a: &&mut &[u32], b: &&mut &[u32]| match (a.last(), b.last()) {
        (Some(&a), Some(&b)) => internal_order(entries, a, b),
        _ => Ordering::Equal,
    };
    parts.iter_mut().max_by(compare)?.split_off_last().copied()
}

/// The part of a run that lies between two places.
fn within<'r>(
    entries: &Entries,
    run: &'r [u32],
    (low, high): (Bound<&Position>, Bound<&Position>),
) -> &'r [u32] {
    let against = |index: u32, position: &Position| {
        let Some(entry) = entries.get(index) else { return Ordering::Equal };
        let keys = entry.key().cmp(&position.key);
        keys.then_with(|| position.version.cmp(&entry.version()))
            .then_with(|| position.sequence.cmp(&entry.sequence()))
    };
    let from = match low {
        Bound::Unbounded => 0,
        Bound::Included(position) => run.partition_point(|&index| against(index, position) == Ordering::Less),
        Bound::Excluded(position) => {
            run.partition_point(|&index| against(index, position) != Ordering::Greater)
        }
    };
    let to = match high {
        Bound::Unbounded => run.len(),
        Bound::Included(position) => {
            run.partition_point(|&index| against(index, position) != Ordering::Greater)
        }
        Bound::Excluded(position) => run.partition_point(|&index| against(index, position) == Ordering::Less),
    };
    run.get(from..to).unwrap_or_default()
}
