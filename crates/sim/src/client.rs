//! Clients: each does its deeds one after the other, finds the leader by trying, and writes down what it was told.

use std::collections::{BTreeMap, VecDeque};

use kvorum_sync::{OpId, StoreId};

use crate::history::{Asked, Operation, Told};
use crate::plan::{Deed, Deeds, Mode, Plan};
use crate::server::{Asks, Reply, Request};
use crate::tree::{Key, REQUESTS, Value, Writes};
use crate::world::{Event, World};

/// How long a client waits for an answer before it gives up on an attempt.
const PATIENCE_MICROS: u64 = 1_000_000;
/// How long it goes on trying.
const DEADLINE_MICROS: u64 = 6_000_000;

/// An operation under way.
#[derive(Clone, Debug)]
pub(crate) struct Doing {
    pub(crate) deeds: Deeds,
    call: u64,
    attempt: u64,
    asks: Asks,
    id: Option<Key>,
    /// An attempt's outcome is unknown: it may have happened.
    doubtful: bool,
}

/// A client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: u32,
    todo: VecDeque<Deeds>,
    doing: Option<Doing>,
    attempts: u64,
    operations: u32,
    /// Who is thought to lead.
    leader: Option<StoreId>,
    /// The version last seen of each key.
    versions: BTreeMap<Key, u64>,
}

impl Client {
    pub(crate) fn new(id: u32, plan: &Plan) -> Self {
        let todo = plan.deeds.iter().copied().filter(|deed| deed.client == id).collect();
        Self { id, todo, doing: None, attempts: 0, operations: 0, leader: None, versions: BTreeMap::new() }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.todo.is_empty() && self.doing.is_none()
    }

    /// What a deed asks of a node.
    fn asks(&self, deeds: Deeds, values: &mut u64) -> Asks {
        let mut fresh = || {
            *values += 1;
            Some(*values)
        };
        let put = |value: Value| Writes { clear: false, puts: vec![(deeds.key, value)] };
        match deeds.deed {
            Deed::Read(mode) => Asks::Read(mode),
            Deed::Write => Asks::Write { writes: put(fresh()), expected: None },
            Deed::Delete => Asks::Write { writes: put(None), expected: None },
            Deed::Conditional => {
                let expected = self.versions.get(&deeds.key).copied().unwrap_or(0);
                Asks::Write { writes: put(fresh()), expected: Some(expected) }
            }
            Deed::Pair => {
                let (low, high) = (deeds.key & !1, deeds.key | 1);
                let puts = vec![(low, fresh()), (high, fresh())];
                Asks::Write { writes: Writes { clear: false, puts }, expected: None }
            }
            Deed::Clear => Asks::Write { writes: Writes { clear: true, puts: vec![] }, expected: None },
        }
    }
}

impl World {
    /// A client looks whether its next deed is due.
    pub(crate) fn client_turn(&mut self, client: u32) {
        let mut values = self.values;
        let now = self.now;
        let me = &mut self.clients[client as usize];
        if me.doing.is_some() {
            return;
        }
        let Some(next) = me.todo.front().copied() else { return };
        if next.at > now {
            self.at(next.at, Event::ClientTurn { client });
            return;
        }
        me.todo.pop_front();
        me.operations += 1;
        let asks = me.asks(next, &mut values);
        let id = next
            .request_id
            .then(|| REQUESTS + (client << 12) + me.operations)
            .filter(|_| matches!(asks, Asks::Write { .. }));
        me.doing = Some(Doing { deeds: next, call: now, attempt: 0, asks, id, doubtful: false });
        self.values = values;
        self.attempt(client);
    }

    /// Sends the operation to the node that seems right.
    fn attempt(&mut self, client: u32) {
        let guess = self.clients[client as usize].leader.and_then(|store| self.index_of(store));
        let any = self.dice.index(self.nodes.len());
        let guess = guess.filter(|_| self.dice.chance(0.8));
        let me = &mut self.clients[client as usize];
        me.attempts += 1;
        let attempt = me.attempts;
        let Some(doing) = &mut me.doing else { return };
        doing.attempt = attempt;
        let anywhere = matches!(doing.asks, Asks::Read(Mode::Follower | Mode::Labelled | Mode::Stale));
        let node = guess.filter(|_| !anywhere).unwrap_or(any);
        let request = Request {
            client,
            attempt,
            key: doing.deeds.key,
            asks: doing.asks.clone(),
            id: doing.id,
            answer: None,
        };
        let delay = self.dice.range(50, 1_000);
        self.after(delay, Event::Asks { node, request });
        self.after(PATIENCE_MICROS, Event::ClientTimeout { client, attempt });
    }

    pub(crate) fn client_timeout(&mut self, client: u32, attempt: u64) {
        self.answers(client, attempt, Reply::Unknown);
    }

    /// A reply comes back (or the client has waited long enough).
    pub(crate) fn answers(&mut self, client: u32, attempt: u64, reply: Reply) {
        let me = &mut self.clients[client as usize];
        let Some(doing) = me.doing.as_mut().filter(|doing| doing.attempt == attempt) else { return };
        self.trace.note(self.now, &(client, reply));
        let (deeds, store) = (doing.deeds, client);
        self.trace
            .line(self.now, || format!("client {store}: {:?} of key {} → {reply:?}", deeds.deed, deeds.key));
        let over = self.now >= doing.call + DEADLINE_MICROS;
        let is_read = matches!(doing.asks, Asks::Read(_));
        match reply {
            Reply::Refused { leader } => {
                me.leader = leader;
                if doing.doubtful && doing.id.is_none() {
                    self.finish(client, Told::Unknown);
                } else if over {
                    self.give_up(client);
                } else {
                    self.retry(client);
                }
            }
            Reply::Unknown => {
                self.unknowns += 1;
                doing.doubtful = true;
                me.leader = None;
                if (is_read || doing.id.is_some()) && !over {
                    self.retry(client);
                } else {
                    self.finish(client, Told::Unknown);
                }
            }
            Reply::Saw { value, version } => self.finish(client, Told::Saw { value, version }),
            Reply::Done { version } => self.finish(client, Told::Done { version }),
            Reply::Conflict { version } => self.finish(client, Told::Conflict { version }),
            Reply::Stale { value, version, age } => {
                self.check_age(deeds.key, (version, value), age);
                self.next_deed(client);
            }
            Reply::Labelled => self.next_deed(client),
        }
    }

    fn retry(&mut self, client: u32) {
        let doing = self.clients[client as usize].doing.clone();
        // A follower's read that can't be answered where it went is the leader's to answer.
        if let Some(Doing { asks: Asks::Read(Mode::Follower | Mode::Labelled), .. }) = doing
            && let Some(doing) = &mut self.clients[client as usize].doing
        {
            doing.asks = Asks::Read(Mode::Leader);
        }
        if let Some(doing) = &mut self.clients[client as usize].doing {
            // Answers to earlier attempts are too late now.
            doing.attempt = 0;
        }
        let delay = self.dice.range(5_000, 60_000);
        self.after(delay, Event::ClientRetry { client });
    }

    pub(crate) fn client_retry(&mut self, client: u32) {
        if self.clients[client as usize].doing.as_ref().is_some_and(|doing| doing.attempt == 0) {
            self.attempt(client);
        }
    }

    /// No attempt can have happened, or it is not known.
    fn give_up(&mut self, client: u32) {
        let doubtful = self.clients[client as usize].doing.as_ref().is_some_and(|doing| doing.doubtful);
        if doubtful { self.finish(client, Told::Unknown) } else { self.next_deed(client) }
    }

    /// Writes the operation into the history, for every key that it touched.
    fn finish(&mut self, client: u32, told: Told) {
        let end = self.now;
        let me = &mut self.clients[client as usize];
        let Some(doing) = me.doing.clone() else { return };
        let operation = |key, asked, told| Operation { client, key, call: doing.call, end, asked, told };
        match &doing.asks {
            Asks::Read(_) => {
                if let Told::Saw { version, .. } = told {
                    me.versions.insert(doing.deeds.key, version);
                }
                self.history.push(operation(doing.deeds.key, Asked::Read, told));
            }
            Asks::Write { writes, expected } => {
                if let Told::Done { version } | Told::Conflict { version } = told {
                    let absent =
                        matches!(doing.deeds.deed, Deed::Delete) && matches!(told, Told::Done { .. });
                    me.versions.insert(doing.deeds.key, if absent { 0 } else { version });
                }
                let puts: Vec<(Key, Value)> = if writes.clear {
                    (0..crate::plan::KEYS as Key).map(|key| (key, None)).collect()
                } else {
                    writes.puts.clone()
                };
                for (key, value) in puts {
                    self.history.push(operation(key, Asked::Write { value, expected: *expected }, told));
                }
            }
        }
        self.next_deed(client);
    }

    fn next_deed(&mut self, client: u32) {
        self.clients[client as usize].doing = None;
        self.after(1, Event::ClientTurn { client });
    }

    /// A stale read of some age shows everything that was acknowledged before that.
    fn check_age(&mut self, key: Key, (version, value): (u64, Value), age: u64) {
        // Clocks run a little apart, and the answer has travelled.
        let before = self.now.saturating_sub(age + age / 10 + 2_000);
        let earlier = self.history.iter().filter(|operation| operation.key == key && operation.end < before);
        let last = earlier.filter_map(|operation| match (operation.asked, operation.told) {
            (Asked::Write { value, .. }, Told::Done { version }) => Some((version, value)),
            _ => None,
        });
        // Absence may come from a tombstone that was collected since.
        let absent_since = |since: u64| {
            value.is_none() && self.ledger.may_be_absent(key, OpId::from_version(since), OpId::MAX)
        };
        let missed = last.max().filter(|last| last.0 > version && !absent_since(last.0));
        if let Some((missed, _)) = missed {
            self.ledger.fail(|| {
                format!("stale reads have their age: key {key} was shown at {version}, {age} µs old, without {missed}")
            });
        }
    }
}
