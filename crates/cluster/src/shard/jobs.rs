//! Work that waits for the disk: handed out by a member, run where waiting does no harm, and its result handed back.

use super::member::Member;
use super::note;
use super::outbox::{Outbox, Send};
use super::transfer::{ReadPiece, ReceiveJob, Received, Source, SourceFailed};
use super::wire::ShardMessage;
use super::writes::Payload;
use kvorum_engine::{Store, Tree};
use kvorum_sync::{Lane, Message, Moment, OpId, StoreId, TransferId};

type Repeat = (StoreId, Lane, Message);

/// Writes that one job reads again at most: the core asks again for the others.
const REPEATS_MAX: usize = 256;

/// Something that waits for the disk.
#[derive(Debug)]
pub struct Job(Kind);

enum Kind {
    Read { transfer: TransferId, source: Box<Source> },
    End(Source),
    Repeat { tree: Tree, writes: Vec<Repeat> },
    Receive(ReceiveJob),
}

/// What came of a job: goes into [`Member::step`].
#[derive(Debug)]
pub struct JobDone(Result_);

enum Result_ {
    Read { transfer: TransferId, source: Box<Source>, piece: Result<ReadPiece, SourceFailed> },
    Ended,
    Repeat(Vec<(Repeat, Payload)>),
    Receive(Received),
}

impl Job {
    pub(super) fn read(transfer: TransferId, source: Box<Source>) -> Job {
        Job(Kind::Read { transfer, source })
    }

    pub(super) fn end(source: Source) -> Job {
        Job(Kind::End(source))
    }

    pub(super) fn receive(job: ReceiveJob) -> Job {
        Job(Kind::Receive(job))
    }

    /// Does it. Blocks.
    pub fn run(self, store: &Store) -> JobDone {
        JobDone(match self.0 {
            Kind::Read { transfer, mut source } => {
                let piece = source.read();
                Result_::Read { transfer, source, piece }
            }
            Kind::End(source) => {
                if let Err(error) = source.end() {
                    tracing::warn!(%error, "links of a transfer are left until the next start");
                }
                Result_::Ended
            }
            Kind::Repeat { tree, writes } => Result_::Repeat(read_again(store, &tree, writes)),
            Kind::Receive(job) => Result_::Receive(job.run(store)),
        })
    }

    /// Says that it can't be done now.
    pub fn refuse(self) -> JobDone {
        JobDone(match self.0 {
            Kind::Read { transfer, source } => {
                let why = "too much waits for the disk".to_owned();
                let piece = Err(SourceFailed { floor: OpId::ZERO, gc_floor: OpId::ZERO, why });
                Result_::Read { transfer, source, piece }
            }
            Kind::End(_) => Result_::Ended,
            Kind::Repeat { .. } => Result_::Repeat(Vec::new()),
            Kind::Receive(job) => Result_::Receive(Received::Refused(job)),
        })
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Read { .. } => "read a piece",
            Kind::End(_) => "end a transfer",
            Kind::Repeat { .. } => "read writes again",
            Kind::Receive(_) => "store what came",
        })
    }
}

impl std::fmt::Debug for Result_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Result_::Read { .. } => "a piece was read",
            Result_::Ended => "a transfer ended",
            Result_::Repeat(_) => "writes were read again",
            Result_::Receive(_) => "what came was stored",
        })
    }
}

impl Member {
    /// Hands out what waits for the disk.
    pub(super) fn start_jobs(&mut self, out: &mut Outbox) {
        if self.halted.is_some() {
            return;
        }
        self.start_serving(out);
        self.start_receiving(out);
        if self.repeating {
            self.repeats.clear();
        } else if !self.repeats.is_empty() {
            self.repeating = true;
            let mut writes = std::mem::take(&mut self.repeats);
            writes.truncate(REPEATS_MAX);
            out.jobs.push(Job(Kind::Repeat { tree: self.tree.clone(), writes }));
        }
    }

    pub(super) fn job_done(&mut self, now: Moment, done: JobDone, out: &mut Outbox) {
        match done.0 {
            Result_::Read { transfer, source, piece } => {
                self.piece_was_read(now, transfer, source, piece, out);
            }
            Result_::Ended => {}
            Result_::Repeat(writes) => {
                self.repeating = false;
                self.repeat(writes, out);
            }
            Result_::Receive(received) => self.received(now, received, out),
        }
        self.feed_nothing(now, out);
    }

    /// The core looks at what follows from a job only when it is stepped.
    fn feed_nothing(&mut self, now: Moment, out: &mut Outbox) {
        if let Some((input, beside)) = self.again.pop_front() {
            self.feed(now, input, beside, out);
        }
    }

    fn repeat(&self, writes: Vec<(Repeat, Payload)>, out: &mut Outbox) {
        let epoch = self.replica.epoch();
        for ((to, lane, message), payload) in writes {
            let ours = matches!(&message, Message::Write { epoch: of, .. } if *of == epoch);
            if ours && self.leads() {
                let message = ShardMessage { message, payload: payload.bytes().clone() };
                out.sends.push(Send { to, lane, message });
            }
        }
    }
}

fn read_again(store: &Store, tree: &Tree, writes: Vec<Repeat>) -> Vec<(Repeat, Payload)> {
    let snapshot = store.snapshot();
    let op_of = |message: &Message| match message {
        Message::Write { item, .. } => Some(item.op),
        _ => None,
    };
    let ops: Vec<OpId> = writes.iter().filter_map(|(_, _, message)| op_of(message)).collect();
    let notes = note::of_items(tree, &ops).unwrap_or_else(|error| {
        tracing::warn!(%error, "items can't be read again");
        Default::default()
    });
    let read = |message: &Message| {
        let op = op_of(message)?;
        let note = note::decode(op, notes.get(&op)?).ok()?;
        note.read_back(tree, &snapshot).ok()?
    };
    let with_payload = |repeat: Repeat| read(&repeat.2).map(|payload| (repeat, payload));
    writes.into_iter().filter_map(with_payload).collect()
}
