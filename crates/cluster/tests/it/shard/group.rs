//! Three members over three simulated machines, a network that loses, repeats and overtakes, and a control plane of a few lines. All from one seed.

use super::client::Client;
use super::node::{Node, SHARD};
use bytes::Bytes;
use kvorum_cluster::shard::{Done, Draft, Member, MemberInput, MemberReport, Outbox, wire};
use kvorum_engine::{Batch, Durability};
use kvorum_sync::{Alarm, Epoch, Holders, Members, Message, Moment, OpId, Register, StoreId, Token, Way};
use std::collections::BTreeMap;

/// What a run met, so that a test can tell that it met anything at all.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Met {
    pub(crate) items: usize,
    pub(crate) delta: usize,
    pub(crate) files: usize,
    pub(crate) installed: usize,
    pub(crate) committed: usize,
    pub(crate) cancelled: usize,
    pub(crate) replaced: usize,
    pub(crate) restarts_while_receiving: usize,
    pub(crate) fenced: usize,
}

pub(crate) struct Group {
    pub(crate) dice: fastrand::Rng,
    pub(crate) now: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) client: Client,
    pub(crate) met: Met,
    pub(crate) healed: bool,
    /// What goes to this member is not what the leader wrote, once.
    pub(crate) spoils: Option<StoreId>,
    /// By the moment of arrival.
    packets: BTreeMap<(u64, u64), (StoreId, StoreId, Bytes)>,
    drawn: u64,
    register: Register,
    pub(crate) target: Vec<StoreId>,
    /// Answers to those who asked who holds an item.
    pub(crate) held: Vec<(Token, Holders)>,
    leader: Option<(Epoch, StoreId)>,
    wanted: Option<Epoch>,
    nominated_at: u64,
}

impl Group {
    pub(crate) fn new(seed: u64) -> Group {
        let nodes = [11, 12, 13].map(|id| Node::new(StoreId(id), seed ^ id)).into();
        Group::of(seed, nodes, 3, Client::default())
    }

    /// A group of the first ones of some machines, which the others are to join.
    pub(crate) fn of(seed: u64, nodes: Vec<Node>, members: usize, client: Client) -> Group {
        let ids: Vec<StoreId> = nodes.iter().map(|node| node.id).collect();
        let mut group = Group {
            dice: fastrand::Rng::with_seed(seed),
            now: 1_000_000,
            nodes,
            client,
            met: Met::default(),
            healed: false,
            spoils: None,
            packets: BTreeMap::new(),
            drawn: 0,
            register: Register::new(Members::of(&ids[..members])),
            target: ids,
            held: Vec::new(),
            leader: None,
            wanted: Some(Epoch::ZERO),
            nominated_at: 0,
        };
        (0..group.nodes.len()).for_each(|at| group.start(at));
        group
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    pub(crate) fn start(&mut self, at: usize) {
        let nonce = self.draw();
        let mut out = Outbox::default();
        self.nodes[at].start(self.now, nonce, &mut out);
        self.carry_out(at, out);
        let id = self.nodes[at].id;
        self.tell_reachable(id, true);
        let others: Vec<StoreId> =
            self.nodes.iter().filter(|node| node.process.is_some()).map(|node| node.id).collect();
        for store in others.into_iter().filter(|store| *store != id) {
            self.step(at, MemberInput::Peer { store, reachable: true });
        }
    }

    pub(crate) fn crash(&mut self, at: usize, power: bool, micros: u64) {
        if self.nodes[at].member().is_some_and(|member| member.status().receiving) {
            self.met.restarts_while_receiving += 1;
        }
        let id = self.nodes[at].id;
        self.client.lose(id);
        self.nodes[at].crash(power, self.now + micros);
        if self.leader.is_some_and(|(_, leader)| leader == id) {
            self.leader = None;
        }
        self.tell_reachable(id, false);
    }

    fn tell_reachable(&mut self, store: StoreId, reachable: bool) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].id != store {
                self.step(at, MemberInput::Peer { store, reachable });
            }
        }
    }

    /// A disk is lost: the machine comes back as another store, which takes the old one's place once it is caught up.
    pub(crate) fn wipe(&mut self, at: usize) {
        let old = self.nodes[at].id;
        self.crash(at, true, 0);
        let id = StoreId(100 + self.draw());
        let fresh = Node::new(id, self.dice.u64(..));
        self.nodes[at] = fresh;
        self.target.retain(|store| *store != old);
        self.target.push(id);
        self.met.replaced += 1;
        self.start(at);
    }

    pub(crate) fn is_changing(&self) -> bool {
        let current = self.register.current();
        current.as_slice() != Members::of(&self.target).as_slice()
    }

    fn at(&self, store: StoreId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == store && node.process.is_some())
    }

    pub(crate) fn leading(&self) -> Option<usize> {
        let leads = |node: &&Node| node.member().is_some_and(Member::leads);
        let best = self.nodes.iter().filter(leads).max_by_key(|node| node.member().map(Member::promised))?;
        self.at(best.id)
    }

    pub(crate) fn step(&mut self, at: usize, input: MemberInput) {
        let Some(process) = &mut self.nodes[at].process else { return };
        let mut out = Outbox::default();
        process.member.step(Moment(self.now), input, &mut out);
        self.carry_out(at, out);
    }

    fn carry_out(&mut self, at: usize, out: Outbox) {
        assert!(out.halted.is_none(), "{} stands still: {:?}", self.nodes[at].id, out.halted);
        let from = self.nodes[at].id;
        self.met.fenced += out.alarms.iter().filter(|alarm| matches!(alarm, Alarm::Fenced(..))).count();
        for mut send in out.sends {
            self.count(&send.message.message);
            if matches!(send.message.message, Message::Write { .. })
                && self.spoils.take_if(|to| *to == send.to).is_some()
            {
                send.message.payload = Bytes::from_static(b"\x00\x01\x00\x06\x10key-0\x07spoiled");
            }
            let mut body = Vec::new();
            wire::encode(SHARD, &send.message, &mut body);
            self.post(from, send.to, &body.into());
        }
        self.met.installed += usize::from(out.tree.is_some());
        for (token, done) in out.done {
            self.met.committed += usize::from(done == Done::Committed);
            self.met.cancelled += usize::from(done == Done::Cancelled);
            match done {
                Done::Held(holders) => self.held.push((token, holders)),
                done => self.client.done(token, &done),
            }
        }
        for report in out.reports {
            self.hear(from, report);
        }
        if let Some(process) = &mut self.nodes[at].process {
            process.wants_sync |= out.written.is_some();
            process.jobs.extend(out.jobs);
        }
    }

    fn count(&mut self, message: &Message) {
        if let Message::Piece(piece) = message {
            match piece.way {
                Way::Items => self.met.items += 1,
                Way::Delta => self.met.delta += 1,
                Way::Files => self.met.files += 1,
            }
        }
    }

    fn post(&mut self, from: StoreId, to: StoreId, body: &Bytes) {
        let copies = match self.dice.u8(..100) {
            0..6 if !self.healed => 0,
            6..9 if !self.healed => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let at = self.now + self.dice.u64(50..2500);
            let number = self.draw();
            self.packets.insert((at, number), (from, to, body.clone()));
        }
    }

    fn hear(&mut self, from: StoreId, report: MemberReport) {
        match report {
            MemberReport::Led { epoch } => {
                if self.register.led(epoch) {
                    self.leader = Some((epoch, from));
                    self.wanted = self.wanted.filter(|above| *above > epoch);
                }
            }
            MemberReport::Wants { above, .. } | MemberReport::LeaderMissing { epoch: above, .. } => {
                if above >= self.register.epoch() {
                    self.wanted = self.wanted.max(Some(above));
                }
            }
        }
    }

    /// One moment passes.
    pub(crate) fn turn(&mut self) {
        self.now += self.dice.u64(50..400);
        while let Some(entry) = self.packets.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, body) = entry.remove();
            if let Some(at) = self.at(to) {
                let (shard, message) = wire::decode(&body).unwrap();
                assert_eq!(shard, SHARD);
                self.step(at, MemberInput::Message { from, message });
            }
        }
        for at in 0..self.nodes.len() {
            self.turn_of(at);
        }
        self.control();
    }

    fn turn_of(&mut self, at: usize) {
        let now = self.now;
        let hurry = if self.healed { 2 } else { 6 };
        let (syncs, works, keeps) =
            (self.dice.u32(..hurry) == 0, self.dice.u32(..hurry) == 0, self.dice.u32(..20) == 0);
        let node = &mut self.nodes[at];
        let Some(process) = &mut node.process else {
            if node.down_until <= now {
                self.start(at);
            }
            return;
        };
        let ticks = process.next_tick <= now;
        if ticks {
            process.next_tick = now + 2_000;
        }
        if keeps {
            process.store.run_background().unwrap();
        }
        let mut inputs = Vec::new();
        if syncs && process.wants_sync {
            inputs.push(MemberInput::Durable(process.sync()));
        }
        if works && let Some(job) = process.jobs.pop_front() {
            inputs.push(MemberInput::JobDone(Box::new(job.run(&process.store))));
        }
        if ticks {
            inputs.push(MemberInput::Tick);
        }
        if process.next_upkeep <= now {
            process.next_upkeep = now + 20_000;
            let mut out = Outbox::default();
            process.member.upkeep(Moment(now), 40_000, &mut out).unwrap();
            self.carry_out(at, out);
        }
        inputs.into_iter().for_each(|input| self.step(at, input));
    }

    fn control(&mut self) {
        let is_led = self.leader.is_some_and(|(epoch, _)| epoch == self.register.epoch());
        let learner = self.target.iter().copied().find(|store| !self.register.current().contains(*store));
        let leading = self.leading();
        let mut new = self.register.current().as_slice().to_vec();
        let mut changes = false;
        if is_led && let Some(leading) = leading {
            if let Some(learner) = learner {
                let member = self.nodes[leading].member();
                if member.is_some_and(|member| member.is_caught_up(learner)) {
                    new.push(learner);
                    changes = true;
                } else if self.now.is_multiple_of(16) {
                    self.step(leading, MemberInput::Learners(Members::of(&[learner])));
                }
            } else if let Some(gone) = new.iter().copied().find(|store| !self.target.contains(store)) {
                new.retain(|store| *store != gone);
                changes = true;
            }
        }
        let patience = if is_led { u64::MAX } else { 500_000 };
        let waited = self.now - self.nominated_at;
        if waited < 120_000 || !(changes || self.wanted.is_some() || waited >= patience) {
            return;
        }
        let able: Vec<StoreId> = self
            .register
            .current()
            .as_slice()
            .iter()
            .copied()
            .filter(|s| self.at(*s).is_some() && new.contains(s))
            .collect();
        let Some(manager) = self.dice.choice(&able).copied() else { return };
        let manager =
            leading.map(|at| self.nodes[at].id).filter(|id| changes && able.contains(id)).unwrap_or(manager);
        let above = self.wanted.take().unwrap_or(Epoch::ZERO);
        let (epoch, membership) = self.register.nominate(above, Members::of(&new)).unwrap();
        self.nominated_at = self.now;
        if let Some(at) = self.at(manager) {
            self.step(at, MemberInput::Nominate { epoch, membership });
        }
    }

    /// Asks for a change of leader.
    pub(crate) fn unsettle(&mut self) {
        self.wanted = self.wanted.max(Some(self.register.epoch()));
    }

    /// The client writes at the leader: a few items in one batch.
    pub(crate) fn write(&mut self) {
        let Some(at) = self.leading() else { return };
        let leader = self.nodes[at].id;
        let Some(process) = &mut self.nodes[at].process else { return };
        let mut batch = Batch::new();
        let mut out = Outbox::default();
        let items = self.dice.usize(1..4);
        for _ in 0..items {
            if process.member.room().is_err() || process.store.admission().is_err() {
                break;
            }
            let (token, written, writes) = self.client.draw(&mut self.dice, leader);
            let draft = Draft { token: Some(token), wall_ms: self.now / 1000, writes, ..Draft::default() };
            let Ok(op) = process.member.propose(Moment(self.now), draft, &mut batch, &mut out) else { break };
            self.client.proposed(op, token, written);
        }
        if !batch.is_empty() {
            let commit = process.store.write_admitted(&batch, Durability::Synced).unwrap();
            process.member.stored(commit.sequence(), &mut out);
        }
        self.carry_out(at, out);
    }

    /// Asks the leader who holds an item, once as many do as are wanted, or by a moment.
    pub(crate) fn watch(&mut self, token: Token, op: OpId, others: usize, until: u64) {
        let at = self.leading().unwrap();
        let mut out = Outbox::default();
        let wanted = Holders { leader: true, others };
        let member = &mut self.nodes[at].process.as_mut().unwrap().member;
        member.watch(Moment(self.now), token, (op, wanted), Moment(until), &mut out);
        self.carry_out(at, out);
    }

    /// Whether all members hold the same, and nothing is under way.
    pub(crate) fn is_settled(&self) -> bool {
        let Some(leading) = self.leading().and_then(|at| self.nodes[at].member()) else { return false };
        let point = leading.commit_point();
        self.client.is_quiet()
            && !self.is_changing()
            && self.nodes.iter().all(|node| {
                node.member().is_some_and(|member| {
                    let status = member.status();
                    member.checkpoint().op == point
                        && status.tail_items == 0
                        && !status.receiving
                        && status.readable
                })
            })
    }

    pub(crate) fn describe(&self) -> String {
        let of = |node: &Node| format!("{}: {:#?}", node.id, node.member().map(Member::status));
        let nodes: Vec<String> = self.nodes.iter().map(of).collect();
        format!(
            "target {:?}, current {:?}\n{}\n{:?}",
            self.target,
            self.register.current(),
            nodes.join("\n"),
            self.met
        )
    }
}
