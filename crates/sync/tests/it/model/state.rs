//! What a state of the model holds.
//!
//! Writes are bounded, so each has a *slot* from the start: `(epoch - 1) · writes + serial - 1`; sets of items are bit sets of slots.
//! An op id is kept apart from the slot, since the outline gives one op id to different items.

/// A bit set of slots.
pub(crate) type Items = u8;
/// A bit set of members.
pub(crate) type Members = u8;
/// An op id: epoch · 16 + serial (or a serial alone, if epochs are no part of it). 0 stands before the first item.
pub(crate) type OpId = u8;

/// Members of the group.
pub(crate) const MEMBERS: usize = 3;
/// How many make a majority.
pub(crate) const MAJORITY: u32 = 2;
/// Slots in all: the bound of `reigns · writes`.
pub(crate) const SLOTS: usize = 8;
/// Serials in an epoch, and one more.
pub(crate) const SERIALS: u8 = 16;

/// What travels. A message stays in the network until it can change nothing any more.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Message {
    Gather { epoch: u8 },
    Promise { epoch: u8, from: u8, answer: Answer },
    Adopt { epoch: u8, checkpoint: OpId, basis: Items, put: Items },
    Adopted { epoch: u8, from: u8 },
    Store { epoch: u8, slot: u8 },
    Acknowledge { epoch: u8, slot: u8, from: u8 },
    CommitPoint { epoch: u8, point: OpId },
    Round { epoch: u8, number: u8 },
    RoundAnswer { epoch: u8, number: u8, from: u8 },
}

/// A member's answer to a gather.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Answer {
    pub(crate) stands: u8,
    pub(crate) checkpoint: OpId,
    pub(crate) tail: Items,
}

/// What a member does beyond following; gone with a crash.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) enum Role {
    Follower,
    Gathering { epoch: u8, answers: [Option<Answer>; MEMBERS] },
    Adopting { epoch: u8, answers: [Option<Answer>; MEMBERS], adopted: Members },
    Leading(Reign),
}

impl Role {
    /// The epoch of the role; 0 for a follower.
    pub(crate) const fn epoch(&self) -> u8 {
        match self {
            Self::Follower => 0,
            Self::Gathering { epoch, .. } | Self::Adopting { epoch, .. } => *epoch,
            Self::Leading(reign) => reign.epoch,
        }
    }
}

/// A leader's memory.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) struct Reign {
    pub(crate) epoch: u8,
    /// Items that this leader has to commit: its own, and in the outline the interrupted ones.
    pub(crate) open: Items,
    pub(crate) acknowledged: [Members; SLOTS],
    pub(crate) committed: Items,
    pub(crate) point: OpId,
    pub(crate) proposed: u8,
}

/// One member.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) struct Member {
    // Durable.
    pub(crate) pre_epoch: u8,
    pub(crate) epoch: u8,
    pub(crate) basis_end: OpId,
    pub(crate) checkpoint: OpId,
    pub(crate) tail: Items,
    pub(crate) tree: Items,
    // Volatile.
    pub(crate) role: Role,
    /// The epoch for whose adoption final data has landed in the tree, and which.
    pub(crate) landed: Option<(u8, Items)>,
    /// A record on its way to the disk: `(epoch, slot)`.
    pub(crate) queued: Option<(u8, u8)>,
    // What the world did to it.
    pub(crate) wiped: bool,
    pub(crate) dead: bool,
}

impl Member {
    pub(crate) const NEW: Self = Self {
        pre_epoch: 0,
        epoch: 0,
        basis_end: 0,
        checkpoint: 0,
        tail: 0,
        tree: 0,
        role: Role::Follower,
        landed: None,
        queued: None,
        wiped: false,
        dead: false,
    };
}

/// A read that waits for a majority of its round.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) member: u8,
    pub(crate) number: u8,
    /// What was committed when the read arrived: its answer must show all of it.
    pub(crate) floor: Items,
    pub(crate) answered: Members,
}

/// What no member knows, but the properties speak of.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub(crate) struct Ghost {
    /// Items that some leader took as committed: acknowledged to a client, or told so by the basis.
    pub(crate) committed: Items,
    /// Items that a leader's basis left out for ever: clients were told so.
    pub(crate) cancelled: Items,
    /// Epochs that were led, as bits; and whether one was led twice.
    pub(crate) led: u8,
    pub(crate) led_twice: bool,
    pub(crate) stale_read: bool,
}

/// The whole world.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) members: [Member; MEMBERS],
    /// Sorted, without duplicates.
    pub(crate) network: Vec<Message>,
    /// Manager of each epoch from 1 on.
    pub(crate) managers: [u8; SLOTS + 1],
    /// The last epoch that was given out.
    pub(crate) nominated: u8,
    /// Members above this index are still alike: the symmetry reduction names them in the order of their first deed.
    pub(crate) named: u8,
    /// Slots of each reign: the bound on its writes.
    pub(crate) writes: u8,
    pub(crate) op_ids: [OpId; SLOTS],
    pub(crate) reads_of: [Items; SLOTS],
    pub(crate) ghost: Ghost,
    pub(crate) read: Option<Read>,
    pub(crate) reads: u8,
    pub(crate) crashes: u8,
    pub(crate) wipes: u8,
    pub(crate) deaths: u8,
}

impl State {
    pub(crate) const fn new(writes: u8) -> Self {
        Self {
            writes,
            members: [Member::NEW; MEMBERS],
            network: Vec::new(),
            managers: [0; SLOTS + 1],
            nominated: 0,
            named: 0,
            op_ids: [0; SLOTS],
            reads_of: [0; SLOTS],
            ghost: Ghost { committed: 0, cancelled: 0, led: 0, led_twice: false, stale_read: false },
            read: None,
            reads: 0,
            crashes: 0,
            wipes: 0,
            deaths: 0,
        }
    }

    pub(crate) fn send(&mut self, message: Message) {
        if let Err(at) = self.network.binary_search(&message) {
            self.network.insert(at, message);
        }
    }

    pub(crate) fn take(&mut self, message: Message) {
        if let Ok(at) = self.network.binary_search(&message) {
            self.network.remove(at);
        }
    }

    pub(crate) fn manager(&self, epoch: u8) -> usize {
        usize::from(self.managers[usize::from(epoch)])
    }

    /// Slots of `items` whose op id satisfies `keep`.
    pub(crate) fn where_id(&self, items: Items, keep: impl Fn(OpId) -> bool) -> Items {
        slots(items).filter(|slot| keep(self.op_ids[*slot])).fold(0, |set, slot| set | bit(slot))
    }

    /// Puts items into a tree or tail: an op id names one place in it.
    pub(crate) fn put(&self, into: Items, items: Items) -> Items {
        self.remove(into, items & !into) | items
    }

    /// Removes what stands under the op ids of `items`.
    pub(crate) fn remove(&self, from: Items, items: Items) -> Items {
        self.where_id(from, |id| !slots(items).any(|slot| self.op_ids[slot] == id))
    }

    pub(crate) fn greatest_id(&self, items: Items) -> OpId {
        slots(items).map(|slot| self.op_ids[slot]).max().unwrap_or(0)
    }
}

pub(crate) const fn bit(index: usize) -> u8 {
    1 << index
}

pub(crate) fn slots(items: Items) -> impl Iterator<Item = usize> {
    (0..SLOTS).filter(move |slot| items & bit(*slot) != 0)
}
