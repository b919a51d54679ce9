//! From messages to bytes.

use super::kind;
use crate::shard::bytes_in::{put_counted, put_u64, put_varint};
use kvorum_sync::{
    Adopt, BasisItem, Checkpoint, Epoch, Fetch, Gather, Hello, Item, KeyState, Keys, Members, Membership,
    Message, OpId, Piece, Promise, Promised, ReadWhat, Standing, StoreId, TransferId, Want, Way,
};

pub(super) fn message(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Gather(gather) => put_gather(out, gather),
        Message::Promised(promised) => put_promised(out, promised),
        Message::Refused { epoch, promised } => {
            begin(out, kind::REFUSED, *epoch);
            put_epoch(out, *promised);
        }
        Message::Adopt(adopt) => put_adopt(out, adopt),
        Message::Adopted { epoch, checkpoint, standing } => {
            begin(out, kind::ADOPTED, *epoch);
            put_op(out, *checkpoint);
            put_standing(out, *standing);
        }
        Message::Write { epoch, item, point } => {
            begin(out, kind::WRITE, *epoch);
            put_item(out, item);
            put_op(out, *point);
        }
        Message::Ack { epoch, first, last, checkpoint } => {
            begin(out, kind::ACK, *epoch);
            put_varint(out, *first);
            put_varint(out, *last);
            put_op(out, *checkpoint);
        }
        Message::Point { epoch, point, digest, head } => {
            begin(out, kind::POINT, *epoch);
            put_op(out, *point);
            put_u64(out, digest.0);
            put_varint(out, *head);
        }
        Message::Reached { epoch, point, digest } => {
            begin(out, kind::REACHED, *epoch);
            put_op(out, *point);
            put_u64(out, digest.0);
        }
        Message::Lack { epoch, first, last } => {
            begin(out, kind::LACK, *epoch);
            put_varint(out, *first);
            put_varint(out, *last);
        }
        other => rare(out, other),
    }
}

fn rare(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Announce { promise } => {
            out.push(kind::ANNOUNCE);
            put_promise(out, promise);
        }
        Message::Hello(hello) => put_hello(out, hello),
        Message::Resume { epoch, upto, sources } => {
            begin(out, kind::RESUME, *epoch);
            put_checkpoint(out, upto);
            put_stores(out, sources.as_slice());
        }
        Message::Fetch(fetch) => put_fetch(out, fetch),
        Message::Piece(piece) => put_piece(out, piece),
        Message::CannotServe { transfer } => {
            out.push(kind::CANNOT_SERVE);
            put_transfer(out, *transfer);
        }
        Message::AskRead(ask) => {
            begin(out, kind::ASK_READ, ask.epoch);
            put_varint(out, ask.id);
            put_op(out, ask.checkpoint);
            put_what(out, &ask.what);
        }
        Message::ReadAnswer(answer) => {
            begin(out, kind::READ_ANSWER, answer.epoch);
            put_varint(out, answer.id);
            put_varint(out, answer.keys.as_slice().len() as u64);
            answer.keys.as_slice().iter().for_each(|state| put_state(out, state));
        }
        Message::AskPoint { epoch, sent } => {
            begin(out, kind::ASK_POINT, *epoch);
            put_u64(out, sent.0);
        }
        Message::PointAt { epoch, sent, committed } => {
            begin(out, kind::POINT_AT, *epoch);
            put_u64(out, sent.0);
            put_op(out, *committed);
        }
        Message::Fence { epoch, point } => {
            begin(out, kind::FENCE, *epoch);
            put_op(out, *point);
        }
        Message::Ping { epoch, round } => {
            begin(out, kind::PING, *epoch);
            put_varint(out, *round);
        }
        Message::Pong { epoch, round } => {
            begin(out, kind::PONG, *epoch);
            put_varint(out, *round);
        }
        // The frequent ones have been written.
        _ => {}
    }
}

fn begin(out: &mut Vec<u8>, kind: u8, epoch: Epoch) {
    out.push(kind);
    put_epoch(out, epoch);
}

fn put_epoch(out: &mut Vec<u8>, epoch: Epoch) {
    out.extend_from_slice(&epoch.get().to_le_bytes());
}

fn put_op(out: &mut Vec<u8>, op: OpId) {
    put_u64(out, op.version());
}

fn put_ops(out: &mut Vec<u8>, ops: &[OpId]) {
    put_varint(out, ops.len() as u64);
    ops.iter().for_each(|op| put_op(out, *op));
}

fn put_stores(out: &mut Vec<u8>, stores: &[StoreId]) {
    put_varint(out, stores.len() as u64);
    stores.iter().for_each(|store| put_u64(out, store.0));
}

fn put_promise(out: &mut Vec<u8>, promise: &Promise) {
    put_epoch(out, promise.epoch);
    put_u64(out, promise.manager.0);
    put_u64(out, promise.nonce);
}

fn put_checkpoint(out: &mut Vec<u8>, checkpoint: &Checkpoint) {
    put_op(out, checkpoint.op);
    put_u64(out, checkpoint.digest.0);
    put_varint(out, checkpoint.time);
}

fn put_standing(out: &mut Vec<u8>, standing: Standing) {
    match standing {
        Standing::Whole => out.push(0),
        Standing::Rebuilding { until } => {
            out.push(1);
            put_op(out, until);
        }
    }
}

fn put_transfer(out: &mut Vec<u8>, transfer: TransferId) {
    put_u64(out, transfer.nonce);
    put_varint(out, transfer.number);
}

fn put_item(out: &mut Vec<u8>, item: &Item) {
    put_op(out, item.op);
    put_varint(out, item.time);
    put_u64(out, item.digest.0);
    match &item.keys {
        Keys::All => out.push(1),
        Keys::Of(keys) => {
            out.push(0);
            put_varint(out, keys.as_slice().len() as u64);
            keys.as_slice().iter().for_each(|key| put_u64(out, key.0));
        }
    }
    put_ops(out, item.reads.as_slice());
}

fn put_members(out: &mut Vec<u8>, members: &Members) {
    put_stores(out, members.as_slice());
}

fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    put_members(out, &membership.old);
    put_members(out, &membership.new);
}

fn put_gather(out: &mut Vec<u8>, gather: &Gather) {
    out.push(kind::GATHER);
    put_promise(out, &gather.promise);
    put_membership(out, &gather.membership);
}

fn put_promised(out: &mut Vec<u8>, promised: &Promised) {
    out.push(kind::PROMISED);
    put_promise(out, &promised.promise);
    put_epoch(out, promised.epoch);
    put_checkpoint(out, &promised.checkpoint);
    put_varint(out, promised.tail.len() as u64);
    promised.tail.iter().for_each(|item| put_item(out, item));
    put_standing(out, promised.standing);
}

fn put_adopt(out: &mut Vec<u8>, adopt: &Adopt) {
    out.push(kind::ADOPT);
    put_promise(out, &adopt.promise);
    put_epoch(out, adopt.basis_epoch);
    put_checkpoint(out, &adopt.checkpoint);
    put_varint(out, adopt.basis.len() as u64);
    for BasisItem { item, holders, completed } in &adopt.basis {
        put_item(out, item);
        put_stores(out, holders.as_slice());
        out.push(u8::from(*completed));
    }
    put_op(out, adopt.basis_end);
    put_stores(out, adopt.sources.as_slice());
    put_op(out, adopt.head);
}

fn put_hello(out: &mut Vec<u8>, hello: &Hello) {
    out.push(kind::HELLO);
    put_epoch(out, hello.promised);
    put_epoch(out, hello.epoch);
    put_op(out, hello.checkpoint);
    put_varint(out, hello.held.len() as u64);
    for (first, last) in &hello.held {
        put_varint(out, *first);
        put_varint(out, *last);
    }
    put_standing(out, hello.standing);
}

fn put_want(out: &mut Vec<u8>, want: &Want) {
    match want {
        Want::Items(ops) => {
            out.push(0);
            put_ops(out, ops);
        }
        Want::Final { since, upto, doubtful } => {
            out.push(1);
            put_op(out, *since);
            put_op(out, *upto);
            put_ops(out, doubtful);
        }
    }
}

fn put_fetch(out: &mut Vec<u8>, fetch: &Fetch) {
    out.push(kind::FETCH);
    put_transfer(out, fetch.transfer);
    put_epoch(out, fetch.epoch);
    put_want(out, &fetch.want);
    put_varint(out, fetch.next);
    put_varint(out, fetch.credit);
    put_counted(out, &fetch.cursor);
}

fn put_piece(out: &mut Vec<u8>, piece: &Piece) {
    out.push(kind::PIECE);
    put_transfer(out, piece.transfer);
    put_epoch(out, piece.epoch);
    put_varint(out, piece.number);
    out.push(way_number(piece.way));
    put_ops(out, &piece.items);
    put_counted(out, &piece.cursor);
    match &piece.end {
        None => out.push(0),
        Some(confirmed) => {
            out.push(1);
            put_ops(out, confirmed);
        }
    }
}

fn way_number(way: Way) -> u8 {
    match way {
        Way::Items => 0,
        Way::Delta => 1,
        Way::Files => 2,
    }
}

fn put_what(out: &mut Vec<u8>, what: &ReadWhat) {
    match what {
        ReadWhat::Range => out.push(1),
        ReadWhat::Keys(keys) => {
            out.push(0);
            put_varint(out, keys.as_slice().len() as u64);
            keys.as_slice().iter().for_each(|key| put_u64(out, key.0));
        }
    }
}

fn put_state(out: &mut Vec<u8>, state: &KeyState) {
    put_op(out, state.committed);
    put_op(out, state.pending);
    put_op(out, state.wait);
}
