//! Moving data between members: the receiver pulls pieces, the source reads them from a pinned snapshot.
//!
//! ```text
//!  receiver                                   source
//!     │ Fetch{transfer, want, next 0, credit 4} │
//!     │────────────────────────────────────────►│ ReadPiece 0 … 3 (its driver reads)
//!     │◄──────────────── Piece 0 … 3 ───────────│
//!  Ingest 0 (its driver stores)                 │
//!     │ Fetch{next 1, credit 5} ───────────────►│ ReadPiece 4
//!     …                                         …
//!     │◄──────────── Piece n {end: confirmed} ──│ EndServing
//! ```

use std::sync::Arc;

use crate::core::Core;
use crate::effect::{Alarm, Effect, Effects};
use crate::input::Input;
use crate::message::{Fetch, Message, Piece, Want, Way};
use crate::planted::Rule;
use crate::types::{Epoch, Moment, OpId, StoreId, TransferId};

/// Repetitions to one source before the next one is asked.
const TRIES_MAX: u32 = 3;

/// A transfer into this replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Incoming {
    pub(crate) id: TransferId,
    pub(crate) want: Want,
    sources: Vec<StoreId>,
    source: usize,
    /// The next piece to take, and how many of the taken ones are durable.
    next: u64,
    ingested: u64,
    cursor: Arc<[u8]>,
    last: Option<u64>,
    heard: Moment,
    tries: u32,
    /// Every source was tried in vain: a newer target may be served where this one no longer can.
    pub(crate) exhausted: bool,
    /// Items that came whole, and doubtful ones that the source confirmed.
    pub(crate) items: Vec<OpId>,
    pub(crate) confirmed: Vec<OpId>,
    pub(crate) way: Way,
}

impl Incoming {
    /// Begins a transfer. `sources` is not empty.
    pub(crate) fn begin(
        core: &mut Core,
        now: Moment,
        want: Want,
        sources: &[StoreId],
        out: &mut Effects,
    ) -> Incoming {
        core.transfers += 1;
        let id = TransferId { nonce: core.nonce, number: core.transfers };
        let mut sources: Vec<StoreId> = sources.iter().copied().filter(|store| *store != core.id).collect();
        if sources.is_empty() {
            sources.push(core.promise.manager);
        }
        let incoming = Incoming {
            id,
            want,
            sources,
            source: 0,
            next: 0,
            ingested: 0,
            cursor: Arc::new([]),
            last: None,
            heard: now,
            tries: 0,
            exhausted: false,
            items: Vec::new(),
            confirmed: Vec::new(),
            way: Way::Items,
        };
        incoming.fetch(core, out);
        incoming
    }

    /// From where on it brings final data, if it does.
    pub(crate) fn since(&self) -> Option<OpId> {
        match self.want {
            Want::Items(_) => None,
            Want::Final { since, .. } => Some(since),
        }
    }

    fn fetch(&self, core: &Core, out: &mut Effects) {
        let fetch = Fetch {
            transfer: self.id,
            epoch: core.promise.epoch,
            want: self.want.clone(),
            next: self.next,
            credit: self.ingested + core.config.piece_credit,
            cursor: self.cursor.clone(),
        };
        if let Some(to) = self.sources.get(self.source) {
            out.send(*to, Message::Fetch(Box::new(fetch)));
        }
    }

    /// Takes the next piece; any other one is a late or repeated one.
    pub(crate) fn piece(&mut self, core: &Core, now: Moment, piece: &Piece, out: &mut Effects) {
        let ours = piece.transfer == self.id && piece.epoch == core.promise.epoch;
        if (!ours && core.config.holds(Rule::PieceOfThisTransfer))
            || piece.number != self.next
            || self.last.is_some()
        {
            return;
        }
        self.heard = now;
        self.tries = 0;
        self.next += 1;
        self.way = piece.way;
        self.cursor = piece.cursor.clone();
        self.items.extend_from_slice(&piece.items);
        if let Some(confirmed) = &piece.end {
            self.confirmed.extend_from_slice(confirmed);
            self.last = Some(piece.number);
        }
        let ceiling = match &self.want {
            Want::Items(_) => None,
            Want::Final { upto, .. } if core.config.holds(Rule::TransferCeiling) => Some(*upto),
            Want::Final { .. } => Some(OpId::MAX),
        };
        out.push(Effect::Ingest { transfer: self.id, number: piece.number, way: piece.way, ceiling });
    }

    /// A piece is durable here. True: it was the last one.
    pub(crate) fn ingested(&mut self, core: &Core, now: Moment, number: u64, out: &mut Effects) -> bool {
        if number != self.ingested {
            return false;
        }
        self.ingested += 1;
        self.heard = now;
        if self.last == Some(number) {
            return true;
        }
        if self.last.is_none() {
            self.fetch(core, out);
        }
        false
    }

    /// Repeats what may be lost, and turns to the next source when this one stays silent.
    pub(crate) fn tick(&mut self, core: &mut Core, now: Moment, out: &mut Effects) {
        if now.micros_since(self.heard) < core.config.resend_micros
            || self.last.is_some()
            || self.ingested < self.next
        {
            return;
        }
        self.heard = now;
        self.tries += 1;
        if self.tries >= TRIES_MAX {
            self.next_source(core, now, out);
        } else {
            self.fetch(core, out);
        }
    }

    /// Goes on at another source, behind what has already arrived.
    pub(crate) fn next_source(&mut self, core: &mut Core, now: Moment, out: &mut Effects) {
        core.transfers += 1;
        self.id = TransferId { nonce: core.nonce, number: core.transfers };
        self.source += 1;
        (self.next, self.ingested, self.tries, self.heard) = (0, 0, 0, now);
        if self.source < self.sources.len() {
            self.fetch(core, out);
        } else {
            // All have been asked: the round begins again with the next tick that finds silence.
            self.source = 0;
            self.exhausted = true;
            out.push(Effect::Alarm(Alarm::NoSource));
        }
    }
}

/// A transfer out of this replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Serving {
    id: TransferId,
    to: StoreId,
    epoch: Epoch,
    want: Want,
    way: Way,
    cursor: Arc<[u8]>,
    next: u64,
    credit: u64,
    last: Option<u64>,
    heard: Moment,
}

impl Serving {
    fn read_on(&mut self, out: &mut Effects) {
        while self.next < self.credit && self.last.is_none_or(|last| self.next <= last) {
            let cursor = if self.next == 0 { self.cursor.clone() } else { Arc::new([]) as Arc<[u8]> };
            out.push(Effect::ReadPiece {
                transfer: self.id,
                to: self.to,
                number: self.next,
                way: self.way,
                want: self.want.clone(),
                cursor,
            });
            self.next += 1;
        }
    }
}

/// All transfers out of this replica.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Servings {
    list: Vec<Serving>,
}

impl Servings {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How this replica can serve that, if it can.
    fn way(core: &Core, want: &Want) -> Option<Way> {
        if !core.counts() {
            return None;
        }
        match want {
            Want::Items(ops) => ops.iter().all(|op| core.log.has(*op)).then_some(Way::Items),
            Want::Final { since, upto, .. } => {
                if core.log.checkpoint.op < *upto {
                    return None;
                }
                let small = since.epoch() == upto.epoch()
                    && upto.serial().saturating_sub(since.serial()) <= core.config.small_gap_items;
                let delta = *since >= core.gc_floor || !core.config.holds(Rule::DeltaAboveGcFloor);
                Some(if small && *since >= core.floor && delta {
                    Way::Items
                } else if delta {
                    Way::Delta
                } else {
                    Way::Files
                })
            }
        }
    }

    pub(crate) fn fetch(&mut self, core: &Core, now: Moment, from: StoreId, fetch: Fetch, out: &mut Effects) {
        if let Some(serving) = self.list.iter_mut().find(|serving| serving.id == fetch.transfer) {
            serving.heard = now;
            if fetch.credit <= serving.credit {
                // No progress since: pieces from `next` on were lost, or are still under way; the receiver drops repeated ones.
                serving.next = serving.next.min(fetch.next);
            }
            serving.credit = serving.credit.max(fetch.credit);
            serving.read_on(out);
            return;
        }
        let full = self.list.len() >= core.config.transfers_served_max;
        let Some(way) = Self::way(core, &fetch.want).filter(|_| !full && fetch.next == 0) else {
            out.send(from, Message::CannotServe { transfer: fetch.transfer });
            return;
        };
        let mut serving = Serving {
            id: fetch.transfer,
            to: from,
            epoch: fetch.epoch,
            want: fetch.want,
            way,
            cursor: fetch.cursor,
            next: 0,
            credit: fetch.credit,
            last: None,
            heard: now,
        };
        serving.read_on(out);
        self.list.push(serving);
    }

    /// The driver's answers.
    pub(crate) fn driver(&mut self, input: Input, out: &mut Effects) {
        match input {
            Input::PieceRead { transfer, number, items, cursor, end } => {
                let Some(serving) = self.list.iter_mut().find(|serving| serving.id == transfer) else {
                    return;
                };
                if end.is_some() {
                    serving.last = Some(number);
                }
                let (epoch, way) = (serving.epoch, serving.way);
                let piece = Piece { transfer, epoch, number, way, items, cursor, end };
                out.send(serving.to, Message::Piece(Box::new(piece)));
            }
            Input::PieceFailed { transfer } => {
                if let Some(place) = self.list.iter().position(|serving| serving.id == transfer) {
                    let serving = self.list.swap_remove(place);
                    out.send(serving.to, Message::CannotServe { transfer });
                    out.push(Effect::EndServing { transfer });
                }
            }
            _ => {}
        }
    }

    /// Lets go of transfers whose receiver is silent: it is done, or it will ask again.
    pub(crate) fn tick(&mut self, core: &Core, now: Moment, out: &mut Effects) {
        let patience = core.config.resend_micros.saturating_mul(10);
        self.list.retain(|serving| {
            let alive = now.micros_since(serving.heard) < patience;
            if !alive {
                out.push(Effect::EndServing { transfer: serving.id });
            }
            alive
        });
    }
}
