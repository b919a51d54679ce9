//! What travels beside a piece.
//!
//! ```text
//! items   flags (1: the last piece) │ op id u64 · note (counted) · writes (counted) │ …
//! delta   flags │ clears (count, versions) │ version u64 · write │ …
//! files   flags (2: the list of files) │ [list: name (counted) · bytes varint] │ chunk │ …
//!         chunk = file varint · offset varint · bytes (counted) · [1 · hash of the file u128 | 0]
//! ```

use crate::shard::bytes_in::{Expected, Reader, put_counted, put_u64, put_varint};
use crate::shard::writes::{Payload, Write, push_write};
use bytes::Bytes;
use kvorum_sync::{OpId, Way};

const LAST: u8 = 1;
const LISTS: u8 = 2;

/// A piece in the making.
#[derive(Debug)]
pub(super) struct PieceOut(Vec<u8>);

impl PieceOut {
    pub(super) fn new() -> PieceOut {
        PieceOut(vec![0])
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    pub(super) fn item(&mut self, op: OpId, note: &[u8], payload: &Payload) {
        put_u64(&mut self.0, op.version());
        put_counted(&mut self.0, note);
        put_counted(&mut self.0, payload.bytes());
    }

    pub(super) fn clears(&mut self, clears: &[u64]) {
        put_varint(&mut self.0, clears.len() as u64);
        clears.iter().for_each(|version| put_u64(&mut self.0, *version));
    }

    pub(super) fn entry<B: AsRef<[u8]>>(&mut self, version: u64, write: &Write<B>) {
        put_u64(&mut self.0, version);
        push_write(&mut self.0, write);
    }

    /// Comes first.
    pub(super) fn list<'f>(&mut self, files: impl ExactSizeIterator<Item = (&'f str, u64)>) {
        self.flag(LISTS);
        put_varint(&mut self.0, files.len() as u64);
        for (name, bytes) in files {
            put_counted(&mut self.0, name.as_bytes());
            put_varint(&mut self.0, bytes);
        }
    }

    pub(super) fn chunk(&mut self, file: usize, offset: u64, bytes: &[u8], hash: Option<u128>) {
        put_varint(&mut self.0, file as u64);
        put_varint(&mut self.0, offset);
        put_counted(&mut self.0, bytes);
        self.0.push(u8::from(hash.is_some()));
        if let Some(hash) = hash {
            self.0.extend_from_slice(&hash.to_le_bytes());
        }
    }

    pub(super) fn finish(mut self, last: bool) -> Bytes {
        if last {
            self.flag(LAST);
        }
        self.0.into()
    }

    fn flag(&mut self, flag: u8) {
        if let Some(flags) = self.0.first_mut() {
            *flags |= flag;
        }
    }
}

/// Whether a piece says that it is its transfer's last.
pub(super) fn is_last(piece: &Bytes) -> bool {
    piece.first().is_some_and(|flags| flags & LAST != 0)
}

/// An item of a piece.
pub(super) struct ItemIn {
    pub(super) op: OpId,
    pub(super) note: Bytes,
    pub(super) payload: Payload,
}

pub(super) fn items(piece: &Bytes) -> Result<Vec<ItemIn>, Expected> {
    let mut reader = begin(piece)?;
    let mut items = Vec::new();
    while !reader.is_done() {
        let op = reader.op("an op id")?;
        let note = reader.counted("a note")?;
        let payload = Payload::parse(reader.counted("writes")?)?;
        items.push(ItemIn { op, note, payload });
    }
    Ok(items)
}

/// Entries of a piece, and the clears that come before them.
pub(super) struct DeltaIn {
    pub(super) clears: Vec<u64>,
    pub(super) entries: Vec<(u64, Write)>,
}

pub(super) fn delta(piece: &Bytes) -> Result<DeltaIn, Expected> {
    let mut reader = begin(piece)?;
    let clears = reader.list(8, "clears", |reader| reader.u64("a version"))?;
    let mut entries = Vec::new();
    while !reader.is_done() {
        entries.push((reader.u64("a version")?, Write::read(&mut reader)?));
    }
    Ok(DeltaIn { clears, entries })
}

/// A part of a file.
pub(super) struct Chunk {
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    /// Of the whole file, with its last part.
    pub(super) hash: Option<u128>,
}

/// Parts of files of a piece, and the list of all with the first one.
pub(super) struct FilesPiece {
    pub(super) list: Option<Vec<(String, u64)>>,
    pub(super) chunks: Vec<Chunk>,
}

pub(super) fn files(piece: &Bytes) -> Result<FilesPiece, Expected> {
    let mut reader = begin(piece)?;
    let lists = piece.first().is_some_and(|flags| flags & LISTS != 0);
    let list = match lists {
        true => Some(reader.list(2, "files", |reader| Ok((name(reader)?, reader.varint("a length")?)))?),
        false => None,
    };
    let mut chunks = Vec::new();
    while !reader.is_done() {
        let file = usize::try_from(reader.varint("a file")?).map_err(|_| "a file")?;
        let offset = reader.varint("an offset")?;
        let bytes = reader.counted("a part of a file")?;
        let hash = match reader.flag("whether it ends the file")? {
            true => Some(u128::from_le_bytes(reader.array("a hash")?)),
            false => None,
        };
        chunks.push(Chunk { file, offset, bytes, hash });
    }
    Ok(FilesPiece { list, chunks })
}

/// Whether a piece is whole.
pub(in crate::shard) fn check(way: Way, piece: &Bytes) -> Result<(), Expected> {
    match way {
        Way::Items => items(piece).map(drop),
        Way::Delta => delta(piece).map(drop),
        Way::Files => files(piece).map(drop),
    }
}

fn begin(piece: &Bytes) -> Result<Reader<'_>, Expected> {
    let mut reader = Reader::new(piece);
    if reader.u8("flags")? & !(LAST | LISTS) != 0 {
        return Err("known flags of a piece");
    }
    Ok(reader)
}

/// The name of a file of a tree: a number, so that it can lead nowhere else.
fn name(reader: &mut Reader<'_>) -> Result<String, Expected> {
    let bytes = reader.counted("a file's name")?;
    let name = std::str::from_utf8(&bytes).map_err(|_| "a file's name")?;
    let stem = [".sst", ".blob", ".origin"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or_default();
    let is_number = !stem.is_empty() && stem.len() <= 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { Ok(name.to_owned()) } else { Err("the name of a table or blob file") }
}

/// A piece of each way.
#[cfg(test)]
pub(in crate::shard) fn one_of_each(payload: &Payload) -> [(Way, Bytes); 3] {
    let mut items = PieceOut::new();
    items.item(OpId::from_version(4), b"note", payload);
    let mut delta = PieceOut::new();
    delta.clears(&[3]);
    payload.writes().for_each(|write| delta.entry(9, &write));
    let mut files = PieceOut::new();
    files.list([("000000000007.sst", 3)].into_iter());
    files.chunk(0, 0, b"abc", Some(17));
    [(Way::Items, items.finish(true)), (Way::Delta, delta.finish(false)), (Way::Files, files.finish(false))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::writes::Writes;
    use kvorum_engine::Attributes;

    #[test]
    fn pieces_come_back_from_their_bytes() {
        let mut writes = Writes::new();
        writes.put(b"k", b"v", Attributes::default());
        let payload = writes.finish();
        let [(_, piece), (_, of_delta), (_, of_files)] = one_of_each(&payload);
        assert!(is_last(&piece));
        let back = items(&piece).unwrap();
        assert_eq!((back.len(), back[0].op, &back[0].payload), (1, OpId::from_version(4), &payload));

        let back = delta(&of_delta).unwrap();
        assert_eq!((back.clears, back.entries.len()), (vec![3], 1));

        let back = files(&of_files).unwrap();
        assert_eq!(back.list.unwrap(), [("000000000007.sst".to_owned(), 3)]);
        assert_eq!((back.chunks[0].hash, &back.chunks[0].bytes[..]), (Some(17), &b"abc"[..]));
    }

    #[test]
    fn names_lead_nowhere_else() {
        for name in ["../7.sst", "7.txt", ".sst", "a.sst", "7.sst/"] {
            let mut out = PieceOut::new();
            out.list([(name, 3)].into_iter());
            assert!(files(&out.finish(false)).is_err(), "{name}");
        }
    }
}
