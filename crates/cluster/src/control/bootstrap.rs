//! How a node comes to a map: it founds a cluster alone or with others, enters one that runs, or goes on where it stopped.
//!
//! ```text
//! has a log already ─────────────────────────────────────────────────► goes on, whatever it was started with
//! was let in already ───► as Join, at any node that it was told of
//! Alone ──────────────► initializes the log with itself
//! Peers ─ asks all ───► all new, with the same list ─ the first one ─► initializes the log with all of them
//!            ▲        │                             └ the others ────► wait to be called, and ask again
//!            └────────┴ some are members ── asks one of them, another one each time, to be let in
//! Join ── asks one ───► is let in (a row in the map) ────────────────► waits to be called
//! ```
//!
//! Initializing writes the members, with all that they said of themselves, into the log of one node. From then on that node says that it is a
//! member, so nobody founds a second cluster; and whoever becomes leader of that log writes the first map from the members. So each step may be
//! the last before a crash. The cluster's id is a hash of the founders' store ids, which are random: everybody gets to the same one.
//!
//! Three rules make it end. A node listens to whoever answered at an address of its list, from the first answer on: the log may begin before it
//! has met all the others, and needs its voice. A node goes on by what is on its disk, not by how it was started: one that voted and then stopped
//! asks its peers again. And the first one is the lowest store id *of those that have not voted yet*, because openraft begins no log after a
//! vote: whoever voted did so for a log that has begun elsewhere, or whose disk is gone.

use super::change::Change;
use super::disk::FOUNDING;
use super::founding::{Round, cluster_of, founders, judge};
use super::map::{ClusterId, Map, NodeInfo, NodeState};
use super::message::{Introduction, Question, Standing, Welcome, decode, encode};
use super::{ControlError, Inner};
use kvorum_engine::Batch;
use kvorum_sync::StoreId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One question to one address.
const ASK: Duration = Duration::from_secs(1);

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(300);

/// Entering takes a round of the control plane.
const ASK_JOIN: Duration = Duration::from_secs(12);

/// A new store takes the place of the one before under the same name when that was silent for so long: longer than a pause or a cut that the shards
/// bridge by themselves, because the old store has left for good then.
const NAME_FREE_AFTER_MICROS: u64 = 5_000_000;

/// What a node is started with. It counts only until the node belongs to a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bootstrap {
    /// A new cluster of this node; others may join. It may have data.
    Alone,
    /// A new cluster of these nodes, this one among them: names and addresses. It has no data.
    Peers(Vec<(String, String)>),
    /// Into the cluster of which this address is a node. It has no data.
    Join(String),
}

/// What a node knows of its cluster before it has a map.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// The log was begun, here or by another node.
    pub(super) begun: bool,
    /// The addresses it was started with, sorted.
    pub(super) peers: Vec<String>,
    /// Who may call, and where they are.
    pub(super) known: BTreeMap<StoreId, String>,
    /// The cluster that let this node in.
    pub(super) joined: Option<Joined>,
}

impl Arrival {
    pub(super) fn knows(&self, store: StoreId) -> bool {
        self.known.contains_key(&store)
    }

    /// Learns of nodes; another store at an address that is known has the place of the one before.
    pub(super) fn meet(&mut self, nodes: &[(StoreId, String)]) {
        for (store, address) in nodes {
            self.known.retain(|_, known| known != address);
            self.known.insert(*store, address.clone());
        }
    }
}

/// On the disk of a node that was let in and has no map yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Joined {
    pub(super) cluster: ClusterId,
    pub(super) nodes: Vec<(StoreId, String)>,
}

impl Inner {
    /// Brings this node to a map, however long it takes; ends when there is one, or when there will never be.
    pub(super) async fn arrive(self: Arc<Inner>, bootstrap: Bootstrap) {
        let (begun, joined) = {
            let arrival = self.arrival.lock();
            (arrival.begun, arrival.joined.clone())
        };
        let mut maps = self.maps.clone();
        let arrived = async {
            if begun {
                return std::future::pending().await;
            }
            if let Some(joined) = joined {
                self.enter(&joined);
                let others = joined.nodes.into_iter().filter(|(store, _)| *store != self.me);
                let told = others.map(|(_, address)| address);
                let given = match bootstrap {
                    Bootstrap::Join(address) => Some(address),
                    Bootstrap::Alone | Bootstrap::Peers(_) => None,
                };
                let addresses: Vec<String> = given.into_iter().chain(told).collect();
                return self.join(&addresses).await;
            }
            match bootstrap {
                Bootstrap::Alone => {
                    self.begin([(self.me.0, self.info.clone())].into()).await;
                    std::future::pending::<()>().await;
                }
                Bootstrap::Peers(peers) => self.meet(&peers).await,
                Bootstrap::Join(address) => self.join(&[address]).await,
            }
        };
        tokio::select! {
            () = arrived => {}
            founded = maps.wait_for(|map| map.is_founded()) => drop(founded),
        }
        if self.map().is_founded() {
            self.trouble.send_replace(None);
        }
    }

    /// Begins the log, unless it has begun.
    async fn begin(&self, members: BTreeMap<u64, NodeInfo>) {
        self.arrival.lock().begun = true;
        if let Err(error) = self.raft.initialize(members).await
            && self.raft_nodes().is_empty()
        {
            self.arrival.lock().begun = false;
            self.wait_for(&format!(
                "the control plane's log can't begin: {error}; if this lasts, start with an empty data folder"
            ));
        }
    }

    /// Asks all peers, again and again, until this node belongs to a cluster.
    async fn meet(self: &Arc<Inner>, peers: &[(String, String)]) {
        let mine =
            |(name, address): &&(String, String)| *name == self.info.name || *address == self.info.peer;
        if !peers.iter().any(|peer| mine(&peer)) {
            let text = format!(
                "the list of peers does not name this node (`{}`, {})",
                self.info.name, self.info.peer
            );
            self.trouble.send_replace(Some(text));
            return;
        }
        let mut round = 0;
        while !self.has_begun() {
            let asked: Vec<_> = peers
                .iter()
                .map(|peer| {
                    let (inner, address, own) = (self.clone(), peer.1.clone(), mine(&peer));
                    let asking = async move {
                        if own { Some(inner.introduce()) } else { inner.hello(&address).await }
                    };
                    (peer.1.clone(), tokio::spawn(asking))
                })
                .collect();
            let mut answers = Vec::new();
            for (address, asking) in asked {
                answers.push((address, asking.await.ok().flatten()));
            }
            // Whoever is on the list may call, also if it has begun the log before this node heard of all the others.
            let found = answers
                .iter()
                .filter_map(|(address, answer)| Some((answer.as_ref()?.store, address.clone())));
            self.know(&found.collect::<Vec<_>>());
            let listed = self.arrival.lock().peers.clone();
            match judge(&listed, &answers) {
                Round::Wait(why) => self.wait_for(&why),
                Round::Join(members) => {
                    // Another one each time: who can't let anybody in now may be cut off from those who can.
                    let address = members.get(round % members.len().max(1));
                    if let Some(address) = address
                        && !self.ask_to_join(address).await
                    {
                        return;
                    }
                }
                Round::Ready { nodes, first } => {
                    if first == Some(self.me) {
                        self.begin(founders(&nodes, self.me)).await;
                    }
                }
            }
            round += 1;
            tokio::time::sleep(PAUSE).await;
        }
        std::future::pending::<()>().await;
    }

    /// Asks nodes of a running cluster, one after the other, until this one is in.
    async fn join(&self, addresses: &[String]) {
        for address in addresses.iter().cycle() {
            if self.has_begun() {
                return std::future::pending().await;
            }
            if !self.ask_to_join(address).await {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks a node of a running cluster to be let in. False if it never will be.
    async fn ask_to_join(&self, address: &str) -> bool {
        let cluster = self.arrival.lock().joined.as_ref().map(|joined| joined.cluster);
        let question = Question::Join { store: self.me, info: self.info.clone(), cluster };
        match self.ask::<Welcome>(address, &question, ASK_JOIN).await {
            Ok(Welcome::In { cluster, nodes }) => {
                let joined = Joined { cluster, nodes };
                match self.remember(&joined).await {
                    Ok(()) => self.enter(&joined),
                    Err(error) => self.wait_for(&format!("the store takes no writes: {error}")),
                }
            }
            Ok(Welcome::Refused(why)) => {
                self.trouble.send_replace(Some(format!("the cluster at {address} refuses this node: {why}")));
                return false;
            }
            Ok(Welcome::Later(why)) => {
                self.wait_for(&format!("the cluster at {address} is not ready: {why}"));
            }
            Err(why) => self.wait_for(&format!("waiting for an answer from {address}: {why}")),
        }
        true
    }

    async fn remember(&self, joined: &Joined) -> std::io::Result<()> {
        let mut batch = Batch::new();
        self.disk.put_json(&mut batch, FOUNDING, joined)?;
        self.disk.write_synced(&batch).await
    }

    /// Listens to the nodes of the cluster that let this one in.
    fn enter(&self, joined: &Joined) {
        self.know(&joined.nodes);
        self.arrival.lock().joined = Some(joined.clone());
        self.links.set_cluster(joined.cluster, 0);
    }

    /// Listens to these nodes, and keeps sessions with all that it was told of, until there is a map.
    pub(super) fn know(&self, nodes: &[(StoreId, String)]) {
        let known = {
            let mut arrival = self.arrival.lock();
            arrival.meet(nodes);
            arrival.known.clone()
        };
        let others: Vec<_> = known.into_iter().filter(|(store, _)| *store != self.me).collect();
        if !self.map().is_founded() && !others.is_empty() {
            self.links.set_peers(&others);
        }
    }

    fn wait_for(&self, why: &str) {
        let news = self.trouble.send_if_modified(|trouble| {
            let news = trouble.as_deref() != Some(why);
            *trouble = Some(why.to_owned());
            news
        });
        if news {
            tracing::info!("{why}");
        }
    }

    /// Whether the log has begun, here or by a call of another node.
    fn has_begun(&self) -> bool {
        let mut arrival = self.arrival.lock();
        arrival.begun |= !self.raft_nodes().is_empty();
        arrival.begun
    }

    /// Whether openraft would refuse to begin a log here.
    pub(super) fn has_voted(&self) -> bool {
        self.raft.metrics().borrow().vote != Default::default()
    }

    async fn hello(&self, address: &str) -> Option<Introduction> {
        self.ask(address, &Question::Hello, ASK).await.ok()
    }

    pub(super) async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        address: &str,
        question: &Question,
        deadline: Duration,
    ) -> Result<T, String> {
        let body = encode(question)?;
        match self.links.ask(address, body, deadline).await {
            Ok(answer) => decode(&answer),
            Err(error) => {
                tracing::debug!(address, %error, "no answer");
                Err(error.to_string())
            }
        }
    }

    /// What this node says of itself.
    pub(super) fn introduce(&self) -> Introduction {
        let (map, begun) = (self.map(), self.has_begun());
        let arrival = self.arrival.lock();
        let standing = if map.is_founded() {
            Standing::Member { cluster: map.cluster }
        } else if begun {
            Standing::Member { cluster: cluster_of(self.raft_nodes().into_iter()) }
        } else if let Some(joined) = &arrival.joined {
            Standing::Member { cluster: joined.cluster }
        } else {
            Standing::New { peers: arrival.peers.clone(), voted: self.has_voted() }
        };
        Introduction { store: self.me, info: self.info.clone(), standing }
    }

    /// Lets a node in, or says why not.
    pub(super) async fn welcome(
        &self,
        store: StoreId,
        info: NodeInfo,
        cluster: Option<ClusterId>,
    ) -> Welcome {
        let map = self.map();
        if !map.is_founded() {
            return Welcome::Later("it has no map yet".to_owned());
        }
        if let Some(other) = cluster.filter(|cluster| *cluster != map.cluster) {
            return Welcome::Refused(format!("it belongs to the cluster {other}, this is {}", map.cluster));
        }
        let namesake = map.named(&info.name).filter(|other| *other != store);
        let now = self.now();
        let lives = |other: StoreId| {
            other == self.me || self.detector.lock().silent_micros(other, now) < NAME_FREE_AFTER_MICROS
        };
        if namesake.is_some_and(lives) {
            return Welcome::Later(format!(
                "another node called `{}` lives, or did a moment ago: its name is free when it was silent for {} s",
                info.name,
                NAME_FREE_AFTER_MICROS / 1_000_000
            ));
        }
        let change = Change::Join { store, info, replaces: namesake };
        match self.propose(vec![change]).await {
            Ok(answers) => match answers.0.into_iter().next() {
                Some(Ok(_)) => Welcome::In { cluster: map.cluster, nodes: self.map().addresses() },
                Some(Err(refused)) => Welcome::Refused(refused.0),
                None => Welcome::Later("an answer without content".to_owned()),
            },
            Err(ControlError::Refused(why)) => Welcome::Refused(why),
            Err(ControlError::Unknown(why)) => Welcome::Later(why),
        }
    }

    /// The first change of a cluster, from the members that its log begins with.
    pub(super) fn first_change(&self) -> Option<Change> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let nodes: BTreeMap<StoreId, NodeInfo> =
            metrics.membership_config.nodes().map(|(id, info)| (StoreId(*id), info.clone())).collect();
        (!nodes.is_empty()).then(|| Change::Found {
            cluster: cluster_of(nodes.keys().copied()),
            nodes,
            namespaces: self.namespaces.clone(),
        })
    }

    /// What the map should say of this node and does not: it came back with another address, or is told that it has left.
    pub(super) fn own_row(&self, map: &Map) -> Option<Change> {
        let row = map.nodes.get(&self.me).filter(|row| row.state != NodeState::Left)?;
        let info = NodeInfo { epoch: row.info.epoch.max(self.info.epoch), ..self.info.clone() };
        (info != row.info).then_some(Change::Join { store: self.me, info, replaces: None })
    }
}
