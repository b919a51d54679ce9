//! Starts the control plane and keeps it going: heartbeats, the leader's rounds, peers of the transport. It decides nothing.

use super::bootstrap::{Arrival, Bootstrap, Joined};
use super::detector::{BEAT_EVERY_MICROS, Detector};
use super::disk::{Disk, FOUNDING};
use super::log_store::LogStore;
use super::map::{Map, NodeState};
use super::message::encode;
use super::network::Network;
use super::raft::{self, Raft};
use super::report::{Beat, Reports};
use super::state_machine::StateMachine;
use super::{Control, ControlParts, Inner};
use kvorum_sync::StoreId;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often the leader looks whether something is to be done.
const PLAN_EVERY: Duration = Duration::from_millis(100);

/// Least time between two rounds of the leader: what comes in meanwhile goes into one entry.
const PLAN_PAUSE: Duration = Duration::from_millis(10);

/// How often a node tells the map that its row is wrong.
const ROW_EVERY: Duration = Duration::from_secs(1);

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
        let store = parts.store.clone();
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
        let arrival = Arrival { begun, peers, known: BTreeSet::new(), joined };
        let inner = Arc::new(Inner {
            me: parts.me,
            boot: parts.boot,
            info: parts.info,
            namespaces: parts.namespaces,
            links: parts.links,
            clock: parts.clock,
            disk,
            raft,
            maps,
            reports: Mutex::new(Reports::default()),
            detector: Mutex::new(Detector::default()),
            arrival: Mutex::new(arrival),
            trouble: watch::Sender::new(None),
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
            let mut peers = map.addresses();
            peers.retain(|(store, _)| *store != self.me);
            self.links.set_peers(&peers);
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
            nodes
                .map(|(id, info)| (StoreId(*id), info.peer.clone()))
                .filter(|(id, _)| *id != self.me)
                .collect()
        };
        if !peers.is_empty() {
            self.arrival.lock().known.extend(peers.iter().map(|(store, _)| *store));
            self.links.set_peers(&peers);
        }
    }

    async fn watch_map(self: Arc<Inner>) {
        let (mut maps, mut metrics) = (self.maps.clone(), self.raft.metrics());
        let mut leads = false;
        loop {
            let ended = tokio::select! {
                changed = maps.changed() => {
                    self.follow_map();
                    self.plan_now.notify_one();
                    changed.is_err()
                }
                changed = metrics.changed() => {
                    if !self.map().is_founded() {
                        self.follow_members();
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
        let reports = {
            let mut reports = self.reports.lock();
            reports.prune(&map, now);
            (reports.list(), reports.sync_micros())
        };
        let mut beat = Beat {
            boot: self.boot,
            number: self.beats.fetch_add(1, Relaxed) + 1,
            hears: self.detector.lock().heard(now),
            sync_micros: reports.1,
            map_version: map.version,
            reports: reports.0,
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
        loop {
            drop(tokio::time::timeout(PLAN_EVERY, self.plan_now.notified()).await);
            self.detector.lock().look(&self.map(), self.now());
            if self.leads() {
                self.plan().await;
            }
            tokio::time::sleep(PLAN_PAUSE).await;
        }
    }

    /// A round of the raft leader.
    async fn plan(&self) {
        let map = self.map();
        let changes = if map.is_founded() { Vec::new() } else { self.first_change().into_iter().collect() };
        if changes.is_empty() {
            return;
        }
        if let Err(error) = self.propose(changes).await {
            tracing::warn!(%error, "a round of the control plane's leader");
        }
    }

    /// Keeps the own row of the map true.
    async fn keep_row(self: Arc<Inner>) {
        let mut maps = self.maps.clone();
        loop {
            let map = maps.borrow_and_update().clone();
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
