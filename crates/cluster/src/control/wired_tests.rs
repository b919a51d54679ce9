//! Control planes of several nodes over the real transport, on real time.

use super::mesh::namespaces;
use super::{Applied, Bootstrap, Change, Control, ControlParts, Map, NodeInfo};
use crate::namespace::Mode;
use crate::namespaces::NamespaceSettings;
use crate::runtime::ControlLinks;
use crate::transport::{self, Channel, Handler, Identity, Transport, TransportSettings};
use bytes::Bytes;
use kvorum_engine::{Parts, Settings, Store};
use kvorum_sync::{Lane, StoreId};
use parking_lot::Mutex;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Longer than anything may take: only a hang gets there.
const HANG: Duration = Duration::from_secs(60);

/// Empty before the control plane is there, and again when it has ended: it holds the transport, which holds this.
#[derive(Default)]
struct Door(Mutex<Option<Control>>);

impl Handler for Door {
    fn message(&self, from: StoreId, _: Lane, _: Channel, body: Bytes) {
        if let Some(control) = &*self.0.lock() {
            control.handle_message(from, &body);
        }
    }

    fn call(&self, from: StoreId, _: Channel, body: Bytes) -> transport::Pending<Result<Bytes, String>> {
        let control = self.0.lock().clone();
        Box::pin(async move { control.ok_or("it starts")?.handle_call(from, &body).await })
    }

    fn strangers_call(
        &self,
        _: &Identity,
        _: Channel,
        body: Bytes,
    ) -> transport::Pending<Result<Bytes, String>> {
        let control = self.0.lock().clone();
        Box::pin(async move { control.ok_or("it starts")?.handle_question(&body).await })
    }

    fn reachable(&self, _: StoreId, _: bool) {}
}

struct Node {
    name: String,
    store_id: StoreId,
    address: String,
    dir: TempDir,
    listener: Option<TcpListener>,
    running: Option<(Store, Transport, Arc<Door>, Control)>,
    boots: u64,
}

impl Node {
    fn new(name: &str, store: u64) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Node {
            name: name.to_owned(),
            store_id: StoreId(store),
            address: listener.local_addr().unwrap().to_string(),
            dir: tempfile::tempdir().unwrap(),
            listener: Some(listener),
            running: None,
            boots: 0,
        }
    }

    async fn start(&mut self, bootstrap: Bootstrap) {
        self.boots += 1;
        let mut settings = Settings::default();
        settings.memory_bytes = 16 << 20;
        let parts = Parts::real();
        let store = Store::open(self.dir.path(), settings, parts.clone()).unwrap();
        let listener = self.listener.take().unwrap_or_else(|| TcpListener::bind(&self.address).unwrap());
        let name = self.name.clone();
        let identity =
            Identity { store: self.store_id, name, cluster: None, empty: self.boots == 1, map_version: 0 };
        let door = Arc::new(Door::default());
        let transport =
            Transport::start(TransportSettings::default(), listener, identity.clone(), door.clone()).unwrap();
        let info = NodeInfo { name: self.name.clone(), peer: self.address.clone(), ..NodeInfo::default() };
        let control = Control::start(ControlParts {
            store: store.clone(),
            links: Arc::new(ControlLinks::new(transport.clone(), identity)),
            clock: parts.clock.clone(),
            me: self.store_id,
            boot: self.boots,
            info,
            bootstrap,
            namespaces: namespaces(),
        });
        let control = control.await.unwrap();
        *door.0.lock() = Some(control.clone());
        self.running = Some((store, transport, door, control));
    }

    fn control(&self) -> &Control {
        &self.running.as_ref().expect("it runs").3
    }

    async fn stop(&mut self) {
        let (store, transport, door, control) = self.running.take().expect("it runs");
        transport.stop();
        *door.0.lock() = None;
        control.shutdown().await;
        store.close().unwrap();
    }

    async fn sees(&self, what: &str, wanted: impl Fn(&Map) -> bool) -> Arc<Map> {
        let mut maps = self.control().changes();
        let waited = tokio::time::timeout(HANG, maps.wait_for(|map| wanted(map))).await;
        match waited {
            Ok(map) => map.unwrap().clone(),
            Err(_) => panic!("{} never sees {what}: {:#?}", self.name, self.control().status()),
        }
    }

    async fn creates(&self, name: &str) {
        let settings = NamespaceSettings::new(Mode::Strong);
        let done = self.control().change(Change::CreateNamespace { name: name.into(), settings }).await;
        assert!(matches!(done, Ok(Applied::Namespace(_))), "{done:?}");
    }
}

fn has(name: &'static str) -> impl Fn(&Map) -> bool {
    move |map| map.namespace(name).is_some()
}

#[tokio::test]
async fn three_nodes_over_tcp_found_a_cluster_lose_its_leader_grow_and_start_again() {
    let mut nodes = vec![Node::new("a", 30), Node::new("b", 10), Node::new("c", 20)];
    let list: Vec<_> = nodes.iter().map(|node| (node.name.clone(), node.address.clone())).collect();
    for node in &mut nodes {
        node.start(Bootstrap::Peers(list.clone())).await;
    }
    for node in &nodes {
        node.sees("three voters", |map| map.is_founded() && map.voters.len() == 3).await;
    }
    let leads = nodes[0].control().status().leader.expect("somebody leads");
    let first = nodes.iter().position(|node| node.store_id == leads).expect("one of them");
    let follower = (first + 1) % 3;
    nodes[follower].creates("jobs").await;
    for node in &nodes {
        node.sees("what was changed at a follower", has("jobs")).await;
    }
    nodes[first].stop().await;
    nodes[follower].creates("users").await;
    nodes[first].start(Bootstrap::Alone).await;
    nodes[first].sees("what it missed", has("users")).await;

    let mut fourth = Node::new("d", 40);
    fourth.start(Bootstrap::Join(nodes[0].address.clone())).await;
    fourth
        .sees("itself among four", |map| map.nodes.len() == 4 && map.nodes.contains_key(&StoreId(40)))
        .await;
    nodes.push(fourth);

    for node in &mut nodes {
        node.stop().await;
    }
    for node in &mut nodes {
        node.start(Bootstrap::Alone).await;
    }
    for node in &nodes {
        node.sees("what was there", has("users")).await;
    }
    nodes[3].creates("more").await;
    for node in &mut nodes {
        node.stop().await;
    }
}
