//! `kvorum serve`: bind, open, say so, serve, end.

use crate::settings::{Settings, show_bytes};
use crate::{cluster, probe};
use kvorum_cluster::{Bootstrap, ClusterSettings, Durability, Node, NodeSettings};
use kvorum_server::{BindError, Bound, Server, ServerSettings, ShutdownHandle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Instant;

/// Exit status after a second Ctrl-C, as a shell shows a program that SIGINT ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Serves a node until it is told to stop. Listeners are bound before anything is written, so that a taken port leaves no folder behind.
pub(crate) fn serve(settings: &Settings) -> Result<(), String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the start line says how long the start took; nothing decides by it"
    )]
    let began = Instant::now();
    log_to_stderr(&settings.log);
    let bound = Server::bind(&server_settings(settings)?).map_err(|error| explain_bind(&error))?;
    let mut node = node_settings(settings);
    node.cluster = cluster::cluster(settings, &bound)?;
    let part = node.cluster.clone();
    let node =
        Node::open(node).map_err(|error| format!("cannot open {}: {error}", settings.data.display()))?;
    stop_on_signals(vec![bound.shutdown_handle()])?;
    say_ready(settings, &bound, part.as_ref(), began)
        .map_err(|error| format!("cannot write to standard output: {error}"))?;
    stop_when_removed(&node, bound.shutdown_handle())?;
    let served = bound.run(node.clone()).map_err(|error| error.to_string());
    let closed =
        node.shutdown().map_err(|error| format!("while closing {}: {error}", settings.data.display()));
    served.and(closed)
}

pub(crate) fn log_to_stderr(level: &str) {
    let level = level.parse().unwrap_or(tracing::Level::INFO);
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_target(false).init();
}

fn server_settings(settings: &Settings) -> Result<ServerSettings, String> {
    let mut server = ServerSettings::default();
    server.resp = resolve(&settings.resp)?;
    server.resp_cluster = settings.resp_cluster.as_deref().map(resolve).transpose()?;
    server.advertise.clone_from(&settings.advertise);
    server.http = settings.http.as_deref().map(resolve).transpose()?;
    if settings.threads > 0 {
        server.threads = settings.threads;
    }
    server.requirepass.clone_from(&settings.requirepass);
    server.protected_mode = settings.protected_mode;
    server.max_clients = settings.max_clients;
    server.timeout_seconds = settings.timeout_seconds as u64;
    server.http_hosts.clone_from(&settings.http_hosts);
    Ok(server)
}

pub(crate) fn resolve(address: &str) -> Result<SocketAddr, String> {
    let mut found =
        address.to_socket_addrs().map_err(|error| format!("cannot resolve {address}: {error}"))?;
    found.next().ok_or_else(|| format!("cannot resolve {address}: no address"))
}

fn node_settings(settings: &Settings) -> NodeSettings {
    let mut node = NodeSettings::new(&settings.data);
    node.wal_dir.clone_from(&settings.wal_dir);
    node.memory_bytes = settings.memory_bytes;
    node.max_value_bytes = settings.max_value_bytes;
    node.background_bytes_per_second = settings.background_bytes_per_second;
    node.durability = settings.durability;
    node.entity_namespace.clone_from(&settings.entity_namespace);
    node.keep_whole_wal = settings.keep_whole_wal;
    node
}

fn explain_bind(error: &BindError) -> String {
    let address = error.address;
    if error.source.kind() != std::io::ErrorKind::AddrInUse {
        return format!("cannot listen on {address}: {}", error.source);
    }
    let holder = if error.setting == "http" { String::new() } else { probe::describe(address) };
    let flag = format!("--{}", error.setting.replace('_', "-"));
    let free = probe::free_neighbour(address);
    format!("cannot listen on {address}: in use{holder}. Start with: kvorum {flag} {free}")
}

/// Ctrl-C stops all of them, twice at once.
pub(crate) fn stop_on_signals(running: Vec<ShutdownHandle>) -> Result<(), String> {
    on_signals(move || running.iter().for_each(ShutdownHandle::shutdown))
}

/// Ctrl-C does this, twice ends the program at once.
pub(crate) fn on_signals(act: impl Fn() + Send + 'static) -> Result<(), String> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).map_err(|error| format!("cannot listen for signals: {error}"))?;
    let watch = move || {
        for (earlier, _) in signals.forever().enumerate() {
            if earlier > 0 {
                std::process::exit(EXIT_INTERRUPTED);
            }
            act();
        }
    };
    let spawned = std::thread::Builder::new().name(String::from("signals")).spawn(watch);
    spawned.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}

/// A node that was removed from its cluster ends, as by Ctrl-C: nobody takes anything of it any more. It says so in its log.
pub(crate) fn stop_when_removed(node: &Node, running: ShutdownHandle) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| format!("cannot watch the cluster: {error}"))?;
    let node = node.clone();
    let watch = move || {
        runtime.block_on(node.removed());
        running.shutdown();
    };
    let spawned = std::thread::Builder::new().name(String::from("removed")).spawn(watch);
    spawned.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}

fn say_ready(
    settings: &Settings,
    bound: &Bound,
    cluster: Option<&ClusterSettings>,
    began: Instant,
) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let resp = bound.resp_address();
    writeln!(out, "kvorum {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "resp {resp}   try: redis-cli -h {} -p {}", resp.ip(), resp.port())?;
    if let Some(cluster) = bound.resp_cluster_address() {
        writeln!(
            out,
            "resp-cluster {cluster}   try: redis-cli -c -h {} -p {}",
            cluster.ip(),
            cluster.port()
        )?;
    }
    if let Some(http) = bound.http_address() {
        writeln!(out, "http {http}   try: curl http://{http}/healthz")?;
    }
    if let Some(cluster) = cluster {
        let (peer, name) = (cluster.listener.address(), &cluster.name);
        let how = match &cluster.bootstrap {
            Bootstrap::Alone => "of a cluster that others may join".to_owned(),
            Bootstrap::Peers(peers) => format!("of {} nodes", peers.len()),
            Bootstrap::Join(address) => format!("of the cluster of {address}"),
        };
        writeln!(out, "peer {peer}   node {name} {how}")?;
        if cluster.secret.is_none() && cluster.tls.is_none() {
            writeln!(
                out,
                "WARNING: no cluster secret: whoever reaches {peer} can read and change everything (--cluster-secret-file FILE)"
            )?;
        }
    }
    writeln!(out, "data {} (memory {})", settings.data.display(), show_bytes(settings.memory_bytes))?;
    writeln!(out, "ready in {} ms", began.elapsed().as_millis())?;
    let durability = match settings.durability {
        Durability::Synced => "synced: survives power loss; --durability written ≈ Redis everysec, faster",
        Durability::Written => {
            "written: survives a killed process, power loss may take the last second; --durability synced loses nothing"
        }
        Durability::Buffered => {
            "buffered: a killed process loses what it had; --durability synced loses nothing"
        }
    };
    writeln!(out, "durability {durability}")?;
    writeln!(out, "stop with Ctrl-C")?;
    out.flush()
}
