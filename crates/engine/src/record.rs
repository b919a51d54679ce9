//! A batch as it stands in the log: its operations, one after the other.
//!
//! ```text
//! operation = head · [tree: varint] · [version: u64] · [expires_at: varint] · [tag: u8] · [key length: varint · key] · [payload length: varint · payload]
//! head      = code (4 bits) | 0x10 expires_at follows | 0x20 tag follows | 0x40 tree as before | 0x80 version as before
//! ```
//! Integers are little endian. Key and payload are there where the code has them (a note has no key, a tombstone no payload).
#![warn(clippy::indexing_slicing)]

use crate::tree::TreeId;
use crate::types::{KEY_BYTES_MAX, Kind, Space, Version};

const EXPIRES: u8 = 0x10;
const TAG: u8 = 0x20;
const SAME_TREE: u8 = 0x40;
const SAME_VERSION: u8 = 0x80;

/// One operation of a batch, borrowing from its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation<'a> {
    pub(crate) tree: TreeId,
    pub(crate) space: Space,
    pub(crate) kind: Kind,
    pub(crate) version: Version,
    pub(crate) expires_at: Option<u64>,
    pub(crate) tag: u8,
    pub(crate) key: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// What the operation before had, on either side: most batches write one tree at one version.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Last {
    tree: Option<TreeId>,
    version: Option<Version>,
}

fn code(space: Space, kind: Kind) -> u8 {
    match (space, kind) {
        (Space::Notes, Kind::Retract) => 7,
        (Space::Clears, Kind::Retract) => 8,
        (_, kind) => kind as u8,
    }
}

fn decode_code(code: u8) -> Option<(Space, Kind)> {
    Some(match code {
        1 => (Space::Data, Kind::Value),
        3 => (Space::Data, Kind::Tombstone),
        4 => (Space::Data, Kind::Retract),
        5 => (Space::Clears, Kind::Clear),
        6 => (Space::Notes, Kind::Note),
        7 => (Space::Notes, Kind::Retract),
        8 => (Space::Clears, Kind::Retract),
        _ => return None,
    })
}

/// Appends an operation.
pub(crate) fn push(out: &mut Vec<u8>, last: &mut Last, operation: &Operation<'_>) {
    let same_tree = last.tree == Some(operation.tree);
    let same_version = last.version == Some(operation.version);
    let mut head = code(operation.space, operation.kind);
    head |= if operation.expires_at.is_some() { EXPIRES } else { 0 };
    head |= if operation.tag != 0 { TAG } else { 0 };
    head |= if same_tree { SAME_TREE } else { 0 };
    head |= if same_version { SAME_VERSION } else { 0 };
    out.reserve(operation.key.len() + operation.payload.len() + 32);
    out.push(head);
    if !same_tree {
        put_varint(out, u64::from(operation.tree));
    }
    if !same_version {
        out.extend_from_slice(&operation.version.to_le_bytes());
    }
    if let Some(expires_at) = operation.expires_at {
        put_varint(out, expires_at);
    }
    if operation.tag != 0 {
        out.push(operation.tag);
    }
    if operation.space == Space::Data {
        put_varint(out, operation.key.len() as u64);
        out.extend_from_slice(operation.key);
    }
    if matches!(operation.kind, Kind::Value | Kind::Note) {
        put_varint(out, operation.payload.len() as u64);
        out.extend_from_slice(operation.payload);
    }
    *last = Last { tree: Some(operation.tree), version: Some(operation.version) };
}

/// Reads the operations of a record, in order. An error says what was expected and ends it.
pub(crate) struct Operations<'a> {
    rest: &'a [u8],
    last: Last,
}

impl<'a> Operations<'a> {
    pub(crate) fn new(record: &'a [u8]) -> Operations<'a> {
        Operations { rest: record, last: Last::default() }
    }

    fn read(&mut self) -> Result<Operation<'a>, &'static str> {
        let head = self.take(1, "an operation")?.first().copied().unwrap_or_default();
        let (space, kind) = decode_code(head & 0x0f).ok_or("a known operation code")?;
        let tree = if head & SAME_TREE == 0 {
            TreeId::try_from(self.varint("a tree id")?).map_err(|_| "a tree id below 2^32")?
        } else {
            self.last.tree.ok_or("a tree in the first operation")?
        };
        let version = if head & SAME_VERSION == 0 {
            let bytes = self.take(8, "a version")?;
            Version::from_le_bytes(bytes.try_into().map_err(|_| "a version")?)
        } else {
            self.last.version.ok_or("a version in the first operation")?
        };
        let expires_at = if head & EXPIRES == 0 { None } else { Some(self.varint("a time of expiry")?) };
        let tag =
            if head & TAG == 0 { 0 } else { self.take(1, "a tag")?.first().copied().unwrap_or_default() };
        let key = if space == Space::Data { self.bytes(KEY_BYTES_MAX as u64, "a key")? } else { &[] };
        let payload = if matches!(kind, Kind::Value | Kind::Note) {
            self.bytes(u64::from(u32::MAX), "a value")?
        } else {
            &[]
        };
        self.last = Last { tree: Some(tree), version: Some(version) };
        Ok(Operation { tree, space, kind, version, expires_at, tag, key, payload })
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(what)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self, what: &'static str) -> Result<u64, &'static str> {
        let (value, rest) = get_varint(self.rest).ok_or(what)?;
        self.rest = rest;
        Ok(value)
    }

    fn bytes(&mut self, limit: u64, what: &'static str) -> Result<&'a [u8], &'static str> {
        let len = self.varint(what)?;
        if len > limit {
            return Err(what);
        }
        self.take(usize::try_from(len).map_err(|_| what)?, what)
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<Operation<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let operation = self.read();
        if operation.is_err() {
            self.rest = &[];
        }
        Some(operation)
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn get_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return None;
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds() -> impl Strategy<Value = (Space, Kind)> {
        (1_u8..=8).prop_filter_map("a code", decode_code)
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_read(
            operations in prop::collection::vec(
                (0..3_u32, kinds(), 0..3_u64, prop::option::of(any::<u64>()), 0..2_u8, prop::collection::vec(any::<u8>(), 0..300), prop::collection::vec(any::<u8>(), 0..20)),
                0..20
            )
        ) {
            let operations: Vec<_> = operations
                .iter()
                .map(|(tree, (space, kind), version, expires_at, tag, key, payload)| Operation {
                    tree: *tree,
                    space: *space,
                    kind: *kind,
                    version: *version,
                    expires_at: *expires_at,
                    tag: *tag,
                    key: if *space == Space::Data { key } else { &[] },
                    payload: if matches!(kind, Kind::Value | Kind::Note) { payload } else { &[] },
                })
                .collect();
            let (mut record, mut last) = (Vec::new(), Last::default());
            for operation in &operations {
                push(&mut record, &mut last, operation);
            }
            let read: Result<Vec<_>, _> = Operations::new(&record).collect();
            prop_assert_eq!(read, Ok(operations));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            for operation in Operations::new(&bytes) {
                if operation.is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_varint_over_64_bits_is_refused() {
        assert_eq!(get_varint(&[0xff; 10]), None);
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        assert_eq!(get_varint(&out), Some((u64::MAX, &[][..])));
    }
}
