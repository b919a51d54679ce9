//! What a replica lacks comes from the others, one after the other; and what it keeps no more goes to those that keep it now.

use super::anti_entropy::Way;
use super::planted::{Fault, is_planted};
use super::replica::{LISTED_MAX, Refusal, Replica};
use super::{Answer, Ask, Entry, Exchange, Exchanged, Order, Why};
use bytes::Bytes;
use kvorum_model::slot;
use kvorum_sync::StoreId;
use std::collections::VecDeque;

/// Everything that another node has, collected.
pub(super) struct Collect {
    peer: StoreId,
    place: u16,
    exchange: Option<Exchange>,
    way: Way,
    is_whole: bool,
    /// Something there is still of the future.
    refused: usize,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Collecting {
    /// Ask that node.
    Ask(Ask),
    /// It has nothing more. What came must be durable before [`Collected::note`] says that it is here.
    Done(Collected),
    /// It can't be, or not now.
    Failed,
}

/// A node was collected from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Collected {
    peer: StoreId,
    is_whole: bool,
}

impl Collected {
    /// From now on the replica has what that node had.
    pub(super) fn note(&self, replica: &Replica) {
        replica.collected(self.peer, self.is_whole);
    }
}

impl Collect {
    /// Begins.
    pub(super) fn begin(peer: StoreId) -> (Collect, Ask) {
        let way = Way { takes_over: true, ..Way::default() };
        let collect = Collect { peer, place: 0, exchange: None, way, is_whole: false, refused: 0 };
        (collect, Ask::Standing)
    }

    /// Takes in the answer to the last question. `alone_from`: what a replica that doubts holds above this version was written when nobody else could
    /// know of it, and so delete it.
    pub(super) fn step(
        &mut self,
        answer: Answer,
        replica: &Replica,
        order: &Order,
        (ceiling, alone_from): (u64, u64),
    ) -> Result<Collecting, Refusal> {
        let (exchange, ask) = match (self.exchange.take(), answer) {
            (None, Answer::Standing(stands)) => {
                replica.turned(self.peer, stands.is_whole);
                self.is_whole = stands.is_whole;
                if replica.doubts() && stands.doubts {
                    // Both slept: neither knows more than the other.
                    return Ok(self.done());
                }
                // That something is missing says that it was deleted only of who should have all.
                let judges = stands.is_whole || is_planted(Fault::EmptyJudges);
                self.way.only_takes = replica.doubts() && !judges;
                if replica.doubts() && judges {
                    self.way.deleted_upto = stands.floor.min(alone_from);
                    self.way.gives_over = true;
                }
                Exchange::collect(self.peer, 0, self.way)
            }
            (Some(mut exchange), answer) => match exchange.step(answer, replica, order, ceiling)? {
                Exchanged::Ask(ask) => (exchange, ask),
                Exchanged::Done { refused, .. } => {
                    self.refused += refused;
                    self.place += 1;
                    if self.place >= replica.places() {
                        return Ok(if self.refused > 0 { Collecting::Failed } else { self.done() });
                    }
                    Exchange::collect(self.peer, self.place, self.way)
                }
            },
            _ => return Ok(Collecting::Failed),
        };
        self.exchange = Some(exchange);
        Ok(Collecting::Ask(ask))
    }

    fn done(&self) -> Collecting {
        Collecting::Done(Collected { peer: self.peer, is_whole: self.is_whole })
    }
}

/// The entries of a shard that others keep, handed to all of those, and let go of.
pub(super) struct Moving {
    place: u16,
    /// Keys up to here were looked for.
    after: Option<Bytes>,
    more: bool,
    found: VecDeque<(Bytes, u64)>,
    one: Option<One>,
    /// None is left so far.
    all: bool,
}

/// An entry that moves.
struct One {
    key: Bytes,
    entry: Entry,
    /// Who is still to be asked.
    asks: VecDeque<(StoreId, Entry)>,
    is_refused: bool,
    /// A newer one stands there: this is no more than an old copy.
    is_old: bool,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Ask a node.
    Ask(StoreId, Ask),
    /// It is over; whether none is left.
    Done(bool),
}

impl Moving {
    /// Begins.
    pub(super) fn begin(place: u16) -> Moving {
        Moving { place, after: None, more: true, found: VecDeque::new(), one: None, all: true }
    }

    /// Takes in the answer to the last question (`None`: no answer, or none was asked yet). Waits for the disk.
    pub(super) fn step(
        &mut self,
        answer: Option<&Answer>,
        replica: &Replica,
        order: &Order,
    ) -> Result<Moved, Refusal> {
        if replica.doubts() && !is_planted(Fault::OversleptMerges) {
            // What it holds may be deleted: it shows it to nobody.
            return Ok(Moved::Done(false));
        }
        if let Some(one) = &mut self.one {
            match answer {
                Some(Answer::Stored { newer, .. }) => one.is_old |= *newer > one.entry.version,
                _ => one.is_refused = true,
            }
        }
        loop {
            if let Some(mut one) = self.one.take() {
                if let Some((to, entry)) = one.asks.pop_front() {
                    let ask = Ask::Write { key: one.key.clone(), entry, why: Why::Move };
                    self.one = Some(one);
                    return Ok(Moved::Ask(to, ask));
                }
                self.end(&one, replica)?;
            } else if let Some((key, version)) = self.found.pop_front() {
                self.one = take(key, version, replica, order)?;
                self.all &= self.one.is_some();
            } else if self.more {
                let found = replica.misplaced(self.place, order, self.after.as_deref())?;
                self.more = found.len() >= LISTED_MAX;
                self.after = found.last().map(|(key, _)| key.clone());
                self.found = found.into();
            } else {
                return Ok(Moved::Done(self.all));
            }
        }
    }

    /// All were asked: a copy goes once all that keep the entry have it, or a newer one is known.
    fn end(&mut self, one: &One, replica: &Replica) -> Result<(), Refusal> {
        if !one.is_refused || one.is_old || is_planted(Fault::LetsGoTooEarly) {
            // If there is a newer one by now, it stays.
            replica.forget(&one.key, &one.entry)
        } else {
            self.all = false;
            Ok(())
        }
    }
}

/// `None` if it is not the same any more: it is looked at next time.
fn take(key: Bytes, version: u64, replica: &Replica, order: &Order) -> Result<Option<One>, Refusal> {
    let entries = replica.handed(&key)?;
    let Some(entry) = entries.first().filter(|entry| entry.version == version).cloned() else {
        return Ok(None);
    };
    let keepers = order.of_slot(slot(&key)).into_iter().take(entry.from.into());
    let asks = keepers.flat_map(|to| entries.iter().map(move |entry| (to, entry.clone()))).collect();
    Ok(Some(One { key, entry, asks, is_refused: false, is_old: false }))
}
