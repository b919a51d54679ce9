//! What a node leads goes to others, with nothing left unknown: at its end, and when an operator wants it to lead nothing.

use super::Cluster;
use crate::control::{Map, NodeState};
use crate::latch::ShardId;
use crate::shard::{MemberInput, MemberRole};
use kvorum_sync::{StepDown, StoreId};
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

    /// Hands over what this node leads, if the map says that it is to lead nothing: whatever has somebody else who stays and can be reached. What
    /// is under way is settled first.
    pub(super) fn retire(self: &Arc<Self>, map: &Map) {
        let state = map.state(self.me);
        if !matches!(state, NodeState::Draining | NodeState::Leaving) {
            return;
        }
        let stays = |store: &StoreId| {
            map.state(*store).reluctance() < state.reluctance() && self.transport.is_up(*store)
        };
        let has_stayer = |shard: &ShardId| {
            let row = map.shards.get(shard).filter(|row| row.is_led());
            row.is_some_and(|row| {
                // Nominated are those of both lists.
                row.acting().as_slice().iter().any(|store| stays(store) && row.members().contains(*store))
            })
        };
        for shard in self.open_shards() {
            if has_stayer(&shard) && self.leads(shard) && self.has_heir(map, shard) {
                self.step(shard, MemberInput::StepDown(StepDown::Drain));
            }
        }
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
