//! What is known of a table without reading its blocks. Stored as tagged fields: a reader skips tags it does not know, so that later
//! programs can add some without a new format version.

#![warn(clippy::indexing_slicing)]

use super::format::{BlockHandle, Compression};
use super::{SPACES, Space};
use crate::codec::{Reader, put_prefixed, put_varint};
use crate::types::{Sequence, Version};
use bytes::Bytes;

/// How much of one blob file a table points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobUse {
    /// The blob file's id.
    pub(crate) file: u64,
    /// Stored bytes of the values that the table points at.
    pub(crate) bytes: u64,
    /// How many they are.
    pub(crate) values: u64,
}

/// The properties of a table, as its writer gathered them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Properties {
    /// The id that the table's writer gave it; part of every checksum, so it stays when the file is shipped.
    pub(crate) id: u64,
    /// The level that it was written for.
    pub(crate) level: u8,
    /// Entries of the data space.
    pub(crate) entries: u64,
    /// Tombstones among them.
    pub(crate) tombstones: u64,
    /// Retract markers among them.
    pub(crate) retracts: u64,
    /// Entries that stand behind a higher version of their key.
    pub(crate) shadowed: u64,
    /// Entries of the data space that expire.
    pub(crate) expiring: u64,
    /// Entries of the space of clears.
    pub(crate) clears: u64,
    /// Entries of the space of notes.
    pub(crate) notes: u64,
    /// Smallest key of the data space; empty if that is.
    pub(crate) smallest_key: Bytes,
    /// Largest key of the data space; empty if that is.
    pub(crate) largest_key: Bytes,
    /// Smallest version of data and clears; `u64::MAX` if there are none.
    pub(crate) smallest_version: Version,
    /// Largest version of data and clears; 0 if there are none.
    pub(crate) largest_version: Version,
    /// Largest version of a tombstone or clear.
    pub(crate) largest_tombstone: Option<Version>,
    /// Smallest version with the late bit.
    pub(crate) smallest_late: Option<Version>,
    /// Smallest and largest version of a note.
    pub(crate) note_versions: Option<(Version, Version)>,
    /// Earliest and latest expiry.
    pub(crate) expiry: Option<(u64, u64)>,
    /// Largest sequence that any entry had, whether it is stored or not.
    pub(crate) largest_sequence: Sequence,
    /// Unix milliseconds of the injected clock.
    pub(crate) created_at_ms: u64,
    /// Bytes of keys and payloads.
    pub(crate) raw_bytes: u64,
    /// Bytes of the blocks of all spaces as they are stored.
    pub(crate) stored_bytes: u64,
    /// How blocks are compressed where it pays.
    pub(crate) compression: Compression,
    /// Bytes and probes of the filter; `None` without one.
    pub(crate) filter: Option<(u64, u32)>,
    /// The blob files that entries point at; a pointer in a block names its place in this list.
    pub(crate) blobs: Vec<BlobUse>,
}

/// Where the parts of the file stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    pub(crate) filter: Option<BlockHandle>,
    /// The index of each space; `None` where the space is empty.
    pub(crate) indexes: [Option<BlockHandle>; SPACES],
}

/// The kind of filter: the only one there is.
const FILTER_CACHE_LINE_BLOOM: u64 = 1;

mod tag {
    pub(super) const ID: u64 = 1;
    pub(super) const LEVEL: u64 = 2;
    pub(super) const COUNTS: u64 = 3;
    pub(super) const SMALLEST_KEY: u64 = 4;
    pub(super) const LARGEST_KEY: u64 = 5;
    pub(super) const VERSIONS: u64 = 6;
    pub(super) const SMALLEST_LATE: u64 = 7;
    pub(super) const NOTE_VERSIONS: u64 = 8;
    pub(super) const EXPIRY: u64 = 9;
    pub(super) const LARGEST_SEQUENCE: u64 = 10;
    pub(super) const CREATED_AT: u64 = 11;
    pub(super) const SIZES: u64 = 12;
    pub(super) const COMPRESSION: u64 = 13;
    pub(super) const FILTER: u64 = 14;
    pub(super) const BLOBS: u64 = 15;
    pub(super) const FILTER_HANDLE: u64 = 16;
    pub(super) const INDEX_HANDLES: u64 = 17;
    pub(super) const LARGEST_TOMBSTONE: u64 = 18;
    pub(super) const SHADOWED: u64 = 19;
}

impl Properties {
    /// Properties of a table that holds nothing yet.
    pub(crate) fn empty(id: u64, level: u8, created_at_ms: u64, compression: Compression) -> Properties {
        Properties {
            id,
            level,
            entries: 0,
            tombstones: 0,
            retracts: 0,
            shadowed: 0,
            expiring: 0,
            clears: 0,
            notes: 0,
            smallest_key: Bytes::new(),
            largest_key: Bytes::new(),
            smallest_version: Version::MAX,
            largest_version: 0,
            largest_tombstone: None,
            smallest_late: None,
            note_versions: None,
            expiry: None,
            largest_sequence: 0,
            created_at_ms,
            raw_bytes: 0,
            stored_bytes: 0,
            compression,
            filter: None,
            blobs: Vec::new(),
        }
    }

    /// Entries of all spaces.
    pub(crate) fn entries_of(&self, space: Space) -> u64 {
        match space {
            Space::Data => self.entries,
            Space::Notes => self.notes,
            Space::Clears => self.clears,
        }
    }

    /// Whether the key may be in the data space, by the range alone.
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        self.entries > 0 && *self.smallest_key <= *key && *key <= *self.largest_key
    }

    /// Appends the properties and, in a table's own block, the layout.
    pub(crate) fn encode(&self, layout: Option<&Layout>, out: &mut Vec<u8>) {
        let mut fields = Fields(out);
        fields.numbers(tag::ID, &[self.id]);
        fields.numbers(tag::LEVEL, &[u64::from(self.level)]);
        let counts = [self.entries, self.tombstones, self.retracts, self.expiring, self.clears, self.notes];
        fields.numbers(tag::COUNTS, &counts);
        fields.bytes(tag::SMALLEST_KEY, &self.smallest_key);
        fields.bytes(tag::LARGEST_KEY, &self.largest_key);
        fields.numbers(tag::VERSIONS, &[self.smallest_version, self.largest_version]);
        fields.numbers(tag::SHADOWED, &[self.shadowed]);
        if let Some(version) = self.largest_tombstone {
            fields.numbers(tag::LARGEST_TOMBSTONE, &[version]);
        }
        if let Some(version) = self.smallest_late {
            fields.numbers(tag::SMALLEST_LATE, &[version]);
        }
        if let Some((smallest, largest)) = self.note_versions {
            fields.numbers(tag::NOTE_VERSIONS, &[smallest, largest]);
        }
        if let Some((earliest, latest)) = self.expiry {
            fields.numbers(tag::EXPIRY, &[earliest, latest]);
        }
        fields.numbers(tag::LARGEST_SEQUENCE, &[self.largest_sequence]);
        fields.numbers(tag::CREATED_AT, &[self.created_at_ms]);
        fields.numbers(tag::SIZES, &[self.raw_bytes, self.stored_bytes]);
        fields.numbers(tag::COMPRESSION, &[u64::from(self.compression.to_byte())]);
        if let Some((bytes, probes)) = self.filter {
            fields.numbers(tag::FILTER, &[FILTER_CACHE_LINE_BLOOM, bytes, u64::from(probes)]);
        }
        let blobs: Vec<u64> =
            self.blobs.iter().flat_map(|blob| [blob.file, blob.bytes, blob.values]).collect();
        fields.numbers(tag::BLOBS, &blobs);
        if let Some(layout) = layout {
            if let Some(filter) = layout.filter {
                fields.numbers(tag::FILTER_HANDLE, &[filter.offset, filter.stored_bytes]);
            }
            let handles = layout.indexes.iter().map(|handle| handle.unwrap_or_default());
            let handles: Vec<u64> = handles.flat_map(|handle| [handle.offset, handle.stored_bytes]).collect();
            fields.numbers(tag::INDEX_HANDLES, &handles);
        }
    }

    /// Reads what [`Properties::encode`] wrote; the fault's offset and what was expected there otherwise.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Properties, Layout), (usize, &'static str)> {
        let mut properties = Properties::empty(0, 0, 0, Compression::None);
        let mut layout = Layout::default();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let at = reader.position();
            let mut field = || Some((reader.varint()?, reader.prefixed()?));
            let (tag, value) = field().ok_or((at, "a tagged field"))?;
            let read = match tag {
                tag::FILTER_HANDLE | tag::INDEX_HANDLES => layout.read(tag, value),
                _ => properties.read(tag, value),
            };
            read.ok_or((at, "a field of known shape"))?;
        }
        if properties.id == 0 {
            return Err((0, "the table's id"));
        }
        Ok((properties, layout))
    }

    fn read(&mut self, tag: u64, value: &[u8]) -> Option<()> {
        let mut reader = Reader::new(value);
        let mut number = || reader.varint();
        match tag {
            tag::ID => self.id = number()?,
            tag::LEVEL => self.level = u8::try_from(number()?).ok()?,
            tag::COUNTS => {
                (self.entries, self.tombstones, self.retracts) = (number()?, number()?, number()?);
                (self.expiring, self.clears, self.notes) = (number()?, number()?, number()?);
            }
            tag::SMALLEST_KEY => self.smallest_key = Bytes::copy_from_slice(value),
            tag::LARGEST_KEY => self.largest_key = Bytes::copy_from_slice(value),
            tag::VERSIONS => (self.smallest_version, self.largest_version) = (number()?, number()?),
            tag::SHADOWED => self.shadowed = number()?,
            tag::LARGEST_TOMBSTONE => self.largest_tombstone = Some(number()?),
            tag::SMALLEST_LATE => self.smallest_late = Some(number()?),
            tag::NOTE_VERSIONS => self.note_versions = Some((number()?, number()?)),
            tag::EXPIRY => self.expiry = Some((number()?, number()?)),
            tag::LARGEST_SEQUENCE => self.largest_sequence = number()?,
            tag::CREATED_AT => self.created_at_ms = number()?,
            tag::SIZES => (self.raw_bytes, self.stored_bytes) = (number()?, number()?),
            tag::COMPRESSION => self.compression = Compression::from_byte(u8::try_from(number()?).ok()?)?,
            tag::FILTER => {
                let (kind, bytes, probes) = (number()?, number()?, number()?);
                // A filter of a kind unknown here is no filter here: lookups read the block instead.
                if kind == FILTER_CACHE_LINE_BLOOM {
                    self.filter = Some((bytes, u32::try_from(probes).ok()?));
                }
            }
            tag::BLOBS => {
                while !reader.is_empty() {
                    let blob =
                        BlobUse { file: reader.varint()?, bytes: reader.varint()?, values: reader.varint()? };
                    self.blobs.push(blob);
                }
            }
            _ => {}
        }
        Some(())
    }
}

impl Layout {
    fn read(&mut self, tag: u64, value: &[u8]) -> Option<()> {
        let mut reader = Reader::new(value);
        let mut handle = || Some(BlockHandle { offset: reader.varint()?, stored_bytes: reader.varint()? });
        if tag == tag::FILTER_HANDLE {
            self.filter = Some(handle()?);
        } else {
            for index in &mut self.indexes {
                *index = Some(handle()?).filter(|handle| handle.stored_bytes > 0);
            }
        }
        Some(())
    }
}

struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn bytes(&mut self, tag: u64, value: &[u8]) {
        put_varint(self.0, tag);
        put_prefixed(self.0, value);
    }

    fn numbers(&mut self, tag: u64, values: &[u64]) {
        let mut encoded = Vec::with_capacity(values.len() * 3);
        values.iter().for_each(|&value| put_varint(&mut encoded, value));
        self.bytes(tag, &encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some() -> (Properties, Layout) {
        let mut properties = Properties::empty(7, 3, 1_700_000_000_000, Compression::Lz4);
        (properties.entries, properties.tombstones, properties.retracts) = (100, 20, 3);
        properties.shadowed = 13;
        (properties.expiring, properties.clears, properties.notes) = (4, 5, 6);
        properties.smallest_key = Bytes::from_static(b"aa");
        properties.largest_key = Bytes::from_static(b"zz");
        (properties.smallest_version, properties.largest_version) = (2, u64::MAX);
        properties.smallest_late = Some(5);
        properties.largest_tombstone = Some(11);
        properties.note_versions = Some((1, 9));
        properties.expiry = Some((1000, 2000));
        properties.filter = Some((128, 6));
        properties.blobs =
            vec![BlobUse { file: 8, bytes: 1 << 40, values: 3 }, BlobUse { file: 9, bytes: 1, values: 1 }];
        let handle = |offset| Some(BlockHandle { offset, stored_bytes: 10 });
        (properties, Layout { filter: handle(100), indexes: [handle(110), None, handle(120)] })
    }

    #[test]
    fn properties_and_layout_come_back() {
        let (properties, layout) = some();
        let mut out = Vec::new();
        properties.encode(Some(&layout), &mut out);
        assert_eq!(Properties::decode(&out), Ok((properties.clone(), layout)));
        Fields(&mut out).bytes(9_999, b"from a later program");
        assert_eq!(Properties::decode(&out), Ok((properties, layout)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, cut in any::<prop::sample::Index>(), flip: u8) {
            let _ = Properties::decode(&bytes);
            let mut out = Vec::new();
            let (properties, layout) = some();
            properties.encode(Some(&layout), &mut out);
            let at = cut.index(out.len());
            out[at] ^= flip;
            let _ = Properties::decode(&out);
            let _ = Properties::decode(&out[..at]);
        }
    }
}
