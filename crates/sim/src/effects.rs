//! Carrying out what the core wants: the driver of one simulated process.

use std::collections::BTreeMap;

use kvorum_sync::{
    After, Alarm, Checkpoint, Effect, Effects, Input, Message, OpId, Outcome, Record, RecordId, Standing,
};

use crate::client::{Asks, Later, Reply, Request};
use crate::control::Report;
use crate::disk::Work;
use crate::node::{Held, Payload};
use crate::plan::{Mode, Profile};
use crate::server::Verdict;
use crate::tree::Writes;
use crate::world::{Event, World};

impl World {
    /// Gives the core of a node one input and carries out what comes back.
    pub(crate) fn step(&mut self, node: usize, input: Input, payload: &Payload) {
        let moment = self.nodes[node].clock(self.now);
        self.trace.note(self.now, &(node, &input));
        let store = self.nodes[node].store;
        if !matches!(input, Input::Tick) {
            self.trace.line(self.now, || format!("{store} ← {input:?}"));
        }
        let Some(process) = &mut self.nodes[node].process else { return };
        let mut out = std::mem::take(&mut process.out);
        process.replica.step(moment, input, &mut out);
        if let Err(error) = process.replica.check() {
            self.ledger.fail(|| format!("invariant of a replica: {error}"));
        }
        self.carry_out(node, out, payload);
    }

    pub(crate) fn carry_out(&mut self, node: usize, mut out: Effects, payload: &Payload) {
        let mut shown: Option<Checkpoint> = None;
        let mut again: Vec<Input> = Vec::new();
        let effects: Vec<Effect> = out.drain().collect();
        if let Some(process) = &mut self.nodes[node].process {
            process.out = out;
        }
        for effect in effects {
            self.trace.note(self.now, &format!("{effect:?}"));
            let store = self.nodes[node].store;
            self.trace.line(self.now, || format!("{store} →   {effect:?}"));
            if let Effect::Visible { checkpoint } = effect {
                shown = Some(checkpoint);
            }
            self.effect(node, effect, payload, &mut again);
        }
        if let Some(checkpoint) = shown {
            self.show(node, checkpoint);
        }
        self.begin_sync(node);
        for input in again {
            self.step(node, input, &Payload::None);
        }
    }

    fn effect(&mut self, node: usize, effect: Effect, payload: &Payload, again: &mut Vec<Input>) {
        match effect {
            Effect::Persist { id, record, .. } => self.persist(node, id, record, payload),
            Effect::Send { to, message, after, .. } => {
                let payload = self.payload_of(node, &message);
                match after {
                    After::Durable(behind) if !self.is_durable(node, behind) => {
                        let held = Held { behind, to, message, payload };
                        if let Some(process) = &mut self.nodes[node].process {
                            process.held.push(held);
                        }
                    }
                    _ => self.send(node, to, &message, &payload),
                }
            }
            Effect::Accepted { token, op } => self.accepted(node, token, op, payload),
            Effect::Committed { first, last } => {
                for version in first.version()..=last.version() {
                    let op = OpId::from_version(version);
                    self.ledger.commit(op);
                    self.settle(node, op, Outcome::Kept);
                }
            }
            Effect::Settled { op, outcome } => self.settle(node, op, outcome),
            Effect::Lead { epoch } => {
                self.ledger.lead(epoch, &self.nodes[node]);
                let (store, boot) = (self.nodes[node].store.0, self.nodes[node].boot);
                self.report(Report::Leads { epoch: epoch.get(), store, boot });
            }
            Effect::LeaderMissing { epoch } => self.report(Report::Wants { above: epoch.get() }),
            Effect::Ask { above, .. } => self.report(Report::Wants { above: above.get() }),
            Effect::ReadPiece { .. }
            | Effect::EndServing { .. }
            | Effect::Ingest { .. }
            | Effect::DropTransfer { .. } => {
                self.transfer(node, effect, payload, again);
            }
            Effect::Refused { .. }
            | Effect::ReadReady { .. }
            | Effect::ReadAgain { .. }
            | Effect::ReadHere { .. }
            | Effect::ReadAtLeader { .. } => self.reply_of(node, effect),
            Effect::Alarm(alarm) => self.alarm(alarm),
            Effect::Deposed | Effect::Visible { .. } | Effect::Room => {}
        }
    }

    /// Only who holds what is wrong is fenced, and as long as most are right there is no doubt who that is.
    fn alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Fenced(store, op) => {
                let right = self.nodes.iter().filter(|node| node.store == store).all(|node| {
                    // The second alarm comes when it has begun anew already.
                    let standing = node.process.as_ref().map(|process| process.replica.standing());
                    !node.bad && standing == Some(Standing::Whole)
                });
                if right {
                    self.ledger
                        .fail(|| format!("digests: {store} is fenced at {op}, and nothing is wrong with it"));
                }
            }
            Alarm::Digests(op) => self.ledger.fail(|| format!("digests: no majority agrees at {op}")),
            Alarm::NoSource => {}
        }
    }

    pub(crate) fn report(&mut self, report: Report) {
        // The control plane hears late, and in a storm sometimes not at all.
        let lost = self.now < self.plan.heal_at && self.dice.chance(0.05);
        if !lost {
            let delay = self.dice.range(500, 15_000);
            self.after(delay, Event::Hears(report));
        }
    }

    fn payload_of(&self, node: usize, message: &Message) -> Payload {
        match message {
            Message::Write { item, .. } => Payload::Values(self.nodes[node].values_of(item.op)),
            Message::Piece(piece) => self.piece_of(node, piece.transfer, piece.number, piece.end.is_some()),
            _ => Payload::None,
        }
    }

    fn persist(&mut self, node: usize, id: RecordId, record: Record, payload: &Payload) {
        let at = &mut self.nodes[node];
        let mut values: BTreeMap<OpId, Writes> = BTreeMap::new();
        match &record {
            Record::Item(item) => {
                let mut writes = match payload {
                    Payload::Values(writes) => writes.clone(),
                    _ => at.values_of(item.op),
                };
                if !at.bad {
                    self.ledger.item(item.op, &writes);
                }
                let live = &at.disk.live;
                if item.op <= live.floor.min(live.durable.checkpoint.op) {
                    self.ledger.fail(|| {
                        format!("final once: {} is handed to a store whose floor has passed it", item.op)
                    });
                }
                if let Some(process) = &mut at.process {
                    process.recent.insert(item.op, writes.clone());
                }
                if self.flipping == Some(node) {
                    writes = writes.flipped();
                    (at.flips, at.bad) = (false, true);
                }
                values.insert(item.op, writes);
            }
            Record::Adopt(adoption) => {
                for item in &adoption.put {
                    let staged =
                        at.process.as_ref().and_then(|process| process.staged.get(&item.op)).cloned();
                    values.insert(item.op, staged.unwrap_or_else(|| at.values_of(item.op)));
                }
                if let Some(process) = &mut at.process {
                    process.staged.clear();
                }
            }
            Record::Rebuild => at.bad = false,
            _ => {}
        }
        at.disk.push(Work::Record { id, record, values });
    }

    fn begin_sync(&mut self, node: usize) {
        let boot = self.nodes[node].boot;
        if self.plan.profile == Profile::Written
            && let Some(upto) = self.nodes[node].disk.write()
        {
            let delay = self.dice.range(20, 200);
            self.after(delay, Event::Written { node, boot, upto });
        }
        if !self.nodes[node].disk.begin_sync() {
            return;
        }
        let slow = self.nodes[node].slow_until > self.now;
        let micros = if slow { self.dice.range(20_000, 300_000) } else { self.dice.range(100, 2_000) };
        self.after(micros, Event::Synced { node, boot });
    }

    /// What was written counts as stored, in a weaker durability class.
    pub(crate) fn written(&mut self, node: usize, boot: u64, upto: RecordId) {
        if self.nodes[node].boot != boot || self.is_paused(node, || Event::Written { node, boot, upto }) {
            return;
        }
        self.stored(node, upto);
        self.step(node, Input::Persisted { upto }, &Payload::None);
    }

    /// Sends what waited for these records.
    fn stored(&mut self, node: usize, upto: RecordId) {
        let held = match &mut self.nodes[node].process {
            Some(process) => {
                process.durable = process.durable.max(upto);
                let (ready, held) = process.held.drain(..).partition(|held| held.behind <= upto);
                process.held = held;
                ready
            }
            None => Vec::<Held>::new(),
        };
        for Held { to, message, payload, .. } in held {
            self.send(node, to, &message, &payload);
        }
    }

    /// The running fsync is done: what waited for it goes out, and the core hears of it.
    pub(crate) fn persisted(&mut self, node: usize) {
        let done = self.nodes[node].disk.end_sync();
        let mut upto = None;
        let mut inputs = Vec::new();
        for work in done {
            match work {
                Work::Record { id, .. } => upto = Some(id),
                Work::Data { transfer, number, .. } => inputs.push(Input::Ingested { transfer, number }),
            }
        }
        if let Some(upto) = upto {
            self.stored(node, upto);
            inputs.insert(0, Input::Persisted { upto });
        }
        for input in inputs {
            self.step(node, input, &Payload::None);
        }
        self.begin_sync(node);
    }

    fn show(&mut self, node: usize, checkpoint: Checkpoint) {
        let bad = self.nodes[node].bad;
        if let Some(process) = &mut self.nodes[node].process {
            process.visible = process.visible.max(checkpoint.op);
            // What is wrong on the disk is still right in memory, and others get it from there.
            if !bad {
                process.recent = process.recent.split_off(&checkpoint.op);
            }
        }
        self.ledger.visible(checkpoint, &self.nodes[node]);
    }

    fn accepted(&mut self, node: usize, token: kvorum_sync::Token, op: OpId, payload: &Payload) {
        let Payload::Values(writes) = payload else { return };
        self.ledger.item(op, writes);
        let Some(process) = &mut self.nodes[node].process else { return };
        process.recent.insert(op, writes.clone());
        process.by_op.insert(op, token);
    }

    fn settle(&mut self, node: usize, op: OpId, outcome: Outcome) {
        if outcome == Outcome::Kept {
            self.ledger.commit(op);
        }
        if let Some((request, reply)) = self.nodes[node].settled(op, outcome) {
            self.answer(&request, reply);
        }
    }

    /// Sends a reply to its client.
    pub(crate) fn answer(&mut self, request: &Request, reply: Reply) {
        let delay = self.dice.range(50, 1_000);
        self.after(delay, Event::Answers { client: request.client, attempt: request.attempt, reply });
    }

    /// A client's request arrives.
    pub(crate) fn asks(&mut self, node: usize, request: Request) {
        if self.nodes[node].process.is_none() {
            self.answer(&request, Reply::Refused { leader: None });
            return;
        }
        let again = request.clone();
        if self.is_paused(node, || Event::Client(Later::Asks { node, request: again })) {
            return;
        }
        let asked = request.clone();
        if self.nodes[node].bad && matches!(asked.asks, Asks::Read(_)) {
            // What such a machine says is nobody's promise.
            self.answer(&asked, Reply::Refused { leader: None });
            return;
        }
        match self.nodes[node].serve(self.now, request) {
            Verdict::Answer(reply) => self.answer(&asked, reply),
            Verdict::Feed(mut input, payload) => {
                self.flip_proposal(node, &mut input, &payload);
                self.step(node, input, &payload);
                self.flipping = None;
            }
        }
    }

    /// A leader's own copy changes on its way to the disk; the digest is of what is stored.
    fn flip_proposal(&mut self, node: usize, input: &mut Input, payload: &Payload) {
        let next = self.nodes[node].process.as_ref().and_then(|process| process.replica.next_op());
        if let (Input::Propose(proposal), Payload::Values(writes), Some(op)) = (input, payload, next)
            && self.nodes[node].flips
            && !writes.puts.is_empty()
        {
            self.flipping = Some(node);
            proposal.digest = writes.flipped().digest(op);
        }
    }

    /// The core says what becomes of a read or a proposal.
    fn reply_of(&mut self, node: usize, effect: Effect) {
        let token = match &effect {
            Effect::Refused { token, .. }
            | Effect::ReadReady { token }
            | Effect::ReadAgain { token }
            | Effect::ReadHere { token, .. }
            | Effect::ReadAtLeader { token, .. } => *token,
            _ => return,
        };
        let Some(process) = &mut self.nodes[node].process else { return };
        let leader = process.replica.leader();
        let Some(request) = process.requests.remove(&token) else { return };
        let reply = match effect {
            _ if self.nodes[node].bad => Reply::Refused { leader: None },
            Effect::ReadReady { .. } => request.answer.unwrap_or(Reply::Refused { leader }),
            Effect::ReadAtLeader { leader, .. } => Reply::Refused { leader },
            Effect::ReadHere { checkpoint, keys, .. } => {
                let mode = if let Asks::Read(mode) = &request.asks { *mode } else { Mode::Leader };
                let state = keys.as_slice().first().copied().unwrap_or_default();
                let read = self.nodes[node].read_here(request.key, mode, checkpoint, state);
                read.unwrap_or(Reply::Refused { leader })
            }
            _ => Reply::Refused { leader },
        };
        self.answer(&request, reply);
    }
}
