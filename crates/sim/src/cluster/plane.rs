//! Who names managers: a script that is quick and careless, or the planner that nodes run, with heartbeats that get lost.

use std::ops::Range;

use kvorum_cluster::rehearsal::{Heartbeat, NodeSide, Rehearsal};
use kvorum_cluster::shard::{MemberInput, MemberReport, MemberRole};
use kvorum_sync::{Epoch, Members, StoreId};

use super::{CONTROL_MICROS, Event, World};
use crate::control::{Control, Report};
use crate::plan::Plan;

const BEAT_MICROS: u64 = 150_000;
/// Between two looks of a node for what is to be repeated.
const LOOK_MICROS: u64 = 200_000;

/// The control plane of a run.
pub(super) enum Plane {
    Script(Control),
    Planner(Box<Planned>),
}

pub(super) struct Planned {
    rehearsal: Rehearsal,
    /// Who is to keep the shard.
    stores: Vec<StoreId>,
    /// The nomination that the run of a manager was told of last.
    nominated: Option<(Epoch, u64)>,
    /// The learners likewise.
    learners: Option<(Epoch, u64, Members)>,
}

impl Plane {
    /// Every third seed has the planner.
    pub(super) fn is_planner(plan: &Plan) -> bool {
        plan.seed % 3 == 2
    }

    pub(super) fn of(plan: &Plan, stores: &[StoreId]) -> Plane {
        if Plane::is_planner(plan) {
            let rehearsal = Rehearsal::new(stores);
            let stores = stores.to_vec();
            Plane::Planner(Box::new(Planned { rehearsal, stores, nominated: None, learners: None }))
        } else {
            Plane::Script(Control::new(stores))
        }
    }

    /// Whether members are still to be changed.
    pub(super) fn is_changing(&self) -> bool {
        match self {
            Plane::Script(script) => script.next_step().is_some(),
            Plane::Planner(planned) => !planned.rehearsal.is_settled(&planned.stores),
        }
    }

    fn stores(&self) -> &[StoreId] {
        match self {
            Plane::Script(script) => &script.target,
            Plane::Planner(planned) => &planned.stores,
        }
    }

    /// Whether a member may be lost for good now.
    pub(super) fn may_lose(&self, store: StoreId) -> bool {
        !self.is_changing() && self.stores().contains(&store)
    }

    /// Another store takes the place of one.
    pub(super) fn lose(&mut self, old: StoreId, fresh: StoreId) {
        let stores = match self {
            Plane::Script(script) => &mut script.target,
            Plane::Planner(planned) => &mut planned.stores,
        };
        stores.iter_mut().filter(|store| **store == old).for_each(|store| *store = fresh);
    }

    /// Something happens to the control plane itself.
    pub(super) fn disturb(&mut self) {
        match self {
            Plane::Script(script) => script.wanted = script.wanted.or(Some(script.register.epoch())),
            Plane::Planner(planned) => planned.rehearsal.change_hands(),
        }
    }
}

impl World {
    /// A node starts.
    pub(super) fn enter(&mut self, node: usize) -> NodeSide {
        let store = self.nodes[node].store_id;
        if let Plane::Planner(planned) = &mut self.plane {
            planned.rehearsal.replaces(node, store);
            let boot = self.nodes[node].boot;
            self.after(1_000, Event::Beat { node, boot });
        }
        NodeSide::new(self.dice.any())
    }

    /// A member noticed something.
    pub(super) fn noticed(&mut self, node: usize, report: MemberReport) {
        let (store, boot, now) = (self.nodes[node].store_id, self.nodes[node].boot, self.now);
        if let MemberReport::Led { epoch } = report
            && let Some(other) = self.led.insert(epoch, (store, boot))
            && other != (store, boot)
        {
            self.fail(|| format!("one leader per epoch: {epoch} was led by {other:?} and {store}"));
        }
        match self.plane {
            Plane::Script(_) => self.report(match report {
                MemberReport::Led { epoch } => Report::Leads { epoch: epoch.get(), store: store.0, boot },
                MemberReport::Wants { above, .. } => Report::Wants { above: above.get() },
                MemberReport::LeaderMissing { epoch, .. } => Report::Wants { above: epoch.get() },
            }),
            Plane::Planner(_) => {
                if let Some(up) = &mut self.nodes[node].up {
                    up.side.noticed(report, now);
                }
            }
        }
    }

    /// The script hears of a leader until it knows.
    pub(super) fn repeat_lead(&mut self, node: usize) {
        let (Plane::Script(script), Some(epoch)) = (&self.plane, self.leads(node)) else { return };
        let known = script.leader.is_some_and(|(led, _)| led >= epoch);
        if !known && (self.now / super::TICK_MICROS).is_multiple_of(32) {
            let (store, boot) = (self.nodes[node].store_id.0, self.nodes[node].boot);
            self.report(Report::Leads { epoch: epoch.get(), store, boot });
        }
    }

    /// A node sends its heartbeat to all others and to the planner.
    pub(super) fn beat(&mut self, node: usize, boot: u64) {
        if self.nodes[node].boot != boot {
            return;
        }
        self.look_around(node);
        let now = self.now;
        let (Plane::Planner(planned), Some(up)) = (&self.plane, &mut self.nodes[node].up) else { return };
        let beat = up.side.beat(&planned.rehearsal, now);
        self.after(BEAT_MICROS, Event::Beat { node, boot });
        let from = self.nodes[node].store_id;
        for to in (0..self.nodes.len()).map(Some).chain([None]) {
            let cut = match to {
                Some(to) => self.cuts.has((node, to)),
                None => self.nodes[node].unheard_until > now,
            };
            let lost = now < self.plan.heal_at && self.dice.chance(0.05 + self.plan.loss);
            if !cut && !lost {
                let delay = self.dice.range(100, 15_000);
                self.after(delay, Event::Heartbeat { from, to, beat: beat.clone() });
            }
        }
    }

    pub(super) fn heartbeat(&mut self, from: StoreId, to: Option<usize>, beat: Heartbeat) {
        let now = self.now;
        match (to, &mut self.plane) {
            (Some(to), _) => {
                if let Some(up) = &mut self.nodes[to].up {
                    up.side.hears(from, &beat, now);
                }
            }
            (None, Plane::Planner(planned)) => planned.rehearsal.hears(from, beat, now),
            (None, Plane::Script(_)) => {}
        }
    }

    /// What holds still is repeated.
    fn look_around(&mut self, node: usize) {
        let now = self.now;
        let Plane::Planner(planned) = &self.plane else { return };
        let learners = planned.rehearsal.learners();
        let Some(up) = self.nodes[node].up.as_mut().filter(|up| now >= up.looked + LOOK_MICROS) else {
            return;
        };
        up.looked = now;
        match up.member.role() {
            MemberRole::Alone { .. } => {
                up.side.leader_is_silent(up.member.promised(), up.member.checkpoint().op, now);
            }
            MemberRole::Leading { epoch } => {
                let learners = learners.iter().flat_map(Members::as_slice);
                let ready = learners.filter(|store| up.member.is_caught_up(**store));
                ready.for_each(|store| up.side.learner_is_ready(epoch, *store, now));
            }
            _ => {}
        }
    }

    /// The control plane looks after the shard.
    pub(super) fn control_turn(&mut self) {
        self.after(CONTROL_MICROS, Event::Control);
        match &mut self.plane {
            Plane::Script(_) => self.script_turn(),
            Plane::Planner(planned) => {
                planned.rehearsal.decide(self.now);
                self.tell_of_map();
            }
        }
    }

    /// A manager hears of its nomination, and of its learners, once in each of its runs.
    fn tell_of_map(&mut self) {
        let Plane::Planner(planned) = &self.plane else { return };
        let Some((epoch, manager, membership)) = planned.rehearsal.nomination() else { return };
        let learners = planned.rehearsal.learners();
        let Some(node) = self.index_of(manager).filter(|node| self.nodes[*node].up.is_some()) else { return };
        let boot = self.nodes[node].boot;
        let delay = self.dice.range(500, 20_000);
        let Plane::Planner(planned) = &mut self.plane else { return };
        let mut inputs = Vec::new();
        if planned.nominated != Some((epoch, boot)) {
            planned.nominated = Some((epoch, boot));
            inputs.push(MemberInput::Nominate { epoch, membership });
        }
        let news = learners.map(|learners| (epoch, boot, learners));
        if let Some((_, _, learners)) = &news
            && planned.learners != news
        {
            inputs.push(MemberInput::Learners(learners.clone()));
            planned.learners = news;
        }
        for input in inputs {
            self.trace.line(self.now, || format!("the map tells {manager}: {input:?}"));
            self.after(delay, Event::Input { node, boot, input });
        }
    }

    fn script_turn(&mut self) {
        let up = self.nodes.iter().filter(|node| node.up.is_some() && node.paused_until <= self.now);
        let runs: Vec<(StoreId, u64)> = up.map(|node| (node.store_id, node.boot)).collect();
        let alive: Vec<StoreId> = runs.iter().map(|(store, _)| *store).collect();
        let Plane::Script(script) = &mut self.plane else { return };
        let members = script.register.current().as_slice().to_vec();
        if script.is_due(self.now, &runs) {
            self.nominate(&members, &alive);
            return;
        }
        let Some((epoch, leader)) = script.leader else { return };
        if epoch < script.register.epoch() || !alive.contains(&leader) {
            return;
        }
        let Some(next) = script.next_step() else { return };
        let added = next.iter().copied().find(|store| !members.contains(store));
        let learner = script.learner;
        let Some(node) = self.index_of(leader) else { return };
        let is_ready = |store| self.nodes[node].up.as_ref().is_some_and(|up| up.member.is_caught_up(store));
        match added {
            None => self.nominate(&next, &alive),
            Some(added) if learner != Some(added) => self.begin_learning(node, added),
            Some(added) if is_ready(added) => self.nominate(&next, &alive),
            Some(_) => {}
        }
    }

    fn begin_learning(&mut self, leader: usize, learner: StoreId) {
        if let Plane::Script(script) = &mut self.plane {
            script.learner = Some(learner);
        }
        let boot = self.nodes[leader].boot;
        let input = MemberInput::Learners(Members::of(&[learner]));
        self.after(2_000, Event::Input { node: leader, boot, input });
    }

    fn nominate(&mut self, members: &[StoreId], alive: &[StoreId]) {
        self.nominate_after(members, alive, 500..20_000);
    }

    /// The script names one of these nodes manager. The planner sees for itself.
    pub(super) fn name_one_of(&mut self, nodes: &[usize], micros: Range<u64>) {
        let Plane::Script(script) = &self.plane else { return };
        let members = script.register.current().as_slice().to_vec();
        let stores: Vec<StoreId> = nodes.iter().map(|node| self.nodes[*node].store_id).collect();
        self.nominate_after(&members, &stores, micros);
    }

    fn nominate_after(&mut self, members: &[StoreId], alive: &[StoreId], micros: Range<u64>) {
        let Plane::Script(script) = &mut self.plane else { return };
        let named = script.nominate(self.now, members, alive, &mut self.dice);
        let Some((manager, epoch, membership)) = named else { return };
        self.trace.line(self.now, || {
            format!("the control plane names {manager} manager of {epoch} with {:?}", membership.new)
        });
        let Some(node) = self.index_of(manager) else { return };
        // One that is starting hears of it in its next run.
        let boot = self.nodes[node].boot + u64::from(self.nodes[node].up.is_none());
        let delay = self.dice.range(micros.start, micros.end);
        self.after(delay, Event::Input { node, boot, input: MemberInput::Nominate { epoch, membership } });
    }
}
