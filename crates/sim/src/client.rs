//! Clients: each does its deeds one after the other, finds the leader by trying, and writes down what it was told.

use std::collections::{BTreeMap, VecDeque};

use kvorum_sync::{OpId, StoreId};

use crate::dice::Dice;
use crate::history::{Asked, Operation, Told};
use crate::plan::{Deed, Deeds, KEYS, Mode, Plan};
use crate::trace::Trace;
use crate::tree::{Key, REQUESTS, Value, Writes};

/// How long a client waits for an answer before it gives up on an attempt.
const PATIENCE_MICROS: u64 = 1_000_000;
/// How long it goes on trying.
const DEADLINE_MICROS: u64 = 6_000_000;

/// A client's request, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) client: u32,
    pub(crate) attempt: u64,
    pub(crate) key: Key,
    pub(crate) asks: Asks,
    /// The key of the request's record, if it carries an id.
    pub(crate) id: Option<Key>,
    /// What the evaluation saw: the answer, once it may go out.
    pub(crate) answer: Option<Reply>,
}

/// What it wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asks {
    Read(Mode),
    Write { writes: Writes, expected: Option<u64> },
}

/// The answer, as it travels back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    Saw {
        value: Value,
        version: u64,
    },
    /// The answer of a stale read, with its age (microseconds).
    Stale {
        value: Value,
        version: u64,
        age: u64,
    },
    /// The answer of a labelled read while a write is in flight.
    Labelled,
    Done {
        version: u64,
    },
    Conflict {
        version: u64,
    },
    /// Surely not executed; who leads, if known.
    Refused {
        leader: Option<StoreId>,
    },
    Unknown,
}

/// The version that clients see: a key that is absent has version 0.
pub(crate) fn shown(version: u64, value: Value) -> u64 {
    if value.is_some() { version } else { 0 }
}

/// The writes together with the record of the request's id.
pub(crate) fn with_record(writes: &Writes, id: Option<Key>) -> Writes {
    let mut all = writes.clone();
    if let Some(id) = id {
        debug_assert!(id >= REQUESTS);
        all.puts.push((id, Some(u64::from(id))));
    }
    all
}

/// Something that a client wants to happen later.
#[derive(Clone, Debug)]
pub(crate) enum Later {
    /// It looks whether its next deed is due.
    Turn { client: u32 },
    /// It tries again.
    Retry { client: u32 },
    /// It has waited long enough.
    Timeout { client: u32, attempt: u64 },
    /// A request arrives at a node.
    Asks { node: usize, request: Request },
}

/// What clients see of the world, and where what they do goes.
pub(crate) struct Scene<'w> {
    pub(crate) now: u64,
    pub(crate) dice: &'w mut Dice,
    pub(crate) trace: &'w mut Trace,
    /// The store of each node.
    pub(crate) stores: Vec<StoreId>,
    /// What is to happen, and when.
    pub(crate) later: Vec<(u64, Later)>,
    /// Whether an item at or above this one may have left the key absent, with nothing to tell it from one that was never written.
    pub(crate) may_be_absent: &'w dyn Fn(Key, OpId) -> bool,
    /// A promise that was broken.
    pub(crate) failure: Option<String>,
}

impl Scene<'_> {
    fn after(&mut self, micros: u64, later: Later) {
        self.later.push((self.now + micros, later));
    }
}

/// An operation under way.
#[derive(Clone, Debug)]
struct Doing {
    deeds: Deeds,
    call: u64,
    attempt: u64,
    asks: Asks,
    id: Option<Key>,
    /// An attempt's outcome is unknown: it may have happened.
    doubtful: bool,
}

/// A client.
#[derive(Clone, Debug)]
struct Client {
    id: u32,
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
    fn new(id: u32, plan: &Plan) -> Self {
        let todo = plan.deeds.iter().copied().filter(|deed| deed.client == id).collect();
        Self { id, todo, doing: None, attempts: 0, operations: 0, leader: None, versions: BTreeMap::new() }
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

/// All clients, and what they were told.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    list: Vec<Client>,
    values: u64,
    pub(crate) history: Vec<Operation>,
    /// Outcomes that clients were told are unknown.
    pub(crate) unknowns: u64,
}

impl Clients {
    pub(crate) fn new(plan: &Plan) -> Self {
        let list = (0..plan.clients).map(|id| Client::new(id, plan)).collect();
        Self { list, values: 0, history: Vec::new(), unknowns: 0 }
    }

    /// One that has not done all of its deeds.
    pub(crate) fn busy(&self) -> Option<u32> {
        let is_done = |client: &Client| client.todo.is_empty() && client.doing.is_none();
        self.list.iter().find(|client| !is_done(client)).map(|client| client.id)
    }

    /// What a client wanted to happen is due. Requests are the nodes' to take.
    pub(crate) fn go_on(&mut self, later: &Later, scene: &mut Scene<'_>) {
        match *later {
            Later::Turn { client } => self.turn(client, scene),
            Later::Retry { client } => self.again(client, scene),
            Later::Timeout { client, attempt } => self.answers(client, attempt, Reply::Unknown, scene),
            Later::Asks { .. } => {}
        }
    }

    /// A client looks whether its next deed is due.
    fn turn(&mut self, client: u32, scene: &mut Scene<'_>) {
        let me = &mut self.list[client as usize];
        if me.doing.is_some() {
            return;
        }
        let Some(next) = me.todo.front().copied() else { return };
        if next.at > scene.now {
            scene.later.push((next.at, Later::Turn { client }));
            return;
        }
        me.todo.pop_front();
        me.operations += 1;
        let asks = me.asks(next, &mut self.values);
        let id = next
            .request_id
            .then(|| REQUESTS + (client << 12) + me.operations)
            .filter(|_| matches!(asks, Asks::Write { .. }));
        me.doing = Some(Doing { deeds: next, call: scene.now, attempt: 0, asks, id, doubtful: false });
        self.attempt(client, scene);
    }

    /// Sends the operation to the node that seems right.
    fn attempt(&mut self, client: u32, scene: &mut Scene<'_>) {
        let me = &mut self.list[client as usize];
        let guess = me.leader.and_then(|leader| scene.stores.iter().position(|store| *store == leader));
        let any = scene.dice.index(scene.stores.len());
        let guess = guess.filter(|_| scene.dice.chance(0.8));
        me.attempts += 1;
        let attempt = me.attempts;
        let Some(doing) = &mut me.doing else { return };
        doing.attempt = attempt;
        let anywhere = matches!(doing.asks, Asks::Read(Mode::Follower | Mode::Labelled | Mode::Stale));
        let node = guess.filter(|_| !anywhere).unwrap_or(any);
        let (key, asks, id) = (doing.deeds.key, doing.asks.clone(), doing.id);
        let request = Request { client, attempt, key, asks, id, answer: None };
        let delay = scene.dice.range(50, 1_000);
        scene.after(delay, Later::Asks { node, request });
        scene.after(PATIENCE_MICROS, Later::Timeout { client, attempt });
    }

    /// A reply comes back (or the client has waited long enough).
    pub(crate) fn answers(&mut self, client: u32, attempt: u64, reply: Reply, scene: &mut Scene<'_>) {
        let me = &mut self.list[client as usize];
        let Some(doing) = me.doing.as_mut().filter(|doing| doing.attempt == attempt) else { return };
        scene.trace.note(scene.now, &(client, reply));
        let deeds = doing.deeds;
        scene.trace.line(scene.now, || {
            format!("client {client}: {:?} of key {} → {reply:?}", deeds.deed, deeds.key)
        });
        let over = scene.now >= doing.call + DEADLINE_MICROS;
        let is_read = matches!(doing.asks, Asks::Read(_));
        match reply {
            Reply::Refused { leader } => {
                me.leader = leader;
                if doing.doubtful && doing.id.is_none() {
                    self.finish(client, Told::Unknown, scene);
                } else if over {
                    self.give_up(client, scene);
                } else {
                    self.retry(client, scene);
                }
            }
            Reply::Unknown => {
                self.unknowns += 1;
                doing.doubtful = true;
                me.leader = None;
                if (is_read || doing.id.is_some()) && !over {
                    self.retry(client, scene);
                } else {
                    self.finish(client, Told::Unknown, scene);
                }
            }
            Reply::Saw { value, version } => self.finish(client, Told::Saw { value, version }, scene),
            Reply::Done { version } => self.finish(client, Told::Done { version }, scene),
            Reply::Conflict { version } => self.finish(client, Told::Conflict { version }, scene),
            Reply::Stale { value, version, age } => {
                self.check_age(deeds.key, (version, value), age, scene);
                self.next_deed(client, scene);
            }
            Reply::Labelled => self.next_deed(client, scene),
        }
    }

    fn retry(&mut self, client: u32, scene: &mut Scene<'_>) {
        if let Some(doing) = &mut self.list[client as usize].doing {
            // A follower's read that can't be answered where it went is the leader's to answer; answers to earlier attempts are too late.
            if let Asks::Read(mode @ (Mode::Follower | Mode::Labelled)) = &mut doing.asks {
                *mode = Mode::Leader;
            }
            doing.attempt = 0;
        }
        let delay = scene.dice.range(5_000, 60_000);
        scene.after(delay, Later::Retry { client });
    }

    /// It is time to try again.
    fn again(&mut self, client: u32, scene: &mut Scene<'_>) {
        if self.list[client as usize].doing.as_ref().is_some_and(|doing| doing.attempt == 0) {
            self.attempt(client, scene);
        }
    }

    /// No attempt can have happened, or it is not known.
    fn give_up(&mut self, client: u32, scene: &mut Scene<'_>) {
        let doubtful = self.list[client as usize].doing.as_ref().is_some_and(|doing| doing.doubtful);
        if doubtful { self.finish(client, Told::Unknown, scene) } else { self.next_deed(client, scene) }
    }

    /// Writes the operation into the history, for every key that it touched.
    fn finish(&mut self, client: u32, told: Told, scene: &mut Scene<'_>) {
        let end = scene.now;
        let me = &mut self.list[client as usize];
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
                    (0..KEYS as Key).map(|key| (key, None)).collect()
                } else {
                    writes.puts.clone()
                };
                for (key, value) in puts {
                    self.history.push(operation(key, Asked::Write { value, expected: *expected }, told));
                }
            }
        }
        self.next_deed(client, scene);
    }

    fn next_deed(&mut self, client: u32, scene: &mut Scene<'_>) {
        self.list[client as usize].doing = None;
        scene.after(1, Later::Turn { client });
    }

    /// A stale read of some age shows everything that was acknowledged before that.
    fn check_age(&self, key: Key, (version, value): (u64, Value), age: u64, scene: &mut Scene<'_>) {
        // Clocks run a little apart, and the answer has travelled.
        let before = scene.now.saturating_sub(age + age / 10 + 2_000);
        let earlier = self.history.iter().filter(|operation| operation.key == key && operation.end < before);
        let last = earlier.filter_map(|operation| match (operation.asked, operation.told) {
            (Asked::Write { .. }, Told::Done { version }) => Some(version),
            _ => None,
        });
        // Absence may come from a tombstone that was collected since.
        let absent_since =
            |since: u64| value.is_none() && (scene.may_be_absent)(key, OpId::from_version(since));
        let missed = last.max().filter(|last| *last > version && !absent_since(*last));
        if let Some(missed) = missed {
            let text = format!(
                "stale reads have their age: key {key} was shown at {version}, {age} µs old, without {missed}"
            );
            scene.failure.get_or_insert(text);
        }
    }
}
