//! Clients: each does its deeds one after the other, finds the leader by trying, and writes down what it was told.

use std::collections::{BTreeMap, VecDeque};

use kvorum_sync::{OpId, StoreId};

use super::serve::{Asks, Reply, Request};
use super::{Event, World};
use crate::history::{Asked, Operation, Told};
use crate::plan::{Deed, Deeds, KEYS, Mode, Plan};
use crate::tree::{Key, Value};

const PATIENCE_MICROS: u64 = 1_000_000;
const DEADLINE_MICROS: u64 = 6_000_000;

struct Doing {
    deeds: Deeds,
    call: u64,
    attempt: u64,
    asks: Asks,
}

/// A client.
pub(super) struct Client {
    pub(super) id: u32,
    todo: VecDeque<Deeds>,
    doing: Option<Doing>,
    attempts: u64,
    leader: Option<StoreId>,
    /// The version last seen of each key.
    versions: BTreeMap<Key, u64>,
}

impl Client {
    pub(super) fn new(id: u32, plan: &Plan) -> Client {
        let todo = plan.deeds.iter().copied().filter(|deed| deed.client == id).collect();
        Client { id, todo, doing: None, attempts: 0, leader: None, versions: BTreeMap::new() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.todo.is_empty() && self.doing.is_none()
    }
}

impl World {
    /// A client looks whether something is to be done: its next deed, or the next attempt.
    pub(super) fn client_turn(&mut self, client: u32) {
        let now = self.now;
        let me = &mut self.clients[client as usize];
        if me.doing.is_none() {
            let Some(next) = me.todo.front().copied() else { return };
            if next.at > now {
                self.at(next.at, Event::Turn { client });
                return;
            }
            me.todo.pop_front();
            self.values += 1;
            let fresh = Some(self.values);
            let asks = match next.deed {
                Deed::Read(mode) => Asks::Read(mode),
                Deed::Write | Deed::Pair => Asks::Write { value: fresh, expected: None },
                Deed::Delete => Asks::Write { value: None, expected: None },
                Deed::Clear => Asks::Clear,
                Deed::Conditional => {
                    let expected = me.versions.get(&next.key).copied().unwrap_or(0);
                    Asks::Write { value: fresh, expected: Some(expected) }
                }
            };
            me.doing = Some(Doing { deeds: next, call: now, attempt: 0, asks });
        }
        if self.clients[client as usize].doing.as_ref().is_some_and(|doing| doing.attempt == 0) {
            self.attempt(client);
        }
    }

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
        let request = Request { client, attempt, key: doing.deeds.key, asks: doing.asks.clone() };
        let delay = self.dice.range(50, 1_000);
        self.after(delay, Event::Asks { node, request });
        self.after(PATIENCE_MICROS, Event::Answers { client, attempt, reply: Reply::Unknown });
    }

    /// A reply comes back, or the client has waited long enough.
    pub(super) fn answers(&mut self, client: u32, attempt: u64, reply: Reply) {
        let me = &mut self.clients[client as usize];
        let Some(doing) = me.doing.as_mut().filter(|doing| doing.attempt == attempt) else { return };
        self.trace.note(self.now, &(client, reply));
        let (deeds, over) = (doing.deeds, self.now >= doing.call + DEADLINE_MICROS);
        let (reads, unknown) = (matches!(doing.asks, Asks::Read(_)), matches!(reply, Reply::Unknown));
        self.trace
            .line(self.now, || format!("client {client}: {:?} of key {} → {reply:?}", deeds.deed, deeds.key));
        match reply {
            Reply::Refused { .. } | Reply::Unknown if over && (reads || !unknown) => self.next_deed(client),
            Reply::Refused { leader } => {
                me.leader = leader;
                self.retry(client);
            }
            Reply::Unknown if reads => {
                me.leader = None;
                self.retry(client);
            }
            Reply::Unknown => {
                me.leader = None;
                self.finish(client, Told::Unknown);
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
        if let Some(doing) = &mut self.clients[client as usize].doing {
            // A follower's read that can't be answered where it went is the leader's to answer; answers to earlier attempts are too late.
            if let Asks::Read(mode @ (Mode::Follower | Mode::Labelled)) = &mut doing.asks {
                *mode = Mode::Leader;
            }
            doing.attempt = 0;
        }
        let delay = self.dice.range(5_000, 60_000);
        self.after(delay, Event::Turn { client });
    }

    fn finish(&mut self, client: u32, told: Told) {
        let end = self.now;
        let me = &mut self.clients[client as usize];
        let Some(doing) = &me.doing else { return };
        let call = doing.call;
        let mut write = |key, asked| self.history.push(Operation { client, key, call, end, asked, told });
        match doing.asks {
            Asks::Read(_) => write(doing.deeds.key, Asked::Read),
            Asks::Write { value, expected } => write(doing.deeds.key, Asked::Write { value, expected }),
            Asks::Clear => {
                (0..KEYS as Key).for_each(|key| write(key, Asked::Write { value: None, expected: None }));
            }
        }
        let absent = matches!(doing.asks, Asks::Write { value: None, .. } | Asks::Clear);
        match told {
            Told::Done { .. } if absent => _ = me.versions.insert(doing.deeds.key, 0),
            Told::Saw { version, .. } | Told::Done { version } | Told::Conflict { version } => {
                me.versions.insert(doing.deeds.key, version);
            }
            Told::Unknown => {}
        }
        self.next_deed(client);
    }

    fn next_deed(&mut self, client: u32) {
        self.clients[client as usize].doing = None;
        self.after(1, Event::Turn { client });
    }

    /// A stale read of some age shows everything that was acknowledged before that. (Of a key that is absent nothing can be told: its tombstone may
    /// have gone.)
    fn check_age(&mut self, key: Key, (version, value): (u64, Value), age: u64) {
        // Clocks run a little apart, and the answer has travelled.
        let before = self.now.saturating_sub(age + age / 10 + 2_000);
        let earlier = self.history.iter().filter(|operation| operation.key == key && operation.end < before);
        let last = earlier.filter_map(|operation| match (operation.asked, operation.told) {
            (Asked::Write { .. }, Told::Done { version }) => Some(version),
            _ => None,
        });
        if let Some(missed) = last.max().filter(|last| value.is_some() && *last > version) {
            let (shown, missed) = (OpId::from_version(version), OpId::from_version(missed));
            self.fail(|| {
                format!("stale reads have their age: key {key} was shown at {shown}, {age} µs old, without {missed}")
            });
        }
    }
}
