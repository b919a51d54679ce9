//! Reading bytes that another node sent: every length is checked against what is there, before anything is made for it.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What was expected where something else stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bad(pub(crate) &'static str);

/// A result of reading.
pub(crate) type Result<T> = std::result::Result<T, Bad>;

/// Bytes that are read from the front. What it hands out shares them.
pub(crate) struct Reader(Bytes);

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Reader {
        Reader(bytes)
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        self.0.try_get_u8().map_err(|_| Bad("one more byte"))
    }

    pub(crate) fn flag(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Bad("0 or 1")),
        }
    }

    pub(crate) fn short(&mut self) -> Result<u16> {
        self.0.try_get_u16_le().map_err(|_| Bad("two more bytes"))
    }

    pub(crate) fn word(&mut self) -> Result<u32> {
        self.0.try_get_u32_le().map_err(|_| Bad("four more bytes"))
    }

    pub(crate) fn number(&mut self) -> Result<u64> {
        self.0.try_get_u64_le().map_err(|_| Bad("eight more bytes"))
    }

    /// A number of things that take `least` bytes each.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.word()? as usize;
        if count.saturating_mul(least) > self.0.len() {
            return Err(Bad("a count that the rest has room for"));
        }
        Ok(count)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes> {
        let length = self.count(1)?;
        Ok(self.0.split_to(length))
    }

    /// Passes over so many bytes.
    pub(crate) fn skip(&mut self, length: usize) -> Result<()> {
        if length > self.0.len() {
            return Err(Bad("as many bytes as are said"));
        }
        self.0.advance(length);
        Ok(())
    }

    pub(crate) fn left(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| Bad("text"))
    }

    pub(crate) fn maybe<T>(&mut self, get: impl FnOnce(&mut Reader) -> Result<T>) -> Result<Option<T>> {
        if self.flag()? { get(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn end(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Bad("the end")) }
    }
}

/// Adds a number of things. Whoever sends bounds its messages far below.
pub(crate) fn put_count(count: usize, to: &mut BytesMut) {
    to.put_u32_le(u32::try_from(count).unwrap_or(u32::MAX));
}

pub(crate) fn put_bytes(bytes: &[u8], to: &mut BytesMut) {
    put_count(bytes.len(), to);
    to.put_slice(bytes);
}

pub(crate) fn put_maybe<T>(what: Option<T>, to: &mut BytesMut, put: impl FnOnce(T, &mut BytesMut)) {
    to.put_u8(u8::from(what.is_some()));
    if let Some(what) = what {
        put(what, to);
    }
}
