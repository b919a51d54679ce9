//! Virtual time: what is to happen, and when; and the ways between nodes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::dice::Dice;
use crate::plan::Plan;

/// What is to happen, in order of time; at the same time in the order in which it was added.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    order: BinaryHeap<Reverse<(u64, u64)>>,
    waiting: BTreeMap<u64, E>,
    numbers: u64,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { order: BinaryHeap::new(), waiting: BTreeMap::new(), numbers: 0 }
    }

    pub(crate) fn add(&mut self, time: u64, event: E) {
        self.numbers += 1;
        self.order.push(Reverse((time, self.numbers)));
        self.waiting.insert(self.numbers, event);
    }

    /// Takes out what is next, unless it lies beyond `until`.
    pub(crate) fn next(&mut self, until: u64) -> Option<(u64, E)> {
        let Reverse((time, number)) = self.order.peek().copied()?;
        if time > until {
            return None;
        }
        self.order.pop();
        self.waiting.remove(&number).map(|event| (time, event))
    }
}

/// Ways between nodes on which nothing gets through, each with how many faults hold it.
#[derive(Debug, Default)]
pub(crate) struct Cuts(BTreeMap<(usize, usize), u32>);

impl Cuts {
    pub(crate) fn add(&mut self, way: (usize, usize)) {
        *self.0.entry(way).or_insert(0) += 1;
    }

    /// A fault ends. Answers whether that opens the way.
    pub(crate) fn heal(&mut self, way: (usize, usize)) -> bool {
        let Some(count) = self.0.get_mut(&way) else { return false };
        *count -= 1;
        let opens = *count == 0;
        if opens {
            self.0.remove(&way);
        }
        opens
    }

    pub(crate) fn has(&self, way: (usize, usize)) -> bool {
        self.0.contains_key(&way)
    }

    /// Whether two nodes can have a connection.
    pub(crate) fn part(&self, one: usize, other: usize) -> bool {
        self.has((one, other)) || self.has((other, one))
    }

    /// For how long each copy of a message that is sent now is under way. None arrives if all are lost.
    pub(crate) fn flights(&self, way: (usize, usize), now: u64, plan: &Plan, dice: &mut Dice) -> Vec<u64> {
        let stormy = now < plan.heal_at;
        let copies = if stormy && dice.chance(plan.duplicates) { 2 } else { 1 };
        let mut flights = Vec::with_capacity(copies);
        for _ in 0..copies {
            if self.has(way) || (stormy && dice.chance(plan.loss)) {
                continue;
            }
            let late = stormy && dice.chance(plan.late);
            flights.push(if late { dice.range(2_000, 400_000) } else { dice.range(100, 1_500) });
        }
        flights
    }
}
