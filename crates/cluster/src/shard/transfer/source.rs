//! A source of one transfer: reads piece after piece from what it pinned when the transfer began.

use super::files_out::FilesOut;
use super::piece::PieceOut;
use crate::shard::note;
use crate::shard::writes::Write;
use bytes::Bytes;
use kvorum_engine::fs::Fs;
use kvorum_engine::{Delta, DeltaEntry, Error, FoundKind, Snapshot, Store, Tree, View};
use kvorum_sync::{OpId, Want, Way};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

/// A piece as the source's member sends it.
#[derive(Debug, Clone)]
pub(in crate::shard) struct ReadPiece {
    pub(in crate::shard) payload: Bytes,
    /// Items that came whole, or doubtful ones of which something was seen.
    pub(in crate::shard) items: Vec<OpId>,
    pub(in crate::shard) cursor: Arc<[u8]>,
    pub(in crate::shard) last: bool,
}

/// Why a source can't go on.
#[derive(Debug)]
pub(in crate::shard) struct SourceFailed {
    /// What the core did not know yet: history at or below is gone, tombstones up to here are.
    pub(in crate::shard) floor: OpId,
    pub(in crate::shard) gc_floor: OpId,
    pub(in crate::shard) why: String,
}

impl SourceFailed {
    fn of(why: impl std::fmt::Display) -> SourceFailed {
        SourceFailed { floor: OpId::ZERO, gc_floor: OpId::ZERO, why: why.to_string() }
    }
}

/// Goes into a job to read, and comes back with the piece.
pub(in crate::shard) struct Source {
    fs: Arc<dyn Fs>,
    tree: Tree,
    snapshot: Snapshot,
    way: Way,
    want: Want,
    piece_bytes: usize,
    /// For the links of shipped files.
    dir: PathBuf,
    state: State,
}

enum State {
    /// Begins behind this place.
    Fresh(Arc<[u8]>),
    /// With their notes.
    Items(VecDeque<(OpId, Bytes)>),
    Delta(Box<DeltaOut>),
    Files(Box<FilesOut>),
}

struct DeltaOut {
    delta: Delta,
    /// Read and not sent yet.
    next: Option<DeltaEntry>,
    /// Sorted.
    doubtful: Vec<OpId>,
    /// Told with the first piece.
    clears: Option<Vec<u64>>,
}

impl Source {
    /// Pins what is there now.
    pub(super) fn pin(
        (fs, store, tree): (&Arc<dyn Fs>, &Store, &Tree),
        (way, want, cursor): (Way, Want, &Arc<[u8]>),
        dir: PathBuf,
        piece_bytes: usize,
    ) -> Source {
        Source {
            fs: Arc::clone(fs),
            tree: tree.clone(),
            snapshot: store.snapshot(),
            way,
            want,
            piece_bytes,
            dir,
            state: State::Fresh(Arc::clone(cursor)),
        }
    }

    /// The floor of the tree's history must not pass this while the source reads.
    pub(super) fn needs(&self) -> OpId {
        match (&self.want, self.way) {
            (Want::Items(ops), _) => {
                let lowest = ops.iter().min().map_or(0, |op| op.version());
                OpId::from_version(lowest.saturating_sub(1))
            }
            (Want::Final { since, .. }, Way::Items) => *since,
            (Want::Final { upto, .. }, _) => *upto,
        }
    }

    /// Reads the next piece. Blocks.
    pub(in crate::shard) fn read(&mut self) -> Result<ReadPiece, SourceFailed> {
        if let State::Fresh(cursor) = &self.state {
            let cursor = Arc::clone(cursor);
            self.begin(&cursor)?;
        }
        match &mut self.state {
            State::Fresh(_) => Err(SourceFailed::of("it did not begin")),
            State::Items(left) => read_items(&self.tree, &self.snapshot, left, self.piece_bytes),
            State::Delta(out) => out.read(self.piece_bytes),
            State::Files(out) => {
                let (payload, last) = out.next(self.piece_bytes).map_err(SourceFailed::of)?;
                Ok(ReadPiece { payload, items: Vec::new(), cursor: Arc::new([Way::Files as u8]), last })
            }
        }
    }

    fn begin(&mut self, cursor: &[u8]) -> Result<(), SourceFailed> {
        let behind = cursor.split_first().filter(|(way, _)| **way == self.way as u8).map(|(_, place)| place);
        self.state = match (&self.want, self.way) {
            (Want::Items(ops), _) => State::Items(behind_op(self.items_of(ops)?, behind)),
            (Want::Final { since, upto, .. }, Way::Items) => {
                State::Items(behind_op(self.items_between(*since, *upto)?, behind))
            }
            (Want::Final { since, upto, doubtful }, Way::Delta) => {
                State::Delta(Box::new(self.delta(*since, *upto, doubtful, behind)?))
            }
            // Files of two sources never mix, so no place in them means anything elsewhere.
            (Want::Final { .. }, Way::Files) => {
                let out = FilesOut::export(&self.fs, &self.tree, &self.dir).map_err(SourceFailed::of)?;
                State::Files(Box::new(out))
            }
        };
        Ok(())
    }

    /// The items of a small gap within an epoch: all of them have notes here.
    fn items_between(&self, since: OpId, upto: OpId) -> Result<Vec<(OpId, Bytes)>, SourceFailed> {
        let notes = self.tree.notes(since.version() + 1..=upto.version()).map_err(SourceFailed::of)?;
        let wanted = upto.version().saturating_sub(since.version());
        if notes.len() as u64 != wanted {
            let why = format!("{} of {wanted} notes are here", notes.len());
            return Err(SourceFailed { floor: upto, ..SourceFailed::of(why) });
        }
        Ok(notes.into_iter().map(|(version, note)| (OpId::from_version(version), note)).collect())
    }

    fn items_of(&self, ops: &[OpId]) -> Result<Vec<(OpId, Bytes)>, SourceFailed> {
        let notes = note::of_items(&self.tree, ops).map_err(SourceFailed::of)?;
        match ops.iter().find(|op| !notes.contains_key(op)) {
            Some(op) => Err(gone(*op)),
            None => Ok(notes.into_iter().collect()),
        }
    }

    fn delta(
        &self,
        since: OpId,
        upto: OpId,
        doubtful: &[OpId],
        behind: Option<&[u8]>,
    ) -> Result<DeltaOut, SourceFailed> {
        let view = View::at(upto.version()).of(&self.snapshot);
        let mut delta = self.tree.delta(since.version(), &view).map_err(|error| match error {
            Error::HistoryGone { asked, floor } if asked == since.version() => {
                SourceFailed { gc_floor: OpId::from_version(floor), ..SourceFailed::of(&error) }
            }
            error => SourceFailed::of(error),
        })?;
        let mut doubtful = doubtful.to_vec();
        doubtful.sort_unstable();
        // Who goes on behind a place has them: told again they would delete what came at their version.
        let clears = behind.is_none().then(|| delta.clears().to_vec());
        let sent = |entry: &DeltaEntry| {
            behind.and_then(<[u8]>::split_first_chunk::<8>).is_some_and(|(version, key)| {
                let version = u64::from_le_bytes(*version);
                // In key order, of a key the highest version first.
                (&entry.key[..], std::cmp::Reverse(entry.version)) <= (key, std::cmp::Reverse(version))
            })
        };
        let next = loop {
            match delta.next().transpose().map_err(SourceFailed::of)? {
                Some(entry) if sent(&entry) => {}
                next => break next,
            }
        };
        Ok(DeltaOut { delta, next, doubtful, clears })
    }

    /// Lets go of what it made on disk. Blocks.
    pub(in crate::shard) fn end(&self) -> crate::error::Result<()> {
        match &self.state {
            State::Files(files) => files.remove(),
            _ => Ok(()),
        }
    }

    /// Whether it made something on disk.
    pub(in crate::shard) fn has_files(&self) -> bool {
        matches!(self.state, State::Files(_))
    }
}

fn gone(op: OpId) -> SourceFailed {
    SourceFailed { floor: op, ..SourceFailed::of(format!("item {op} is not here whole")) }
}

fn behind_op(mut items: Vec<(OpId, Bytes)>, behind: Option<&[u8]>) -> VecDeque<(OpId, Bytes)> {
    let behind = behind.and_then(|place| place.try_into().ok()).map_or(0, u64::from_le_bytes);
    items.retain(|(op, _)| op.version() > behind);
    items.sort_unstable_by_key(|(op, _)| *op);
    items.into()
}

fn read_items(
    tree: &Tree,
    snapshot: &Snapshot,
    left: &mut VecDeque<(OpId, Bytes)>,
    piece_bytes: usize,
) -> Result<ReadPiece, SourceFailed> {
    let mut out = PieceOut::new();
    let mut items = Vec::new();
    while let Some((op, bytes)) = left.pop_front() {
        let note = note::decode(op, &bytes).map_err(SourceFailed::of)?;
        let payload = note.read_back(tree, snapshot);
        let payload = payload.map_err(|error| SourceFailed { floor: op, ..SourceFailed::of(error) })?;
        out.item(op, &bytes, &payload.ok_or_else(|| gone(op))?);
        items.push(op);
        if out.bytes() >= piece_bytes {
            break;
        }
    }
    let end = items.last().map_or(0, |op| op.version());
    let cursor = [&[Way::Items as u8], &end.to_le_bytes()[..]].concat().into();
    let last = left.is_empty();
    Ok(ReadPiece { payload: out.finish(last), items, cursor, last })
}

impl DeltaOut {
    fn read(&mut self, piece_bytes: usize) -> Result<ReadPiece, SourceFailed> {
        let mut out = PieceOut::new();
        let clears = self.clears.take().unwrap_or_default();
        let mut seen: Vec<OpId> = Vec::new();
        let mut cursor: Arc<[u8]> = Arc::new([]);
        let mut see = |version: u64| {
            let op = OpId::from_version(version);
            if self.doubtful.binary_search(&op).is_ok() && !seen.contains(&op) {
                seen.push(op);
            }
        };
        clears.iter().for_each(|version| see(*version));
        out.clears(&clears);
        while out.bytes() < piece_bytes
            && let Some(entry) = self.next.take()
        {
            see(entry.version);
            let DeltaEntry { key, version, kind, value, expires_at, tag } = entry;
            let value = (kind == FoundKind::Value).then_some(value);
            let write = Write { key, value, expires_at, tag };
            out.entry(version, &write);
            self.next = self.delta.next().transpose().map_err(SourceFailed::of)?;
            if out.bytes() >= piece_bytes || self.next.is_none() {
                cursor = [&[Way::Delta as u8], &version.to_le_bytes()[..], &write.key].concat().into();
            }
        }
        let last = self.next.is_none();
        Ok(ReadPiece { payload: out.finish(last), items: seen, cursor, last })
    }
}
