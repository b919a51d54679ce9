//! What goes wrong.

use kvorum_cluster::shard::MemberInput;
use kvorum_engine::fs::sim::SimFs;
use kvorum_sync::{StepDown, StoreId};

use super::{Event, World};
use crate::plan::Fault;

impl World {
    pub(super) fn fault(&mut self, fault: Fault, lasts: u64) {
        if self.now >= self.plan.heal_at {
            return;
        }
        self.trace.note(self.now, &format!("{fault:?}"));
        self.trace.line(self.now, || format!("FAULT {fault:?} for {:.1} ms", lasts as f64 / 1000.0));
        let until = (self.now + lasts).min(self.plan.heal_at);
        match fault {
            Fault::Crash { node } => {
                let power = self.dice.chance(0.5);
                self.crash(node, power, until);
            }
            Fault::PowerLoss { node } => self.crash(node, true, until),
            Fault::PowerCut => (0..self.nodes.len()).for_each(|node| self.crash(node, true, until)),
            Fault::Pause { node } => self.nodes[node].paused_until = until,
            Fault::Cut { from, to } if from != to => self.cut((from, to), until),
            Fault::Isolate { node } => {
                // From the control plane, too, or not.
                if self.dice.chance(0.5) {
                    self.nodes[node].unheard_until = until;
                }
                for other in (0..self.nodes.len()).filter(|other| *other != node) {
                    self.cut((node, other), until);
                    self.cut((other, node), until);
                }
            }
            Fault::SlowDisk { node } => self.nodes[node].slow_until = until,
            Fault::FullDisk { node } => {
                let fs = &self.nodes[node].fs;
                let used: u64 = fs.files().iter().map(|(_, bytes)| bytes).sum();
                fs.set_capacity(used + self.dice.range(0, 8 << 10));
                self.step(node, MemberInput::StepDown(StepDown::DiskFull));
                self.at(until, Event::Space { node });
            }
            Fault::Wipe { node } => self.wipe(node, until),
            Fault::Drain => {
                (0..self.nodes.len())
                    .for_each(|node| self.step(node, MemberInput::StepDown(StepDown::Drain)));
            }
            // Those that are after something else than the members' own work.
            Fault::Cut { .. } | Fault::Flip { .. } => {}
            Fault::Nominate => self.plane.disturb(),
            Fault::Depose { restart } => self.depose(restart, until),
            Fault::Pivot { third, both } => self.pivot(third, both, until),
        }
    }

    fn leader(&self) -> Option<usize> {
        let leads = |node: &usize| self.leads(*node);
        (0..self.nodes.len()).filter(|node| leads(node).is_some()).max_by_key(leads)
    }

    fn depose(&mut self, restart: bool, until: u64) {
        let Some(leader) = self.leader() else { return };
        let others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != leader).collect();
        for &other in &others {
            self.cut((leader, other), until);
            self.cut((other, leader), until);
            if restart {
                let soon = self.now + self.dice.range(1_000, 20_000);
                self.crash(other, true, soon);
            }
        }
        self.name_one_of(&others, if restart { 21_000..45_000 } else { 500..25_000 });
    }

    fn pivot(&mut self, third: usize, both: bool, until: u64) {
        let Some(leader) = self.leader() else { return };
        let mut others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != leader).collect();
        if others.len() < 2 {
            return;
        }
        let third = others.remove(third % others.len());
        self.cut((leader, others[0]), until);
        self.cut((others[0], leader), until);
        self.nodes[third].slow_until = self.now + 120_000;
        let dies = self.now + self.dice.range(10_000, 120_000);
        let lasts = self.dice.range(2_000, 30_000);
        self.at(dies, Event::Fault(Fault::PowerLoss { node: third }, lasts));
        if both {
            self.at(dies, Event::Fault(Fault::Crash { node: leader }, until.saturating_sub(dies)));
        }
        let patience = self.dice.range(1_000, 100_000);
        self.name_one_of(&others[..1], 500..patience);
    }

    /// Another store comes up in the place of one, on an empty device.
    fn wipe(&mut self, node: usize, until: u64) {
        let old = self.nodes[node].store_id;
        if !self.plane.may_lose(old) || self.nodes.len() < 3 || self.nodes[node].up.is_none() {
            return;
        }
        self.crash(node, true, until);
        let fresh = StoreId(self.next_store);
        self.next_store += 1;
        self.nodes[node].store_id = fresh;
        self.nodes[node].fs = SimFs::new(self.dice.any());
        self.plane.lose(old, fresh);
    }

    fn cut(&mut self, cut: (usize, usize), until: u64) {
        self.cuts.add(cut);
        self.tell_peers(cut.0, cut.1);
        self.at(until, Event::Heal { cut });
    }

    pub(super) fn heal(&mut self, cut: (usize, usize)) {
        if self.cuts.heal(cut) {
            self.tell_peers(cut.0, cut.1);
        }
    }
}
