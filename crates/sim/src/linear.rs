//! Is a history linearizable? The algorithm of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memoisation
//! ("Testing for linearizability", 2016): a depth-first search for an order of the operations that respects real time and the register's
//! meaning, which remembers every (set of ordered operations, state) that it has been in.
//!
//! Keys are independent, so each is searched alone. A write of unknown outcome may take effect at any moment after its call, or never.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::history::{Asked, NO_VERSION, Operation, Told};

/// States that one search may visit before it gives up.
pub const STATES_MAX: usize = 2_000_000;

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none for this key.
    Violated {
        /// The key.
        key: u32,
        /// Its operations by time of call.
        operations: Vec<Operation>,
    },
    /// Too large to tell: [`STATES_MAX`] states were visited.
    TooLarge {
        /// The key.
        key: u32,
    },
}

/// Checks the history of every key.
#[must_use]
pub fn check(history: &[Operation]) -> Verdict {
    let keys: BTreeSet<u32> = history.iter().map(|operation| operation.key).collect();
    for key in keys {
        let of_key: Vec<Operation> =
            history.iter().copied().filter(|operation| operation.key == key).collect();
        let mut operations = relevant(of_key);
        operations.sort_by_key(|operation| (operation.call, operation.client));
        match Search::new(&operations).run() {
            Some(true) => {}
            Some(false) => return Verdict::Violated { key, operations },
            None => return Verdict::TooLarge { key },
        }
    }
    Verdict::Linearizable
}

/// Drops what explains nothing: reads without an answer, and writes of unknown outcome that no answer shows. Leaving such a write out of
/// an order breaks nothing in it, since no operation saw it.
fn relevant(operations: Vec<Operation>) -> Vec<Operation> {
    let mut values = BTreeMap::new();
    for operation in &operations {
        if let Told::Saw { value: Some(value), version } = operation.told {
            values.insert(value, version);
        }
    }
    let shown: BTreeSet<u64> = operations
        .iter()
        .filter_map(|operation| match operation.told {
            Told::Saw { version, .. } | Told::Conflict { version } => Some(version),
            _ => None,
        })
        .chain(operations.iter().filter_map(|operation| match operation.asked {
            Asked::Write { expected, .. } => expected,
            Asked::Read => None,
        }))
        .collect();
    let done: BTreeSet<u64> = operations
        .iter()
        .filter_map(
            |operation| if let Told::Done { version } = operation.told { Some(version) } else { None },
        )
        .collect();
    let absent = shown.contains(&NO_VERSION);
    // Versions that answers show, though no acknowledged write has them: some write of unknown outcome does.
    let orphans = shown.iter().any(|version| *version != NO_VERSION && !done.contains(version));
    operations
        .into_iter()
        .filter(|operation| match (operation.asked, operation.told) {
            (Asked::Read, Told::Unknown) => false,
            (Asked::Write { value: Some(value), .. }, Told::Unknown) => {
                values.contains_key(&value) || orphans
            }
            (Asked::Write { value: None, .. }, Told::Unknown) => absent || orphans,
            _ => true,
        })
        .collect()
}

/// What the register holds: the value, and its version if some answer told it, else only that it is above `floor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Register {
    value: Option<u64>,
    version: Option<u64>,
    floor: u64,
}

impl Register {
    const NEW: Self = Self { value: None, version: Some(NO_VERSION), floor: 0 };

    /// Whether clients see this version; what is absent has version 0 for them.
    fn is_at(self, version: u64) -> bool {
        if self.value.is_none() {
            return version == NO_VERSION;
        }
        self.version.map_or(version > self.floor, |own| own == version)
    }

    /// With the version that an answer told.
    fn pinned(self, version: u64) -> Self {
        if version == NO_VERSION { self } else { Self { version: Some(version), floor: version, ..self } }
    }

    /// The next write's version is above this.
    fn least(self, expected: Option<u64>) -> u64 {
        expected.filter(|version| *version != NO_VERSION).or(self.version).unwrap_or(self.floor)
    }

    /// The register after the operation, or `None` if the answer can't be explained here.
    fn after(self, operation: &Operation) -> Option<Self> {
        match (operation.asked, operation.told) {
            (Asked::Read, Told::Saw { value, version }) => {
                (self.value == value && self.is_at(version)).then_some(self.pinned(version))
            }
            (Asked::Write { value, expected }, Told::Done { version }) => {
                let allowed = expected.is_none_or(|expected| self.is_at(expected));
                let before = self.least(expected);
                (allowed && version > before).then_some(Self {
                    value,
                    version: Some(version),
                    floor: version,
                })
            }
            (Asked::Write { value, expected }, Told::Unknown) => {
                let allowed = expected.is_none_or(|expected| self.is_at(expected));
                let floor = self.least(expected);
                allowed.then_some(Self { value, version: None, floor })
            }
            (Asked::Write { expected: Some(expected), .. }, Told::Conflict { version }) => (version
                != expected
                && self.is_at(version))
            .then_some(Self { version: Some(version), floor: version, ..self }),
            _ => None,
        }
    }
}

/// An event of the history: an operation's call or its end.
#[derive(Clone, Copy)]
struct Event {
    operation: usize,
    is_call: bool,
    next: usize,
    before: usize,
    /// Where the operation's end stands (of a call).
    end: usize,
}

/// The search over a doubly linked list of events, from which ordered operations are lifted.
struct Search<'a> {
    operations: &'a [Operation],
    /// Event 0 is the head, the last one the tail.
    events: Vec<Event>,
    ordered: Vec<u64>,
    seen: HashSet<(Vec<u64>, Register)>,
    taken: Vec<(usize, Register)>,
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        // At one moment calls come before ends: then the operations overlap, which allows more orders.
        let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(operations.len() * 2);
        for (at, operation) in operations.iter().enumerate() {
            let end = if operation.told == Told::Unknown { u64::MAX } else { operation.end };
            order.push((operation.call, false, at));
            order.push((end, true, at));
        }
        order.sort_unstable();
        let mut events = vec![Event { operation: usize::MAX, is_call: false, next: 1, before: 0, end: 0 }];
        for (at, (_, is_end, operation)) in order.iter().enumerate() {
            events.push(Event { operation: *operation, is_call: !is_end, next: at + 2, before: at, end: 0 });
        }
        events.push(Event {
            operation: usize::MAX,
            is_call: false,
            next: usize::MAX,
            before: order.len(),
            end: 0,
        });
        for at in 1..=order.len() {
            if !events[at].is_call {
                let call = (1..at)
                    .find(|call| events[*call].is_call && events[*call].operation == events[at].operation);
                events[call.unwrap_or(0)].end = at;
            }
        }
        let words = operations.len().div_ceil(64);
        Self { operations, events, ordered: vec![0; words], seen: HashSet::new(), taken: Vec::new() }
    }

    /// Whether there is an order; `None` if the search grew too large.
    fn run(mut self) -> Option<bool> {
        let mut register = Register::NEW;
        let mut at = self.events[0].next;
        while self.events[at].operation != usize::MAX {
            let Event { operation, is_call, next, .. } = self.events[at];
            if is_call {
                let after =
                    register.after(&self.operations[operation]).filter(|after| self.enter(operation, *after));
                if let Some(after) = after {
                    self.taken.push((at, register));
                    register = after;
                    self.lift(at);
                    at = self.events[0].next;
                } else {
                    at = next;
                }
            } else if self.operations[operation].told == Told::Unknown {
                // Only ends of unknown outcomes are left: all that had to be ordered is.
                return Some(true);
            } else {
                let Some((back, before)) = self.taken.pop() else { return Some(false) };
                register = before;
                self.ordered[self.events[back].operation / 64] &= !(1 << (self.events[back].operation % 64));
                self.unlift(back);
                at = self.events[back].next;
            }
            if self.seen.len() > STATES_MAX {
                return None;
            }
        }
        Some(true)
    }

    /// Marks the operation as ordered, if that leads somewhere new.
    fn enter(&mut self, operation: usize, after: Register) -> bool {
        self.ordered[operation / 64] |= 1 << (operation % 64);
        let new = self.seen.insert((self.ordered.clone(), after));
        if !new {
            self.ordered[operation / 64] &= !(1 << (operation % 64));
        }
        new
    }

    fn lift(&mut self, call: usize) {
        for at in [call, self.events[call].end] {
            let Event { next, before, .. } = self.events[at];
            self.events[before].next = next;
            self.events[next].before = before;
        }
    }

    fn unlift(&mut self, call: usize) {
        for at in [self.events[call].end, call] {
            let Event { next, before, .. } = self.events[at];
            self.events[before].next = at;
            self.events[next].before = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    fn write(client: u32, call: u64, end: u64, value: u64, told: Told) -> Operation {
        Operation {
            client,
            key: 1,
            call,
            end,
            asked: Asked::Write { value: Some(value), expected: None },
            told,
        }
    }

    fn read(client: u32, call: u64, end: u64, value: Option<u64>, version: u64) -> Operation {
        Operation { client, key: 1, call, end, asked: Asked::Read, told: Told::Saw { value, version } }
    }

    fn good(history: &[Operation]) -> bool {
        check(history) == Verdict::Linearizable
    }

    #[test]
    fn a_read_sees_the_write_before_it() {
        let done = Told::Done { version: 1 };
        assert!(good(&[write(1, 0, 10, 7, done), read(2, 20, 30, Some(7), 1)]));
        assert!(!good(&[write(1, 0, 10, 7, done), read(2, 20, 30, None, 0)]), "a stale read");
        assert!(good(&[write(1, 0, 10, 7, done), read(2, 5, 30, None, 0)]), "they overlap");
    }

    #[test]
    fn reads_never_go_back() {
        let w = write(1, 0, 100, 7, Told::Done { version: 1 });
        assert!(good(&[w, read(2, 10, 20, None, 0), read(2, 30, 40, Some(7), 1)]));
        assert!(!good(&[w, read(2, 10, 20, Some(7), 1), read(3, 30, 40, None, 0)]));
    }

    #[test]
    fn an_unknown_write_may_come_late_or_never_but_only_once() {
        let unknown = write(1, 0, 1, 7, Told::Unknown);
        let other = write(2, 10, 20, 8, Told::Done { version: 5 });
        assert!(good(&[unknown, other, read(3, 30, 40, Some(8), 5)]));
        assert!(good(&[unknown, other, read(3, 30, 40, Some(8), 5), read(3, 50, 60, Some(7), 6)]));
        assert!(
            !good(&[unknown, other, read(3, 30, 40, Some(7), 6), read(3, 50, 60, Some(8), 5)]),
            "back again"
        );
        assert!(
            !good(&[read(3, 0, 10, Some(7), 6), write(1, 20, 21, 7, Told::Unknown)]),
            "seen before its call"
        );
    }

    #[test]
    fn conditions_hold_at_the_moment_of_the_write() {
        let first = write(1, 0, 10, 7, Told::Done { version: 1 });
        let conditional = |client, told| Operation {
            client,
            key: 1,
            call: 20,
            end: 30,
            asked: Asked::Write { value: Some(u64::from(client)), expected: Some(1) },
            told,
        };
        assert!(good(&[
            first,
            conditional(2, Told::Done { version: 2 }),
            conditional(3, Told::Conflict { version: 2 })
        ]));
        let both =
            [first, conditional(2, Told::Done { version: 2 }), conditional(3, Told::Done { version: 3 })];
        assert!(!good(&both), "only one of two can win");
    }

    #[test]
    fn versions_rise() {
        let history =
            [write(1, 0, 10, 7, Told::Done { version: 5 }), write(1, 20, 30, 8, Told::Done { version: 4 })];
        assert!(!good(&history));
    }

    /// Every order of every subset that leaves out unknown outcomes only, tried one by one.
    fn brute(operations: &[Operation], left: u32, register: Register) -> bool {
        let must =
            (0..operations.len()).filter(|at| left & 1 << at != 0 && operations[*at].told != Told::Unknown);
        let Some(first_end) = must.map(|at| operations[at].end).min() else { return true };
        (0..operations.len()).filter(|at| left & 1 << at != 0 && operations[*at].call <= first_end).any(
            |at| {
                register
                    .after(&operations[at])
                    .is_some_and(|after| brute(operations, left & !(1 << at), after))
            },
        )
    }

    fn random_history(dice: &mut Dice) -> Vec<Operation> {
        let count = dice.range(2, 7);
        (0..count)
            .map(|at| {
                let call = dice.range(0, 20);
                let end = call + dice.range(1, 12);
                let client = u32::try_from(at).expect("few");
                let version = dice.range(1, 4);
                if dice.chance(0.5) {
                    let value = if version == 3 { None } else { Some(dice.range(0, count)) };
                    read(client, call, end, value, if value.is_none() { 0 } else { version })
                } else {
                    let expected = dice.chance(0.3).then(|| dice.range(0, 4));
                    let told = match dice.range(0, 4) {
                        0 => Told::Unknown,
                        1 if expected.is_some() => Told::Conflict { version },
                        _ => Told::Done { version },
                    };
                    Operation {
                        asked: Asked::Write { value: Some(at), expected },
                        ..write(client, call, end, at, told)
                    }
                }
            })
            .collect()
    }

    #[test]
    fn agrees_with_trying_every_order() {
        let (mut yes, mut no) = (0, 0);
        for seed in 0..20_000 {
            let history = random_history(&mut Dice::new(seed));
            let all = (1 << history.len()) - 1;
            let expected = brute(&history, all, Register::NEW);
            assert_eq!(good(&history), expected, "seed {seed}: {history:#?}");
            if expected { yes += 1 } else { no += 1 }
        }
        assert!(yes > 1000 && no > 1000, "both verdicts are common: {yes} and {no}");
    }
}
