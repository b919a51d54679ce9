//! The bytes of a segment: header, groups, records. Decoding checks every bound: the bytes come from a disk.

use crate::types::Sequence;

/// Bytes of the header: a page of its own, so that no later write touches it.
pub(crate) const HEADER_BYTES: usize = 4096;
/// Bytes before a group's records.
pub(crate) const GROUP_HEADER_BYTES: usize = 24;
/// Bytes before a record's own.
pub(crate) const RECORD_HEADER_BYTES: usize = 8;
/// Groups start at multiples of this, so that a search for one after a bad place has few places to try.
pub(crate) const ALIGNMENT: usize = 8;

const MAGIC: &[u8; 8] = b"KVRMWAL\0";
/// The format written, and the only one read so far.
pub(crate) const FORMAT: u32 = 1;
const HEADER_USED_BYTES: usize = 56;

/// What a segment says of itself and of the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Its number, also in its name.
    pub(crate) id: u64,
    /// The number of the segment before it; 0 for the first.
    pub(crate) previous_id: u64,
    /// Where the segment before it ends, in bytes from its start; 0 for the first.
    pub(crate) previous_end: u64,
    /// The sequence of its first operation.
    pub(crate) first_sequence: Sequence,
    /// Mixed into every checksum of its groups.
    pub(crate) salt: u64,
}

/// What the first page of a segment holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderPage {
    /// A header.
    Valid(SegmentHeader),
    /// Nothing: created ahead and not used yet.
    Blank,
    /// Neither; says what was found.
    Bad(String),
    /// A header of a format not known here.
    UnknownFormat(u32),
}

impl SegmentHeader {
    /// The header's page.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(HEADER_BYTES);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&FORMAT.to_le_bytes());
        page.extend_from_slice(&[0; 4]);
        for number in [self.id, self.previous_id, self.previous_end, self.first_sequence, self.salt] {
            page.extend_from_slice(&number.to_le_bytes());
        }
        let checksum = header_checksum(&page);
        page[12..16].copy_from_slice(&checksum.to_le_bytes());
        page.resize(HEADER_BYTES, 0);
        page
    }

    /// Reads a header from the first bytes of a segment.
    pub(crate) fn decode(page: &[u8]) -> HeaderPage {
        if page.iter().all(|&byte| byte == 0) {
            return HeaderPage::Blank;
        }
        let Some(used) = page.get(..HEADER_USED_BYTES) else {
            return HeaderPage::Bad(format!("{} bytes", page.len()));
        };
        if !used.starts_with(MAGIC) {
            return HeaderPage::Bad("another magic number".to_owned());
        }
        let (stored, computed) = (u32_at(used, 12), header_checksum(used));
        if stored != Some(computed) {
            return HeaderPage::Bad(format!("checksum {computed:08x}, stored {:08x}", stored.unwrap_or(0)));
        }
        let number = |at| u64_at(used, at).unwrap_or(0);
        match u32_at(used, 8) {
            Some(FORMAT) => HeaderPage::Valid(SegmentHeader {
                id: number(16),
                previous_id: number(24),
                previous_end: number(32),
                first_sequence: number(40),
                salt: number(48),
            }),
            other => HeaderPage::UnknownFormat(other.unwrap_or(0)),
        }
    }
}

/// Over everything but the checksum's own four bytes.
fn header_checksum(used: &[u8]) -> u32 {
    let front = crc32c::crc32c(used.get(..12).unwrap_or_default());
    crc32c::crc32c_append(front, used.get(16..HEADER_USED_BYTES).unwrap_or_default())
}

/// The fixed part of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    /// Bytes of the group: this header and the records, without what aligns the next group.
    pub(crate) length: u32,
    /// See [`group_checksum`].
    pub(crate) checksum: u32,
    /// The sequence of its first operation; of the next one to come in a group without records.
    pub(crate) first_sequence: Sequence,
    /// Everything up to here was synced when the group was formed.
    pub(crate) durable_seq: Sequence,
}

impl GroupHeader {
    /// Reads the fixed part; `None` if `bytes` are too few.
    pub(crate) fn decode(bytes: &[u8]) -> Option<GroupHeader> {
        Some(GroupHeader {
            length: u32_at(bytes, 0)?,
            checksum: u32_at(bytes, 4)?,
            first_sequence: u64_at(bytes, 8)?,
            durable_seq: u64_at(bytes, 16)?,
        })
    }
}

/// The checksum of a whole group (its length is the slice's) standing at `offset` of a segment with this salt.
pub(crate) fn group_checksum(salt: u64, offset: u64, group: &[u8]) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&salt.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    let checksum = crc32c::crc32c(&place);
    let checksum = crc32c::crc32c_append(checksum, group.get(..4).unwrap_or_default());
    crc32c::crc32c_append(checksum, group.get(8..).unwrap_or_default())
}

/// Fills in the fixed part of a group whose records already stand behind [`GROUP_HEADER_BYTES`] free bytes.
pub(crate) fn seal_group(
    group: &mut [u8],
    salt: u64,
    offset: u64,
    first_sequence: Sequence,
    durable_seq: Sequence,
) {
    // The log's buffer limit is far below 4 GiB, asserted where it is set.
    let length = group.len() as u32;
    group[..4].copy_from_slice(&length.to_le_bytes());
    group[8..16].copy_from_slice(&first_sequence.to_le_bytes());
    group[16..24].copy_from_slice(&durable_seq.to_le_bytes());
    let checksum = group_checksum(salt, offset, group);
    group[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// Appends a record to a forming group. Both numbers fit by the log's limits.
pub(crate) fn append_record(group: &mut Vec<u8>, record: &[u8], operations: u32) {
    group.extend_from_slice(&(record.len() as u32).to_le_bytes());
    group.extend_from_slice(&operations.to_le_bytes());
    group.extend_from_slice(record);
}

/// Takes the first record off `records`: its number of operations and its bytes. `None` if the framing is not one.
pub(crate) fn split_record<'a>(records: &mut &'a [u8]) -> Option<(u32, &'a [u8])> {
    let length = u32_at(records, 0)? as usize;
    let operations = u32_at(records, 4)?;
    let end = RECORD_HEADER_BYTES.checked_add(length)?;
    let record = records.get(RECORD_HEADER_BYTES..end)?;
    *records = records.get(end..)?;
    Some((operations, record))
}

/// `bytes` rounded up to where the next group starts.
pub(crate) fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT as u64)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader =
        SegmentHeader { id: 7, previous_id: 6, previous_end: 4711, first_sequence: 99, salt: 0xdead_beef };

    #[test]
    fn a_header_comes_back() {
        let page = HEADER.encode();
        assert_eq!(page.len(), HEADER_BYTES);
        assert_eq!(SegmentHeader::decode(&page), HeaderPage::Valid(HEADER));
        assert_eq!(SegmentHeader::decode(&[0; HEADER_BYTES]), HeaderPage::Blank);
        assert!(matches!(SegmentHeader::decode(&page[..40]), HeaderPage::Bad(_)));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found() {
        for bit in 0..HEADER_USED_BYTES * 8 {
            let mut page = HEADER.encode();
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(SegmentHeader::decode(&page), HeaderPage::Bad(_)), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_named_not_guessed_at() {
        let mut page = HEADER.encode();
        page[8] = 2;
        let checksum = header_checksum(&page);
        page[12..16].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&page), HeaderPage::UnknownFormat(2));
    }

    #[test]
    fn a_group_holds_for_its_own_place_and_segment_only() {
        let mut group = vec![0; GROUP_HEADER_BYTES];
        append_record(&mut group, b"hello", 3);
        append_record(&mut group, b"", 1);
        seal_group(&mut group, 1, 4096, 10, 9);
        let header = GroupHeader::decode(&group).unwrap();
        assert_eq!((header.first_sequence, header.durable_seq), (10, 9));
        assert_eq!(header.length as usize, group.len());
        assert_eq!(header.checksum, group_checksum(1, 4096, &group));
        assert_ne!(header.checksum, group_checksum(1, 4104, &group));
        assert_ne!(header.checksum, group_checksum(2, 4096, &group));
        for bit in 0..group.len() * 8 {
            group[bit / 8] ^= 1 << (bit % 8);
            let header = GroupHeader::decode(&group).unwrap();
            let whole = header.length as usize == group.len();
            assert!(!whole || header.checksum != group_checksum(1, 4096, &group), "bit {bit}");
            group[bit / 8] ^= 1 << (bit % 8);
        }
        let mut records = &group[GROUP_HEADER_BYTES..];
        assert_eq!(split_record(&mut records), Some((3, &b"hello"[..])));
        assert_eq!(split_record(&mut records), Some((1, &b""[..])));
        assert_eq!(split_record(&mut records), None);
    }

    #[test]
    fn a_record_longer_than_its_group_is_none() {
        let mut group = Vec::new();
        append_record(&mut group, b"hello", 3);
        for len in 0..group.len() {
            assert_eq!(split_record(&mut &group[..len]), None);
        }
        assert_eq!(split_record(&mut &[0xff; 16][..]), None);
    }
}
