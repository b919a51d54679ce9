//! The evaluation of commands at the leader of a shard's group, under the shard's latch: commands become replies, *items* (what the group stores)
//! and what each reply rests on.
//!
//! - The writes of one buffer make one item, until a key is written a second time or the item is full: that write opens the next one.
//! - A command that reads what is pending names it: its item does, or, if it has no effects, its reply waits for it.
//! - A reply that rests on an expiry after the time of the shard's last item waits for an item that carries the time.

mod all_keys;
mod evaluator;
pub(super) mod record;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use all_keys::{AllKeys, Found, Look, Wanted};
pub(crate) use evaluator::{Command, Transacted, commands, transaction, versions};
pub(crate) use record::{Named, record_key};

use crate::fetching::Fetching;
use crate::namespace::NamespaceId;
use crate::node::Limits;
use crate::prefetch::Fetched;
use kvorum_engine::Tree;
use kvorum_model::{Effect, Reply};
use kvorum_sync::OpId;
use smallvec::SmallVec;

/// Keys that commands put into one item before the next one is opened. A single command may have more: it is stored as one.
const ITEM_KEYS_MAX: usize = 1024;

/// Bytes of effects, likewise.
const ITEM_BYTES_MAX: usize = 1 << 20;

/// What an evaluation asks of the member that leads.
pub(crate) trait Leader {
    /// Whether an item in the tree is known to be committed. What is not may yet be cancelled.
    fn is_committed(&self, op: OpId) -> bool;
    /// The last clear that is not known to be committed.
    fn pending_clear(&self) -> Option<OpId>;
    /// The time that the shard's last item carries, Unix milliseconds.
    fn last_time_ms(&self) -> u64;
}

/// What commands are evaluated on: the newest state of a shard, pending items included.
pub(crate) struct Ground<'g> {
    pub(crate) leader: &'g dyn Leader,
    pub(crate) tree: &'g Tree,
    pub(crate) namespace: NamespaceId,
    /// The op id that the next item gets.
    pub(crate) next: OpId,
    /// The shard's time now.
    pub(crate) now_ms: u64,
    pub(crate) fetching: &'g Fetching,
    pub(crate) fetched: &'g Fetched,
    /// What was read of all keys for a transaction.
    pub(crate) all_keys: Option<&'g AllKeys>,
    pub(crate) limits: Limits,
}

/// Op ids, each once.
pub(crate) type Ops = SmallVec<[OpId; 4]>;

/// What is to be stored as one.
#[derive(Debug, Default)]
pub(crate) struct Item<'r> {
    /// Everything is deleted first.
    pub(crate) clears: bool,
    /// No key twice.
    pub(crate) effects: Vec<Effect<'r>>,
    /// The record of a request id: its key in the tree, what it says, when it expires.
    pub(crate) record: Option<(Vec<u8>, Vec<u8>, u64)>,
    /// Items that were pending when it was evaluated on top of them.
    pub(crate) reads: Ops,
    bytes: usize,
}

/// A command's reply.
#[derive(Debug)]
pub(crate) struct Evaluated {
    pub(crate) reply: Reply,
    /// The item that holds its effects. Without effects the reply waits for what all replies without effects rest on.
    pub(crate) item: Option<usize>,
}

/// What the replies without effects rest on, all together.
#[derive(Debug, Default)]
pub(crate) struct Rests {
    /// Whether there are any.
    pub(crate) wanted: bool,
    pub(crate) ops: Ops,
    /// The item that a request with an id was executed by, when it came before.
    pub(crate) met: Option<OpId>,
    /// An item must carry the time, because something was told as expired that had not at the time of the last item.
    pub(crate) on_time: bool,
}

/// Why an evaluation stopped before its end. The rest is evaluated when that is mended.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// A key is not in memory, with its value or without.
    Cold { key: Vec<u8>, with_value: bool },
    /// The record of the request id is not in memory.
    ColdRecord,
    /// All keys are to be read for the command at this place of a transaction.
    Look(usize, Look),
    /// One batch takes no more.
    Full,
}

impl Item<'_> {
    /// Everything in the shard is deleted.
    pub(crate) fn clear() -> Item<'static> {
        Item { clears: true, ..Item::default() }
    }
}

fn add(ops: &mut Ops, op: OpId) {
    if !ops.contains(&op) {
        ops.push(op);
    }
}

fn next_after(op: OpId) -> OpId {
    OpId::new(op.epoch(), op.serial() + 1)
}
