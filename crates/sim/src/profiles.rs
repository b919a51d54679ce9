//! Plans that are after one kind of trouble, which a little of everything seldom meets.

use crate::dice::Dice;
use crate::plan::{Deed, Deeds, Fault, Mode, Plan, Profile, TimedFault};
use crate::tree::Key;

/// Keys that clients touch where they should meet each other.
const FEW_KEYS: u64 = 2;

impl Plan {
    /// A quiet run of three members.
    fn quiet(seed: u64, profile: Profile, heal_at: u64) -> Self {
        Self {
            seed,
            profile,
            members: 3,
            clients: 4,
            loss: 0.0,
            duplicates: 0.0,
            late: 0.0,
            leases: false,
            skew: false,
            collect: false,
            tight: false,
            heal_at,
            faults: Vec::new(),
            deeds: Vec::new(),
        }
    }

    /// Draws what clients do: `reads` of ten are reads by the leader.
    fn busy(&mut self, dice: &mut Dice, deeds: u64, keys: u64, reads: u64) {
        for _ in 0..deeds {
            let deed = match dice.range(0, 10) {
                draw if draw < reads => Deed::Read(Mode::Leader),
                8 => Deed::Conditional,
                9 => Deed::Delete,
                _ => Deed::Write,
            };
            self.deeds.push(Deeds {
                at: dice.range(100_000, self.heal_at),
                client: u32::try_from(dice.range(0, u64::from(self.clients))).unwrap_or(0),
                key: Key::try_from(dice.range(0, keys)).unwrap_or(0),
                deed,
                request_id: dice.chance(0.3),
            });
        }
        self.deeds.sort_by_key(|deed| deed.at);
    }

    /// A fault every `gap` or so.
    fn every(&mut self, dice: &mut Dice, gap: u64, mut draw: impl FnMut(&mut Dice) -> (Fault, u64)) {
        let mut at = dice.range(200_000, 200_000 + gap);
        while at < self.heal_at {
            let (fault, lasts) = draw(dice);
            self.faults.push(TimedFault { at, lasts, fault });
            at += dice.range(gap / 2, gap * 3 / 2);
        }
    }

    pub(crate) fn deposed(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x6465_706f);
        let heal_at = dice.range(3_000_000, 6_000_000);
        let mut plan = Self::quiet(seed, Profile::Deposed, heal_at);
        plan.clients = 12;
        plan.leases = dice.chance(0.5);
        // Answers to a round that arrive when the leader is one no more: both of them late.
        plan.late = if plan.leases { 0.1 } else { 0.2 * dice.range(1, 4) as f64 };
        plan.tight = dice.chance(0.3);
        plan.every(&mut dice, 700_000, |dice| {
            (Fault::Depose { restart: dice.chance(0.5) }, dice.range(200_000, 900_000))
        });
        plan.busy(&mut dice, 500, FEW_KEYS, 5);
        plan
    }

    pub(crate) fn pivot(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x7069_766f);
        let heal_at = dice.range(3_000_000, 6_000_000);
        let mut plan = Self::quiet(seed, Profile::Pivot, heal_at);
        plan.late = 0.1 * dice.range(0, 3) as f64;
        plan.every(&mut dice, 600_000, |dice| {
            let fault = Fault::Pivot { third: dice.index(2), both: dice.chance(0.4) };
            (fault, dice.range(200_000, 700_000))
        });
        plan.busy(&mut dice, 260, 4, 2);
        plan
    }

    pub(crate) fn flips(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x666c_6970);
        let heal_at = dice.range(2_000_000, 5_000_000);
        let mut plan = Self::quiet(seed, Profile::Flips, heal_at);
        plan.members = [3, 3, 5][dice.index(3)];
        // Nobody catches up while a leader is wrong and nobody knows: whoever does, takes its digest for true.
        let members = plan.members;
        plan.every(&mut dice, 900_000, |dice| (Fault::Flip { node: dice.index(members) }, 1));
        plan.busy(&mut dice, 160, 6, 2);
        plan
    }

    pub(crate) fn written(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x7772_6974);
        let heal_at = dice.range(2_000_000, 5_000_000);
        let mut plan = Self::quiet(seed, Profile::Written, heal_at);
        plan.loss = 0.02 * dice.range(0, 3) as f64;
        plan.late = 0.03 * dice.range(0, 3) as f64;
        plan.collect = dice.chance(0.5);
        let members = plan.members;
        plan.every(&mut dice, 400_000, |dice| {
            let node = dice.index(members);
            match dice.range(0, 6) {
                0 => (Fault::SlowDisk { node }, dice.range(100_000, 800_000)),
                1 => (Fault::Crash { node }, dice.range(5_000, 300_000)),
                2 | 3 => {
                    let fault = Fault::Pivot { third: dice.index(2), both: dice.chance(0.3) };
                    (fault, dice.range(200_000, 700_000))
                }
                _ => (Fault::PowerLoss { node }, dice.range(5_000, 500_000)),
            }
        });
        plan.busy(&mut dice, 200, 5, 3);
        plan
    }

    pub(crate) fn drains(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x6472_6169);
        let heal_at = dice.range(2_000_000, 4_000_000);
        let mut plan = Self::quiet(seed, Profile::Drains, heal_at);
        plan.members = [3, 3, 5][dice.index(3)];
        plan.tight = dice.chance(0.5);
        plan.every(&mut dice, 400_000, |_| (Fault::Drain, 1));
        plan.busy(&mut dice, 200, 3, 3);
        plan
    }
}
