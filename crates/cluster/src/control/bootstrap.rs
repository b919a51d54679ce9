//! How a node comes to a map: it founds a cluster alone or with others, enters one that runs, or goes on where it stopped.
//!
//! ```text
//! has a log already ────────────────────────────────────────────────► goes on, whatever it was started with
//! Alone ─────────────► initializes the log with itself
//! Peers ─ asks all ──► all new, with the same list ─ lowest store id ► initializes the log with all of them
//!                     │                            └ the others ─────► wait to be called
//!                     └ one is a member ─► as Join
//! Join ── asks one ──► is let in (a row in the map) ─────────────────► waits to be called
//! ```
//!
//! Initializing writes the members, with all that they said of themselves, into the log of one node. From then on that node says that it is a
//! member, so nobody founds a second cluster; and whoever becomes leader of that log writes the first map from the members. So each step may be
//! the last before a crash. The cluster's id is a hash of the founders' store ids, which are random: everybody gets to the same one.

use super::change::Change;
use super::disk::FOUNDING;
use super::map::{ClusterId, Map, NodeInfo, NodeState};
use super::message::{Introduction, Question, Standing, Welcome, decode, encode};
use super::{ControlError, Inner};
use kvorum_engine::Batch;
use kvorum_sync::StoreId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// One question to one address.
const ASK: Duration = Duration::from_secs(1);

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(300);

/// Entering takes a round of the control plane.
const ASK_JOIN: Duration = Duration::from_secs(12);

/// Who votes at most.
pub(super) const VOTERS_MAX: usize = 5;

/// What a node is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bootstrap {
    /// A new cluster of this node; others may join. It may have data.
    Alone,
    /// A new cluster of these nodes, this one among them: names and addresses. It has no data.
    Peers(Vec<(String, String)>),
    /// Into the cluster of which this address is a node. It has no data.
    Join(String),
    /// It belongs to a cluster already.
    Resume,
}

/// What a node knows of its cluster before it has a map.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// The log was begun, here or by another node.
    pub(super) begun: bool,
    /// The addresses it was started with, sorted.
    pub(super) peers: Vec<String>,
    /// Who may call.
    pub(super) known: BTreeSet<StoreId>,
    /// The cluster that let this node in.
    pub(super) joined: Option<Joined>,
}

impl Arrival {
    pub(super) fn knows(&self, store: StoreId) -> bool {
        self.known.contains(&store)
    }
}

/// On the disk of a node that was let in and has no map yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Joined {
    pub(super) cluster: ClusterId,
    pub(super) nodes: Vec<(StoreId, String)>,
}

/// The id of the cluster that these stores found.
pub(super) fn cluster_of(stores: impl Iterator<Item = StoreId>) -> ClusterId {
    let stores: BTreeSet<StoreId> = stores.collect();
    let bytes: Vec<u8> = stores.iter().flat_map(|store| store.0.to_le_bytes()).collect();
    // Never zero, which stands for no cluster.
    ClusterId(xxhash_rust::xxh3::xxh3_128(&bytes).max(1))
}

/// What a node that waits for its peers does next.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// Not all have answered, or not all with the same list: for people.
    Wait(String),
    /// This address belongs to a cluster.
    Join(String),
    /// All are new: these are they.
    Ready(BTreeMap<StoreId, NodeInfo>),
}

/// Judges the answers of all listed peers, this node's own among them.
fn judge(peers: &[String], answers: &[(String, Option<Introduction>)]) -> Round {
    let mut nodes = BTreeMap::new();
    let mut missing = Vec::new();
    for (address, answer) in answers {
        match answer {
            None => missing.push(address.as_str()),
            Some(Introduction { standing: Standing::Member { .. }, .. }) => {
                return Round::Join(address.clone());
            }
            Some(Introduction { standing: Standing::New { peers: theirs }, .. }) if theirs != peers => {
                return Round::Wait(format!(
                    "the node at {address} was started with other peers ({}): give all the same list",
                    theirs.join(", ")
                ));
            }
            Some(Introduction { store, info, .. }) => {
                nodes.insert(*store, info.clone());
            }
        }
    }
    if !missing.is_empty() {
        return Round::Wait(format!("waiting for {}", missing.join(", ")));
    }
    let names: BTreeSet<&str> = nodes.values().map(|info| info.name.as_str()).collect();
    if nodes.len() < answers.len() || names.len() < nodes.len() {
        return Round::Wait("two of the peers are the same node, or have the same name".to_owned());
    }
    Round::Ready(nodes)
}

/// The first voters: an odd number, because one more to an odd one makes a majority larger and nothing safer.
fn founders(nodes: &BTreeMap<StoreId, NodeInfo>) -> BTreeMap<u64, NodeInfo> {
    let most = nodes.len().min(VOTERS_MAX);
    let count = if most.is_multiple_of(2) { most - 1 } else { most };
    nodes.iter().take(count).map(|(store, info)| (store.0, info.clone())).collect()
}

impl Inner {
    /// Brings this node to a map, however long it takes; ends when there is one, or when there will never be.
    pub(super) async fn arrive(self: Arc<Inner>, bootstrap: Bootstrap) {
        let known = self.arrival.lock().joined.clone();
        if let Some(joined) = known {
            self.enter(&joined);
        }
        let mut maps = self.maps.clone();
        let arrived = async {
            match bootstrap {
                Bootstrap::Alone => self.begin([(self.me.0, self.info.clone())].into()).await,
                Bootstrap::Peers(peers) => self.meet(&peers).await,
                Bootstrap::Join(address) => self.join(&address).await,
                Bootstrap::Resume => std::future::pending().await,
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
            self.wait_for(&format!(
                "the control plane's log can't begin: {error}; start with an empty data folder"
            ));
        }
        std::future::pending::<()>().await;
    }

    /// Asks all peers until they are all there, or one of them is a member already.
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
        loop {
            if self.has_begun() {
                return std::future::pending().await;
            }
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
            let listed = self.arrival.lock().peers.clone();
            match judge(&listed, &answers) {
                Round::Wait(why) => self.wait_for(&why),
                Round::Join(address) => {
                    // Its log may begin with this node, whose voice it then needs before it can let anybody in.
                    let listed =
                        answers.into_iter().filter_map(|(address, answer)| Some((answer?.store, address)));
                    self.know(listed.collect());
                    // Once; then the peers are asked again: one that did not answer now may be the one whose voice is needed.
                    if !self.ask_to_join(&address).await {
                        return;
                    }
                }
                Round::Ready(nodes) => {
                    self.know(nodes.iter().map(|(store, info)| (*store, info.peer.clone())).collect());
                    if nodes.first_key_value().map(|(store, _)| *store) == Some(self.me) {
                        return self.begin(founders(&nodes)).await;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks a node of a running cluster until this one is in.
    async fn join(&self, address: &str) {
        while self.ask_to_join(address).await {
            if self.has_begun() {
                return std::future::pending().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks a node of a running cluster to be let in. False if it never will be.
    async fn ask_to_join(&self, address: &str) -> bool {
        let cluster = self.arrival.lock().joined.as_ref().map(|joined| joined.cluster);
        let question = Question::Join { store: self.me, info: self.info.clone(), cluster };
        match self.ask::<Welcome>(address, &question, ASK_JOIN).await {
            Some(Welcome::In { cluster, nodes }) => {
                let joined = Joined { cluster, nodes };
                match self.remember(&joined).await {
                    Ok(()) => self.enter(&joined),
                    Err(error) => self.wait_for(&format!("the store takes no writes: {error}")),
                }
            }
            Some(Welcome::Refused(why)) => {
                self.trouble.send_replace(Some(format!("the cluster at {address} refuses this node: {why}")));
                return false;
            }
            Some(Welcome::Later(why)) => {
                self.wait_for(&format!("the cluster at {address} is not ready: {why}"));
            }
            None => self.wait_for(&format!("waiting for an answer from {address}")),
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
        self.know(joined.nodes.clone());
        self.arrival.lock().joined = Some(joined.clone());
        self.links.set_cluster(joined.cluster, 0);
    }

    fn know(&self, nodes: Vec<(StoreId, String)>) {
        self.arrival.lock().known.extend(nodes.iter().map(|(store, _)| *store));
        let others: Vec<_> = nodes.into_iter().filter(|(store, _)| *store != self.me).collect();
        if !self.map().is_founded() {
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

    async fn hello(&self, address: &str) -> Option<Introduction> {
        self.ask(address, &Question::Hello, ASK).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        address: &str,
        question: &Question,
        deadline: Duration,
    ) -> Option<T> {
        let body = encode(question).ok()?;
        match self.links.ask(address, body, deadline).await {
            Ok(answer) => decode(&answer).ok(),
            Err(error) => {
                tracing::debug!(address, %error, "no answer");
                None
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
            Standing::New { peers: arrival.peers.clone() }
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
        if namesake.is_some_and(|other| other == self.me || self.detector.lock().is_alive(other, now)) {
            return Welcome::Later(format!("another node called `{}` lives", info.name));
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
        let row = map.nodes.get(&self.me)?;
        if row.state == NodeState::Left {
            self.wait_for(&format!(
                "this store has left the cluster (`{}` was replaced or removed): start with an empty data folder",
                row.info.name
            ));
            return None;
        }
        let info = NodeInfo { epoch: row.info.epoch.max(self.info.epoch), ..self.info.clone() };
        (info != row.info).then_some(Change::Join { store: self.me, info, replaces: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn introduction(store: u64, name: &str, standing: Standing) -> Option<Introduction> {
        let info = NodeInfo { name: name.into(), peer: format!("{name}:1"), ..NodeInfo::default() };
        Some(Introduction { store: StoreId(store), info, standing })
    }

    fn new() -> Standing {
        Standing::New { peers: vec!["a:1".into(), "b:1".into(), "c:1".into()] }
    }

    fn judged(answers: [Option<Introduction>; 3]) -> Round {
        let addresses = ["a:1", "b:1", "c:1"].map(String::from);
        let answers: Vec<_> = addresses.iter().cloned().zip(answers).collect();
        judge(&addresses, &answers)
    }

    #[test]
    fn a_cluster_is_founded_when_all_are_there_and_new() {
        let (a, b, c) =
            (introduction(3, "a", new()), introduction(1, "b", new()), introduction(2, "c", new()));
        let Round::Ready(nodes) = judged([a.clone(), b.clone(), c]) else { panic!("they are all there") };
        assert_eq!(nodes.keys().map(|store| store.0).collect::<Vec<_>>(), [1, 2, 3]);
        let Round::Wait(why) = judged([a, b, None]) else { panic!("one is not there") };
        assert_eq!(why, "waiting for c:1");
    }

    #[test]
    fn one_member_is_enough_to_found_no_second_cluster() {
        let member = introduction(9, "c", Standing::Member { cluster: ClusterId(4) });
        assert_eq!(judged([introduction(1, "a", new()), None, member]), Round::Join("c:1".into()));
    }

    #[test]
    fn other_lists_and_other_names_are_told() {
        let (a, b) = (introduction(1, "a", new()), introduction(2, "b", new()));
        let other = introduction(3, "c", Standing::New { peers: vec!["c:1".into()] });
        let Round::Wait(why) = judged([a.clone(), b.clone(), other]) else { panic!("another list") };
        assert!(why.contains("the same list"), "{why}");
        for twice in [introduction(2, "c", new()), introduction(3, "b", new())] {
            let Round::Wait(why) = judged([a.clone(), b.clone(), twice]) else { panic!("one twice") };
            assert!(why.contains("same name"), "{why}");
        }
    }

    #[test]
    fn voters_are_odd_and_the_clusters_name_is_the_founders() {
        let nodes = |count: u64| (1..=count).map(|n| (StoreId(n), NodeInfo::default())).collect();
        let counts: Vec<usize> = (1..=7).map(|count| founders(&nodes(count)).len()).collect();
        assert_eq!(counts, [1, 1, 3, 3, 5, 5, 5]);
        let of = |stores: &[u64]| cluster_of(stores.iter().copied().map(StoreId));
        assert_eq!(of(&[1, 2]), of(&[2, 1]));
        assert_ne!(of(&[1, 2]), of(&[1, 3]));
    }
}
