//! From bytes to messages.

use super::kind;
use crate::shard::bytes_in::{Expected, Reader};
use kvorum_sync::{
    Adopt, AskRead, BasisItem, Checkpoint, Digest, Epoch, Fetch, Gather, Hello, Item, KeyHash, KeyState,
    Keys, MEMBERS_MAX, Members, Membership, Message, Moment, Names, OpId, Piece, Promise, Promised,
    ReadAnswer, ReadWhat, Standing, StoreId, TransferId, Want, Way,
};

type Read<T> = Result<T, Expected>;

/// Bytes of an item at least.
const ITEM_BYTES_MIN: usize = 19;

pub(super) fn message(reader: &mut Reader<'_>) -> Read<Message> {
    let kind = reader.u8("a kind of message")?;
    match kind {
        kind::WRITE => Ok(Message::Write { epoch: epoch(reader)?, item: item(reader)?, point: op(reader)? }),
        kind::ACK => Ok(Message::Ack {
            epoch: epoch(reader)?,
            first: number(reader)?,
            last: number(reader)?,
            checkpoint: op(reader)?,
        }),
        kind::POINT => Ok(Message::Point {
            epoch: epoch(reader)?,
            point: op(reader)?,
            digest: digest(reader)?,
            head: number(reader)?,
        }),
        kind::REACHED => {
            Ok(Message::Reached { epoch: epoch(reader)?, point: op(reader)?, digest: digest(reader)? })
        }
        kind::LACK => {
            Ok(Message::Lack { epoch: epoch(reader)?, first: number(reader)?, last: number(reader)? })
        }
        kind::PING => Ok(Message::Ping { epoch: epoch(reader)?, round: number(reader)? }),
        kind::PONG => Ok(Message::Pong { epoch: epoch(reader)?, round: number(reader)? }),
        kind::REFUSED => Ok(Message::Refused { epoch: epoch(reader)?, promised: epoch(reader)? }),
        kind::ADOPTED => Ok(Message::Adopted {
            epoch: epoch(reader)?,
            checkpoint: op(reader)?,
            standing: standing(reader)?,
        }),
        kind::FENCE => Ok(Message::Fence { epoch: epoch(reader)?, point: op(reader)? }),
        kind::ANNOUNCE => Ok(Message::Announce { promise: promise(reader)? }),
        kind::CANNOT_SERVE => Ok(Message::CannotServe { transfer: transfer(reader)? }),
        kind::ASK_POINT => Ok(Message::AskPoint { epoch: epoch(reader)?, sent: moment(reader)? }),
        kind::POINT_AT => {
            Ok(Message::PointAt { epoch: epoch(reader)?, sent: moment(reader)?, committed: op(reader)? })
        }
        kind => large(kind, reader),
    }
}

fn large(kind: u8, reader: &mut Reader<'_>) -> Read<Message> {
    match kind {
        kind::GATHER => {
            let (promise, membership) = (promise(reader)?, membership(reader)?);
            Ok(Message::Gather(Box::new(Gather { promise, membership })))
        }
        kind::PROMISED => Ok(Message::Promised(Box::new(Promised {
            promise: promise(reader)?,
            epoch: epoch(reader)?,
            checkpoint: checkpoint(reader)?,
            tail: reader.list(ITEM_BYTES_MIN, "items", item)?,
            standing: standing(reader)?,
        }))),
        kind::ADOPT => adopt(reader),
        kind::HELLO => Ok(Message::Hello(Box::new(Hello {
            promised: epoch(reader)?,
            epoch: epoch(reader)?,
            checkpoint: op(reader)?,
            held: reader.list(2, "ranges", |reader| Ok((number(reader)?, number(reader)?)))?,
            standing: standing(reader)?,
        }))),
        kind::RESUME => Ok(Message::Resume {
            epoch: epoch(reader)?,
            upto: checkpoint(reader)?,
            sources: Names::of(&stores(reader)?),
        }),
        kind::FETCH => Ok(Message::Fetch(Box::new(Fetch {
            transfer: transfer(reader)?,
            epoch: epoch(reader)?,
            want: want(reader)?,
            next: number(reader)?,
            credit: number(reader)?,
            cursor: cursor(reader)?,
        }))),
        kind::PIECE => piece(reader),
        kind::ASK_READ => Ok(Message::AskRead(Box::new(AskRead {
            epoch: epoch(reader)?,
            id: number(reader)?,
            checkpoint: op(reader)?,
            what: what(reader)?,
        }))),
        kind::READ_ANSWER => {
            let (epoch, id) = (epoch(reader)?, number(reader)?);
            let keys = reader.list(24, "states of keys", |reader| {
                Ok(KeyState { committed: op(reader)?, pending: op(reader)?, wait: op(reader)? })
            })?;
            Ok(Message::ReadAnswer(Box::new(ReadAnswer { epoch, id, keys: Names::of(&keys) })))
        }
        _ => Err("a known kind of message"),
    }
}

fn epoch(reader: &mut Reader<'_>) -> Read<Epoch> {
    Epoch::new(reader.u32("an epoch")?).ok_or("an epoch of 24 bits")
}

fn op(reader: &mut Reader<'_>) -> Read<OpId> {
    reader.op("an op id")
}

fn ops(reader: &mut Reader<'_>) -> Read<Vec<OpId>> {
    reader.list(8, "op ids", op)
}

fn number(reader: &mut Reader<'_>) -> Read<u64> {
    reader.varint("a number")
}

fn moment(reader: &mut Reader<'_>) -> Read<Moment> {
    reader.u64("a moment").map(Moment)
}

fn digest(reader: &mut Reader<'_>) -> Read<Digest> {
    reader.u64("a digest").map(Digest)
}

fn stores(reader: &mut Reader<'_>) -> Read<Vec<StoreId>> {
    reader.list(8, "stores", |reader| reader.u64("a store").map(StoreId))
}

fn promise(reader: &mut Reader<'_>) -> Read<Promise> {
    Ok(Promise {
        epoch: epoch(reader)?,
        manager: StoreId(reader.u64("a store")?),
        nonce: reader.u64("a nonce")?,
    })
}

fn checkpoint(reader: &mut Reader<'_>) -> Read<Checkpoint> {
    Ok(Checkpoint { op: op(reader)?, digest: digest(reader)?, time: number(reader)? })
}

fn standing(reader: &mut Reader<'_>) -> Read<Standing> {
    if reader.flag("a standing")? {
        Ok(Standing::Rebuilding { until: op(reader)? })
    } else {
        Ok(Standing::Whole)
    }
}

fn transfer(reader: &mut Reader<'_>) -> Read<TransferId> {
    Ok(TransferId { nonce: reader.u64("a nonce")?, number: number(reader)? })
}

fn hashes(reader: &mut Reader<'_>) -> Read<Names<KeyHash>> {
    let keys = reader.list(8, "hashes of keys", |reader| reader.u64("a hash").map(KeyHash))?;
    Ok(Names::of(&keys))
}

fn item(reader: &mut Reader<'_>) -> Read<Item> {
    let (op, time, digest) = (op(reader)?, number(reader)?, digest(reader)?);
    let keys = if reader.flag("keys")? { Keys::All } else { Keys::Of(hashes(reader)?) };
    let reads = Names::of(&ops(reader)?);
    Ok(Item { op, time, digest, keys, reads })
}

fn members(reader: &mut Reader<'_>) -> Read<Members> {
    let list = stores(reader)?;
    if list.len() > MEMBERS_MAX {
        return Err("fewer members");
    }
    Ok(Members::of(&list))
}

fn membership(reader: &mut Reader<'_>) -> Read<Membership> {
    let (old, new) = (members(reader)?, members(reader)?);
    if old.as_slice().is_empty() || new.as_slice().is_empty() {
        return Err("at least one member");
    }
    Ok(Membership { old, new })
}

fn adopt(reader: &mut Reader<'_>) -> Read<Message> {
    let (promise, basis_epoch) = (promise(reader)?, epoch(reader)?);
    let checkpoint = checkpoint(reader)?;
    let basis = reader.list(ITEM_BYTES_MIN + 2, "items of the basis", |reader| {
        Ok(BasisItem {
            item: item(reader)?,
            holders: Names::of(&stores(reader)?),
            completed: reader.flag("whether it is completed")?,
        })
    })?;
    let basis_end = op(reader)?;
    let sources = Names::of(&stores(reader)?);
    let head = op(reader)?;
    Ok(Message::Adopt(Box::new(Adopt { promise, basis_epoch, checkpoint, basis, basis_end, sources, head })))
}

fn want(reader: &mut Reader<'_>) -> Read<Want> {
    if reader.flag("what is wanted")? {
        Ok(Want::Final { since: op(reader)?, upto: op(reader)?, doubtful: ops(reader)? })
    } else {
        Ok(Want::Items(ops(reader)?))
    }
}

fn cursor(reader: &mut Reader<'_>) -> Read<std::sync::Arc<[u8]>> {
    let length = reader.count(1, "a cursor")?;
    Ok(reader.slice(length, "a cursor")?.into())
}

fn piece(reader: &mut Reader<'_>) -> Read<Message> {
    let (transfer, epoch, number) = (transfer(reader)?, epoch(reader)?, number(reader)?);
    let way = match reader.u8("a way")? {
        0 => Way::Items,
        1 => Way::Delta,
        2 => Way::Files,
        _ => return Err("a known way"),
    };
    let (items, cursor) = (ops(reader)?, cursor(reader)?);
    let end = if reader.flag("whether it ends")? { Some(ops(reader)?) } else { None };
    Ok(Message::Piece(Box::new(Piece { transfer, epoch, number, way, items, cursor, end })))
}

fn what(reader: &mut Reader<'_>) -> Read<ReadWhat> {
    if reader.flag("what is read")? { Ok(ReadWhat::Range) } else { Ok(ReadWhat::Keys(hashes(reader)?)) }
}
