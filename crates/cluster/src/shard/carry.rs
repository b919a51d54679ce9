//! Carrying out what the core wants.

use super::member::Member;
use super::outbox::{Done, MemberReport, Outbox, Send};
use super::planted::MemberRule;
use super::propose::SILENT;
use super::wire::ShardMessage;
use super::writes::Payload;
use bytes::Bytes;
use kvorum_sync::{After, Effect, Lane, Message, Moment, OpId, Outcome, StoreId, Token};

/// What came with an input, beside what the core sees of it.
#[derive(Debug, Clone)]
pub(super) enum Beside {
    Nothing,
    /// Of a proposal or a write.
    Writes(Payload),
    /// Of a piece.
    Piece(Bytes),
}

impl Beside {
    pub(super) fn writes(&self) -> Option<&Payload> {
        match self {
            Beside::Writes(payload) => Some(payload),
            _ => None,
        }
    }
}

impl Member {
    pub(super) fn carry_out(&mut self, now: Moment, effect: Effect, beside: &Beside, out: &mut Outbox) {
        match effect {
            Effect::Persist { id, record, durability } => {
                self.persist(now, id, record, durability, beside, out);
            }
            Effect::Send { to, lane, message, after } => self.send((to, lane, message, after), beside, out),
            Effect::Accepted { token, op } => self.accepted(token, op, beside),
            Effect::Refused { token, why } if self.proposing == Some(token) => self.refused = Some(why),
            Effect::Refused { token, why } => out.done.push((token, Done::Refused(why))),
            Effect::Room => out.room = true,
            Effect::Committed { first, last } => self.committed(first, last, out),
            Effect::Settled { op, outcome } => self.settled(op, outcome, out),
            Effect::Deposed => {
                self.recent.clear();
                out.deposed = true;
                if !self.config.holds(MemberRule::DeposedClientsWait) {
                    let waiting = std::mem::take(&mut self.clients);
                    out.done.extend(waiting.into_values().map(|token| (token, Done::Cancelled)));
                }
            }
            Effect::Visible { checkpoint } => self.show(checkpoint.op, out),
            Effect::ReadReady { token } => out.done.push((token, Done::ReadReady)),
            Effect::ReadAgain { token } => out.done.push((token, Done::Again)),
            Effect::ReadHere { token, checkpoint, keys } => {
                out.done.push((token, Done::ReadHere { checkpoint, keys }));
            }
            Effect::ReadAtLeader { token, leader } => out.done.push((token, Done::AtLeader(leader))),
            Effect::ReadPiece { transfer, number, way, want, cursor, .. } => {
                self.read_piece(transfer, number, way, want, &cursor);
            }
            Effect::EndServing { transfer } => self.sources.end(transfer),
            Effect::Ingest { transfer, number, way, ceiling } => {
                self.ingest((transfer, number), way, ceiling, beside, out);
            }
            Effect::DropTransfer { transfer } => self.receiver.drop_transfer(transfer),
            Effect::Lead { epoch } => {
                out.led = true;
                out.reports.push(MemberReport::Led { epoch });
            }
            Effect::LeaderMissing { epoch } => {
                let at = self.replica.checkpoint().op;
                out.reports.push(MemberReport::LeaderMissing { epoch, at });
            }
            Effect::Ask { why, above } => out.reports.push(MemberReport::Wants { above, why }),
            Effect::Alarm(alarm) => out.alarms.push(alarm),
        }
    }

    fn accepted(&mut self, token: Token, op: OpId, beside: &Beside) {
        if token != SILENT {
            self.clients.insert(op, token);
        }
        if let Some(payload) = beside.writes() {
            if payload.clears() {
                self.clears.insert(op);
            }
            self.recent.add(op, payload.clone());
        }
    }

    fn committed(&mut self, first: OpId, last: OpId, out: &mut Outbox) {
        while let Some((&op, &token)) = self.clients.range(first..=last).next() {
            self.clients.remove(&op);
            out.done.push((token, Done::Committed));
        }
        self.clears.retain(|op| *op < first || *op > last);
    }

    fn settled(&mut self, op: OpId, outcome: Outcome, out: &mut Outbox) {
        self.clears.remove(&op);
        let Some(token) = self.clients.remove(&op) else { return };
        let done = match outcome {
            Outcome::Kept => Done::Committed,
            Outcome::Cancelled => Done::Cancelled,
            Outcome::Unknown => Done::Unknown,
        };
        out.done.push((token, done));
    }

    fn send(
        &mut self,
        (to, lane, message, after): (StoreId, Lane, Message, After),
        beside: &Beside,
        out: &mut Outbox,
    ) {
        let payload = match &message {
            Message::Write { item, .. } => {
                // A proposal goes out with what it was made of.
                let known = self.recent.get(item.op).or(beside.writes().filter(|_| self.proposing.is_some()));
                let Some(payload) = known else {
                    self.repeats.push((to, lane, message));
                    return;
                };
                payload.bytes().clone()
            }
            Message::Piece(piece) => self.sources.piece(piece.transfer, piece.number),
            _ => Bytes::new(),
        };
        let send = Send { to, lane, message: ShardMessage { message, payload } };
        match after {
            After::Durable(record)
                if !self.records.is_durable(record) && self.config.holds(MemberRule::AnswerAfterDurable) =>
            {
                self.records.hold(record, send);
            }
            _ => out.sends.push(send),
        }
    }
}
