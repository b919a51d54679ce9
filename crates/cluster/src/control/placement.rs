//! Which nodes keep what: by count, and the same on every node that asks.

use super::map::{Map, NodeState, ShardId};
use kvorum_sync::StoreId;
use std::collections::BTreeMap;

/// The `count` best keepers of a shard among `candidates`: those that keep least, ties by a hash of shard and node, so that neighbouring shards
/// lie on different nodes.
pub(crate) fn choose(
    shard: ShardId,
    candidates: impl Iterator<Item = StoreId>,
    kept: &BTreeMap<StoreId, usize>,
    count: usize,
) -> Vec<StoreId> {
    let load = |store: &StoreId| kept.get(store).copied().unwrap_or_default();
    let mut ranked: Vec<_> = candidates.map(|store| (load(&store), weight(shard, store), store)).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(count).map(|(_, _, store)| store).collect()
}

/// The first members of all shards of a namespace: nodes that drain only where there are not enough others.
pub(crate) fn first_members(map: &Map, namespace: u16, shards: u16) -> Vec<(ShardId, Vec<StoreId>)> {
    let mut kept = map.kept();
    let wanted = map.wanted(namespace);
    let of = |drains: bool| {
        let fits = move |store: &StoreId| (map.state(*store) == NodeState::Draining) == drains;
        map.eligible().map(|(store, _)| store).filter(fits)
    };
    (0..shards)
        .map(|place| {
            let shard = ShardId { namespace, place };
            let mut members = choose(shard, of(false), &kept, wanted);
            members.extend(choose(shard, of(true), &kept, wanted - members.len()));
            for store in &members {
                *kept.entry(*store).or_default() += 1;
            }
            (shard, members)
        })
        .collect()
}

/// A number that depends on all bits of shard and store (splitmix64's finalizer).
pub(crate) fn weight(shard: ShardId, store: StoreId) -> u64 {
    let mut mixed = store.0
        ^ (u64::from(shard.namespace) << 16 | u64::from(shard.place)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::map::{NodeInfo, NodeRow, NodeState};
    use super::*;

    fn map(nodes: u64) -> Map {
        let row = |slot| NodeRow { info: NodeInfo::default(), slot, state: NodeState::Up };
        let nodes = (1..=nodes).map(|n| (StoreId(n * 1_000_003), row(n as u16))).collect();
        Map { version: 1, nodes, ..Map::default() }
    }

    #[test]
    fn members_are_spread_evenly() {
        for nodes in 1..=9 {
            let map = map(nodes);
            let members = first_members(&map, 0, 16);
            let mut counts: BTreeMap<StoreId, usize> = map.kept();
            for (_, members) in &members {
                assert_eq!(members.len(), 3.min(nodes as usize));
                members.iter().for_each(|store| *counts.get_mut(store).unwrap() += 1);
            }
            let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
            assert!(most - least <= 1, "{nodes} nodes: {counts:?}");
        }
    }

    #[test]
    fn nodes_that_drain_get_new_shards_only_if_there_are_not_enough_others() {
        let mut map = map(4);
        let mut drain =
            |store: u64| map.nodes.get_mut(&StoreId(store * 1_000_003)).unwrap().state = NodeState::Draining;
        drain(2);
        drain(3);
        for (_, members) in first_members(&map, 0, 16) {
            let drained = members.iter().filter(|store| map.state(**store) == NodeState::Draining).count();
            assert_eq!((members.len(), drained), (3, 1));
        }
    }

    #[test]
    fn neighbouring_shards_prefer_different_nodes() {
        let map = map(5);
        let first: std::collections::BTreeSet<StoreId> = (0..64)
            .map(|place| {
                let shard = ShardId { namespace: 2, place };
                choose(shard, map.nodes.keys().copied(), &BTreeMap::new(), 1)[0]
            })
            .collect();
        assert_eq!(first.len(), 5, "each node is somebody's first choice");
    }
}
