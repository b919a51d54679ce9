//! What the world has seen, whatever any member believes: the material of the invariants.

use std::collections::{BTreeMap, BTreeSet};

use kvorum_sync::{Checkpoint, Digest, Epoch, OpId, StoreId};

use crate::node::Node;
use crate::plan::KEYS;
use crate::tree::{Key, Tree, Value, Writes};

/// What became visible at a checkpoint: its digest, and every key's value.
type Seen = (Digest, Vec<(u64, Value)>);

/// The truth, as far as it showed.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Each op id's values.
    pub(crate) items: BTreeMap<OpId, Writes>,
    /// For each key the committed ops that wrote it (for clears every key's).
    pub(crate) committed: BTreeMap<Key, BTreeSet<OpId>>,
    /// Who led each epoch, in which run.
    pub(crate) led: BTreeMap<Epoch, (StoreId, u64)>,
    pub(crate) seen: BTreeMap<OpId, Seen>,
    /// How many items were committed, for the summary.
    pub(crate) commits: u64,
    /// The first thing that was wrong.
    pub(crate) failure: Option<String>,
}

impl Ledger {
    pub(crate) fn fail(&mut self, text: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(text());
        }
    }

    /// An item has a name and values.
    pub(crate) fn item(&mut self, op: OpId, writes: &Writes) {
        let known = self.items.entry(op).or_insert_with(|| writes.clone());
        if known != writes {
            let text = format!("one item per op id: {op} names {known:?} and {writes:?}");
            self.fail(|| text);
        }
    }

    /// A leader told clients that an item is done.
    pub(crate) fn commit(&mut self, op: OpId) {
        self.commits += 1;
        let Some(writes) = self.items.get(&op) else { return };
        let cleared = (0..KEYS as Key).filter(|_| writes.clear);
        for key in cleared.chain(writes.puts.iter().map(|(key, _)| *key)) {
            self.committed.entry(key).or_default().insert(op);
        }
    }

    /// The last committed op up to `upto` that a tree lacks, with its key.
    fn lost(&self, tree: &Tree, upto: OpId) -> Option<(Key, OpId)> {
        self.committed.iter().find_map(|(key, ops)| {
            let last = ops.range(..=upto).next_back()?;
            let (version, value) = tree.newest(*key, upto);
            let shows =
                version >= last.version() || (value.is_none() && self.may_be_absent(*key, *last, upto));
            (!shows).then_some((*key, *last))
        })
    }

    /// Whether some item within these op ids, if only one that no client heard of, left the key absent: its tombstone may have been
    /// collected, and then nothing tells it from a key that was never written.
    pub(crate) fn may_be_absent(&self, key: Key, from: OpId, upto: OpId) -> bool {
        let absent =
            |writes: &Writes| (writes.clear && key < KEYS as Key) || writes.puts.contains(&(key, None));
        from <= upto && self.items.range(from..=upto).any(|(_, writes)| absent(writes))
    }

    /// A member leads: nobody else did in this epoch, and it has all that was committed.
    pub(crate) fn lead(&mut self, epoch: Epoch, node: &Node) {
        let run = (node.store, node.boot);
        if let Some(other) = self.led.insert(epoch, run)
            && other != run
        {
            self.fail(|| format!("one leader per epoch: {epoch} was led by {other:?} and by {run:?}"));
        }
        if let Some((key, op)) = self.lost(&node.disk.live.tree, OpId::new(epoch, kvorum_sync::SERIAL_MAX)) {
            self.fail(|| {
                format!("committed kept: {} leads {epoch} without {op}, which wrote key {key}", node.store)
            });
        }
    }

    /// A member shows everything up to a checkpoint.
    pub(crate) fn visible(&mut self, checkpoint: Checkpoint, node: &Node) {
        if node.bad {
            return;
        }
        if checkpoint.op < node.disk.live.floor {
            // Files that were shipped have taken the place of its history: nothing may be read there.
            let readable = node.process.as_ref().is_some_and(|process| process.replica.is_readable());
            if readable {
                self.fail(|| format!("history kept: {} would show {} without it", node.store, checkpoint.op));
            }
            return;
        }
        let tree = &node.disk.live.tree;
        if let Some((key, op)) = self.lost(tree, checkpoint.op) {
            let at = checkpoint.op;
            self.fail(|| {
                format!("committed kept: {} shows {at} without {op}, which wrote key {key}", node.store)
            });
        }
        let values: Vec<(u64, Value)> = (0..KEYS as Key)
            .map(|key| tree.newest(key, checkpoint.op))
            .map(|(version, value)| if value.is_none() { (0, None) } else { (version, value) })
            .collect();
        let seen = (checkpoint.digest, values);
        let known = self.seen.entry(checkpoint.op).or_insert_with(|| seen.clone());
        if *known != seen {
            let text =
                format!("one prefix: at {} one saw {known:?}, {} sees {seen:?}", checkpoint.op, node.store);
            self.fail(|| text);
        }
    }
}
