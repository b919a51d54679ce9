//! Hash slots, as the Redis Cluster specification cuts the keys: CRC16 (XMODEM) of the key or of its hash tag, modulo 16384.

/// Number of hash slots.
pub const SLOTS: u16 = 16_384;

const POLYNOMIAL: u16 = 0x1021;

static CRC16: [u16; 256] = crc16_table();

const fn crc16_table() -> [u16; 256] {
    let mut table = [0u16; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ POLYNOMIAL };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

/// The part of the key that is hashed: what stands between the first `{` and the next `}`, if it is not empty; else the whole key.
pub fn hashed_part(key: &[u8]) -> &[u8] {
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
