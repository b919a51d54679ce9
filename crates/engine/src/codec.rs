//! Reading and writing the small pieces that every format is made of: little-endian integers, varints, slices. Reading never
//! panics and never goes past the end: a short input is `None`, which the caller turns into an error with file and offset.

#![warn(clippy::indexing_slicing)]

/// A position in bytes that came from disk.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, position: 0 }
    }

    /// Starts in the middle; a position past the end reads nothing.
    pub(crate) fn at(bytes: &'a [u8], position: usize) -> Reader<'a> {
        Reader { bytes, position }
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.position >= self.bytes.len()
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.position)?;
        self.position += 1;
        Some(byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.position.checked_add(len)?;
        let slice = self.bytes.get(self.position..end)?;
        self.position = end;
        Some(slice)
    }

    /// A varint (LEB128: seven bits a byte, low first, the high bit says that more follow).
    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let first = self.u8()?;
        if first < 0x80 { Some(u64::from(first)) } else { self.long_varint(first) }
    }

    fn long_varint(&mut self, first: u8) -> Option<u64> {
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// A varint that counts things in memory.
    #[inline]
    pub(crate) fn varint_len(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    /// Bytes behind their length as a varint.
    pub(crate) fn prefixed(&mut self) -> Option<&'a [u8]> {
        let len = self.varint_len()?;
        self.slice(len)
    }
}

/// Appends a varint.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends bytes behind their length.
pub(crate) fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Maps a difference of two `u64` (wrapping) to a number that is small when they are near each other, on either side.
pub(crate) fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (((difference as i64) >> 63) as u64)
}

/// The inverse of [`zigzag`].
pub(crate) fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// Length of the longest common prefix.
#[inline]
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let whole = a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|(x, y)| x == y).count() * 8;
    let rest = |s: &'_ [u8]| s.len().saturating_sub(whole);
    let tail = rest(a).min(rest(b));
    let same = a.iter().skip(whole).zip(b.iter().skip(whole)).take(tail).take_while(|(x, y)| x == y).count();
    whole + same
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn varints_at_the_edges_come_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert!(out.len() <= 10);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.varint(), Some(value));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn an_overlong_varint_is_refused() {
        assert_eq!(Reader::new(&[0xff; 11]).varint(), None);
        assert_eq!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02]).varint(), None);
    }

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, other: u64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
            prop_assert_eq!(other.wrapping_add(unzigzag(zigzag(value.wrapping_sub(other)))), value);
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(Reader::new(&out).varint(), Some(value));
        }

        #[test]
        fn reading_stays_within_any_input(bytes: Vec<u8>, from in 0usize..40, len: usize) {
            let mut reader = Reader::at(&bytes, from);
            while reader.varint().is_some() {}
            let _ = (reader.u32(), reader.u64(), reader.u128(), reader.slice(len), reader.prefixed());
            prop_assert!(reader.position() <= bytes.len().max(from));
        }

        #[test]
        fn common_prefix_is_what_it_says(a in "[ab]{0,30}", b in "[ab]{0,30}") {
            let n = common_prefix(a.as_bytes(), b.as_bytes());
            prop_assert_eq!(&a[..n], &b[..n]);
            prop_assert!(a.as_bytes().get(n) != b.as_bytes().get(n) || n == a.len() && n == b.len());
        }
    }
}
