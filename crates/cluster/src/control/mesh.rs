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
use tokio::sync::watch;
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

#[derive(Clone)]
struct Running {
    store_id: StoreId,
    control: Control,
    /// Dropped when it ends, and with it all that it was asked.
    ends: watch::Receiver<()>,
}

#[derive(Default)]
struct Wires {
    /// Running nodes by address.
    running: BTreeMap<String, Running>,
    /// From whom to whom nothing goes.
    cut: BTreeSet<(StoreId, StoreId)>,
    /// Only calls of this kind arrive.
    only: Option<&'static str>,
    /// While there is bad weather: what becomes of each message is thrown.
    dice: Option<fastrand::Rng>,
}

/// What becomes of a question or call.
#[derive(Clone, Copy, Default)]
struct Fate {
    there: Duration,
    back: Duration,
    lost: bool,
    answer_lost: bool,
}

impl Wires {
    /// Some messages take long, as on a loaded machine, and some get lost.
    fn fate(&mut self) -> Fate {
        let Some(dice) = &mut self.dice else { return Fate::default() };
        let mut takes =
            || Duration::from_millis(if dice.u8(..4) == 0 { dice.u64(0..1500) } else { dice.u64(0..20) });
        let (there, back) = (takes(), takes());
        Fate { there, back, lost: dice.u8(..8) == 0, answer_lost: dice.u8(..8) == 0 }
    }
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
    /// The name that its node has, if that is another one.
    pub(super) called: Option<&'static str>,
    pub(super) store_id: StoreId,
    dir: TempDir,
    running: Option<(Store, Control, watch::Sender<()>)>,
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
        Machine {
            name,
            called: None,
            store_id: StoreId(store),
            dir,
            running: None,
            mesh: self.clone(),
            boots: 0,
        }
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

    /// Nothing goes from a node to others, or goes again; what they send arrives.
    pub(super) fn set_mute(&self, one: &Machine, others: &[&Machine], mute: bool) {
        let mut wires = self.wires.lock();
        for other in others {
            let pair = (one.store_id, other.store_id);
            if mute {
                wires.cut.insert(pair);
            } else {
                wires.cut.remove(&pair);
            }
        }
    }

    /// From now on messages are late or lost, as the dice fall; `None` ends it.
    pub(super) fn set_weather(&self, seed: Option<u64>) {
        self.wires.lock().dice = seed.map(fastrand::Rng::with_seed);
    }

    /// Carries a question or call there, and its answer back.
    async fn carry(
        &self,
        deadline: Duration,
        answer: impl Future<Output = Result<Bytes, LinkError>>,
    ) -> Result<Bytes, LinkError> {
        let fate = self.wires.lock().fate();
        let lost = || LinkError::Lost("the weather".into());
        let carried = async {
            tokio::time::sleep(fate.there).await;
            if fate.lost {
                return Err(lost());
            }
            let answer = answer.await;
            tokio::time::sleep(fate.back).await;
            if fate.answer_lost { Err(lost()) } else { answer }
        };
        tokio::time::timeout(deadline, carried)
            .await
            .unwrap_or_else(|_| Err(LinkError::Lost("too late".into())))
    }

    /// Until `None` only calls of this kind arrive, by the name that they have in their bytes.
    pub(super) fn set_only(&self, kind: Option<&'static str>) {
        self.wires.lock().only = kind;
    }

    fn at(&self, from: StoreId, address: &str) -> Option<Running> {
        let wires = self.wires.lock();
        let running = wires.running.get(address)?;
        (!wires.cut.contains(&(from, running.store_id))).then(|| running.clone())
    }

    fn lets_pass(&self, call: &[u8]) -> bool {
        let only = self.wires.lock().only;
        only.is_none_or(|kind| String::from_utf8_lossy(call).starts_with(&format!("J{{\"{kind}\"")))
    }
}

/// An answer, unless the node ends before it has one.
async fn answered(
    mut ends: watch::Receiver<()>,
    answer: impl Future<Output = Result<Bytes, String>>,
) -> Result<Bytes, LinkError> {
    tokio::select! {
        answer = answer => answer.map_err(LinkError::Refused),
        _ = ends.changed() => Err(LinkError::Lost("it ended".into())),
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
        let store = loop {
            match Store::open(self.dir.path(), settings.clone(), Parts::real()) {
                // What openraft ended but did not wait for has it in its hands still.
                Err(kvorum_engine::Error::Locked { .. }) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                opened => break opened.unwrap(),
            }
        };
        let (me, mesh) = (self.store_id, self.mesh.clone());
        let info = NodeInfo {
            name: self.called.unwrap_or(self.name).into(),
            peer: self.address(),
            ..NodeInfo::default()
        };
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
        let (end, ends) = watch::channel(());
        let running = Running { store_id: me, control: control.clone(), ends };
        mesh.wires.lock().running.insert(self.address(), running);
        self.running = Some((store, control, end));
    }

    pub(super) fn runs(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn control(&self) -> &Control {
        &self.running.as_ref().expect("it runs").1
    }

    /// The node ends; what it made durable stays.
    pub(super) async fn stop(&mut self) {
        let (store, control, end) = self.running.take().expect("it runs");
        self.mesh.wires.lock().running.remove(&self.address());
        drop(end);
        control.shutdown().await;
        // Whoever asked it lets go of it.
        while Arc::strong_count(&control.0) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
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
        if let Some(running) = address.and_then(|address| self.mesh.at(self.me, &address))
            && running.store_id == to
        {
            running.control.handle_message(self.me, &body);
        }
    }

    fn call(&self, to: StoreId, body: Bytes, deadline: Duration) -> Pending<Result<Bytes, LinkError>> {
        let (from, mesh) = (self.me, self.mesh.clone());
        let address = self.peers.lock().get(&to).cloned();
        Box::pin(async move {
            let answer = async {
                let running = address.and_then(|address| mesh.at(from, &address));
                // A session is with a store: another disk at the same address is not who was called.
                let running = running.filter(|running| running.store_id == to && mesh.lets_pass(&body));
                let Running { control, ends, .. } =
                    running.ok_or_else(|| LinkError::NotSent("there is no way".into()))?;
                answered(ends, Box::pin(control.handle_call(from, &body))).await
            };
            mesh.carry(deadline, answer).await
        })
    }

    fn ask(&self, address: &str, body: Bytes, deadline: Duration) -> Pending<Result<Bytes, LinkError>> {
        let (from, mesh, address) = (self.me, self.mesh.clone(), address.to_owned());
        Box::pin(async move {
            let answer = async {
                let running = mesh.at(from, &address);
                let Running { control, ends, .. } =
                    running.ok_or_else(|| LinkError::NotSent("nobody listens".into()))?;
                answered(ends, Box::pin(control.handle_question(&body))).await
            };
            mesh.carry(deadline, answer).await
        })
    }

    fn set_peers(&self, peers: &[(StoreId, String)]) {
        *self.peers.lock() = peers.iter().cloned().collect();
    }

    fn set_left(&self, stores: BTreeSet<StoreId>) {
        let peers = self.peers.lock();
        assert!(stores.iter().all(|store| !peers.contains_key(store)));
    }

    fn set_cluster(&self, cluster: ClusterId, _map_version: u64) {
        assert_ne!(cluster, ClusterId::default());
    }
}
