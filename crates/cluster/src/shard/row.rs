//! The state of a member that is not in its notes: one entry of the system tree, written in the same batch as what it belongs to.

use super::bytes_in::{Expected, Reader, put_u64};
use bytes::Bytes;
use kvorum_engine::TreeId;
use kvorum_sync::{Checkpoint, Digest, Durable, Epoch, OpId, Promise, Record, Standing, StoreId};

const FORMAT: u8 = 1;

/// See the crate `kvorum_sync`, `Durable`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) promise: Promise,
    pub(super) epoch: Epoch,
    pub(super) basis_end: OpId,
    pub(super) checkpoint: Checkpoint,
    pub(super) standing: Standing,
    /// The tree that holds the member's data; others that bear the shard's name are half-made or done with.
    pub(super) tree: TreeId,
    /// Items at or below came without notes, or their notes may be gone.
    pub(super) floor: OpId,
    /// Tombstones up to here may have been missing in what came as files.
    pub(super) gc_floor: OpId,
}

impl Row {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&self.promise.epoch.get().to_le_bytes());
        put_u64(&mut out, self.promise.manager.0);
        put_u64(&mut out, self.promise.nonce);
        out.extend_from_slice(&self.epoch.get().to_le_bytes());
        put_u64(&mut out, self.basis_end.version());
        put_u64(&mut out, self.checkpoint.op.version());
        put_u64(&mut out, self.checkpoint.digest.0);
        put_u64(&mut out, self.checkpoint.time);
        match self.standing {
            Standing::Whole => out.push(0),
            Standing::Rebuilding { until } => {
                out.push(1);
                put_u64(&mut out, until.version());
            }
        }
        out.extend_from_slice(&self.tree.to_le_bytes());
        put_u64(&mut out, self.floor.version());
        put_u64(&mut out, self.gc_floor.version());
        out
    }

    pub(super) fn decode(bytes: &Bytes) -> Result<Row, Expected> {
        let mut reader = Reader::new(bytes);
        if reader.u8("the format of a shard's state")? != FORMAT {
            return Err("a known format of a shard's state");
        }
        let promise = Promise {
            epoch: epoch(&mut reader)?,
            manager: StoreId(reader.u64("a store")?),
            nonce: reader.u64("a nonce")?,
        };
        let reign = epoch(&mut reader)?;
        let basis_end = reader.op("an op id")?;
        let checkpoint = Checkpoint {
            op: reader.op("an op id")?,
            digest: Digest(reader.u64("a digest")?),
            time: reader.u64("a time")?,
        };
        let standing = match reader.u8("a standing")? {
            0 => Standing::Whole,
            1 => Standing::Rebuilding { until: reader.op("an op id")? },
            _ => return Err("a standing"),
        };
        let tree = reader.u32("a tree")?;
        let (floor, gc_floor) = (reader.op("a floor")?, reader.op("a floor")?);
        reader.end()?;
        Ok(Row { promise, epoch: reign, basis_end, checkpoint, standing, tree, floor, gc_floor })
    }

    /// What a record means, but for the tail.
    pub(super) fn apply(&mut self, record: &Record) {
        match record {
            Record::Item(_) => {}
            Record::Promise(promise) => self.promise = *promise,
            Record::Adopt(adoption) => {
                self.promise = adoption.promise;
                self.epoch = adoption.promise.epoch;
                self.basis_end = adoption.basis_end;
                self.standing = adoption.standing;
                self.checkpoint = adoption.checkpoint;
            }
            Record::Checkpoint(checkpoint) => self.checkpoint = *checkpoint,
            Record::Rebuild => {
                *self = Row {
                    promise: self.promise,
                    standing: Standing::Rebuilding { until: OpId::MAX },
                    ..Row::default()
                };
            }
            Record::Standing(standing) => self.standing = *standing,
        }
    }

    /// What the core starts from; the tail is read from the notes.
    pub(super) fn durable(&self) -> Durable {
        Durable {
            promise: self.promise,
            epoch: self.epoch,
            basis_end: self.basis_end,
            checkpoint: self.checkpoint,
            standing: self.standing,
            ..Durable::default()
        }
    }
}

/// The epoch that a member has promised, by the bytes of its state.
pub(crate) fn promised_epoch(state: &Bytes) -> Option<u64> {
    Row::decode(state).ok().map(|row| row.promise.epoch.get().into())
}

fn epoch(reader: &mut Reader<'_>) -> Result<Epoch, Expected> {
    Epoch::new(reader.u32("an epoch")?).ok_or("an epoch of 24 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_comes_back_from_its_bytes() {
        let epoch = Epoch::new(7).unwrap();
        let row = Row {
            promise: Promise { epoch, manager: StoreId(u64::MAX), nonce: 3 },
            epoch,
            basis_end: OpId::new(epoch, 4),
            checkpoint: Checkpoint { op: OpId::new(epoch, 9), digest: Digest(11), time: 12 },
            standing: Standing::Rebuilding { until: OpId::MAX },
            tree: 5,
            floor: OpId::from_version(6),
            gc_floor: OpId::from_version(7),
        };
        let bytes = Bytes::from(row.encode());
        assert_eq!(Row::decode(&bytes), Ok(row));
        for length in 0..bytes.len() {
            assert!(Row::decode(&bytes.slice(..length)).is_err(), "{length}");
        }
    }
}
