//! Who serves which hash slots, as cluster clients of the Redis protocol are told: of namespace `0`, the only one that they know.

use crate::control::NodeState;
use crate::entity::blocking;
use crate::error::Result;
use crate::keyspace::keys_in_slot;
use crate::latch::{SLOTS, ShardId};
use crate::namespace::NamespaceId;
use crate::node::Node;
use crate::runtime::{Cluster, store_id};
use bytes::Bytes;
use kvorum_sync::StoreId;

/// The nodes, and the slots that each leads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Topology {
    /// The nodes that have not left, this one first.
    pub nodes: Vec<TopologyNode>,
    /// All slots, in order.
    pub slots: Vec<SlotRange>,
    /// Rises with every change.
    pub version: u64,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopologyNode {
    /// 40 hexadecimal digits.
    pub id: String,
    /// `host:port` of its door for cluster clients; `None`: it has none.
    pub address: Option<String>,
    /// Whether it is there.
    pub is_up: bool,
}

/// Slots that one node leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotRange {
    /// The first slot.
    pub first: u16,
    /// The last slot.
    pub last: u16,
    /// The place of its leader among the nodes; `None`: it has none at the moment.
    pub leader: Option<usize>,
}

impl Node {
    /// Who serves which slots. `own`: the address of this node's door for cluster clients.
    pub fn topology(&self, own: &str) -> Topology {
        match self.inner.cluster.get() {
            Some(cluster) => of_cluster(cluster, own),
            None => {
                let node = node(store_id(self.inner.store_id), own, true);
                let slots = SlotRange { first: 0, last: SLOTS - 1, leader: Some(0) };
                Topology { nodes: vec![node], slots: vec![slots], version: 1 }
            }
        }
    }

    /// Where the keys of a slot are to be asked for, if not here: `host:port` of the leader's door for cluster clients. `None` also where nobody
    /// leads, or the leader has no such door: then this node takes the command on.
    pub fn moved_to(&self, slot: u16) -> Option<String> {
        let cluster = self.inner.cluster.get()?;
        let map = cluster.control.map();
        let row = map.shards.get(&ShardId::of_slot(NamespaceId::ZERO, slot)).filter(|row| row.is_led())?;
        let (_, leader) = row.manager().filter(|(_, leader)| *leader != cluster.me)?;
        let address = &map.nodes.get(&leader)?.info.resp_cluster;
        (!address.is_empty()).then(|| address.clone())
    }

    /// Keys of a slot that are on this node, at most so many.
    pub async fn keys_in_slot(&self, slot: u16, max: usize) -> Result<Vec<Bytes>> {
        let node = self.clone();
        blocking(move || keys_in_slot(&node, NamespaceId::ZERO, slot, max)).await
    }
}

fn node(store: StoreId, address: &str, is_up: bool) -> TopologyNode {
    let address = (!address.is_empty()).then(|| address.to_owned());
    TopologyNode { id: format!("{:0<40}", format!("{:016x}", store.0)), address, is_up }
}

fn of_cluster(cluster: &Cluster, own: &str) -> Topology {
    let map = cluster.control.map();
    let others =
        map.nodes.iter().filter(|(store, row)| **store != cluster.me && row.state != NodeState::Left);
    let mut stores = vec![cluster.me];
    let mut nodes = vec![node(cluster.me, own, true)];
    for (store, row) in others {
        stores.push(*store);
        nodes.push(node(*store, &row.info.resp_cluster, row.state != NodeState::Down));
    }
    let mut slots: Vec<SlotRange> = Vec::new();
    for shard in ShardId::all_of(NamespaceId::ZERO) {
        let led = map.shards.get(&shard).filter(|row| row.is_led());
        let leader = led.and_then(|row| row.manager());
        let leader = leader.and_then(|(_, leader)| stores.iter().position(|store| *store == leader));
        let (first, last) = slots_of(NamespaceId::ZERO, shard);
        match slots.last_mut() {
            Some(before) if before.leader == leader => before.last = last,
            _ => slots.push(SlotRange { first, last, leader }),
        }
    }
    Topology { nodes, slots, version: map.version }
}

/// The first and the last slot of a shard.
fn slots_of(namespace: NamespaceId, shard: ShardId) -> (u16, u16) {
    let cut = |place: u32| (place * u32::from(SLOTS)).div_ceil(u32::from(namespace.shards())) as u16;
    (cut(u32::from(shard.place)), cut(u32::from(shard.place) + 1) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::Mode;

    #[test]
    fn ranges_of_slots_are_those_of_the_shards() {
        for shards in [1, 3, 16, 1000, 1024] {
            let namespace = NamespaceId::new(20, Mode::Strong, shards);
            let mut next = 0;
            for shard in ShardId::all_of(namespace) {
                let (first, last) = slots_of(namespace, shard);
                assert_eq!(first, next);
                assert!((first..=last).all(|slot| ShardId::of_slot(namespace, slot) == shard), "{shards}");
                next = last + 1;
            }
            assert_eq!(next, SLOTS);
        }
    }
}
