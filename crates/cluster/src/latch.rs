//! Shards: a tree each, and what a writer must hold to write to it.

use crate::fetching::Fetching;
use crate::keys::SHARDS;
use crate::namespace::NamespaceId;
use crate::op_id::{SERIAL_MAX, op_id};
use kvorum_engine::{Sequence, Tree};
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use std::sync::OnceLock;

/// Keys of one item at most; the next write opens another.
const ITEM_KEYS_MAX: u32 = 1024;

/// Serials that one buffer can use at most: closer to the end a writer takes a new epoch first.
const SERIALS_RESERVE: u64 = 1 << 24;

/// A shard of this node: the namespace and the place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ShardId(u16);

impl ShardId {
    pub(crate) fn of(namespace: NamespaceId, shard: usize) -> ShardId {
        debug_assert!(shard < SHARDS, "shard {shard}");
        ShardId(namespace.0 * SHARDS as u16 + shard as u16)
    }

    /// Its place among all shards of the node.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A shard.
pub(crate) struct Shard {
    /// Its tree, once the namespace was written to.
    pub(crate) tree: OnceLock<Tree>,
    /// What a writer holds. Never across a wait for the disk.
    latch: Mutex<Writer>,
}

impl Shard {
    pub(crate) fn new(epoch: u64) -> Shard {
        Shard { tree: OnceLock::new(), latch: Mutex::new(Writer::new(epoch)) }
    }

    pub(crate) fn latch(&self) -> MutexGuard<'_, Writer> {
        self.latch.lock()
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
    /// A floor to be, with the sequence that must be durable first; 0: it was set.
    floor: (u64, Sequence),
    pub(crate) fetching: Fetching,
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
            floor: (0, 0),
            fetching: Fetching::default(),
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

    /// The op id below which no history is needed: one that is durable, everything up to `synced` being so. `None` if there is no new one.
    pub(crate) fn next_floor(&mut self, synced: Sequence) -> Option<u64> {
        let (floor, sequence) = self.floor;
        let is_durable = sequence > 0 && sequence <= synced;
        if is_durable || sequence == 0 {
            // The next round's.
            self.floor = if self.last > floor { (self.last, self.sequence) } else { (floor, 0) };
        }
        is_durable.then_some(floor)
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

/// A set of shards, in order.
#[derive(Default, Clone, Copy)]
pub(crate) struct ShardSet([u64; WORDS]);

const WORDS: usize = (crate::namespace::COUNT * SHARDS).div_ceil(64);

impl ShardSet {
    pub(crate) fn insert(&mut self, shard: ShardId) {
        if let Some(word) = self.0.get_mut(shard.index() / 64) {
            *word |= 1 << (shard.index() % 64);
        }
    }

    pub(crate) fn insert_namespace(&mut self, namespace: NamespaceId) {
        for shard in 0..SHARDS {
            self.insert(ShardId::of(namespace, shard));
        }
    }

    /// The shards of the set, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ShardId> {
        self.0.into_iter().enumerate().flat_map(|(at, mut word)| {
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(ShardId((at * 64) as u16 + bit as u16))
            })
        })
    }
}

/// Latches that are held together, taken in order, so that no two holders wait for each other.
pub(crate) struct Latches<'n> {
    held: SmallVec<[(ShardId, MutexGuard<'n, Writer>); SHARDS]>,
}

impl<'n> Latches<'n> {
    /// Waits for all latches of the set. Each is held for a short time by whoever has it.
    pub(crate) fn take(shards: &'n [Shard], set: &ShardSet) -> Latches<'n> {
        let mut held = SmallVec::new();
        for id in set.iter() {
            if let Some(shard) = shards.get(id.index()) {
                let mut writer = shard.latch();
                writer.close();
                held.push((id, writer));
            }
        }
        Latches { held }
    }

    pub(crate) fn get(&self, shard: ShardId) -> Option<&Writer> {
        self.held.iter().find(|(id, _)| *id == shard).map(|(_, writer)| &**writer)
    }

    pub(crate) fn get_mut(&mut self, shard: ShardId) -> Option<&mut Writer> {
        self.held.iter_mut().find(|(id, _)| *id == shard).map(|(_, writer)| &mut **writer)
    }

    pub(crate) fn writers(&mut self) -> impl Iterator<Item = &mut Writer> {
        self.held.iter_mut().map(|(_, writer)| &mut **writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(writer.next_floor(9), None, "nothing is known to be durable yet");
        assert_eq!(writer.next_floor(8), None);
        assert_eq!(writer.next_floor(9), Some(second));
        assert_eq!(writer.next_floor(9), None, "nothing new");
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
        let last = ShardId::of(NamespaceId::ENTITY, SHARDS - 1);
        for id in [last, ShardId(0), ShardId(63), ShardId(64), ShardId(5)] {
            set.insert(id);
        }
        assert_eq!(set.iter().map(ShardId::index).collect::<Vec<_>>(), [0, 5, 63, 64, last.index()]);
    }
}
