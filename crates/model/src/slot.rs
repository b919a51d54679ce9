//! Hash slots, as the Redis Cluster specification cuts the keys: CRC16 (XMODEM) of the key or of its hash tag, modulo 16384.

/// Number of hash slots.
pub const SLOTS: u16 = 16_384;

const POLYNOMIAL: u16 = 0x1021;

/// Bytes that are folded in at once.
const STRIDE: usize = 8;

/// `CRC16[k][byte]` is the checksum of `byte` with `k` zero bytes behind it.
static CRC16: [[u16; 256]; STRIDE] = crc16_tables();

const fn crc16_tables() -> [[u16; 256]; STRIDE] {
    let mut tables = [[0u16; 256]; STRIDE];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut zeros = 0;
        while zeros < STRIDE {
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
                bit += 1;
            }
            tables[zeros][byte] = crc;
            zeros += 1;
        }
        byte += 1;
    }
    tables
}

/// CRC16, eight bytes at a time ("slicing", Kounavis and Berry 2005): a checksum is linear, so that of a stride is the sum of its bytes'.
fn crc16(bytes: &[u8]) -> u16 {
    let [one, .., eighth] = &CRC16;
    let (strides, rest) = bytes.as_chunks::<STRIDE>();
    let mut crc = 0u16;
    for stride in strides {
        let [first, second, others @ ..] = stride;
        let [high, low] = crc.to_be_bytes();
        crc = eighth[usize::from(first ^ high)] ^ CRC16[STRIDE - 2][usize::from(second ^ low)];
        for (table, byte) in CRC16.iter().rev().skip(2).zip(others) {
            crc ^= table[usize::from(*byte)];
        }
    }
    rest.iter().fold(crc, |crc, byte| (crc << 8) ^ one[usize::from((crc >> 8) as u8 ^ byte)])
}

/// The part of the key that is hashed: what stands between the first `{` and the next `}`, if it is not empty; else the whole key.
pub fn hashed_part(key: &[u8]) -> &[u8] {
    // Most keys have no tag, and this search looks at several bytes at a time.
    if !key.contains(&b'{') {
        return key;
    }
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close)
    });
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// The key's hash slot, below [`SLOTS`].
pub fn slot(key: &[u8]) -> u16 {
    crc16(hashed_part(key)) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::{SLOTS, crc16, hashed_part, slot};

    #[test]
    fn the_specification_s_vectors_hold() {
        // Redis Cluster specification, appendix: the output of CRC16 for "123456789" is 0x31C3.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // CLUSTER KEYSLOT of a real server.
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"bar"), 5061);
        assert_eq!(slot(b"hello"), 866);
        assert_eq!(slot(b"somekey"), 11058);
        assert_eq!(slot(b"foo{hash_tag}"), 2515);
        assert_eq!(slot(b""), 0);
    }

    #[test]
    fn strides_change_nothing() {
        let bytewise = |bytes: &[u8]| {
            let fold = |crc: u16, byte: &u8| {
                (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
                    0 => crc << 1,
                    _ => (crc << 1) ^ super::POLYNOMIAL,
                })
            };
            bytes.iter().fold(0, fold)
        };
        let noise: Vec<u8> = (0..200u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for length in 0..64 {
            for start in 0..(noise.len() - length) {
                let bytes = &noise[start..start + length];
                assert_eq!(crc16(bytes), bytewise(bytes), "{bytes:?}");
            }
        }
    }

    #[test]
    fn hash_tags_are_found_as_specified() {
        assert_eq!(hashed_part(b"{user1000}.following"), b"user1000");
        assert_eq!(hashed_part(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hashed_part(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hashed_part(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hashed_part(b"foo{bar"), b"foo{bar");
        assert_eq!(hashed_part(b"}foo{bar}"), b"bar");
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
    }

    #[test]
    fn slots_are_in_range_and_spread() {
        let mut seen = vec![false; usize::from(SLOTS)];
        for number in 0..200_000u32 {
            seen[usize::from(slot(format!("key:{number}").as_bytes()))] = true;
        }
        assert!(seen.iter().all(|slot| *slot));
    }
}
