//! What one seed stands for: members, network, disks, faults and operations, drawn before the run, so that any of it can be left out.

use crate::dice::Dice;
use crate::tree::Key;

/// Keys that clients touch.
pub(crate) const KEYS: u64 = 6;

/// Something that goes wrong, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies; what was not durable may be gone.
    Crash {
        /// Which.
        node: usize,
    },
    /// All processes die at once.
    PowerCut,
    /// The process stands still; its clock goes on.
    Pause {
        /// Which.
        node: usize,
    },
    /// Nothing gets from one to the other.
    Cut {
        /// From.
        from: usize,
        /// To.
        to: usize,
    },
    /// One is alone.
    Isolate {
        /// Which.
        node: usize,
    },
    /// Every fsync takes long.
    SlowDisk {
        /// Which.
        node: usize,
    },
    /// Nothing can be stored.
    FullDisk {
        /// Which.
        node: usize,
    },
    /// The disk is replaced by an empty one: another member comes back, and takes the old one's place.
    Wipe {
        /// Which.
        node: usize,
    },
    /// The control plane names another manager, with nothing wrong.
    Nominate,
    /// Whoever leads is cut off from the other members, which are given another manager; clients still reach it. Those who granted it a lease
    /// may restart at the same moment.
    Depose {
        /// Whether the others restart.
        restart: bool,
    },
    /// Of three members one leads, the second is named manager and does not reach the first, and the third, on whom all depends, has a slow
    /// disk and dies for a moment.
    Pivot {
        /// Which follower is the third one.
        third: usize,
        /// Whether the leader dies too.
        both: bool,
    },
    /// A value changes in a member's memory on its way to the disk.
    Flip {
        /// Which.
        node: usize,
    },
    /// The machine loses power; with `written` durability that takes what was acknowledged.
    PowerLoss {
        /// Which.
        node: usize,
    },
    /// An operator drains whoever leads.
    Drain,
}

/// A fault with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedFault {
    /// When it begins (microseconds).
    pub at: u64,
    /// How long it lasts (microseconds).
    pub lasts: u64,
    /// What.
    pub fault: Fault,
}

/// How a read is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// By the leader.
    Leader,
    /// By whoever got it, with the leader's word.
    Follower,
    /// So, with a label where a write is in flight.
    Labelled,
    /// By anybody, from its checkpoint.
    Stale,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// Read a key.
    Read(Mode),
    /// Write it.
    Write,
    /// Delete it.
    Delete,
    /// Write it if it has the version that the client saw last.
    Conditional,
    /// Write it and its neighbour in one item.
    Pair,
    /// Clear everything.
    Clear,
}

/// One operation of a client. A client does its operations one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deeds {
    /// Not before this time (microseconds).
    pub at: u64,
    /// Who.
    pub client: u32,
    /// The key.
    pub key: Key,
    /// What.
    pub deed: Deed,
    /// Whether it carries a request id, and is tried again when its outcome is unknown.
    pub request_id: bool,
}

/// What a run is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A little of everything.
    Mixed,
    /// Leaders that don't know that they lead no more, with readers at them.
    Deposed,
    /// One member between two reigns, with a slow disk, that dies.
    Pivot,
    /// Digests: a value flips, the odd member is fenced and rebuilt.
    Flips,
    /// `written` durability: power loss takes acknowledged items from one member at a time.
    Written,
    /// Leaders are drained; nothing else happens, and no outcome is unknown.
    Drains,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where it came from; also the seed of all later chance.
    pub seed: u64,
    /// What it is after.
    pub profile: Profile,
    /// Members at the start.
    pub members: usize,
    /// Clients.
    pub clients: u32,
    /// Probability that a message is lost.
    pub loss: f64,
    /// Probability that it comes twice.
    pub duplicates: f64,
    /// Probability that it comes late.
    pub late: f64,
    /// Whether leaders hold leases.
    pub leases: bool,
    /// Whether clocks run at different speeds.
    pub skew: bool,
    /// Whether history is collected while it runs.
    pub collect: bool,
    /// Small windows and retentions, so that their ends are met.
    pub tight: bool,
    /// When faults stop and everything must converge (microseconds).
    pub heal_at: u64,
    /// What goes wrong.
    pub faults: Vec<TimedFault>,
    /// What clients do.
    pub deeds: Vec<Deeds>,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        match seed % 8 {
            0 | 6 => Self::deposed(seed),
            3 => Self::pivot(seed),
            5 => match seed / 8 % 3 {
                0 => Self::flips(seed),
                1 => Self::written(seed),
                _ => Self::drains(seed),
            },
            _ => Self::mixed(seed),
        }
    }

    pub(crate) fn mixed(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x706c_616e);
        let members = [1, 3, 3, 3, 3, 3, 3, 5][dice.index(8)];
        let heal_at = dice.range(2_000_000, 8_000_000);
        let stormy = dice.chance(0.7);
        let mut plan = Self {
            seed,
            profile: Profile::Mixed,
            members,
            clients: u32::try_from(dice.range(2, 6)).unwrap_or(2),
            loss: if stormy { 0.08 * dice.range(0, 3) as f64 } else { 0.0 },
            duplicates: if stormy { 0.05 * dice.range(0, 3) as f64 } else { 0.0 },
            late: 0.03 * dice.range(0, 4) as f64,
            leases: dice.chance(0.3),
            skew: dice.chance(0.5),
            collect: dice.chance(0.5),
            tight: dice.chance(0.4),
            heal_at,
            faults: Vec::new(),
            deeds: Vec::new(),
        };
        plan.draw_faults(&mut dice);
        plan.draw_deeds(&mut dice);
        plan
    }

    fn draw_faults(&mut self, dice: &mut Dice) {
        for _ in 0..dice.range(0, 14) {
            let node = dice.index(self.members);
            let to = dice.index(self.members);
            let fault = match dice.range(0, 16) {
                0..=3 => Fault::Crash { node },
                4 => Fault::PowerCut,
                5 | 6 => Fault::Pause { node },
                7 | 8 => Fault::Cut { from: node, to },
                9 | 10 => Fault::Isolate { node },
                11 => Fault::SlowDisk { node },
                12 => Fault::FullDisk { node },
                13 if self.members > 1 => Fault::Wipe { node },
                _ => Fault::Nominate,
            };
            let at = dice.range(100_000, self.heal_at);
            self.faults.push(TimedFault { at, lasts: dice.range(5_000, 1_500_000), fault });
        }
        self.faults.sort_by_key(|fault| fault.at);
    }

    fn draw_deeds(&mut self, dice: &mut Dice) {
        for _ in 0..dice.range(20, 160) {
            let deed = match dice.range(0, 20) {
                0..=3 => Deed::Read(Mode::Leader),
                4..=6 => Deed::Read(Mode::Follower),
                7 => Deed::Read(Mode::Labelled),
                8 => Deed::Read(Mode::Stale),
                9..=13 => Deed::Write,
                14 => Deed::Delete,
                15..=17 => Deed::Conditional,
                18 => Deed::Pair,
                _ if dice.chance(0.2) => Deed::Clear,
                _ => Deed::Write,
            };
            self.deeds.push(Deeds {
                at: dice.range(150_000, self.heal_at),
                client: u32::try_from(dice.range(0, u64::from(self.clients))).unwrap_or(0),
                key: Key::try_from(dice.range(0, KEYS)).unwrap_or(0),
                deed,
                request_id: dice.chance(0.4),
            });
        }
        self.deeds.sort_by_key(|deed| deed.at);
    }
}
