//! The transfers out of a member: one job at a time for each, a few pieces kept to be sent again.

use super::folder;
use super::source::{ReadPiece, Source, SourceFailed};
use crate::shard::carry::Beside;
use crate::shard::jobs::Job;
use crate::shard::member::Member;
use crate::shard::outbox::Outbox;
use bytes::Bytes;
use kvorum_sync::{Input, Moment, OpId, TransferId, Want, Way};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Pieces kept of a transfer. A receiver asks again for none that is further back than its credit.
const PIECES_KEPT: usize = 16;

/// All transfers out of a member. Their number is bounded by the core.
#[derive(Default)]
pub(in crate::shard) struct Sources {
    serving: BTreeMap<TransferId, Serving>,
    /// Done with, with links on the disk.
    ended: Vec<Source>,
}

struct Serving {
    /// None while a job has it.
    source: Option<Box<Source>>,
    needs: OpId,
    wanted: VecDeque<u64>,
    pieces: VecDeque<(u64, ReadPiece)>,
    /// Pieces read so far.
    read: u64,
    ended: bool,
}

impl Serving {
    fn kept(&self, number: u64) -> Option<&ReadPiece> {
        self.pieces.iter().find(|(kept, _)| *kept == number).map(|(_, piece)| piece)
    }
}

impl Sources {
    pub(in crate::shard) fn len(&self) -> usize {
        self.serving.len()
    }

    /// What a piece carries.
    pub(in crate::shard) fn piece(&self, transfer: TransferId, number: u64) -> Bytes {
        let kept = self.serving.get(&transfer).and_then(|serving| serving.kept(number));
        kept.map(|piece| piece.payload.clone()).unwrap_or_default()
    }

    /// The floor of the tree's history must not pass this.
    pub(in crate::shard) fn lowest_needed(&self) -> OpId {
        self.serving.values().map(|serving| serving.needs).min().unwrap_or(OpId::MAX)
    }

    pub(in crate::shard) fn end(&mut self, transfer: TransferId) {
        let Some(serving) = self.serving.get_mut(&transfer) else { return };
        serving.ended = true;
        if serving.source.is_some()
            && let Some(source) = self.serving.remove(&transfer).and_then(|serving| serving.source)
        {
            self.let_go(*source);
        }
    }

    fn let_go(&mut self, source: Source) {
        if source.has_files() {
            self.ended.push(source);
        }
    }

    fn start(&mut self, out: &mut Outbox) {
        out.jobs.extend(self.ended.drain(..).map(Job::end));
        for (transfer, serving) in &mut self.serving {
            if serving.wanted.is_empty() || serving.ended {
                continue;
            }
            if let Some(source) = serving.source.take() {
                out.jobs.push(Job::read(*transfer, source));
            }
        }
    }
}

impl Member {
    /// A receiver wants a piece.
    pub(in crate::shard) fn read_piece(
        &mut self,
        transfer: TransferId,
        number: u64,
        way: Way,
        want: Want,
        cursor: &Arc<[u8]>,
    ) {
        if !self.sources.serving.contains_key(&transfer) {
            let which = format!("out-{:x}-{}", transfer.nonce, transfer.number);
            let dir = folder(self.store.path(), self.shard, &which);
            let parts = (&self.fs, &self.store, &self.tree);
            let source = Source::pin(parts, (way, want, cursor), dir, self.config.piece_bytes);
            let needs = source.needs();
            // The history may have been cut since the core decided on the way.
            if self.floors.history() > needs || number != 0 {
                self.again.push_back((Input::PieceFailed { transfer }, Beside::Nothing));
                return;
            }
            let serving = Serving {
                source: Some(Box::new(source)),
                needs,
                wanted: VecDeque::new(),
                pieces: VecDeque::new(),
                read: 0,
                ended: false,
            };
            self.sources.serving.insert(transfer, serving);
        }
        let Some(serving) = self.sources.serving.get_mut(&transfer) else { return };
        if let Some(piece) = serving.kept(number) {
            self.again.push_back((piece_read(transfer, number, piece), Beside::Nothing));
        } else if number < serving.read {
            self.again.push_back((Input::PieceFailed { transfer }, Beside::Nothing));
        } else if !serving.wanted.contains(&number) {
            serving.wanted.push_back(number);
        }
    }

    pub(in crate::shard) fn piece_was_read(
        &mut self,
        now: Moment,
        transfer: TransferId,
        source: Box<Source>,
        piece: Result<ReadPiece, SourceFailed>,
        out: &mut Outbox,
    ) {
        let Some(serving) = self.sources.serving.get_mut(&transfer).filter(|serving| !serving.ended) else {
            self.sources.serving.remove(&transfer);
            self.sources.let_go(*source);
            return;
        };
        serving.source = Some(source);
        let input = match piece {
            Ok(piece) => {
                let number = serving.read;
                serving.read += 1;
                serving.wanted.retain(|wanted| *wanted > number && !piece.last);
                if serving.pieces.len() == PIECES_KEPT {
                    serving.pieces.pop_front();
                }
                let input = piece_read(transfer, number, &piece);
                serving.pieces.push_back((number, piece));
                input
            }
            Err(SourceFailed { floor, gc_floor, why }) => {
                let (namespace, place) = (self.shard.namespace, self.shard.place);
                tracing::info!(namespace, place, why, "a transfer can't be served from here");
                serving.wanted.clear();
                self.feed(now, Input::Floors { floor, gc_floor }, Beside::Nothing, out);
                Input::PieceFailed { transfer }
            }
        };
        self.feed(now, input, Beside::Nothing, out);
    }

    pub(in crate::shard) fn start_serving(&mut self, out: &mut Outbox) {
        self.sources.start(out);
    }
}

fn piece_read(transfer: TransferId, number: u64, piece: &ReadPiece) -> Input {
    let ReadPiece { items, cursor, last, .. } = piece;
    // Doubtful items are told of where they were seen.
    let end = last.then(Vec::new);
    Input::PieceRead { transfer, number, items: items.clone(), cursor: Arc::clone(cursor), end }
}
