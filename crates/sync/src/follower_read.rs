//! Reads at a follower: asked of the leader, answered here.

use std::collections::VecDeque;

use crate::core::Core;
use crate::effect::{Effect, Effects};
use crate::error::Refusal;
use crate::message::{AskRead, KeyState, Message, ReadAnswer, ReadWhat};
use crate::names::Names;
use crate::planted::Rule;
use crate::types::{Epoch, Moment, OpId, StoreId, Token};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    id: u64,
    token: Token,
    epoch: Epoch,
    since: Moment,
    labelled: bool,
    answer: Option<Names<KeyState>>,
}

/// Reads that wait at this follower, and what it knows about its own age.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct FollowerReads {
    waiting: VecDeque<Asked>,
    /// How many were asked in this run.
    asked: u64,
    /// The last confirmed commit point, and when its question was sent.
    confirmed: Option<(Moment, OpId)>,
    /// A confirmed point that the checkpoint has reached, and when its question was sent.
    fresh: Option<Moment>,
    asked_point: Option<Moment>,
}

impl FollowerReads {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Microseconds by which the checkpoint may be behind what was committed, none if nothing is known.
    pub(crate) fn age_micros(&self, now: Moment) -> Option<u64> {
        self.fresh.map(|sent| now.micros_since(sent))
    }

    /// Everyone who waits.
    pub(crate) fn drain(&mut self) -> Vec<Token> {
        self.waiting.drain(..).map(|asked| asked.token).collect()
    }

    pub(crate) fn ask(
        &mut self,
        core: &Core,
        now: Moment,
        leader: StoreId,
        (token, what, labelled): (Token, ReadWhat, bool),
        out: &mut Effects,
    ) {
        if self.waiting.len() >= core.config.reads_waiting_max {
            out.push(Effect::Refused { token, why: Refusal::Busy });
            return;
        }
        // Counted on from this run's nonce: an answer to a read of an earlier run in the same epoch may come as late as it likes.
        let id = core.nonce.wrapping_add(self.asked);
        self.asked += 1;
        let epoch = core.log.epoch;
        self.waiting.push_back(Asked { id, token, epoch, since: now, labelled, answer: None });
        let ask = AskRead { epoch, id, checkpoint: core.log.checkpoint.op, what };
        out.send(leader, Message::AskRead(Box::new(ask)));
    }

    pub(crate) fn answered(&mut self, core: &Core, answer: &ReadAnswer, out: &mut Effects) {
        let asked =
            self.waiting.iter_mut().find(|asked| asked.id == answer.id && asked.epoch == answer.epoch);
        if let Some(asked) = asked {
            asked.answer = Some(answer.keys.clone());
            self.look(core, out);
        }
    }

    pub(crate) fn point_at(&mut self, core: &Core, sent: Moment, committed: OpId) {
        if self.confirmed.is_none_or(|(last, _)| last < sent) {
            self.confirmed = Some((sent, committed));
        }
        self.freshen(core);
    }

    fn freshen(&mut self, core: &Core) {
        if let Some((sent, point)) = self.confirmed
            && point <= core.log.checkpoint.op
        {
            self.fresh = self.fresh.max(Some(sent));
        }
    }

    /// Answers what may be answered by now.
    pub(crate) fn look(&mut self, core: &Core, out: &mut Effects) {
        self.freshen(core);
        if !core.has_history() {
            return;
        }
        let checkpoint = core.log.checkpoint.op;
        self.waiting.retain(|asked| {
            let Some(keys) = &asked.answer else { return true };
            if asked.epoch != core.promise.epoch && core.config.holds(Rule::ReadSameEpoch) {
                return true;
            }
            let ready = |state: &KeyState| {
                state.wait <= checkpoint && (core.log.has(state.committed) || state.committed == OpId::ZERO)
            };
            if !keys.as_slice().iter().all(ready) {
                return true;
            }
            let shown: Vec<KeyState> = keys
                .as_slice()
                .iter()
                .map(|state| KeyState {
                    committed: if state.committed > checkpoint { state.committed } else { OpId::ZERO },
                    pending: if asked.labelled && state.pending > state.committed {
                        state.pending
                    } else {
                        OpId::ZERO
                    },
                    wait: OpId::ZERO,
                })
                .collect();
            out.push(Effect::ReadHere { token: asked.token, checkpoint, keys: Names::of(&shown) });
            false
        });
    }

    /// Hands over what waited too long, or was asked in another reign; asks for the commit point where somebody reads stale.
    pub(crate) fn tick(&mut self, core: &Core, now: Moment, leader: Option<StoreId>, out: &mut Effects) {
        self.waiting.retain(|asked| {
            let over = now.micros_since(asked.since) >= core.config.read_wait_micros;
            if over || asked.epoch != core.promise.epoch {
                out.push(Effect::ReadAtLeader { token: asked.token, leader });
                return false;
            }
            true
        });
    }

    /// Asks for the confirmed commit point, at most once per resend time.
    pub(crate) fn ask_point(&mut self, core: &Core, now: Moment, leader: StoreId, out: &mut Effects) {
        if self.asked_point.is_some_and(|asked| now.micros_since(asked) < core.config.resend_micros) {
            return;
        }
        self.asked_point = Some(now);
        out.send(leader, Message::AskPoint { epoch: core.log.epoch, sent: now });
    }

    /// The member was brought into another reign: ages are counted anew.
    pub(crate) fn new_reign(&mut self) {
        self.confirmed = None;
        self.asked_point = None;
    }
}
