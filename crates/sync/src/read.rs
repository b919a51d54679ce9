//! Reads at the leader: numbered quorum rounds, leases, waiting for what a read rests on.

use std::collections::VecDeque;

use crate::core::Core;
use crate::effect::{Effect, Effects};
use crate::error::Refusal;
use crate::message::{AskRead, KeyState, Message, ReadAnswer, ReadWhat};
use crate::names::Names;
use crate::planted::Rule;
use crate::role::leader::Leader;
use crate::types::{Moment, OpId, StoreId, Token};

/// Who waits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    /// A free place in the slab.
    #[default]
    Nobody,
    /// A reply of this node.
    Client(Token),
    /// A follower's question.
    Follower(StoreId, Box<AskRead>),
    /// A follower's question for the commit point.
    Point(StoreId, Moment),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Waiting {
    asker: Asker,
    /// The quorum round that must have been confirmed.
    round: u64,
    rests_on: Names<OpId>,
    /// The next in a list (an index + 1): of free places, or of those that wait for one item.
    next: u32,
}

/// Everything that waits at the leader. Places are reused: a read allocates nothing after warm-up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reads {
    slab: Vec<Waiting>,
    free: u32,
    count: usize,
    /// Places that wait for their round, in order of it.
    by_round: VecDeque<u32>,
    started: u64,
    confirmed: u64,
    answered: u32,
    sent: Moment,
    poked: Moment,
    lease_until: Option<Moment>,
    /// When the round began that last confirmed that the own checkpoint was the end of what is committed.
    own_fresh: Option<Moment>,
}

impl Reads {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, waiting: Waiting) -> u32 {
        self.count += 1;
        if self.free == 0 {
            self.slab.push(waiting);
            return u32::try_from(self.slab.len()).unwrap_or(u32::MAX);
        }
        let place = self.free;
        if let Some(slot) = self.slab.get_mut(place as usize - 1) {
            self.free = slot.next;
            *slot = waiting;
        }
        place
    }

    fn take(&mut self, place: u32) -> Waiting {
        let Some(slot) = self.slab.get_mut((place as usize).wrapping_sub(1)) else {
            return Waiting::default();
        };
        let waiting = std::mem::take(slot);
        slot.next = self.free;
        self.free = place;
        self.count -= 1;
        waiting
    }

    fn get(&self, place: u32) -> Option<&Waiting> {
        self.slab.get((place as usize).wrapping_sub(1))
    }

    /// Everyone who waits: a deposed leader sends them elsewhere.
    pub(crate) fn drain_clients(&mut self) -> impl Iterator<Item = Token> {
        std::mem::take(self).slab.into_iter().filter_map(|waiting| match waiting.asker {
            Asker::Client(token) => Some(token),
            _ => None,
        })
    }
}

impl Leader {
    /// Microseconds by which the own checkpoint may be behind what is committed: a leader that was deposed may not have heard of it.
    pub(crate) fn age_micros(&self, now: Moment) -> Option<u64> {
        if self.need == 1 { Some(0) } else { self.reads.own_fresh.map(|sent| now.micros_since(sent)) }
    }

    /// A read arrived. It was, or will be, computed from the newest state; the answer waits for a confirmed round and for what it rests on.
    pub(crate) fn read(
        &mut self,
        core: &mut Core,
        now: Moment,
        asker: Asker,
        rests_on: Names<OpId>,
        out: &mut Effects,
    ) {
        if self.reads.count >= core.config.reads_waiting_max {
            if let Asker::Client(token) = asker {
                out.push(Effect::Refused { token, why: Refusal::Busy });
            }
            return;
        }
        if self.need == 1 || self.reads.lease_until.is_some_and(|until| now < until) {
            let place = self.reads.add(Waiting { asker, round: 0, rests_on, next: 0 });
            self.rest(core, place, out);
            return;
        }
        let round = if self.reads.started == self.reads.confirmed {
            self.start_round(core, now, out);
            self.reads.started
        } else if core.config.holds(Rule::RoundAfterArrival) {
            self.reads.started + 1
        } else {
            self.reads.started
        };
        let place = self.reads.add(Waiting { asker, round, rests_on, next: 0 });
        self.reads.by_round.push_back(place);
    }

    fn start_round(&mut self, core: &Core, now: Moment, out: &mut Effects) {
        self.reads.started += 1;
        self.reads.answered = if core.counts() { 1 << self.me } else { 0 };
        self.reads.sent = now;
        self.send_pings(now, out);
    }

    fn send_pings(&mut self, now: Moment, out: &mut Effects) {
        self.reads.poked = now;
        let message = Message::Ping { epoch: self.promise.epoch, round: self.reads.started };
        for (place, peer) in self.peers.iter().enumerate() {
            if peer.voter && place != self.me && self.reads.answered & (1 << place) == 0 {
                out.send(peer.id, message.clone());
            }
        }
    }

    pub(crate) fn pong(&mut self, core: &mut Core, now: Moment, place: usize, round: u64, out: &mut Effects) {
        // A pong says nothing of items: it must not put off the repeating of lost ones.
        if (round != self.reads.started && core.config.holds(Rule::RoundAfterArrival))
            || self.reads.started == self.reads.confirmed
        {
            return;
        }
        self.reads.answered |= 1 << place;
        if (self.reads.answered & self.voters).count_ones() < self.need {
            return;
        }
        self.reads.confirmed = self.reads.started;
        if let Some(lease) = core.config.lease_micros {
            let from = if core.config.holds(Rule::LeaseFromSending) { self.reads.sent } else { now };
            self.reads.lease_until = Some(from.after_micros(lease / 10 * 9));
        }
        while let Some(place) = self.reads.by_round.front().copied() {
            if self.reads.get(place).is_some_and(|waiting| waiting.round > self.reads.confirmed) {
                break;
            }
            self.reads.by_round.pop_front();
            self.rest(core, place, out);
        }
        if !self.reads.by_round.is_empty() {
            self.start_round(core, now, out);
        }
    }

    /// The round is confirmed: the read waits for the first uncommitted item that it rests on, or is answered.
    fn rest(&mut self, core: &mut Core, place: u32, out: &mut Effects) {
        let unmet = match self.reads.get(place) {
            Some(waiting) if core.config.holds(Rule::ReadAfterRests) => {
                self.first_unmet(&core.log, waiting.rests_on.as_slice())
            }
            _ => None,
        };
        if let Some(slot) = unmet.and_then(|unmet| core.log.slot_mut(unmet.serial())) {
            let next = std::mem::replace(&mut slot.reads, place);
            if let Some(waiting) = self.reads.slab.get_mut(place as usize - 1) {
                waiting.next = next;
            }
            return;
        }
        match self.reads.take(place).asker {
            Asker::Nobody => {}
            Asker::Client(token) => out.push(Effect::ReadReady { token }),
            Asker::Follower(to, ask) => self.answer(core, to, &ask, out),
            Asker::Point(to, sent) => {
                let committed = self.highest_committed(&core.log);
                if to == core.id {
                    if committed <= core.log.checkpoint.op {
                        self.reads.own_fresh = self.reads.own_fresh.max(Some(sent));
                    }
                    return;
                }
                out.send(to, Message::PointAt { epoch: self.promise.epoch, sent, committed });
            }
        }
    }

    /// An item is committed: what waited for it looks again.
    pub(crate) fn wake_reads(&mut self, core: &mut Core, first: u32, out: &mut Effects) {
        let mut place = first;
        while place != 0 {
            let next =
                self.reads.slab.get_mut(place as usize - 1).map(|waiting| std::mem::take(&mut waiting.next));
            self.rest(core, place, out);
            place = next.unwrap_or(0);
        }
    }

    fn answer(&self, core: &Core, to: StoreId, ask: &AskRead, out: &mut Effects) {
        let highest = self.highest_committed(&core.log);
        // Memory reaches back to the base, or to the end of the basis: a follower below that has to catch up with all that is committed.
        let base = core.log.base();
        let covered = if base == 0 { core.log.basis_end } else { OpId::new(self.promise.epoch, base) };
        let behind = ask.checkpoint < covered;
        let wait = |state: KeyState| if behind { KeyState { wait: highest, ..state } } else { state };
        let keys = match &ask.what {
            ReadWhat::Keys(keys) => {
                let states: Vec<KeyState> =
                    keys.as_slice().iter().map(|key| wait(self.index.state(*key, ask.checkpoint))).collect();
                Names::of(&states)
            }
            ReadWhat::Range => Names::one(KeyState { wait: highest, ..KeyState::default() }),
        };
        let answer = ReadAnswer { epoch: self.promise.epoch, id: ask.id, keys };
        out.send(to, Message::ReadAnswer(Box::new(answer)));
    }

    pub(crate) fn tick_reads(&mut self, core: &Core, now: Moment, out: &mut Effects) {
        if self.reads.started > self.reads.confirmed {
            if now.micros_since(self.reads.poked) >= core.config.resend_micros {
                self.send_pings(now, out);
            }
            return;
        }
        let Some(lease) = core.config.lease_micros else { return };
        let renew = self.reads.lease_until.is_none_or(|until| now.after_micros(lease / 2) >= until);
        if renew && self.need > 1 {
            self.start_round(core, now, out);
        }
    }
}
