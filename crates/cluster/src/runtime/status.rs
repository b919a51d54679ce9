//! What a node knows of its cluster, for people and their tools.

use super::Cluster;
use crate::alone::Standing;
use crate::control::{ControlStatus, Leaving, Map, NodeRow, NodeState, ShardRow};
use crate::latch::ShardId;
use crate::shard::{self, MemberRole};
use kvorum_sync::{OpId, StoreId};
use serde::Serialize;

/// A cluster as one of its nodes sees it.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// The cluster's id; all zeros before there is a map.
    pub cluster: String,
    /// The version of the map; it rises with every change.
    pub version: u64,
    /// The id of the node that says this.
    pub me: String,
    /// The node that leads the control plane, if one does.
    pub control: Option<String>,
    /// Why this node takes no writes, if so: a failed write or sync, a full disk.
    pub halted: Option<String>,
    /// Why this node is not part of the cluster yet, or can't be.
    pub trouble: Option<String>,
    /// All nodes that have not left, by name.
    pub nodes: Vec<NodeStatus>,
    /// All shards of namespaces in use, in order.
    pub shards: Vec<ShardStatus>,
}

/// A node.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The id of its store.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where other nodes reach it.
    pub peer: String,
    /// Its RESP door; empty: none.
    pub resp: String,
    /// Its door for cluster clients; empty: none.
    pub resp_cluster: String,
    /// Its HTTP door; empty: none.
    pub http: String,
    /// `up`; `down`; `draining`: it is to lead nothing; `leaving`: it is being removed; `left`: it was.
    pub state: &'static str,
    /// Whether it votes in the control plane.
    pub votes: bool,
    /// Whether the node that says this has a connection to it; it has one to itself.
    pub reachable: bool,
    /// Shards that it keeps.
    pub members: usize,
    /// Shards that it leads, or is named to lead.
    pub leads: usize,
    /// What there is still to do, if it is being removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaving: Option<LeavingStatus>,
}

/// What there is still to do until a node is removed.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct LeavingStatus {
    /// Shards of strong namespaces that it keeps still.
    pub shards: usize,
    /// Slots of available namespaces that it has not handed over; `None`: it has not said yet.
    pub slots: Option<u64>,
    /// What an operator has to do, if anything.
    pub waits: Option<String>,
}

/// A shard.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ShardStatus {
    /// The name of its namespace.
    pub namespace: String,
    /// Its place in it.
    pub place: u16,
    /// The epoch of the last nomination.
    pub epoch: u32,
    /// The node that was nominated last.
    pub leader: Option<String>,
    /// Whether it is known to lead.
    pub led: bool,
    /// Who keeps it: names of nodes. A store that has left keeps nothing any more, but counts until the shard's members are changed: it stands here
    /// by its id, for its name may be that of the node that took its place.
    pub members: Vec<String>,
    /// Who is being caught up, to keep it.
    pub learners: Vec<String>,
    /// What the node that says this has of it.
    pub here: Option<MemberStatus>,
}

/// What a node has of a shard.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct MemberStatus {
    /// `leader`, `manager`, `follower`, `alone` (its leader is silent), `halted` (the store refused a record).
    pub role: &'static str,
    /// Everything up to here is final and held: epoch and serial.
    pub checkpoint: String,
    /// Everything up to here is committed, as far as is known here.
    pub committed: String,
    /// Items above the checkpoint that are here.
    pub tail: usize,
    /// Whether it can answer reads: its data is not being rebuilt or filled in.
    pub readable: bool,
    /// Transfers to other members that it serves.
    pub serving: usize,
    /// Whether data for it is under way.
    pub receiving: bool,
}

impl From<shard::MemberStatus> for MemberStatus {
    fn from(status: shard::MemberStatus) -> MemberStatus {
        MemberStatus {
            role: match status.role {
                MemberRole::Leading { .. } => "leader",
                MemberRole::Managing { .. } => "manager",
                MemberRole::Following { .. } => "follower",
                MemberRole::Alone { .. } => "alone",
                MemberRole::Halted => "halted",
            },
            checkpoint: status.checkpoint.to_string(),
            committed: status.committed.to_string(),
            tail: status.tail_items,
            readable: status.readable,
            serving: status.serving,
            receiving: status.receiving,
        }
    }
}

impl MemberStatus {
    /// Of a node that keeps all shards by itself: whatever it has taken is committed.
    fn alone(last: OpId) -> MemberStatus {
        MemberStatus {
            role: "leader",
            checkpoint: last.to_string(),
            committed: last.to_string(),
            tail: 0,
            readable: true,
            serving: 0,
            receiving: false,
        }
    }
}

impl Cluster {
    /// What this node knows of its cluster.
    pub(crate) fn status(&self) -> ClusterStatus {
        let map = self.control.map();
        let control = self.control.status();
        let name = |store: StoreId| name_of(&map, store);
        let mut nodes = self.nodes_of(&map, &control);
        nodes.retain(|node| node.state != state_word(NodeState::Left));
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        ClusterStatus {
            cluster: map.cluster.to_string(),
            version: map.version,
            me: id(self.me),
            control: control.leader.map(name),
            trouble: control.trouble,
            halted: self.halt.lock().as_ref().map(|halt| halt.reason().to_owned()),
            nodes,
            shards: map.shards.iter().map(|(shard, row)| self.shard_status(&map, *shard, row)).collect(),
        }
    }

    /// What this node knows of a node that the map has, also if it has left.
    pub(super) fn status_of(&self, store: StoreId) -> Option<NodeStatus> {
        let control = self.control.status();
        let id = id(store);
        self.nodes_of(&control.map, &control).into_iter().find(|node| node.id == id)
    }

    fn nodes_of(&self, map: &Map, control: &ControlStatus) -> Vec<NodeStatus> {
        let (kept, managed) = (map.kept(), map.managed());
        let leaving = |store: &StoreId| {
            let Leaving { shards, slots, waits, .. } = control.nodes.get(store)?.leaving.clone()?;
            Some(LeavingStatus { shards, slots, waits })
        };
        let node = |(store, row): (&StoreId, &NodeRow)| NodeStatus {
            id: id(*store),
            name: row.info.name.clone(),
            peer: row.info.peer.clone(),
            resp: row.info.resp.clone(),
            resp_cluster: row.info.resp_cluster.clone(),
            http: row.info.http.clone(),
            state: state_word(row.state),
            votes: map.voters.contains(store),
            reachable: *store == self.me || self.transport.is_up(*store),
            members: kept.get(store).copied().unwrap_or(0),
            leads: managed.get(store).copied().unwrap_or(0),
            leaving: leaving(store),
        };
        map.nodes.iter().map(node).collect()
    }

    fn shard_status(&self, map: &Map, shard: ShardId, row: &ShardRow) -> ShardStatus {
        let names = |stores: &[StoreId]| stores.iter().map(|store| name_of(map, *store)).collect();
        let namespace = map.namespaces.get(&shard.namespace);
        ShardStatus {
            namespace: namespace.map(|row| row.name.clone()).unwrap_or_default(),
            place: shard.place,
            epoch: row.register.epoch().get(),
            leader: row.manager().map(|(_, store)| name_of(map, store)),
            led: row.is_led(),
            members: names(row.acting().as_slice()),
            learners: names(row.learners.as_slice()),
            here: self.member_status(shard),
        }
    }

    fn member_status(&self, shard: ShardId) -> Option<MemberStatus> {
        let writer = self.table.shard(shard)?.latch();
        match writer.member.as_deref() {
            Some(member) => Some(member.status().into()),
            None if self.alone.standing() == Standing::Alone => Some(MemberStatus::alone(writer.last_op())),
            None => None,
        }
    }
}

pub(super) fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Up => "up",
        NodeState::Down => "down",
        NodeState::Draining => "draining",
        NodeState::Leaving => "leaving",
        NodeState::Left => "left",
    }
}

fn id(store: StoreId) -> String {
    format!("{:016x}", store.0)
}

/// The node's name; the store's id if it has left or the map does not know it any more.
fn name_of(map: &Map, store: StoreId) -> String {
    let row = map.nodes.get(&store).filter(|row| row.state != NodeState::Left);
    row.map_or_else(|| id(store), |row| row.info.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Applied, Change, NodeInfo};
    use std::collections::BTreeMap;

    #[test]
    fn a_store_that_was_replaced_is_not_called_by_the_name_of_the_new_one() {
        let info =
            |name: &str| NodeInfo { name: name.into(), peer: format!("{name}:1"), ..NodeInfo::default() };
        let mut map = Map::default();
        let nodes = BTreeMap::from([(StoreId(1), info("n1")), (StoreId(2), info("n2"))]);
        let found = Change::Found { cluster: map.cluster, nodes, namespaces: BTreeMap::new() };
        assert_eq!(map.apply(&found), Ok(Applied::Done));
        map.version = 1;
        assert_eq!(name_of(&map, StoreId(2)), "n2");
        let join = Change::Join { store: StoreId(3), info: info("n2"), replaces: Some(StoreId(2)) };
        assert_eq!(map.apply(&join), Ok(Applied::Done));
        let names = [StoreId(1), StoreId(2), StoreId(3)].map(|store| name_of(&map, store));
        assert_eq!(names, ["n1", "0000000000000002", "n2"]);
    }
}
