//! Whole members: the shard's member of `kvorum-cluster` over the real engine on simulated disks, its messages as bytes, its jobs late; with the
//! network, the faults and the clients of the plan. One seed is one run here, too.

mod check;
mod duties;
mod faults;
mod node;
mod plane;
mod serve;

use std::collections::BTreeMap;

use bytes::Bytes;
use kvorum_cluster::rehearsal::Heartbeat;
use kvorum_cluster::shard::{Job, MemberConfig, MemberInput};
use kvorum_sync::{Epoch, Moment, StoreId};

use crate::client::{Clients, Later, Reply, Scene};
use crate::control::Report;
use crate::dice::Dice;
use crate::linear::{Verdict, check};
use crate::plan::{Deed, Fault, Plan};
use crate::queue::{Cuts, Queue};
use crate::run::Outcome;
use crate::trace::Trace;
use check::{Seen, Times};
use node::Node;
use plane::Plane;

pub use duties::Duties;

const TICK_MICROS: u64 = 10_000;
const CONTROL_MICROS: u64 = 50_000;
const UPKEEP_MICROS: u64 = 60_000;
/// Time to converge after faults stop.
const PEACE_MICROS: u64 = 40_000_000;

/// Something that is to happen. What belongs to a process names its run, and is void for another one.
#[derive(Debug)]
enum Event {
    Arrives { from: StoreId, to: StoreId, body: Bytes },
    Tick { node: usize, boot: u64 },
    Upkeep { node: usize, boot: u64 },
    Synced { node: usize, boot: u64 },
    Job { node: usize, boot: u64, job: Box<Job> },
    Peer { node: usize, boot: u64, store: StoreId },
    Input { node: usize, boot: u64, input: MemberInput },
    Fault(Fault, u64),
    Restart { node: usize },
    Heal { cut: (usize, usize) },
    Space { node: usize },
    Control,
    Hears(Report),
    Beat { node: usize, boot: u64 },
    Heartbeat { from: StoreId, to: Option<usize>, beat: Heartbeat },
    Client(Later),
    Answers { client: u32, attempt: u64, reply: Reply },
}

/// Everything.
struct World {
    now: u64,
    plan: Plan,
    config: MemberConfig,
    duties: Duties,
    nodes: Vec<Node>,
    clients: Clients,
    plane: Plane,
    cuts: Cuts,
    led: BTreeMap<Epoch, (StoreId, u64)>,
    seen: Seen,
    times: Times,
    trace: Trace,
    dice: Dice,
    next_store: u64,
    commits: u64,
    events: u64,
    failure: Option<String>,
    queue: Queue<Event>,
}

/// The plan of a seed.
#[must_use]
pub fn plan_of(seed: u64) -> Plan {
    let mut plan = match seed % 8 {
        0 => Plan::deposed(seed),
        3 => Plan::pivot(seed),
        _ => Plan::mixed(seed),
    };
    // A clear takes the records of request ids, too: what was done before it is done again when it is tried again. So it is the one or the other.
    let clears = seed.is_multiple_of(2);
    for deed in &mut plan.deeds {
        deed.request_id &= !clears;
        if deed.deed == Deed::Clear && !clears {
            deed.deed = Deed::Delete;
        }
    }
    plan
}

/// The members' settings for a plan.
#[must_use]
pub fn config_of(plan: &Plan) -> MemberConfig {
    let mut core = crate::run::config_of(plan);
    if Plane::is_planner(plan) {
        // Nodes have no leases: the planner does not know that a leader with one keeps all others from leading.
        core.lease_micros = None;
    }
    MemberConfig {
        core,
        piece_bytes: 200,
        tombstone_micros: 500_000,
        lazy_micros: 20_000,
        ..MemberConfig::default()
    }
}

/// Runs a plan with sound members.
#[must_use]
pub fn run_plan(plan: &Plan, keep_lines: bool) -> Outcome {
    run_with(plan, config_of(plan), Duties::default(), keep_lines)
}

/// Runs a plan with other settings of the members, or nodes that don't do all that they owe them.
#[must_use]
pub fn run_with(plan: &Plan, config: MemberConfig, duties: Duties, keep_lines: bool) -> Outcome {
    let mut world = World::new(plan.clone(), config, duties);
    if keep_lines {
        world.trace.lines = Some(Vec::new());
    }
    world.begin();
    while world.failure.is_none() && world.turn(plan.heal_at) {}
    world.now = world.now.max(plan.heal_at);
    let end = plan.heal_at + PEACE_MICROS;
    let mut state = Some("nothing has happened".to_owned());
    while world.failure.is_none() && state.is_some() && world.now < end {
        let look = world.now + 100_000;
        while world.failure.is_none() && world.turn(look) {}
        world.now = look;
        state = world.has_converged();
    }
    if let Some(state) = state {
        world.fail(|| format!("convergence: {} s after the last fault {state}", PEACE_MICROS / 1_000_000));
    }
    if world.failure.is_none() {
        world.judge();
    }
    world.outcome()
}

impl World {
    fn new(plan: Plan, config: MemberConfig, duties: Duties) -> World {
        let mut dice = Dice::new(plan.seed ^ 0x636c_7573);
        let nodes: Vec<Node> =
            (0..plan.members).map(|at| Node::new(StoreId(at as u64 + 1), plan.skew, &mut dice)).collect();
        let stores: Vec<StoreId> = nodes.iter().map(|node| node.store_id).collect();
        World {
            now: 0,
            config,
            duties,
            next_store: plan.members as u64 + 1,
            nodes,
            clients: Clients::new(&plan),
            plane: Plane::of(&plan, &stores),
            cuts: Cuts::default(),
            led: BTreeMap::new(),
            seen: Seen::default(),
            times: Times::default(),
            trace: Trace::default(),
            dice,
            commits: 0,
            events: 0,
            failure: None,
            queue: Queue::new(),
            plan,
        }
    }

    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            self.start(node);
        }
        for timed in self.plan.faults.clone() {
            self.at(timed.at, Event::Fault(timed.fault, timed.lasts));
        }
        for client in 0..self.plan.clients {
            self.at(0, Event::Client(Later::Turn { client }));
        }
        self.at(1000, Event::Control);
    }

    fn outcome(mut self) -> Outcome {
        Outcome {
            hash: self.trace.hash(),
            failure: self.failure.clone(),
            events: self.events,
            commits: self.commits,
            reigns: self.led.len() as u64,
            operations: self.clients.history.len(),
            micros: self.now,
            lines: self.trace.lines.take().unwrap_or_default(),
        }
    }

    fn judge(&mut self) {
        match check(&self.clients.history) {
            Verdict::Linearizable => {}
            Verdict::Violated { key, operations } => {
                let lines: Vec<String> =
                    operations.iter().map(|operation| format!("  {operation:?}")).collect();
                self.fail(|| format!("linearizability: no order explains key {key}:\n{}", lines.join("\n")));
            }
            Verdict::TooLarge { key } => {
                self.fail(|| format!("the history of key {key} is too large to check"));
            }
        }
    }

    fn fail(&mut self, text: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(text());
        }
    }

    fn at(&mut self, time: u64, event: Event) {
        self.queue.add(time.max(self.now), event);
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.at(self.now + micros, event);
    }

    /// What the monotonic clock of a node says.
    fn moment(&self, node: usize) -> Moment {
        Moment(1_000_000 + self.now * self.nodes[node].speed / 1000)
    }

    /// What its wall clock says, in milliseconds: another one after each start, where clocks differ.
    fn wall_ms(&self, node: usize) -> u64 {
        self.moment(node).0 / 1000 + self.nodes[node].ahead_ms
    }

    fn turn(&mut self, until: u64) -> bool {
        let Some((time, event)) = self.queue.next(until) else { return false };
        self.now = time;
        self.events += 1;
        self.happen(event);
        true
    }

    /// The node whose process an event is for: events wait for one that is paused.
    fn node_of(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Arrives { to, .. } => self.index_of(*to),
            Event::Heartbeat { to, .. } => *to,
            Event::Tick { node, .. }
            | Event::Beat { node, .. }
            | Event::Upkeep { node, .. }
            | Event::Synced { node, .. }
            | Event::Job { node, .. }
            | Event::Peer { node, .. }
            | Event::Input { node, .. }
            | Event::Client(Later::Asks { node, .. }) => Some(*node),
            _ => None,
        }
    }

    fn happen(&mut self, event: Event) {
        if let Some(node) = self.node_of(&event)
            && self.nodes[node].paused_until > self.now
        {
            self.at(self.nodes[node].paused_until, event);
            return;
        }
        match event {
            Event::Arrives { from, to, body } => self.arrives(from, to, &body),
            Event::Tick { node, boot } => self.tick(node, boot),
            Event::Upkeep { node, boot } => self.upkeep(node, boot),
            Event::Synced { node, boot } => self.synced(node, boot),
            Event::Job { node, boot, job } => self.job(node, boot, *job),
            Event::Peer { node, boot, store } => {
                let reachable = self.index_of(store).is_some_and(|peer| self.are_linked(node, peer));
                self.input(node, boot, MemberInput::Peer { store, reachable });
            }
            Event::Input { node, boot, input } => self.input(node, boot, input),
            Event::Fault(fault, lasts) => self.fault(fault, lasts),
            Event::Restart { node } => self.start(node),
            Event::Heal { cut } => self.heal(cut),
            Event::Space { node } => self.nodes[node].fs.set_capacity(u64::MAX / 2),
            Event::Control => self.control_turn(),
            Event::Hears(report) => {
                if let Plane::Script(script) = &mut self.plane {
                    script.hear(report);
                }
            }
            Event::Beat { node, boot } => self.beat(node, boot),
            Event::Heartbeat { from, to, beat } => self.heartbeat(from, to, beat),
            Event::Client(Later::Asks { node, request }) => self.asks(node, request),
            Event::Client(later) => self.with_clients(|all, scene| all.go_on(&later, scene)),
            Event::Answers { client, attempt, reply } => {
                self.with_clients(|all, scene| all.answers(client, attempt, reply, scene));
            }
        }
    }

    fn with_clients(&mut self, act: impl FnOnce(&mut Clients, &mut Scene<'_>)) {
        let mut scene = Scene {
            now: self.now,
            dice: &mut self.dice,
            trace: &mut self.trace,
            stores: self.nodes.iter().map(|node| node.store_id).collect(),
            later: Vec::new(),
            may_be_absent: &|_, _| true,
            failure: None,
        };
        act(&mut self.clients, &mut scene);
        let Scene { later, failure, .. } = scene;
        for (time, later) in later {
            self.at(time, Event::Client(later));
        }
        if let Some(failure) = failure {
            self.fail(|| failure);
        }
    }

    fn index_of(&self, store: StoreId) -> Option<usize> {
        self.nodes.iter().position(|node| node.store_id == store)
    }

    fn are_linked(&self, node: usize, peer: usize) -> bool {
        self.nodes[peer].up.is_some() && !self.cuts.part(node, peer)
    }

    fn tell_peers(&mut self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            let reachable = self.are_linked(node, peer);
            if node != peer && self.nodes[node].up.is_some() && (reachable || self.dice.chance(0.7)) {
                let (boot, store) = (self.nodes[node].boot, self.nodes[peer].store_id);
                let delay = self.dice.range(1_000, 60_000);
                self.after(delay, Event::Peer { node, boot, store });
            }
        }
    }

    /// Puts a message on the network.
    fn send(&mut self, from: usize, to: StoreId, body: &Bytes) {
        let Some(at) = self.index_of(to) else { return };
        let from_store = self.nodes[from].store_id;
        self.trace.note(self.now, &(from, to, body.as_ref()));
        for delay in self.cuts.flights((from, at), self.now, &self.plan, &mut self.dice) {
            self.after(delay, Event::Arrives { from: from_store, to, body: body.clone() });
        }
    }

    fn report(&mut self, report: Report) {
        let lost = self.now < self.plan.heal_at && self.dice.chance(0.05);
        if !lost {
            let delay = self.dice.range(500, 15_000);
            self.after(delay, Event::Hears(report));
        }
    }
}
