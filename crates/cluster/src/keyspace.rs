//! Commands that look at all keys of a namespace: `SCAN`, `KEYS`, `DBSIZE`, `RANDOMKEY`. They stream one snapshot, where waiting does no harm.

use crate::cursor::Place;
use crate::error::Result;
use crate::keys::{USER_KEYS_END, user_key};
use crate::latch::ShardId;
use crate::namespace::{Mode, NamespaceId};
use crate::node::{Inner, Node};
use crate::random_key::{random_key, weighted_start};
use crate::session::Request;
use bytes::Bytes;
use kvorum_engine::{Direction, Found, Sequence, Snapshot, Tree, View};
use kvorum_model::{ErrorReply, Keyspace, Reply, ScanOptions, TAG_STRING, literal_prefix, pattern_matches};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Keys that one `SCAN` looks at, at most, whatever its `COUNT`.
pub(crate) const SCAN_COUNT_MAX: u64 = 100_000;

/// Bytes of keys in one reply of `SCAN` above which it ends, whatever its `COUNT`.
pub(crate) const SCAN_BYTES_MAX: usize = 8 << 20;

/// What is to be read.
pub(crate) struct Reading {
    pub(crate) namespace: NamespaceId,
    kind: Kind,
    /// Keys that are not to be counted or listed: what a transaction has changed so far.
    pub(crate) hidden: BTreeSet<Vec<u8>>,
    now_ms: u64,
}

enum Kind {
    Scan {
        cursor: u64,
        place: Place,
        count: u64,
        pattern: Option<Vec<u8>>,
        type_name: Option<Vec<u8>>,
    },
    Keys {
        pattern: Vec<u8>,
    },
    DbSize,
    /// From these dice.
    RandomKey {
        seed: u64,
    },
}

/// What was read.
#[derive(Clone)]
pub(crate) struct Scanned {
    pub(crate) answer: Answer,
    /// The reply may be sent once this is durable.
    pub(crate) rests_on: Sequence,
    /// The latest expiry that hid a key.
    pub(crate) expired: Option<u64>,
    /// The snapshot's: nothing written later was seen.
    pub(crate) as_of: Sequence,
    /// As [`Reading::hidden`].
    pub(crate) hidden: BTreeSet<Vec<u8>>,
}

#[derive(Clone)]
pub(crate) enum Answer {
    /// The cursor of the next call, and keys.
    Page(u64, Vec<Bytes>),
    Keys(Vec<Bytes>),
    Count(usize),
    Random(Option<Bytes>),
}

impl Answer {
    pub(crate) fn into_reply(self) -> Reply {
        let list = |keys: Vec<Bytes>| Reply::Array(keys.into_iter().map(Reply::Bulk).collect());
        match self {
            Answer::Page(cursor, keys) => Reply::Array(vec![Reply::bulk(cursor.to_string()), list(keys)]),
            Answer::Keys(keys) => list(keys),
            Answer::Count(count) => Reply::count(count),
            Answer::Random(key) => key.map_or(Reply::Nil, Reply::Bulk),
        }
    }
}

impl Reading {
    /// The reading that a request asks for.
    pub(crate) fn parse(inner: &Inner, kind: Keyspace, request: &Request<'_>) -> Result<Reading, ErrorReply> {
        let (namespace, args) = (request.namespace, request.args);
        let kind = match kind {
            Keyspace::Keys => Kind::Keys { pattern: args.at(1).to_vec() },
            Keyspace::RandomKey => Kind::RandomKey { seed: inner.cursors.lock().draw() },
            Keyspace::Scan => scan(inner, namespace, ScanOptions::parse(args)?)?,
            _ => Kind::DbSize,
        };
        let wall = inner.time.now();
        let now_ms = if namespace.mode() == Mode::Available { inner.hybrid.now_ms(wall) } else { wall };
        Ok(Reading { namespace, kind, hidden: BTreeSet::new(), now_ms })
    }

    /// Adds a key that a transaction has put, if the answer is to have it. It is not among what the trees gave, but for pages: later ones may
    /// bring it again.
    pub(crate) fn add(&self, answer: &mut Answer, key: &[u8], tag: u8) {
        match (answer, &self.kind) {
            (Answer::Count(count), _) => *count += 1,
            (Answer::Random(random), _) => _ = random.get_or_insert_with(|| Bytes::copy_from_slice(key)),
            (Answer::Keys(keys), Kind::Keys { pattern }) if pattern_matches(pattern, key) => {
                keys.push(Bytes::copy_from_slice(key));
            }
            (Answer::Page(_, keys), Kind::Scan { cursor: 0, .. })
                if self.options().is_some_and(|options| options.wants(key, tag))
                    && !keys.iter().any(|k| k == key) =>
            {
                keys.push(Bytes::copy_from_slice(key));
            }
            _ => {}
        }
    }

    fn options(&self) -> Option<ScanOptions<'_>> {
        let Kind::Scan { cursor, count, pattern, type_name, .. } = &self.kind else { return None };
        let (pattern, type_name) = (pattern.as_deref(), type_name.as_deref());
        Some(ScanOptions { cursor: *cursor, pattern, count: *count, type_name })
    }

    /// What all keys that it may list begin with: no others are read.
    fn prefix(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Scan { pattern: Some(pattern), .. } | Kind::Keys { pattern } => literal_prefix(pattern),
            _ => Vec::new(),
        }
    }

    /// Judges what has expired by this time.
    pub(crate) fn judge_at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// Whether it reads a page of a scan.
    pub(crate) fn is_page(&self) -> bool {
        matches!(self.kind, Kind::Scan { .. })
    }

    /// The answer for a namespace without keys.
    pub(crate) fn empty(&self) -> Answer {
        match self.kind {
            Kind::Scan { .. } => Answer::Page(0, Vec::new()),
            Kind::Keys { .. } => Answer::Keys(Vec::new()),
            Kind::DbSize => Answer::Count(0),
            Kind::RandomKey { .. } => Answer::Random(None),
        }
    }

    /// Reads. Blocks.
    pub(crate) fn run(self, node: &Node) -> Result<Scanned> {
        let inner = &*node.inner;
        let snapshot = inner.store.snapshot();
        let mut walk = Walk { reading: &self, inner, snapshot: &snapshot, expired: None };
        let answer = match &self.kind {
            Kind::Scan { .. } => walk.page()?,
            Kind::Keys { pattern } => Answer::Keys(walk.keys(pattern)?),
            Kind::DbSize => Answer::Count(walk.count()?),
            Kind::RandomKey { seed } => Answer::Random(walk.random(*seed)?),
        };
        let rests_on = match walk.expired {
            Some(expires_at) => inner.note_expiry(expires_at, self.now_ms, node.durability())?,
            None => 0,
        };
        let (as_of, expired) = (snapshot.sequence(), walk.expired);
        Ok(Scanned { expired, answer, rests_on: rests_on.max(as_of), as_of, hidden: self.hidden })
    }
}

/// Keys of a hash slot in this node's tree, at most `max`. Blocks.
pub(crate) fn keys_in_slot(node: &Node, namespace: NamespaceId, slot: u16, max: usize) -> Result<Vec<Bytes>> {
    let inner = &*node.inner;
    let Some(tree) = inner.tree(ShardId::of_slot(namespace, slot)) else { return Ok(Vec::new()) };
    let snapshot = inner.store.snapshot();
    let kind = Kind::Keys { pattern: b"*".to_vec() };
    let reading = Reading { namespace, kind, hidden: BTreeSet::new(), now_ms: inner.time.now() };
    let mut walk = Walk { reading: &reading, inner, snapshot: &snapshot, expired: None };
    let mut keys = Vec::new();
    for entry in range(tree, b"", None, &snapshot)? {
        let (key, found) = entry?;
        let key = key.slice(1..);
        if keys.len() >= max {
            break;
        }
        if kvorum_model::slot(&key) == slot && walk.exists(&key, &found) {
            keys.push(key);
        }
    }
    Ok(keys)
}

fn scan(inner: &Inner, namespace: NamespaceId, options: ScanOptions<'_>) -> Result<Kind, ErrorReply> {
    let start = Place { namespace, shard: 0, after: None };
    let place = if options.cursor == 0 {
        Some(start)
    } else {
        inner.cursors.lock().get(options.cursor).filter(|place| place.namespace == namespace).cloned()
    };
    Ok(Kind::Scan {
        cursor: options.cursor,
        place: place.ok_or_else(|| ErrorReply::new("ERR invalid cursor"))?,
        count: options.count.min(SCAN_COUNT_MAX),
        pattern: options.pattern.map(<[u8]>::to_vec),
        type_name: options.type_name.map(<[u8]>::to_vec),
    })
}

/// A walk over the keys of a snapshot.
struct Walk<'w> {
    reading: &'w Reading,
    inner: &'w Inner,
    snapshot: &'w Snapshot,
    /// The latest expiry that hid a key.
    expired: Option<u64>,
}

impl Walk<'_> {
    fn count(&mut self) -> Result<usize> {
        let mut count = 0;
        self.all(|_| count += 1)?;
        Ok(count)
    }

    fn keys(&mut self, pattern: &[u8]) -> Result<Vec<Bytes>> {
        let mut keys = Vec::new();
        self.all(|key| {
            if pattern_matches(pattern, &key) {
                keys.push(key);
            }
        })?;
        Ok(keys)
    }

    /// Calls `each` with every key that exists.
    fn all(&mut self, mut each: impl FnMut(Bytes)) -> Result<()> {
        let prefix = self.reading.prefix();
        for (_, tree) in self.inner.trees(self.reading.namespace) {
            for entry in range(tree, &prefix, None, self.snapshot)? {
                let (key, found) = entry?;
                let key = key.slice(1..);
                if self.exists(&key, &found) {
                    each(key);
                }
            }
        }
        Ok(())
    }

    fn random(&mut self, seed: u64) -> Result<Option<Bytes>> {
        let (mut dice, snapshot) = (fastrand::Rng::with_seed(seed), self.snapshot);
        let trees: Vec<&Tree> = self.inner.trees(self.reading.namespace).map(|(_, tree)| tree).collect();
        let weights: Vec<u64> = trees.iter().map(|tree| tree.stats().entries).collect();
        let start = weighted_start(&weights, &mut dice);
        let (before, from) = trees.split_at(start);
        for tree in from.iter().chain(before) {
            let found = random_key(tree, snapshot, &mut dice, &mut |key, found| self.exists(key, found))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn page(&mut self) -> Result<Answer> {
        let (Kind::Scan { cursor, place, count, .. }, Some(options)) =
            (&self.reading.kind, self.reading.options())
        else {
            return Ok(self.reading.empty());
        };
        let mut place = place.clone();
        let prefix = self.reading.prefix();
        let (mut keys, mut looked_at, mut bytes) = (Vec::new(), 0, 0);
        while place.shard < place.namespace.shards() {
            let shard = ShardId::of(place.namespace, place.shard);
            let after = place.after.take();
            if let Some(tree) = self.inner.tree(shard) {
                for entry in range(tree, &prefix, after.as_deref(), self.snapshot)? {
                    let (key, found) = entry?;
                    let key = key.slice(1..);
                    looked_at += 1;
                    bytes += key.len();
                    if self.exists(&key, &found) && options.wants(&key, self.data_type(found.tag)) {
                        keys.push(key.clone());
                    }
                    if looked_at >= *count || bytes >= SCAN_BYTES_MAX {
                        place.after = Some(key.to_vec());
                        let next = self.inner.cursors.lock().add(place, *cursor);
                        return Ok(Answer::Page(next, keys));
                    }
                }
            }
            place.shard += 1;
        }
        Ok(Answer::Page(0, keys))
    }

    fn exists(&mut self, key: &[u8], found: &Found) -> bool {
        if let Some(expires_at) = found.expires_at.filter(|at| *at <= self.reading.now_ms) {
            self.expired = self.expired.max(Some(expires_at));
            return false;
        }
        self.reading.hidden.is_empty() || !self.reading.hidden.contains(key)
    }

    fn data_type(&self, tag: u8) -> u8 {
        match self.reading.namespace.mode() {
            Mode::Strong => tag,
            Mode::Available => TAG_STRING,
        }
    }
}

/// The users' keys of a tree that begin with `prefix` and stand behind `after`, in order, without values that stand apart.
pub(crate) fn range(
    tree: &Tree,
    prefix: &[u8],
    after: Option<&[u8]>,
    snapshot: &Snapshot,
) -> Result<kvorum_engine::Range> {
    let first = user_key(prefix);
    let end = end_of_prefix(&first).unwrap_or_else(|| USER_KEYS_END.to_vec());
    let after = after.map(user_key).filter(|after| *after >= first);
    let start = after.as_deref().map_or(Bound::Included(&first[..]), Bound::Excluded);
    let bounds = (start, Bound::Excluded(&end[..]));
    Ok(tree.range(bounds, &View::newest().of(snapshot), Direction::Forward)?.keys_only())
}

/// The first key behind all that begin with this; none if nothing is behind them.
pub(crate) fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if let Some(next) = last.checked_add(1) {
            key.push(next);
            return Some(key);
        }
    }
    None
}
