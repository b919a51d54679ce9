//! The control plane: who belongs to the cluster, who keeps what, who leads. See `docs/decisions/040-control-plane.md`.
//!
//! A small Raft group (openraft, named nowhere else) keeps the [`Map`]. Everything that is decided is decided by functions without clock, socket
//! or disk: what a change does to the map (`apply`), who lives ([`detector`]), what is to be changed (`planner`, `voters`). This file and
//! `shell` only carry in and out.

mod apply;
mod bootstrap;
mod change;
mod detector;
mod disk;
mod founding;
#[cfg(test)]
mod founding_tests;
mod leave;
mod log_store;
mod map;
#[cfg(test)]
mod mesh;
mod message;
mod network;
mod placement;
mod planner;
mod propose;
mod raft;
pub mod rehearsal;
mod removed;
mod report;
mod shell;
mod state_machine;
#[cfg(test)]
mod storage_tests;
#[cfg(test)]
mod tests;
mod voters;
#[cfg(test)]
mod wired_tests;

pub(crate) use bootstrap::Bootstrap;
pub(crate) use change::{Applied, Change};
pub(crate) use disk::{TREE, has_something};
pub(crate) use leave::{Keeping, Leaving};
pub(crate) use map::{ClusterId, Map, NamespaceRow, NodeInfo, NodeRow, NodeState, ShardRow};
pub(crate) use network::{LinkError, Links, Pending};
pub(crate) use propose::ControlError;
pub(crate) use removed::was_removed;
pub(crate) use report::Report;

use bytes::Bytes;
use detector::Detector;
use kvorum_engine::{Clock, Store};
use kvorum_sync::StoreId;
use message::{Call, Known, Question, decode, decode_call, encode};
use parking_lot::Mutex;
use raft::Raft;
use report::{Beat, Reports};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// What a control plane is made of.
pub(crate) struct ControlParts {
    pub(crate) store: Store,
    pub(crate) links: Arc<dyn Links>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) me: StoreId,
    /// Drawn at this start.
    pub(crate) boot: u64,
    pub(crate) info: NodeInfo,
    pub(crate) bootstrap: Bootstrap,
    /// What the first map of a new cluster says of namespaces. Those that hold something are active.
    pub(crate) namespaces: BTreeMap<u16, NamespaceRow>,
}

/// A node's part of the control plane. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Control(Arc<Inner>);

struct Inner {
    me: StoreId,
    boot: u64,
    /// It leads the log, and waits until another one does.
    yields: AtomicBool,
    info: NodeInfo,
    namespaces: BTreeMap<u16, NamespaceRow>,
    links: Arc<dyn Links>,
    clock: Arc<dyn Clock>,
    disk: Arc<disk::Disk>,
    raft: Raft,
    maps: watch::Receiver<Arc<Map>>,
    /// Holds the channel of maps open until this control plane is shut down. openraft stops for good when the store fails it, and lets go of its
    /// end; the node's shards go on by the last map.
    told: Mutex<Option<watch::Sender<Arc<Map>>>>,
    reports: Mutex<Reports>,
    detector: Mutex<Detector>,
    /// How the node stands before it has a map.
    arrival: Mutex<bootstrap::Arrival>,
    /// Why this node can't be part of the cluster, for people; told until it changes.
    trouble: watch::Sender<Option<String>>,
    /// What to tell people once this node was removed from its cluster.
    removed: watch::Sender<Option<String>>,
    /// Numbers of proposals and heartbeats.
    proposals: AtomicU64,
    beats: AtomicU64,
    beat_now: Notify,
    plan_now: Notify,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// How the control plane stands, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlStatus {
    pub(crate) map: Arc<Map>,
    pub(crate) me: StoreId,
    /// The raft leader, as far as this node knows.
    pub(crate) leader: Option<StoreId>,
    pub(crate) term: u64,
    pub(crate) nodes: BTreeMap<StoreId, NodeStatus>,
    /// Why this node can't be part of the cluster, or the control plane of this node stands still.
    pub(crate) trouble: Option<String>,
}

/// A node, as this one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeStatus {
    pub(crate) name: String,
    pub(crate) state: NodeState,
    pub(crate) votes: bool,
    pub(crate) alive: bool,
    pub(crate) silent_micros: Option<u64>,
    pub(crate) sync_micros: u64,
    pub(crate) map_version: u64,
    /// How far it is, if it is being removed.
    pub(crate) leaving: Option<Leaving>,
}

impl Control {
    /// The newest map that this node has; version 0 before there is a cluster.
    pub(crate) fn map(&self) -> Arc<Map> {
        self.0.maps.borrow().clone()
    }

    /// Watches the map.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Map>> {
        self.0.maps.clone()
    }

    /// Why this node can't be part of the cluster; `None` while all is well.
    pub(crate) fn trouble(&self) -> watch::Receiver<Option<String>> {
        self.0.trouble.subscribe()
    }

    /// Tells the control plane what a member noticed. Cheap, never waits.
    pub(crate) fn report(&self, report: &Report) {
        let now = self.0.now();
        if self.0.reports.lock().add(report, now) {
            self.0.beat_now.notify_one();
        }
    }

    /// What an operator should know before a node is removed; or why it can't be, as things stand. `is_reached`: there is a session with it.
    pub(crate) fn may_leave(&self, store: StoreId, is_reached: bool) -> Result<Vec<String>, String> {
        let mut view = self.view();
        if !is_reached {
            // A heartbeat of a moment ago is the last one.
            view.alive.remove(&store);
        }
        leave::may_leave(&self.map(), &view, store)
    }

    fn view(&self) -> detector::View {
        self.0.detector.lock().view(self.0.now())
    }

    /// Whether a node is heard by this one.
    pub(crate) fn is_alive(&self, store: StoreId) -> bool {
        store == self.0.me || self.0.detector.lock().is_alive(store, self.0.now())
    }

    /// A heartbeat came in.
    pub(crate) fn handle_message(&self, from: StoreId, body: &[u8]) {
        match decode::<Beat>(body) {
            Ok(beat) => {
                let now = self.0.now();
                if self.0.detector.lock().beat(from, beat, now) {
                    self.0.plan_now.notify_one();
                }
            }
            Err(error) => tracing::warn!(%from, %error, "a heartbeat that this program does not understand"),
        }
    }

    /// A call came in from a peer.
    pub(crate) async fn handle_call(&self, from: StoreId, body: &[u8]) -> Result<Bytes, String> {
        if !self.0.listens_to(from) {
            return Err(format!("{from} is not known here yet"));
        }
        let raft = &self.0.raft;
        match decode_call(body)? {
            Call::Append(request) => {
                encode(&raft.append_entries(request).await.map_err(|error| error.to_string())?)
            }
            Call::Vote(request) => encode(&raft.vote(request).await.map_err(|error| error.to_string())?),
            Call::Snapshot(piece) => {
                encode(&raft.install_snapshot(piece).await.map_err(|error| error.to_string())?)
            }
            Call::Propose(proposal) => encode(&self.0.propose_here(&proposal).await),
        }
    }

    /// A question came in, from a node that may not be known.
    pub(crate) async fn handle_question(&self, body: &[u8]) -> Result<Bytes, String> {
        match decode(body)? {
            Question::Hello => encode(&self.0.introduce()),
            Question::Join { store, info, cluster } => encode(&self.0.welcome(store, info, cluster).await),
            Question::Known { store, cluster } => {
                let map = self.map();
                let is_ours = map.is_founded() && map.cluster == cluster;
                encode(&if is_ours { self.0.known(store, &map) } else { Known::Unknown })
            }
        }
    }

    /// How things stand.
    pub(crate) fn status(&self) -> ControlStatus {
        let map = self.map();
        let metrics = self.0.raft.metrics().borrow().clone();
        let (view, now) = (self.view(), self.0.now());
        let detector = self.0.detector.lock();
        let node = |store: StoreId| {
            let row = &map.nodes[&store];
            let vital = detector.vital(store, now);
            let status = NodeStatus {
                name: row.info.name.clone(),
                state: row.state,
                votes: map.voters.contains(&store),
                alive: store == self.0.me || detector.is_alive(store, now),
                silent_micros: vital.silent_micros,
                sync_micros: vital.sync_micros,
                map_version: vital.map_version,
                leaving: (row.state == NodeState::Leaving).then(|| leave::leaving(&map, &view, store)),
            };
            (store, status)
        };
        let stopped = metrics.running_state.err().map(|error| error.to_string());
        ControlStatus {
            me: self.0.me,
            leader: self.0.leader(),
            term: metrics.current_term,
            nodes: map.nodes.keys().copied().map(node).collect(),
            trouble: self.0.trouble.borrow().clone().or(stopped),
            map: map.clone(),
        }
    }

    /// Stops the node's part of the control plane. The others go on.
    pub(crate) async fn shutdown(&self) {
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        tasks.iter().for_each(JoinHandle::abort);
        drop(self.0.told.lock().take());
        if let Err(error) = self.0.raft.shutdown().await {
            tracing::warn!(%error, "the control plane did not end cleanly");
        }
    }
}

impl Inner {
    /// Microseconds of the clock that detector and reports go by.
    fn now(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_micros()).unwrap_or(u64::MAX)
    }

    fn map(&self) -> Arc<Map> {
        self.maps.borrow().clone()
    }

    /// Whose calls are taken: those of nodes that the map has, or that this node was told of while it arrived.
    fn listens_to(&self, from: StoreId) -> bool {
        let map = self.maps.borrow();
        map.nodes.get(&from).is_some_and(|row| row.state != NodeState::Left)
            || self.arrival.lock().knows(from)
            || self.raft_nodes().contains(&from)
    }

    fn raft_nodes(&self) -> BTreeSet<StoreId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.nodes().map(|(id, _)| StoreId(*id)).collect()
    }

    fn leads(&self) -> bool {
        self.leader() == Some(self.me)
    }
}
