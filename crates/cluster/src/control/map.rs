//! The cluster map: who belongs to the cluster, which namespaces there are, who keeps which shard and who leads it. It is the state of the
//! control plane's log: every node that applied the same entries has the same map.

pub(crate) use crate::latch::ShardId;
use crate::namespaces::NamespaceSettings;
use kvorum_sync::{Epoch, Members, Membership, Register, StoreId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Nodes that a map can hold, those included that left: a slot of the hybrid timestamps has 10 bits.
pub(crate) const NODES_MAX: usize = 1024;

/// Copies of a namespace that names no number of its own, if there are as many nodes.
pub(crate) const REPLICATION_DEFAULT: u8 = 3;

/// Longest name or address of a node, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// The name of a cluster: random, drawn when it is founded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ClusterId(pub(crate) u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl From<ClusterId> for String {
    fn from(id: ClusterId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for ClusterId {
    type Error = String;

    fn try_from(text: String) -> Result<ClusterId, String> {
        u128::from_str_radix(&text, 16).map(ClusterId).map_err(|_| format!("`{text}` is not a cluster's id"))
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeInfo {
    /// Unique in the cluster. A new store under the name of a node that is gone takes its place.
    pub(crate) name: String,
    /// `host:port` at which the other nodes reach it.
    pub(crate) peer: String,
    /// `host:port` of the RESP door, as clients reach it; empty: none.
    pub(crate) resp: String,
    /// `host:port` of the door for cluster clients, as they reach it; empty: none.
    #[serde(default)]
    pub(crate) resp_cluster: String,
    /// `host:port` of the HTTP door, as clients reach it; empty: none.
    pub(crate) http: String,
    /// The highest epoch under which this store ever wrote: epochs given out to it are above.
    pub(crate) epoch: Epoch,
}

/// How a node stands in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum NodeState {
    /// It keeps and leads shards.
    Up,
    /// Nobody hears it for a while. Its members stay, until the grace ends.
    Down,
    /// An operator wants it to lead nothing. It keeps what it has, serves and forwards.
    Draining,
    /// An operator takes it out of the cluster: it hands over all that it leads and keeps. There is no way back.
    Leaving,
    /// It will not come back under this store id.
    Left,
}

impl NodeState {
    /// How little a node is fit to lead, by its state: of two the one with less leads.
    pub(crate) fn reluctance(self) -> u8 {
        match self {
            NodeState::Up => 0,
            NodeState::Down => 1,
            NodeState::Draining => 2,
            NodeState::Leaving => 3,
            NodeState::Left => 4,
        }
    }
}

/// A node's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRow {
    pub(crate) info: NodeInfo,
    /// The place in hybrid timestamps (10 bits): of one node at a time.
    pub(crate) slot: u16,
    pub(crate) state: NodeState,
}

/// A namespace's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamespaceRow {
    pub(crate) name: String,
    pub(crate) settings: NamespaceSettings,
    /// Whether somebody used it: only then its shards have members.
    pub(crate) active: bool,
    /// Its data is to be deleted; the number stays taken.
    pub(crate) dropped: bool,
}

/// The last nomination of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Nomination {
    pub(crate) epoch: Epoch,
    pub(crate) manager: StoreId,
    pub(crate) membership: Membership,
    /// The manager reported that it leads.
    pub(crate) led: bool,
}

/// A shard's row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardRow {
    /// Members and epochs, by the rule that keeps two quick changes from losing each other's majority.
    pub(crate) register: Register,
    pub(crate) nomination: Option<Nomination>,
    /// Stores that are being caught up, to become members.
    pub(crate) learners: Members,
}

impl ShardRow {
    /// The current members: those that the next reign gathers from.
    pub(crate) fn members(&self) -> &Members {
        self.register.current()
    }

    /// The manager of the last nomination, and its epoch.
    pub(crate) fn manager(&self) -> Option<(Epoch, StoreId)> {
        self.nomination.as_ref().map(|last| (last.epoch, last.manager))
    }

    /// Whether the last nominated manager is known to lead.
    pub(crate) fn is_led(&self) -> bool {
        self.nomination.as_ref().is_some_and(|last| last.led)
    }

    /// The members whose acknowledgements count now: of the last nomination.
    pub(crate) fn acting(&self) -> &Members {
        self.nomination.as_ref().map_or(self.register.current(), |last| &last.membership.new)
    }

    /// Every store that keeps anything of the shard: current, coming and going members, learners. Sorted.
    pub(crate) fn everyone(&self) -> Vec<StoreId> {
        let lists = [self.members().as_slice(), self.acting().as_slice(), self.learners.as_slice()];
        Members::of(&lists.concat()).as_slice().to_vec()
    }
}

/// The map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Map {
    pub(crate) cluster: ClusterId,
    /// Rises with every entry that changed something; 0: there is no cluster yet.
    pub(crate) version: u64,
    #[serde(with = "pairs")]
    pub(crate) nodes: BTreeMap<StoreId, NodeRow>,
    #[serde(with = "pairs")]
    pub(crate) namespaces: BTreeMap<u16, NamespaceRow>,
    /// Of active namespaces that are strong.
    #[serde(with = "pairs")]
    pub(crate) shards: BTreeMap<ShardId, ShardRow>,
    /// Who votes in the control plane.
    pub(crate) voters: BTreeSet<StoreId>,
}

impl Map {
    /// Whether the cluster was founded.
    pub(crate) fn is_founded(&self) -> bool {
        self.version > 0
    }

    /// Nodes that stay and keep what they have, dead ones included as long as they may come back.
    pub(crate) fn eligible(&self) -> impl Iterator<Item = (StoreId, &NodeRow)> {
        let keeps =
            |row: &NodeRow| matches!(row.state, NodeState::Up | NodeState::Down | NodeState::Draining);
        self.nodes.iter().filter(move |(_, row)| keeps(row)).map(|(store, row)| (*store, row))
    }

    /// A node's state; a node that the map does not know has left.
    pub(crate) fn state(&self, store: StoreId) -> NodeState {
        self.nodes.get(&store).map_or(NodeState::Left, |row| row.state)
    }

    /// How many members a shard of this namespace should have now.
    pub(crate) fn wanted(&self, namespace: u16) -> usize {
        let asked = self.namespaces.get(&namespace).and_then(|row| row.settings.replication);
        usize::from(asked.unwrap_or(REPLICATION_DEFAULT)).min(self.eligible().count()).max(1)
    }

    /// The node of this name that has not left.
    pub(crate) fn named(&self, name: &str) -> Option<StoreId> {
        let found =
            self.nodes.iter().find(|(_, row)| row.info.name == name && row.state != NodeState::Left)?;
        Some(*found.0)
    }

    /// The number of a namespace that is not dropped.
    pub(crate) fn namespace(&self, name: &str) -> Option<u16> {
        self.namespaces.iter().find(|(_, row)| !row.dropped && row.name == name).map(|(id, _)| *id)
    }

    /// Where the nodes are reached that have not left.
    pub(crate) fn addresses(&self) -> Vec<(StoreId, String)> {
        let here = self.nodes.iter().filter(|(_, row)| row.state != NodeState::Left);
        here.map(|(store, row)| (*store, row.info.peer.clone())).collect()
    }

    /// How many shards each node keeps, coming members and learners included.
    pub(crate) fn kept(&self) -> BTreeMap<StoreId, usize> {
        let mut kept: BTreeMap<StoreId, usize> = self.nodes.keys().map(|store| (*store, 0)).collect();
        for row in self.shards.values() {
            for store in row.everyone() {
                *kept.entry(store).or_default() += 1;
            }
        }
        kept
    }

    /// How many shards each node was last named manager of.
    pub(crate) fn managed(&self) -> BTreeMap<StoreId, usize> {
        let mut managed: BTreeMap<StoreId, usize> = self.nodes.keys().map(|store| (*store, 0)).collect();
        for (_, manager) in self.shards.values().filter_map(ShardRow::manager) {
            *managed.entry(manager).or_default() += 1;
        }
        managed
    }
}

/// A map as a list of pairs: keys may be anything.
pub(crate) mod pairs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    pub(crate) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(map)
    }

    pub(crate) fn deserialize<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        Ok(Vec::<(K, V)>::deserialize(from)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::Mode;

    fn row(name: &str, state: NodeState) -> NodeRow {
        let info = NodeInfo { name: name.into(), peer: format!("{name}:7000"), ..NodeInfo::default() };
        NodeRow { info, slot: 0, state }
    }

    fn map() -> Map {
        let mut map = Map { cluster: ClusterId(7), version: 3, ..Map::default() };
        map.nodes.insert(StoreId(u64::MAX), row("a", NodeState::Up));
        map.nodes.insert(StoreId(2), row("b", NodeState::Down));
        map.nodes.insert(StoreId(3), row("c", NodeState::Left));
        let namespace = NamespaceRow {
            name: "0".into(),
            settings: NamespaceSettings::new(Mode::Strong),
            active: true,
            dropped: false,
        };
        map.namespaces.insert(0, namespace);
        let mut register = Register::new(Members::of(&[StoreId(2)]));
        let above = Epoch::new(4).unwrap();
        let (epoch, membership) =
            register.nominate(above, Members::of(&[StoreId(2), StoreId(u64::MAX)])).unwrap();
        let nomination = Some(Nomination { epoch, manager: StoreId(2), membership, led: false });
        let learners = Members::of(&[StoreId(u64::MAX)]);
        map.shards.insert(ShardId { namespace: 0, place: 0 }, ShardRow { register, nomination, learners });
        map
    }

    #[test]
    fn a_map_comes_back_from_its_bytes() {
        let map = map();
        let bytes = serde_json::to_vec(&map).unwrap();
        assert_eq!(serde_json::from_slice::<Map>(&bytes).unwrap(), map);
        let strange = String::from_utf8(bytes).unwrap().replace("\"Strong\"", "\"Stronger\"");
        assert!(serde_json::from_str::<Map>(&strange).unwrap_err().to_string().contains("Stronger"));
        assert!(serde_json::from_str::<ClusterId>("\"xyz\"").is_err());
    }

    #[test]
    fn coming_members_count_as_keepers_and_the_left_as_nothing() {
        let map = map();
        let shard = &map.shards[&ShardId { namespace: 0, place: 0 }];
        assert_eq!(shard.everyone(), [StoreId(2), StoreId(u64::MAX)]);
        assert_eq!(shard.members().as_slice(), [StoreId(2)]);
        assert_eq!(shard.acting().as_slice().len(), 2);
        assert_eq!(map.kept()[&StoreId(u64::MAX)], 1);
        assert_eq!(map.managed()[&StoreId(2)], 1);
        assert_eq!(map.eligible().count(), 2);
        assert_eq!(map.wanted(0), 2);
        assert_eq!((map.named("b"), map.named("c")), (Some(StoreId(2)), None));
        assert_eq!(map.state(StoreId(99)), NodeState::Left);
        assert_eq!(map.addresses().len(), 2);
    }
}
