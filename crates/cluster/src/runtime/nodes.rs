//! What operators do with the nodes of a cluster. Any node takes it: the map decides, and the nodes follow it.

use super::status::state_word;
use super::{Cluster, NodeStatus};
use crate::control::{Change, ControlError, Map, NodeState};
use crate::error::{Error, Result};
use crate::node::Node;
use kvorum_sync::StoreId;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// The map may change while it is being changed: nodes go down and come up.
const TRIES: usize = 8;

/// Nodes that are taken for running and not heard are waited for so long before it is judged whether one can go: in a rush a heartbeat may be late.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// Nobody tells when one is heard again: it is looked at so often, as often as hearts beat.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// How long this node may take to see what was decided.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// The nodes of a node's cluster.
pub struct Nodes {
    node: Node,
}

impl Node {
    /// The nodes of its cluster, to let one rest, or go.
    pub fn nodes(&self) -> Nodes {
        Nodes { node: self.clone() }
    }
}

impl Nodes {
    /// From now on a node leads nothing that another one can lead: it hands over what it leads, with nothing left unknown, and is not named leader
    /// again, also after restarts, until [`Nodes::end_drain`]. It keeps its copies, and serves. Does not wait for the end of that: see
    /// [`NodeStatus::leads`]. Draining one that drains changes nothing.
    ///
    /// # Errors
    /// [`Error::NoNode`]; [`Error::NotNow`] for one that is being removed, or without a cluster; [`Error::Unknown`] without a majority of the
    /// control plane: it may be done yet.
    pub async fn drain(&self, name: &str) -> Result<NodeStatus> {
        let cluster = self.cluster()?;
        cluster
            .set_state(name, NodeState::Draining, |state| matches!(state, NodeState::Up | NodeState::Down))
            .await
    }

    /// A node that drains may lead again. Changes nothing of one that does not drain.
    ///
    /// # Errors
    /// As of [`Nodes::drain`].
    pub async fn end_drain(&self, name: &str) -> Result<NodeStatus> {
        let cluster = self.cluster()?;
        cluster.set_state(name, NodeState::Up, |state| state == NodeState::Draining).await
    }

    /// Takes a node out of the cluster for good: it hands over what it leads, then what it keeps, stops voting, and is let go of. It is then not among
    /// the nodes any more, the others take nothing of it, and it does not start on its data again. Does not wait for the end of that: see
    /// [`NodeStatus::leaving`]. There is no way back. Removing one that is being removed, or was, changes nothing.
    ///
    /// # Errors
    /// [`Error::NoNode`]; [`Error::NotNow`] for the last node, for one that is not heard, or where too few others are; [`Error::Unknown`] without a
    /// majority of the control plane: it may be done yet.
    pub async fn remove(&self, name: &str) -> Result<Removal> {
        let cluster = self.cluster()?;
        let map = cluster.control.map();
        let Ok(store) = named(&map, name) else {
            let was = map.nodes.iter().find(|(_, row)| row.info.name == name);
            let (store, _) = was.ok_or_else(|| no_node(&map, name))?;
            return Ok(Removal { node: cluster.node_status(*store, name)?, notes: Vec::new() });
        };
        let mut notes = Vec::new();
        if !map.lets_go(store) {
            cluster.hear_all().await;
            let is_reached = store == cluster.me || cluster.transport.is_up(store);
            notes = cluster.control.may_leave(store, is_reached).map_err(Error::NotNow)?;
        }
        let stays = |state| matches!(state, NodeState::Up | NodeState::Down | NodeState::Draining);
        Ok(Removal { node: cluster.set_state(name, NodeState::Leaving, stays).await?, notes })
    }

    fn cluster(&self) -> Result<&Arc<Cluster>> {
        self.node.inner.cluster.get().ok_or_else(|| Error::NotNow("this node is alone".to_owned()))
    }
}

/// A node that is being removed.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Removal {
    /// The node; `left` when that is over.
    pub node: NodeStatus,
    /// What an operator should know of the nodes that stay.
    pub notes: Vec<String>,
}

impl Cluster {
    /// Waits until all nodes that are taken for running are heard, for a while.
    async fn hear_all(&self) {
        let is_heard = |store: StoreId| self.control.is_alive(store) && self.transport.is_up(store);
        let all = async {
            let mut looks = tokio::time::interval(LOOK_EVERY);
            loop {
                looks.tick().await;
                let map = self.control.map();
                let runs = |state| !matches!(state, NodeState::Down | NodeState::Left);
                let mut others =
                    map.nodes.iter().filter(|(store, row)| **store != self.me && runs(row.state));
                if others.all(|(store, _)| is_heard(*store)) {
                    return;
                }
            }
        };
        // Who is silent still is named by what judges.
        let _ = tokio::time::timeout(HEARD_WITHIN, all).await;
    }

    /// Brings a node into a state, from any of those that it may come `from`; one that is in another stays as it is.
    async fn set_state(
        &self,
        name: &str,
        to: NodeState,
        from: impl Fn(NodeState) -> bool,
    ) -> Result<NodeStatus> {
        let store = named(&self.control.map(), name)?;
        for _ in 0..TRIES {
            let before = self.control.map().state(store);
            if before == NodeState::Leaving && to != NodeState::Leaving {
                return Err(Error::NotNow(format!(
                    "the node `{name}` is being removed: that goes on to its end"
                )));
            }
            if !from(before) {
                return self.node_status(store, name);
            }
            let change = Change::SetNode { store, from: before, to };
            self.control.change(change).await.map_err(|error| match error {
                ControlError::Refused(text) => Error::NotNow(text),
                ControlError::Unknown(text) => Error::Unknown(text),
            })?;
            // Done, or the state was another one by then: the map says which.
            let mut maps = self.control.changes();
            let seen = maps.wait_for(|map| map.state(store) != before);
            let _ = tokio::time::timeout(SEEN_WITHIN, seen).await;
        }
        let state = state_word(to);
        Err(Error::NotNow(format!(
            "the node `{name}` changes all the time: it is not {state} yet, try again"
        )))
    }

    fn node_status(&self, store: StoreId, name: &str) -> Result<NodeStatus> {
        let node = self.status_of(store);
        node.ok_or_else(|| Error::NoNode(format!("the node `{name}` is gone")))
    }
}

/// The node of this name; or who there is.
fn named(map: &Map, name: &str) -> Result<StoreId> {
    map.named(name).ok_or_else(|| no_node(map, name))
}

fn no_node(map: &Map, name: &str) -> Error {
    let here = map.nodes.values().filter(|row| row.state != NodeState::Left);
    let mut names: Vec<&str> = here.map(|row| row.info.name.as_str()).collect();
    names.sort_unstable();
    Error::NoNode(format!("there is no node `{name}` in the cluster; there are {}", names.join(", ")))
}
