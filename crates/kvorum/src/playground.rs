//! `kvorum playground`: a cluster in one process, on free ports, with data that goes with it.

use crate::serve::{log_to_stderr, stop_on_signals, stop_when_removed};
use kvorum_cluster::{Bootstrap, ClusterSettings, ClusterStatus, Node, NodeSettings, PeerListener};
use kvorum_server::{Server, ServerSettings, ShutdownHandle};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

/// Nodes of a playground at most.
pub(crate) const NODES_MAX: usize = 9;

/// Memory of each node.
const MEMORY_BYTES: u64 = 64 << 20;

/// How long the nodes may take to form a cluster.
const LED_WITHIN: Duration = Duration::from_secs(60);

/// A node of the playground.
struct Running {
    name: String,
    node: Node,
    resp: SocketAddr,
    door: SocketAddr,
    http: SocketAddr,
    serving: JoinHandle<Result<(), String>>,
}

/// Runs a cluster of so many nodes until it is told to stop.
pub(crate) fn playground(nodes: usize) -> Result<(), String> {
    log_to_stderr("error");
    let folder = tempfile::Builder::new().prefix("kvorum-playground-").tempdir();
    let folder = folder.map_err(|error| format!("cannot make a folder for the data: {error}"))?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let bind = |_| PeerListener::bind(any).map_err(|error| format!("cannot listen for other nodes: {error}"));
    let listeners = (0..nodes).map(bind).collect::<Result<Vec<_>, _>>()?;
    let named =
        |(at, listener): (usize, &PeerListener)| (format!("n{}", at + 1), listener.address().to_string());
    let peers: Vec<_> = listeners.iter().enumerate().map(named).collect();
    let mut server = ServerSettings::default();
    (server.resp, server.resp_cluster, server.http, server.threads) = (any, Some(any), Some(any), 1);
    let mut bound = Vec::with_capacity(nodes);
    for _ in 0..nodes {
        bound.push(Server::bind(&server).map_err(|error| error.to_string())?);
    }
    let stopped = bound.first().map(kvorum_server::Bound::shutdown_handle);
    stop_on_signals(bound.iter().map(kvorum_server::Bound::shutdown_handle).collect())?;
    let mut running = Vec::with_capacity(nodes);
    for (((name, _), listener), bound) in peers.iter().zip(listeners).zip(bound) {
        let (resp, http) = (bound.resp_address(), bound.http_address().unwrap_or(any));
        let door = bound.resp_cluster_address().unwrap_or(any);
        let mut settings = NodeSettings::new(folder.path().join(name));
        settings.memory_bytes = MEMORY_BYTES;
        let mut cluster = ClusterSettings::new(name, listener);
        (cluster.resp, cluster.resp_cluster, cluster.http) =
            (resp.to_string(), door.to_string(), http.to_string());
        cluster.bootstrap = Bootstrap::Peers(peers.clone());
        settings.cluster = Some(cluster);
        let node = Node::open(settings).map_err(|error| format!("cannot open {name}: {error}"))?;
        stop_when_removed(&node, bound.shutdown_handle())?;
        let served = node.clone();
        let serving = std::thread::spawn(move || bound.run(served).map_err(|error| error.to_string()));
        running.push(Running { name: name.clone(), node, resp, door, http, serving });
    }
    if wait_until_led(&running, stopped.as_ref())? {
        say_ready(&running).map_err(|error| format!("cannot write to standard output: {error}"))?;
    }
    end(running)
}

/// Waits until somebody leads each shard that is in use, and every node some of them. False: the playground is stopped before that.
fn wait_until_led(running: &[Running], stopped: Option<&ShutdownHandle>) -> Result<bool, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot wait for the cluster: {error}"))?;
    let led = |status: &ClusterStatus| {
        let all_led = !status.shards.is_empty() && status.shards.iter().all(|shard| shard.led);
        all_led && status.nodes.len() == running.len() && status.nodes.iter().all(|node| node.leads > 0)
    };
    let all = async {
        for node in running {
            node.node.cluster_until(led).await;
        }
    };
    let ends = async {
        match stopped {
            Some(handle) => handle.stopping().await,
            None => std::future::pending().await,
        }
    };
    let waited = runtime.block_on(async {
        tokio::select! {
            () = ends => Ok(false),
            led = tokio::time::timeout(LED_WITHIN, all) => led.map(|()| true),
        }
    });
    waited
        .map_err(|_| format!("the nodes did not form a cluster within {} s: try again", LED_WITHIN.as_secs()))
}

fn say_ready(running: &[Running]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "a cluster of {} nodes:", running.len())?;
    for Running { name, resp, http, door, .. } in running {
        writeln!(out, "{name}  resp {resp}  resp-cluster {door}  http {http}")?;
    }
    if let ([first, ..], [.., last]) = (running, running) {
        writeln!(out, "any node takes any command:")?;
        writeln!(out, "  redis-cli -p {} SET greeting 'hello world'", first.resp.port())?;
        writeln!(out, "  redis-cli -p {} GETV greeting", last.resp.port())?;
        writeln!(out, "  curl -X PUT --data-binary 'any bytes' http://{}/v1/ns/0/keys/k1", last.http)?;
        writeln!(out, "  curl http://{}/v1/ns/0/keys/k1", first.http)?;
        writeln!(out, "  redis-cli -c -p {} CLUSTER SHARDS", first.door.port())?;
        writeln!(out, "  kvorum cluster status --http {}", first.http)?;
    }
    writeln!(out, "stop with Ctrl-C: the data goes too")?;
    out.flush()
}

/// Waits until all doors are closed, then closes the nodes, all at once: they hand nothing over that nobody takes.
fn end(running: Vec<Running>) -> Result<(), String> {
    let mut outcome = Ok(());
    let mut nodes = Vec::with_capacity(running.len());
    for Running { name, node, serving, .. } in running {
        let ended = serving.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()));
        outcome = outcome.and(ended.map_err(|error| format!("{name}: {error}")));
        nodes.push(node);
    }
    let close = |node: Node| std::thread::spawn(move || node.shutdown().map_err(|error| error.to_string()));
    let closing: Vec<_> = nodes.into_iter().map(close).collect();
    for closing in closing {
        let closed = closing.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()));
        outcome = outcome.and(closed);
    }
    outcome
}
