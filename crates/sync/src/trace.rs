//! Messages, records and effects as one line each, for traces that a person reads and for the text cases.

use std::fmt::{self, Display, Formatter};

use crate::durable::Record;
use crate::effect::{After, Durability, Effect, Lane};
use crate::item::{Item, Keys};
use crate::message::{KeyState, Message, Want};
use crate::types::{Checkpoint, OpId, Standing, StoreId};

struct List<'a, T>(&'a [T]);

impl<T: Display> Display for List<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (place, entry) in self.0.iter().enumerate() {
            let gap = if place == 0 { "" } else { " " };
            write!(f, "{gap}{entry}")?;
        }
        f.write_str("]")
    }
}

impl Display for Item {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.op)?;
        match &self.keys {
            Keys::All => f.write_str(" all")?,
            Keys::Of(keys) if keys.as_slice().is_empty() => {}
            Keys::Of(keys) => {
                let keys: Vec<u64> = keys.as_slice().iter().map(|key| key.0).collect();
                write!(f, " keys {}", List(&keys))?;
            }
        }
        if !self.reads.as_slice().is_empty() {
            write!(f, " reads {}", List(self.reads.as_slice()))?;
        }
        if self.time != 0 {
            write!(f, " time {}", self.time)?;
        }
        Ok(())
    }
}

impl Display for Checkpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} digest {} time {}", self.op, self.digest.0, self.time)
    }
}

impl Display for Standing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Whole => f.write_str("whole"),
            Standing::Rebuilding { until } => write!(f, "rebuilding until {until}"),
        }
    }
}

impl Display for KeyState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let KeyState { committed, pending, wait } = self;
        write!(f, "committed {committed} pending {pending} wait {wait}")
    }
}

impl Display for Want {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Want::Items(ops) => write!(f, "items {}", List(ops)),
            Want::Final { since, upto, doubtful } => {
                write!(f, "final {since}..{upto} doubtful {}", List(doubtful))
            }
        }
    }
}

fn ops<'a>(items: impl IntoIterator<Item = &'a Item>) -> String {
    let ops: Vec<OpId> = items.into_iter().map(|item| item.op).collect();
    List(&ops).to_string()
}

impl Display for Record {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Record::Item(item) => write!(f, "item {item}"),
            Record::Promise(promise) => write!(f, "promise {promise}"),
            Record::Adopt(adoption) => write!(
                f,
                "adopt {} retract {} put {} checkpoint {} basis-end {} {}",
                adoption.promise.epoch,
                List(&adoption.retract),
                ops(&adoption.put),
                adoption.checkpoint.op,
                adoption.basis_end,
                adoption.standing
            ),
            Record::Checkpoint(checkpoint) => write!(f, "checkpoint {checkpoint}"),
            Record::Rebuild => f.write_str("rebuild"),
            Record::Standing(standing) => write!(f, "standing {standing}"),
        }
    }
}

impl Display for Message {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Message::Gather(gather) => write!(f, "gather {}", gather.promise),
            Message::Promised(answer) => write!(
                f,
                "promised {} epoch {} checkpoint {} tail {} {}",
                answer.promise,
                answer.epoch,
                answer.checkpoint.op,
                ops(&answer.tail),
                answer.standing
            ),
            Message::Refused { epoch, promised } => write!(f, "refused {epoch} promised {promised}"),
            Message::Adopt(adopt) => write!(
                f,
                "adopt {} over {} S {} T {} end {}",
                adopt.promise.epoch,
                adopt.basis_epoch,
                adopt.checkpoint.op,
                ops(adopt.basis.iter().map(|basis| &basis.item)),
                adopt.basis_end
            ),
            Message::Adopted { epoch, checkpoint, standing } => {
                write!(f, "adopted {epoch} checkpoint {checkpoint} {standing}")
            }
            Message::Write { epoch, item, point } => write!(f, "write {epoch} {item} point {point}"),
            Message::Ack { epoch, first, last, checkpoint } => {
                write!(f, "ack {epoch} {first}-{last} checkpoint {checkpoint}")
            }
            message => in_reign(message, f),
        }
    }
}

fn in_reign(message: &Message, f: &mut Formatter<'_>) -> fmt::Result {
    match message {
        Message::Point { epoch, point, digest, head } => {
            write!(f, "point {epoch} {point} digest {} head {head}", digest.0)
        }
        Message::Reached { epoch, point, digest } => write!(f, "reached {epoch} {point} digest {}", digest.0),
        Message::Lack { epoch, first, last } => write!(f, "lack {epoch} {first}-{last}"),
        Message::Announce { promise } => write!(f, "announce {promise}"),
        Message::Hello(hello) => write!(
            f,
            "hello promised {} epoch {} checkpoint {} held {:?} {}",
            hello.promised, hello.epoch, hello.checkpoint, hello.held, hello.standing
        ),
        Message::Resume { epoch, upto, sources } => {
            write!(f, "resume {epoch} upto {} from {}", upto.op, List::<StoreId>(sources.as_slice()))
        }
        Message::Fetch(fetch) => write!(
            f,
            "fetch t{} {} {} next {} credit {}",
            fetch.transfer.number, fetch.epoch, fetch.want, fetch.next, fetch.credit
        ),
        Message::Piece(piece) => {
            let end = if piece.end.is_some() { " end" } else { "" };
            let items = List(&piece.items);
            write!(f, "piece t{} #{} {:?} {items}{end}", piece.transfer.number, piece.number, piece.way)
        }
        Message::CannotServe { transfer } => write!(f, "cannot-serve t{}", transfer.number),
        Message::Ping { epoch, round } => write!(f, "ping {epoch} round {round}"),
        Message::Pong { epoch, round } => write!(f, "pong {epoch} round {round}"),
        Message::AskRead(ask) => write!(f, "ask-read {} #{} at {}", ask.epoch, ask.id, ask.checkpoint),
        Message::ReadAnswer(answer) => {
            write!(f, "read-answer {} #{} {}", answer.epoch, answer.id, List(answer.keys.as_slice()))
        }
        Message::AskPoint { epoch, sent } => write!(f, "ask-point {epoch} sent {}", sent.0),
        Message::PointAt { epoch, sent, committed } => {
            write!(f, "point-at {epoch} sent {} committed {committed}", sent.0)
        }
        Message::Fence { epoch, point } => write!(f, "fence {epoch} at {point}"),
        other => write!(f, "{other:?}"),
    }
}

impl Display for Effect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Persist { id, record, durability } => {
                let class = match durability {
                    Durability::Synced => "",
                    Durability::Class => " (class)",
                    Durability::Lazy => " (lazy)",
                };
                write!(f, "persist #{}{class} {record}", id.0)
            }
            Effect::Send { to, lane, message, after } => {
                write!(f, "send {to}")?;
                if let Lane::Data(lane) = lane {
                    write!(f, " lane {lane}")?;
                }
                if let After::Durable(record) = after {
                    write!(f, " after #{}", record.0)?;
                }
                write!(f, ": {message}")
            }
            Effect::Accepted { token, op } => write!(f, "accepted {} as {op}", token.0),
            Effect::Refused { token, why } => write!(f, "refused {} {why:?}", token.0),
            Effect::Committed { first, last } => write!(f, "committed {first}-{last}"),
            Effect::Settled { op, outcome } => write!(f, "settled {op} {outcome:?}"),
            Effect::Visible { checkpoint } => write!(f, "visible {}", checkpoint.op),
            Effect::ReadReady { token } => write!(f, "read {} ready", token.0),
            Effect::ReadAgain { token } => write!(f, "read {} again", token.0),
            Effect::ReadHere { token, checkpoint, keys } => {
                write!(f, "read {} here at {checkpoint} {}", token.0, List(keys.as_slice()))
            }
            Effect::ReadAtLeader { token, .. } => write!(f, "read {} at the leader", token.0),
            Effect::ReadPiece { transfer, to, number, way, want, .. } => {
                write!(f, "read-piece t{} #{number} for {to} by {way:?}: {want}", transfer.number)
            }
            Effect::EndServing { transfer } => write!(f, "end-serving t{}", transfer.number),
            Effect::Ingest { transfer, number, way, ceiling } => {
                write!(f, "ingest t{} #{number} {way:?}", transfer.number)?;
                match ceiling {
                    Some(ceiling) => write!(f, " ceiling {ceiling}"),
                    None => f.write_str(" staged"),
                }
            }
            Effect::DropTransfer { transfer } => write!(f, "drop-transfer t{}", transfer.number),
            Effect::Lead { epoch } => write!(f, "lead {epoch}"),
            Effect::LeaderMissing { epoch } => write!(f, "leader-missing {epoch}"),
            Effect::Ask { why, above } => write!(f, "ask {why:?} above {above}"),
            Effect::Room => f.write_str("room"),
            Effect::Deposed => f.write_str("deposed"),
            Effect::Alarm(alarm) => write!(f, "alarm {alarm:?}"),
        }
    }
}
