//! The leader's hot path: proposing, counting acknowledgements, committing.

use crate::core::Core;
use crate::digests::Digests;
use crate::durable::Record;
use crate::effect::{After, Ask, Durability, Effect, Effects, Lane};
use crate::error::Refusal;
use crate::input::StepDown;
use crate::item::{Item, Proposal};
use crate::key_index::KeyIndex;
use crate::log::{COMMITTED, Log};
use crate::membership::{Members, Membership};
use crate::message::Message;
use crate::planted::Rule;
use crate::read::Reads;
use crate::records::Pending;
use crate::role::peer::{Peer, Stage};
use crate::types::{Digest, Moment, OpId, Promise, StoreId};

/// Marks a slot that stands in another one's list of waiters.
pub(crate) const WAITING: u8 = 8;

/// Who holds an item durably.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// Whether the leader itself does.
    pub leader: bool,
    /// How many of the other members do.
    pub others: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leader {
    pub(crate) promise: Promise,
    pub(crate) membership: Membership,
    /// Everyone who is fed, this replica too; the place is the bit in a slot's mask.
    pub(crate) peers: Vec<Peer>,
    pub(crate) me: usize,
    pub(crate) voters: u32,
    pub(crate) need: u32,
    /// The next serial.
    pub(crate) next: u64,
    /// Serials up to this one are committed.
    pub(crate) committed: u64,
    /// The highest committed serial: above `committed` while lanes overtake each other.
    pub(crate) highest: u64,
    pub(crate) point_digest: Digest,
    /// The time of the last item.
    pub(crate) time: u64,
    pub(crate) index: KeyIndex,
    pub(crate) reads: Reads,
    pub(crate) digests: Digests,
    pub(crate) wants_room: bool,
    pub(crate) draining: Option<StepDown>,
    /// The commit point that was last told by itself, and when.
    pub(crate) told_point: OpId,
    pub(crate) told_at: Moment,
    /// When something was committed, or the first item of a quiet time was proposed.
    pub(crate) moved: Moment,
    work: Vec<u64>,
}

impl Leader {
    pub(crate) fn new(core: &Core, now: Moment, membership: &Membership, adopted: &[StoreId]) -> Leader {
        let mut leader = Leader {
            promise: core.promise,
            membership: membership.clone(),
            peers: Vec::new(),
            me: 0,
            voters: 0,
            need: u32::try_from(membership.new.majority()).unwrap_or(u32::MAX),
            next: 1,
            committed: 0,
            highest: 0,
            point_digest: core.log.basis_digest(),
            time: if core.config.holds(Rule::TimeNeverFalls) { core.log.latest_time() } else { 0 },
            index: KeyIndex::default(),
            reads: Reads::default(),
            digests: Digests::default(),
            wants_room: false,
            draining: None,
            told_point: OpId::ZERO,
            told_at: Moment::default(),
            moved: now,
            work: Vec::new(),
        };
        if !core.config.holds(Rule::Majority) {
            leader.need = leader.need.saturating_sub(1).max(1);
        }
        for store in membership.new.as_slice() {
            let mut peer = Peer::new(*store, true, now);
            if adopted.contains(store) {
                peer.stage = Stage::Streaming;
                peer.whole = true;
            }
            leader.peers.push(peer);
        }
        leader.me = leader.place(core.id).unwrap_or_default();
        leader.voters = (0..leader.peers.len()).fold(0, |mask, place| mask | 1 << place);
        leader
    }

    pub(crate) fn place(&self, store: StoreId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.id == store)
    }

    pub(crate) fn set_learners(&mut self, learners: &Members, now: Moment) {
        let voters = &self.membership.new;
        // Bits of former learners are not given to others within a reign: an acknowledgement must not change its owner.
        for peer in &mut self.peers {
            peer.dropped = !peer.voter && !learners.contains(peer.id);
        }
        for store in learners.as_slice() {
            let known = self.peers.iter().any(|peer| peer.id == *store);
            if !voters.contains(*store) && !known && self.peers.len() < crate::membership::MEMBERS_MAX {
                self.peers.push(Peer::new(*store, false, now));
            }
        }
    }

    /// The commit point.
    pub(crate) fn point(&self, log: &Log) -> OpId {
        if self.committed == 0 {
            log.basis_end.max(log.checkpoint.op)
        } else {
            OpId::new(self.promise.epoch, self.committed)
        }
    }

    /// The highest committed op, gaps or not.
    pub(crate) fn highest_committed(&self, log: &Log) -> OpId {
        if self.highest == 0 { self.point(log) } else { OpId::new(self.promise.epoch, self.highest) }
    }

    pub(crate) fn alone(&self) -> bool {
        self.peers.len() == 1
    }

    pub(crate) fn propose(&mut self, core: &mut Core, now: Moment, proposal: Proposal, out: &mut Effects) {
        let token = proposal.token;
        if let Some(why) = self.refusal(core, now, out) {
            out.push(Effect::Refused { token, why });
            return;
        }
        let op = OpId::new(self.promise.epoch, self.next);
        if core.config.holds(Rule::TimeNeverFalls) {
            self.time = self.time.max(proposal.time);
        } else {
            self.time = proposal.time;
        }
        let Proposal { digest, keys, reads, .. } = proposal;
        let item = Item { op, time: self.time, digest, keys, reads };
        if self.next == self.committed + 1 {
            self.moved = now;
        }
        self.index.wrote(&item.keys, op);
        core.log.hold(item.clone());
        out.push(Effect::Accepted { token, op });
        let durability = if self.alone() { Durability::Class } else { Durability::Synced };
        core.persist(Record::Item(item.clone()), durability, Pending::Item(op), out);
        let (epoch, point) = (self.promise.epoch, self.point(&core.log));
        let lane = Lane::Data(u8::try_from(self.next % u64::from(core.config.lanes.max(1))).unwrap_or(0));
        for (place, peer) in self.peers.iter().enumerate() {
            if place != self.me && peer.stage == Stage::Streaming {
                let message = Message::Write { epoch, item: item.clone(), point };
                out.push(Effect::Send { to: peer.id, lane, message, after: After::Now });
            }
        }
        self.next += 1;
        if !core.config.holds(Rule::OwnDurableCounts) {
            self.acked(core, now, self.me, (op.serial(), op.serial()), out);
        }
    }

    fn refusal(&mut self, core: &mut Core, now: Moment, out: &mut Effects) -> Option<Refusal> {
        let why = self.room(core).err()?;
        if why == Refusal::SerialsExhausted {
            core.ask(now, Ask::Serials, self.promise.epoch, out);
        }
        Some(why)
    }

    /// Whether one more proposal would be accepted now.
    pub(crate) fn room(&mut self, core: &Core) -> Result<(), Refusal> {
        if self.draining.is_some() {
            return Err(Refusal::Draining);
        }
        if self.next > core.config.serial_max {
            return Err(Refusal::SerialsExhausted);
        }
        if !self.make_room(core) {
            self.wants_room = true;
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    /// Whether a majority, this replica among it, has room for one more item. Followers with full windows are demoted to catch-up if there is.
    fn make_room(&mut self, core: &Core) -> bool {
        let window = core.config.window_items as u64;
        let in_flight = |acked: u64| self.next - 1 - acked.min(self.next - 1);
        if in_flight(core.log.durable_serial()) >= window {
            return false;
        }
        let has_room = |place: usize, peer: &Peer| {
            place == self.me || (peer.stage == Stage::Streaming && in_flight(peer.acked) < window)
        };
        let roomy =
            self.peers.iter().enumerate().filter(|(place, peer)| peer.voter && has_room(*place, peer));
        if roomy.count() < self.need as usize {
            return false;
        }
        let next = self.next;
        for (place, peer) in self.peers.iter_mut().enumerate() {
            if place != self.me
                && peer.stage == Stage::Streaming
                && next - 1 - peer.acked.min(next - 1) >= window
            {
                peer.stage = Stage::Lagging;
            }
        }
        true
    }

    pub(crate) fn is_committed(&self, log: &Log, op: OpId) -> bool {
        op.epoch() < self.promise.epoch
            || op.serial() <= self.committed
            || log.slot(op.serial()).is_some_and(|slot| slot.is(COMMITTED))
    }

    pub(crate) fn holders(&self, core: &Core, op: OpId) -> Holders {
        let epoch = self.promise.epoch;
        let acks =
            if op.epoch() == epoch { core.log.slot(op.serial()).map_or(0, |slot| slot.acks) } else { 0 };
        let holds = |place: usize, peer: &Peer| {
            // Who stands in this reign has adopted its basis: all of the former reigns that is final.
            let stands = matches!(peer.stage, Stage::Streaming | Stage::Lagging | Stage::Resuming { .. });
            let before = op.epoch() < epoch || (op.epoch() == epoch && op.serial() <= peer.acked);
            let holds = acks & (1 << place) != 0 || peer.checkpoint >= op || (stands && before);
            peer.voter && !peer.dropped && peer.whole && holds
        };
        let others = self.peers.iter().enumerate().filter(|(place, _)| *place != self.me);
        Holders {
            leader: self.peers.get(self.me).is_some_and(|own| holds(self.me, own)),
            others: others.filter(|(place, peer)| holds(*place, peer)).count(),
        }
    }

    pub(crate) fn first_unmet(&self, log: &Log, reads: &[OpId]) -> Option<OpId> {
        reads.iter().copied().find(|read| !self.is_committed(log, *read))
    }

    /// Serials of the reign are durable at a member.
    pub(crate) fn acked(
        &mut self,
        core: &mut Core,
        now: Moment,
        place: usize,
        (first, last): (u64, u64),
        out: &mut Effects,
    ) {
        let bit = 1 << place;
        let last = last.min(self.next - 1);
        // Of what is committed, and of the member's prefix, nothing is left to count.
        let counted = core.log.base().max(self.committed.min(self.peers[place].acked));
        for serial in first.max(counted + 1)..=last {
            let Some(slot) = core.log.slot_mut(serial) else { break };
            slot.acks |= bit;
            if !slot.is(COMMITTED) && (slot.acks & self.voters).count_ones() >= self.need {
                self.settle(core, serial, out);
            }
        }
        let peer = &mut self.peers[place];
        peer.heard = now;
        while core.log.slot(peer.acked + 1).is_some_and(|slot| slot.acks & bit != 0) {
            peer.acked += 1;
        }
        self.move_point(core, now, out);
        self.trim(core);
        self.tell_room(core, out);
    }

    /// Tells those who were refused as busy that there is room again.
    pub(crate) fn tell_room(&mut self, core: &Core, out: &mut Effects) {
        if self.wants_room && self.draining.is_none() && self.make_room(core) {
            self.wants_room = false;
            out.push(Effect::Room);
        }
    }

    /// A serial has its majority: it commits, and then what waited for it, unless it waits for another itself.
    fn settle(&mut self, core: &mut Core, serial: u64, out: &mut Effects) {
        self.work.push(serial);
        while let Some(serial) = self.work.pop() {
            let log = &mut core.log;
            let Some(slot) = log.slot(serial) else { continue };
            if slot.flags & (COMMITTED | WAITING) != 0 {
                continue;
            }
            if core.config.holds(Rule::CommitAfterReads)
                && let Some(unmet) = self.first_unmet(log, slot.item.reads.as_slice())
            {
                let head = log
                    .slot_mut(unmet.serial())
                    .map(|other| std::mem::replace(&mut other.first_waiter, serial));
                // An item only reads lower ops, which are in memory until they are committed.
                if let (Some(head), Some(slot)) = (head, log.slot_mut(serial)) {
                    slot.next_waiter = head;
                    slot.flags |= WAITING;
                }
                continue;
            }
            self.commit(core, serial, out);
        }
    }

    fn commit(&mut self, core: &mut Core, serial: u64, out: &mut Effects) {
        let Some(slot) = core.log.slot_mut(serial) else { return };
        slot.flags |= COMMITTED;
        let op = slot.item.op;
        let mut waiter = std::mem::take(&mut slot.first_waiter);
        let reads = std::mem::take(&mut slot.reads);
        self.highest = self.highest.max(serial);
        self.index.committed(&slot.item.keys, op);
        out.committed(op);
        while waiter != 0 {
            let Some(slot) = core.log.slot_mut(waiter) else { break };
            slot.flags &= !WAITING;
            self.work.push(waiter);
            waiter = std::mem::take(&mut slot.next_waiter);
        }
        if reads != 0 {
            self.wake_reads(core, reads, out);
        }
    }

    fn move_point(&mut self, core: &mut Core, now: Moment, out: &mut Effects) {
        let before = self.committed;
        while let Some(slot) = core.log.slot(self.committed + 1).filter(|slot| slot.is(COMMITTED)) {
            self.point_digest = self.point_digest.with(slot.item.digest);
            self.committed += 1;
        }
        if self.committed > before {
            self.moved = now;
        }
        core.announced = core.announced.max(self.point(&core.log));
        core.advance_checkpoint(out);
    }

    /// Forgets what everyone who is fed has, but for a while of it.
    fn trim(&mut self, core: &mut Core) {
        let window = core.config.window_items;
        let mut upto = self.committed.min(core.log.durable_serial());
        for (place, peer) in self.peers.iter().enumerate() {
            match peer.stage {
                _ if place == self.me || peer.dropped => {}
                Stage::Streaming => upto = upto.min(peer.acked),
                // A member on its way back finds the items behind its target still here, as long as the window holds them.
                Stage::Resuming { upto: target } if core.log.len() < window => upto = upto.min(target),
                _ => {}
            }
        }
        let upto = upto.saturating_sub(core.config.retain_items as u64);
        while core.log.base() < upto {
            let Some(slot) = core.log.pop() else { break };
            self.index.forget(&slot.item.keys, slot.item.op);
        }
    }
}
