//! The control plane, as far as a shard sees it: it names managers with fresh epochs, and changes members one at a time.

use kvorum_sync::{Epoch, Members, Membership, Register, StoreId};

use crate::dice::Dice;

/// What a node tells the control plane.
#[derive(Clone, Copy, Debug, Hash)]
pub(crate) enum Report {
    /// The leader can't be reached, or a fresh epoch is needed.
    Wants { above: u32 },
    /// A manager leads.
    Leads { epoch: u32, store: u64, boot: u64 },
}

/// The stub.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) register: Register,
    /// Where the member list should get to.
    pub(crate) target: Vec<StoreId>,
    pub(crate) leader: Option<(Epoch, StoreId)>,
    /// In which run it leads: the failure detector notices a restart.
    pub(crate) leader_boot: u64,
    pub(crate) nominated_at: u64,
    pub(crate) wanted: Option<Epoch>,
    /// Since when the leader has been seen dead.
    pub(crate) missing_since: Option<u64>,
    /// The learner that is being caught up.
    pub(crate) learner: Option<StoreId>,
}

/// The least time between two nominations, in microseconds.
const REST_MICROS: u64 = 250_000;
/// How long a manager may take to lead before another is named.
const PATIENCE_MICROS: u64 = 2_500_000;
/// How long a leader may be gone.
const ABSENCE_MICROS: u64 = 300_000;

impl Control {
    pub(crate) fn new(members: &[StoreId]) -> Self {
        Self {
            register: Register::new(Members::of(members)),
            target: members.to_vec(),
            leader: None,
            leader_boot: 0,
            nominated_at: 0,
            wanted: Some(Epoch::ZERO),
            missing_since: None,
            learner: None,
        }
    }

    pub(crate) fn hear(&mut self, report: Report) {
        match report {
            Report::Wants { above } => {
                let above = Epoch::new(above).unwrap_or(Epoch::ZERO);
                if above >= self.register.epoch() || self.leader.is_none_or(|(epoch, _)| above >= epoch) {
                    self.wanted = Some(self.wanted.map_or(above, |wanted| wanted.max(above)));
                }
            }
            Report::Leads { epoch, store, boot } => {
                let epoch = Epoch::new(epoch).unwrap_or(Epoch::ZERO);
                if self.register.led(epoch) {
                    self.leader = Some((epoch, StoreId(store)));
                    self.leader_boot = boot;
                    self.learner = None;
                    self.wanted = self.wanted.filter(|above| *above > epoch);
                }
            }
        }
    }

    /// Whether it is time to name a manager.
    pub(crate) fn is_due(&mut self, now: u64, alive: &[(StoreId, u64)]) -> bool {
        let gone = self.leader.is_none_or(|(_, store)| !alive.contains(&(store, self.leader_boot)));
        self.missing_since = if gone { self.missing_since.or(Some(now)) } else { None };
        let rested = now >= self.nominated_at + REST_MICROS || self.nominated_at == 0;
        let absent = self.missing_since.is_some_and(|since| now >= since + ABSENCE_MICROS);
        let pending = self.leader.is_none_or(|(epoch, _)| epoch < self.register.epoch());
        let slow = pending && now >= self.nominated_at + PATIENCE_MICROS;
        rested && (self.wanted.is_some() || slow || (absent && !pending))
    }

    /// The next list of members on the way to the target, if a step is to be made.
    pub(crate) fn next_step(&self) -> Option<Vec<StoreId>> {
        let current = self.register.current().as_slice().to_vec();
        if let Some(add) = self.target.iter().find(|store| !current.contains(store)) {
            return Some([current, vec![*add]].concat());
        }
        let remove = current.iter().find(|store| !self.target.contains(store))?;
        Some(current.iter().copied().filter(|store| store != remove).collect())
    }

    /// Names a manager among those alive, for these members.
    pub(crate) fn nominate(
        &mut self,
        now: u64,
        new: &[StoreId],
        alive: &[StoreId],
        dice: &mut Dice,
    ) -> Option<(StoreId, Epoch, Membership)> {
        let current = self.register.current();
        let able: Vec<StoreId> =
            new.iter().copied().filter(|store| alive.contains(store) && current.contains(*store)).collect();
        if able.is_empty() {
            return None;
        }
        // A leader with a lease keeps others from promising anything higher: to change members, it is the one to name.
        let changes = new != current.as_slice();
        let leader = self.leader.map(|(_, store)| store).filter(|store| able.contains(store));
        let manager = match leader {
            Some(leader) if changes || dice.chance(0.4) => leader,
            _ => able[dice.index(able.len())],
        };
        let (epoch, membership) =
            self.register.nominate(self.wanted.unwrap_or(Epoch::ZERO), Members::of(new)).ok()?;
        self.wanted = None;
        self.nominated_at = now;
        Some((manager, epoch, membership))
    }
}
