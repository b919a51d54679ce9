//! What a member keeps on disk, and how each record changes it.

use std::collections::BTreeMap;

use crate::item::Item;
use crate::types::{Checkpoint, Epoch, OpId, Promise, Standing};

/// A change of the durable state. A driver stores each record **atomically** (one engine batch, one log record), in the order given,
/// together with what the record says about the tree. [`Durable::apply`] is the meaning of each, to the letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// Values of the item at `version = op`, and the item itself as the batch's note under that version. (At or below a floor that shipped
    /// files raised above the checkpoint: the note alone. What stands of the values came with the files.)
    Item(Item),
    /// The highest reign followed.
    Promise(Promise),
    /// The one step into a reign.
    Adopt(Box<Adoption>),
    /// The checkpoint; notes at or below it may be released and floors raised once this is durable.
    Checkpoint(Checkpoint),
    /// Drop the tree's content, the tail, the checkpoint and the adopted reign; keep the promise; the member counts nowhere.
    Rebuild,
    /// The member counts again, or learned until where it does not.
    Standing(Standing),
}

/// See [`Record::Adopt`]. In this order within one batch: retract, put.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adoption {
    /// The reign, promised and adopted.
    pub promise: Promise,
    /// Own items that are not part of it: retract their keys (their notes name them) at their versions.
    pub retract: Vec<OpId>,
    /// Items whose values wait in the staging buffer: put values and notes.
    pub put: Vec<Item>,
    /// The new checkpoint: never below the old one.
    pub checkpoint: Checkpoint,
    /// The last op of the basis.
    pub basis_end: OpId,
    /// Whether the member counts from here on.
    pub standing: Standing,
}

/// The durable state of a member, as a driver reads it at start ([`crate::Replica::recover`]): the state keys and the notes above the
/// checkpoint. A new store has the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Durable {
    /// `pre_epoch`.
    pub promise: Promise,
    /// The adopted reign.
    pub epoch: Epoch,
    /// The end of that reign's basis.
    pub basis_end: OpId,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The items above it.
    pub tail: BTreeMap<OpId, Item>,
    /// Whether the member counts.
    pub standing: Standing,
}

impl Durable {
    /// What a record means.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Item(item) => {
                self.tail.insert(item.op, item.clone());
            }
            Record::Promise(promise) => self.promise = *promise,
            Record::Adopt(adoption) => self.adopt(adoption),
            Record::Checkpoint(checkpoint) => self.advance(*checkpoint),
            Record::Rebuild => {
                let promise = self.promise;
                *self = Durable {
                    promise,
                    standing: Standing::Rebuilding { until: OpId::MAX },
                    ..Durable::default()
                };
            }
            Record::Standing(standing) => self.standing = *standing,
        }
    }

    fn adopt(&mut self, adoption: &Adoption) {
        self.promise = adoption.promise;
        self.epoch = adoption.promise.epoch;
        self.basis_end = adoption.basis_end;
        self.standing = adoption.standing;
        for op in &adoption.retract {
            self.tail.remove(op);
        }
        for item in &adoption.put {
            self.tail.insert(item.op, item.clone());
        }
        self.advance(adoption.checkpoint);
    }

    fn advance(&mut self, checkpoint: Checkpoint) {
        self.checkpoint = checkpoint;
        self.tail = self.tail.split_off(&checkpoint.op);
        self.tail.remove(&checkpoint.op);
    }
}
