//! One simulated process: the core, its disk, and what a driver keeps in memory around them.

use std::collections::BTreeMap;

use kvorum_sync::{
    Config, Effects, Epoch, Input, Message, Moment, OpId, RecordId, Replica, StoreId, Token, TransferId,
};

use crate::client::Request;
use crate::disk::Disk;
use crate::tree::{Tree, Writes};

/// Values that travel beside a message.
#[derive(Clone, Debug, Default)]
pub(crate) enum Payload {
    #[default]
    None,
    /// Beside a write.
    Values(Writes),
    /// Beside a piece: what stands of each item; whether it is the last one.
    Piece { items: BTreeMap<OpId, Writes>, last: bool },
}

/// A message that waits for a record to be durable.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) behind: RecordId,
    pub(crate) to: StoreId,
    pub(crate) message: Message,
    pub(crate) payload: Payload,
}

/// What a transfer out of this node has pinned.
#[derive(Clone, Debug)]
pub(crate) struct Pin {
    pub(crate) tree: Tree,
    /// Where each read piece ended.
    pub(crate) ends: BTreeMap<u64, OpId>,
    pub(crate) pieces: BTreeMap<u64, BTreeMap<OpId, Writes>>,
}

/// A process that runs.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) replica: Replica,
    pub(crate) held: Vec<Held>,
    pub(crate) durable: RecordId,
    /// Values of items on their way: until they are below the checkpoint.
    pub(crate) recent: BTreeMap<OpId, Writes>,
    /// Values that came for an adoption.
    pub(crate) staged: BTreeMap<OpId, Writes>,
    /// Files that have been shipped, until the last one swaps them in.
    pub(crate) shipped: BTreeMap<OpId, Writes>,
    pub(crate) pins: BTreeMap<TransferId, Pin>,
    pub(crate) visible: OpId,
    pub(crate) requests: BTreeMap<Token, Request>,
    pub(crate) by_op: BTreeMap<OpId, Token>,
    pub(crate) tokens: u64,
    /// Kept for its memory.
    pub(crate) out: Effects,
}

/// A machine with a disk, on which a process may run.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) store: StoreId,
    /// Counts starts: events of an earlier process are void.
    pub(crate) boot: u64,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// Thousandths of the true speed.
    pub(crate) clock_speed: u64,
    pub(crate) clock_offset: u64,
    pub(crate) paused_until: u64,
    pub(crate) slow_until: u64,
    pub(crate) full_until: u64,
    /// The next value to be stored changes on its way.
    pub(crate) flips: bool,
    /// What it holds is wrong, until it is rebuilt.
    pub(crate) bad: bool,
}

impl Node {
    pub(crate) fn new(store: StoreId, clock_speed: u64, clock_offset: u64) -> Self {
        Self {
            store,
            boot: 0,
            disk: Disk::default(),
            process: None,
            clock_speed,
            clock_offset,
            paused_until: 0,
            slow_until: 0,
            full_until: 0,
            flips: false,
            bad: false,
        }
    }

    pub(crate) fn clock(&self, now: u64) -> Moment {
        Moment(self.clock_offset + now / 1000 * self.clock_speed + now % 1000 * self.clock_speed / 1000)
    }

    /// Starts a process over what the disk has.
    pub(crate) fn start(&mut self, now: u64, nonce: u64, config: Config) {
        self.boot += 1;
        let mut out = Effects::new();
        let moment = self.clock(now);
        let intact = !self.disk.cut;
        let durable = &self.disk.image.durable;
        let replica = Replica::recover(self.store, nonce, config, durable, intact, moment, &mut out);
        let visible = durable.checkpoint.op;
        self.process = Some(Process {
            replica,
            held: Vec::new(),
            durable: RecordId(0),
            recent: BTreeMap::new(),
            staged: BTreeMap::new(),
            shipped: BTreeMap::new(),
            pins: BTreeMap::new(),
            visible,
            requests: BTreeMap::new(),
            by_op: BTreeMap::new(),
            tokens: 0,
            out,
        });
    }

    /// What the core is told of the tree's floors.
    pub(crate) fn floors(&self) -> Input {
        Input::Floors { floor: self.disk.live.floor, gc_floor: self.disk.live.gc_floor }
    }

    /// The epoch that the process leads, if it does.
    pub(crate) fn leads(&self) -> Option<Epoch> {
        let replica = &self.process.as_ref()?.replica;
        (replica.role() == kvorum_sync::RoleName::Leader).then(|| replica.epoch())
    }

    /// Values of an item that must be sent again.
    pub(crate) fn values_of(&self, op: OpId) -> Writes {
        let recent = self.process.as_ref().and_then(|process| process.recent.get(&op)).cloned();
        recent.or_else(|| self.disk.live.tree.item(op)).unwrap_or_default()
    }
}
