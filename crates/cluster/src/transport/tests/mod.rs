//! Transports of one process that speak with each other over loopback. Waits are for conditions; `HANG` is met only by a test that fails.

mod calls;
mod handshakes;
mod sessions;
mod strain;
mod tls;

use super::*;
use crate::transport::connect::{Manners, Wish};
use crate::transport::handshake::Purpose;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;

const HANG: Duration = Duration::from_secs(60);

/// Lanes in these tests.
const LANES: u8 = 2;

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Message(StoreId, Lane, Channel, Bytes),
    Reachable(StoreId, bool),
}

struct Recorder {
    events: Sender<Event>,
    /// Data lanes read on while it is false.
    paused: watch::Receiver<bool>,
    name: String,
}

impl Handler for Recorder {
    fn message(&self, from: StoreId, lane: Lane, channel: Channel, body: Bytes) {
        let _ = self.events.send(Event::Message(from, lane, channel, body));
    }

    fn call(&self, from: StoreId, _channel: Channel, body: Bytes) -> Pending<Result<Bytes, String>> {
        Box::pin(async move {
            match &body[..] {
                b"refuse" => Err(format!("not for {}", from.0)),
                b"hang" => std::future::pending().await,
                _ => Ok(body),
            }
        })
    }

    fn strangers_call(&self, identity: &Identity, _: Channel, body: Bytes) -> Pending<Result<Bytes, String>> {
        let answer = format!("{} to {}: {}", self.name, identity.name, String::from_utf8_lossy(&body));
        Box::pin(async move { if body == "refuse" { Err(answer) } else { Ok(answer.into()) } })
    }

    fn reachable(&self, store: StoreId, up: bool) {
        let _ = self.events.send(Event::Reachable(store, up));
    }

    fn pause(&self) -> Option<Pending<()>> {
        let mut paused = self.paused.clone();
        let is_paused = *paused.borrow();
        is_paused.then(|| {
            Box::pin(async move {
                let _ = paused.wait_for(|paused| !paused).await;
            }) as Pending<()>
        })
    }
}

/// A node that is nothing but a transport.
struct Node {
    transport: Transport,
    store: StoreId,
    address: String,
    events: Receiver<Event>,
    paused: watch::Sender<bool>,
}

type Result<T, E> = std::result::Result<T, E>;

fn identity(store: u64) -> Identity {
    Identity {
        store: StoreId(store),
        name: format!("n{store}"),
        cluster: Some(1),
        empty: false,
        map_version: 0,
    }
}

fn settings() -> TransportSettings {
    TransportSettings {
        lanes: LANES,
        queue_bytes_max: 1 << 20,
        frame_bytes_max: 1 << 20,
        ping_every: Duration::from_millis(20),
        // Long, so that a machine with much else to do does not end sessions; tests of the silence say otherwise.
        silence_max: Duration::from_secs(10),
        connect_time_max: HANG,
        backoff_first: Duration::from_millis(1),
        backoff_max: Duration::from_millis(20),
        ..TransportSettings::default()
    }
}

impl Node {
    fn start(store: u64) -> Node {
        Node::with(identity(store), settings(), "127.0.0.1:0")
    }

    fn with(identity: Identity, settings: TransportSettings, at: &str) -> Node {
        let listener = TcpListener::bind(at).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, events) = channel();
        let paused = watch::Sender::new(false);
        let name = identity.name.clone();
        let handler = Recorder { events: sender, paused: paused.subscribe(), name };
        let store = identity.store;
        let transport = Transport::start(settings, listener, identity, Arc::new(handler)).unwrap();
        Node { transport, store, address, events, paused }
    }

    fn knows(&self, others: &[&Node]) {
        let others: Vec<_> = others.iter().map(|other| (other.store, other.address.clone())).collect();
        self.transport.set_peers(&others);
    }

    fn next(&self) -> Event {
        self.events.recv_timeout(HANG).expect("an event")
    }

    /// Waits for this event; others are passed over.
    fn sees(&self, wanted: &Event) {
        while self.next() != *wanted {}
    }

    fn sees_up(&self, other: &Node) {
        self.sees(&Event::Reachable(other.store, true));
    }

    fn send(&self, to: &Node, lane: Lane, body: &'static str) -> Result<(), NotSent> {
        self.transport.send(to.store, lane, Channel::Shard, body.into())
    }

    fn message(&self, lane: Lane, body: &'static str) -> Event {
        Event::Message(self.store, lane, Channel::Shard, body.into())
    }
}

/// Nodes that all know each other, and have met.
fn met(stores: &[u64]) -> Vec<Node> {
    let nodes: Vec<_> = stores.iter().map(|store| Node::start(*store)).collect();
    let all: Vec<_> = nodes.iter().collect();
    nodes.iter().for_each(|node| node.knows(&all));
    for node in &nodes {
        let mut missing = nodes.len() - 1;
        while missing > 0 {
            missing -= usize::from(matches!(node.next(), Event::Reachable(_, true)));
        }
    }
    nodes
}

fn run<T>(what: impl Future<Output = T>) -> T {
    runtime().unwrap().block_on(what)
}

/// The manners of a node that is none.
fn manners(store: u64) -> Manners<'static> {
    Manners { identity: identity(store), lanes: LANES, secret: None, tls: None }
}

fn wish(purpose: Purpose) -> Wish {
    Wish { purpose, session: 5, expected: None }
}
