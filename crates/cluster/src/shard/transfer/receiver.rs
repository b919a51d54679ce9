//! What is under way into a member. One job at a time, in order; what waits is bounded by the receiver's credit.

use super::files_in::FilesIn;
use super::folder;
use super::piece;
use super::receive::{ReceiveJob, Received};
use crate::keys::tree_name;
use crate::shard::carry::Beside;
use crate::shard::jobs::Job;
use crate::shard::member::Member;
use crate::shard::open::MADE;
use crate::shard::outbox::Outbox;
use crate::shard::writes::Payload;
use bytes::Bytes;
use kvorum_engine::{Error, Sequence, Tree};
use kvorum_sync::{Input, Message, Moment, OpId, TransferId, Way};
use std::collections::{BTreeMap, VecDeque};

/// Something to do.
pub(in crate::shard) enum Work {
    /// An empty tree for a member that starts over.
    Empty,
    /// A folder and a tree for files.
    Begin { transfer: TransferId, ceiling: OpId },
    /// What a piece of files brought.
    Files { transfer: TransferId, number: u64, payload: Bytes },
    /// What a piece of items or of a delta brought.
    Data { transfer: TransferId, number: u64, way: Way, ceiling: OpId, payload: Bytes },
    /// Files that are of no use any more.
    Discard(Box<FilesIn>),
    /// A tree that another one took the place of.
    Retire { old: Tree, new: Tree },
}

#[derive(Default)]
pub(in crate::shard) struct Receiver {
    queue: VecDeque<Work>,
    busy: bool,
    /// Files under way; `None` also while a job has them.
    files: Option<Box<FilesIn>>,
    /// Whose files they are.
    current: Option<TransferId>,
    /// The tree that they go into, or went into: what the member stores meanwhile goes there too.
    filling: Option<Tree>,
    /// All of them: waiting for the record that moves the checkpoint.
    built: Option<Box<FilesIn>>,
    installed_upto: OpId,
    staged: BTreeMap<OpId, Payload>,
    staged_bytes: usize,
    /// Trees to be dropped once a sequence is durable.
    retiring: VecDeque<(Sequence, Tree, Tree)>,
    /// Found no room; the next one before all others.
    refused: Option<ReceiveJob>,
    /// What the job in hand stores is not wanted any more.
    void: bool,
    /// Trees and folders made in this run.
    made: u64,
}

impl Receiver {
    pub(in crate::shard) fn add(&mut self, work: Work) {
        self.queue.push_back(work);
    }

    pub(in crate::shard) fn is_busy(&self) -> bool {
        self.busy || !self.queue.is_empty() || self.filling.is_some() || !self.staged.is_empty()
    }

    pub(in crate::shard) fn filling(&self) -> Option<&Tree> {
        self.filling.as_ref()
    }

    pub(in crate::shard) fn installed_upto(&self) -> OpId {
        self.installed_upto
    }

    /// The values of an item of the basis.
    pub(in crate::shard) fn staged(&self, op: OpId) -> Option<Payload> {
        self.staged.get(&op).cloned()
    }

    /// The tree that may be installed with a checkpoint.
    pub(in crate::shard) fn take_built(&mut self, checkpoint: OpId) -> Option<(Tree, OpId)> {
        let built = self.built.take_if(|built| built.ceiling <= checkpoint)?;
        (self.filling, self.current) = (None, None);
        self.installed_upto = built.ceiling;
        Some((built.tree.clone(), built.ceiling))
    }

    /// Another tree took the place of `old`, durably from the sequence on.
    pub(in crate::shard) fn retire(&mut self, sequence: Sequence, old: Tree, new: Tree) {
        self.retiring.push_back((sequence, old, new));
    }

    pub(in crate::shard) fn durable(&mut self, synced: Sequence) {
        while let Some((_, old, new)) = self.retiring.pop_front_if(|(sequence, _, _)| *sequence <= synced) {
            self.queue.push_back(Work::Retire { old, new });
        }
    }

    pub(in crate::shard) fn drop_transfer(&mut self, _transfer: TransferId) {
        // The core drops all transfers of an adoption together, and never has one beside.
        self.forget();
    }

    /// Nothing of what came is wanted any more.
    pub(in crate::shard) fn forget(&mut self) {
        self.staged.clear();
        self.staged_bytes = 0;
        self.installed_upto = OpId::ZERO;
        self.void = true;
        self.queue.retain(|work| matches!(work, Work::Empty | Work::Discard(_) | Work::Retire { .. }));
        self.discard();
    }

    /// The files are of no use any more.
    fn discard(&mut self) {
        (self.current, self.filling) = (None, None);
        for files in [self.files.take(), self.built.take()].into_iter().flatten() {
            self.queue.push_back(Work::Discard(files));
        }
    }

    fn stage(&mut self, payload: &Bytes, bytes_max: usize) -> kvorum_engine::Result<()> {
        let strange = |expected| Error::Invalid(format!("a piece of a transfer lacks {expected}"));
        for item in piece::items(payload).map_err(strange)? {
            self.staged_bytes += item.payload.len();
            self.staged.insert(item.op, item.payload);
        }
        if self.staged_bytes > bytes_max {
            return Err(Error::TooLarge {
                what: "basis of an epoch",
                size: self.staged_bytes as u64,
                limit: bytes_max as u64,
                setting: "memory_bytes",
            });
        }
        Ok(())
    }
}

impl Member {
    /// A piece came.
    pub(in crate::shard) fn ingest(
        &mut self,
        (transfer, number): (TransferId, u64),
        way: Way,
        ceiling: Option<OpId>,
        beside: &Beside,
        out: &mut Outbox,
    ) {
        let Beside::Piece(payload) = beside else { return };
        let payload = payload.clone();
        let Some(ceiling) = ceiling else {
            match self.receiver.stage(&payload, self.config.staged_bytes_max) {
                Ok(()) => self.again.push_back((Input::Ingested { transfer, number }, Beside::Nothing)),
                Err(error) => self.halt(error, out),
            }
            return;
        };
        if self.receiver.current != Some(transfer) {
            // Files of two transfers never mix, and only one transfer of what is final is under way.
            self.receiver.discard();
        }
        match way {
            Way::Files => {
                if self.receiver.current.is_none() {
                    self.receiver.current = Some(transfer);
                    self.receiver.add(Work::Begin { transfer, ceiling });
                }
                self.receiver.add(Work::Files { transfer, number, payload });
            }
            Way::Items | Way::Delta => {
                self.receiver.add(Work::Data { transfer, number, way, ceiling, payload });
            }
        }
    }

    /// Hands out the next job, if none is out.
    pub(in crate::shard) fn start_receiving(&mut self, out: &mut Outbox) {
        if self.receiver.busy {
            return;
        }
        if let Some(job) = self.receiver.refused.take() {
            self.receiver.busy = true;
            out.jobs.push(Job::receive(job));
            return;
        }
        while let Some(work) = self.receiver.queue.pop_front() {
            if let Some(job) = self.receive_job(work) {
                (self.receiver.busy, self.receiver.void) = (true, false);
                out.jobs.push(Job::receive(job));
                return;
            }
        }
    }

    fn receive_job(&mut self, work: Work) -> Option<ReceiveJob> {
        let base = tree_name(self.shard);
        let mut name = || {
            self.receiver.made += 1;
            format!("{base}{MADE}{}", self.receiver.made)
        };
        match work {
            Work::Empty => Some(ReceiveJob::Empty { name: name() }),
            Work::Begin { transfer, ceiling } => {
                let name = name();
                let which = format!("in-{:x}-{}", transfer.nonce, transfer.number);
                let dir = folder(self.store.path(), self.shard, &which);
                Some(ReceiveJob::Begin { fs: self.fs.clone(), dir, name, transfer, ceiling })
            }
            Work::Files { transfer, number, payload } => {
                // Without files its transfer is void.
                let files = self.receiver.files.take_if(|files| files.transfer == transfer)?;
                let tail = self.tail.keys().copied().filter(|op| *op > files.ceiling).collect();
                Some(ReceiveJob::Files { files, number, payload, own: self.tree.clone(), tail })
            }
            Work::Data { transfer, number, way, ceiling, payload } => {
                let own: Vec<OpId> = self.tail.keys().copied().collect();
                let tree = self.tree.clone();
                Some(ReceiveJob::Data { tree, transfer, number, way, ceiling, payload, own })
            }
            Work::Discard(files) => Some(ReceiveJob::Discard(files)),
            Work::Retire { old, new } => Some(ReceiveJob::Retire { base, old, new }),
        }
    }

    /// A job of the receiver ended.
    pub(in crate::shard) fn received(&mut self, now: Moment, received: Received, out: &mut Outbox) {
        self.receiver.busy = false;
        match received {
            Received::Nothing => {}
            Received::Refused(job) => self.receiver.refused = Some(job),
            Received::Empty(Ok(tree)) => self.started_over(&tree, out),
            Received::Empty(Err(error)) => self.halt(error, out),
            Received::Began { transfer, files } => match files {
                Ok(files) if self.receiver.current == Some(transfer) => {
                    self.receiver.filling = Some(files.tree.clone());
                    self.receiver.files = Some(files);
                }
                Ok(files) => self.receiver.add(Work::Discard(files)),
                Err(why) => self.failed(now, transfer, &why, out),
            },
            Received::Files { files, number, last, result } => {
                let transfer = files.transfer;
                if self.receiver.current != Some(transfer) {
                    self.receiver.add(Work::Discard(files));
                    return;
                }
                let ceiling = files.ceiling;
                match result {
                    Err(why) => {
                        self.receiver.files = Some(files);
                        self.failed(now, transfer, &why, out);
                    }
                    Ok(()) if last => {
                        self.receiver.built = Some(files);
                        self.shipped(now, (ceiling, ceiling), out);
                        self.feed(now, Input::Ingested { transfer, number }, Beside::Nothing, out);
                    }
                    Ok(()) => {
                        self.receiver.files = Some(files);
                        self.feed(now, Input::Ingested { transfer, number }, Beside::Nothing, out);
                    }
                }
            }
            Received::Data { transfer, number, upto, result } => match result {
                // Who goes on at another source would not get it again.
                Err(error) if !self.receiver.void => self.halt(error, out),
                Err(_) => {}
                Ok(()) => {
                    if let Some(upto) = upto {
                        // Of an item that came as a delta only what was newest stands.
                        self.row.floor = self.row.floor.max(upto);
                        self.shipped(now, (upto, OpId::ZERO), out);
                    }
                    self.feed(now, Input::Ingested { transfer, number }, Beside::Nothing, out);
                }
            },
        }
    }

    /// Floors came with the data: told before the answer for the last piece.
    fn shipped(&mut self, now: Moment, (floor, gc_floor): (OpId, OpId), out: &mut Outbox) {
        self.feed(now, Input::Floors { floor, gc_floor }, Beside::Nothing, out);
    }

    /// Files that came can't be stored: another source is asked, and sends them from the start.
    fn failed(&mut self, now: Moment, transfer: TransferId, why: &str, out: &mut Outbox) {
        let (namespace, place) = (self.shard.namespace, self.shard.place);
        tracing::warn!(namespace, place, why, "files of a transfer can't be stored here");
        // As if the source had said so.
        let input = Input::Message { from: self.replica.id(), message: Message::CannotServe { transfer } };
        self.feed(now, input, Beside::Nothing, out);
    }
}
