//! The outermost layer of a table file: stored blocks with their trailers, and the footer. Drawn in `docs/formats/table.md`.

#![warn(clippy::indexing_slicing)]

use crate::checksum::block_checksum;
use crate::codec::Reader;
use crate::error::{Error, Result};
use bytes::Bytes;
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use std::path::Path;

/// The last eight bytes of every table.
pub(crate) const MAGIC: [u8; 8] = *b"KVtable\n";
/// The version of the format that this program writes, and the only one it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// Bytes of the footer.
pub(crate) const FOOTER_BYTES: usize = 40;
/// Bytes behind a block's own: codec, raw length, checksum.
pub(crate) const TRAILER_BYTES: usize = 13;
/// Largest raw block: the largest value that settings allow, its key and room for the rest.
pub(crate) const RAW_BLOCK_BYTES_MAX: usize = 1 << 30;

const CODEC_NONE: u8 = 0;
const CODEC_LZ4: u8 = 1;

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// As they are.
    None,
    /// LZ4 where it makes a block at least an eighth smaller, as it is otherwise.
    Lz4,
}

impl Compression {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Compression::None => CODEC_NONE,
            Compression::Lz4 => CODEC_LZ4,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Compression> {
        match byte {
            CODEC_NONE => Some(Compression::None),
            CODEC_LZ4 => Some(Compression::Lz4),
            _ => None,
        }
    }
}

/// Where a block stands, its trailer included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BlockHandle {
    pub(crate) offset: u64,
    pub(crate) stored_bytes: u64,
}

/// Compresses blocks and closes them with a trailer; keeps its working memory.
pub(crate) struct BlockSealer {
    compression: Compression,
    table: CompressTable,
    scratch: Vec<u8>,
}

impl BlockSealer {
    pub(crate) fn new(compression: Compression) -> BlockSealer {
        BlockSealer { compression, table: CompressTable::default(), scratch: Vec::new() }
    }

    /// Appends the stored form of `raw` to `out`; it will stand at `offset` of the file. Answers the number of bytes appended.
    pub(crate) fn seal(&mut self, raw: &[u8], file_id: u64, offset: u64, out: &mut Vec<u8>) -> u64 {
        let start = out.len();
        match self.compress(raw) {
            Some(len) => {
                out.extend_from_slice(self.scratch.get(..len).unwrap_or_default());
                out.push(CODEC_LZ4);
            }
            None => {
                out.extend_from_slice(raw);
                out.push(CODEC_NONE);
            }
        }
        out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        let checksum = block_checksum(file_id, offset, out.get(start..).unwrap_or_default());
        out.extend_from_slice(&checksum.to_le_bytes());
        (out.len() - start) as u64
    }

    /// The compressed length in `scratch`, if compression pays.
    fn compress(&mut self, raw: &[u8]) -> Option<usize> {
        if self.compression == Compression::None {
            return None;
        }
        let room = get_maximum_output_size(raw.len());
        if self.scratch.len() < room {
            self.scratch.resize(room, 0);
        }
        let len = compress_into_with_table(raw, &mut self.scratch, &mut self.table).ok()?;
        (len < raw.len() - raw.len() / 8).then_some(len)
    }
}

/// Checks and unpacks the stored form of a block that was read from `handle` of the file.
pub(crate) fn open_block(path: &Path, file_id: u64, offset: u64, mut stored: Vec<u8>) -> Result<Bytes> {
    let damaged = |expected: String, found: String| Error::damaged(path, offset, expected, found);
    let Some((codec, raw_len, checksum, checked)) = split_trailer(&stored) else {
        return Err(damaged(format!("a block of at least {TRAILER_BYTES} bytes"), stored.len().to_string()));
    };
    let computed = block_checksum(file_id, offset, stored.get(..checked).unwrap_or_default());
    if computed != checksum {
        return Err(damaged(
            format!("a block with checksum {checksum:016x}"),
            format!("bytes with {computed:016x}"),
        ));
    }
    let body = stored.len() - TRAILER_BYTES;
    match Compression::from_byte(codec) {
        Some(Compression::None) if raw_len == body => {
            stored.truncate(body);
            Ok(Bytes::from(stored))
        }
        Some(Compression::Lz4) if raw_len <= RAW_BLOCK_BYTES_MAX => {
            let mut raw = vec![0; raw_len];
            match decompress_into(stored.get(..body).unwrap_or_default(), &mut raw) {
                Ok(len) if len == raw_len => Ok(Bytes::from(raw)),
                other => Err(damaged(format!("LZ4 of {raw_len} bytes"), format!("{other:?}"))),
            }
        }
        _ => Err(damaged(
            "a known codec and a fitting length".into(),
            format!("codec {codec}, {raw_len} bytes"),
        )),
    }
}

/// Codec, raw length, checksum, and how many of the leading bytes it covers.
fn split_trailer(stored: &[u8]) -> Option<(u8, usize, u64, usize)> {
    let mut reader = Reader::at(stored, stored.len().checked_sub(TRAILER_BYTES)?);
    let codec = reader.u8()?;
    let raw_len = reader.u32()? as usize;
    let checked = reader.position();
    Some((codec, raw_len, reader.u64()?, checked))
}

/// The fixed end of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    /// The id in the file's checksums.
    pub(crate) file_id: u64,
    pub(crate) properties: BlockHandle,
}

impl Footer {
    /// The footer as it stands at `offset`.
    pub(crate) fn encode(&self, offset: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&self.properties.offset.to_le_bytes());
        out.extend_from_slice(&(self.properties.stored_bytes as u32).to_le_bytes());
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.file_id.to_le_bytes());
        let checksum = block_checksum(self.file_id, offset, &out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&MAGIC);
        out
    }

    /// Reads the footer that stands at `offset`.
    pub(crate) fn decode(path: &Path, offset: u64, bytes: &[u8]) -> Result<Footer> {
        let parts = || {
            let mut reader = Reader::new(bytes);
            let properties = BlockHandle { offset: reader.u64()?, stored_bytes: u64::from(reader.u32()?) };
            let (format, file_id) = (reader.u32()?, reader.u64()?);
            let covered = bytes.get(..reader.position())?;
            Some((Footer { file_id, properties }, format, covered, reader.u64()?, reader.slice(8)?))
        };
        let Some((footer, format, covered, checksum, magic)) = parts() else {
            return Err(Error::damaged(
                path,
                offset,
                format!("a footer of {FOOTER_BYTES} bytes"),
                bytes.len().to_string(),
            ));
        };
        if magic != MAGIC {
            return Err(Error::damaged(path, offset, "the end of a table", format!("{magic:02x?}")));
        }
        let computed = block_checksum(footer.file_id, offset, covered);
        if computed != checksum {
            let (expected, found) =
                (format!("a footer with checksum {checksum:016x}"), format!("{computed:016x}"));
            return Err(Error::damaged(path, offset, expected, found));
        }
        if format != FORMAT_VERSION {
            return Err(Error::UnknownFormat {
                path: path.to_owned(),
                found: format.to_string(),
                supported: "1",
            });
        }
        let end = footer.properties.offset.checked_add(footer.properties.stored_bytes);
        if end != Some(offset) {
            return Err(Error::damaged(
                path,
                offset,
                "properties that end at the footer",
                format!("{end:?}"),
            ));
        }
        Ok(footer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(raw: &[u8], compression: Compression) -> Vec<u8> {
        let mut out = Vec::new();
        BlockSealer::new(compression).seal(raw, 3, 100, &mut out);
        out
    }

    #[test]
    fn compression_is_kept_only_where_it_pays() {
        assert!(sealed(&[b'a'; 4096], Compression::Lz4).len() < 200);
        let noise: Vec<u8> = (0..4096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert!(sealed(&noise, Compression::Lz4).len() <= noise.len() + TRAILER_BYTES);
        assert_eq!(sealed(&[b'a'; 4096], Compression::None).len(), 4096 + TRAILER_BYTES);
    }

    #[test]
    fn a_footer_of_another_format_is_named() {
        let footer = Footer { file_id: 9, properties: BlockHandle { offset: 10, stored_bytes: 90 } };
        let path = Path::new("t.sst");
        assert_eq!(Footer::decode(path, 100, &footer.encode(100)).unwrap(), footer);
        let mut other = footer.encode(100);
        other[12] = 2;
        let checksum = block_checksum(9, 100, &other[..24]);
        other[24..32].copy_from_slice(&checksum.to_le_bytes());
        assert!(matches!(Footer::decode(path, 100, &other), Err(Error::UnknownFormat { .. })));
    }

    proptest! {
        #[test]
        fn blocks_come_back_and_no_flip_passes(raw in proptest::collection::vec(0u8..4, 0..600), at: prop::sample::Index, bit in 0..8) {
            let path = Path::new("t.sst");
            for compression in [Compression::None, Compression::Lz4] {
                let stored = sealed(&raw, compression);
                prop_assert_eq!(&open_block(path, 3, 100, stored.clone()).unwrap()[..], &raw[..]);
                prop_assert!(open_block(path, 4, 100, stored.clone()).is_err());
                prop_assert!(open_block(path, 3, 101, stored.clone()).is_err());
                let mut flipped = stored;
                let at = at.index(flipped.len());
                flipped[at] ^= 1u8 << bit;
                prop_assert!(open_block(path, 3, 100, flipped).is_err());
            }
        }

        #[test]
        fn any_bytes_are_refused_without_panic(bytes: Vec<u8>) {
            prop_assert!(open_block(Path::new("t"), 1, 2, bytes.clone()).is_err());
            prop_assert!(Footer::decode(Path::new("t"), 5, &bytes).is_err());
        }
    }
}
