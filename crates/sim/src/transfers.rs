//! Data between members: what a source reads from its pinned snapshot, what a receiver stores.

use std::collections::BTreeMap;
use std::sync::Arc;

use kvorum_sync::{Effect, Input, OpId, TransferId, Want, Way};

use crate::disk::Work;
use crate::node::{Payload, Pin};
use crate::tree::Writes;
use crate::world::World;

/// Items in one piece: few, so that a transfer has many.
const PIECE_ITEMS: usize = 3;

impl World {
    /// Carries out an effect of a transfer. `again` takes what the core must hear at once.
    pub(crate) fn transfer(
        &mut self,
        node: usize,
        effect: Effect,
        payload: &Payload,
        again: &mut Vec<Input>,
    ) {
        match effect {
            Effect::ReadPiece { transfer, number, way, want, cursor, .. } => {
                again.push(self.read_piece(node, (transfer, number), way, &want, &cursor));
            }
            Effect::EndServing { transfer } => {
                if let Some(process) = &mut self.nodes[node].process {
                    process.pins.remove(&transfer);
                }
            }
            Effect::Ingest { transfer, number, ceiling, way } => {
                again.extend(self.ingest(node, (transfer, number), way, ceiling, payload));
            }
            Effect::DropTransfer { .. } => {
                if let Some(process) = &mut self.nodes[node].process {
                    process.staged.clear();
                    process.shipped.clear();
                }
            }
            _ => {}
        }
    }

    fn read_piece(
        &mut self,
        node: usize,
        (transfer, number): (TransferId, u64),
        way: Way,
        want: &Want,
        cursor: &Arc<[u8]>,
    ) -> Input {
        let at = &mut self.nodes[node];
        let Some(process) = &mut at.process else { return Input::PieceFailed { transfer } };
        let gone = match want {
            // Versions between the target and the floor may have taken those at the target.
            Want::Final { upto, .. } => at.disk.live.floor > *upto,
            // Items above the own checkpoint are given with what stands of them: whoever adopts them shows nothing before the basis' end.
            Want::Items(ops) => {
                let collected = at.disk.live.floor.min(process.replica.checkpoint().op);
                ops.iter().any(|op| *op <= collected)
            }
        };
        if gone && !process.pins.contains_key(&transfer) {
            return Input::PieceFailed { transfer };
        }
        let tree = &at.disk.live.tree;
        let pin = process.pins.entry(transfer).or_insert_with(|| Pin {
            tree: tree.clone(),
            ends: BTreeMap::new(),
            pieces: BTreeMap::new(),
        });
        let before = number.checked_sub(1).and_then(|last| pin.ends.get(&last)).copied();
        let begin = before.unwrap_or_else(|| OpId::from_version(version_of(cursor, way)));
        let Some((items, end)) = pieces_of(pin, way, want, begin) else {
            return Input::PieceFailed { transfer };
        };
        let stop = items.keys().next_back().copied().unwrap_or(begin);
        pin.ends.insert(number, stop);
        let ops = items.keys().copied().collect();
        pin.pieces.insert(number, items);
        let cursor: Arc<[u8]> = [&[way as u8], stop.version().to_le_bytes().as_slice()].concat().into();
        Input::PieceRead { transfer, number, items: ops, cursor, end }
    }

    pub(crate) fn piece_of(&self, node: usize, transfer: TransferId, number: u64, last: bool) -> Payload {
        let pin = self.nodes[node].process.as_ref().and_then(|process| process.pins.get(&transfer));
        let items = pin.and_then(|pin| pin.pieces.get(&number)).cloned().unwrap_or_default();
        Payload::Piece { items, last }
    }

    /// Stores a piece. Returns what the core must hear of the floors: they came with the data.
    fn ingest(
        &mut self,
        node: usize,
        (transfer, number): (TransferId, u64),
        way: Way,
        ceiling: Option<OpId>,
        payload: &Payload,
    ) -> Option<Input> {
        let Payload::Piece { items, last } = payload else { return None };
        let at = &mut self.nodes[node];
        let process = at.process.as_mut()?;
        let (mut entries, mut instead_upto) = (BTreeMap::new(), None);
        match ceiling {
            None => process.staged.extend(items.iter().map(|(op, writes)| (*op, writes.clone()))),
            Some(ceiling) => {
                let below = items.range(..=ceiling).map(|(op, writes)| (*op, writes.clone()));
                if way == Way::Files {
                    if number == 0 {
                        process.shipped.clear();
                    }
                    process.shipped.extend(below);
                    if *last {
                        entries = std::mem::take(&mut process.shipped);
                        instead_upto = Some(ceiling);
                    }
                } else {
                    entries.extend(below);
                }
            }
        }
        at.disk.push(Work::Data { transfer, number, entries, instead_upto });
        instead_upto.map(|_| at.floors())
    }
}

/// Where a cursor of the same way of serving stands. What came in another way may not have landed: then all is sent again. Files of two
/// sources never mix: one may have collected the tombstone of what the other still had.
fn version_of(cursor: &[u8], way: Way) -> u64 {
    match cursor.split_first() {
        Some((of, version)) if *of == way as u8 && way != Way::Files => {
            version.try_into().map_or(0, u64::from_le_bytes)
        }
        _ => 0,
    }
}

type Pieces = (BTreeMap<OpId, Writes>, Option<Vec<OpId>>);

/// The next items of a transfer behind `begin`, and at its end the doubtful ones that stand. `None`: the source lacks something.
fn pieces_of(pin: &Pin, way: Way, want: &Want, begin: OpId) -> Option<Pieces> {
    let mut items = BTreeMap::new();
    match want {
        Want::Items(ops) => {
            let left: Vec<OpId> = ops.iter().copied().filter(|op| *op > begin).collect();
            for op in left.iter().take(PIECE_ITEMS) {
                // An item that carries only the time has no values.
                items.insert(*op, pin.tree.item(*op).unwrap_or_default());
            }
            Some((items, (left.len() <= PIECE_ITEMS).then(Vec::new)))
        }
        Want::Final { since, upto, doubtful } => {
            // Files are shipped whole, whatever the receiver has.
            let since = if way == Way::Files { OpId::ZERO } else { *since };
            let left = pin.tree.between(begin.max(since), OpId::MAX);
            let final_left = left.iter().filter(|version| **version <= upto.version()).count();
            // As whole tables would, a piece carries what lies above the target too: the ceiling must drop it.
            for version in left.iter().take(PIECE_ITEMS) {
                let op = OpId::from_version(*version);
                items.insert(op, pin.tree.item(op)?);
            }
            let confirmed = || doubtful.iter().copied().filter(|op| pin.tree.item(*op).is_some()).collect();
            Some((items, (final_left <= PIECE_ITEMS).then(confirmed)))
        }
    }
}
