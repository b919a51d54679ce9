//! The replica: a node's local trees for the slots that it keeps. Versions decide, so that writes may come in any order, twice, and from anywhere.

mod keeping;
mod lacking;
mod listing;
mod reading;

pub(super) use listing::KEYS_MAX;

use super::planted::{Fault, is_planted};
use super::wire::{Answer, Ask, Listed, Stands, Why};
use super::{Entry, Order};
use crate::error::Error;
use crate::keys::{USER_KEYS_END, loser_key, user_key, with_user_key};
use crate::latch::ShardId;
use crate::namespace::NamespaceId;
use bytes::Bytes;
use hashbrown::HashMap;
use kvorum_engine::{
    Attributes, Batch, Cached, Direction, Durability, Found, FoundKind, FoundVersion, Sequence, Store, Tree,
    View,
};
use kvorum_model::slot;
use kvorum_sync::StoreId;
pub(super) use lacking::{Begins, Sources};
use lacking::{Counted, Lacking};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How safe a write is made by itself. Whoever tells of it waits until it is as safe as its namespace, or the client, asks for.
const SAFE: Durability = Durability::Written;

/// What a list has at most.
pub(super) const LISTED_MAX: usize = 512;

/// Above so many bytes an answer takes in no further entry.
const FETCHED_BYTES: usize = 1 << 20;

/// Marks, in an entry's tag beside its `from`, what a replica behind that `from` remembers of an entry whose older copy it had: that the copy is
/// gone. It is no copy, and counts in no digest.
const SHADOW: u8 = 0x80;

/// Why a replica does not do what it was asked. It was surely not done.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Refusal {
    /// It has not collected yet what it should keep, or doubts what it holds: it takes writes and answers no reads.
    #[error("this replica is still being rebuilt")]
    Rebuilding,
    /// It serves among other nodes than whoever asks.
    #[error("this replica knows other nodes of the cluster")]
    OtherNodes,
    /// The coordinator's clock is too far ahead.
    #[error("the clock of the node that gave version {version} is too far ahead of this node's")]
    Ahead {
        /// The version it gave.
        version: u64,
    },
    /// The namespace has no such shard.
    #[error("there is no shard {0} here")]
    NoShard(u16),
    /// The store can't.
    #[error(transparent)]
    Storage(#[from] Error),
}

impl From<kvorum_engine::Error> for Refusal {
    fn from(error: kvorum_engine::Error) -> Refusal {
        Refusal::Storage(error.into())
    }
}

/// Digests of a shard's slots: of keys and versions, by the `from` of their entries.
#[derive(Default)]
struct Digests {
    /// Changes of the shard when they were taken.
    at: Option<(u64, u64)>,
    sums: HashMap<(u16, u8), u64>,
}

/// A node's part of an available namespace.
pub(crate) struct Replica {
    me: StoreId,
    namespace: NamespaceId,
    store: Store,
    trees: Vec<Tree>,
    changes: Vec<AtomicU64>,
    digests: Vec<Mutex<Digests>>,
    /// Tombstones up to here may be gone.
    tombstone_floor: AtomicU64,
    /// The print of the nodes among which it serves, once it was told. Held while a request is under way: when others take their place, none of
    /// before is left, and whoever looks then misses nothing of theirs.
    among: RwLock<Option<u64>>,
    lacking: Lacking,
    keeps_losers: AtomicBool,
    stripes: Vec<Mutex<()>>,
}

impl Replica {
    /// Over the namespace's trees, one for each of its shards.
    pub(crate) fn new(me: StoreId, namespace: NamespaceId, store: Store, trees: Vec<Tree>) -> Replica {
        let changes = trees.iter().map(|_| AtomicU64::new(0)).collect();
        let digests = trees.iter().map(|_| Mutex::default()).collect();
        // What an earlier life has forgotten stays so.
        let forgotten = trees.iter().map(Tree::tombstone_floor).max().unwrap_or(0);
        let (tombstone_floor, lacking) = (AtomicU64::new(forgotten), Lacking::default());
        let (among, keeps_losers) = (RwLock::new(None), AtomicBool::new(false));
        let stripes = (0..keeping::STRIPES).map(|_| Mutex::default()).collect();
        Replica {
            me,
            namespace,
            store,
            trees,
            changes,
            digests,
            tombstone_floor,
            among,
            lacking,
            keeps_losers,
            stripes,
        }
    }

    /// The store of this node.
    pub(crate) fn store_id(&self) -> StoreId {
        self.me
    }

    /// The namespace's id.
    pub(crate) fn namespace(&self) -> u16 {
        self.namespace.id()
    }

    /// Shards of the namespace.
    pub(crate) fn places(&self) -> u16 {
        self.namespace.shards()
    }

    /// From now on it serves among these nodes. What it lacks then it lacks until it was collected from all `sources`; `before`: the names of the
    /// nodes among which it had all that it should.
    pub(super) fn turn(&self, order: &Order, begins: Begins, sources: &Sources, before: Vec<u64>) {
        let mut among = self.among.write();
        self.lacking.begin(begins, sources, before);
        *among = Some(order.print());
    }

    /// Whether it serves among these nodes.
    pub(super) fn is_among(&self, order: &Order) -> bool {
        *self.among.read() == Some(order.print())
    }

    /// It may hold what was deleted while it slept or was cut off, until it was collected from all `sources`. `order`: the nodes that are now.
    pub(super) fn doubt(&self, order: &Order, sources: &Sources) {
        // Nothing that it said before is under way.
        let among = self.among.write();
        let names = if *among == Some(order.print()) { order.names() } else { Vec::new() };
        self.lacking.doubt(sources, names);
    }

    /// Whether it doubts what it holds.
    pub(crate) fn doubts(&self) -> bool {
        self.lacking.doubts()
    }

    /// A node has shown that it knows the nodes among which this one serves, or also that it has all that it should.
    pub(super) fn turned(&self, store: StoreId, is_whole: bool) {
        self.lacking.turned(store, is_whole);
    }

    /// All that this node has is here now (`is_whole`: it had all that it should), or it has left for good.
    pub(crate) fn collected(&self, from: StoreId, is_whole: bool) {
        self.lacking.collected(from, is_whole);
    }

    /// The nodes from which it has to collect what it lacks.
    pub(crate) fn lacking(&self) -> Vec<StoreId> {
        self.lacking.uncollected()
    }

    /// Those of which it is not known that they know the nodes among which this one serves.
    pub(crate) fn unturned(&self) -> Vec<StoreId> {
        self.lacking.unturned()
    }

    /// Whether it has all that it should.
    pub(crate) fn is_whole(&self) -> bool {
        self.lacking.is_whole()
    }

    fn among(&self, order: &Order) -> Result<RwLockReadGuard<'_, Option<u64>>, Refusal> {
        let among = self.among.read();
        let fits = *among == Some(order.print()) || is_planted(Fault::MapsMix);
        if fits { Ok(among) } else { Err(Refusal::OtherNodes) }
    }

    /// What is refused whatever stands on the disk.
    fn refusal(&self, ask: &Ask, order: &Order, ceiling: u64) -> Option<Refusal> {
        let counts = |key: &Bytes, ack, from| {
            self.lacking.counts(Counted { slot: slot(key), ack, from, is_read: true }, order, self.me)
        };
        match ask {
            Ask::Write { entry, .. } if entry.version > ceiling => {
                Some(Refusal::Ahead { version: entry.version })
            }
            Ask::Read { key, ack, from } | Ask::Conflicts { key, ack, from } if !counts(key, *ack, *from) => {
                Some(Refusal::Rebuilding)
            }
            Ask::Digests { .. } | Ask::DigestsWith { .. } | Ask::List { .. } | Ask::Fetch { .. }
                if self.doubts() =>
            {
                Some(Refusal::Rebuilding)
            }
            Ask::Range { .. } | Ask::Keys { .. } if !self.is_whole() => Some(Refusal::Rebuilding),
            _ => None,
        }
    }

    /// A write was done; whether it counts for the client that waits for it.
    fn counted(&self, key: &[u8], entry: &Entry, why: Why, order: &Order, answer: Answer) -> Answer {
        let Why::Client { ack } = why else { return answer };
        let request = Counted { slot: slot(key), ack, from: entry.from, is_read: false };
        let counts = !self.is_kept(key, entry, order) || self.lacking.counts(request, order, self.me);
        if counts { answer } else { Answer::Rebuilding }
    }

    /// Does what another node, or a client's coordinator on this one, asks. `ceiling`: the highest version that the clocks can have given by now.
    /// The answer may be told once the sequence is as safe as its namespace, or the client, asks for: whoever tells it waits for that. Reads from the disk.
    pub(crate) fn handle(
        &self,
        from: StoreId,
        ask: &Ask,
        order: &Order,
        ceiling: u64,
    ) -> Result<(Answer, Sequence), Refusal> {
        let _among = self.among(order)?;
        // Whoever asks knows the same nodes.
        self.turned(from, false);
        if let Some(refusal) = self.refusal(ask, order, ceiling) {
            return Err(refusal);
        }
        match ask {
            Ask::Write { key, entry, why } => {
                let (answer, sequence) = if self.keeps_losers() {
                    self.write_beside(key, entry, *why, order)?
                } else {
                    self.write(key, entry, *why, order)?
                };
                Ok((self.counted(key, entry, *why, order, answer), sequence))
            }
            Ask::Read { key, .. } => self.read(key),
            Ask::Conflicts { key, .. } => self.conflicts(key),
            Ask::Standing => {
                let floor = self.tombstone_floor.load(Acquire);
                let (doubts, is_whole) = (self.doubts(), self.is_whole());
                Ok((Answer::Standing(Stands { floor, doubts, is_whole, ..Stands::default() }), 0))
            }
            Ask::Digests { place } => Ok((Answer::Digests(self.digests(*place, from, order)?), 0)),
            Ask::DigestsWith { place, peer } => Ok((Answer::Digests(self.digests(*place, *peer, order)?), 0)),
            Ask::MemberDigest { place, .. } => Err(Refusal::NoShard(*place)),
            Ask::List { place, slots, after } => {
                let slots = slots.iter().copied().collect();
                let listed = self.list(*place, &slots, after.as_deref(), None)?;
                let more = listed.len() >= LISTED_MAX;
                Ok((Answer::List { listed, more }, 0))
            }
            Ask::Fetch { keys, .. } => self.fetch(keys),
            Ask::Range { from, is_first, end } => self.range(from, *is_first, end.as_deref(), None),
            Ask::Keys { from, is_first, end, most } => {
                self.range(from, *is_first, end.as_deref(), Some(*most))
            }
            Ask::Marked { mark, .. } => Ok((Answer::Key(self.marked(*mark)?), 0)),
            Ask::Drawn { seed } => Ok((Answer::Key(self.drawn(*seed)?), 0)),
            // Its node answers.
            Ask::Awake { .. } => Err(Refusal::Rebuilding),
        }
    }

    /// As [`Replica::handle`], for reads and writes of a key, without waiting for the disk; `None` if it would have to.
    pub(crate) fn handle_cached(
        &self,
        ask: &Ask,
        order: &Order,
        ceiling: u64,
    ) -> Option<Result<(Answer, Sequence), Refusal>> {
        let newest = View::newest();
        if self.keeps_losers() {
            return None;
        }
        let _among = match self.among(order) {
            Ok(among) => among,
            Err(refusal) => return Some(Err(refusal)),
        };
        if let Some(refusal) = self.refusal(ask, order, ceiling) {
            return Some(Err(refusal));
        }
        match ask {
            Ask::Write { key, entry, why } => {
                let (_, tree) = self.tree_of(key).ok()?;
                let found = match with_user_key(key, |key| tree.version_of_cached(key, &newest)).ok()? {
                    Cached::Ready(found) => found,
                    Cached::WouldRead => return None,
                };
                let kept = self.keep(key, entry, *why, order, found, Batch::new());
                Some(kept.map(|(answer, sequence)| (self.counted(key, entry, *why, order, answer), sequence)))
            }
            Ask::Read { key, .. } => {
                let (_, tree) = self.tree_of(key).ok()?;
                match with_user_key(key, |key| tree.get_cached(key, &newest)).ok()? {
                    Cached::Ready(found) => Some(Ok(answer_of(found))),
                    Cached::WouldRead => None,
                }
            }
            _ => None,
        }
    }

    fn write(
        &self,
        key: &[u8],
        entry: &Entry,
        why: Why,
        order: &Order,
    ) -> Result<(Answer, Sequence), Refusal> {
        let (_, tree) = self.tree_of(key)?;
        let found = with_user_key(key, |key| tree.version_of(key, &View::newest()))?;
        self.keep(key, entry, why, order, found, Batch::new())
    }

    fn is_kept(&self, key: &[u8], entry: &Entry, order: &Order) -> bool {
        let rank = order.rank(slot(key), self.me);
        !entry.shadow && rank.is_some_and(|rank| rank < entry.from || is_planted(Fault::KeepsBeyondFrom))
    }

    /// Keeps the entry, if it is newer than what was found there, and what is in the batch. A replica behind the entry's `from` only lets go of an older copy.
    fn keep(
        &self,
        key: &[u8],
        entry: &Entry,
        why: Why,
        order: &Order,
        found: Option<FoundVersion>,
        mut batch: Batch,
    ) -> Result<(Answer, Sequence), Refusal> {
        let (place, tree) = self.tree_of(key)?;
        let keeps = self.is_kept(key, entry, order);
        let wider = found.filter(|found| found.tag & SHADOW == 0 && found.tag > entry.from);
        let answer = |newer| Answer::Stored { newer, wider: wider.map_or(0, |found| found.tag) };
        match found {
            Some(found) if found.version > entry.version => {
                return Ok((answer(found.version), self.beside(&batch)?.max(found.sequence)));
            }
            Some(found) if found.version == entry.version && (!keeps || found.tag & SHADOW == 0) => {
                return Ok((answer(0), self.beside(&batch)?.max(found.sequence)));
            }
            None if !keeps => return Ok((answer(0), 0)),
            // A deletion that may be forgotten here.
            None if entry.value.is_none() && entry.version <= self.tombstone_floor.load(Acquire) => {
                return Ok((answer(0), self.beside(&batch)?));
            }
            Some(found) if !keeps && is_planted(Fault::OldCopiesStay) => {
                return Ok((answer(0), found.sequence));
            }
            _ => {}
        }
        let tag = if keeps { entry.from } else { entry.from | SHADOW };
        let attributes = Attributes { expires_at: entry.expires_at.filter(|_| keeps), tag };
        with_user_key(key, |key| match entry.value.as_deref().filter(|_| keeps) {
            Some(value) => batch.put(tree, key, entry.version, value, attributes),
            None => batch.delete(tree, key, entry.version, attributes),
        });
        // What stands there is older still: nobody could take this for something that was deleted.
        let is_newer = found.is_some();
        if (why == Why::Move && !is_planted(Fault::MovedAreRefused)) || is_newer {
            batch.take_over();
        }
        let commit = match self.store.write(&batch, SAFE) {
            // Of a time whose tombstones are gone: it may be of something that was deleted, and must not come back.
            Err(kvorum_engine::Error::BelowFloor { .. }) => return Ok((answer(entry.version + 1), 0)),
            written => written?,
        };
        self.changed(place);
        Ok((answer(0), if is_planted(Fault::AcknowledgesEarly) { 0 } else { commit.sequence() }))
    }

    /// Writes what stands beside an entry.
    fn beside(&self, batch: &Batch) -> Result<Sequence, Refusal> {
        if batch.is_empty() { Ok(0) } else { Ok(self.store.write(batch, SAFE)?.sequence()) }
    }

    fn read(&self, key: &[u8]) -> Result<(Answer, Sequence), Refusal> {
        let Some(found) = self.get(key)? else { return Ok((Answer::Found(None), 0)) };
        let sequence = found.sequence;
        Ok((Answer::Found(Some(self.with_base(key, entry_of(found))?)), sequence))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Found>, Refusal> {
        let (_, tree) = self.tree_of(key)?;
        Ok(with_user_key(key, |key| tree.get(key, &View::newest()))?)
    }

    /// The entry that stands under a key.
    pub(super) fn entry(&self, key: &[u8]) -> Result<Option<Entry>, Refusal> {
        self.get(key)?.map(|found| self.with_base(key, entry_of(found))).transpose()
    }

    /// Lets go of an entry that is none of this node's, or was deleted elsewhere: remembers only that it is gone.
    pub(crate) fn forget(&self, key: &[u8], entry: &Entry) -> Result<(), Refusal> {
        let (place, tree) = self.tree_of(key)?;
        let _one = self.stripe(key);
        let attributes = Attributes { expires_at: None, tag: entry.from | SHADOW };
        let mut batch = Batch::new();
        // However old it is.
        batch.take_over();
        with_user_key(key, |key| batch.delete(tree, key, entry.version, attributes));
        if self.keeps_losers() && self.get(key)?.is_none_or(|found| found.version <= entry.version) {
            let beside = loser_key(key);
            if let Some(row) = tree.get(&beside, &View::newest())? {
                batch.delete(tree, &beside, row.version + 1, Attributes::default());
            }
        }
        // If this is lost, it is found once more.
        drop(self.store.write(&batch, Durability::Written)?);
        self.changed(place);
        Ok(())
    }

    /// How often a shard has changed in this life.
    pub(super) fn changes(&self, place: u16) -> u64 {
        self.changes.get(usize::from(place)).map_or(0, |changes| changes.load(Acquire))
    }

    fn changed(&self, place: u16) {
        if let Some(changes) = self.changes.get(usize::from(place)) {
            changes.fetch_add(1, AcqRel);
        }
    }

    /// Tombstones up to this version may be forgotten: their replicas have them, or the grace period is over.
    pub(crate) fn set_tombstone_floor(&self, floor: u64) -> Result<(), Refusal> {
        self.tombstone_floor.fetch_max(floor, AcqRel);
        for tree in &self.trees {
            tree.set_tombstone_floor(floor)?;
        }
        Ok(())
    }

    fn tree_of(&self, key: &[u8]) -> Result<(u16, &Tree), Refusal> {
        let ShardId { place, .. } = ShardId::of_slot(self.namespace, slot(key));
        let tree = self.trees.get(usize::from(place)).ok_or(Refusal::NoShard(place))?;
        Ok((place, tree))
    }
}

fn answer_of(found: Option<Found>) -> (Answer, Sequence) {
    let sequence = found.as_ref().map_or(0, |found| found.sequence);
    (Answer::Found(found.map(entry_of)), sequence)
}

fn entry_of(found: Found) -> Entry {
    let is_value = found.is_value();
    let (from, shadow) = of_tag(found.tag);
    Entry {
        version: found.version,
        value: is_value.then_some(found.value),
        expires_at: found.expires_at,
        from,
        shadow,
        base: None,
    }
}

/// `from`, and whether it is a shadow.
fn of_tag(tag: u8) -> (u8, bool) {
    ((tag & !SHADOW).max(1), tag & SHADOW != 0)
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
