//! Starts the control plane and keeps it going: heartbeats, the leader's rounds, peers of the transport. It decides nothing.

use super::bootstrap::{Arrival, Bootstrap, Joined};
use super::change::Change;
use super::detector::{BEAT_EVERY_MICROS, Detector, View};
use super::disk::{Disk, FOUNDING};
use super::log_store::LogStore;
use super::map::{Map, NodeRow, NodeState};
use super::message::encode;
use super::network::Network;
use super::planner::{Planner, PlannerConfig};
use super::raft::{self, Raft};
use super::report::{Beat, Reports};
use super::state_machine::StateMachine;
use super::voters::{self, Parting, VoterStep};
use super::{Control, ControlParts, Inner};
use kvorum_sync::StoreId;
use openraft::ChangeMembers;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// How often the leader looks whether something is to be done.
const PLAN_EVERY: Duration = Duration::from_millis(100);

/// Least time between two rounds of the leader: what comes in meanwhile goes into one entry.
const PLAN_PAUSE: Duration = Duration::from_millis(10);

/// How often a node tells the map that its row is wrong.
const ROW_EVERY: Duration = Duration::from_secs(1);

/// How long it may take until another voter leads: two elections.
const YIELD_WITHIN: Duration = Duration::from_secs(4);

/// What was found on the disk.
struct Opened {
    disk: Arc<Disk>,
    log: LogStore,
    machine: StateMachine,
    joined: Option<Joined>,
}

fn open(store: &kvorum_engine::Store, maps: watch::Sender<Arc<Map>>) -> io::Result<Opened> {
    let disk = Arc::new(Disk::open(store)?);
    Ok(Opened {
        log: LogStore::open(disk.clone())?,
        machine: StateMachine::open(disk.clone(), maps)?,
        joined: disk.get_json(FOUNDING)?,
        disk,
    })
}

impl Control {
    /// Starts the control plane in the runtime that this is called in, and goes on as [`ControlParts::bootstrap`] says, or where the node
    /// stopped. Does not wait for a cluster: watch [`Control::changes`] and [`Control::trouble`].
    ///
    /// # Errors
    /// When the log can't be read, or openraft not be started.
    pub(crate) async fn start(parts: ControlParts) -> io::Result<Control> {
        let (sender, maps) = watch::channel(Arc::new(Map::default()));
        let (store, told) = (parts.store.clone(), sender.clone());
        let opened = tokio::task::spawn_blocking(move || open(&store, sender)).await;
        let Opened { disk, log, machine, joined } = opened.map_err(io::Error::other)??;
        let begun = log.has_begun();
        let network = Network(parts.links.clone());
        let raft = Raft::new(parts.me.0, raft::config(), network, log, machine).await;
        let raft = raft.map_err(io::Error::other)?;
        let mut peers = match &parts.bootstrap {
            Bootstrap::Peers(peers) => peers.iter().map(|(_, address)| address.clone()).collect(),
            _ => Vec::new(),
        };
        peers.sort_unstable();
        let arrival = Arrival { begun, peers, known: BTreeMap::new(), joined };
        let inner = Arc::new(Inner {
            me: parts.me,
            boot: parts.boot,
            yields: AtomicBool::new(false),
            info: parts.info,
            namespaces: parts.namespaces,
            links: parts.links,
            clock: parts.clock,
            disk,
            raft,
            maps,
            told: Mutex::new(Some(told)),
            reports: Mutex::new(Reports::default()),
            detector: Mutex::new(Detector::default()),
            arrival: Mutex::new(arrival),
            trouble: watch::Sender::new(None),
            removed: watch::Sender::new(None),
            proposals: AtomicU64::new(0),
            beats: AtomicU64::new(0),
            beat_now: Notify::new(),
            plan_now: Notify::new(),
            tasks: Mutex::new(Vec::new()),
        });
        inner.follow_map();
        let tasks = vec![
            tokio::spawn(inner.clone().arrive(parts.bootstrap)),
            tokio::spawn(inner.clone().watch_map()),
            tokio::spawn(inner.clone().keep_beating()),
            tokio::spawn(inner.clone().keep_planning()),
            tokio::spawn(inner.clone().keep_row()),
            tokio::spawn(inner.clone().ask_those_who_are_silent()),
        ];
        *inner.tasks.lock() = tasks;
        Ok(Control(inner))
    }
}

impl Inner {
    /// Tells the transport what the map says.
    fn follow_map(&self) {
        let map = self.map();
        if map.is_founded() {
            self.links.set_cluster(map.cluster, map.version);
            // Who has left is spoken with until it had the time to hear of it.
            let told = self.raft_nodes();
            let is_left = |row: &NodeRow| row.state == NodeState::Left;
            let is_taken = |row: &NodeRow| {
                map.nodes.values().any(|other| !is_left(other) && other.info.peer == row.info.peer)
            };
            let is_peer =
                |(store, row): &(&StoreId, &NodeRow)| !is_left(row) || told.contains(store) && !is_taken(row);
            let others = map.nodes.iter().filter(|(store, _)| **store != self.me);
            let (peers, left): (Vec<_>, Vec<_>) = others.partition(is_peer);
            let address = |(store, row): (&StoreId, &NodeRow)| (*store, row.info.peer.clone());
            self.links.set_peers(&peers.into_iter().map(address).collect::<Vec<_>>());
            self.links.set_left(left.into_iter().map(|(store, _)| *store).collect());
        } else {
            self.follow_members();
        }
    }

    /// Before there is a map, the peers are those of the log.
    fn follow_members(&self) {
        let metrics = self.raft.metrics();
        let peers: Vec<(StoreId, String)> = {
            let metrics = metrics.borrow();
            let nodes = metrics.membership_config.nodes();
            nodes.map(|(id, info)| (StoreId(*id), info.peer.clone())).collect()
        };
        self.know(&peers);
    }

    async fn watch_map(self: Arc<Inner>) {
        let (mut maps, mut metrics) = (self.maps.clone(), self.raft.metrics());
        let (mut leads, mut nodes) = (false, BTreeSet::new());
        loop {
            let ended = tokio::select! {
                changed = maps.changed() => {
                    self.follow_map();
                    self.plan_now.notify_one();
                    changed.is_err()
                }
                changed = metrics.changed() => {
                    let members = self.raft_nodes();
                    if !self.map().is_founded() {
                        self.follow_members();
                    } else if nodes != members {
                        nodes = members;
                        self.follow_map();
                    }
                    // A new leader plans at once.
                    if self.leads() != leads {
                        leads = !leads;
                        self.plan_now.notify_one();
                    }
                    changed.is_err()
                }
            };
            if ended {
                return;
            }
        }
    }

    async fn keep_beating(self: Arc<Inner>) {
        let every = Duration::from_micros(BEAT_EVERY_MICROS);
        loop {
            self.beat();
            // A report that is news does not wait for the next heartbeat.
            let early = self.beat_now.notified();
            drop(tokio::time::timeout(every, early).await);
        }
    }

    /// Sends the heartbeat: to all, so that everybody knows whom it hears; what voters go by, to the voters.
    fn beat(&self) {
        let (map, now) = (self.map(), self.now());
        let (reports, sync_micros, halted, keeping, behind) = {
            let mut reports = self.reports.lock();
            reports.prune(&map, now);
            (reports.list(), reports.sync_micros(), reports.halted(), reports.keeping(), reports.behind())
        };
        let mut beat = Beat {
            boot: self.boot,
            number: self.beats.fetch_add(1, Relaxed) + 1,
            hears: self.detector.lock().heard(now),
            sync_micros,
            halted,
            behind,
            map_version: map.version,
            keeping,
            reports,
        };
        let Ok(whole) = encode(&beat) else { return };
        if self.detector.lock().beat(self.me, beat.clone(), now) {
            self.plan_now.notify_one();
        }
        beat.reports.clear();
        let Ok(plain) = encode(&beat) else { return };
        for (store, row) in &map.nodes {
            if *store != self.me && row.state != NodeState::Left {
                let body = if map.voters.contains(store) { &whole } else { &plain };
                self.links.send(*store, body.clone());
            }
        }
    }

    async fn keep_planning(self: Arc<Inner>) {
        let mut planner = None;
        let mut parting = Parting::default();
        let mut votes: Option<JoinHandle<()>> = None;
        loop {
            drop(tokio::time::timeout(PLAN_EVERY, self.plan_now.notified()).await);
            let (map, now) = (self.map(), self.now());
            self.detector.lock().look(&map, now);
            if self.yields.load(Relaxed) {
                // An entry of the log would be heard as a sign of life.
                continue;
            }
            if !self.leads() {
                // A leader begins without memory.
                planner = None;
                continue;
            }
            if map.is_founded() {
                let view = self.detector.lock().view(now);
                let planner = planner.get_or_insert_with(|| Planner::new(PlannerConfig::default()));
                self.change_map(planner.plan(&map, &view)).await;
                if votes.as_ref().is_none_or(JoinHandle::is_finished) {
                    votes = self
                        .next_voters(&map, &view, &parting.over(&map, now))
                        .map(|step| tokio::spawn(self.clone().change_voters(step)));
                }
            } else {
                self.change_map(self.first_change().into_iter().collect()).await;
            }
            tokio::time::sleep(PLAN_PAUSE).await;
        }
    }

    /// What a round of the raft leader found. Where it is outdated by now, the map says so.
    async fn change_map(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        tracing::debug!(?changes, "the control plane's leader");
        match self.propose(changes).await {
            Ok(answers) => answers.0.iter().filter_map(|answer| answer.as_ref().err()).for_each(|refused| {
                tracing::warn!(%refused, "the map refuses a change of the control plane's leader");
            }),
            Err(error) => tracing::warn!(%error, "a round of the control plane's leader"),
        }
    }

    fn next_voters(&self, map: &Map, view: &View, parted: &BTreeSet<StoreId>) -> Option<VoterStep> {
        let metrics = self.raft.metrics();
        let (nodes, voters) = {
            let metrics = metrics.borrow();
            let membership = &metrics.membership_config;
            // A change that is under way ends first.
            if membership.membership().get_joint_config().len() > 1 {
                return None;
            }
            (self.raft_nodes(), membership.voter_ids().map(StoreId).collect())
        };
        voters::next_step(map, view, self.me, &nodes, &voters, parted)
    }

    async fn change_voters(self: Arc<Inner>, step: VoterStep) {
        tracing::info!(?step, "the control plane's voters");
        let done = match &step {
            VoterStep::Learn(store) => {
                let info = self.map().nodes.get(store).map(|row| row.info.clone()).unwrap_or_default();
                self.raft.add_learner(store.0, info, false).await
            }
            VoterStep::Vote(stores) => {
                let voters: BTreeSet<u64> = stores.iter().map(|store| store.0).collect();
                self.raft.change_membership(voters, true).await
            }
            VoterStep::Yield => return self.yield_lead().await,
            VoterStep::Forget(store) => {
                self.raft.change_membership(ChangeMembers::RemoveNodes([store.0].into()), true).await
            }
        };
        if let Err(error) = done {
            tracing::warn!(?step, %error, "the control plane's voters stay as they are: this is tried again");
        }
    }

    /// Lets another voter lead the log: this one is silent until one does.
    async fn yield_lead(&self) {
        self.yields.store(true, Relaxed);
        let config = self.raft.runtime_config();
        config.heartbeat(false);
        config.elect(false);
        let mut metrics = self.raft.metrics();
        let (me, led) = (self.me.0, openraft::ServerState::Leader);
        let another =
            metrics.wait_for(|now| now.state != led && now.current_leader.is_some_and(|id| id != me));
        if tokio::time::timeout(YIELD_WITHIN, another).await.is_err() {
            tracing::warn!("nobody else leads the control plane yet: this is tried again");
        }
        config.elect(true);
        config.heartbeat(true);
        self.yields.store(false, Relaxed);
    }

    /// Keeps the own row of the map true.
    async fn keep_row(self: Arc<Inner>) {
        let mut maps = self.maps.clone();
        loop {
            let map = maps.borrow_and_update().clone();
            if self.has_left(&map) {
                return self.leave_for_good().await;
            }
            let change = self.own_row(&map);
            if let Some(change) = change
                && let Err(error) = self.propose(vec![change]).await
            {
                tracing::warn!(%error, "the map has other addresses of this node");
            }
            tokio::select! {
                changed = maps.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(ROW_EVERY), if self.own_row(&map).is_some() => {}
            }
        }
    }
}
