//! What nodes do without being asked: they compare, collect, move, hand hints over and forget deletions.

use super::traffic::{Call, UnderWay, Waiter};
use super::world::{AHEAD_MS, BASE_MS, GRACE_MS, NAMESPACE, SHARDS, World};
use super::*;
use crate::available::collect::{Collect, Collecting, Moved, Moving};
use crate::available::floors::Own;

/// What is under way, one of a kind at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mending {
    Exchange(StoreId, u16),
    Collect(StoreId),
    Move(u16),
}

/// It, and the map by which it was begun.
pub(super) struct Driven {
    map: usize,
    what: What,
}

enum What {
    Exchange(Exchange),
    Collect(Collect),
    Move(Moving),
}

impl World {
    pub(super) fn hand_off(&mut self, at: usize) {
        let other = self.dice.index(self.nodes.len());
        let to = self.nodes[other].store_id;
        let wall = self.wall_ms(at);
        let (node, boot, map) = (&self.nodes[at], self.nodes[at].boot, self.nodes[at].map);
        let Some(up) = node.up.as_ref().filter(|_| !node.is_paused) else { return };
        let forgotten = up.hybrid.floor(up.hybrid.now_ms(wall).saturating_sub(GRACE_MS));
        for hint in up.hints.next(to, None, 8).expect("hints") {
            if hint.entry.version <= forgotten {
                continue;
            }
            let ask = Ask::Write { key: hint.key.clone(), entry: hint.entry.clone(), why: Why::Mend };
            let call = Call { by: at, boot, map, to, waiter: Waiter::Hint(Box::new(hint)), tries: 0 };
            self.under_way.push(UnderWay::Ask(call, ask));
        }
    }

    pub(super) fn exchange(&mut self, at: usize) {
        let other = self.dice.index(self.nodes.len());
        let place = self.dice.below(u64::from(SHARDS)) as u16;
        if other != at {
            self.compare(at, self.nodes[other].store_id, place);
        }
    }

    /// Whether a node can do anything, among the nodes that it knows.
    fn is_ready(&mut self, at: usize) -> bool {
        if self.nodes[at].is_paused || self.nodes[at].up.is_none() {
            return false;
        }
        self.pulse(at);
        let is_among =
            self.nodes[at].up.as_ref().is_some_and(|up| up.replica.is_among(&self.map_of(at).order));
        if !is_among {
            self.turn(at, false);
        }
        true
    }

    fn compare(&mut self, at: usize, with: StoreId, place: u16) {
        if self.is_ready(at) && self.nodes[at].up.as_ref().is_some_and(|up| !up.replica.doubts()) {
            let (exchange, ask) = Exchange::begin(with, place);
            if let Some(up) = &mut self.nodes[at].up {
                up.touch.compares(with, SHARDS);
            }
            self.drive(at, Mending::Exchange(with, place), What::Exchange(exchange), with, ask);
        }
    }

    /// A replica that lacks something collects it from one of those that have it.
    pub(super) fn collect_some(&mut self, at: usize) {
        if !self.is_ready(at) {
            return;
        }
        let there = self.map_of(at).there.clone();
        let Some(up) = &self.nodes[at].up else { return };
        let lacking = up.replica.lacking();
        lacking
            .iter()
            .filter(|store| !there.contains(store))
            .for_each(|left| up.replica.collected(*left, true));
        let present: Vec<_> = lacking.into_iter().filter(|store| there.contains(store)).collect();
        if !present.is_empty() {
            let with = present[self.dice.index(present.len())];
            self.collect(at, with);
        } else {
            self.note_whole(at);
        }
    }

    fn collect(&mut self, at: usize, with: StoreId) {
        let (collect, ask) = Collect::begin(with);
        self.drive(at, Mending::Collect(with), What::Collect(collect), with, ask);
    }

    fn note_whole(&mut self, at: usize) {
        let (node, order) = (&self.nodes[at], &self.map_of(at).order);
        if let Some(up) = &node.up
            && up.replica.is_whole()
            && up.replica.is_among(order)
        {
            up.standing.is_whole(NAMESPACE, &order.names()).expect("a note");
        }
    }

    /// Entries that others keep move there.
    pub(super) fn move_some(&mut self, at: usize) {
        let place = self.dice.below(u64::from(SHARDS)) as u16;
        self.move_away(at, place);
    }

    pub(super) fn move_away(&mut self, at: usize, place: u16) {
        if !self.is_ready(at) {
            return;
        }
        let mending = Mending::Move(place);
        let Some(up) = &mut self.nodes[at].up else { return };
        if !up.mending.contains_key(&mending) {
            let driven = Driven { map: self.nodes[at].map, what: What::Move(Moving::begin(place)) };
            let boot = self.nodes[at].boot;
            self.nodes[at].up.as_mut().expect("it is up").mending.insert(mending, driven);
            self.go_on(at, boot, mending, None);
        }
    }

    fn drive(&mut self, at: usize, mending: Mending, what: What, to: StoreId, ask: Ask) {
        let (map, boot) = (self.nodes[at].map, self.nodes[at].boot);
        let Some(up) = &mut self.nodes[at].up else { return };
        if let std::collections::btree_map::Entry::Vacant(vacant) = up.mending.entry(mending) {
            vacant.insert(Driven { map, what });
            let call = Call { by: at, boot, map, to, waiter: Waiter::Mending(mending), tries: 0 };
            self.under_way.push(UnderWay::Ask(call, ask));
        }
    }

    pub(super) fn go_on(&mut self, at: usize, boot: u64, mending: Mending, answer: Option<Answer>) {
        let wall = self.wall_ms(at);
        let Some(up) = &mut self.nodes[at].up else { return };
        let Some(mut driven) = up.mending.remove(&mending) else { return };
        let order = &self.maps[driven.map].order;
        let ceiling = up.hybrid.floor(up.hybrid.now_ms(wall) + AHEAD_MS);
        let alone_from = up.hybrid.floor(up.touch.alone_ms() + AHEAD_MS);
        let next = match (&mut driven.what, mending, answer) {
            (What::Exchange(exchange), Mending::Exchange(with, place), Some(answer)) => {
                match exchange.step(answer, &up.replica, order, ceiling) {
                    Ok(Exchanged::Ask(ask)) => Some((with, ask)),
                    Ok(Exchanged::Done { moved, refused, .. }) => {
                        self.moved += moved as u64;
                        if refused == 0 {
                            up.touch.compared(with, place);
                        }
                        None
                    }
                    Err(_) => None,
                }
            }
            (What::Collect(collect), Mending::Collect(with), Some(answer)) => {
                match collect.step(answer, &up.replica, order, (ceiling, alone_from)) {
                    Ok(Collecting::Ask(ask)) => Some((with, ask)),
                    Ok(Collecting::Done(collected)) => {
                        // What was collected is durable before anybody relies on it.
                        let visible = up.store.visible();
                        up.store.commit_at(visible, Durability::Synced).wait().expect("a sync");
                        if up.replica.is_among(order) {
                            collected.note(&up.replica);
                        }
                        None
                    }
                    Ok(Collecting::Failed) | Err(_) => None,
                }
            }
            (What::Move(moving), _, answer) => match moving.step(answer.as_ref(), &up.replica, order) {
                Ok(Moved::Ask(to, ask)) => Some((to, ask)),
                Ok(Moved::Done(_)) | Err(_) => None,
            },
            _ => None,
        };
        if let Some((to, ask)) = next {
            let map = driven.map;
            up.mending.insert(mending, driven);
            let call = Call { by: at, boot, map, to, waiter: Waiter::Mending(mending), tries: 0 };
            self.under_way.push(UnderWay::Ask(call, ask));
        } else {
            self.note_whole(at);
        }
    }

    pub(super) fn own_time(&self, at: usize) -> Option<Own> {
        let up = self.nodes[at].up.as_ref()?;
        let now_ms = up.hybrid.now_ms(self.wall_ms(at));
        let (begun, begun_ms) = up.begun;
        Some(Own { begun_ms, now_ms, awake_for_ms: self.now_ms - begun, grace_ms: GRACE_MS })
    }

    /// A node tells the others that it is awake, forgets deletions as far as it may, and notes when it was in touch.
    pub(super) fn look_at_floors(&mut self, at: usize) {
        if !self.is_ready(at) {
            return;
        }
        let (map, boot, others) = (self.nodes[at].map, self.nodes[at].boot, self.others(at));
        let Some(own) = self.own_time(at) else { return };
        let does_compact = self.dice.below(4) == 0;
        let Some(up) = self.nodes[at].up.as_ref().filter(|up| !up.replica.doubts()) else { return };
        for to in &others {
            let waiter = Waiter::Heard(own.awake_for_ms);
            let call = Call { by: at, boot, map, to: *to, waiter, tries: 0 };
            let ask = Ask::Awake { now_ms: own.now_ms, seen_ms: up.touch.seen_ms(*to) };
            self.under_way.push(UnderWay::Ask(call, ask));
        }
        if let Some(awake_ms) = up.touch.awake_ms(own, &others) {
            up.standing.is_awake(awake_ms).expect("a note");
        }
        let is_fresh = |asked_ms: u64| own.awake_for_ms - asked_ms <= own.leeway_ms();
        let told =
            up.missed.iter().filter(|(store, (asked_ms, _))| others.contains(store) && is_fresh(*asked_ms));
        let mut missed: Vec<_> = told.map(|(_, (_, missed))| missed.clone()).collect();
        missed.push(up.heard.silent(NAMESPACE, &others, own));
        let away = away(others.len() + 1, &missed);
        if let Some(gone_ms) = up.heard.gone_ms(NAMESPACE, &others, &away, own)
            && gone_ms > BASE_MS
        {
            up.replica.set_tombstone_floor(up.hybrid.floor(gone_ms)).expect("a floor");
            if does_compact {
                up.store.flush().expect("a flush");
                up.store.compact().expect("a compaction");
            }
        }
    }

    /// Some nodes, which reach each other, collect, move and compare everything once.
    pub(super) fn mend_all(&mut self, nodes: &[usize]) {
        for at in nodes {
            for _ in 0..self.nodes.len() {
                self.collect_some(*at);
                self.drain();
            }
            for place in 0..SHARDS {
                self.move_away(*at, place);
                self.drain();
                for other in nodes.iter().filter(|other| *other != at) {
                    self.compare(*at, self.nodes[*other].store_id, place);
                    self.drain();
                }
            }
        }
    }

    /// The faults end; what mends runs until nothing is left to mend.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.reunite();
        self.changes.clear();
        let all: Vec<usize> = (0..self.nodes.len()).filter(|at| !self.nodes[*at].is_gone).collect();
        for at in &all {
            self.nodes[*at].skew_ms = 0;
            self.nodes[*at].is_paused = false;
            self.up(*at);
        }
        self.drain();
        self.clients.clear();
        // Clocks that were ahead are caught up with.
        for _ in 0..16 {
            self.now_ms += GRACE_MS / 6;
            for at in &all {
                self.nodes[*at].map = self.maps.len() - 1;
                self.pulse(*at);
            }
            self.drain();
            self.mend_all(&all);
            all.iter().for_each(|at| self.look_at_floors(*at));
            self.drain();
        }
        let mut before = None;
        for _ in 0..20 {
            self.mend_all(&all);
            let now = self.print();
            let mut up = self.nodes.iter().filter_map(|node| node.up.as_ref());
            if before.as_ref() == Some(&now) && up.all(|up| up.replica.is_whole()) {
                return;
            }
            before = Some(now);
        }
        panic!("seed {}: there is always more to mend", self.seed);
    }
}
