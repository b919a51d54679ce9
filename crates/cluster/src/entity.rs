//! The available namespace: put, get, delete and range with `ack` of `from`.

use crate::available::{self, Merged, Operation, Outcome, Shell, Wanted};
use crate::commit::Commit;
use crate::error::{Error, Result};
use crate::execute::{FROM_ONE, commit};
use crate::keys::{USER_KEY_BYTES_MAX, USER_KEYS_END, shard_of, user_key, with_user_key};
use crate::namespace::NamespaceId;
use crate::node::{Node, ROOM_WAIT_MAX};
use crate::prefetch::{Fetched, Prefetch, Work};
use bytes::Bytes;
use kvorum_engine::{Attributes, Batch, Cached, Direction, Found, FoundKind, Sequence, Tree, View};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// Entries that a range reads ahead at most, and their bytes above which it reads no further.
const AHEAD_ENTRIES_MAX: usize = 1024;
const AHEAD_BYTES_MAX: usize = 256 << 10;

/// How many replicas must answer (`ack`) of how many that keep the entry (`from`). `None` takes the default: `from` = the replication
/// factor or the number of nodes, whichever is smaller; `ack` = its majority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quorum {
    /// Answers to wait for.
    pub ack: Option<u32>,
    /// Copies to keep.
    pub from: Option<u32>,
}

impl Quorum {
    /// Fails with [`Error::Invalid`] if so many replicas can't be asked in a cluster of `nodes`.
    fn check(self, nodes: u32) -> Result<()> {
        let from = self.from.unwrap_or(nodes);
        if from == 0 || self.ack == Some(0) {
            return Err(Error::Invalid("ack and from must be at least 1".into()));
        }
        if from > nodes {
            let nodes = if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") };
            return Err(Error::Invalid(format!("from is {from}, but the cluster has {nodes}")));
        }
        match self.ack {
            Some(ack) if ack > from => {
                Err(Error::Invalid(format!("ack is {ack}, more than from, which is {from}")))
            }
            _ => Ok(()),
        }
    }
}

impl Quorum {
    /// Both numbers as they are in force: how many must answer, of how many that keep an entry.
    pub(crate) fn resolve(self, nodes: u32, replication: Option<u8>) -> Result<(u32, u32)> {
        let copies = replication.map_or(REPLICATION_DEFAULT, u32::from);
        let from = self.from.unwrap_or(copies.min(nodes));
        Quorum { from: Some(from), ..self }.check(nodes)?;
        Ok((self.ack.unwrap_or(from / 2 + 1), from))
    }
}

/// Copies of an entry, where there are nodes enough and the namespace does not say.
const REPLICATION_DEFAULT: u32 = 3;

/// Nodes of a cluster of one.
pub(crate) const NODES: u32 = 1;

/// An entry of an available namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its hybrid timestamp.
    pub version: u64,
    /// Its value.
    pub value: Bytes,
}

/// The available namespace of a node; from [`Node::entity`](crate::Node::entity).
#[derive(Clone)]
pub struct Entity {
    pub(crate) node: Node,
}

impl Entity {
    /// The newest entry of `id`, `None` if there is none.
    ///
    /// Fails with [`Error::Invalid`] for a quorum that can't be.
    pub async fn get(&self, id: &[u8], quorum: Quorum) -> Result<Option<Entry>> {
        if let Some(shell) = self.shell() {
            return self.get_of_cluster(shell, id, quorum).await;
        }
        quorum.check(NODES)?;
        let Some(tree) = self.tree(id) else { return Ok(None) };
        let cached = with_user_key(id, |key| tree.get_cached(key, &View::newest()))?;
        let found = match cached {
            Cached::Ready(found) => found,
            Cached::WouldRead => {
                let (tree, key) = (tree.clone(), user_key(id));
                blocking(move || Ok(tree.get(&key, &View::newest())?)).await?
            }
        };
        let Some(found) = found else { return Ok(None) };
        let (entry, rests_on) = if found.expires_at.is_some() {
            let entity = self.clone();
            blocking(move || entity.entry(found)).await?
        } else {
            self.entry(found)?
        };
        self.settle(rests_on).await?;
        Ok(entry)
    }

    /// Stores `value` under `id`; answers its version once it is durable on `ack` replicas.
    ///
    /// Fails as [`Entity::get`], with [`Error::Unknown`] if it may have happened, and with another kind if it surely did not.
    pub async fn put(&self, id: &[u8], value: &[u8], quorum: Quorum) -> Result<u64> {
        self.write(id, Some(value), quorum).await
    }

    /// Deletes `id`, whether it is there or not; as [`Entity::put`].
    pub async fn delete(&self, id: &[u8], quorum: Quorum) -> Result<u64> {
        self.write(id, None, quorum).await
    }

    /// The entries of this node from `start` (inclusive) to `end` (exclusive; `None`: all that follow), in key order, as of now.
    pub async fn range(&self, start: &[u8], end: Option<&[u8]>) -> Result<Range> {
        let (node, start) = (self.node.clone(), user_key(start));
        let end = end.map_or_else(|| USER_KEYS_END.to_vec(), user_key);
        let sources = blocking(move || Sources::open(&node, &start, &end)).await?;
        Ok(self.ranging(Source::Node(sources)))
    }

    /// As [`Entity::range`], but of the whole cluster: of every key the newest entry that any node has, as of when it is read. It shows as much as a
    /// read of each of its keys with this quorum: at most `from` − `ack` nodes may be silent.
    ///
    /// Fails with [`Error::Invalid`] for a quorum that can't be, and with [`Error::TooFew`], at once or in the middle, if more nodes do not answer.
    pub async fn range_of_cluster(&self, start: &[u8], end: Option<&[u8]>, quorum: Quorum) -> Result<Range> {
        let Some(shell) = self.shell() else {
            quorum.check(NODES)?;
            return self.range(start, end).await;
        };
        let namespace = NamespaceId::ENTITY.id();
        let copies = shell.copies(namespace, quorum)?;
        let (from, end) = (Bytes::copy_from_slice(start), end.map(Bytes::copy_from_slice));
        let span = available::Span { namespace, from, is_first: true, end, keys: None };
        let mut merged = Merged::begin(&self.node, shell, copies, span);
        let ahead = merged.next().await?.into_iter();
        let source = (ahead.len() > 0).then_some(Source::Cluster(merged));
        Ok(Range { entity: self.clone(), source, ahead })
    }

    fn ranging(&self, source: Source) -> Range {
        Range { entity: self.clone(), source: Some(source), ahead: Vec::new().into_iter() }
    }

    fn tree(&self, id: &[u8]) -> Option<&Tree> {
        self.node.inner.tree(shard_of(NamespaceId::ENTITY, id))
    }

    /// The entry that was found, if it exists, and the sequence that the answer rests on. Blocks, if it has an expiry.
    fn entry(&self, found: Found) -> Result<(Option<Entry>, Sequence)> {
        let inner = &*self.node.inner;
        let now = inner.hybrid.now_ms(inner.time.now());
        match found.expires_at.filter(|expires_at| *expires_at <= now) {
            Some(expires_at) => {
                let noted = inner.note_expiry(expires_at, now, self.node.durability())?;
                Ok((None, found.sequence.max(noted)))
            }
            None if found.kind == FoundKind::Tombstone => Ok((None, found.sequence)),
            None => Ok((Some(Entry { version: found.version, value: found.value }), found.sequence)),
        }
    }

    async fn write(&self, id: &[u8], value: Option<&[u8]>, quorum: Quorum) -> Result<u64> {
        let (inner, shell) = (&*self.node.inner, self.shell());
        let of_cluster = match shell {
            Some(shell) => Some((shell, shell.copies(NamespaceId::ENTITY.id(), quorum)?)),
            None => {
                quorum.check(NODES)?;
                None
            }
        };
        if id.len() > USER_KEY_BYTES_MAX {
            let length = id.len();
            return Err(Error::TooLarge(format!(
                "key of {length} bytes is over the limit of {USER_KEY_BYTES_MAX}"
            )));
        }
        if !inner.has_trees(NamespaceId::ENTITY) {
            self.prepare(Work::Trees(NamespaceId::ENTITY)).await?;
        }
        if !inner.hybrid.is_bounded(inner.time.now()) {
            self.prepare(Work::StampBound).await?;
        }
        if let Some((shell, copies)) = of_cluster {
            return self.write_of_cluster(shell, id, value, copies).await;
        }
        let mut waited = Duration::ZERO;
        loop {
            match self.write_now(id, value) {
                Err(Error::Busy { retry_after }) if waited < ROOM_WAIT_MAX => {
                    waited += retry_after;
                    self.prepare(Work::Room(retry_after)).await?;
                }
                Err(error) => return Err(error),
                Ok((version, commit)) => {
                    commit.durable().await?;
                    return Ok(version);
                }
            }
        }
    }

    fn shell(&self) -> Option<&Arc<Shell>> {
        self.node.inner.cluster.get().map(|cluster| &cluster.available)
    }

    async fn get_of_cluster(&self, shell: &Arc<Shell>, id: &[u8], quorum: Quorum) -> Result<Option<Entry>> {
        let (ack, from) = shell.copies(NamespaceId::ENTITY.id(), quorum)?;
        let (namespace, key) = (NamespaceId::ENTITY.id(), Bytes::copy_from_slice(id));
        let wanted = Wanted { namespace, key, operation: Operation::Read { from }, ack, durability: None };
        match shell.coordinate(wanted).await? {
            Outcome::Read(found) => {
                let inner = &*self.node.inner;
                let now = inner.hybrid.now_ms(inner.time.now());
                let found = found.filter(|entry| entry.expires_at.is_none_or(|expires_at| expires_at > now));
                let entry = found.and_then(|entry| entry.value.map(|value| (entry.version, value)));
                Ok(entry.map(|(version, value)| Entry { version, value }))
            }
            _ => Err(Error::Storage("a read was answered as a write".into())),
        }
    }

    async fn write_of_cluster(
        &self,
        shell: &Arc<Shell>,
        id: &[u8],
        value: Option<&[u8]>,
        (ack, from): (u8, u8),
    ) -> Result<u64> {
        let inner = &*self.node.inner;
        let (length, limit) = (value.map_or(0, <[u8]>::len) as u64, inner.limits.value_bytes_max);
        if length > limit {
            return Err(Error::TooLarge(format!(
                "value of {length} bytes is over the limit of {limit} (max_value_bytes)"
            )));
        }
        let (key, value) = (Bytes::copy_from_slice(id), value.map(Bytes::copy_from_slice));
        let namespace = NamespaceId::ENTITY.id();
        // What is found there later was written at the same time.
        let base = shell.base(namespace, id, (ack, from)).await?;
        for left in (0..available::TRIES).rev() {
            if !inner.hybrid.is_bounded(inner.time.now()) {
                self.prepare(Work::StampBound).await?;
            }
            let version = inner.hybrid.stamp(inner.time.now());
            let value = value.clone();
            let entry = available::Entry { version, value, expires_at: None, from, shadow: false, base };
            let (key, operation) = (key.clone(), Operation::Write(entry));
            let wanted = Wanted { namespace, key, operation, ack, durability: None };
            if matches!(shell.coordinate(wanted).await?, Outcome::Written { newer: Some(_) }) && left > 0 {
                continue;
            }
            return Ok(version);
        }
        Err(Error::Storage("a write was never tried".into()))
    }

    fn write_now(&self, id: &[u8], value: Option<&[u8]>) -> Result<(u64, Commit)> {
        let inner = &*self.node.inner;
        let shard = shard_of(NamespaceId::ENTITY, id);
        let (Some(place), Some(tree)) = (inner.shard(shard), inner.tree(shard)) else {
            return Err(Error::Storage(format!("{} has no trees", inner.settings.entity_namespace)));
        };
        let durability = inner.durability_of(NamespaceId::ENTITY, self.node.durability());
        let attributes = Attributes { expires_at: None, tag: FROM_ONE };
        let mut batch = Batch::new();
        // Under the latch, so that no older version of a key is written after a newer one.
        let mut writer = place.latch();
        writer.fetching.written(id);
        let version = inner.hybrid.stamp(inner.time.now());
        with_user_key(id, |key| match value {
            Some(value) => batch.put(tree, key, version, value, attributes),
            None => batch.delete(tree, key, version, attributes),
        });
        let sequence = inner.store.write(&batch, durability)?.sequence();
        drop(writer);
        Ok((version, Commit { node: self.node.clone(), sequence, durability }))
    }

    async fn prepare(&self, work: Work) -> Result<()> {
        let prefetch = Prefetch::new(&self.node, work, Fetched::default());
        blocking(move || prefetch.run().error.map_or(Ok(()), Err)).await
    }

    async fn settle(&self, rests_on: Sequence) -> Result<()> {
        let durability = self.node.inner.durability_of(NamespaceId::ENTITY, self.node.durability());
        match commit(&self.node, rests_on, durability) {
            Some(commit) => commit.durable().await,
            None => Ok(()),
        }
    }
}

/// Runs something that may wait for the disk on the pool for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Storage(format!("a read of the store ended early: {error}")))?
}

/// A stream over a range of entries; reads ahead a bounded piece at a time. That of one node reads one snapshot, whatever is written meanwhile.
pub struct Range {
    entity: Entity,
    /// `None` at the end.
    source: Option<Source>,
    ahead: std::vec::IntoIter<(Bytes, Bytes)>,
}

enum Source {
    Node(Sources),
    Cluster(Merged),
}

impl Range {
    /// The next entry's key and value; `None` at the end. After an error it ends.
    pub async fn next(&mut self) -> Option<Result<(Bytes, Bytes)>> {
        if let Some(entry) = self.ahead.next() {
            return Some(Ok(entry));
        }
        let piece = match self.source.take()? {
            Source::Node(sources) => self.piece_of_node(sources).await,
            Source::Cluster(mut merged) => merged.next().await.inspect(|entries| {
                self.source = (!entries.is_empty()).then_some(Source::Cluster(merged));
            }),
        };
        match piece {
            Ok(entries) => self.ahead = entries.into_iter(),
            Err(error) => {
                self.source = None;
                return Some(Err(error));
            }
        }
        self.ahead.next().map(Ok)
    }

    async fn piece_of_node(&mut self, sources: Sources) -> Result<Vec<(Bytes, Bytes)>> {
        let entity = self.entity.clone();
        let (entries, sources, rests_on) = blocking(move || sources.read(&entity)).await?;
        self.entity.settle(rests_on).await?;
        self.source = sources.map(Source::Node);
        Ok(entries)
    }
}

/// What a range's next piece is made of: entries, what is left, and the sequence that they rest on.
type Piece = (Vec<(Bytes, Bytes)>, Option<Sources>, Sequence);

/// The trees of a range, each with its next entry.
struct Sources {
    heads: Vec<(Bytes, Found, kvorum_engine::Range)>,
    rests_on: Sequence,
}

impl Sources {
    fn open(node: &Node, start: &[u8], end: &[u8]) -> Result<Sources> {
        let inner = &*node.inner;
        let snapshot = inner.store.snapshot();
        let mut heads = Vec::new();
        if start < end {
            for (_, tree) in inner.trees(NamespaceId::ENTITY) {
                let bounds = (Bound::Included(start), Bound::Excluded(end));
                let mut range = tree.range(bounds, &View::newest().of(&snapshot), Direction::Forward)?;
                if let Some(entry) = range.next() {
                    let (key, found) = entry?;
                    heads.push((key, found, range));
                }
            }
        }
        Ok(Sources { heads, rests_on: snapshot.sequence() })
    }

    fn read(mut self, entity: &Entity) -> Result<Piece> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut rests_on = self.rests_on;
        while entries.len() < AHEAD_ENTRIES_MAX && bytes < AHEAD_BYTES_MAX {
            let Some((key, found)) = self.next()? else { return Ok((entries, None, rests_on)) };
            let (entry, rests) = entity.entry(found)?;
            rests_on = rests_on.max(rests);
            if let Some(entry) = entry {
                bytes += key.len() + entry.value.len();
                entries.push((key.slice(1..), entry.value));
            }
        }
        Ok((entries, Some(self), rests_on))
    }

    /// The entry with the smallest key.
    fn next(&mut self) -> Result<Option<(Bytes, Found)>> {
        let smallest = self.heads.iter().enumerate().min_by(|(_, one), (_, other)| one.0.cmp(&other.0));
        let Some((at, _)) = smallest else { return Ok(None) };
        let (key, found, mut range) = self.heads.swap_remove(at);
        if let Some(entry) = range.next() {
            let (key, found) = entry?;
            self.heads.push((key, found, range));
        }
        Ok(Some((key, found)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums() {
        let quorum = |ack, from| Quorum { ack, from };
        for fits in
            [quorum(None, None), quorum(Some(1), None), quorum(Some(1), Some(1)), quorum(None, Some(1))]
        {
            fits.check(1).unwrap();
        }
        for (bad, text) in [
            (quorum(Some(0), None), "ack and from must be at least 1"),
            (quorum(None, Some(0)), "ack and from must be at least 1"),
            (quorum(Some(1), Some(2)), "from is 2, but the cluster has 1 node"),
            (quorum(Some(2), Some(1)), "ack is 2, more than from, which is 1"),
            (quorum(Some(2), None), "ack is 2, more than from, which is 1"),
        ] {
            assert_eq!(bad.check(1).unwrap_err().to_string(), text);
        }
        quorum(Some(2), Some(3)).check(3).unwrap();
    }
}
