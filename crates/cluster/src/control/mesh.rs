//! For tests: control planes in one process, joined by a network that can be cut, on tokio's own time (which stands still until everybody waits).

use super::map::NodeInfo;
use super::{Bootstrap, ClusterId, Control, ControlParts, LinkError, Links, Map, NamespaceRow, Pending};
use crate::namespace::Mode;
use crate::namespaces::NamespaceSettings;
use bytes::Bytes;
use kvorum_engine::{Clock, Parts, Settings, Store};
use kvorum_sync::StoreId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// Longer than anything may take: only a hang gets there.
const HANG: Duration = Duration::from_secs(120);

/// tokio's time.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn unix_ms(&self) -> u64 {
        0
    }
}

#[derive(Default)]
struct Wires {
    /// Running nodes by address.
    running: BTreeMap<String, (StoreId, Control)>,
    /// From whom to whom nothing goes.
    cut: BTreeSet<(StoreId, StoreId)>,
}

/// A network and the machines at it.
#[derive(Clone)]
pub(super) struct Mesh {
    wires: Arc<Mutex<Wires>>,
    clock: Arc<TokioClock>,
}

/// A machine: its disk stays when the node on it ends.
pub(super) struct Machine {
    pub(super) name: &'static str,
    pub(super) store_id: StoreId,
    dir: TempDir,
    running: Option<(Store, Control)>,
    mesh: Mesh,
    boots: u64,
}

struct MeshLinks {
    me: StoreId,
    mesh: Mesh,
    peers: Mutex<BTreeMap<StoreId, String>>,
}

impl Mesh {
    pub(super) fn new() -> Mesh {
        Mesh { wires: Arc::default(), clock: Arc::new(TokioClock(Instant::now())) }
    }

    pub(super) fn machine(&self, name: &'static str, store: u64) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        Machine { name, store_id: StoreId(store), dir, running: None, mesh: self.clone(), boots: 0 }
    }

    /// Cuts a node off, or joins it again.
    pub(super) fn set_cut(&self, one: &Machine, others: &[&Machine], cut: bool) {
        let mut wires = self.wires.lock();
        for other in others {
            for pair in [(one.store_id, other.store_id), (other.store_id, one.store_id)] {
                if cut {
                    wires.cut.insert(pair);
                } else {
                    wires.cut.remove(&pair);
                }
            }
        }
    }

    fn at(&self, from: StoreId, address: &str) -> Option<Control> {
        let wires = self.wires.lock();
        let (to, control) = wires.running.get(address)?;
        (!wires.cut.contains(&(from, *to))).then(|| control.clone())
    }
}

/// The map of namespaces that a new store has.
pub(super) fn namespaces() -> BTreeMap<u16, NamespaceRow> {
    let row = |id: u16, mode| NamespaceRow {
        name: if id == 16 { "entity".to_owned() } else { id.to_string() },
        settings: NamespaceSettings::new(mode),
        active: id == 0,
        dropped: false,
    };
    (0..16).map(|id| (id, row(id, Mode::Strong))).chain([(16, row(16, Mode::Available))]).collect()
}

pub(super) fn peers(machines: &[&Machine]) -> Bootstrap {
    Bootstrap::Peers(machines.iter().map(|machine| (machine.name.to_owned(), machine.address())).collect())
}

impl Machine {
    pub(super) fn address(&self) -> String {
        format!("{}:7000", self.name)
    }

    pub(super) async fn start(&mut self, bootstrap: Bootstrap) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        self.boots += 1;
        let mut settings = Settings::default();
        settings.memory_bytes = 16 << 20;
        let store = Store::open(self.dir.path(), settings, Parts::real()).unwrap();
        let (me, mesh) = (self.store_id, self.mesh.clone());
        let info = NodeInfo { name: self.name.into(), peer: self.address(), ..NodeInfo::default() };
        let links = Arc::new(MeshLinks { me, mesh: mesh.clone(), peers: Mutex::default() });
        let control = Control::start(ControlParts {
            store: store.clone(),
            links,
            clock: mesh.clock.clone(),
            me,
            boot: self.boots,
            info,
            bootstrap,
            namespaces: namespaces(),
        })
        .await
        .unwrap();
        mesh.wires.lock().running.insert(self.address(), (me, control.clone()));
        self.running = Some((store, control));
    }

    pub(super) fn runs(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn control(&self) -> &Control {
        &self.running.as_ref().expect("it runs").1
    }

    /// The node ends; what it made durable stays.
    pub(super) async fn stop(&mut self) {
        let (store, control) = self.running.take().expect("it runs");
        self.mesh.wires.lock().running.remove(&self.address());
        control.shutdown().await;
        store.close().unwrap();
    }

    /// Another disk in the same machine.
    pub(super) fn wipe(&mut self, store: u64) {
        assert!(self.running.is_none());
        self.dir = tempfile::tempdir().unwrap();
        self.store_id = StoreId(store);
    }

    /// Waits until the node's map is as wanted.
    pub(super) async fn sees(&self, what: &str, wanted: impl Fn(&Map) -> bool) -> Arc<Map> {
        let mut maps = self.control().changes();
        let waited = tokio::time::timeout(HANG, maps.wait_for(|map| wanted(map))).await;
        match waited {
            Ok(map) => map.unwrap().clone(),
            Err(_) => panic!("{} never sees {what}: {:#?}", self.name, self.control().status()),
        }
    }
}

impl Links for MeshLinks {
    fn send(&self, to: StoreId, body: Bytes) {
        let address = self.peers.lock().get(&to).cloned();
        if let Some(control) = address.and_then(|address| self.mesh.at(self.me, &address))
            && control.0.me == to
        {
            control.handle_message(self.me, &body);
        }
    }

    fn call(&self, to: StoreId, body: Bytes, deadline: Duration) -> Pending<Result<Bytes, LinkError>> {
        let (from, mesh) = (self.me, self.mesh.clone());
        let address = self.peers.lock().get(&to).cloned();
        Box::pin(async move {
            let control = address.and_then(|address| mesh.at(from, &address));
            // A session is with a store: another disk at the same address is not who was called.
            let control = control.filter(|control| control.0.me == to);
            let control = control.ok_or_else(|| LinkError::NotSent("there is no way".into()))?;
            let answer = tokio::time::timeout(deadline, control.handle_call(from, &body)).await;
            answer.map_err(|_| LinkError::Lost("too late".into()))?.map_err(LinkError::Refused)
        })
    }

    fn ask(&self, address: &str, body: Bytes, deadline: Duration) -> Pending<Result<Bytes, LinkError>> {
        let control = self.mesh.at(self.me, address);
        Box::pin(async move {
            let control = control.ok_or_else(|| LinkError::NotSent("nobody listens".into()))?;
            let answer = tokio::time::timeout(deadline, control.handle_question(&body)).await;
            answer.map_err(|_| LinkError::Lost("too late".into()))?.map_err(LinkError::Refused)
        })
    }

    fn set_peers(&self, peers: &[(StoreId, String)]) {
        *self.peers.lock() = peers.iter().cloned().collect();
    }

    fn set_cluster(&self, cluster: ClusterId, _map_version: u64) {
        assert_ne!(cluster, ClusterId::default());
    }
}
