//! What goes wrong, and what the control plane does about it.

use kvorum_cluster::shard::MemberInput;
use kvorum_engine::fs::sim::SimFs;
use kvorum_sync::{Members, StepDown, StoreId};

use super::{CONTROL_MICROS, Event, World};
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
            Fault::Nominate | Fault::Depose { .. } | Fault::Pivot { .. } => {
                self.control.wanted = self.control.wanted.or(Some(self.control.register.epoch()));
            }
        }
    }

    /// Another store comes up in the place of one, on an empty device.
    fn wipe(&mut self, node: usize, until: u64) {
        let old = self.nodes[node].store_id;
        let settled = self.control.next_step().is_none() && self.control.register.current().contains(old);
        if !settled || self.nodes.len() < 3 || self.nodes[node].up.is_none() {
            return;
        }
        self.crash(node, true, until);
        let fresh = StoreId(self.next_store);
        self.next_store += 1;
        self.nodes[node].store_id = fresh;
        self.nodes[node].fs = SimFs::new(self.dice.any());
        for store in &mut self.control.target {
            if *store == old {
                *store = fresh;
            }
        }
    }

    fn cut(&mut self, cut: (usize, usize), until: u64) {
        *self.cuts.entry(cut).or_insert(0) += 1;
        self.tell_peers(cut.0, cut.1);
        self.at(until, Event::Heal { cut });
    }

    pub(super) fn heal(&mut self, cut: (usize, usize)) {
        if let Some(count) = self.cuts.get_mut(&cut) {
            *count -= 1;
            if *count == 0 {
                self.cuts.remove(&cut);
                self.tell_peers(cut.0, cut.1);
            }
        }
    }

    /// The control plane looks after the shard.
    pub(super) fn control_turn(&mut self) {
        self.after(CONTROL_MICROS, Event::Control);
        let up = self.nodes.iter().filter(|node| node.up.is_some() && node.paused_until <= self.now);
        let runs: Vec<(StoreId, u64)> = up.map(|node| (node.store_id, node.boot)).collect();
        let alive: Vec<StoreId> = runs.iter().map(|(store, _)| *store).collect();
        if self.control.is_due(self.now, &runs) {
            let members = self.control.register.current().as_slice().to_vec();
            self.nominate(&members, &alive);
            return;
        }
        let Some((epoch, leader)) = self.control.leader else { return };
        if epoch < self.control.register.epoch() || !alive.contains(&leader) {
            return;
        }
        let Some(next) = self.control.next_step() else { return };
        let added = next.iter().copied().find(|store| !self.control.register.current().contains(*store));
        let Some(node) = self.index_of(leader) else { return };
        match added {
            None => self.nominate(&next, &alive),
            Some(added) if self.control.learner != Some(added) => {
                self.control.learner = Some(added);
                let boot = self.nodes[node].boot;
                let input = MemberInput::Learners(Members::of(&[added]));
                self.after(2_000, Event::Input { node, boot, input });
            }
            Some(added) => {
                let up = self.nodes[node].up.as_ref();
                if up.is_some_and(|up| up.member.is_caught_up(added)) {
                    self.nominate(&next, &alive);
                }
            }
        }
    }

    fn nominate(&mut self, members: &[StoreId], alive: &[StoreId]) {
        let named = self.control.nominate(self.now, members, alive, &mut self.dice);
        let Some((manager, epoch, membership)) = named else { return };
        self.trace.line(self.now, || {
            format!("the control plane names {manager} manager of {epoch} with {:?}", membership.new)
        });
        let Some(node) = self.index_of(manager) else { return };
        let boot = self.nodes[node].boot;
        let delay = self.dice.range(500, 20_000);
        self.after(delay, Event::Input { node, boot, input: MemberInput::Nominate { epoch, membership } });
    }
}
