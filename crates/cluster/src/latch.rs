//! Shards: a tree each, and what a writer must hold to write to it.

use crate::fetching::Fetching;
use crate::namespace::{NamespaceId, SHARDS_DEFAULT, SHARDS_MAX};
use crate::namespaces::Table;
use crate::op_id::{SERIAL_MAX, op_id};
use crate::shard::Member;
use kvorum_engine::{Sequence, Tree};
use kvorum_sync::OpId;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::*};

/// Keys of one item at most; the next write opens another.
const ITEM_KEYS_MAX: u32 = 1024;

/// Serials that one buffer can use at most: closer to the end a writer takes a new epoch first.
const SERIALS_RESERVE: u64 = 1 << 24;

/// A shard: the id of the namespace and the place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardId {
    /// The namespace's id.
    pub namespace: u16,
    /// The place in it.
    pub place: u16,
}

/// Hash slots of a namespace, as Redis Cluster has them.
pub(crate) const SLOTS: u16 = 16_384;

impl ShardId {
    pub(crate) fn of(namespace: NamespaceId, place: u16) -> ShardId {
        debug_assert!(place < namespace.shards(), "shard {place}");
        ShardId { namespace: namespace.id(), place }
    }

    /// The shard that a hash slot lies in.
    pub(crate) fn of_slot(namespace: NamespaceId, slot: u16) -> ShardId {
        let place = u32::from(slot) * u32::from(namespace.shards()) / u32::from(SLOTS);
        ShardId { namespace: namespace.id(), place: place as u16 }
    }

    /// All shards of a namespace, in order.
    pub(crate) fn all_of(namespace: NamespaceId) -> impl Iterator<Item = ShardId> + Clone {
        (0..namespace.shards()).map(move |place| ShardId { namespace: namespace.id(), place })
    }
}

/// A shard.
pub(crate) struct Shard {
    /// Its tree, once the namespace was written to.
    pub(crate) tree: TreeCell,
    /// What a writer holds. Never across a wait for the disk.
    latch: Mutex<Writer>,
    /// Whether its member is told the time.
    ticks: AtomicBool,
}

impl Shard {
    pub(crate) fn new(epoch: u64) -> Shard {
        Shard {
            tree: TreeCell::default(),
            latch: Mutex::new(Writer::new(epoch)),
            ticks: AtomicBool::new(false),
        }
    }

    /// Something was done with its member: `true` if nobody tells it the time yet.
    pub(crate) fn begins_to_tick(&self) -> bool {
        !self.ticks.swap(true, AcqRel)
    }

    /// Whether its member is told the time.
    #[cfg(test)]
    pub(crate) fn is_ticked(&self) -> bool {
        self.ticks.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Its member is idle. Said under the latch.
    pub(crate) fn rests(&self) {
        self.ticks.store(false, Release);
    }

    pub(crate) fn latch(&self) -> MutexGuard<'_, Writer> {
        self.latch.lock()
    }
}

/// The tree of a shard, found without a lock. A member that is filled from files gets another one; that is rare, and handles are small: those
/// of the former ones stay until the shard goes, so that whoever holds one needs no count.
#[derive(Default)]
pub(crate) struct TreeCell {
    tree: OnceLock<Tree>,
    next: OnceLock<Box<TreeCell>>,
}

impl TreeCell {
    /// The tree, if there is one.
    pub(crate) fn get(&self) -> Option<&Tree> {
        self.last().tree.get()
    }

    /// The first tree; nothing if there is one.
    pub(crate) fn set(&self, tree: Tree) -> Result<(), Tree> {
        self.tree.set(tree)
    }

    /// From now on it is this tree.
    pub(crate) fn replace(&self, tree: &Tree) {
        if self.get().is_some_and(|last| last.id() == tree.id()) || self.set(tree.clone()).is_ok() {
            return;
        }
        let cell = TreeCell { tree: OnceLock::from(tree.clone()), next: OnceLock::new() };
        let _ = self.last().next.set(Box::new(cell));
    }

    fn last(&self) -> &TreeCell {
        let mut cell = self;
        while let Some(next) = cell.next.get() {
            cell = next;
        }
        cell
    }
}

/// Where the writing of a shard stands: which op id comes next.
pub(crate) struct Writer {
    epoch: u64,
    serial: u64,
    /// As `(epoch, serial)`, of the last batch that the store took.
    taken: (u64, u64),
    /// Keys in the item that is open; `None`: the next write opens one.
    open: Option<u32>,
    /// Highest op id that the store took; below it nothing is written again.
    last: u64,
    /// The sequence of the last batch with writes to any of the shards latched with this one.
    sequence: Sequence,
    /// A floor to be.
    floor: Floor,
    pub(crate) fetching: Fetching,
    /// In a cluster: this node's member of the shard's group, if it has one.
    pub(crate) member: Option<Box<Member>>,
}

impl Writer {
    fn new(epoch: u64) -> Writer {
        Writer {
            epoch,
            serial: 0,
            taken: (epoch, 0),
            open: None,
            last: 0,
            sequence: 0,
            floor: Floor::default(),
            fetching: Fetching::default(),
            member: None,
        }
    }

    /// The op id that a command's write gets. `rewritten_at`: where its key was written last in this buffer.
    pub(crate) fn next(&self, rewritten_at: Option<u64>) -> u64 {
        let serial = if self.joins(rewritten_at) { self.serial } else { self.serial + 1 };
        op_id(self.epoch, serial)
    }

    /// Whether a write joins the open item: there is one, it has room, and it does not hold the key already.
    fn joins(&self, rewritten_at: Option<u64>) -> bool {
        let has_room = self.open.is_some_and(|keys| keys < ITEM_KEYS_MAX);
        has_room && rewritten_at != Some(op_id(self.epoch, self.serial))
    }

    /// Before the writes of a command, for each of them: ends the open item if one of them can't join it.
    pub(crate) fn prepare(&mut self, rewritten_at: Option<u64>) {
        if !self.joins(rewritten_at) {
            self.open = None;
        }
    }

    /// The op id of a write, which joins the open item or opens one.
    pub(crate) fn write(&mut self) -> u64 {
        let keys = self.open.unwrap_or(0);
        self.serial += u64::from(self.open.is_none());
        self.open = Some(keys + 1);
        op_id(self.epoch, self.serial)
    }

    /// In a cluster the member says which op id comes next, and how far the shard was written to.
    pub(crate) fn follow_member(&mut self, next: OpId, sequence: Sequence) {
        (self.epoch, self.serial, self.open) = (next.epoch().get().into(), next.serial() - 1, None);
        self.sequence = sequence;
    }

    /// The next write opens an item.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    /// Whether the epoch's serials are about to run out.
    pub(crate) fn is_worn(&self) -> bool {
        self.serial > SERIAL_MAX - SERIALS_RESERVE
    }

    /// Goes on in a later epoch.
    pub(crate) fn begin_epoch(&mut self, epoch: u64) {
        debug_assert!(epoch > self.epoch, "epoch {epoch} after {}", self.epoch);
        (self.epoch, self.serial, self.open) = (epoch, 0, None);
    }

    /// The store took all that was written, at `sequence`: the op ids are used for ever.
    pub(crate) fn taken(&mut self, sequence: Sequence) {
        self.sequence = sequence;
        self.taken = (self.epoch, self.serial);
        if self.serial > 0 {
            self.last = op_id(self.epoch, self.serial);
        }
    }

    /// The store took nothing of what was written since: its op ids name nothing and come again.
    pub(crate) fn refused(&mut self) {
        (self.epoch, self.serial) = self.taken;
        self.open = None;
    }

    /// The op id below which no history is needed: one that is durable, everything up to `synced` being so, and that was the last one at
    /// `kept_since`. `None` if there is no new one.
    pub(crate) fn next_floor(&mut self, synced: Sequence, now_ms: u64, kept_since: u64) -> Option<u64> {
        let Floor { op, sequence, noted_ms } = self.floor;
        let is_ripe = sequence > 0 && sequence <= synced && noted_ms <= kept_since;
        if is_ripe || sequence == 0 {
            // The next round's.
            let sequence = if self.last > op { self.sequence } else { 0 };
            self.floor = Floor { op: self.last.max(op), sequence, noted_ms: now_ms };
        }
        is_ripe.then_some(op)
    }

    /// Nothing above this op id was written; the one before the first of the epoch if nothing was.
    pub(crate) fn last_op(&self) -> OpId {
        let first = op_id(self.epoch, 0);
        OpId::from_version(self.last.max(first))
    }

    /// Nothing was written to the shard behind this sequence.
    pub(crate) fn sequence(&self) -> Sequence {
        self.sequence
    }

    #[cfg(test)]
    pub(crate) fn wear_out(&mut self) {
        self.serial = SERIAL_MAX - SERIALS_RESERVE + 1;
        self.taken.1 = self.serial;
    }
}

/// An op id that will be a tree's floor.
#[derive(Default, Clone, Copy)]
struct Floor {
    op: u64,
    /// What must be durable first; 0: it was set.
    sequence: Sequence,
    /// When it was the last op id.
    noted_ms: u64,
}

/// A set of shards, in order.
#[derive(Default, Clone)]
pub(crate) struct ShardSet(SmallVec<[Word; 4]>);

/// Some of 64 neighbouring shards.
#[derive(Clone, Copy)]
struct Word {
    /// The namespace, and which of its words this is.
    at: u32,
    bits: u64,
}

/// Words of a namespace at most, as a power of two.
const WORDS_BITS: u32 = 4;

const _: () = assert!(SHARDS_MAX as usize <= 64 << WORDS_BITS, "a bit for each shard");

impl ShardSet {
    pub(crate) fn insert(&mut self, shard: ShardId) {
        let at = (u32::from(shard.namespace) << WORDS_BITS) | u32::from(shard.place / 64);
        self.add(at, 1 << (shard.place % 64));
    }

    pub(crate) fn insert_namespace(&mut self, namespace: NamespaceId) {
        for first in (0..namespace.shards()).step_by(64) {
            let at = (u32::from(namespace.id()) << WORDS_BITS) | u32::from(first / 64);
            let count = (namespace.shards() - first).min(64);
            self.add(at, u64::MAX >> (64 - count));
        }
    }

    fn add(&mut self, at: u32, bits: u64) {
        // Nearly always all are in one word.
        match self.0.iter_mut().find(|word| word.at >= at) {
            Some(word) if word.at == at => word.bits |= bits,
            Some(_) => {
                let place = self.0.partition_point(|word| word.at < at);
                self.0.insert(place, Word { at, bits });
            }
            None => self.0.push(Word { at, bits }),
        }
    }

    /// The shards of the set, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ShardId> {
        self.0.iter().flat_map(|word| {
            let namespace = (word.at >> WORDS_BITS) as u16;
            let first = ((word.at & ((1 << WORDS_BITS) - 1)) * 64) as u16;
            let mut bits = word.bits;
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(ShardId { namespace, place: first + bit as u16 })
            })
        })
    }
}

/// Latches that are held together, taken in order, so that no two holders wait for each other.
pub(crate) struct Latches<'n> {
    /// In the order of the shards.
    held: SmallVec<[(ShardId, MutexGuard<'n, Writer>); SHARDS_DEFAULT as usize]>,
}

impl<'n> Latches<'n> {
    /// Waits for all latches of the set. Each is held for a short time by whoever has it.
    pub(crate) fn take(table: &'n Table, set: &ShardSet) -> Latches<'n> {
        let mut held = SmallVec::new();
        for id in set.iter() {
            if let Some(shard) = table.shard(id) {
                let mut writer = shard.latch();
                writer.close();
                held.push((id, writer));
            }
        }
        Latches { held }
    }

    pub(crate) fn get(&self, shard: ShardId) -> Option<&Writer> {
        self.held.get(self.place(shard)?).map(|(_, writer)| &**writer)
    }

    pub(crate) fn get_mut(&mut self, shard: ShardId) -> Option<&mut Writer> {
        let place = self.place(shard)?;
        self.held.get_mut(place).map(|(_, writer)| &mut **writer)
    }

    fn place(&self, shard: ShardId) -> Option<usize> {
        if self.held.len() <= usize::from(SHARDS_DEFAULT) {
            return self.held.iter().position(|(id, _)| *id == shard);
        }
        self.held.binary_search_by_key(&shard, |(id, _)| *id).ok()
    }

    /// The latched shards, with their writers.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ShardId, &mut Writer)> {
        self.held.iter_mut().map(|(shard, writer)| (*shard, &mut **writer))
    }

    pub(crate) fn writers(&mut self) -> impl Iterator<Item = &mut Writer> {
        self.held.iter_mut().map(|(_, writer)| &mut **writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::Mode;
    use crate::op_id::serial_of;

    #[test]
    fn an_item_ends_where_a_key_is_written_again() {
        let mut writer = Writer::new(3);
        let first = writer.next(None);
        assert_eq!(writer.write(), first);
        assert_eq!(writer.next(None), first, "another key joins the item");
        let second = writer.next(Some(first));
        assert_eq!(second, first + 1, "the same key opens the next");
        writer.prepare(Some(first));
        assert_eq!(writer.write(), second);
        writer.taken(9);
        assert_eq!(writer.next_floor(9, 100, 50), None, "nothing is known to be durable yet");
        assert_eq!(writer.next_floor(8, 160, 110), None);
        assert_eq!(writer.next_floor(9, 140, 90), None, "the history is kept still");
        assert_eq!(writer.next_floor(9, 160, 110), Some(second));
        assert_eq!(writer.next_floor(9, 300, 250), None, "nothing new");
        writer.close();
        assert_eq!(serial_of(writer.write()), 3);
        writer.refused();
        assert_eq!(serial_of(writer.write()), 3, "what the store refused named nothing");
    }

    #[test]
    fn items_are_bounded() {
        let mut writer = Writer::new(1);
        for _ in 0..ITEM_KEYS_MAX {
            writer.prepare(None);
            assert_eq!(serial_of(writer.write()), 1);
        }
        assert_eq!(serial_of(writer.next(None)), 2);
        writer.prepare(None);
        assert_eq!(serial_of(writer.write()), 2);
    }

    #[test]
    fn a_set_is_in_order() {
        let mut set = ShardSet::default();
        let large = NamespaceId::new(300, Mode::Strong, SHARDS_MAX);
        let wanted = [
            ShardId::of(NamespaceId::ZERO, 0),
            ShardId::of(NamespaceId::ZERO, 15),
            ShardId::of(NamespaceId::ENTITY, 3),
            ShardId::of(large, 63),
            ShardId::of(large, 64),
            ShardId::of(large, 1023),
        ];
        for at in [5, 0, 3, 3, 4, 2, 1, 5] {
            set.insert(wanted[at]);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), wanted);
        set.insert_namespace(NamespaceId::ENTITY);
        assert_eq!(set.iter().count(), wanted.len() + 15);
        set.insert_namespace(large);
        assert_eq!(set.iter().count(), 2 + 16 + 1024);
        assert!(set.iter().is_sorted());
    }

    #[test]
    fn slots_are_cut_evenly() {
        for shards in [1, 3, 16, 1000, SHARDS_MAX] {
            let namespace = NamespaceId::new(20, Mode::Strong, shards);
            let mut counts = vec![0u16; usize::from(shards)];
            (0..SLOTS).for_each(|slot| counts[usize::from(ShardId::of_slot(namespace, slot).place)] += 1);
            let (fewest, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - fewest <= 1, "{shards} shards: {fewest} to {most} slots");
        }
        assert_eq!(ShardId::of_slot(NamespaceId::ZERO, 1023).place, 0);
        assert_eq!(ShardId::of_slot(NamespaceId::ZERO, 1024).place, 1);
    }
}
