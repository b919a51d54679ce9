//! Nodes, what is under way between them, and what clients were told.

use super::*;
use kvorum_model::slot;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const SHARDS: u16 = 4;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const BASE_MS: u64 = 1_800_000_000_000;

/// How far the clock of another node may be ahead.
const AHEAD_MS: u64 = 60_000;

fn namespace() -> NamespaceId {
    NamespaceId::new(16, Mode::Available, SHARDS)
}

struct Node {
    store_id: StoreId,
    fs: SimFs,
    /// Counts lives: what was under way in an earlier one is nothing to a later one.
    boot: u64,
    /// How far its clock is off.
    skew_ms: i64,
    /// The bound of its hybrid clock, as its store would know it.
    bound: u64,
    up: Option<Up>,
}

struct Up {
    store: Store,
    replica: Replica,
    hints: Hints,
    hybrid: HybridClock,
    exchanges: BTreeMap<(StoreId, u16), Exchange>,
    /// Shards that were compared since the node lacks what others have.
    collected: BTreeMap<StoreId, BTreeSet<u16>>,
}

/// Who waits for an answer.
#[derive(Clone)]
enum Waiter {
    Client(u64),
    Exchange(u16),
    Hint(Box<Hint>),
    Nobody,
}

#[derive(Clone)]
struct Call {
    by: usize,
    boot: u64,
    to: StoreId,
    waiter: Waiter,
}

enum UnderWay {
    Ask(Call, Ask),
    Answer(Call, Option<Answer>),
}

struct Client {
    node: usize,
    boot: u64,
    coordination: Coordination,
    key: Bytes,
    /// Of a write: its version, and `ack` of `from`.
    write: Option<(u64, u8, u8)>,
    /// Of a read: the version that it must see at least.
    least: u64,
}

pub(super) struct World {
    seed: u64,
    dice: Dice,
    now_ms: u64,
    nodes: Vec<Node>,
    order: Order,
    cut: BTreeSet<(usize, usize)>,
    under_way: Vec<UnderWay>,
    clients: BTreeMap<u64, Client>,
    begun: u64,
    /// What clients of one request were told.
    told: BTreeMap<u64, Outcome>,
    /// A disk that is still to be wiped.
    wipe: bool,
    /// Acknowledged writes: key, version, `ack`, `from`.
    writes: Vec<(Bytes, u64, u8, u8)>,
    pub(super) acknowledged: u64,
    pub(super) moved: u64,
    pub(super) delivered: u64,
    pub(super) trace: u64,
}

impl World {
    pub(super) fn new(seed: u64, count: usize, wipe: bool) -> World {
        let node = |at: usize| Node {
            store_id: StoreId(at as u64 + 1),
            fs: SimFs::new(seed * 100 + at as u64),
            boot: 0,
            skew_ms: 0,
            bound: 0,
            up: None,
        };
        let mut world = World {
            seed,
            dice: Dice::new(seed),
            now_ms: BASE_MS,
            nodes: (0..count).map(node).collect(),
            order: Order::of([]),
            cut: BTreeSet::new(),
            under_way: Vec::new(),
            clients: BTreeMap::new(),
            begun: 0,
            told: BTreeMap::new(),
            wipe,
            writes: Vec::new(),
            acknowledged: 0,
            moved: 0,
            delivered: 0,
            trace: 0,
        };
        world.order_nodes();
        (0..count).for_each(|at| world.start(at));
        world
    }

    fn order_nodes(&mut self) {
        self.order = Order::of(self.nodes.iter().map(|node| node.store_id).zip(NAMES));
    }

    fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let mut settings = Settings::default();
        settings.memory_bytes = 4 << 20;
        settings.wal_segment_bytes = 1 << 20;
        settings.background_threads = false;
        let parts = Parts::new(Arc::new(node.fs.clone()), TestClock::at(BASE_MS));
        let store = Store::open("/store", settings, parts).expect("a store");
        let trees = (0..SHARDS)
            .map(|place| store.tree(&format!("n16/s{place}"), TreeSettings::newest_only()).expect("a tree"))
            .collect();
        let replica = Replica::new(node.store_id, namespace(), store.clone(), trees);
        let hints = Hints::open(&store, 1 << 20).expect("hints");
        let hybrid = HybridClock::new(at as u64, node.bound);
        node.boot += 1;
        node.up = Some(Up {
            store,
            replica,
            hints,
            hybrid,
            exchanges: BTreeMap::new(),
            collected: BTreeMap::new(),
        });
    }

    /// Power fails: what was not synced may be lost.
    fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        // What a rebuilt replica still lacks is only remembered in memory here: it stays up.
        let off = node.up.take_if(|up| up.replica.is_whole());
        if off.is_some() {
            // Before the store is let go of: that would still write.
            node.fs = node.fs.after_power_loss();
        }
    }

    /// A node is off; nothing that it acknowledged is lost.
    pub(super) fn down(&mut self, at: usize) {
        self.drain();
        self.crash(at);
    }

    pub(super) fn up(&mut self, at: usize) {
        self.start_again(at);
    }

    /// The nodes in the order of a key.
    pub(super) fn order_of(&self, key: &[u8]) -> Vec<usize> {
        let at = |store| self.nodes.iter().position(|node| node.store_id == store).expect("a node");
        self.order.of_slot(slot(key)).into_iter().map(at).collect()
    }

    /// What stands on a node's own disk.
    pub(super) fn own(&self, at: usize, key: &[u8]) -> Option<Bytes> {
        self.nodes[at].up.as_ref()?.replica.entry(key).expect("an entry")?.value
    }

    /// Writes; answers the version if it was acknowledged.
    pub(super) fn put(
        &mut self,
        at: usize,
        key: &Bytes,
        value: Option<Bytes>,
        ack: u8,
        from: u8,
    ) -> Option<u64> {
        self.now_ms += 5;
        let version = self.stamp(at)?;
        let entry = Entry { version, value, expires_at: None, from, shadow: false, base: None };
        let told = self.request(at, key, Operation::Write(entry), ack, Some((version, ack, from)), 0);
        matches!(told, Some(Outcome::Written { .. })).then_some(version)
    }

    /// Reads: `None` if too few answer, `Some(None)` if there is nothing.
    pub(super) fn get(&mut self, at: usize, key: &Bytes, ack: u8, from: u8) -> Option<Option<Bytes>> {
        match self.request(at, key, Operation::Read { from }, ack, None, 0)? {
            Outcome::Read(found) => Some(found.and_then(|entry| entry.value)),
            _ => None,
        }
    }

    /// One request, with nothing else under way; what it leaves to do is done.
    fn request(
        &mut self,
        at: usize,
        key: &Bytes,
        operation: Operation,
        ack: u8,
        write: Option<(u64, u8, u8)>,
        least: u64,
    ) -> Option<Outcome> {
        self.nodes[at].up.as_ref()?;
        let (coordination, steps) = Coordination::begin(key.clone(), slot(key), operation, ack, &self.order);
        self.begun += 1;
        let boot = self.nodes[at].boot;
        let client = Client { node: at, boot, coordination, key: key.clone(), write, least };
        self.clients.insert(self.begun, client);
        self.carry_out(self.begun, steps);
        self.drain();
        self.told.remove(&self.begun)
    }

    /// A hybrid timestamp of a node that is up.
    fn stamp(&mut self, at: usize) -> Option<u64> {
        let wall = self.wall_ms(at);
        let node = &mut self.nodes[at];
        let up = node.up.as_mut()?;
        if !up.hybrid.is_bounded(wall) {
            let persist = |bound| {
                node.bound = bound;
                Ok::<_, ()>(())
            };
            up.hybrid.raise(wall, persist).expect("it is only remembered");
        }
        Some(up.hybrid.stamp(wall))
    }

    /// A new disk, and so a new store, under the old name. Only what other replicas have acknowledged as well is still promised.
    pub(super) fn wipe(&mut self, at: usize) {
        self.crash(at);
        self.wipe = false;
        let node = &mut self.nodes[at];
        node.store_id = StoreId(node.store_id.0 + 100);
        node.fs = SimFs::new(self.seed * 100 + 50);
        self.writes.retain(|(_, _, ack, _)| *ack >= 2);
        for client in self.clients.values_mut() {
            // The wiped replica may be among those that answered already.
            (client.least, client.write) = (0, None);
        }
        self.order_nodes();
        self.start(at);
        let others: Vec<_> = self.order.stores().filter(|store| *store != self.nodes[at].store_id).collect();
        if let Some(up) = &mut self.nodes[at].up {
            up.replica.lacks(others.iter().copied());
            up.collected = others.into_iter().map(|store| (store, BTreeSet::new())).collect();
        }
    }

    fn wall_ms(&self, at: usize) -> u64 {
        self.now_ms.saturating_add_signed(self.nodes[at].skew_ms)
    }

    pub(super) fn step(&mut self) {
        self.now_ms += self.dice.below(20);
        let at = self.dice.index(self.nodes.len());
        match self.dice.below(100) {
            0..12 => self.client(at),
            12..86 => self.pass_on(),
            86 => self.crash(at),
            87..90 => self.start_again(at),
            90 | 91 => self.change_network(at),
            92 => self.nodes[at].skew_ms = self.dice.below(8000) as i64 - 4000,
            93 => self.hand_off(at),
            94 | 95 => self.exchange(at),
            96 => {
                if let Some(number) = self.some_client() {
                    self.tell(number, Input::Deadline);
                }
            }
            97 if self.wipe && self.begun > 100 && self.nodes.iter().all(|node| node.up.is_some()) => {
                self.wipe(at);
            }
            _ => {}
        }
    }

    fn start_again(&mut self, at: usize) {
        if self.nodes[at].up.is_none() {
            self.start(at);
        }
    }

    fn change_network(&mut self, at: usize) {
        let other = self.dice.index(self.nodes.len());
        if self.dice.coin() {
            self.cut.clear();
        } else {
            self.cut.insert((at, other));
        }
    }

    fn some_client(&mut self) -> Option<u64> {
        let index = self.dice.index(self.clients.len().max(1));
        self.clients.keys().nth(index).copied()
    }

    fn client(&mut self, at: usize) {
        let from = 1 + self.dice.below(self.nodes.len().min(3) as u64) as u8;
        let ack = 1 + self.dice.below(u64::from(from)) as u8;
        let key = Bytes::from(format!("key{}", self.dice.below(12)));
        let kind = self.dice.below(5);
        let Some(version) = self.stamp(at) else { return };
        let (operation, write) = if kind < 2 {
            (Operation::Read { from }, None)
        } else {
            let value = (kind < 4).then(|| Bytes::from(format!("value {version}")));
            let entry = Entry { version, value, expires_at: None, from, shadow: false, base: None };
            (Operation::Write(entry), Some((version, ack, from)))
        };
        let must_see = |(other, _, w_ack, w_from): &&(Bytes, u64, u8, u8)| {
            *other == key && *w_from == from && w_ack + ack > from
        };
        let least = self.writes.iter().filter(must_see).map(|(_, version, ..)| *version).max().unwrap_or(0);
        let (coordination, steps) = Coordination::begin(key.clone(), slot(&key), operation, ack, &self.order);
        self.begun += 1;
        let boot = self.nodes[at].boot;
        self.clients.insert(self.begun, Client { node: at, boot, coordination, key, write, least });
        self.carry_out(self.begun, steps);
    }

    fn tell(&mut self, number: u64, input: Input) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let steps = client.coordination.step(input);
        self.carry_out(number, steps);
    }

    fn carry_out(&mut self, number: u64, steps: Vec<Step>) {
        let Some(client) = self.clients.get(&number) else { return };
        let (by, boot, key) = (client.node, client.boot, client.key.clone());
        for step in steps {
            match step {
                Step::Ask(to, ask) => {
                    let call = Call { by, boot, to, waiter: Waiter::Client(number) };
                    self.under_way.push(UnderWay::Ask(call, ask));
                }
                Step::Repair(to, entry) => {
                    let call = Call { by, boot, to, waiter: Waiter::Nobody };
                    self.under_way.push(UnderWay::Ask(call, Ask::Write { key: key.clone(), entry }));
                }
                Step::Hint(to, entry) => {
                    let hint = Hint { to, namespace: 16, key: key.clone(), entry };
                    if let Some(up) = &mut self.nodes[by].up {
                        up.hints.add(&hint).expect("a hint is written");
                    }
                }
                Step::Done(outcome) => self.judge(number, &outcome),
            }
        }
        if self.clients[&number].coordination.is_over() {
            self.clients.remove(&number);
        }
    }

    fn judge(&mut self, number: u64, outcome: &Outcome) {
        let client = &self.clients[&number];
        self.trace = xxh3_64_with_seed(format!("{number} {outcome:?}").as_bytes(), self.trace);
        self.told = BTreeMap::from([(number, outcome.clone())]);
        match outcome {
            Outcome::Written { .. } => {
                if let Some((version, ack, from)) = client.write {
                    self.acknowledged += 1;
                    self.writes.push((client.key.clone(), version, ack, from));
                }
            }
            Outcome::Read(found) => {
                let seen = found.as_ref().map_or(0, |entry| entry.version);
                let (seed, key, least) = (self.seed, &client.key, client.least);
                assert!(seen >= least, "seed {seed}: {key:?} is read at {seen}, acknowledged was {least}");
            }
            Outcome::TooFew { .. } => {}
        }
    }

    /// Something arrives, in any order.
    fn pass_on(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let index = self.dice.index(self.under_way.len());
        match self.under_way.swap_remove(index) {
            UnderWay::Ask(call, ask) => {
                let answer = self.answer(&call, &ask);
                self.under_way.push(UnderWay::Answer(call, answer));
            }
            UnderWay::Answer(call, answer) => self.hear(call, answer),
        }
    }

    /// `None` if the question does not arrive, or is refused.
    fn answer(&mut self, call: &Call, ask: &Ask) -> Option<Answer> {
        let at = self.nodes.iter().position(|node| node.store_id == call.to)?;
        let asker = &self.nodes[call.by];
        if self.is_cut(call.by, at) || asker.boot != call.boot || asker.up.is_none() {
            return None;
        }
        // As it would come over the wire.
        let head = Head { namespace: 16, nodes: self.order.print(), durability: None };
        let (_, ask) = decode_ask(encode_ask(&head, ask)).expect("an ask");
        let (asker, wall) = (asker.store_id, self.wall_ms(at));
        let node = &mut self.nodes[at];
        let up = node.up.as_mut()?;
        let ceiling = up.hybrid.floor(up.hybrid.now_ms(wall) + AHEAD_MS);
        let (answer, sequence) = up.replica.handle(asker, &ask, &self.order, ceiling).ok()?;
        if let Ask::Write { entry, .. } = &ask {
            up.hybrid.observe(entry.version);
        }
        up.store.commit_at(sequence, Durability::Synced).wait().expect("a sync");
        decode_answer(encode_answer(&answer))
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains(&(from, to))
    }

    fn hear(&mut self, call: Call, answer: Option<Answer>) {
        let asker = &self.nodes[call.by];
        if asker.boot != call.boot || asker.up.is_none() {
            if let Waiter::Client(number) = call.waiter {
                // The coordinator is gone, and its client with it.
                self.clients.remove(&number);
            }
            return;
        }
        let at = self.nodes.iter().position(|node| node.store_id == call.to);
        let answer = answer.filter(|_| at.is_some_and(|at| !self.is_cut(at, call.by)));
        match (call.waiter, answer) {
            (Waiter::Client(number), Some(answer)) => self.tell(number, Input::Answered(call.to, answer)),
            (Waiter::Client(number), None) => self.tell(number, Input::Failed(call.to)),
            (Waiter::Exchange(place), answer) => self.go_on(call.by, call.to, place, answer),
            (Waiter::Hint(hint), Some(Answer::Stored { .. })) => {
                let up = self.nodes[call.by].up.as_mut().expect("it is up");
                up.hints.delivered(&hint).expect("a hint goes");
                self.delivered += 1;
            }
            _ => {}
        }
    }

    fn hand_off(&mut self, at: usize) {
        let other = self.dice.index(self.nodes.len());
        let to = self.nodes[other].store_id;
        let (node, boot) = (&self.nodes[at], self.nodes[at].boot);
        let Some(up) = &node.up else { return };
        for hint in up.hints.next(to, None, 8).expect("hints") {
            let ask = Ask::Write { key: hint.key.clone(), entry: hint.entry.clone() };
            let call = Call { by: at, boot, to, waiter: Waiter::Hint(Box::new(hint)) };
            self.under_way.push(UnderWay::Ask(call, ask));
        }
    }

    fn exchange(&mut self, at: usize) {
        let other = self.dice.index(self.nodes.len());
        let place = self.dice.below(u64::from(SHARDS)) as u16;
        if other != at {
            self.compare(at, self.nodes[other].store_id, place);
        }
    }

    fn compare(&mut self, at: usize, with: StoreId, place: u16) {
        let node = &mut self.nodes[at];
        let Some(up) = &mut node.up else { return };
        let (exchange, ask) = match up.replica.is_whole() {
            true => Exchange::begin(with, place),
            false => Exchange::collect(with, place, 0),
        };
        if up.exchanges.contains_key(&(with, place)) {
            return;
        }
        up.exchanges.insert((with, place), exchange);
        let call = Call { by: at, boot: node.boot, to: with, waiter: Waiter::Exchange(place) };
        self.under_way.push(UnderWay::Ask(call, ask));
    }

    fn go_on(&mut self, at: usize, with: StoreId, place: u16, answer: Option<Answer>) {
        let wall = self.wall_ms(at);
        let node = &mut self.nodes[at];
        let boot = node.boot;
        let Some(up) = &mut node.up else { return };
        let Some(mut exchange) = up.exchanges.remove(&(with, place)) else { return };
        let Some(answer) = answer else { return };
        let ceiling = up.hybrid.floor(up.hybrid.now_ms(wall) + AHEAD_MS);
        match exchange.step(answer, &up.replica, &self.order, ceiling) {
            Ok(Exchanged::Ask(ask)) => {
                up.exchanges.insert((with, place), exchange);
                let call = Call { by: at, boot, to: with, waiter: Waiter::Exchange(place) };
                self.under_way.push(UnderWay::Ask(call, ask));
            }
            Ok(Exchanged::Done { moved, .. }) => {
                self.moved += moved as u64;
                // What was collected is durable before anybody relies on it.
                let visible = up.store.visible();
                up.store.commit_at(visible, Durability::Synced).wait().expect("a sync");
                if let Some(places) = up.collected.get_mut(&with) {
                    places.insert(place);
                    if places.len() == usize::from(up.replica.places()) {
                        up.replica.collected(with);
                    }
                }
            }
            Err(_) => {}
        }
    }

    fn drain(&mut self) {
        while !self.under_way.is_empty() {
            self.pass_on();
        }
    }

    /// The faults end; what mends runs until nothing is left to mend.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
        for at in 0..self.nodes.len() {
            self.nodes[at].skew_ms = 0;
            if self.nodes[at].up.is_none() {
                self.start(at);
            }
        }
        // Clocks that were ahead are caught up with.
        self.now_ms += 2 * AHEAD_MS;
        self.drain();
        self.clients.clear();
        for _ in 0..20 {
            let before = self.moved;
            for at in 0..self.nodes.len() {
                for other in self.order.stores().collect::<Vec<_>>() {
                    for place in 0..SHARDS {
                        if other != self.nodes[at].store_id {
                            self.compare(at, other, place);
                            self.drain();
                        }
                    }
                }
            }
            if self.moved == before {
                return;
            }
        }
        panic!("seed {}: there is always more to mend", self.seed);
    }

    /// Replicas are equal, copies are not more than `from`, and nothing acknowledged is lost.
    pub(super) fn check(&self) {
        let seed = self.seed;
        for key in (0..12).map(|number| format!("key{number}")) {
            let order = self.order.of_slot(slot(key.as_bytes()));
            let entry = |store: &StoreId| {
                let node = self.nodes.iter().find(|node| node.store_id == *store).expect("a node");
                node.up.as_ref().expect("it is up").replica.entry(key.as_bytes()).expect("an entry")
            };
            let entries: Vec<_> = order.iter().map(entry).collect();
            let newest = entries.iter().flatten().max_by_key(|entry| (entry.version, !entry.shadow));
            let written = self.writes.iter().filter(|(other, ..)| *other == key);
            let least = written.map(|(_, version, ..)| *version).max().unwrap_or(0);
            let version = newest.map_or(0, |newest| newest.version);
            assert!(
                version >= least,
                "seed {seed}: {key} is at {version}, acknowledged was {least}: {entries:?}"
            );
            let Some(newest) = newest else { continue };
            for (rank, entry) in (0..).zip(&entries) {
                if rank >= newest.from || newest.value.is_none() {
                    let is_gone = entry.as_ref().is_none_or(|entry| entry.value.is_none());
                    assert!(is_gone, "seed {seed}: a copy of {key} too many: {entries:?}");
                } else {
                    assert_eq!(entry.as_ref(), Some(newest), "seed {seed}: {key} at {rank}: {entries:?}");
                }
            }
        }
    }
}
