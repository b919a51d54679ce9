//! The manifest: a log of edits of the file set. A store that opens never appends to an old one; it writes a new one that begins with the
//! whole state, and points `CURRENT` at it.
//!
//! ```text
//! MANIFEST-NNNNNN = head · edit · edit · edit · …     the first edit once, every other one twice in a row
//! head   = "KVMF" · format: u32 · number: u64 · crc32c of these: u32
//! edit   = "EDIT" · length: u32 · serial: u64 · crc32c over number, length, serial and body: u32 · body (edit.rs)
//! CURRENT = "MANIFEST-NNNNNN" · space · crc32c of the name in hex · line feed
//! ```
//! An edit is synced before anything rests on it, so an edit that can't be read is damage if a later one follows it. If nothing whole follows,
//! it is the torn end of a crash: nothing rests on it. Nothing vouches for the last edit, so edits are written twice: a flipped bit leaves the
//! copy, and is not taken for a torn end. The first edit needs none: it was durable before `CURRENT` named the file. Earlier programs wrote
//! no copies; theirs are read all the same.
#![warn(clippy::indexing_slicing)]

use super::edit::{self, Change};
use crate::codec::Reader;
use crate::error::{Error, Result};
use crate::fs::{File, Fs};
use crate::planted::{Planted, is_planted};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: [u8; 4] = *b"KVMF";
const FORMAT: u32 = 1;
const HEAD_BYTES: usize = 20;
const EDIT_MAGIC: [u8; 4] = *b"EDIT";
const EDIT_HEAD_BYTES: usize = 20;
const CURRENT: &str = "CURRENT";
const PREFIX: &str = "MANIFEST-";
/// Largest manifest that is read: far beyond any that was written.
const MANIFEST_BYTES_MAX: u64 = 4 << 30;

/// An open manifest, at its end.
pub(crate) struct Manifest {
    file: Arc<dyn File>,
    path: PathBuf,
    number: u64,
    end: u64,
    serial: u64,
}

/// What was read from the manifest that `CURRENT` names.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) number: u64,
    pub(crate) changes: Vec<Change>,
}

fn manifest_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:06}"))
}

/// The number in a manifest's name.
fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

impl Manifest {
    /// Writes a new manifest that begins with `state`, durably, then points `CURRENT` at it and removes the others.
    pub(crate) fn create(fs: &dyn Fs, dir: &Path, number: u64, state: &[Change]) -> Result<Manifest> {
        let path = manifest_path(dir, number);
        if fs.exists(&path).map_err(|e| Error::io("look for", &path, e))? {
            // Of an attempt that CURRENT was never pointed at.
            fs.remove(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
        let file = fs.create(&path).map_err(|e| Error::io("create", &path, e))?;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&FORMAT.to_le_bytes());
        head.extend_from_slice(&number.to_le_bytes());
        head.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
        file.write_at(&head, 0).map_err(|e| Error::io("write", &path, e))?;
        let mut manifest = Manifest { file, path, number, end: HEAD_BYTES as u64, serial: 1 };
        manifest.append(state)?;
        fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
        point_current(fs, dir, number)?;
        manifest.remove_others(fs, dir);
        Ok(manifest)
    }

    /// Adds an edit and makes it durable. After an error it is unknown whether it counts: nothing more may be appended.
    pub(crate) fn append(&mut self, changes: &[Change]) -> Result<()> {
        let mut body = Vec::new();
        edit::encode(changes, &mut body);
        let length = u32::try_from(body.len())
            .map_err(|_| Error::Invalid("an edit of the file set over 4 GiB".into()))?;
        let mut frame = Vec::with_capacity(EDIT_HEAD_BYTES + body.len());
        frame.extend_from_slice(&EDIT_MAGIC);
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&self.serial.to_le_bytes());
        frame.extend_from_slice(&checksum(self.number, self.serial, &body).to_le_bytes());
        frame.extend_from_slice(&body);
        if self.serial > 1 {
            frame.extend_from_within(..);
        }
        self.file.write_at(&frame, self.end).map_err(|e| Error::io("write", &self.path, e))?;
        if !is_planted(Planted::EditNotSynced) {
            self.file.sync().map_err(|e| Error::io("sync", &self.path, e))?;
        }
        self.end += frame.len() as u64;
        self.serial += 1;
        Ok(())
    }

    /// Its size, to tell when a fresh one pays.
    pub(crate) fn bytes(&self) -> u64 {
        self.end
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Nothing rests on the others any more, so that one which can't be removed now is no failure: the next manifest rids us of it.
    fn remove_others(&self, fs: &dyn Fs, dir: &Path) {
        let remove = |name: &str| fs.remove(&dir.join(name));
        let others = fs.list(dir).map(|mut entries| {
            entries.retain(|entry| number_of(&entry.name).is_some_and(|number| number != self.number));
            entries
        });
        let removed = others.and_then(|others| others.iter().try_for_each(|entry| remove(&entry.name)));
        if let Err(error) = removed {
            tracing::warn!(folder = %dir.display(), %error, "an old manifest could not be removed; the next one will");
        }
    }
}

fn checksum(number: u64, serial: u64, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&number.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &serial.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &(body.len() as u64).to_le_bytes());
    crc32c::crc32c_append(crc, body)
}

/// Writes a small file so that it is there whole or not at all, durably.
pub(crate) fn write_whole(fs: &dyn Fs, dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let (temporary, path) = (dir.join(format!("{name}.tmp")), dir.join(name));
    if fs.exists(&temporary).map_err(|e| Error::io("look for", &temporary, e))? {
        fs.remove(&temporary).map_err(|e| Error::io("remove", &temporary, e))?;
    }
    let file = fs.create(&temporary).map_err(|e| Error::io("create", &temporary, e))?;
    file.write_at(content, 0).map_err(|e| Error::io("write", &temporary, e))?;
    if !is_planted(Planted::CurrentNotSynced) {
        file.sync().map_err(|e| Error::io("sync", &temporary, e))?;
    }
    fs.rename(&temporary, &path).map_err(|e| Error::io("rename", &temporary, e))?;
    fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))
}

/// Reads a small file.
pub(crate) fn read_whole(fs: &dyn Fs, path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let file = fs.open(path, false).map_err(|e| Error::io("open", path, e))?;
    let len = file.len().map_err(|e| Error::io("read", path, e))?;
    if len > bytes_max {
        return Err(Error::damaged(path, 0, format!("at most {bytes_max} bytes"), format!("{len} bytes")));
    }
    let mut content = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let read = file.read_at(&mut content, 0).map_err(|e| Error::io("read", path, e))?;
    if read < content.len() {
        return Err(Error::damaged(path, read as u64, format!("{len} bytes"), format!("{read} bytes")));
    }
    Ok(content)
}

fn current_line(name: &str) -> String {
    format!("{name} {:08x}\n", crc32c::crc32c(name.as_bytes()))
}

fn point_current(fs: &dyn Fs, dir: &Path, number: u64) -> Result<()> {
    write_whole(fs, dir, CURRENT, current_line(&format!("{PREFIX}{number:06}")).as_bytes())
}

/// The whole state, as the manifest that `CURRENT` names has it; `None` if there is no `CURRENT`.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<Stored>> {
    let current = dir.join(CURRENT);
    if !fs.exists(&current).map_err(|e| Error::io("look for", &current, e))? {
        return Ok(None);
    }
    let content = read_whole(fs, &current, 1 << 10)?;
    let line = String::from_utf8_lossy(&content);
    let named = line.split(' ').next().filter(|name| line == current_line(name)).and_then(number_of);
    let number = named.ok_or_else(|| {
        Error::damaged(&current, 0, "a manifest's name and its checksum", format!("{line:?}"))
    })?;
    let path = manifest_path(dir, number);
    let bytes = read_whole(fs, &path, MANIFEST_BYTES_MAX)?;
    // What a device misreads once must not pass for a torn end: files that the lost edits name would be removed.
    if read_whole(fs, &path, MANIFEST_BYTES_MAX)? != bytes {
        return Err(Error::damaged(&path, 0, "the same bytes when read again", "others"));
    }
    let changes = parse(&path, number, &bytes)?;
    Ok(Some(Stored { number, changes }))
}

fn parse(path: &Path, number: u64, bytes: &[u8]) -> Result<Vec<Change>> {
    check_head(path, number, bytes)?;
    let mut changes = Vec::new();
    let (mut at, mut serial) = (HEAD_BYTES, 1);
    while at < bytes.len() {
        let Some((frame_at, body)) = next_edit(path, number, bytes, at, serial)? else {
            tracing::warn!(path = %path.display(), offset = at, "the manifest's last edit was torn by a crash; nothing rests on it");
            break;
        };
        let body_at = frame_at + EDIT_HEAD_BYTES;
        let decoded = edit::decode(body);
        changes.extend(decoded.map_err(|(offset, what)| {
            Error::damaged(path, (body_at + offset) as u64, what, "other bytes")
        })?);
        at = body_at + body.len();
        if edit_at(bytes, at, number, Some(serial)).is_some() {
            at += EDIT_HEAD_BYTES + body.len();
        }
        serial += 1;
    }
    if serial == 1 {
        return Err(Error::damaged(path, at as u64, "the state of the file set", "the end of the file"));
    }
    Ok(changes)
}

/// The edit of this serial: at the offset where it should stand, or else its copy, if that is the last whole thing. `None` at a torn end.
fn next_edit<'b>(
    path: &Path,
    number: u64,
    bytes: &'b [u8],
    at: usize,
    serial: u64,
) -> Result<Option<(usize, &'b [u8])>> {
    if let Some(body) = edit_at(bytes, at, number, Some(serial)) {
        return Ok(Some((at, body)));
    }
    let mut later = (at + 1..bytes.len()).filter_map(|at| Some((at, edit_at(bytes, at, number, None)?)));
    let follower = later.next();
    // The first edit is the whole state and was durable before CURRENT named this file: it is never a torn end.
    let copy = follower.filter(|&(at, _)| serial > 1 && edit_at(bytes, at, number, Some(serial)).is_some());
    if copy.is_some() && later.next().is_none() {
        return Ok(copy);
    }
    if follower.is_some() || serial == 1 {
        let found =
            follower.map_or("none".to_owned(), |(later, _)| format!("none, but a whole one at {later}"));
        return Err(Error::damaged(path, at as u64, format!("edit {serial}"), found));
    }
    Ok(None)
}

fn check_head(path: &Path, number: u64, bytes: &[u8]) -> Result<()> {
    let mut reader = Reader::new(bytes);
    let mut head = || Some((reader.slice(4)?, reader.u32()?, reader.u64()?, reader.u32()?));
    let crc = bytes.get(..HEAD_BYTES - 4).map(crc32c::crc32c);
    match head() {
        Some((magic, format, found, sum)) if magic == MAGIC && Some(sum) == crc => {
            if format != FORMAT {
                return Err(Error::UnknownFormat {
                    path: path.to_owned(),
                    found: format.to_string(),
                    supported: "1",
                });
            }
            if found != number {
                return Err(Error::damaged(path, 8, format!("manifest number {number}"), found.to_string()));
            }
            Ok(())
        }
        _ => Err(Error::damaged(path, 0, "a manifest's head", "other bytes")),
    }
}

/// The body of the whole edit at an offset, with the given serial.
fn edit_at(bytes: &[u8], at: usize, number: u64, serial: Option<u64>) -> Option<&[u8]> {
    let mut reader = Reader::at(bytes, at);
    if reader.slice(4)? != EDIT_MAGIC {
        return None;
    }
    let (length, found, sum) = (reader.u32()?, reader.u64()?, reader.u32()?);
    let body = reader.slice(usize::try_from(length).ok()?)?;
    let whole = serial.is_none_or(|serial| serial == found) && sum == checksum(number, found, body);
    whole.then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::StdFs;

    fn created(tree: u32) -> Change {
        Change::TreeCreated { tree, name: format!("tree {tree}"), newest_only: false }
    }

    fn sample(dir: &Path) -> PathBuf {
        let mut manifest = Manifest::create(&StdFs, dir, 3, &[created(1)]).unwrap();
        manifest.append(&[created(2), Change::Flushed { tree: 2, upto: 9 }]).unwrap();
        manifest.append(&[created(3)]).unwrap();
        manifest.path.clone()
    }

    #[test]
    fn what_is_appended_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&StdFs, dir.path()).unwrap().is_none());
        sample(dir.path());
        let stored = read(&StdFs, dir.path()).unwrap().unwrap();
        assert_eq!(stored.number, 3);
        assert_eq!(
            stored.changes,
            [created(1), created(2), Change::Flushed { tree: 2, upto: 9 }, created(3)]
        );
        Manifest::create(&StdFs, dir.path(), 4, &[created(7)]).unwrap();
        assert_eq!(read(&StdFs, dir.path()).unwrap().unwrap().changes, [created(7)]);
        assert!(!manifest_path(dir.path(), 3).exists());
    }

    #[test]
    fn a_torn_end_is_dropped_and_everything_else_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample(dir.path());
        let whole = std::fs::read(&path).unwrap();
        let starts: Vec<_> = (0..whole.len()).filter(|&at| edit_at(&whole, at, 3, None).is_some()).collect();
        let &[_, _, _, last, copy] = &starts[..] else {
            panic!("an edit, and two in two copies: {starts:?}")
        };
        for cut in last + 1..whole.len() {
            let expected = if cut < copy { 3 } else { 4 };
            assert_eq!(parse(&path, 3, &whole[..cut]).unwrap().len(), expected, "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            match parse(&path, 3, &bytes) {
                Ok(changes) => assert!(at >= last && changes.len() == 4, "flipped at {at}"),
                Err(_) => assert!(at < last, "flipped at {at}"),
            }
        }
    }

    #[test]
    fn a_manifest_without_copies_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = sample(dir.path());
        let whole = std::fs::read(&path).unwrap();
        let starts: Vec<_> = (0..whole.len()).filter(|&at| edit_at(&whole, at, 3, None).is_some()).collect();
        let single = [&whole[..starts[2]], &whole[starts[3]..starts[4]]].concat();
        assert_eq!(parse(&path, 3, &single).unwrap(), parse(&path, 3, &whole).unwrap());
    }

    #[test]
    fn a_flipped_byte_in_current_is_found() {
        let dir = tempfile::tempdir().unwrap();
        sample(dir.path());
        let current = dir.path().join(CURRENT);
        let whole = std::fs::read(&current).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&current, &bytes).unwrap();
            assert!(read(&StdFs, dir.path()).is_err(), "flipped at {at}");
        }
    }
}
