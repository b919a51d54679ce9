//! A member's disk: what is durable, what the process sees, and the records in between.

use std::collections::{BTreeMap, VecDeque};

use kvorum_sync::{Durable, OpId, Record, RecordId, TransferId};

use crate::tree::{Tree, Writes};

/// Something to store.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// A record of the core with the values that belong to it.
    Record { id: RecordId, record: Record, values: BTreeMap<OpId, Writes> },
    /// Final data of a transfer (none if the piece was staged, and only its arrival is told). With `instead_upto` it takes the place of
    /// everything up to there: shipped files are swapped in as a whole, since what is absent from them is gone.
    Data { transfer: TransferId, number: u64, entries: BTreeMap<OpId, Writes>, instead_upto: Option<OpId> },
}

/// The durable state and the tree at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(crate) durable: Durable,
    pub(crate) tree: Tree,
    /// History below is gone.
    pub(crate) floor: OpId,
    /// The highest tombstone dropped, as far as is known here.
    pub(crate) gc_floor: OpId,
}

impl Image {
    fn apply(&mut self, work: &Work) {
        match work {
            Work::Record { record, values, .. } => {
                if let Record::Adopt(adoption) = record {
                    for op in adoption.retract.iter().filter(|op| **op > self.floor) {
                        self.tree.retract(*op);
                    }
                }
                if *record == Record::Rebuild {
                    self.tree.wipe();
                    (self.floor, self.gc_floor) = (OpId::ZERO, OpId::ZERO);
                }
                self.put(values);
                self.durable.apply(record);
            }
            Work::Data { entries, instead_upto: None, .. } => self.put(entries),
            Work::Data { entries, instead_upto: Some(upto), .. } => {
                self.tree.drop_upto(*upto);
                for (op, writes) in entries {
                    self.tree.put(*op, writes);
                }
                // The source may have collected tombstones up to here: a delta from below, served by this member, would lack them.
                self.floor = self.floor.max(*upto);
                self.gc_floor = self.gc_floor.max(*upto);
            }
        }
    }

    /// As a store does, it refuses what is at or below the floor: it stands already.
    fn put(&mut self, values: &BTreeMap<OpId, Writes>) {
        for (op, writes) in values.iter().filter(|(op, _)| **op > self.floor) {
            self.tree.put(*op, writes);
        }
    }

    fn collect(&mut self, floor: OpId) {
        if floor > self.floor {
            self.floor = floor;
        }
        // A floor that shipped files raised may be above the checkpoint: what stands below it is settled all the same.
        self.gc_floor = self.gc_floor.max(self.tree.collect(self.floor));
    }
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// What a power cut leaves.
    pub(crate) image: Image,
    /// What the process sees.
    pub(crate) live: Image,
    queue: VecDeque<Work>,
    /// How many works the running fsync covers; 0: none runs.
    pub(crate) syncing: usize,
    /// How many of the queued works were told as stored though only written.
    written: usize,
    /// The log lost what was told as stored: whoever comes up says so.
    pub(crate) cut: bool,
}

impl Disk {
    pub(crate) fn push(&mut self, work: Work) {
        self.live.apply(&work);
        self.queue.push_back(work);
    }

    /// Begins an fsync of all that is queued, unless one runs or there is nothing to do.
    pub(crate) fn begin_sync(&mut self) -> bool {
        let begins = self.syncing == 0 && !self.queue.is_empty();
        if begins {
            self.syncing = self.queue.len();
        }
        begins
    }

    /// The running fsync is done: its works are durable.
    pub(crate) fn end_sync(&mut self) -> Vec<Work> {
        let done: Vec<Work> = self.queue.drain(..self.syncing).collect();
        self.reach(&done);
        self.syncing = 0;
        self.written = self.written.saturating_sub(done.len());
        done
    }

    /// With `written` durability: the last queued record, if nothing that has to be synced is among the queue. It counts as stored.
    pub(crate) fn write(&mut self) -> Option<RecordId> {
        let weak = |work: &Work| {
            matches!(work, Work::Record { record: Record::Item(_) | Record::Checkpoint(_), .. })
        };
        if self.queue.len() == self.written || !self.queue.iter().all(weak) {
            return None;
        }
        self.written = self.queue.len();
        match self.queue.back() {
            Some(Work::Record { id, .. }) => Some(*id),
            _ => None,
        }
    }

    fn reach(&mut self, works: &[Work]) {
        for work in works {
            self.image.apply(work);
            // What the log lost is told at each start until the member is known to begin anew.
            self.cut &= !matches!(work, Work::Record { record: Record::Rebuild, .. });
        }
    }

    /// Records that a power cut may take or leave: any suffix of them goes.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The process died; of the queued works the first `kept` had reached the disk.
    pub(crate) fn crash(&mut self, kept: usize) {
        self.cut |= kept < self.written;
        self.written = 0;
        let reached: Vec<Work> = self.queue.drain(..).take(kept).collect();
        self.reach(&reached);
        self.syncing = 0;
        self.live = self.image.clone();
    }

    /// Drops history that nobody needs; both what is seen and what is durable.
    pub(crate) fn collect(&mut self, floor: OpId) {
        // What is written and not synced is stored in its order, before a floor passes it.
        self.image.collect(floor.min(self.image.durable.checkpoint.op));
        self.live.collect(floor);
    }
}
