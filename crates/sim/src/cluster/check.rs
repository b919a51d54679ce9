//! What all members must agree on.

use std::collections::BTreeMap;

use kvorum_sync::{Digest, OpId};

use super::World;
use super::serve::look;
use crate::plan::KEYS;
use crate::tree::{Key, Value};

/// What a view at a checkpoint showed: its digest, and every key's value.
pub(super) type Seen = BTreeMap<OpId, (Digest, Vec<(u64, Value)>)>;

impl World {
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
        if self.control.next_step().is_some() {
            return Some("members are still to be changed".into());
        }
        let busy = self.clients.iter().find(|client| !client.is_done());
        busy.map(|client| format!("client {} waits", client.id))
    }
}
