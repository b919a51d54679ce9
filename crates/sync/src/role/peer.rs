//! What the leader knows of one member, and how it feeds it.

use crate::core::Core;
use crate::effect::{After, Ask, Effect, Effects, Lane};
use crate::log::HELD;
use crate::message::{Adopt, Hello, Message};
use crate::names::Names;
use crate::role::leader::Leader;
use crate::types::{Checkpoint, Moment, OpId, Standing, StoreId};

/// Items repeated to one member at a time.
const RESEND_ITEMS_MAX: u64 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// Nothing is known: it must say hello.
    Unknown,
    /// It was sent the basis.
    Adopting,
    /// Its window was full.
    Lagging,
    /// It fetches what is final up to this serial.
    Resuming {
        /// The target.
        upto: u64,
    },
    /// Items go to it as they are proposed.
    Streaming,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) id: StoreId,
    pub(crate) voter: bool,
    /// A learner that is not wanted any more.
    pub(crate) dropped: bool,
    pub(crate) stage: Stage,
    /// Serials up to this one are durable there.
    pub(crate) acked: u64,
    pub(crate) checkpoint: OpId,
    pub(crate) heard: Moment,
    /// When something was last repeated to it.
    pub(crate) poked: Moment,
    pub(crate) reachable: bool,
    /// Its data counts, by its own last word.
    pub(crate) whole: bool,
}

impl Peer {
    pub(crate) fn new(id: StoreId, voter: bool, now: Moment) -> Peer {
        Peer {
            id,
            voter,
            dropped: false,
            stage: Stage::Unknown,
            acked: 0,
            checkpoint: OpId::ZERO,
            heard: now,
            poked: Moment::default(),
            reachable: true,
            whole: false,
        }
    }
}

impl Leader {
    fn sources(&self, core: &Core, except: StoreId, upto: OpId) -> Names<StoreId> {
        let others = self.peers.iter().filter(|peer| peer.reachable && peer.checkpoint >= upto);
        let mut sources: Vec<StoreId> =
            others.map(|peer| peer.id).filter(|id| *id != except && *id != core.id).collect();
        sources.push(core.id);
        Names::of(&sources)
    }

    /// The adoption that a late member needs: all of the basis is final by now, so nothing stands above S.
    pub(crate) fn adopt_message(&self, core: &Core, to: StoreId) -> Message {
        let checkpoint = core.log.checkpoint;
        Message::Adopt(Box::new(Adopt {
            promise: self.promise,
            // S was reached in this very reign, which skipped items that members of the basis' reign may hold below it: nothing of
            // theirs is final by its position.
            basis_epoch: self.promise.epoch,
            checkpoint,
            basis: Vec::new(),
            basis_end: core.log.basis_end,
            sources: self.sources(core, to, checkpoint.op),
            head: self.head(core).max(checkpoint.op),
        }))
    }

    /// The last item there is: of the basis, as long as nothing was proposed in this reign.
    fn head(&self, core: &Core) -> OpId {
        if self.next > 1 { OpId::new(self.promise.epoch, self.next - 1) } else { core.log.basis_end }
    }

    pub(crate) fn adopted(
        &mut self,
        core: &mut Core,
        now: Moment,
        place: usize,
        (checkpoint, standing): (OpId, Standing),
        out: &mut Effects,
    ) {
        let peer = &mut self.peers[place];
        peer.heard = now;
        peer.whole = standing == Standing::Whole;
        peer.checkpoint = peer.checkpoint.max(checkpoint);
        if matches!(peer.stage, Stage::Unknown | Stage::Adopting) {
            let serial = if checkpoint.epoch() == self.promise.epoch { checkpoint.serial() } else { 0 };
            self.join(core, now, place, serial, out);
        }
    }

    /// A member's own word on what it holds replaces ours.
    pub(crate) fn hello(
        &mut self,
        core: &mut Core,
        now: Moment,
        place: usize,
        hello: &Hello,
        out: &mut Effects,
    ) {
        let epoch = self.promise.epoch;
        if hello.promised > epoch {
            core.ask(now, Ask::StaleEpoch, hello.promised, out);
            return;
        }
        let peer = &mut self.peers[place];
        peer.heard = now;
        peer.poked = now;
        peer.checkpoint = hello.checkpoint;
        peer.whole = hello.standing == Standing::Whole;
        if hello.epoch != epoch {
            peer.stage = Stage::Adopting;
            let message = self.adopt_message(core, self.peers[place].id);
            out.send(self.peers[place].id, message);
            return;
        }
        let bit = 1_u32 << place;
        for serial in core.log.base() + 1..self.next {
            if let Some(slot) = core.log.slot_mut(serial) {
                slot.acks &= !bit;
            }
        }
        let own = if hello.checkpoint.epoch() == epoch { hello.checkpoint.serial() } else { 0 };
        let first = hello.held.first().filter(|(first, _)| *first <= own + 1).map_or(0, |(_, last)| *last);
        self.peers[place].acked = own.max(first).min(self.next - 1);
        if self.peers[place].whole {
            for range in hello.held.iter().chain([(1, own)].iter()) {
                self.acked(core, now, place, *range, out);
            }
        }
        let serial = self.peers[place].acked;
        self.join(core, now, place, serial, out);
    }

    /// Whether what follows `serial` can be repeated: its items are in memory, and their values not collected from the tree.
    fn reaches(&self, core: &Core, serial: u64) -> bool {
        serial >= core.log.base() && OpId::new(self.promise.epoch, serial) >= core.floor
    }

    /// Feeds a member that holds everything up to `serial`: from memory if that reaches back so far, else by a transfer.
    fn join(&mut self, core: &mut Core, now: Moment, place: usize, serial: u64, out: &mut Effects) {
        let window = core.config.window_items as u64;
        let id = self.peers[place].id;
        if self.reaches(core, serial) {
            self.peers[place].acked = self.peers[place].acked.max(serial);
            self.peers[place].stage = Stage::Streaming;
            self.repeat(core, place, (serial + 1, self.next - 1), window, out);
            self.tell_point(core, place, out);
        } else {
            let checkpoint = core.log.checkpoint;
            self.peers[place].stage = Stage::Resuming { upto: checkpoint.op.serial() };
            let sources = self.sources(core, id, checkpoint.op);
            out.send(id, Message::Resume { epoch: self.promise.epoch, upto: checkpoint, sources });
        }
        self.peers[place].poked = now;
    }

    /// Sends items again, those of a range that the member is not known to have.
    pub(crate) fn repeat(
        &self,
        core: &Core,
        place: usize,
        (first, last): (u64, u64),
        items_max: u64,
        out: &mut Effects,
    ) {
        let (epoch, point, to) = (self.promise.epoch, self.point(&core.log), self.peers[place].id);
        let bit = 1_u32 << place;
        let mut left = items_max;
        for serial in first.max(core.log.base() + 1)..=last.min(self.next - 1) {
            let Some(slot) = core.log.slot(serial) else { break };
            if left == 0 {
                break;
            }
            if slot.acks & bit == 0 && slot.is(HELD) {
                left -= 1;
                let lane =
                    Lane::Data(u8::try_from(serial % u64::from(core.config.lanes.max(1))).unwrap_or(0));
                let message = Message::Write { epoch, item: slot.item.clone(), point };
                out.push(Effect::Send { to, lane, message, after: After::Now });
            }
        }
    }

    pub(crate) fn lack(
        &mut self,
        core: &mut Core,
        now: Moment,
        place: usize,
        range: (u64, u64),
        out: &mut Effects,
    ) {
        self.peers[place].heard = now;
        if self.peers[place].stage != Stage::Streaming {
            return;
        }
        if !self.reaches(core, range.0.saturating_sub(1)) {
            self.join(core, now, place, range.0.saturating_sub(1), out);
        } else {
            let bit = 1_u32 << place;
            for serial in range.0..=range.1.min(self.next - 1) {
                if let Some(slot) = core.log.slot_mut(serial) {
                    slot.acks &= !bit;
                }
            }
            self.repeat(core, place, range, RESEND_ITEMS_MAX, out);
        }
    }

    pub(crate) fn tell_point(&mut self, core: &Core, place: usize, out: &mut Effects) {
        let point = self.point(&core.log);
        let message = Message::Point {
            epoch: self.promise.epoch,
            point,
            digest: self.point_digest,
            head: self.next - 1,
        };
        out.send(self.peers[place].id, message);
    }

    /// What time brings: lost messages are repeated, the commit point is told, standing still is noticed.
    pub(crate) fn tick(&mut self, core: &mut Core, now: Moment, out: &mut Effects) {
        let point = self.point(&core.log);
        let is_settled = self.next == self.committed + 1;
        let is_due = is_settled || now.micros_since(self.told_at) >= core.config.point_micros;
        let news = point != self.told_point && is_due;
        if news {
            self.told_at = now;
            self.digests.told(point, self.point_digest);
            self.told_point = point;
        }
        for place in 0..self.peers.len() {
            if place != self.me && !self.peers[place].dropped && self.peers[place].reachable {
                self.tick_peer(core, now, place, news, out);
            }
        }
        self.tick_reads(core, now, out);
        self.tell_room(core, out);
        let waiting = self.next - 1 > self.committed;
        if waiting && now.micros_since(self.moved) >= core.config.stall_micros {
            core.ask(now, Ask::NoCommit, self.promise.epoch, out);
        }
        if let Some(why) = self.draining
            && (!waiting || why != crate::input::StepDown::Drain)
        {
            core.ask(now, Ask::StepDown(why), self.promise.epoch, out);
        }
        if self.next > core.config.serial_max.saturating_sub(core.config.window_items as u64) {
            core.ask(now, Ask::Serials, self.promise.epoch, out);
        }
    }

    fn tick_peer(&mut self, core: &mut Core, now: Moment, place: usize, news: bool, out: &mut Effects) {
        let peer = &self.peers[place];
        let due = now.micros_since(peer.poked) >= core.config.resend_micros;
        let id = peer.id;
        match peer.stage {
            Stage::Unknown if due => out.send(id, Message::Announce { promise: self.promise }),
            Stage::Adopting if due => {
                let message = self.adopt_message(core, id);
                out.send(id, message);
            }
            Stage::Lagging | Stage::Resuming { .. } if due => {
                out.send(id, Message::Announce { promise: self.promise });
            }
            Stage::Streaming => {
                let behind = peer.acked < self.next - 1;
                let (acked, silent) = (peer.acked, now.micros_since(peer.heard) >= core.config.resend_micros);
                if news || (behind || peer.checkpoint < self.point(&core.log)) && silent && due {
                    self.tell_point(core, place, out);
                }
                if !(behind && silent && due) {
                    return;
                }
                if !self.reaches(core, acked) {
                    self.join(core, now, place, acked, out);
                    return;
                }
                self.repeat(core, place, (acked + 1, self.next - 1), RESEND_ITEMS_MAX, out);
            }
            _ => return,
        }
        self.peers[place].poked = now;
    }

    pub(crate) fn peer_reachable(&mut self, now: Moment, store: StoreId, reachable: bool, out: &mut Effects) {
        let Some(place) = self.place(store).filter(|place| *place != self.me) else { return };
        let peer = &mut self.peers[place];
        peer.reachable = reachable;
        peer.stage = Stage::Unknown;
        if reachable {
            peer.poked = now;
            out.send(store, Message::Announce { promise: self.promise });
        }
    }

    /// Whether a member holds all but what is on its way to it: from then on it keeps up by itself.
    pub(crate) fn is_caught_up(&self, core: &Core, place: usize) -> bool {
        let peer = &self.peers[place];
        let lacks = self.next - 1 - peer.acked.min(self.next - 1);
        place == self.me
            || (peer.whole
                && peer.reachable
                && !peer.dropped
                && peer.stage == Stage::Streaming
                && lacks <= core.config.window_items as u64 / 2)
    }

    /// The lowest checkpoint of the members that are fed: what tombstone floors may trail.
    pub(crate) fn slowest(&self, own: Checkpoint) -> OpId {
        let fed = self.peers.iter().enumerate().filter(|(place, peer)| *place != self.me && !peer.dropped);
        fed.map(|(_, peer)| peer.checkpoint).fold(own.op, OpId::min)
    }
}
