//! Clients: what they ask, and what they were told.

use super::traffic::{Call, UnderWay, Waiter};
use super::world::{NAMESPACE, World};
use super::*;
use kvorum_model::slot;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Keys that are written and read.
pub(super) const KEYS: u64 = 12;

/// An acknowledged write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) key: Bytes,
    pub(super) version: u64,
    pub(super) ack: u8,
    pub(super) from: u8,
    /// Where it was coordinated.
    pub(super) at: usize,
    pub(super) deletes: bool,
}

pub(super) struct Client {
    pub(super) node: usize,
    pub(super) boot: u64,
    coordination: Coordination,
    key: Bytes,
    operation: Operation,
    ack: u8,
    /// The map by which it was begun.
    pub(super) map: usize,
    timed_out: bool,
    /// What is promised once it is acknowledged.
    write: Option<Write>,
    /// Of a read: the write that it must see at least.
    least: Option<Write>,
}

impl Client {
    /// Nothing is promised any more.
    pub(super) fn forget(&mut self) {
        (self.write, self.least) = (None, None);
    }
}

impl World {
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
        let told = self.request(at, key, Operation::Write(entry), ack);
        matches!(told, Some(Outcome::Written { .. })).then_some(version)
    }

    /// Reads: `None` if too few answer, `Some(None)` if there is nothing.
    pub(super) fn get(&mut self, at: usize, key: &Bytes, ack: u8, from: u8) -> Option<Option<Bytes>> {
        match self.request(at, key, Operation::Read { from }, ack)? {
            Outcome::Read(found) => Some(found.and_then(|entry| entry.value)),
            _ => None,
        }
    }

    /// One request, with nothing else under way; what it leaves to do is done.
    fn request(&mut self, at: usize, key: &Bytes, operation: Operation, ack: u8) -> Option<Outcome> {
        self.nodes[at].up.as_ref()?;
        self.pulse(at);
        let number = self.begin(at, key.clone(), operation, ack);
        self.drain();
        self.told.remove(&number)
    }

    /// Any request, at a node.
    pub(super) fn client(&mut self, at: usize) {
        self.pulse(at);
        let copies = self.map_of(at).order.len().min(3) as u64;
        let from = 1 + self.dice.below(copies) as u8;
        let ack = 1 + self.dice.below(u64::from(from)) as u8;
        let key = Bytes::from(format!("key{}", self.dice.below(KEYS)));
        let (kind, has_seen) = (self.dice.below(5), self.dice.coin());
        let Some(version) = self.stamp(at) else { return };
        let operation = if kind < 2 {
            Operation::Read { from }
        } else {
            let value = (kind < 4).then(|| Bytes::from(format!("value {version}")));
            let seen = self.writes.iter().filter(|write| has_seen && write.key == key);
            let base = self.keeps_losers.then(|| seen.map(|write| write.version).max().unwrap_or(0));
            Operation::Write(Entry { version, value, expires_at: None, from, shadow: false, base })
        };
        self.begin(at, key, operation, ack);
    }

    fn begin(&mut self, at: usize, key: Bytes, operation: Operation, ack: u8) -> u64 {
        let (write, from) = match &operation {
            Operation::Write(entry) => {
                let (version, from) = (entry.version, entry.from);
                if entry.value.is_none() {
                    let newest = self.deletions.entry(key.clone()).or_default();
                    *newest = version.max(*newest);
                }
                if self.apart.contains(&at) {
                    self.lone.entry(key.clone()).or_insert(version);
                }
                let deletes = entry.value.is_none();
                (Some(Write { key: key.clone(), version, ack, from, at, deletes }), from)
            }
            Operation::Read { from } => (None, *from),
        };
        let must_see = |write: &&Write| write.key == key && write.from == from && write.ack + ack > from;
        let least = self.writes.iter().filter(must_see).max_by_key(|write| write.version).cloned();
        let (map, boot) = (self.nodes[at].map, self.nodes[at].boot);
        let order = &self.maps[map].order;
        let (coordination, steps) =
            Coordination::begin(key.clone(), slot(&key), operation.clone(), ack, order);
        self.begun += 1;
        let (node, timed_out) = (at, false);
        let client = Client { node, boot, coordination, key, operation, ack, map, timed_out, write, least };
        self.clients.insert(self.begun, client);
        let number = self.begun;
        self.carry_out(number, steps);
        number
    }

    pub(super) fn tell(&mut self, number: u64, input: Input) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        client.timed_out |= input == Input::Deadline;
        let steps = client.coordination.step(input);
        self.carry_out(number, steps);
    }

    /// The time of some request is over.
    pub(super) fn deadline(&mut self) {
        let index = self.dice.index(self.clients.len().max(1));
        if let Some(number) = self.clients.keys().nth(index).copied() {
            self.tell(number, Input::Deadline);
        }
    }

    fn carry_out(&mut self, number: u64, steps: Vec<Step>) {
        let Some(client) = self.clients.get(&number) else { return };
        let (by, boot, map, key) = (client.node, client.boot, client.map, client.key.clone());
        if self.begins_anew(number, &steps) {
            return;
        }
        for step in steps {
            match step {
                Step::Ask(to, ask) => {
                    let call = Call { by, boot, map, to, waiter: Waiter::Client(number), tries: 0 };
                    self.under_way.push(UnderWay::Ask(call, ask));
                }
                Step::Repair(to, entry) => {
                    let call = Call { by, boot, map, to, waiter: Waiter::Nobody, tries: 0 };
                    let ask = Ask::Write { key: key.clone(), entry, why: Why::Mend };
                    self.under_way.push(UnderWay::Ask(call, ask));
                }
                Step::Hint(to, entry) => {
                    let hint = Hint { to, namespace: NAMESPACE, key: key.clone(), entry };
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

    /// Too few answered, and the nodes have changed: others are asked, with the same version.
    fn begins_anew(&mut self, number: u64, steps: &[Step]) -> bool {
        let client = &self.clients[&number];
        let too_few = steps.iter().any(|step| matches!(step, Step::Done(Outcome::TooFew { .. })));
        let (map, known) = (client.map, self.nodes[client.node].map);
        if !too_few || client.timed_out || self.maps[map].order.print() == self.maps[known].order.print() {
            return false;
        }
        let mut client = self.clients.remove(&number).expect("a client");
        let order = &self.maps[known].order;
        let (key, operation) = (client.key.clone(), client.operation.clone());
        let (coordination, steps) =
            Coordination::begin(key.clone(), slot(&key), operation, client.ack, order);
        (client.coordination, client.map) = (coordination, known);
        self.clients.insert(number, client);
        self.carry_out(number, steps);
        true
    }

    /// Whether a write is there, or what came after it.
    pub(super) fn holds(&self, write: &Write, found: Option<&Entry>) -> bool {
        let is_nothing = found.is_none_or(|entry| entry.value.is_none());
        let is_deleted = self.deletions.get(&write.key).is_some_and(|version| *version >= write.version);
        found.is_some_and(|entry| entry.version >= write.version) || (is_nothing && is_deleted)
    }

    fn judge(&mut self, number: u64, outcome: &Outcome) {
        let client = &self.clients[&number];
        self.trace = xxh3_64_with_seed(format!("{number} {outcome:?}").as_bytes(), self.trace);
        self.told = BTreeMap::from([(number, outcome.clone())]);
        match outcome {
            Outcome::Written { .. } => {
                self.acknowledged += 1;
                self.writes.extend(client.write.clone());
            }
            Outcome::Read(found) => {
                let Some(least) = &client.least else { return };
                let (seed, key) = (self.seed, &client.key);
                assert!(
                    self.holds(least, found.as_ref()),
                    "seed {seed}: {key:?} is read as {found:?} through {}, acknowledged was {least:?}",
                    client.node
                );
            }
            Outcome::TooFew { .. } => {}
        }
    }
}
