//! The sync basis: what a new reign starts from, computed from the tails of a majority.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::item::Item;
use crate::message::{BasisItem, Promised};
use crate::names::Names;
use crate::planted::Rule;
use crate::types::{Checkpoint, Epoch, OpId, StoreId};

/// The frozen basis of a reign.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Basis {
    /// The highest epoch among the answers.
    pub(crate) epoch: Epoch,
    /// The highest checkpoint among the answers.
    pub(crate) checkpoint: Checkpoint,
    /// The items above it, by op id.
    pub(crate) items: Vec<BasisItem>,
    /// Who can serve what is final up to the checkpoint.
    pub(crate) sources: Vec<StoreId>,
}

impl Basis {
    /// The basis of these answers, which come from a majority.
    pub(crate) fn of(answers: &BTreeMap<StoreId, Promised>, config: &Config) -> Basis {
        let epoch = answers.values().map(|answer| answer.epoch).max().unwrap_or_default();
        let gives = |answer: &&Promised| answer.epoch == epoch || !config.holds(Rule::HighestEpochOnly);
        let checkpoints = answers.values().map(|answer| answer.checkpoint);
        let checkpoint = if config.holds(Rule::HighestCheckpoint) {
            checkpoints.max_by_key(|checkpoint| checkpoint.op)
        } else {
            checkpoints.min_by_key(|checkpoint| checkpoint.op)
        }
        .unwrap_or_default();
        let mut union: BTreeMap<OpId, (Item, Vec<StoreId>)> = BTreeMap::new();
        for (store, answer) in answers.iter().filter(|(_, answer)| gives(answer)) {
            for item in answer.tail.iter().filter(|item| item.op > checkpoint.op) {
                union.entry(item.op).or_insert_with(|| (item.clone(), Vec::new())).1.push(*store);
            }
        }
        if config.holds(Rule::SkipTransitively) {
            skip(&mut union, checkpoint.op);
        }
        let quorum = answers.len();
        let mut items: Vec<BasisItem> = union
            .into_values()
            .map(|(item, holders)| {
                // A member whose checkpoint covers the item would have it too, but then the item is not above the highest checkpoint.
                BasisItem { item, completed: holders.len() == quorum, holders: Names::of(&holders) }
            })
            .collect();
        if !config.holds(Rule::AdoptInterrupted) {
            items.retain(|item| item.completed);
        }
        let sources = answers.iter().filter(|(_, answer)| answer.checkpoint.op >= checkpoint.op);
        Basis { epoch, checkpoint, items, sources: sources.map(|(store, _)| *store).collect() }
    }

    /// The last op of the basis.
    pub(crate) fn end(&self) -> OpId {
        self.items.last().map_or(self.checkpoint.op, |last| last.item.op)
    }
}

/// Takes out every item that reads, directly or through others, an item on none of the sync quorum. Items only read lower op ids, so
/// one pass upwards finds them all.
fn skip(union: &mut BTreeMap<OpId, (Item, Vec<StoreId>)>, checkpoint: OpId) {
    let mut kept: BTreeSet<OpId> = BTreeSet::new();
    union.retain(|op, (item, _)| {
        let stands = item.reads.as_slice().iter().all(|read| *read <= checkpoint || kept.contains(read));
        if stands {
            kept.insert(*op);
        }
        stands
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(epoch: u32, serial: u64) -> OpId {
        OpId::new(Epoch::new(epoch).unwrap(), serial)
    }

    fn answer(epoch: u32, checkpoint: OpId, tail: &[(OpId, &[OpId])]) -> Promised {
        Promised {
            promise: crate::types::Promise::default(),
            epoch: Epoch::new(epoch).unwrap(),
            checkpoint: Checkpoint { op: checkpoint, ..Checkpoint::default() },
            tail: tail
                .iter()
                .map(|(op, reads)| Item { op: *op, reads: Names::of(reads), ..Item::default() })
                .collect(),
            standing: crate::types::Standing::Whole,
        }
    }

    fn of(answers: &[Promised]) -> Basis {
        let answers =
            answers.iter().enumerate().map(|(n, answer)| (StoreId(n as u64 + 1), answer.clone())).collect();
        Basis::of(&answers, &Config::default())
    }

    fn ops(basis: &Basis) -> Vec<(OpId, bool)> {
        basis.items.iter().map(|item| (item.item.op, item.completed)).collect()
    }

    #[test]
    fn completed_and_interrupted_items_stay_and_lower_epochs_are_not_asked() {
        let basis = of(&[
            answer(2, op(1, 1), &[(op(2, 1), &[]), (op(2, 2), &[])]),
            answer(2, op(1, 1), &[(op(2, 1), &[])]),
        ]);
        assert_eq!(ops(&basis), vec![(op(2, 1), true), (op(2, 2), false)]);
        let basis = of(&[answer(2, op(1, 1), &[]), answer(1, op(1, 0), &[(op(1, 2), &[])])]);
        assert_eq!((ops(&basis), basis.end()), (vec![], op(1, 1)));
    }

    #[test]
    fn the_highest_checkpoint_cuts_even_from_a_lower_epoch() {
        let basis = of(&[answer(2, op(1, 1), &[(op(1, 2), &[]), (op(1, 3), &[])]), answer(1, op(1, 2), &[])]);
        assert_eq!((basis.epoch.get(), basis.checkpoint.op), (2, op(1, 2)));
        assert_eq!((ops(&basis), basis.sources), (vec![(op(1, 3), false)], vec![StoreId(2)]));
    }

    #[test]
    fn what_reads_a_skipped_item_is_skipped_transitively() {
        let basis = of(&[answer(
            1,
            OpId::ZERO,
            &[(op(1, 1), &[]), (op(1, 3), &[op(1, 2)]), (op(1, 4), &[op(1, 3)]), (op(1, 5), &[op(1, 1)])],
        )]);
        assert_eq!(ops(&basis), vec![(op(1, 1), true), (op(1, 5), true)]);
    }
}
