//! Reading of bytes that came from a disk or another node: every step is checked, and nothing is taken on trust. An error says what was expected.

use bytes::Bytes;
use kvorum_sync::OpId;

/// What was expected and not found.
pub(crate) type Expected = &'static str;

/// Bytes that are taken from the front.
pub(super) struct Reader<'b> {
    whole: &'b Bytes,
    at: usize,
}

impl<'b> Reader<'b> {
    pub(super) fn new(whole: &'b Bytes) -> Reader<'b> {
        Reader { whole, at: 0 }
    }

    pub(super) fn left(&self) -> usize {
        self.whole.len() - self.at
    }

    pub(super) fn is_done(&self) -> bool {
        self.left() == 0
    }

    /// Everything must have been read.
    pub(super) fn end(&self) -> Result<(), Expected> {
        if self.is_done() { Ok(()) } else { Err("the end") }
    }

    pub(super) fn slice(&mut self, length: usize, expected: Expected) -> Result<&'b [u8], Expected> {
        let end = self.at.checked_add(length).ok_or(expected)?;
        let slice = self.whole.get(self.at..end).ok_or(expected)?;
        self.at = end;
        Ok(slice)
    }

    /// As [`Reader::slice`], sharing the memory.
    pub(super) fn bytes(&mut self, length: usize, expected: Expected) -> Result<Bytes, Expected> {
        let slice = self.slice(length, expected)?;
        Ok(self.whole.slice_ref(slice))
    }

    /// Bytes with their length before them.
    pub(super) fn counted(&mut self, expected: Expected) -> Result<Bytes, Expected> {
        let slice = self.counted_slice(expected)?;
        Ok(self.share(slice))
    }

    /// As [`Reader::counted`], borrowed.
    pub(super) fn counted_slice(&mut self, expected: Expected) -> Result<&'b [u8], Expected> {
        let length = self.count(1, expected)?;
        self.slice(length, expected)
    }

    /// A part of what is read, sharing the memory.
    pub(super) fn share(&self, slice: &'b [u8]) -> Bytes {
        self.whole.slice_ref(slice)
    }

    pub(super) fn array<const N: usize>(&mut self, expected: Expected) -> Result<[u8; N], Expected> {
        self.slice(N, expected)?.try_into().map_err(|_| expected)
    }

    pub(super) fn u8(&mut self, expected: Expected) -> Result<u8, Expected> {
        self.array::<1>(expected).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, expected: Expected) -> Result<u16, Expected> {
        self.array(expected).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, expected: Expected) -> Result<u32, Expected> {
        self.array(expected).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, expected: Expected) -> Result<u64, Expected> {
        self.array(expected).map(u64::from_le_bytes)
    }

    pub(super) fn op(&mut self, expected: Expected) -> Result<OpId, Expected> {
        self.u64(expected).map(OpId::from_version)
    }

    pub(super) fn flag(&mut self, expected: Expected) -> Result<bool, Expected> {
        match self.u8(expected)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(expected),
        }
    }

    /// A number of up to ten bytes, seven bits in each, the lowest first.
    pub(super) fn varint(&mut self, expected: Expected) -> Result<u64, Expected> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(expected)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(expected);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(expected)
    }

    /// How many elements follow, of at least so many bytes each: never more than there are bytes for, so that no list is made room for that
    /// can't be there.
    pub(super) fn count(&mut self, bytes_each: usize, expected: Expected) -> Result<usize, Expected> {
        let count = usize::try_from(self.varint(expected)?).map_err(|_| expected)?;
        if count.checked_mul(bytes_each).is_some_and(|bytes| bytes <= self.left()) {
            Ok(count)
        } else {
            Err(expected)
        }
    }

    /// A list with its length before it.
    pub(super) fn list<T>(
        &mut self,
        bytes_each: usize,
        expected: Expected,
        mut one: impl FnMut(&mut Self) -> Result<T, Expected>,
    ) -> Result<Vec<T>, Expected> {
        let count = self.count(bytes_each, expected)?;
        (0..count).map(|_| one(self)).collect()
    }
}

/// Adds a number as [`Reader::varint`] reads it.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Adds bytes with their length before them.
pub(super) fn put_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_overlong_ones_are_refused() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let bytes = Bytes::from(out);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint("a number"), Ok(value));
            assert_eq!(reader.end(), Ok(()));
        }
        let overlong = Bytes::from_static(&[0xff; 11]);
        assert_eq!(Reader::new(&overlong).varint("a number"), Err("a number"));
    }

    #[test]
    fn no_list_is_longer_than_its_bytes() {
        let mut out = Vec::new();
        put_varint(&mut out, 1 << 40);
        out.extend_from_slice(&[0; 100]);
        let bytes = Bytes::from(out);
        assert_eq!(Reader::new(&bytes).count(8, "a list"), Err("a list"));
    }
}
