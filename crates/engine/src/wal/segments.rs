//! The folder of segments: their names, and which of them hold what recovery needs.

use super::format::{FORMAT, HEADER_BYTES, HeaderPage, SegmentHeader};
use crate::error::{Error, Result};
use crate::fs::{File, Fs};
use crate::planted::{Planted, is_planted};
use crate::types::Sequence;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much of an unusable segment's body is looked at to tell an unused one from a damaged one: its first group starts right there.
const BODY_LOOK_BYTES: usize = 64 * 1024;

/// A segment with a valid header.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    /// Bytes of the file.
    pub(super) file_bytes: u64,
}

/// What the folder holds.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// The segments that hold what is needed, oldest first, each naming the one before it.
    pub(super) live: Vec<Segment>,
    /// Older ones, oldest first.
    pub(super) older: Vec<Segment>,
    /// Created ahead and never used, or cut off by a crash before anything was in them.
    pub(super) void: Vec<PathBuf>,
    /// The highest number any name has.
    pub(super) highest_id: u64,
}

/// The path of segment `id`.
pub(super) fn segment_path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:012}.wal"))
}

fn segment_id(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let plain = digits.len() >= 12 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// Reads the headers in `dir` and finds the segments that hold every record from sequence `needed_from` on.
///
/// # Errors
/// Damage, if a segment is missing or its header is unusable though something was written behind it.
pub(super) fn resolve(fs: &dyn Fs, dir: &Path, needed_from: Sequence) -> Result<Chain> {
    let mut chain = Chain::default();
    let mut valid = BTreeMap::new();
    let mut unusable = Vec::new();
    for entry in fs.list(dir).map_err(|error| Error::io("list", dir, error))? {
        let Some(id) = segment_id(&entry.name) else { continue };
        let path = dir.join(&entry.name);
        chain.highest_id = chain.highest_id.max(id);
        match read_header(fs, &path, id)? {
            Ok((header, file_bytes)) => {
                valid.insert(id, Segment { path, header, file_bytes });
            }
            Err(unusable_header) => unusable.push((id, path, unusable_header)),
        }
    }
    let newest = valid.keys().next_back().copied().unwrap_or(0);
    for (id, path, unusable) in unusable {
        // A header is synced before the first group is written, so an unusable one in front of something was usable once. One that is
        // older than a valid segment was void already when that one was begun, or the chain will miss it.
        if id > newest && unusable.body_used {
            return Err(Error::damaged(&path, 0, "the header of a log segment", unusable.found));
        }
        chain.void.push(path);
    }
    chain.live = link(dir, &mut valid, newest, needed_from)?;
    chain.older = valid.into_values().collect();
    Ok(chain)
}

/// All segments in `dir` whose header can be read, oldest first.
pub(super) fn all_valid(fs: &dyn Fs, dir: &Path) -> Result<Vec<Segment>> {
    let mut valid = BTreeMap::new();
    for entry in fs.list(dir).map_err(|error| Error::io("list", dir, error))? {
        let Some(id) = segment_id(&entry.name) else { continue };
        let path = dir.join(&entry.name);
        match read_header(fs, &path, id) {
            Ok(Ok((header, file_bytes))) => drop(valid.insert(id, Segment { path, header, file_bytes })),
            Ok(Err(_)) | Err(Error::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(valid.into_values().collect())
}

/// Takes out of `valid` the segments from the one that holds `needed_from` to the newest.
fn link(
    dir: &Path,
    valid: &mut BTreeMap<u64, Segment>,
    newest: u64,
    needed_from: Sequence,
) -> Result<Vec<Segment>> {
    let mut live = Vec::new();
    let mut wanted = newest;
    while let Some(segment) = valid.remove(&wanted) {
        let header = segment.header;
        live.push(segment);
        if header.first_sequence <= needed_from {
            break;
        }
        wanted = header.previous_id;
        if !valid.contains_key(&wanted) {
            return Err(Error::damaged(
                &segment_path(dir, wanted),
                0,
                format!("the log segment before {}, with records from sequence {needed_from} on", header.id),
                "none",
            ));
        }
    }
    live.reverse();
    Ok(live)
}

struct Unusable {
    found: String,
    body_used: bool,
}

fn read_header(
    fs: &dyn Fs,
    path: &Path,
    id: u64,
) -> Result<std::result::Result<(SegmentHeader, u64), Unusable>> {
    let file = fs.open(path, false).map_err(|error| Error::io("open", path, error))?;
    let mut page = vec![0; HEADER_BYTES];
    let read = read_some(&*file, path, &mut page, 0)?;
    page.truncate(read);
    let found = match SegmentHeader::decode(&page) {
        HeaderPage::Valid(header) if header.id == id => {
            let file_bytes = file.len().map_err(|error| Error::io("measure", path, error))?;
            return Ok(Ok((header, file_bytes)));
        }
        HeaderPage::Valid(header) => {
            return Err(Error::damaged(
                path,
                0,
                format!("the header of segment {id}"),
                format!("that of segment {}", header.id),
            ));
        }
        HeaderPage::UnknownFormat(format) => {
            let (path, found) = (path.to_owned(), format!("log format {format}"));
            debug_assert_eq!(FORMAT, 1, "the text below names what can be read");
            return Err(Error::UnknownFormat { path, found, supported: "log format 1" });
        }
        HeaderPage::Blank => "zeros".to_owned(),
        HeaderPage::Bad(found) => found,
    };
    let mut body = vec![0; BODY_LOOK_BYTES];
    let read = read_some(&*file, path, &mut body, HEADER_BYTES as u64)?;
    let body_used = body.iter().take(read).any(|&byte| byte != 0);
    Ok(Err(Unusable { found, body_used }))
}

/// Reads what there is at `offset`.
pub(super) fn read_some(file: &dyn File, path: &Path, buffer: &mut [u8], offset: u64) -> Result<usize> {
    file.read_at(buffer, offset).map_err(|error| Error::io("read", path, error))
}

/// A segment that stands ready: its space reserved, its name and length durable.
pub(super) struct Prepared {
    pub(super) id: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
}

/// Creates segment `id`. Nothing is left of it if that fails.
///
/// # Errors
/// `DiskFull` if there is no space for it, else what the system said.
pub(super) fn prepare(fs: &dyn Fs, dir: &Path, id: u64, segment_bytes: u64) -> Result<Prepared> {
    let path = segment_path(dir, id);
    let full = |error: std::io::Error, action| match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::DiskFull {
            path: dir.to_owned(),
            available_bytes: fs.free_bytes(dir).unwrap_or(0),
            needed_bytes: segment_bytes,
        },
        _ => Error::io(action, &path, error),
    };
    let file = fs.create(&path).map_err(|error| full(error, "create"))?;
    let reserved = file
        .allocate(segment_bytes)
        .map_err(|error| full(error, "reserve space for"))
        .and_then(|()| file.sync().map_err(|error| full(error, "sync")))
        .and_then(|()| match is_planted(Planted::SegmentFolderNotSynced) {
            true => Ok(()),
            false => fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error)),
        });
    match reserved {
        Ok(()) => Ok(Prepared { id, path, file }),
        Err(error) => {
            // What can't be removed now is removed as unused when the store is opened.
            let _ = fs.remove(&path);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers_of_twelve_digits_or_more() {
        let dir = Path::new("wal");
        assert_eq!(segment_path(dir, 7), dir.join("000000000007.wal"));
        assert_eq!(segment_id("000000000007.wal"), Some(7));
        assert_eq!(segment_id("1000000000000.wal"), Some(1_000_000_000_000));
        for other in ["7.wal", "00000000000x.wal", "000000000007.sst", "LOCK", "+00000000007.wal"] {
            assert_eq!(segment_id(other), None, "{other}");
        }
    }
}
