//! A Bloom filter whose probes for one key all fall into one cache line (Putze, Sanders, Singler: *Cache-, Hash- and Space-Efficient
//! Bloom Filters*, 2007): one memory access for a lookup, at the price of a few tenths of a percent more false positives.

#![warn(clippy::indexing_slicing)]

/// Bytes of a line.
const LINE_BYTES: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(align(64))]
struct Line([u64; 8]);

/// A filter in memory.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Filter {
    lines: Box<[Line]>,
    probes: u32,
}

/// The number of probes that is best for so many bits a key, within a line.
pub(crate) fn probes_for(bits_per_key: u32) -> u32 {
    (bits_per_key * 69 / 100).clamp(1, 12)
}

impl Filter {
    /// Builds the filter of `hashes`, one for each key.
    pub(crate) fn build(hashes: &[u64], bits_per_key: u32) -> Filter {
        let bits = hashes.len() as u64 * u64::from(bits_per_key);
        let lines = bits.div_ceil(8 * LINE_BYTES as u64).max(1) as usize;
        let mut filter = Filter { lines: vec![Line([0; 8]); lines].into(), probes: probes_for(bits_per_key) };
        for &hash in hashes {
            let at = filter.line_of(hash);
            let Some(line) = filter.lines.get_mut(at) else { continue };
            for bit in bits_of(hash, filter.probes) {
                if let Some(word) = line.0.get_mut((bit >> 6) as usize) {
                    *word |= 1 << (bit & 63);
                }
            }
        }
        filter
    }

    /// Reads what [`Filter::encode`] wrote; `None` if the length is not one of a filter.
    pub(crate) fn decode(bytes: &[u8], probes: u32) -> Option<Filter> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(LINE_BYTES) || !(1..=12).contains(&probes) {
            return None;
        }
        let word = |chunk: &[u8]| u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        let line = |bytes: &[u8]| {
            let mut line = Line([0; 8]);
            line.0.iter_mut().zip(bytes.chunks_exact(8)).for_each(|(to, from)| *to = word(from));
            line
        };
        Some(Filter { lines: bytes.chunks_exact(LINE_BYTES).map(line).collect(), probes })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|line| line.0).flat_map(u64::to_le_bytes).collect()
    }

    /// Whether the key with this hash may be in the table; `false` is certain.
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        let Some(line) = self.lines.get(self.line_of(hash)) else { return true };
        bits_of(hash, self.probes)
            .all(|bit| line.0.get((bit >> 6) as usize).is_none_or(|word| word >> (bit & 63) & 1 == 1))
    }

    pub(crate) fn probes(&self) -> u32 {
        self.probes
    }

    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.lines.len() * LINE_BYTES
    }

    #[inline]
    fn line_of(&self, hash: u64) -> usize {
        (((hash >> 32) * self.lines.len() as u64) >> 32) as usize
    }
}

/// The bits of a key within its line, from the low half of the hash: the top nine bits of a product that is multiplied on and on.
#[inline]
fn bits_of(hash: u64, probes: u32) -> impl Iterator<Item = u32> {
    let start = (hash as u32).wrapping_mul(0x9e37_79b9);
    (0..probes).scan(start, |state, _| {
        let bit = *state >> 23;
        *state = state.wrapping_mul(0x9e37_79b9);
        Some(bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::key_hash;

    fn hashes(range: std::ops::Range<u32>) -> Vec<u64> {
        range.map(|i| key_hash(&i.to_le_bytes())).collect()
    }

    #[test]
    fn no_key_is_missed_and_few_others_pass() {
        for (bits, most) in [(10, 0.013), (14, 0.004)] {
            let filter = Filter::build(&hashes(0..50_000), bits);
            assert!(hashes(0..50_000).into_iter().all(|hash| filter.may_contain(hash)));
            let passed = hashes(50_000..150_000).into_iter().filter(|&hash| filter.may_contain(hash)).count();
            let rate = passed as f64 / 100_000.0;
            assert!(rate < most, "{rate} of absent keys pass with {bits} bits a key");
        }
    }

    #[test]
    fn filters_come_back_and_odd_lengths_do_not() {
        let filter = Filter::build(&hashes(0..100), 10);
        let bytes = filter.encode();
        assert_eq!(bytes.len(), filter.memory_bytes());
        assert_eq!(Filter::decode(&bytes, filter.probes()), Some(filter));
        assert_eq!(Filter::decode(&bytes[1..], 6), None);
        assert_eq!(Filter::decode(&[], 6), None);
        assert_eq!(Filter::decode(&bytes, 0), None);
    }
}
