//! Which blob files are worth emptying.

use super::BlobSet;
use crate::sst::TableMeta;
use std::collections::HashMap;

/// A file of which at least one part in this many is dead is emptied.
const DEAD_PART: u64 = 2;
/// The file with most dead bytes is emptied, whatever its part, when of all files together one part in this many is dead.
const DEAD_PART_OF_ALL: u64 = 4;

/// The bytes of each blob file that tables point at. Files that none points at are not in it.
pub(crate) fn live_bytes<'a>(tables: impl Iterator<Item = &'a TableMeta>) -> HashMap<u64, u64> {
    let mut live = HashMap::new();
    for blob in tables.flat_map(TableMeta::blobs) {
        *live.entry(blob.file).or_insert(0) += blob.bytes;
    }
    live
}

/// The files that are to be emptied: few at a time, as it is done table by table.
pub(crate) fn victims(blobs: &BlobSet, live: &HashMap<u64, u64>) -> Vec<u64> {
    let mut files: Vec<(u64, u64, u64)> = blobs
        .iter()
        .map(|blob| (blob.meta.id, blob.meta.value_bytes, live.get(&blob.meta.id).copied().unwrap_or(0)))
        .map(|(id, all, live)| (all.saturating_sub(live), all, id))
        .filter(|&(dead, all, _)| dead > 0 && dead < all)
        .collect();
    files.sort_unstable_by(|a, b| b.cmp(a));
    let all: u64 = blobs.iter().map(|blob| blob.meta.value_bytes).sum();
    let dead: u64 = files.iter().map(|(dead, ..)| dead).sum();
    let worst = files.first().filter(|_| dead >= all / DEAD_PART_OF_ALL).map(|(_, _, id)| *id);
    let half = files.iter().filter(|(dead, all, _)| *dead >= all / DEAD_PART).map(|(_, _, id)| *id);
    let mut victims: Vec<u64> = worst.into_iter().chain(half).collect();
    victims.sort_unstable();
    victims.dedup();
    victims
}
