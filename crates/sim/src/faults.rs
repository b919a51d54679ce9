//! What goes wrong, and how it ends; and what the control plane does about it.

use kvorum_sync::{Input, Members, StepDown, StoreId};

use crate::disk::Disk;
use crate::node::Payload;
use crate::plan::Fault;
use crate::server::Reply;
use crate::world::{CONTROL_MICROS, Event, World};

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
        }
    }

    fn crash(&mut self, node: usize, until: u64) {
        let queued = self.nodes[node].disk.queued() as u64;
        let kept = self.dice.range(0, queued + 1) as usize;
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
        *self.cuts.entry(cut).or_insert(0) += 1;
        self.tell_peers(cut.0, cut.1);
        self.at(until, Event::Heal { cut });
    }

    pub(crate) fn heal(&mut self, cut: (usize, usize)) {
        if let Some(count) = self.cuts.get_mut(&cut) {
            *count -= 1;
            if *count == 0 {
                self.cuts.remove(&cut);
                self.tell_peers(cut.0, cut.1);
            }
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
        let Some((manager, epoch, membership)) =
            self.control.nominate(self.now, members, alive, &mut self.dice)
        else {
            return;
        };
        self.trace.line(self.now, || {
            format!("the control plane names {manager} manager of {epoch} with {:?}", membership.new)
        });
        let Some(node) = self.index_of(manager) else { return };
        let boot = self.nodes[node].boot;
        let delay = self.dice.range(500, 20_000);
        self.after(delay, Event::Input { node, boot, input: Input::Nominate { epoch, membership } });
    }
}
