//! Nodes of a cluster in one process, and connections to them.

use kvorum_cluster::{
    Bootstrap, ClusterSettings, ClusterStatus, Error, NamespaceId, Node, NodeSettings, PeerListener, Request,
    Served, Session, Watched,
};
use kvorum_engine::{Clock, SystemClock};
use kvorum_model::{Args, Reply, resolve};
use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;

/// Far longer than anything here takes: a test that hangs says where.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) nodes: Vec<Option<Node>>,
}

impl World {
    pub(crate) async fn new() -> World {
        World::of(3).await
    }

    pub(crate) async fn of(nodes: usize) -> World {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let listeners: Vec<_> = (0..nodes).map(|_| PeerListener::bind(loopback).unwrap()).collect();
        let addresses = listeners.iter().map(PeerListener::address).collect();
        let mut world = World { dir: TempDir::new().unwrap(), addresses, nodes: Vec::new() };
        for (number, listener) in listeners.into_iter().enumerate() {
            let node = world.open(number, listener);
            world.nodes.push(Some(node));
        }
        for node in world.nodes.iter().flatten() {
            let led = |status: &ClusterStatus| {
                !status.shards.is_empty() && status.shards.iter().all(|shard| shard.led)
            };
            if tokio::time::timeout(PATIENCE, node.cluster_until(led)).await.is_err() {
                panic!("not every shard is led: {:#?}", node.cluster_status());
            }
        }
        world
    }

    pub(crate) fn open(&self, number: usize, listener: PeerListener) -> Node {
        let named = |(number, address): (usize, &SocketAddr)| (format!("n{number}"), address.to_string());
        let peers = Bootstrap::Peers(self.addresses.iter().enumerate().map(named).collect());
        self.open_as(number, listener, peers)
    }

    pub(crate) fn open_as(&self, number: usize, listener: PeerListener, bootstrap: Bootstrap) -> Node {
        let mut settings = NodeSettings::new(self.dir.path().join(format!("n{number}")));
        settings.memory_bytes = 16 << 20;
        let mut cluster = ClusterSettings::new(format!("n{number}"), listener);
        cluster.bootstrap = bootstrap;
        settings.cluster = Some(cluster);
        // A thread of the node that was here before may have been the last to let go of it, and is about to end it.
        let is_held = |error: &Error| error.to_string().contains("is in use");
        patiently(|| Node::open(settings.clone()), is_held)
    }

    /// Stops a node, and starts it on its port. Meanwhile that may belong to somebody's outgoing connection: it is given back.
    pub(crate) fn restart(&mut self, number: usize) {
        drop(self.nodes[number].take());
        let is_taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        let listener = patiently(|| PeerListener::bind(self.addresses[number]), is_taken);
        self.nodes[number] = Some(self.open(number, listener));
    }

    pub(crate) fn node(&self, number: usize) -> &Node {
        self.nodes[number].as_ref().unwrap()
    }

    pub(crate) fn client(&self, number: usize) -> Client {
        Client { node: self.node(number).clone(), session: Session::new(), namespace: NamespaceId::ZERO }
    }
}

/// Tries again while it fails for a reason that passes.
fn patiently<T, E: Debug>(mut attempt: impl FnMut() -> Result<T, E>, passes: impl Fn(&E) -> bool) -> T {
    let clock = SystemClock::new();
    let begun = clock.monotonic();
    loop {
        match attempt() {
            Err(error) if passes(&error) && clock.monotonic() - begun < PATIENCE => std::thread::yield_now(),
            done => return done.unwrap(),
        }
    }
}

/// A connection to one of the nodes.
pub(crate) struct Client {
    pub(crate) node: Node,
    pub(crate) session: Session,
    pub(crate) namespace: NamespaceId,
}

pub(crate) fn words(line: &str) -> Vec<&[u8]> {
    line.split(' ').map(str::as_bytes).collect()
}

pub(crate) fn request<'r>(namespace: NamespaceId, words: &'r [&'r [u8]]) -> Request<'r> {
    let args = Args::new(words);
    Request { namespace, spec: resolve(args).unwrap(), args }
}

impl Client {
    /// Executes commands, separated by ` · `, as one buffer.
    pub(crate) async fn all(&mut self, lines: &str) -> Vec<Reply> {
        let words: Vec<Vec<&[u8]>> = lines.split(" · ").map(words).collect();
        let requests: Vec<_> = words.iter().map(|words| request(self.namespace, words)).collect();
        let serving = self.node.serve(&mut self.session, &requests);
        let replies = tokio::time::timeout(PATIENCE, serving).await.expect("an answer");
        assert_eq!(replies.len(), requests.len());
        replies
    }

    pub(crate) async fn call(&mut self, line: &str) -> Reply {
        self.all(line).await.remove(0)
    }

    pub(crate) async fn code(&mut self, line: &str) -> String {
        code(&self.call(line).await)
    }

    pub(crate) async fn exec(&mut self, lines: &str, watched: &Watched) -> Served {
        let words: Vec<Vec<&[u8]>> = lines.split(" · ").map(words).collect();
        let requests: Vec<_> = words.iter().map(|words| request(self.namespace, words)).collect();
        self.node.serve_transaction(&mut self.session, &requests, watched).await
    }

    /// Watches a key of the namespace.
    pub(crate) async fn watch(&self, key: &str) -> Watched {
        let mut watched = Watched::new();
        self.node.serve_watch(self.namespace, &[key.as_bytes()], &mut watched).await.unwrap();
        watched
    }
}

pub(crate) fn code(reply: &Reply) -> String {
    match reply {
        Reply::Error(error) => error.code().to_owned(),
        reply => panic!("not an error: {reply:?}"),
    }
}

pub(crate) fn number(reply: &Reply) -> i64 {
    match reply {
        Reply::Integer(number) => *number,
        reply => panic!("not a number: {reply:?}"),
    }
}

pub(crate) fn text(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        reply => panic!("not a text: {reply:?}"),
    }
}

pub(crate) fn list(reply: &Reply) -> &[Reply] {
    match reply {
        Reply::Array(list) => list,
        reply => panic!("not a list: {reply:?}"),
    }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}
