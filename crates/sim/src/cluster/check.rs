//! What all members must agree on.

use std::collections::BTreeMap;

use kvorum_sync::{Digest, OpId};

use super::World;
use super::serve::look;
use crate::plan::KEYS;
use crate::tree::{Key, Value};

/// What a view at a checkpoint showed: its digest, and every key's value.
pub(super) type Seen = BTreeMap<OpId, (Digest, Vec<(u64, Value)>)>;

/// When items were evaluated, by the shard's time; those that are known to be committed and those that are not.
#[derive(Default)]
pub(super) struct Times {
    proposed: BTreeMap<OpId, u64>,
    committed: BTreeMap<OpId, u64>,
}

impl Times {
    pub(super) fn proposed(&mut self, op: OpId, time_ms: u64) {
        self.proposed.insert(op, time_ms);
    }

    /// An item is committed. Answers a pair of items between which time fell.
    fn committed(&mut self, op: OpId) -> Option<[(OpId, u64); 2]> {
        let time = self.proposed.remove(&op)?;
        self.committed.insert(op, time);
        let pair =
            |&before: &(OpId, u64), &after: &(OpId, u64)| (before.1 > after.1).then_some([before, after]);
        let before = self.committed.range(..op).next_back().map(|(op, time)| (*op, *time));
        let after = self.committed.range(op..).nth(1).map(|(op, time)| (*op, *time));
        let here = (op, time);
        before.and_then(|before| pair(&before, &here)).or_else(|| after.and_then(|after| pair(&here, &after)))
    }
}

impl World {
    /// Commands are evaluated at times that never fall.
    pub(super) fn committed(&mut self, op: OpId) {
        if let Some([before, after]) = self.times.committed(op) {
            self.fail(|| {
                format!(
                    "time: {} was evaluated at {} ms, and {} at {} ms",
                    before.0, before.1, after.0, after.1
                )
            });
        }
    }

    /// A member's checkpoint moved: if it may be read, it shows what every other one shows there.
    pub(super) fn see(&mut self, node: usize, op: OpId) {
        let Some(up) = &self.nodes[node].up else { return };
        let checkpoint = up.member.checkpoint();
        if !up.member.is_readable() || checkpoint.op != op {
            return;
        }
        let values: Option<Vec<(u64, Value)>> = (0..KEYS as Key).map(|key| look(up, key, op)).collect();
        let id = self.nodes[node].store_id;
        let Some(values) = values else {
            self.fail(|| format!("history kept: {id} says that it can be read at {op}, and it can't"));
            return;
        };
        // Nothing tells a collected tombstone from a key that was never written.
        let shown =
            values.into_iter().map(|(version, value)| (value.map_or(0, |_| version), value)).collect();
        let seen = (checkpoint.digest, shown);
        let known = self.seen.entry(op).or_insert_with(|| seen.clone());
        if *known != seen {
            let known = known.clone();
            self.fail(|| format!("one prefix: at {op} one saw {known:?}, {id} sees {seen:?}"));
        }
    }

    /// Whether everything that had to come has come.
    pub(super) fn has_converged(&mut self) -> Option<String> {
        let leader = (0..self.nodes.len()).max_by_key(|node| self.leads(*node))?;
        if self.leads(leader).is_none() {
            return Some("nobody leads".into());
        }
        let end = self.nodes[leader].up.as_ref()?.member.commit_point();
        for node in 0..self.nodes.len() {
            let id = self.nodes[node].store_id;
            let Some(up) = &self.nodes[node].up else { return Some(format!("{id} does not run")) };
            let status = up.member.status();
            if status.checkpoint != end || status.tail_items > 0 {
                return Some(format!("{id} stands at {} of {end}", status.checkpoint));
            }
            if !status.readable {
                return Some(format!("{id} can't be read"));
            }
            self.see(node, end);
        }
        if self.plane.is_changing() {
            return Some("members are still to be changed".into());
        }
        self.clients.busy().map(|client| format!("client {client} waits"))
    }
}
