//! Bytes of a simulated file: pages that copies share until one of them is written, zeros that take no memory.

use std::sync::Arc;

const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

/// A file's bytes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    len: usize,
    /// `None` for zeros. What lies behind the length is zero.
    pages: Vec<Option<Arc<Page>>>,
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.pages.resize(len.div_ceil(PAGE_BYTES), None);
        if len < self.len
            && let Some(Some(last)) = self.pages.get_mut(len / PAGE_BYTES)
        {
            Arc::make_mut(last)[len % PAGE_BYTES..].fill(0);
        }
        self.len = len;
    }

    /// Writes all of `bytes`, extending the file with zeros up to `offset` if need be.
    pub(super) fn write(&mut self, mut bytes: &[u8], mut offset: usize) {
        if self.len < offset + bytes.len() {
            self.set_len(offset + bytes.len());
        }
        while !bytes.is_empty() {
            let (page, at) = (offset / PAGE_BYTES, offset % PAGE_BYTES);
            let count = bytes.len().min(PAGE_BYTES - at);
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[at..at + count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            offset += count;
        }
    }

    /// Reads what there is at `offset`.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len);
        let total = buffer.len().min(self.len - start);
        let mut done = 0;
        while done < total {
            let (page, at) = ((start + done) / PAGE_BYTES, (start + done) % PAGE_BYTES);
            let count = (total - done).min(PAGE_BYTES - at);
            let to = &mut buffer[done..done + count];
            match &self.pages[page] {
                Some(page) => to.copy_from_slice(&page[at..at + count]),
                None => to.fill(0),
            }
            done += count;
        }
        total
    }

    /// Flips bits of one byte, if there is one.
    pub(super) fn flip(&mut self, offset: usize, mask: u8) {
        let mut byte = [0];
        if self.read(&mut byte, offset as u64) == 1 {
            self.write(&[byte[0] ^ mask], offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dice;
    use super::*;

    #[test]
    fn it_is_a_vector_of_bytes() {
        let mut dice = Dice::new(1);
        let (mut content, mut bytes) = (Content::default(), Vec::new());
        let mut copies = Vec::new();
        for step in 0..2000 {
            let offset = dice.index(20_000);
            match dice.below(8) {
                0 => {
                    content.set_len(offset);
                    bytes.resize(offset, 0);
                }
                1 => copies.push((content.clone(), bytes.clone())),
                2 => {
                    content.flip(offset, 0x40);
                    if let Some(byte) = bytes.get_mut(offset) {
                        *byte ^= 0x40;
                    }
                }
                _ => {
                    let piece = vec![step as u8; dice.index(9000)];
                    content.write(&piece, offset);
                    bytes.resize(bytes.len().max(offset + piece.len()), 0);
                    bytes[offset..offset + piece.len()].copy_from_slice(&piece);
                }
            }
            let mut read = vec![1; 5000];
            let count = content.read(&mut read, offset as u64);
            let expected = &bytes[offset.min(bytes.len())..(offset + 5000).min(bytes.len())];
            assert_eq!(&read[..count], expected, "step {step}");
            assert_eq!(content.len(), bytes.len());
        }
        for (content, bytes) in copies {
            let mut read = vec![0; bytes.len() + 1];
            assert_eq!(content.read(&mut read, 0), bytes.len());
            assert_eq!(read[..bytes.len()], bytes);
        }
    }
}
