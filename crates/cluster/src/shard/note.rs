//! An item as it stands in the tiny log: the note of the batch that stores its values. It names the keys as they stand in the tree, so that the
//! item can be taken back, or read again, by its op id alone.
//!
//! ```text
//! format 1 · kind · time varint · digest u64 · clears · reads (count, op ids) · keys (count, each counted)
//! ```

use super::bytes_in::{Expected, Reader, put_counted, put_u64, put_varint};
use super::writes::{Payload, Writes, key_hash, keys_of};
use bytes::Bytes;
use kvorum_engine::{Attributes, Batch, FoundKind, Snapshot, Tree, View};
use kvorum_sync::{Digest, Item, KeyHash, Names, OpId};
use std::collections::{BTreeMap, BTreeSet};

const FORMAT: u8 = 1;

/// What a note takes beside its keys, of nearly all.
const NOTE_BYTES: usize = 40;

/// How an item came to be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// As an item of the member's own log.
    Own = 0,
    /// With a transfer of what is final: it is none of the member's tail before the checkpoint covers it.
    Shipped = 1,
}

/// A note, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) item: Item,
    pub(super) came: Came,
    pub(super) clears: bool,
    /// Keys of the tree.
    pub(super) keys: Vec<Bytes>,
}

/// The note of an item that writes this.
pub(super) fn encode(item: &Item, came: Came, payload: &Payload) -> Bytes {
    let keys: usize = payload.writes().map(|write| write.key.len() + 2).sum();
    let mut out = Vec::with_capacity(NOTE_BYTES + keys);
    out.extend_from_slice(&[FORMAT, came as u8]);
    put_varint(&mut out, item.time);
    put_u64(&mut out, item.digest.0);
    out.push(u8::from(payload.clears()));
    let reads = item.reads.as_slice();
    put_varint(&mut out, reads.len() as u64);
    reads.iter().for_each(|read| put_u64(&mut out, read.version()));
    put_varint(&mut out, payload.writes().count() as u64);
    payload.writes().for_each(|write| put_counted(&mut out, write.key));
    out.into()
}

/// The same note of an item that came another way.
pub(super) fn with_kind(note: &Bytes, came: Came) -> Bytes {
    let mut out = note.to_vec();
    if let Some(kind) = out.get_mut(1) {
        *kind = came as u8;
    }
    out.into()
}

/// Reads the note of an op id.
pub(super) fn decode(op: OpId, bytes: &Bytes) -> Result<Note, Expected> {
    let mut reader = Reader::new(bytes);
    if reader.u8("a note's format")? != FORMAT {
        return Err("a known format of a note");
    }
    let came = if reader.flag("how an item came")? { Came::Shipped } else { Came::Own };
    let time = reader.varint("a time")?;
    let digest = Digest(reader.u64("a digest")?);
    let clears = reader.flag("whether all is cleared")?;
    let reads = reader.list(8, "op ids", |reader| reader.op("an op id"))?;
    let keys = reader.list(1, "keys", |reader| reader.counted("a key"))?;
    reader.end()?;
    let hashes: Vec<KeyHash> = keys.iter().map(|key| key_hash(key)).collect();
    let item = Item { op, time, digest, keys: keys_of(clears, &hashes), reads: Names::of(&reads) };
    Ok(Note { item, came, clears, keys })
}

/// The notes of items, those that the tree has. May wait for the disk.
pub(super) fn of_items(tree: &Tree, ops: &[OpId]) -> kvorum_engine::Result<BTreeMap<OpId, Bytes>> {
    let (Some(first), Some(last)) = (ops.iter().min(), ops.iter().max()) else { return Ok(BTreeMap::new()) };
    let wanted: BTreeSet<OpId> = ops.iter().copied().collect();
    let notes = tree.notes(first.version()..=last.version())?;
    let named = notes.into_iter().map(|(version, note)| (OpId::from_version(version), note));
    Ok(named.filter(|(op, _)| wanted.contains(op)).collect())
}

impl Note {
    /// Takes the item back.
    pub(super) fn retract(&self, batch: &mut Batch, tree: &Tree) {
        let version = self.item.op.version();
        if self.clears {
            batch.retract_clear(tree, version);
        }
        self.keys.iter().for_each(|key| batch.retract(tree, key, version));
        batch.retract_note(tree, version);
    }

    /// Reads the item's writes back from the tree. `None`: the tree lacks one. May wait for the disk.
    pub(super) fn read_back(
        &self,
        tree: &Tree,
        snapshot: &Snapshot,
    ) -> kvorum_engine::Result<Option<Payload>> {
        let version = self.item.op.version();
        let view = View::at(version).of(snapshot);
        let mut writes = Writes::new();
        writes.mark_read_back();
        if self.clears {
            writes.clear();
        }
        for key in &self.keys {
            let found = tree.get(key, &view)?.filter(|found| found.version == version);
            let Some(found) = found else { return Ok(None) };
            let attributes = Attributes { expires_at: found.expires_at, tag: found.tag };
            match found.kind {
                FoundKind::Value => writes.put(key, &found.value, attributes),
                FoundKind::Tombstone => writes.delete(key, attributes),
            }
        }
        Ok(Some(writes.finish()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_names_what_its_item_wrote() {
        let mut writes = Writes::new();
        writes.put(b"\x10key", b"value", Attributes::default());
        writes.clear();
        let payload = writes.finish();
        let op = OpId::from_version(9);
        let item = Item {
            op,
            time: 1234,
            digest: payload.digest(op),
            keys: payload.keys().clone(),
            reads: Names::of(&[OpId::from_version(7), OpId::from_version(8)]),
        };
        let bytes = encode(&item, Came::Own, &payload);
        let note = decode(op, &bytes).unwrap();
        assert_eq!((&note.item, note.came, note.clears), (&item, Came::Own, true));
        assert_eq!(note.keys, [&b"\x10key"[..]]);
        let shipped = decode(op, &with_kind(&bytes, Came::Shipped)).unwrap();
        assert_eq!(shipped, Note { came: Came::Shipped, ..note });
        for length in 0..bytes.len() {
            assert!(decode(op, &bytes.slice(..length)).is_err(), "{length}");
        }
    }
}
