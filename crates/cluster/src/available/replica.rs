//! The replica: a node's local trees for the slots that it keeps. Versions decide, so that writes may come in any order, twice, and from anywhere.

mod keeping;
mod listing;

pub(super) use listing::KEYS_MAX;

use super::planted::{Fault, is_planted};
use super::wire::{Answer, Ask, Listed};
use super::{Entry, Order};
use crate::error::Error;
use crate::keys::{USER_KEYS_END, user_key, with_user_key};
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
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use xxhash_rust::xxh3::xxh3_64_with_seed;

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
    /// The nodes from which it has not collected yet what it should keep.
    lacking: Mutex<BTreeSet<StoreId>>,
    /// It slept so long that it may hold what was deleted meanwhile.
    doubts: AtomicBool,
    keeps_losers: AtomicBool,
    stripes: Vec<Mutex<()>>,
}

impl Replica {
    /// Over the namespace's trees, one for each of its shards.
    pub(crate) fn new(me: StoreId, namespace: NamespaceId, store: Store, trees: Vec<Tree>) -> Replica {
        let changes = trees.iter().map(|_| AtomicU64::new(0)).collect();
        let digests = trees.iter().map(|_| Mutex::default()).collect();
        let (tombstone_floor, lacking) = (AtomicU64::new(0), Mutex::default());
        let (doubts, keeps_losers) = (AtomicBool::new(false), AtomicBool::new(false));
        let stripes = (0..keeping::STRIPES).map(|_| Mutex::default()).collect();
        Replica {
            me,
            namespace,
            store,
            trees,
            changes,
            digests,
            tombstone_floor,
            lacking,
            doubts,
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

    /// It lacks what it should keep until it has exchanged everything with these.
    pub(crate) fn lacks(&self, what_these_have: impl IntoIterator<Item = StoreId>) {
        self.lacking.lock().extend(what_these_have);
    }

    /// It may hold what was deleted while it slept, until it has collected everything that it lacks.
    pub(crate) fn doubt(&self) {
        self.doubts.store(true, Release);
    }

    /// Whether it doubts what it holds.
    pub(crate) fn doubts(&self) -> bool {
        self.doubts.load(Acquire)
    }

    /// It has exchanged everything with this node, or that node has left for good.
    pub(crate) fn collected(&self, from: StoreId) {
        let mut lacking = self.lacking.lock();
        lacking.remove(&from);
        if lacking.is_empty() {
            self.doubts.store(false, Release);
        }
    }

    /// The nodes from which it has to collect what it lacks.
    pub(crate) fn lacking(&self) -> Vec<StoreId> {
        self.lacking.lock().iter().copied().collect()
    }

    /// Whether it answers reads.
    pub(crate) fn is_whole(&self) -> bool {
        self.lacking.lock().is_empty() || is_planted(Fault::EmptyAnswers)
    }

    /// Does what another node, or a client's coordinator on this one, asks. `ceiling`: the highest version that the clocks can have given by now.
    /// The answer may be told once the sequence is durable. Waits for the disk.
    pub(crate) fn handle(
        &self,
        from: StoreId,
        ask: &Ask,
        order: &Order,
        ceiling: u64,
    ) -> Result<(Answer, Sequence), Refusal> {
        match ask {
            Ask::Write { entry, .. } if entry.version > ceiling => {
                Err(Refusal::Ahead { version: entry.version })
            }
            Ask::Write { key, entry } if self.keeps_losers() => self.write_beside(key, entry, order),
            Ask::Write { key, entry } => self.write(key, entry, order),
            Ask::Read { .. } | Ask::Conflicts { .. } if !self.is_whole() => Err(Refusal::Rebuilding),
            Ask::Read { key } => self.read(key),
            Ask::Conflicts { key } => self.conflicts(key),
            Ask::Standing => {
                let floor = self.tombstone_floor.load(Acquire);
                Ok((Answer::Standing { floor, doubts: self.doubts(), is_unused: false }, 0))
            }
            Ask::Digests { .. } | Ask::DigestsWith { .. } | Ask::List { .. } | Ask::Fetch { .. }
                if self.doubts() =>
            {
                Err(Refusal::Rebuilding)
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
            Ask::Range { .. } | Ask::Keys { .. } if !self.is_whole() => Err(Refusal::Rebuilding),
            Ask::Range { from, is_first, end } => self.range(from, *is_first, end.as_deref(), None),
            Ask::Keys { from, is_first, end, most } => {
                self.range(from, *is_first, end.as_deref(), Some(*most))
            }
            Ask::Marked { mark, .. } => Ok((Answer::Key(self.marked(*mark)?), 0)),
            Ask::Drawn { seed } => Ok((Answer::Key(self.drawn(*seed)?), 0)),
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
        match ask {
            Ask::Write { entry, .. } if entry.version > ceiling => {
                Some(Err(Refusal::Ahead { version: entry.version }))
            }
            Ask::Read { .. } if !self.is_whole() => Some(Err(Refusal::Rebuilding)),
            _ if self.keeps_losers() => None,
            Ask::Write { key, entry } => {
                let (_, tree) = self.tree_of(key).ok()?;
                match with_user_key(key, |key| tree.version_of_cached(key, &newest)).ok()? {
                    Cached::Ready(found) => Some(self.keep(key, entry, order, found, Batch::new())),
                    Cached::WouldRead => None,
                }
            }
            Ask::Read { key } => {
                let (_, tree) = self.tree_of(key).ok()?;
                match with_user_key(key, |key| tree.get_cached(key, &newest)).ok()? {
                    Cached::Ready(found) => Some(Ok(answer_of(found))),
                    Cached::WouldRead => None,
                }
            }
            _ => None,
        }
    }

    fn write(&self, key: &[u8], entry: &Entry, order: &Order) -> Result<(Answer, Sequence), Refusal> {
        let (_, tree) = self.tree_of(key)?;
        let found = with_user_key(key, |key| tree.version_of(key, &View::newest()))?;
        self.keep(key, entry, order, found, Batch::new())
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
        let commit = match self.store.write(&batch, Durability::Synced) {
            // Of a time whose tombstones are gone: it may be of something that was deleted, and must not come back.
            Err(kvorum_engine::Error::BelowFloor { .. }) => return Ok((answer(entry.version + 1), 0)),
            written => written?,
        };
        self.changed(place);
        Ok((answer(0), if is_planted(Fault::AcknowledgesEarly) { 0 } else { commit.sequence() }))
    }

    /// Writes what stands beside an entry.
    fn beside(&self, batch: &Batch) -> Result<Sequence, Refusal> {
        if batch.is_empty() { Ok(0) } else { Ok(self.store.write(batch, Durability::Synced)?.sequence()) }
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

    fn fetch(&self, keys: &[Bytes]) -> Result<(Answer, Sequence), Refusal> {
        let (mut entries, mut bytes, mut sequence) = (Vec::new(), 0, 0);
        for key in keys {
            let Some(found) = self.get(key)? else { continue };
            bytes += key.len() + found.value.len();
            if bytes > FETCHED_BYTES && !entries.is_empty() {
                break;
            }
            sequence = sequence.max(found.sequence);
            entries.push((key.clone(), self.with_base(key, entry_of(found))?));
        }
        Ok((Answer::Fetched(entries), sequence))
    }

    /// Keys and versions of some slots, or of all if none is named, behind `after` and up to `upto`, in key order: at most [`LISTED_MAX`] of them.
    pub(super) fn list(
        &self,
        place: u16,
        slots: &BTreeSet<u16>,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
    ) -> Result<Vec<Listed>, Refusal> {
        let (after, upto) = (after.map(user_key), upto.map(user_key));
        let low = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let high = upto.as_deref().map_or(Bound::Excluded(USER_KEYS_END), Bound::Included);
        if after.is_some() && after >= upto && upto.is_some() {
            return Ok(Vec::new());
        }
        let mut listed = Vec::new();
        self.scan(place, (low, high), |one| {
            if slots.is_empty() || slots.contains(&slot(&one.key)) {
                listed.push(one);
            }
            listed.len() < LISTED_MAX
        })?;
        Ok(listed)
    }

    /// Digests of the slots that this node and `peer` both keep entries of: of those entries that both should have.
    pub(super) fn digests(
        &self,
        place: u16,
        peer: StoreId,
        order: &Order,
    ) -> Result<Vec<(u16, u64)>, Refusal> {
        let index = usize::from(place);
        let (Some(changes), Some(digests)) = (self.changes.get(index), self.digests.get(index)) else {
            return Err(Refusal::NoShard(place));
        };
        let mut digests = digests.lock();
        let at = (changes.load(Acquire), self.tombstone_floor.load(Acquire));
        if digests.at != Some(at) {
            let mut sums = HashMap::new();
            self.scan(place, (Bound::Unbounded, Bound::Excluded(USER_KEYS_END)), |one| {
                if !one.shadow {
                    let version = if is_planted(Fault::DigestsWithoutVersions) { 0 } else { one.version };
                    let digest = xxh3_64_with_seed(&one.key, version);
                    *sums.entry((slot(&one.key), one.from)).or_insert(0) ^= digest;
                }
                true
            })?;
            *digests = Digests { at: Some(at), sums };
        }
        let mut shared = std::collections::BTreeMap::new();
        for ((slot, from), sum) in &digests.sums {
            let ranks = [self.me, peer].map(|store| order.rank(*slot, store));
            if ranks.iter().all(|rank| rank.is_some_and(|rank| rank < *from)) {
                *shared.entry(*slot).or_insert(0) ^= sum;
            }
        }
        Ok(shared.into_iter().collect())
    }

    /// Entries, deletions too, that others keep and this node does not, behind a key: at most [`LISTED_MAX`] keys with their versions.
    pub(crate) fn misplaced(
        &self,
        place: u16,
        order: &Order,
        after: Option<&[u8]>,
    ) -> Result<Vec<(Bytes, u64)>, Refusal> {
        let after = after.map(user_key);
        let low = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut misplaced = Vec::new();
        self.scan(place, (low, Bound::Excluded(USER_KEYS_END)), |one| {
            let is_kept = order.rank(slot(&one.key), self.me).is_some_and(|rank| rank < one.from);
            if !one.shadow && !is_kept {
                misplaced.push((one.key, one.version));
            }
            misplaced.len() < LISTED_MAX
        })?;
        Ok(misplaced)
    }

    /// Lets go of an entry that is none of this node's, or was deleted elsewhere: remembers only that it is gone.
    pub(crate) fn forget(&self, key: &[u8], entry: &Entry) -> Result<(), Refusal> {
        let (place, tree) = self.tree_of(key)?;
        let attributes = Attributes { expires_at: None, tag: entry.from | SHADOW };
        let gone_at = |version| {
            let mut batch = Batch::new();
            with_user_key(key, |key| batch.delete(tree, key, version, attributes));
            self.store.write(&batch, Durability::Written)
        };
        // If this is lost, it is found once more.
        drop(match gone_at(entry.version) {
            Err(kvorum_engine::Error::BelowFloor { floor, .. }) => gone_at(floor + 1)?,
            written => written?,
        });
        self.changed(place);
        Ok(())
    }

    fn changed(&self, place: u16) {
        if let Some(changes) = self.changes.get(usize::from(place)) {
            changes.fetch_add(1, AcqRel);
        }
    }

    /// Goes over keys and versions in key order, as long as `take` says so.
    fn scan(
        &self,
        place: u16,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        mut take: impl FnMut(Listed) -> bool,
    ) -> Result<(), Refusal> {
        let tree = self.trees.get(usize::from(place)).ok_or(Refusal::NoShard(place))?;
        let floor = self.tombstone_floor.load(Acquire);
        let range = tree.range(bounds, &View::newest(), Direction::Forward)?.with_tombstones();
        for found in range {
            let (key, found) = found?;
            let is_gone = found.kind == FoundKind::Tombstone && found.version <= floor;
            let is_deletion = found.kind == FoundKind::Tombstone;
            if is_gone || (is_deletion && is_planted(Fault::ComparesNoDeletions)) {
                continue;
            }
            let (from, shadow) = of_tag(found.tag);
            let listed = Listed { key: key.slice(1..), version: found.version, from, shadow };
            if !take(listed) {
                break;
            }
        }
        Ok(())
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
