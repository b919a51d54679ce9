//! The coordinator of one request: it asks all `from` replicas at once, answers with the fastest `ack`, and leaves the others better than it found
//! them.

use super::planted::{Fault, is_planted};
use super::wire::{Answer, Ask, Why};
use super::{Entry, Order};
use bytes::Bytes;
use kvorum_sync::StoreId;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    /// This entry, with the version that the coordinator gave it.
    Write(Entry),
    /// The newest entry of `ack` of so many.
    Read {
        /// Replicas to ask.
        from: u8,
    },
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// A replica answered.
    Answered(StoreId, Answer),
    /// A replica can't be reached, refused, or its answer was lost.
    Failed(StoreId),
    /// The time is over.
    Deadline,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask a replica (this node may be one), and tell what comes of it.
    Ask(StoreId, Ask),
    /// The client's answer; comes once.
    Done(Outcome),
    /// Keep the entry for a replica that has it not, and may be down.
    Hint(StoreId, Entry),
    /// A replica has an older entry or none: write this, and care no more.
    Repair(StoreId, Entry),
}

/// What the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// `ack` replicas have the entry, or a newer one, durably.
    Written {
        /// Version of the newest entry that was there already, and so wins.
        newer: Option<u64>,
    },
    /// The newest entry of `ack` replicas; it may be a tombstone, and may have expired.
    Read(Option<Entry>),
    /// Not enough replicas answered in time. A write may stand on some of them, and may come through later.
    TooFew {
        /// Those that answered, or might have yet when it was known that they are too few.
        at_most: u8,
    },
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Coordination {
    key: Bytes,
    operation: Operation,
    ack: u8,
    /// The whole order of the slot.
    order: Vec<StoreId>,
    /// Of those that were asked, in order: whoever stands behind the first `from` has an older copy that must go.
    replies: Vec<Reply>,
    told: bool,
    over: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reply {
    Pending,
    Failed,
    Stored { newer: u64 },
    Found(Option<Entry>),
}

impl Coordination {
    /// Begins: asks all replicas. `from` is not larger than the order, `ack` not larger than `from`: the door has checked that.
    pub(crate) fn begin(
        key: Bytes,
        slot: u16,
        operation: Operation,
        ack: u8,
        order: &Order,
    ) -> (Coordination, Vec<Step>) {
        let order = order.of_slot(slot);
        let mut coordination =
            Coordination { key, operation, ack, order, replies: Vec::new(), told: false, over: false };
        let mut steps = Vec::new();
        coordination.ask_up_to(coordination.from(), &mut steps);
        // An order that is shorter than it was when the door looked.
        coordination.settle(&mut steps);
        (coordination, steps)
    }

    /// Whether nothing is left to be done.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Takes in what happened.
    pub(crate) fn step(&mut self, input: Input) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.over {
            return steps;
        }
        match input {
            Input::Deadline => {
                for reply in self.replies.iter_mut().filter(|reply| **reply == Reply::Pending) {
                    *reply = Reply::Failed;
                }
            }
            Input::Failed(store) => self.hear(store, Reply::Failed),
            Input::Answered(store, Answer::Stored { newer, wider }) => {
                self.hear(store, Reply::Stored { newer });
                let is_newest = newer == 0;
                if is_newest && matches!(self.operation, Operation::Write(_)) {
                    self.ask_up_to(wider, &mut steps);
                }
            }
            Input::Answered(store, Answer::Found(found)) => self.hear(store, Reply::Found(found)),
            Input::Answered(store, _) => self.hear(store, Reply::Failed),
        }
        self.settle(&mut steps);
        steps
    }

    fn from(&self) -> u8 {
        match &self.operation {
            Operation::Write(entry) => entry.from,
            Operation::Read { from } => *from,
        }
    }

    fn ask_up_to(&mut self, count: u8, steps: &mut Vec<Step>) {
        for store in self.order.iter().take(usize::from(count)).skip(self.replies.len()) {
            let key = self.key.clone();
            steps.push(Step::Ask(
                *store,
                match &self.operation {
                    Operation::Write(entry) => {
                        Ask::Write { key, entry: entry.clone(), why: Why::Client { ack: self.ack } }
                    }
                    Operation::Read { from } => Ask::Read { key, ack: self.ack, from: *from },
                },
            ));
            self.replies.push(Reply::Pending);
        }
    }

    fn hear(&mut self, store: StoreId, reply: Reply) {
        let place = self.order.iter().position(|other| *other == store);
        let kind_fits = match (&reply, &self.operation) {
            (Reply::Stored { .. }, operation) => matches!(operation, Operation::Write(_)),
            (Reply::Found(_), operation) => matches!(operation, Operation::Read { .. }),
            _ => true,
        };
        if let Some(place) = place.and_then(|place| self.replies.get_mut(place))
            && *place == Reply::Pending
        {
            *place = if kind_fits { reply } else { Reply::Failed };
        }
    }

    fn settle(&mut self, steps: &mut Vec<Step>) {
        let counted = || self.replies.iter().take(usize::from(self.from()));
        let answered = counted()
            .filter(|reply| match reply {
                Reply::Pending => false,
                Reply::Failed => is_planted(Fault::HintIsAck),
                _ => true,
            })
            .count() as u8;
        let pending = counted().filter(|reply| **reply == Reply::Pending).count() as u8;
        if !self.told {
            let outcome = if answered >= self.ack {
                Some(self.outcome())
            } else if answered + pending < self.ack {
                Some(Outcome::TooFew { at_most: answered + pending })
            } else {
                None
            };
            self.told = outcome.is_some();
            steps.extend(outcome.map(Step::Done));
        }
        if self.replies.iter().all(|reply| *reply != Reply::Pending) {
            self.over = true;
            self.mend(steps);
        }
    }

    fn outcome(&self) -> Outcome {
        match &self.operation {
            Operation::Read { .. } => Outcome::Read(self.newest()),
            Operation::Write(_) => {
                let newer = self.replies.iter().filter_map(|reply| match reply {
                    Reply::Stored { newer } => Some(*newer),
                    _ => None,
                });
                Outcome::Written { newer: newer.max().filter(|newer| *newer > 0) }
            }
        }
    }

    /// The newest entry among the answers.
    fn newest(&self) -> Option<Entry> {
        let found = self.replies.iter().filter_map(|reply| match reply {
            Reply::Found(found) => found.as_ref(),
            _ => None,
        });
        if is_planted(Fault::FirstAnswerWins) {
            return found.into_iter().next().cloned();
        }
        let found = found.filter(|entry| entry.value.is_some() || !is_planted(Fault::DeletionIsNoAnswer));
        found.max_by_key(|entry| (entry.version, !entry.shadow)).cloned()
    }

    /// All have answered or failed: hints for those that missed a write, repair for those that a read found behind.
    fn mend(&self, steps: &mut Vec<Step>) {
        let all = || self.order.iter().zip(&self.replies).zip(0_u8..);
        match &self.operation {
            Operation::Write(entry) => {
                let missed = all().filter(|((_, reply), _)| **reply == Reply::Failed);
                steps.extend(missed.map(|((store, _), _)| Step::Hint(*store, entry.clone())));
            }
            Operation::Read { .. } => {
                let Some(newest) = self.newest() else { return };
                let behind = all().filter(|((_, reply), rank)| match reply {
                    // What only remembers that a copy is gone does so as well by an older version.
                    Reply::Found(Some(entry)) if entry.version < newest.version => {
                        !entry.shadow || *rank < newest.from
                    }
                    // It should have the entry itself.
                    Reply::Found(found) if found.as_ref().is_none_or(|entry| entry.shadow) => {
                        *rank < newest.from && !newest.shadow
                    }
                    _ => false,
                });
                steps.extend(behind.map(|((store, _), _)| Step::Repair(*store, newest.clone())));
            }
        }
    }
}

#[cfg(test)]
#[path = "coordinator_tests.rs"]
mod tests;
