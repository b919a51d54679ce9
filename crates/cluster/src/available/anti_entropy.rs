//! Anti-entropy: two nodes compare digests of the slots that both keep, then keys and versions of those that differ, and move what differs, either
//! way. One question under way at a time: whoever drives it sets the pace.

use super::Entry;
use super::Order;
use super::planted::{Fault, is_planted};
use super::replica::{LISTED_MAX, Refusal, Replica};
use super::wire::{Answer, Ask, Listed, Why};
use bytes::Bytes;
use kvorum_model::slot;
use kvorum_sync::StoreId;
use std::cmp::Ordering;
use std::collections::{BTreeSet, VecDeque};

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exchanged {
    /// Ask the other node this.
    Ask(Ask),
    /// The shard is the same on both, as far as both keep it.
    Done {
        /// Slots that differed.
        slots: usize,
        /// Entries that moved, either way.
        moved: usize,
        /// Entries of a clock that is too far ahead: they are taken once its time has come.
        refused: usize,
    },
}

/// One shard, compared with one other node.
pub(crate) struct Exchange {
    peer: StoreId,
    place: u16,
    /// `None` until digests were compared.
    slots: Option<BTreeSet<u16>>,
    /// Keys up to here are done.
    after: Option<Bytes>,
    more: bool,
    fetch: Vec<Bytes>,
    push: VecDeque<Bytes>,
    /// Of the key that is pushed.
    writing: VecDeque<(Bytes, Entry)>,
    moved: usize,
    refused: usize,
    way: Way,
}

/// How a shard is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Way {
    /// What is not newer than this, and the other node should have and has not, was deleted: it goes.
    pub(crate) deleted_upto: u64,
    /// What this node has is not shown to the other one.
    pub(crate) only_takes: bool,
    /// What comes may be older than deletions that were forgotten here.
    pub(crate) takes_over: bool,
    /// What goes may be older than deletions that were forgotten there.
    pub(crate) gives_over: bool,
}

impl Exchange {
    /// Begins.
    pub(crate) fn begin(peer: StoreId, place: u16) -> (Exchange, Ask) {
        let exchange = Exchange {
            peer,
            place,
            slots: None,
            after: None,
            more: true,
            fetch: Vec::new(),
            push: VecDeque::new(),
            writing: VecDeque::new(),
            moved: 0,
            refused: 0,
            way: Way::default(),
        };
        (exchange, Ask::Digests { place })
    }

    /// Begins, for a replica that lacks what the other node may have: everything is looked at, whatever the other one should keep.
    pub(crate) fn collect(peer: StoreId, place: u16, way: Way) -> (Exchange, Ask) {
        let (exchange, _) = Exchange::begin(peer, place);
        let ask = Ask::List { place, slots: Vec::new(), after: None };
        (Exchange { slots: Some(BTreeSet::new()), way, ..exchange }, ask)
    }

    /// Takes in the answer to the last question. Waits for the disk.
    pub(crate) fn step(
        &mut self,
        answer: Answer,
        me: &Replica,
        order: &Order,
        ceiling: u64,
    ) -> Result<Exchanged, Refusal> {
        match answer {
            Answer::Digests(theirs) => {
                let mine = me.digests(self.place, self.peer, order)?;
                let slots = differing(&mine, &theirs);
                self.more = !slots.is_empty();
                self.slots = Some(slots);
            }
            Answer::List { listed, more } => self.compare(&listed, more, me, order)?,
            Answer::Fetched(entries) => {
                let missing = self.fetch.len();
                let why = if self.way.takes_over { Why::Move } else { Why::Mend };
                for (key, entry) in entries {
                    self.fetch.retain(|wanted| *wanted != key);
                    match me.handle(self.peer, &Ask::Write { key, entry, why }, order, ceiling) {
                        Ok((_, sequence)) => self.moved += usize::from(sequence > 0),
                        // What else there is need not wait for it.
                        Err(Refusal::Ahead { .. }) => self.refused += 1,
                        Err(refusal) => return Err(refusal),
                    }
                }
                if self.fetch.len() == missing {
                    // They are gone there meanwhile: the next exchange will see.
                    self.fetch.clear();
                }
            }
            Answer::Stored { .. } | Answer::Found(_) => {}
            // What else there is need not wait for it.
            Answer::Ahead => self.moved = self.moved.saturating_sub(1),
            Answer::OtherNodes
            | Answer::Rebuilding
            | Answer::Standing(_)
            | Answer::Heard { .. }
            | Answer::MemberDigest { .. }
            | Answer::Key(_) => {
                return Err(Refusal::Rebuilding);
            }
        }
        self.next(me)
    }

    fn next(&mut self, me: &Replica) -> Result<Exchanged, Refusal> {
        if is_planted(Fault::MovesNothing) {
            self.fetch.clear();
            self.push.clear();
        }
        if !self.fetch.is_empty() {
            return Ok(Exchanged::Ask(Ask::Fetch { place: self.place, keys: self.fetch.clone() }));
        }
        loop {
            if let Some((key, entry)) = self.writing.pop_front() {
                self.moved += 1;
                let why = if self.way.gives_over { Why::Move } else { Why::Mend };
                return Ok(Exchanged::Ask(Ask::Write { key, entry, why }));
            }
            let Some(key) = self.push.pop_front() else { break };
            self.writing.extend(me.handed(&key)?.into_iter().map(|entry| (key.clone(), entry)));
        }
        match &self.slots {
            Some(slots) if self.more => {
                let (slots, after) = (slots.iter().copied().collect(), self.after.clone());
                Ok(Exchanged::Ask(Ask::List { place: self.place, slots, after }))
            }
            slots => {
                let slots = slots.as_ref().map_or(0, BTreeSet::len);
                Ok(Exchanged::Done { slots, moved: self.moved, refused: self.refused })
            }
        }
    }

    /// Compares a piece of both lists: as far as both reach.
    fn compare(&mut self, theirs: &[Listed], more: bool, me: &Replica, order: &Order) -> Result<(), Refusal> {
        let Some(slots) = &self.slots else { return Ok(()) };
        let upto = theirs.last().filter(|_| more).map(|last| last.key.clone());
        let mine = me.list(self.place, slots, self.after.as_deref(), upto.as_deref())?;
        // Mine may reach less far: then what lies behind it waits for the next piece.
        let end = mine.last().filter(|_| mine.len() >= LISTED_MAX).map(|last| last.key.clone()).or(upto);
        let within = |one: &&Listed| end.as_ref().is_none_or(|end| one.key <= *end);
        let (mut mine, mut theirs) =
            (mine.iter().filter(within).peekable(), theirs.iter().filter(within).peekable());
        let keeps = |store: StoreId, one: &Listed| {
            !one.shadow && order.rank(slot(&one.key), store).is_some_and(|rank| rank < one.from)
        };
        loop {
            let side = match (mine.peek(), theirs.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) => one.key.cmp(&other.key),
            };
            let one = if side.is_le() { mine.next() } else { None };
            let other = if side.is_ge() { theirs.next() } else { None };
            match (one, other) {
                // Who has an older copy gets the newer entry, or only hears that the copy is to go.
                (Some(one), Some(other)) if one.version > other.version => {
                    self.push.push_back(one.key.clone());
                }
                (Some(one), Some(other)) if one.version < other.version => self.fetch.push(other.key.clone()),
                (Some(one), Some(other)) if one.version == other.version => {
                    // A shadow gives way, where the entry itself should be.
                    if other.shadow && keeps(self.peer, one) {
                        self.push.push_back(one.key.clone());
                    } else if one.shadow && keeps(me.store_id(), other) {
                        self.fetch.push(other.key.clone());
                    } else if one.beside != other.beside
                        && keeps(self.peer, one)
                        && keeps(me.store_id(), other)
                    {
                        self.push.push_back(one.key.clone());
                        self.fetch.push(other.key.clone());
                    }
                }
                (Some(one), None) if keeps(self.peer, one) && one.version <= self.way.deleted_upto => {
                    if let Some(entry) = me.entry(&one.key)?.filter(|entry| entry.version == one.version) {
                        me.forget(&one.key, &entry)?;
                    }
                }
                (Some(one), None) if keeps(self.peer, one) => self.push.push_back(one.key.clone()),
                (None, Some(other)) if keeps(me.store_id(), other) => self.fetch.push(other.key.clone()),
                _ => {}
            }
        }
        if self.way.only_takes {
            self.push.clear();
        }
        self.more = end.is_some();
        self.after = end;
        Ok(())
    }
}

/// Slots whose digests are not the same; one that a side does not name is empty there.
fn differing(mine: &[(u16, u64)], theirs: &[(u16, u64)]) -> BTreeSet<u16> {
    let (mine, theirs): (BTreeSet<_>, BTreeSet<_>) = (mine.iter().collect(), theirs.iter().collect());
    mine.symmetric_difference(&theirs).map(|(slot, _)| *slot).collect()
}
