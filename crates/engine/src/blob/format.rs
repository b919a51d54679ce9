//! The bytes of a blob file: a head, then records one behind the other.

#![warn(clippy::indexing_slicing)]

use crate::checksum::block_checksum;
use crate::codec::Reader;
use crate::error::{Error, Result};
use crate::types::Version;
use bytes::Bytes;
use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// The first eight bytes of every blob file.
const MAGIC: [u8; 8] = *b"KVblobs\n";
const FORMAT_VERSION: u32 = 1;
/// Bytes of the head: magic, format version, file id, checksum.
pub(crate) const HEAD_BYTES: usize = 28;
/// Bytes of a record before the value: checksum and codec.
pub(crate) const RECORD_HEAD_BYTES: usize = 9;

const CODEC_NONE: u8 = 0;
const CODEC_LZ4: u8 = 1;

/// The head of the file with this id.
pub(crate) fn encode_head(file_id: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&file_id.to_le_bytes());
    let checksum = block_checksum(file_id, 0, &out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// Checks a file's head.
pub(crate) fn check_head(path: &Path, bytes: &[u8]) -> Result<()> {
    let damaged = |expected: &str, found: String| Err(Error::damaged(path, 0, expected, found));
    let parts = || {
        let mut reader = Reader::new(bytes);
        let (magic, format, file_id) = (reader.slice(MAGIC.len())?, reader.u32()?, reader.u64()?);
        let covered = bytes.get(..reader.position())?;
        Some((magic, format, block_checksum(file_id, 0, covered), reader.u64()?))
    };
    match parts() {
        None => damaged("the head of a blob file", format!("{} bytes", bytes.len())),
        Some((magic, ..)) if magic != MAGIC => damaged("the head of a blob file", format!("{magic:02x?}")),
        Some((_, _, computed, stored)) if computed != stored => {
            damaged("a head with a fitting checksum", format!("{stored:016x} for {computed:016x}"))
        }
        Some((_, FORMAT_VERSION, ..)) => Ok(()),
        Some((_, format, ..)) => {
            Err(Error::UnknownFormat { path: path.to_owned(), found: format.to_string(), supported: "1" })
        }
    }
}

/// Over what the record belongs to and what stands in it: a record that is read for another key or version, or from another place, does
/// not fit. Not over the file's id: that changes when a file is shipped.
fn checksum(key: &[u8], version: Version, offset: u64, value_bytes: u64, stored: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(&version.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&value_bytes.to_le_bytes());
    hasher.update(stored);
    hasher.digest()
}

/// Makes records; keeps its working memory.
pub(crate) struct RecordSealer {
    compress: bool,
    table: CompressTable,
    scratch: Vec<u8>,
}

impl RecordSealer {
    pub(crate) fn new(compress: bool) -> RecordSealer {
        RecordSealer { compress, table: CompressTable::default(), scratch: Vec::new() }
    }

    /// Appends the record of a value that will stand at `offset`; answers its length.
    pub(crate) fn seal(
        &mut self,
        key: &[u8],
        version: Version,
        value: &[u8],
        offset: u64,
        out: &mut Vec<u8>,
    ) -> u64 {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        match self.compressed(value) {
            Some(len) => {
                out.push(CODEC_LZ4);
                out.extend_from_slice(self.scratch.get(..len).unwrap_or_default());
            }
            None => {
                out.push(CODEC_NONE);
                out.extend_from_slice(value);
            }
        }
        let stored = out.get(start + 8..).unwrap_or_default();
        let checksum = checksum(key, version, offset, value.len() as u64, stored);
        if let Some(place) = out.get_mut(start..start + 8) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
        (out.len() - start) as u64
    }

    fn compressed(&mut self, value: &[u8]) -> Option<usize> {
        if !self.compress {
            return None;
        }
        let room = get_maximum_output_size(value.len());
        if self.scratch.len() < room {
            self.scratch.resize(room, 0);
        }
        let len = compress_into_with_table(value, &mut self.scratch, &mut self.table).ok()?;
        (len < value.len() - value.len() / 8).then_some(len)
    }
}

/// Checks and unpacks the record that was read from `offset`.
pub(crate) fn open_record(
    path: &Path,
    offset: u64,
    (key, version): (&[u8], Version),
    value_bytes: u64,
    mut record: Vec<u8>,
) -> Result<Bytes> {
    let damaged = |expected: String, found: String| Error::damaged(path, offset, expected, found);
    let mut reader = Reader::new(&record);
    let head = || Some((reader.u64()?, reader.u8()?));
    let Some((stored_checksum, codec)) = { head }() else {
        return Err(damaged(
            format!("a record of at least {RECORD_HEAD_BYTES} bytes"),
            record.len().to_string(),
        ));
    };
    let computed = checksum(key, version, offset, value_bytes, record.get(8..).unwrap_or_default());
    if computed != stored_checksum {
        let expected = format!("the value of version {version} with checksum {stored_checksum:016x}");
        return Err(damaged(expected, format!("bytes with {computed:016x}")));
    }
    let len = usize::try_from(value_bytes).unwrap_or(usize::MAX);
    match codec {
        CODEC_NONE if record.len() - RECORD_HEAD_BYTES == len => {
            record.drain(..RECORD_HEAD_BYTES);
            Ok(Bytes::from(record))
        }
        CODEC_LZ4 if len <= crate::sst::VALUE_BYTES_MAX => {
            let mut value = vec![0; len];
            match decompress_into(record.get(RECORD_HEAD_BYTES..).unwrap_or_default(), &mut value) {
                Ok(written) if written == len => Ok(Bytes::from(value)),
                other => Err(damaged(format!("LZ4 of {len} bytes"), format!("{other:?}"))),
            }
        }
        _ => Err(damaged("a known codec and a fitting length".into(), format!("codec {codec}, {len} bytes"))),
    }
}
