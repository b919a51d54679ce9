//! A small group of replicas over a network and disks that a test steers by hand. Everything is in order and nothing is lost unless the
//! test says so; the simulator (`kvorum-sim`) does the rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kvorum_sync::{
    After, Config, Digest, Durable, Effect, Effects, Epoch, Input, Item, KeyHash, Keys, Membership, Message,
    Moment, Names, OpId, Outcome, Proposal, Record, RecordId, Replica, RoleName, Rule, Standing, StoreId,
    Token, TransferId, Want,
};

pub(crate) fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

pub(crate) fn op(epoch_number: u32, serial: u64) -> OpId {
    OpId::new(epoch(epoch_number), serial)
}

pub(crate) fn store(number: u64) -> StoreId {
    StoreId(number)
}

pub(crate) fn item(op: OpId, reads: &[OpId]) -> Item {
    Item { op, keys: Keys::Of(Names::one(KeyHash(op.serial()))), reads: Names::of(reads), ..Item::default() }
}

/// Settings without waiting: a tick repeats everything.
pub(crate) fn config() -> Config {
    Config {
        gather_grace_micros: 0,
        resend_micros: 1,
        point_micros: 0,
        checkpoint_micros: 0,
        ask_micros: 1,
        ..Config::default()
    }
}

pub(crate) fn without(rule: Rule) -> Config {
    let mut config = config();
    config.planted = config.planted.without(rule);
    config
}

/// What a member's driver and disk hold.
pub(crate) struct Member {
    pub(crate) replica: Option<Replica>,
    config: Config,
    nonce: u64,
    /// What a crash leaves.
    pub(crate) durable: Durable,
    queue: VecDeque<(RecordId, Record)>,
    waiting: Vec<(RecordId, StoreId, Message)>,
    /// Records become durable at once.
    pub(crate) syncs: bool,
    /// Versions whose values the tree holds, durably.
    pub(crate) tree: BTreeSet<OpId>,
    /// Data that came beside pieces.
    pieces: BTreeMap<(TransferId, u64), Vec<OpId>>,
    pub(crate) committed: BTreeSet<OpId>,
    pub(crate) settled: BTreeMap<OpId, Outcome>,
    /// Effects that only the driver's upper side sees.
    pub(crate) told: Vec<Effect>,
}

pub(crate) struct Group {
    pub(crate) members: BTreeMap<StoreId, Member>,
    pub(crate) network: VecDeque<(StoreId, StoreId, Message)>,
    /// Pairs whose messages are lost, in this direction.
    pub(crate) cut: BTreeSet<(StoreId, StoreId)>,
    pub(crate) now: Moment,
    effects: Effects,
}

impl Group {
    pub(crate) fn with(members: u64, config: &Config) -> Group {
        let mut group = Group {
            members: BTreeMap::new(),
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            now: Moment(1_000_000),
            effects: Effects::new(),
        };
        for number in 1..=members {
            group.add(number, config, Durable::default());
        }
        group
    }

    pub(crate) fn add(&mut self, number: u64, config: &Config, durable: Durable) {
        let tree = durable.tail.keys().copied().collect();
        let member = Member {
            replica: None,
            config: config.clone(),
            nonce: 0,
            durable,
            queue: VecDeque::new(),
            waiting: Vec::new(),
            syncs: true,
            tree,
            pieces: BTreeMap::new(),
            committed: BTreeSet::new(),
            settled: BTreeMap::new(),
            told: Vec::new(),
        };
        self.members.insert(store(number), member);
        self.start(number);
    }

    pub(crate) fn member(&mut self, number: u64) -> &mut Member {
        self.members.get_mut(&store(number)).unwrap()
    }

    pub(crate) fn replica(&self, number: u64) -> &Replica {
        self.members[&store(number)].replica.as_ref().unwrap()
    }

    /// Starts a member from what its disk holds.
    pub(crate) fn start(&mut self, number: u64) {
        self.start_intact(number, true);
    }

    pub(crate) fn start_intact(&mut self, number: u64, intact: bool) {
        let (now, id) = (self.now, store(number));
        let mut out = std::mem::take(&mut self.effects);
        let member = self.member(number);
        member.nonce += 1;
        let (nonce, config) = (member.nonce, member.config.clone());
        member.replica = Some(Replica::recover(id, nonce, config, &member.durable, intact, now, &mut out));
        self.effects = out;
        self.carry_out(id);
    }

    /// Kills a member: what is not durable is gone, and so is what it was about to send.
    pub(crate) fn crash(&mut self, number: u64) {
        let member = self.member(number);
        member.replica = None;
        member.queue.clear();
        member.waiting.clear();
        let durable = &member.durable;
        member.tree.retain(|op| *op <= durable.checkpoint.op || durable.tail.contains_key(op));
    }

    pub(crate) fn cut_off(&mut self, number: u64) {
        for other in self.members.keys().copied().filter(|other| *other != store(number)) {
            self.cut.insert((store(number), other));
            self.cut.insert((other, store(number)));
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn input(&mut self, number: u64, input: Input) {
        let (now, id) = (self.now, store(number));
        let mut out = std::mem::take(&mut self.effects);
        if let Some(replica) = &mut self.member(number).replica {
            replica.step(now, input, &mut out);
        }
        self.effects = out;
        self.carry_out(id);
    }

    fn carry_out(&mut self, id: StoreId) {
        let mut effects = std::mem::take(&mut self.effects);
        let mut next: Vec<Input> = Vec::new();
        for effect in effects.drain() {
            let member = self.members.get_mut(&id).unwrap();
            match effect {
                Effect::Persist { id, record, .. } => member.queue.push_back((id, record)),
                Effect::Send { to, message, after: After::Now, .. } => {
                    self.network.push_back((id, to, message));
                }
                Effect::Send { to, message, after: After::Durable(record), .. } => {
                    member.waiting.push((record, to, message));
                }
                Effect::Committed { first, last } => {
                    let ops = first.version()..=last.version();
                    member.committed.extend(ops.map(OpId::from_version));
                }
                Effect::Settled { op, outcome } => {
                    member.settled.insert(op, outcome);
                }
                Effect::ReadPiece { transfer, number, want, .. } => {
                    let (items, end) = match want {
                        Want::Items(ops) => (ops, vec![]),
                        Want::Final { since, upto, doubtful } => {
                            let range = member.tree.iter().copied().filter(|op| *op > since && *op <= upto);
                            let doubtful = doubtful.into_iter().filter(|op| member.tree.contains(op));
                            (range.collect(), doubtful.collect())
                        }
                    };
                    let cursor = [].into();
                    next.push(Input::PieceRead { transfer, number, items, cursor, end: Some(end) });
                }
                Effect::Ingest { transfer, number, ceiling, .. } => {
                    let data = member.pieces.remove(&(transfer, number)).unwrap();
                    if let Some(ceiling) = ceiling {
                        member.tree.extend(data.into_iter().filter(|op| *op <= ceiling));
                    }
                    next.push(Input::Ingested { transfer, number });
                }
                told => member.told.push(told),
            }
        }
        self.effects = effects;
        if self.members[&id].syncs {
            self.sync_only(id);
        }
        for input in next {
            self.input(id.0, input);
        }
    }

    /// Makes everything handed out durable.
    pub(crate) fn sync(&mut self, number: u64) {
        self.sync_only(store(number));
    }

    fn sync_only(&mut self, id: StoreId) {
        let member = self.members.get_mut(&id).unwrap();
        let Some((upto, _)) = member.queue.back() else { return };
        let upto = *upto;
        for (_, record) in std::mem::take(&mut member.queue) {
            member.durable.apply(&record);
            match &record {
                Record::Item(item) => {
                    member.tree.insert(item.op);
                }
                Record::Adopt(adoption) => {
                    member.tree.retain(|op| !adoption.retract.contains(op));
                    member.tree.extend(adoption.put.iter().map(|item| item.op));
                }
                Record::Rebuild => member.tree.clear(),
                _ => {}
            }
        }
        let (ready, waiting) =
            std::mem::take(&mut member.waiting).into_iter().partition(|(record, ..)| *record <= upto);
        member.waiting = waiting;
        let ready: Vec<(RecordId, StoreId, Message)> = ready;
        self.network.extend(ready.into_iter().map(|(_, to, message)| (id, to, message)));
        self.input(id.0, Input::Persisted { upto });
    }

    /// Delivers one message.
    pub(crate) fn deliver(&mut self) -> bool {
        let Some((from, to, message)) = self.network.pop_front() else { return false };
        if !self.cut.contains(&(from, to)) && self.members.contains_key(&to) {
            // The source's data travels beside a piece.
            if let Message::Piece(piece) = &message {
                let member = self.members.get_mut(&to).unwrap();
                member.pieces.insert((piece.transfer, piece.number), piece.items.clone());
            }
            self.input(to.0, Input::Message { from, message });
        }
        true
    }

    pub(crate) fn run(&mut self) {
        for _ in 0..100_000 {
            if !self.deliver() {
                return;
            }
        }
        panic!("the network never falls silent");
    }

    /// Lets time pass for everyone, until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..8 {
            self.now = self.now.after_micros(1_000);
            for number in self.members.keys().map(|id| id.0).collect::<Vec<_>>() {
                self.input(number, Input::Tick);
            }
            self.run();
        }
    }

    pub(crate) fn nominate(&mut self, number: u64, epoch_number: u32, members: &[u64]) {
        let members: Vec<StoreId> = members.iter().copied().map(store).collect();
        self.nominate_with(number, epoch_number, &Membership::steady(&members));
    }

    pub(crate) fn nominate_with(&mut self, number: u64, epoch_number: u32, membership: &Membership) {
        let epoch = epoch(epoch_number);
        self.input(number, Input::Nominate { epoch, membership: membership.clone() });
    }

    pub(crate) fn propose(&mut self, number: u64, reads: &[OpId]) -> Option<OpId> {
        let next = self.replica(number).next_op()?;
        let proposal = Proposal {
            token: Token(next.version()),
            digest: Digest(next.version().wrapping_mul(31)),
            keys: Keys::Of(Names::one(KeyHash(next.serial()))),
            reads: Names::of(reads),
            ..Proposal::default()
        };
        self.input(number, Input::Propose(proposal));
        (self.replica(number).next_op() != Some(next)).then_some(next)
    }

    pub(crate) fn role(&self, number: u64) -> RoleName {
        self.replica(number).role()
    }

    pub(crate) fn leads(&self, number: u64) -> bool {
        self.role(number) == RoleName::Leader
    }

    pub(crate) fn told(&mut self, number: u64) -> Vec<String> {
        std::mem::take(&mut self.member(number).told).iter().map(ToString::to_string).collect()
    }

    /// Three members, the first one leading in epoch 1, all in step.
    pub(crate) fn led(config: &Config) -> Group {
        let mut group = Group::with(3, config);
        group.nominate(1, 1, &[1, 2, 3]);
        group.run();
        assert!(group.leads(1));
        group.settle();
        group
    }

    /// Every item that some leader reported committed is in each whole member's tree once all is settled.
    pub(crate) fn lost(&self) -> Vec<(StoreId, OpId)> {
        let committed: BTreeSet<OpId> =
            self.members.values().flat_map(|member| member.committed.iter().copied()).collect();
        let mut lost = Vec::new();
        for (id, member) in &self.members {
            let Some(replica) = &member.replica else { continue };
            if replica.standing() == Standing::Whole {
                lost.extend(committed.iter().filter(|op| !member.tree.contains(op)).map(|op| (*id, *op)));
            }
        }
        lost
    }

    pub(crate) fn checkpoints(&self) -> Vec<String> {
        let running = self.members.values().filter_map(|member| member.replica.as_ref());
        running.map(|replica| replica.checkpoint().op.to_string()).collect()
    }
}
