//! Messages of requests: many questions, or many answers, in one frame. Each has the number that the coordinator gave its request. What is rare or
//! large (digests, lists) is called instead.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const ASKS: u8 = 0;
const ANSWERS: u8 = 1;

/// In front of each question or answer: its number, its length.
const HEAD_BYTES: usize = 12;

/// What a message holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// Questions.
    Asks(Parts),
    /// Answers; an empty one is a refusal.
    Answers(Parts),
}

/// The numbers and bytes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts(Bytes);

/// A message that is being put together.
#[derive(Debug)]
pub(super) struct Draft(BytesMut);

impl Draft {
    pub(super) fn asks() -> Draft {
        Draft::of(ASKS)
    }

    pub(super) fn answers() -> Draft {
        Draft::of(ANSWERS)
    }

    fn of(kind: u8) -> Draft {
        let mut bytes = BytesMut::with_capacity(256);
        bytes.put_u8(kind);
        Draft(bytes)
    }

    pub(super) fn put(&mut self, number: u64, part: &[u8]) {
        self.0.reserve(HEAD_BYTES + part.len());
        self.0.put_u64_le(number);
        self.0.put_u32_le(u32::try_from(part.len()).unwrap_or(u32::MAX));
        self.0.put_slice(part);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() <= 1
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    pub(super) fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

/// `None` for bytes that are no message. Whether its parts are whole shows when they are gone through.
pub(crate) fn read(mut from: Bytes) -> Option<Message> {
    match from.try_get_u8().ok()? {
        ASKS => Some(Message::Asks(Parts(from))),
        ANSWERS => Some(Message::Answers(Parts(from))),
        _ => None,
    }
}

/// Ends with the first part that is not whole.
impl Iterator for Parts {
    type Item = (u64, Bytes);

    fn next(&mut self) -> Option<(u64, Bytes)> {
        let (number, length) = (self.0.try_get_u64_le().ok()?, self.0.try_get_u32_le().ok()? as usize);
        if length > self.0.len() {
            self.0.clear();
            return None;
        }
        Some((number, self.0.split_to(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some() -> Bytes {
        let mut draft = Draft::answers();
        assert!(draft.is_empty());
        draft.put(7, b"one");
        draft.put(u64::MAX, b"");
        draft.put(8, b"three");
        assert!(!draft.is_empty() && draft.bytes() == 1 + 3 * HEAD_BYTES + 8);
        draft.finish()
    }

    fn parts(message: Bytes) -> Vec<(u64, Bytes)> {
        match read(message) {
            Some(Message::Asks(parts) | Message::Answers(parts)) => parts.collect(),
            None => Vec::new(),
        }
    }

    #[test]
    fn parts_come_back_in_order_and_none_that_is_cut() {
        let all = [(7, "one".into()), (u64::MAX, Bytes::new()), (8, "three".into())];
        assert_eq!(parts(some()), all);
        for end in 0..some().len() {
            let whole = parts(some().slice(..end));
            assert!(whole.len() < 3 && all.starts_with(&whole));
        }
        assert!(matches!(read(Draft::asks().finish()), Some(Message::Asks(_))));
        assert_eq!(read(Bytes::from_static(&[2])), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let length = bytes.len();
            let read: usize = parts(bytes.into()).iter().map(|(_, part)| part.len() + HEAD_BYTES).sum();
            prop_assert!(read <= length);
        }
    }
}
