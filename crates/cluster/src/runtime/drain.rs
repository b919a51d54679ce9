//! The end of a node in order: what it leads goes to others, with nothing left unknown.

use super::Cluster;
use crate::control::Map;
use crate::latch::ShardId;
use crate::shard::{MemberInput, MemberRole};
use kvorum_sync::StepDown;
use std::sync::Arc;
use std::time::Duration;

/// How long the others may take to take over: a few elections of the control plane. Then it ends all the same.
const DRAIN_WITHIN: Duration = Duration::from_secs(6);

impl Cluster {
    /// Hands over what this node leads, and waits until others lead it. What nobody else could lead it keeps. Blocks.
    pub(crate) fn drain(self: &Arc<Self>) {
        let map = self.control.map();
        let shards: Vec<ShardId> = self
            .open_shards()
            .into_iter()
            .filter(|shard| self.leads(*shard) && self.has_heir(&map, *shard))
            .collect();
        for shard in &shards {
            self.step(*shard, MemberInput::StepDown(StepDown::Drain));
        }
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
        let mut changes = self.control.changes();
        let handed_over = async {
            // Others may end meanwhile, and then there is nobody to wait for.
            while shards.iter().any(|shard| self.leads(*shard) && self.has_heir(&map, *shard)) {
                // A new nomination is what deposes: the map says so a little earlier.
                let _ = tokio::time::timeout(Duration::from_millis(20), changes.changed()).await;
            }
        };
        let done = runtime.block_on(async { tokio::time::timeout(DRAIN_WITHIN, handed_over).await });
        if done.is_err() {
            tracing::warn!(
                "nobody took over all that this node leads within {} s: writes under way may end unknown",
                DRAIN_WITHIN.as_secs()
            );
        }
    }

    fn leads(&self, shard: ShardId) -> bool {
        let place = self.table.shard(shard);
        place.is_some_and(|place| {
            let writer = place.latch();
            writer.member.as_deref().is_some_and(|member| matches!(member.role(), MemberRole::Leading { .. }))
        })
    }

    /// Whether a majority of the shard's members would be left without this node.
    pub(super) fn has_heir(&self, map: &Map, shard: ShardId) -> bool {
        let Some(row) = map.shards.get(&shard) else { return false };
        let members = row.acting();
        let others =
            members.as_slice().iter().filter(|store| **store != self.me && self.transport.is_up(**store));
        others.count() >= members.majority()
    }
}
