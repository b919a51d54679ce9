//! What goes wrong, and how it ends; and what the control plane does about it.

use std::ops::Range;

use kvorum_sync::{Input, Members, Standing, StepDown, StoreId};

use crate::client::Reply;
use crate::disk::Disk;
use crate::node::{Node, Payload, Process};
use crate::plan::{Fault, Profile};
use crate::world::{CONTROL_MICROS, Event, World};

/// Whether a node runs and holds all that it ever acknowledged.
fn is_sound(node: &Node) -> bool {
    let whole = |process: &Process| process.replica.standing() == Standing::Whole;
    !node.bad && !node.flips && !node.disk.cut && node.process.as_ref().is_some_and(whole)
}

impl World {
    pub(crate) fn fault(&mut self, fault: Fault, lasts: u64) {
        if self.now >= self.plan.heal_at {
            return;
        }
        self.trace.note(self.now, &format!("{fault:?}"));
        self.trace.line(self.now, || format!("FAULT {fault:?} for {:.1} ms", lasts as f64 / 1000.0));
        let until = (self.now + lasts).min(self.plan.heal_at);
        match fault {
            Fault::Crash { node } => self.crash(node, until),
            Fault::PowerCut => (0..self.nodes.len()).for_each(|node| self.crash(node, until)),
            Fault::Pause { node } => self.nodes[node].paused_until = until,
            Fault::Cut { from, to } if from != to => self.cut((from, to), until),
            Fault::Cut { .. } => {}
            Fault::Isolate { node } => {
                for other in (0..self.nodes.len()).filter(|other| *other != node) {
                    self.cut((node, other), until);
                    self.cut((other, node), until);
                }
            }
            Fault::SlowDisk { node } => self.nodes[node].slow_until = until,
            Fault::FullDisk { node } => {
                self.nodes[node].full_until = until;
                self.step(node, Input::StepDown(StepDown::DiskFull), &Payload::None);
            }
            Fault::Wipe { node } => self.wipe(node, until),
            Fault::Nominate => {
                self.control.wanted = self.control.wanted.or(Some(self.control.register.epoch()));
            }
            Fault::Depose { restart } => self.depose(restart, until),
            Fault::Pivot { third, both } => self.pivot(third, both, until),
            // One at a time: two that are wrong together may be a majority.
            Fault::Flip { node } if self.nodes.iter().all(is_sound) => self.nodes[node].flips = true,
            Fault::PowerLoss { node } if self.nodes.iter().all(is_sound) => self.power_loss(node, until),
            Fault::Flip { .. } | Fault::PowerLoss { .. } => {}
            Fault::Drain => {
                if let Some(leader) = self.leader() {
                    self.step(leader, Input::StepDown(StepDown::Drain), &Payload::None);
                }
            }
        }
    }

    /// The node that leads, as far as everybody knows.
    fn leader(&self) -> Option<usize> {
        let leads = |node: &usize| self.nodes[*node].leads();
        (0..self.nodes.len()).filter(|node| leads(node).is_some()).max_by_key(leads)
    }

    fn depose(&mut self, restart: bool, until: u64) {
        let Some(leader) = self.leader() else { return };
        for other in (0..self.nodes.len()).filter(|other| *other != leader) {
            self.cut((leader, other), until);
            self.cut((other, leader), until);
            if restart {
                let soon = self.now + self.dice.range(1_000, 20_000);
                self.crash(other, soon);
            }
        }
        let members = self.control.register.current().as_slice().to_vec();
        let old = self.nodes[leader].store;
        let others: Vec<StoreId> = members.iter().copied().filter(|store| *store != old).collect();
        let after = if restart { 21_000..45_000 } else { 500..25_000 };
        self.nominate_after(&members, &others, after);
    }

    fn pivot(&mut self, third: usize, both: bool, until: u64) {
        let Some(leader) = self.leader() else { return };
        let mut others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != leader).collect();
        let third = others.remove(third % others.len());
        let Some(second) = others.first().copied() else { return };
        self.cut((leader, second), until);
        self.cut((second, leader), until);
        self.nodes[third].slow_until = self.now + 120_000;
        let dies = self.now + self.dice.range(10_000, 120_000);
        let lasts = self.dice.range(2_000, 30_000);
        let dying = match self.plan.profile {
            Profile::Written => Fault::PowerLoss { node: third },
            _ => Fault::Crash { node: third },
        };
        self.at(dies, Event::Fault(dying, lasts));
        if both {
            self.at(dies, Event::Fault(Fault::Crash { node: leader }, until.saturating_sub(dies)));
        }
        let members = self.control.register.current().as_slice().to_vec();
        let named = [self.nodes[second].store];
        let patience = self.dice.range(1_000, 100_000);
        self.nominate_after(&members, &named, 500..patience);
    }

    fn power_loss(&mut self, node: usize, until: u64) {
        let queued = self.nodes[node].disk.queued() as u64;
        let kept = self.dice.range(0, queued + 1) as usize;
        self.die(node, kept, until);
    }

    fn crash(&mut self, node: usize, until: u64) {
        let queued = self.nodes[node].disk.queued();
        // What is written survives the process; power loss is another fault.
        let written = self.plan.profile == Profile::Written;
        let kept = if written { queued } else { self.dice.range(0, queued as u64 + 1) as usize };
        self.die(node, kept, until);
    }

    fn die(&mut self, node: usize, kept: usize, until: u64) {
        let Some(process) = self.nodes[node].process.take() else { return };
        self.nodes[node].disk.crash(kept);
        self.nodes[node].paused_until = 0;
        // Connections break: clients of this node know nothing.
        for request in process.requests.into_values() {
            self.answer(&request, Reply::Unknown);
        }
        for other in 0..self.nodes.len() {
            self.tell_peers(node, other);
        }
        self.at(until, Event::Restart { node });
    }

    fn wipe(&mut self, node: usize, until: u64) {
        // One at a time, and only where the rest is whole: more would lose what no protocol can keep.
        let old = self.nodes[node].store;
        let settled = self.control.next_step().is_none() && self.control.register.current().contains(old);
        if !settled || self.nodes.len() < 3 {
            return;
        }
        self.crash(node, until);
        let fresh = StoreId(self.next_store);
        self.next_store += 1;
        let at = &mut self.nodes[node];
        at.store = fresh;
        at.disk = Disk::default();
        for store in &mut self.control.target {
            if *store == old {
                *store = fresh;
            }
        }
    }

    fn cut(&mut self, cut: (usize, usize), until: u64) {
        self.cuts.add(cut);
        self.tell_peers(cut.0, cut.1);
        self.at(until, Event::Heal { cut });
    }

    pub(crate) fn heal(&mut self, cut: (usize, usize)) {
        if self.cuts.heal(cut) {
            self.tell_peers(cut.0, cut.1);
        }
    }

    /// The control plane looks after the shard.
    pub(crate) fn control_turn(&mut self) {
        self.after(CONTROL_MICROS, Event::Control);
        let runs = self.alive();
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
        let Some(added) = added else {
            self.nominate(&next, &alive);
            return;
        };
        if self.control.learner != Some(added) {
            self.control.learner = Some(added);
            if let Some(node) = self.index_of(leader) {
                let boot = self.nodes[node].boot;
                let input = Input::Learners(Members::of(&[added]));
                self.after(2_000, Event::Input { node, boot, input });
            }
        } else if self.is_caught_up(leader, added) {
            self.nominate(&next, &alive);
        }
    }

    fn is_caught_up(&self, leader: StoreId, learner: StoreId) -> bool {
        let replica = |store| {
            self.index_of(store).and_then(|node| self.nodes[node].process.as_ref()).map(|p| &p.replica)
        };
        let (Some(leader), Some(learner)) = (replica(leader), replica(learner)) else { return false };
        learner.epoch() == leader.epoch()
            && learner.checkpoint().op.version() + 20 >= leader.commit_point().version()
    }

    fn nominate(&mut self, members: &[StoreId], alive: &[StoreId]) {
        self.nominate_after(members, alive, 500..20_000);
    }

    fn nominate_after(&mut self, members: &[StoreId], alive: &[StoreId], micros: Range<u64>) {
        let Some((manager, epoch, membership)) =
            self.control.nominate(self.now, members, alive, &mut self.dice)
        else {
            return;
        };
        self.trace.line(self.now, || {
            format!("the control plane names {manager} manager of {epoch} with {:?}", membership.new)
        });
        let Some(node) = self.index_of(manager) else { return };
        // One that is starting hears of it in its next run.
        let boot = self.nodes[node].boot + u64::from(self.nodes[node].process.is_none());
        let delay = self.dice.range(micros.start, micros.end);
        self.after(delay, Event::Input { node, boot, input: Input::Nominate { epoch, membership } });
    }
}
