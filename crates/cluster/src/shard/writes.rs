//! What one item writes: as it travels beside messages, as it goes into a batch, and its digest.
//!
//! ```text
//! flags (1: everything is cleared first · 2: read back from a tree) │ write │ write │ …
//! write = kind (1 put, 2 delete; +16: expires) · tag · [expiry varint] · key (counted) · [value (counted)]
//! ```

use super::bytes_in::{Expected, Reader, put_counted, put_varint};
use bytes::Bytes;
use kvorum_engine::{Attributes, Batch, Tree};
use kvorum_sync::{Digest, KeyHash, Keys, Names, OpId};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const CLEARS: u8 = 1;
const READ_BACK: u8 = 2;
const FLAGS: u8 = CLEARS | READ_BACK;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const EXPIRES: u8 = 16;

/// The hash by which the log names a key of a tree.
pub fn key_hash(tree_key: &[u8]) -> KeyHash {
    KeyHash(xxh3_64(tree_key))
}

/// The writes of an item, as they are gathered. No key twice.
#[derive(Debug, Clone)]
pub struct Writes {
    bytes: Vec<u8>,
    hashes: Vec<KeyHash>,
}

impl Default for Writes {
    fn default() -> Self {
        Writes { bytes: vec![0], hashes: Vec::new() }
    }
}

impl Writes {
    /// None: an item that carries only the time.
    pub fn new() -> Writes {
        Writes::default()
    }

    /// Adds a value under a key of the tree.
    pub fn put(&mut self, tree_key: &[u8], value: &[u8], attributes: Attributes) {
        self.head(PUT, tree_key, attributes);
        put_counted(&mut self.bytes, value);
    }

    /// Adds a deletion.
    pub fn delete(&mut self, tree_key: &[u8], attributes: Attributes) {
        self.head(DELETE, tree_key, attributes);
    }

    /// Everything in the tree is deleted before the other writes of the item.
    pub fn clear(&mut self) {
        self.set(CLEARS);
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes == [0]
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Keys that are written.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The compaction of the tree that it is read from may have made tombstones of what expired: its digest is not that of what was written.
    pub(super) fn mark_read_back(&mut self) {
        self.set(READ_BACK);
    }

    fn set(&mut self, flag: u8) {
        if let Some(flags) = self.bytes.first_mut() {
            *flags |= flag;
        }
    }

    fn head(&mut self, kind: u8, tree_key: &[u8], Attributes { expires_at, tag }: Attributes) {
        push_head(&mut self.bytes, kind, tree_key, expires_at, tag);
        self.hashes.push(key_hash(tree_key));
    }

    pub(super) fn finish(self) -> Payload {
        let keys = keys_of(self.bytes.first().is_some_and(|flags| flags & CLEARS != 0), &self.hashes);
        Payload { bytes: self.bytes.into(), keys }
    }
}

fn push_head(out: &mut Vec<u8>, kind: u8, tree_key: &[u8], expires_at: Option<u64>, tag: u8) {
    out.push(if expires_at.is_some() { kind | EXPIRES } else { kind });
    out.push(tag);
    if let Some(expires_at) = expires_at {
        put_varint(out, expires_at);
    }
    put_counted(out, tree_key);
}

/// Adds one write as it stands in a set of writes.
pub(super) fn push_write<B: AsRef<[u8]>>(out: &mut Vec<u8>, write: &Write<B>) {
    let kind = if write.value.is_some() { PUT } else { DELETE };
    push_head(out, kind, write.key.as_ref(), write.expires_at, write.tag);
    if let Some(value) = &write.value {
        put_counted(out, value.as_ref());
    }
}

pub(super) fn keys_of(clears: bool, hashes: &[KeyHash]) -> Keys {
    if clears { Keys::All } else { Keys::Of(Names::of(hashes)) }
}

/// One write. `B`: bytes, borrowed or shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write<B = Bytes> {
    pub(super) key: B,
    /// None: deleted.
    pub(super) value: Option<B>,
    pub(super) expires_at: Option<u64>,
    pub(super) tag: u8,
}

impl Write {
    /// Reads a write that shares the memory of what it is read from.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Write, Expected> {
        let Write { key, value, expires_at, tag } = Write::borrow(reader)?;
        let (key, value) = (reader.share(key), value.map(|value| reader.share(value)));
        Ok(Write { key, value, expires_at, tag })
    }
}

impl<'b> Write<&'b [u8]> {
    fn borrow(reader: &mut Reader<'b>) -> Result<Write<&'b [u8]>, Expected> {
        let kind = reader.u8("a write")?;
        let tag = reader.u8("a tag")?;
        let expires_at = match kind & EXPIRES {
            0 => None,
            _ => Some(reader.varint("a time of expiry")?),
        };
        let key = reader.counted_slice("a key")?;
        if key.len() > kvorum_engine::KEY_BYTES_MAX {
            return Err("a shorter key");
        }
        let value = match kind & !EXPIRES {
            PUT => Some(reader.counted_slice("a value")?),
            DELETE => None,
            _ => return Err("a put or a delete"),
        };
        Ok(Write { key, value, expires_at, tag })
    }
}

impl<B: AsRef<[u8]>> Write<B> {
    pub(super) fn add_to(&self, batch: &mut Batch, tree: &Tree, version: u64) {
        let attributes = Attributes { expires_at: self.expires_at, tag: self.tag };
        match &self.value {
            Some(value) => batch.put(tree, self.key.as_ref(), version, value.as_ref(), attributes),
            None => batch.delete(tree, self.key.as_ref(), version, attributes),
        }
    }
}

/// The writes of an item, whole and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payload {
    bytes: Bytes,
    keys: Keys,
}

impl Payload {
    /// Checks bytes that came from elsewhere.
    pub(super) fn parse(bytes: Bytes) -> Result<Payload, Expected> {
        let mut reader = Reader::new(&bytes);
        let flags = reader.u8("flags")?;
        if flags & !FLAGS != 0 {
            return Err("known flags");
        }
        let mut hashes = Vec::new();
        while !reader.is_done() {
            hashes.push(key_hash(Write::borrow(&mut reader)?.key));
        }
        let keys = keys_of(flags & CLEARS != 0, &hashes);
        Ok(Payload { bytes, keys })
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(super) fn clears(&self) -> bool {
        self.keys == Keys::All
    }

    pub(super) fn is_read_back(&self) -> bool {
        self.bytes.first().is_some_and(|flags| flags & READ_BACK != 0)
    }

    pub(super) fn writes(&self) -> impl Iterator<Item = Write<&[u8]>> {
        self.encoded().map(|(_, write)| write)
    }

    /// Each write with its bytes.
    fn encoded(&self) -> impl Iterator<Item = (&[u8], Write<&[u8]>)> {
        let mut reader = Reader::new(&self.bytes);
        let _flags = reader.u8("flags");
        // Checked when it was made: it ends at the end.
        std::iter::from_fn(move || {
            let start = self.bytes.len() - reader.left();
            let write = if reader.is_done() { None } else { Write::borrow(&mut reader).ok() }?;
            let bytes = self.bytes.get(start..self.bytes.len() - reader.left())?;
            Some((bytes, write))
        })
    }

    /// The digest of what is stored under this op id.
    pub(super) fn digest(&self, op: OpId) -> Digest {
        let mut sum = Digest::default();
        if self.clears() {
            sum = sum.with(Digest(xxh3_64_with_seed(b"clear", op.version())));
        }
        let digests = self.encoded().map(|(bytes, _)| Digest(xxh3_64_with_seed(bytes, op.version())));
        digests.for_each(|digest| sum = sum.with(digest));
        sum
    }

    pub(super) fn add_to(&self, batch: &mut Batch, tree: &Tree, op: OpId) {
        if self.clears() {
            batch.clear(tree, op.version());
        }
        self.writes().for_each(|write| write.add_to(batch, tree, op.version()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Writes {
        let mut writes = Writes::new();
        writes.put(b"\x10a", b"one", Attributes { expires_at: Some(77), tag: 3 });
        writes.delete(b"\x10b", Attributes::default());
        writes
    }

    #[test]
    fn writes_come_back_from_their_bytes() {
        let payload = some().finish();
        let again = Payload::parse(payload.bytes().clone()).unwrap();
        assert_eq!(again, payload);
        let list: Vec<Write<&[u8]>> = again.writes().collect();
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].expires_at, list[0].tag), (Some(77), 3));
        assert_eq!(list[0].value, Some(&b"one"[..]));
        assert_eq!((list[1].key, list[1].value), (&b"\x10b"[..], None));
    }

    #[test]
    fn the_digest_is_of_op_key_and_value_in_any_order() {
        let op = OpId::from_version(5);
        let digest = some().finish().digest(op);
        let mut turned = Writes::new();
        turned.delete(b"\x10b", Attributes::default());
        turned.put(b"\x10a", b"one", Attributes { expires_at: Some(77), tag: 3 });
        assert_eq!(turned.finish().digest(op), digest);
        let mut other = some();
        other.clear();
        assert_ne!(other.finish().digest(op), digest);
        assert_ne!(some().finish().digest(OpId::from_version(6)), digest);
        assert_eq!(Writes::new().finish().digest(op), Digest::default());
    }

    #[test]
    fn cut_and_strange_bytes_are_refused() {
        let whole = some().finish().bytes().clone();
        for length in 0..whole.len() {
            let cut = Payload::parse(whole.slice(..length));
            assert!(cut.is_err() || cut.is_ok_and(|cut| cut.writes().count() < 2), "{length}");
        }
        assert_eq!(Payload::parse(Bytes::from_static(&[8])), Err("known flags"));
        assert_eq!(Payload::parse(Bytes::from_static(&[0, 9, 0, 0])), Err("a put or a delete"));
    }
}
