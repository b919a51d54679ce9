//! What the manifest keeps of a table, and how entries point at values in blob files.

#![warn(clippy::indexing_slicing)]

use super::properties::{BlobUse, Properties};
use crate::codec::{Reader, put_varint};
use crate::types::Sequence;
use bytes::Bytes;

/// What is known of a table without opening it; stands in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableMeta {
    /// The table's id in this store: its file name and cache key. Equals `properties.id` unless the file came from another store.
    pub(crate) id: u64,
    /// Length of the file.
    pub(crate) file_bytes: u64,
    /// XXH3 of the whole file, 128 bits.
    pub(crate) hash: u128,
    /// As in the file, but with this store's ids of the blob files (they differ in a file that came from another store).
    pub(crate) properties: Properties,
}

impl TableMeta {
    /// Appends the manifest's form.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.id);
        put_varint(out, self.file_bytes);
        out.extend_from_slice(&self.hash.to_le_bytes());
        let mut properties = Vec::new();
        self.properties.encode(None, &mut properties);
        crate::codec::put_prefixed(out, &properties);
    }

    /// Reads what [`TableMeta::encode`] wrote.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<TableMeta> {
        let (id, file_bytes, hash) = (reader.varint()?, reader.varint()?, reader.u128()?);
        let (properties, _) = Properties::decode(reader.prefixed()?).ok()?;
        Some(TableMeta { id, file_bytes, hash, properties })
    }

    /// The same for a table that came from another store, whose order of writes says nothing here: it counts as written at `sequence`,
    /// and all that it holds as late.
    pub(crate) fn arrived(mut self, sequence: Sequence) -> TableMeta {
        self.properties.largest_sequence = sequence;
        self.properties.smallest_late =
            (self.properties.entries > 0).then_some(self.properties.smallest_version);
        self
    }

    /// The blob files that the table points at.
    pub(crate) fn blobs(&self) -> &[BlobUse] {
        &self.properties.blobs
    }
}

/// Where a value stands in a blob file: the payload of an entry of kind `BlobPointer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobPointer {
    /// The blob file's id; inside a table, its place in the table's list of blob files.
    pub(crate) file: u64,
    /// Where the record starts.
    pub(crate) offset: u64,
    /// Length of the record.
    pub(crate) stored_bytes: u64,
    /// Length of the value.
    pub(crate) value_bytes: u64,
}

impl BlobPointer {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(20);
        self.put(&mut out);
        Bytes::from(out)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        for number in [self.file, self.offset, self.stored_bytes, self.value_bytes] {
            put_varint(out, number);
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<BlobPointer> {
        let mut reader = Reader::new(bytes);
        let pointer = BlobPointer {
            file: reader.varint()?,
            offset: reader.varint()?,
            stored_bytes: reader.varint()?,
            value_bytes: reader.varint()?,
        };
        reader.is_empty().then_some(pointer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::Compression;
    use super::*;

    #[test]
    fn a_table_s_row_in_the_manifest_comes_back() {
        let mut properties = Properties::empty(4, 1, 9, Compression::Lz4);
        properties.blobs.push(BlobUse { file: 3, bytes: 70, values: 2 });
        let meta = TableMeta { id: 11, file_bytes: 1 << 33, hash: 1 << 100 | 5, properties };
        let mut out = Vec::new();
        meta.encode(&mut out);
        let mut reader = Reader::new(&out);
        assert_eq!(TableMeta::decode(&mut reader), Some(meta));
        assert!(reader.is_empty());
        assert_eq!(TableMeta::decode(&mut Reader::new(&out[..out.len() - 1])), None);
    }

    #[test]
    fn blob_pointers_come_back_and_odd_ones_do_not() {
        let pointer = BlobPointer { file: 300, offset: u64::MAX, stored_bytes: 5, value_bytes: 900 };
        let bytes = pointer.encode();
        assert_eq!(BlobPointer::decode(&bytes), Some(pointer));
        assert_eq!(BlobPointer::decode(&bytes[..bytes.len() - 2]), None);
        assert_eq!(BlobPointer::decode(&[&bytes[..], b"x"].concat()), None);
    }
}
