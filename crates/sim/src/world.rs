//! The world: virtual time, the queue of what is to happen, the network between the nodes.

use kvorum_sync::{Config, Epoch, Input, Message, OpId, RecordId, StoreId};

use crate::client::{Clients, Later, Reply, Scene};
use crate::control::{Control, Report};
use crate::dice::Dice;
use crate::ledger::Ledger;
use crate::node::{Node, Payload};
use crate::plan::{Fault, Plan};
use crate::queue::{Cuts, Queue};
use crate::trace::Trace;

/// Between two ticks of a process.
const TICK_MICROS: u64 = 10_000;
/// Between two looks of the control plane.
pub(crate) const CONTROL_MICROS: u64 = 50_000;

/// Something that is to happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Arrives {
        from: StoreId,
        to: StoreId,
        message: Message,
        payload: Payload,
    },
    Tick {
        node: usize,
        boot: u64,
    },
    Synced {
        node: usize,
        boot: u64,
    },
    Peer {
        node: usize,
        boot: u64,
        store: StoreId,
    },
    Input {
        node: usize,
        boot: u64,
        input: Input,
    },
    Fault(Fault, u64),
    Restart {
        node: usize,
    },
    Heal {
        cut: (usize, usize),
    },
    /// With `written` durability: records up to this one are in the log, though not synced.
    Written {
        node: usize,
        boot: u64,
        upto: RecordId,
    },
    Control,
    Hears(Report),
    Collect,
    Client(Later),
    Answers {
        client: u32,
        attempt: u64,
        reply: Reply,
    },
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) plan: Plan,
    pub(crate) config: Config,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Clients,
    pub(crate) control: Control,
    pub(crate) cuts: Cuts,
    pub(crate) ledger: Ledger,
    pub(crate) trace: Trace,
    pub(crate) dice: Dice,
    pub(crate) next_store: u64,
    pub(crate) events: u64,
    /// A node at which the value that is being stored changes.
    pub(crate) flipping: Option<usize>,
    queue: Queue<Event>,
}

impl World {
    pub(crate) fn new(plan: Plan, config: Config) -> Self {
        let mut dice = Dice::new(plan.seed);
        let nodes: Vec<Node> = (0..plan.members)
            .map(|at| {
                let speed = if plan.skew { dice.range(960, 1041) } else { 1000 };
                Node::new(StoreId(at as u64 + 1), speed, dice.range(0, 5_000_000))
            })
            .collect();
        let stores: Vec<StoreId> = nodes.iter().map(|node| node.store).collect();
        let mut world = Self {
            now: 0,
            config,
            next_store: plan.members as u64 + 1,
            nodes,
            clients: Clients::new(&plan),
            control: Control::new(&stores),
            cuts: Cuts::default(),
            ledger: Ledger::default(),
            trace: Trace::default(),
            dice,
            events: 0,
            flipping: None,
            queue: Queue::new(),
            plan,
        };
        for node in 0..world.nodes.len() {
            world.start(node);
        }
        for timed in world.plan.faults.clone() {
            world.at(timed.at, Event::Fault(timed.fault, timed.lasts));
        }
        for client in 0..world.plan.clients {
            world.at(0, Event::Client(Later::Turn { client }));
        }
        world.at(1000, Event::Control);
        if world.plan.collect {
            world.at(200_000, Event::Collect);
        }
        world
    }

    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.queue.add(time.max(self.now), event);
    }

    pub(crate) fn after(&mut self, micros: u64, event: Event) {
        self.at(self.now + micros, event);
    }

    /// Lets happen what is next; false when it lies beyond `until`.
    pub(crate) fn turn(&mut self, until: u64) -> bool {
        let Some((time, event)) = self.queue.next(until) else { return false };
        self.now = time;
        self.events += 1;
        self.happen(event);
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives { from, to, message, payload } => self.arrives(from, to, message, &payload),
            Event::Tick { node, boot } => self.tick(node, boot),
            Event::Synced { node, boot } => self.synced(node, boot),
            Event::Written { node, boot, upto } => self.written(node, boot, upto),
            Event::Peer { node, boot, store } => {
                // What is so now: of several notices only the last one's truth counts.
                let reachable = self.index_of(store).is_some_and(|peer| self.are_linked(node, peer));
                let input = Input::Peer { store, reachable };
                self.deliver(node, boot, Event::Peer { node, boot, store }, input);
            }
            Event::Input { node, boot, input } => {
                self.deliver(node, boot, Event::Input { node, boot, input: input.clone() }, input);
            }
            Event::Fault(fault, lasts) => self.fault(fault, lasts),
            Event::Restart { node } => self.start(node),
            Event::Heal { cut } => self.heal(cut),
            Event::Control => self.control_turn(),
            Event::Hears(report) => self.control.hear(report),
            Event::Collect => self.collect(),
            Event::Client(Later::Asks { node, request }) => self.asks(node, request),
            Event::Client(later) => self.with_clients(|all, scene| all.go_on(&later, scene)),
            Event::Answers { client, attempt, reply } => {
                self.with_clients(|all, scene| all.answers(client, attempt, reply, scene));
            }
        }
    }

    fn with_clients(&mut self, act: impl FnOnce(&mut Clients, &mut Scene<'_>)) {
        let ledger = &self.ledger;
        let may_be_absent = |key, since| ledger.may_be_absent(key, since, OpId::MAX);
        let mut scene = Scene {
            now: self.now,
            dice: &mut self.dice,
            trace: &mut self.trace,
            stores: self.nodes.iter().map(|node| node.store).collect(),
            later: Vec::new(),
            may_be_absent: &may_be_absent,
            failure: None,
        };
        act(&mut self.clients, &mut scene);
        let Scene { later, failure, .. } = scene;
        for (time, later) in later {
            self.at(time, Event::Client(later));
        }
        if let Some(failure) = failure {
            self.ledger.fail(|| failure);
        }
    }

    /// A process that is paused takes nothing: the event waits for it.
    pub(crate) fn is_paused(&mut self, node: usize, event: impl FnOnce() -> Event) -> bool {
        let until = self.nodes[node].paused_until;
        let paused = until > self.now;
        if paused {
            self.at(until, event());
        }
        paused
    }

    fn deliver(&mut self, node: usize, boot: u64, event: Event, input: Input) {
        if self.nodes[node].boot == boot && !self.is_paused(node, || event) {
            self.step(node, input, &Payload::None);
        }
    }

    pub(crate) fn index_of(&self, store: StoreId) -> Option<usize> {
        self.nodes.iter().position(|node| node.store == store)
    }

    /// Puts a message on the network.
    pub(crate) fn send(&mut self, from: usize, to: StoreId, message: &Message, payload: &Payload) {
        let Some(at) = self.index_of(to) else { return };
        let store = self.nodes[from].store;
        for delay in self.cuts.flights((from, at), self.now, &self.plan, &mut self.dice) {
            let event =
                Event::Arrives { from: store, to, message: message.clone(), payload: payload.clone() };
            self.after(delay, event);
        }
    }

    fn arrives(&mut self, from: StoreId, to: StoreId, message: Message, payload: &Payload) {
        let Some(node) = self.index_of(to) else { return };
        if self.nodes[node].process.is_none() {
            return;
        }
        let again = || Event::Arrives { from, to, message: message.clone(), payload: payload.clone() };
        if self.is_paused(node, again) {
            return;
        }
        let message = self.as_stored(node, message, payload);
        self.step(node, Input::Message { from, message }, payload);
        self.flipping = None;
    }

    /// A follower computes the digest over what it is about to store, not over what it was told.
    fn as_stored(&mut self, node: usize, mut message: Message, payload: &Payload) -> Message {
        if let (Message::Write { item, .. }, Payload::Values(writes)) = (&mut message, payload) {
            self.ledger.item(item.op, writes);
            item.digest = if self.nodes[node].flips && !writes.puts.is_empty() {
                self.flipping = Some(node);
                writes.flipped().digest(item.op)
            } else {
                writes.digest(item.op)
            };
        }
        message
    }

    fn tick(&mut self, node: usize, boot: u64) {
        if self.nodes[node].boot != boot || self.nodes[node].process.is_none() {
            return;
        }
        if self.is_paused(node, || Event::Tick { node, boot }) {
            return;
        }
        self.after(TICK_MICROS, Event::Tick { node, boot });
        self.repeat_lead(node);
        let moment = self.nodes[node].clock(self.now);
        let asks_age =
            self.plan.deeds.iter().any(|deed| deed.deed == crate::plan::Deed::Read(crate::plan::Mode::Stale));
        let Some(process) = &mut self.nodes[node].process else { return };
        if asks_age && (self.now / TICK_MICROS).is_multiple_of(8) {
            let mut out = std::mem::take(&mut process.out);
            process.replica.refresh_age(moment, &mut out);
            self.carry_out(node, out, &Payload::None);
        }
        let idle = self.nodes[node].process.as_ref().is_some_and(|process| process.replica.is_idle());
        if !idle {
            self.step(node, Input::Tick, &Payload::None);
        }
    }

    /// A leader tells the control plane that it leads until that is known there: under a lease nobody else could ever take over from it.
    fn repeat_lead(&mut self, node: usize) {
        let Some(epoch) = self.nodes[node].leads() else { return };
        let (store, boot) = (self.nodes[node].store, self.nodes[node].boot);
        let known = self.control.leader.is_some_and(|(led, _)| led >= epoch);
        if !known && (self.now / TICK_MICROS).is_multiple_of(32) {
            self.report(Report::Leads { epoch: epoch.get(), store: store.0, boot });
        }
    }

    fn synced(&mut self, node: usize, boot: u64) {
        if self.nodes[node].boot != boot {
            return;
        }
        let full = self.nodes[node].full_until;
        if full > self.now {
            self.at(full, Event::Synced { node, boot });
            return;
        }
        if self.is_paused(node, || Event::Synced { node, boot }) {
            return;
        }
        self.persisted(node);
    }

    fn are_linked(&self, node: usize, peer: usize) -> bool {
        self.nodes[peer].process.is_some() && !self.cuts.part(node, peer)
    }

    /// Tells both ends of a pair whether they reach each other, after the time that noticing takes.
    pub(crate) fn tell_peers(&mut self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            let reachable = self.are_linked(node, peer);
            if node != peer && self.nodes[node].process.is_some() && (reachable || self.dice.chance(0.7)) {
                let (boot, store) = (self.nodes[node].boot, self.nodes[peer].store);
                let delay = self.dice.range(1_000, 60_000);
                self.after(delay, Event::Peer { node, boot, store });
            }
        }
    }

    /// Starts the process of a node over what its disk has.
    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        let nonce = self.dice.any();
        let (now, config) = (self.now, self.config.clone());
        self.nodes[node].start(now, nonce, config);
        let (boot, store) = (self.nodes[node].boot, self.nodes[node].store);
        self.trace.line(self.now, || format!("{store} starts (run {boot})"));
        let out = self.nodes[node].process.as_mut().map(|process| std::mem::take(&mut process.out));
        self.carry_out(node, out.unwrap_or_default(), &Payload::None);
        // The last transfer may have brought items in part: nothing below is given out one by one.
        let image = &self.nodes[node].disk.live;
        let floor = image.floor.max(image.durable.checkpoint.op);
        self.step(node, Input::Floors { floor, gc_floor: image.gc_floor }, &Payload::None);
        self.after(TICK_MICROS, Event::Tick { node, boot });
        for other in 0..self.nodes.len() {
            self.tell_peers(node, other);
        }
    }

    fn collect(&mut self) {
        self.after(150_000, Event::Collect);
        for node in 0..self.nodes.len() {
            if !self.dice.chance(0.5) {
                continue;
            }
            let Some(process) = &self.nodes[node].process else { continue };
            let floor = process.replica.floor_limit();
            self.nodes[node].disk.collect(floor);
            let floors = self.nodes[node].floors();
            self.step(node, floors, &Payload::None);
        }
    }

    /// Stores of the nodes whose process runs and is not paused, and which run it is.
    pub(crate) fn alive(&self) -> Vec<(StoreId, u64)> {
        let up = self.nodes.iter().filter(|node| node.process.is_some() && node.paused_until <= self.now);
        up.map(|node| (node.store, node.boot)).collect()
    }

    /// Whether everything that had to come has come: one leader, everybody at its end, all members as wanted, all clients done.
    pub(crate) fn has_converged(&self) -> Option<String> {
        let leaders: Vec<&Node> = self.nodes.iter().filter(|node| node.leads().is_some()).collect();
        let highest: Option<&Node> =
            leaders.into_iter().max_by_key(|node| node.leads().unwrap_or(Epoch::ZERO));
        let Some(leader) = highest.and_then(|node| node.process.as_ref()) else {
            return Some("nobody leads".into());
        };
        let end = leader.replica.commit_point();
        if !leader.replica.pending().is_empty() {
            return Some("the leader has pending items".into());
        }
        for node in &self.nodes {
            let Some(process) = &node.process else { return Some(format!("{} does not run", node.store)) };
            let at = process.replica.checkpoint().op;
            if at != end {
                return Some(format!("{} stands at {at} of {end}", node.store));
            }
            if node.bad {
                return Some(format!("digests: {} holds what is wrong, and nobody noticed", node.store));
            }
            if process.replica.standing() != kvorum_sync::Standing::Whole {
                return Some(format!("{} is being rebuilt", node.store));
            }
        }
        if self.control.next_step().is_some() {
            return Some("members are still to be changed".into());
        }
        self.clients.busy().map(|client| format!("client {client} waits"))
    }

    pub(crate) fn is_durable(&self, node: usize, record: RecordId) -> bool {
        self.nodes[node].process.as_ref().is_some_and(|process| process.durable >= record)
    }
}
