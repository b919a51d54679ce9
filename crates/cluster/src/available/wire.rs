//! What coordinators and replicas say to each other: calls over the transport. In front of each question stand the namespace, a digest of the
//! nodes that the caller knows, and the durability that the client asked for.

use super::{COPIES_MAX, Entry};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kvorum_engine::Durability;
use kvorum_sync::StoreId;

/// What a node asks of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Keep this entry, unless there is a newer one.
    Write { key: Bytes, entry: Entry, why: Why },
    /// The entry of this key, for a request that asks `from` replicas and needs `ack` answers.
    Read { key: Bytes, ack: u8, from: u8 },
    /// Digests of the slots of a shard, as far as both nodes keep them.
    Digests { place: u16 },
    /// Keys and versions of some slots of a shard, or of all if none is named, behind a key, in key order.
    List { place: u16, slots: Vec<u16>, after: Option<Bytes> },
    /// The entries of these keys of a shard; the answer may have fewer of them, if they are large.
    Fetch { place: u16, keys: Vec<Bytes> },
    /// How the replica stands.
    Standing,
    /// The node that says so is awake at this time of its, and does not doubt what it holds. It has compared that with all that the node which is
    /// asked held at `seen_ms` of its own time. Unix milliseconds.
    Awake { now_ms: u64, seen_ms: u64 },
    /// Entries behind a key, or with it if it is the first, in key order up to `end` (exclusive), deletions too: as many as an answer holds, none at
    /// the end.
    Range { from: Bytes, is_first: bool, end: Option<Bytes> },
    /// Digests of the slots of a shard, as far as the node that is asked and another one both keep them.
    DigestsWith { place: u16, peer: StoreId },
    /// Of a strong namespace: the checkpoint of a member, and the digest of what it had at a version, without what has expired by then.
    MemberDigest { place: u16, at: Option<u64>, expired_ms: u64 },
    /// The entry of a key, and those that were written at the same time; `ack` and `from` as of a read.
    Conflicts { key: Bytes, ack: u8, from: u8 },
    /// As `Range`, but keys without their values, and no more than so many.
    Keys { from: Bytes, is_first: bool, end: Option<Bytes>, most: u16 },
    /// The key that a mark stands for: whether the node remembers it, or, if it is to search, has a key that this is the mark of.
    Marked { mark: u64, search: bool },
    /// Some key of this replica, by these dice.
    Drawn { seed: u64 },
}

/// Why an entry is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// A client waits for `ack` replicas.
    Client { ack: u8 },
    /// The replica is behind.
    Mend,
    /// It is to be kept here from now on, where other nodes kept it before: however old it is, it was not deleted.
    Move,
}

impl Why {
    fn number(self) -> u8 {
        match self {
            Why::Client { ack } => ack,
            Why::Mend => WHY_MEND,
            Why::Move => WHY_MOVE,
        }
    }
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The entry, or a newer one, is durable here.
    Stored {
        /// The newer one's version; zero if there is none.
        newer: u64,
        /// `from` of the entry that stood here before, if that is larger: there are copies that the new one must replace.
        wider: u8,
    },
    /// The entry, if there is one.
    Found(Option<Entry>),
    /// Slots that are not empty, and digests of their keys and versions.
    Digests(Vec<(u16, u64)>),
    /// Keys and versions; whether there are more behind them.
    List { listed: Vec<Listed>, more: bool },
    /// Entries.
    Fetched(Vec<(Bytes, Entry)>),
    /// Nothing was done: the replica knows other nodes of the cluster than whoever asks.
    OtherNodes,
    /// How the replica stands.
    Standing(Stands),
    /// The node that says so has heard that another one is awake.
    Heard {
        /// Its time, in Unix milliseconds.
        now_ms: u64,
        /// It never held anything.
        is_unused: bool,
        /// Those of whom it has heard nothing for so long that they may be away.
        silent: Vec<StoreId>,
    },
    /// The replica has not collected yet what it should keep, or doubts what it holds: its answer does not count. A write was done all the same.
    Rebuilding,
    /// Nothing was done: the clock of the node that gave the version is too far ahead.
    Ahead,
    /// A member's checkpoint, and the digest asked for; none if it is not there yet, or knows no more.
    MemberDigest { checkpoint: u64, digest: Option<u64> },
    /// A key, if there is one.
    Key(Option<Bytes>),
}

/// How a replica stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stands {
    /// Tombstones up to this version may be forgotten.
    pub(crate) floor: u64,
    /// It doubts what it holds.
    pub(crate) doubts: bool,
    /// It has all that it should.
    pub(crate) is_whole: bool,
    /// It never held anything.
    pub(crate) is_unused: bool,
}

/// A key without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: Bytes,
    pub(crate) version: u64,
    pub(crate) from: u8,
    /// As [`Entry::shadow`].
    pub(crate) shadow: bool,
    /// A digest of what was written at the same time and is kept beside it; zero if there is nothing.
    pub(crate) beside: u64,
}

/// A part of what other nodes sent is missing or does not make sense.
type Read<T> = Option<T>;

/// What stands in front of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) namespace: u16,
    /// The print of the caller's [`Order`](super::Order).
    pub(crate) nodes: u64,
    /// What a write must survive before it is answered, if the client asked for something; the namespace may ask for more.
    pub(crate) durability: Option<Durability>,
}

/// Where a client's `ack` stands otherwise.
const WHY_MEND: u8 = 0;
const WHY_MOVE: u8 = 255;

const DURABILITIES: [Option<Durability>; 4] =
    [None, Some(Durability::Buffered), Some(Durability::Written), Some(Durability::Synced)];

pub(crate) fn encode_ask(head: &Head, ask: &Ask) -> Bytes {
    let mut to = BytesMut::new();
    to.put_u16_le(head.namespace);
    to.put_u64_le(head.nodes);
    let durability = DURABILITIES.iter().position(|durability| *durability == head.durability);
    to.put_u8(durability.unwrap_or_default() as u8);
    match ask {
        Ask::Write { key, entry, why } => {
            to.put_slice(&[0, why.number()]);
            put_bytes(key, &mut to);
            put_entry(entry, &mut to);
        }
        Ask::Read { key, ack, from } => {
            to.put_slice(&[1, *ack, *from]);
            put_bytes(key, &mut to);
        }
        Ask::Digests { place } => {
            to.put_u8(2);
            to.put_u16_le(*place);
        }
        Ask::List { place, slots, after } => {
            to.put_u8(3);
            to.put_u16_le(*place);
            put_all(slots, &mut to, |slot, to| to.put_u16_le(*slot));
            to.put_u8(u8::from(after.is_some()));
            put_bytes(after.as_deref().unwrap_or_default(), &mut to);
        }
        Ask::Fetch { place, keys } => {
            to.put_u8(4);
            to.put_u16_le(*place);
            put_all(keys, &mut to, |key, to| put_bytes(key, to));
        }
        Ask::Standing => to.put_u8(5),
        Ask::Range { from, is_first, end } => put_range(6, from, *is_first, end.as_deref(), &mut to),
        Ask::DigestsWith { place, peer } => {
            to.put_u8(7);
            to.put_u16_le(*place);
            to.put_u64_le(peer.0);
        }
        Ask::MemberDigest { place, at, expired_ms } => {
            to.put_u8(8);
            to.put_u16_le(*place);
            put_all(at.as_slice(), &mut to, |at, to| to.put_u64_le(*at));
            to.put_u64_le(*expired_ms);
        }
        Ask::Conflicts { key, ack, from } => {
            to.put_slice(&[9, *ack, *from]);
            put_bytes(key, &mut to);
        }
        Ask::Keys { from, is_first, end, most } => {
            put_range(10, from, *is_first, end.as_deref(), &mut to);
            to.put_u16_le(*most);
        }
        Ask::Marked { mark, search } => {
            to.put_slice(&[11, u8::from(*search)]);
            to.put_u64_le(*mark);
        }
        Ask::Drawn { seed } => {
            to.put_u8(12);
            to.put_u64_le(*seed);
        }
        Ask::Awake { now_ms, seen_ms } => {
            to.put_u8(13);
            to.put_u64_le(*now_ms);
            to.put_u64_le(*seen_ms);
        }
    }
    to.freeze()
}

/// `None` for bytes that are nothing of the kind.
pub(crate) fn decode_ask(mut from: Bytes) -> Read<(Head, Ask)> {
    let (namespace, nodes) = (from.try_get_u16_le().ok()?, from.try_get_u64_le().ok()?);
    let durability = *DURABILITIES.get(usize::from(from.try_get_u8().ok()?))?;
    let head = Head { namespace, nodes, durability };
    let ask = match from.try_get_u8().ok()? {
        0 => {
            let why = match from.try_get_u8().ok()? {
                WHY_MEND => Why::Mend,
                WHY_MOVE => Why::Move,
                ack => Why::Client { ack: copies(ack)? },
            };
            Ask::Write { key: bytes(&mut from)?, entry: entry(&mut from)?, why }
        }
        1 => {
            let (ack, copies) = quorum(&mut from)?;
            Ask::Read { key: bytes(&mut from)?, ack, from: copies }
        }
        2 => Ask::Digests { place: from.try_get_u16_le().ok()? },
        3 => {
            let place = from.try_get_u16_le().ok()?;
            let slots = all(&mut from, 2, |from| from.try_get_u16_le().ok())?;
            let (has, after) = (from.try_get_u8().ok()? == 1, bytes(&mut from)?);
            Ask::List { place, slots, after: has.then_some(after) }
        }
        4 => Ask::Fetch { place: from.try_get_u16_le().ok()?, keys: all(&mut from, 4, bytes)? },
        5 => Ask::Standing,
        6 => {
            let (is_first, has_end) = (from.try_get_u8().ok()? == 1, from.try_get_u8().ok()? == 1);
            let (start, end) = (bytes(&mut from)?, bytes(&mut from)?);
            Ask::Range { from: start, is_first, end: has_end.then_some(end) }
        }
        7 => {
            let place = from.try_get_u16_le().ok()?;
            Ask::DigestsWith { place, peer: StoreId(from.try_get_u64_le().ok()?) }
        }
        8 => {
            let place = from.try_get_u16_le().ok()?;
            let at = at_most_one(&mut from)?;
            Ask::MemberDigest { place, at, expired_ms: from.try_get_u64_le().ok()? }
        }
        9 => {
            let (ack, copies) = quorum(&mut from)?;
            Ask::Conflicts { key: bytes(&mut from)?, ack, from: copies }
        }
        10 => {
            let (is_first, has_end) = (from.try_get_u8().ok()? == 1, from.try_get_u8().ok()? == 1);
            let (start, end) = (bytes(&mut from)?, bytes(&mut from)?);
            let (end, most) = (has_end.then_some(end), from.try_get_u16_le().ok()?);
            Ask::Keys { from: start, is_first, end, most }
        }
        11 => {
            let search = from.try_get_u8().ok()? == 1;
            Ask::Marked { mark: from.try_get_u64_le().ok()?, search }
        }
        12 => Ask::Drawn { seed: from.try_get_u64_le().ok()? },
        13 => Ask::Awake { now_ms: from.try_get_u64_le().ok()?, seen_ms: from.try_get_u64_le().ok()? },
        _ => return None,
    };
    from.is_empty().then_some((head, ask))
}

pub(crate) fn encode_answer(answer: &Answer) -> Bytes {
    let mut to = BytesMut::new();
    match answer {
        Answer::Stored { newer, wider } => {
            to.put_u8(0);
            to.put_u64_le(*newer);
            to.put_u8(*wider);
        }
        Answer::Found(found) => {
            to.put_u8(1);
            put_all(found.as_slice(), &mut to, put_entry);
        }
        Answer::Digests(digests) => {
            to.put_u8(2);
            put_all(digests, &mut to, |(slot, digest), to| {
                to.put_u16_le(*slot);
                to.put_u64_le(*digest);
            });
        }
        Answer::List { listed, more } => {
            to.put_u8(3);
            put_all(listed, &mut to, |listed, to| {
                put_bytes(&listed.key, to);
                to.put_u64_le(listed.version);
                to.put_u8(listed.from);
                to.put_u8(u8::from(listed.shadow));
                to.put_u64_le(listed.beside);
            });
            to.put_u8(u8::from(*more));
        }
        Answer::Fetched(entries) => {
            to.put_u8(4);
            put_all(entries, &mut to, |(key, entry), to| {
                put_bytes(key, to);
                put_entry(entry, to);
            });
        }
        Answer::OtherNodes => to.put_u8(5),
        Answer::Standing(stands) => {
            to.put_u8(6);
            to.put_u64_le(stands.floor);
            to.put_slice(&[stands.doubts, stands.is_whole, stands.is_unused].map(u8::from));
        }
        Answer::Rebuilding => to.put_u8(7),
        Answer::Ahead => to.put_u8(10),
        Answer::Heard { now_ms, is_unused, silent } => {
            to.put_u8(11);
            to.put_u64_le(*now_ms);
            to.put_u8(u8::from(*is_unused));
            put_all(silent, &mut to, |store, to| to.put_u64_le(store.0));
        }
        Answer::MemberDigest { checkpoint, digest } => {
            to.put_u8(8);
            to.put_u64_le(*checkpoint);
            put_all(digest.as_slice(), &mut to, |digest, to| to.put_u64_le(*digest));
        }
        Answer::Key(key) => {
            to.put_u8(9);
            put_all(key.as_slice(), &mut to, |key, to| put_bytes(key, to));
        }
    }
    to.freeze()
}

/// `None` for bytes that are no answer.
pub(crate) fn decode_answer(mut from: Bytes) -> Read<Answer> {
    let answer = match from.try_get_u8().ok()? {
        0 => Answer::Stored { newer: from.try_get_u64_le().ok()?, wider: from.try_get_u8().ok()? },
        1 => {
            let mut found = all(&mut from, ENTRY_BYTES_MIN, entry)?;
            (found.len() <= 1).then(|| Answer::Found(found.pop()))?
        }
        2 => Answer::Digests(all(&mut from, 10, |from| {
            Some((from.try_get_u16_le().ok()?, from.try_get_u64_le().ok()?))
        })?),
        3 => {
            let listed = all(&mut from, 22, |from| {
                let (key, version) = (bytes(from)?, from.try_get_u64_le().ok()?);
                let (copies, shadow) = (copies(from.try_get_u8().ok()?)?, from.try_get_u8().ok()? == 1);
                Some(Listed { key, version, from: copies, shadow, beside: from.try_get_u64_le().ok()? })
            })?;
            Answer::List { listed, more: from.try_get_u8().ok()? == 1 }
        }
        4 => Answer::Fetched(all(&mut from, 4 + ENTRY_BYTES_MIN, |from| Some((bytes(from)?, entry(from)?)))?),
        5 => Answer::OtherNodes,
        6 => {
            let floor = from.try_get_u64_le().ok()?;
            let mut flag = || Some(from.try_get_u8().ok()? == 1);
            let (doubts, is_whole, is_unused) = (flag()?, flag()?, flag()?);
            Answer::Standing(Stands { floor, doubts, is_whole, is_unused })
        }
        7 => Answer::Rebuilding,
        8 => {
            let checkpoint = from.try_get_u64_le().ok()?;
            Answer::MemberDigest { checkpoint, digest: at_most_one(&mut from)? }
        }
        9 => {
            let mut key = all(&mut from, 4, bytes)?;
            (key.len() <= 1).then(|| Answer::Key(key.pop()))?
        }
        10 => Answer::Ahead,
        11 => {
            let (now_ms, is_unused) = (from.try_get_u64_le().ok()?, from.try_get_u8().ok()? == 1);
            let silent = all(&mut from, 8, |from| from.try_get_u64_le().ok().map(StoreId))?;
            Answer::Heard { now_ms, is_unused, silent }
        }
        _ => return None,
    };
    from.is_empty().then_some(answer)
}

/// Version, `from`, flags, length of the value.
const ENTRY_BYTES_MIN: usize = 14;

pub(super) fn put_entry(entry: &Entry, to: &mut BytesMut) {
    to.put_u64_le(entry.version);
    to.put_u8(entry.from);
    let flags = [entry.value.is_some(), entry.expires_at.is_some(), entry.shadow, entry.base.is_some()];
    to.put_u8(flags.iter().zip(0..).map(|(flag, bit)| u8::from(*flag) << bit).sum());
    put_bytes(entry.value.as_deref().unwrap_or_default(), to);
    if let Some(expires_at) = entry.expires_at {
        to.put_u64_le(expires_at);
    }
    if let Some(base) = entry.base {
        to.put_u64_le(base);
    }
}

pub(super) fn entry(from: &mut Bytes) -> Read<Entry> {
    let version = from.try_get_u64_le().ok()?;
    let copies = copies(from.try_get_u8().ok()?)?;
    let (flags, value) = (from.try_get_u8().ok()?, bytes(from)?);
    let expires_at = if flags & 2 == 0 { None } else { Some(from.try_get_u64_le().ok()?) };
    let base = if flags & 8 == 0 { None } else { Some(from.try_get_u64_le().ok()?) };
    Some(Entry {
        version,
        base,
        value: (flags & 1 == 1).then_some(value),
        expires_at,
        from: copies,
        shadow: flags & 4 == 4,
    })
}

fn at_most_one(from: &mut Bytes) -> Read<Option<u64>> {
    let mut found = all(from, 8, |from| from.try_get_u64_le().ok())?;
    (found.len() <= 1).then(|| found.pop())
}

fn copies(from: u8) -> Read<u8> {
    (1..=COPIES_MAX).contains(&from).then_some(from)
}

/// `ack` and `from`.
fn quorum(from: &mut Bytes) -> Read<(u8, u8)> {
    Some((copies(from.try_get_u8().ok()?)?, copies(from.try_get_u8().ok()?)?))
}

fn put_range(kind: u8, from: &[u8], is_first: bool, end: Option<&[u8]>, to: &mut BytesMut) {
    to.put_slice(&[kind, u8::from(is_first), u8::from(end.is_some())]);
    put_bytes(from, to);
    put_bytes(end.unwrap_or_default(), to);
}

fn put_bytes(bytes: &[u8], to: &mut BytesMut) {
    to.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    to.put_slice(bytes);
}

fn bytes(from: &mut Bytes) -> Read<Bytes> {
    let length = from.try_get_u32_le().ok()? as usize;
    (length <= from.len()).then(|| from.split_to(length))
}

fn put_all<T>(all: &[T], to: &mut BytesMut, put: impl Fn(&T, &mut BytesMut)) {
    to.put_u32_le(u32::try_from(all.len()).unwrap_or(u32::MAX));
    all.iter().for_each(|one| put(one, to));
}

/// A number of things that take `least` bytes each: no room is made for more than the rest can hold.
fn all<T>(from: &mut Bytes, least: usize, get: impl Fn(&mut Bytes) -> Read<T>) -> Read<Vec<T>> {
    let count = from.try_get_u32_le().ok()? as usize;
    (count.saturating_mul(least) <= from.len()).then_some(())?;
    (0..count).map(|_| get(from)).collect()
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
