//! Reading a log around its damage: for checks and salvage. Nothing is changed.

use super::reader::{FIRST_GROUP_AT, SegmentReader};
use super::segments::{self, Segment};
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::types::Sequence;
use std::path::Path;

/// Gives every whole record of every segment in `dir` to `replay`, in order, and answers what is damaged: segments that are missing from
/// `needed_from` on, headers, groups.
pub(crate) fn read_whole_records(
    fs: &dyn Fs,
    dir: &Path,
    needed_from: Sequence,
    replay: &mut dyn FnMut(Sequence, &[u8]),
) -> Result<Vec<Error>> {
    let mut damages = Vec::new();
    if let Err(error) = segments::resolve(fs, dir, needed_from) {
        damages.push(only_damage(error)?);
    }
    let segments = segments::all_valid(fs, dir)?;
    for (index, segment) in segments.iter().enumerate() {
        let next = segments.get(index + 1).map(|next| next.header);
        let end = next.filter(|next| next.previous_id == segment.header.id).map(|next| next.previous_end);
        // A segment that the next one does not follow was cut off, or the one between is missing: all that is whole counts.
        read_segment(fs, segment, end, &mut damages, replay)?;
    }
    Ok(damages)
}

fn read_segment(
    fs: &dyn Fs,
    segment: &Segment,
    end: Option<u64>,
    damages: &mut Vec<Error>,
    replay: &mut dyn FnMut(Sequence, &[u8]),
) -> Result<()> {
    let mut reader = SegmentReader::open(fs, segment.clone())?;
    let (mut at, mut next) = (FIRST_GROUP_AT, segment.header.first_sequence);
    while end.is_none_or(|end| at < end) {
        let bad = match reader.group_at(at)? {
            Ok(group) => {
                let records = reader.records(group, &mut |sequence, record| {
                    replay(sequence, record);
                    Ok(())
                });
                match records {
                    Ok(after) => next = after,
                    Err(error) => damages.push(only_damage(error)?),
                }
                at = group.end();
                continue;
            }
            Err(bad) => bad,
        };
        // In the newest segment a bad group that nothing proves durable is the torn end.
        let torn = end.is_none() && reader.proof_of_durability(at, next)?.is_none();
        if torn {
            return Ok(());
        }
        let expected = format!("a group that begins at sequence {next}");
        damages.push(Error::damaged(&segment.path, at, expected, bad.found));
        match reader.next_group(at, next)?.filter(|&later| end.is_none_or(|end| later < end)) {
            Some(later) => at = later,
            None => return Ok(()),
        }
    }
    Ok(())
}

fn only_damage(error: Error) -> Result<Error> {
    match error {
        Error::Damaged { .. } => Ok(error),
        other => Err(other),
    }
}
