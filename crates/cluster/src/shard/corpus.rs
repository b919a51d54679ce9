//! What the readers of a shard's bytes are tried with: a target of `fuzz/`, a name, and the bytes.

use super::row::Row;
use super::writes::{Payload, Writes};
use super::{note, transfer, wire};
use bytes::Bytes;
use kvorum_engine::Attributes;
use kvorum_sync::{Checkpoint, Digest, Epoch, Item, Names, OpId, Promise, Standing, StoreId, Way};

const WAYS: [(&str, Way); 3] =
    [("piece-items", Way::Items), ("piece-delta", Way::Delta), ("piece-files", Way::Files)];

/// Messages, and what stands in stores or travels beside messages.
pub(crate) fn corpus() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut writes = Writes::new();
    writes.put(b"\x10key", b"value", Attributes { expires_at: Some(1 << 40), tag: 3 });
    writes.delete(b"\x10other", Attributes::default());
    let payload = writes.finish();
    let op = OpId::new(Epoch::new(7).unwrap(), 9);
    let (digest, keys) = (payload.digest(op), payload.keys().clone());
    let item = Item { op, time: 1234, digest, keys, reads: Names::of(&[OpId::from_version(8)]) };
    let row = Row {
        promise: Promise { epoch: op.epoch(), manager: StoreId(u64::MAX), nonce: 3 },
        epoch: op.epoch(),
        basis_end: op,
        checkpoint: Checkpoint { op, digest: Digest(11), time: 12 },
        standing: Standing::Rebuilding { until: OpId::MAX },
        tree: 5,
        floor: OpId::from_version(6),
        gc_floor: OpId::from_version(7),
    };
    let data = |name: &str, bytes: &[u8]| ("shard_data", name.to_owned(), bytes.to_vec());
    let mut all = wire::tests::corpus();
    all.push(data("row", &row.encode()));
    all.push(data("note", &note::encode(&item, note::Came::Own, &payload)));
    all.push(data("writes", payload.bytes()));
    for (way, piece) in transfer::one_of_each(&payload) {
        let name = WAYS.iter().find(|(_, other)| *other == way).map_or("", |(name, _)| name);
        all.push(data(name, &piece));
    }
    all
}

/// Whether bytes of this name are what it says.
pub(crate) fn is_read(name: &str, bytes: &Bytes) -> bool {
    match name {
        "row" => Row::decode(bytes).is_ok(),
        "note" => note::decode(OpId::ZERO, bytes).is_ok(),
        "writes" => Payload::parse(bytes.clone()).is_ok_and(|payload| payload.writes().count() == 2),
        name => {
            let way = WAYS.iter().find(|(other, _)| *other == name);
            way.is_some_and(|(_, way)| transfer::check_piece(*way, bytes).is_ok())
        }
    }
}
