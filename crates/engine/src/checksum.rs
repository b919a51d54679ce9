//! Checksums of tables and blob files: XXH3 (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>), 64 bits for a block, 128 for a
//! whole file.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The checksum of a block: over its bytes, and over where it belongs, so that a read that was misdirected to another place or file
/// is found as surely as a flipped bit.
pub(crate) fn block_checksum(file_id: u64, offset: u64, bytes: &[u8]) -> u64 {
    let mut place = [0; 16];
    let (id, at) = place.split_at_mut(8);
    id.copy_from_slice(&file_id.to_le_bytes());
    at.copy_from_slice(&offset.to_le_bytes());
    xxh3_64(bytes).wrapping_add(xxh3_64(&place))
}

/// The hash that filters and in-block buckets share: a lookup takes it once for all tables.
#[inline]
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The hash of a whole file, taken while it is written or read in order.
pub(crate) struct FileHasher(Box<Xxh3>);

impl FileHasher {
    pub(crate) fn new() -> FileHasher {
        FileHasher(Box::new(Xxh3::new()))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(&self) -> u128 {
        self.0.digest128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_counts_as_much_as_the_bytes() {
        let here = block_checksum(7, 4096, b"bytes");
        assert_ne!(here, block_checksum(7, 4096, b"bytez"));
        assert_ne!(here, block_checksum(8, 4096, b"bytes"));
        assert_ne!(here, block_checksum(7, 8192, b"bytes"));
        assert_ne!(block_checksum(1, 2, b""), block_checksum(2, 1, b""));
    }

    #[test]
    fn a_file_hash_does_not_depend_on_the_pieces() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        let mut whole = FileHasher::new();
        whole.update(&bytes);
        let mut pieces = FileHasher::new();
        bytes.chunks(77).for_each(|piece| pieces.update(piece));
        assert_eq!(whole.finish(), pieces.finish());
    }
}
