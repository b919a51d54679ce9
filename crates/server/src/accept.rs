//! Listening, handing connections over to the network threads, and ending.

use crate::network::{self, Arrival, Door};
use crate::settings::ServerSettings;
use crate::shared::{Shared, ShutdownHandle};
use crate::time;
use kvorum_cluster::Node;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often idle connections are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Pause after the system refused to give a connection (usually: no file descriptors), so that the loop does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(20);

/// A listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// The setting that asked for it: `resp`, `resp_cluster` or `http`.
    pub setting: &'static str,
    /// Why.
    pub source: io::Error,
}

/// The server could not serve: the system refused a thread, an event queue or a listener's registration.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve: {0}")]
pub struct ServeError(#[from] io::Error);

/// The server before it listens.
pub struct Server;

impl Server {
    /// Binds all listeners; writes nothing anywhere.
    pub fn bind(settings: &ServerSettings) -> Result<Bound, BindError> {
        let listen = |address, setting| {
            let bound = TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok((listener.local_addr()?, listener))
            });
            bound.map_err(|source| BindError { address, setting, source })
        };
        let (resp_address, resp) = listen(settings.resp, "resp")?;
        let cluster = settings.resp_cluster.map(|address| listen(address, "resp_cluster")).transpose()?;
        let http = settings.http.map(|address| listen(address, "http")).transpose()?;
        let mut settings = settings.clone();
        settings.resp = resp_address;
        settings.http = http.as_ref().map(|(address, _)| *address);
        settings.resp_cluster = cluster.as_ref().map(|(address, _)| *address);
        let of = |bound: Option<(SocketAddr, TcpListener)>| bound.map(|(_, listener)| listener);
        let listeners = [Some(resp), of(cluster), of(http)];
        Ok(Bound { settings, listeners, shutdown: ShutdownHandle::new() })
    }
}

/// A server that listens, but does not serve yet: clients wait in the listeners' queues.
pub struct Bound {
    settings: ServerSettings,
    /// Of the Redis protocol, of it for cluster clients, of HTTP.
    listeners: [Option<TcpListener>; 3],
    shutdown: ShutdownHandle,
}

impl Bound {
    /// The address of the Redis protocol, as it was really bound.
    pub fn resp_address(&self) -> SocketAddr {
        self.settings.resp
    }

    /// The address of the Redis protocol for cluster clients, as it was really bound.
    pub fn resp_cluster_address(&self) -> Option<SocketAddr> {
        self.settings.resp_cluster
    }

    /// The address of HTTP, as it was really bound.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.settings.http
    }

    /// Stops [`run`](Bound::run) from another thread.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        self.shutdown.clone()
    }

    /// Serves `node` until `SHUTDOWN` or the handle stops it; then what has been read is answered and the connections are closed. Blocks. The
    /// node stays open.
    pub fn run(self, node: Node) -> Result<(), ServeError> {
        let threads = self.settings.threads.max(1);
        let shared = Arc::new(Shared::new(node, self.settings, self.shutdown));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut workers = Vec::with_capacity(threads);
        let mut doors = Vec::with_capacity(threads);
        for number in 0..threads {
            let (worker, sender) = network::start(number, Arc::clone(&shared))?;
            workers.push(worker);
            doors.push(sender);
        }
        let accepting = runtime.block_on(accept_all(&shared, self.listeners, doors));
        for worker in workers {
            if worker.join().is_err() {
                return Err(ServeError(io::Error::other("a network thread panicked")));
            }
        }
        Ok(accepting?)
    }
}

/// Takes connections in until the server stops. Dropping `threads` tells the network threads to end.
async fn accept_all(
    shared: &Arc<Shared>,
    listeners: [Option<TcpListener>; 3],
    threads: Vec<mpsc::Sender<Arrival>>,
) -> io::Result<()> {
    let [resp, cluster, http] =
        listeners.map(|listener| listener.map(tokio::net::TcpListener::from_std).transpose());
    let (resp, cluster, http) = (resp?, cluster?, http?);
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    let mut next = 0;
    loop {
        let (accepted, door) = tokio::select! {
            accepted = accept_some(resp.as_ref()) => (accepted, Door::Resp),
            accepted = accept_some(cluster.as_ref()) => (accepted, Door::RespCluster),
            accepted = accept_some(http.as_ref()) => (accepted, Door::Http),
            _ = sweep.tick() => {
                let seconds = shared.settings().timeout_seconds;
                if seconds > 0 {
                    shared.clients.close_idle(Duration::from_secs(seconds), time::now());
                }
                continue;
            }
            () = shared.shutdown.stopping() => return Ok(()),
        };
        match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, peer)) => {
                let Some(stream) = admit(shared, stream, peer, door) else { continue };
                // The next thread in turn: connections that arrive together do the same work.
                next = (next + 1) % threads.len();
                let Some(thread) = threads.get(next) else { continue };
                if thread.send(Arrival { stream, peer, door }).await.is_err() {
                    return Err(io::Error::other("a network thread has ended"));
                }
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn accept_some(
    listener: Option<&tokio::net::TcpListener>,
) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// What a client of another machine is told in protected mode.
const DENIED: &str = "DENIED Kvorum is running in protected mode because no password is set and this client comes from another machine. \
     Set a password (--requirepass SECRET, or CONFIG SET requirepass SECRET from this machine), or start it with --protected-mode no if \
     everybody who can reach it may use it.";

/// Refuses a connection over a limit or in protected mode, with a reason.
fn admit(shared: &Shared, stream: TcpStream, peer: SocketAddr, door: Door) -> Option<TcpStream> {
    let settings = shared.settings();
    let foreign = !peer.ip().to_canonical().is_loopback();
    let reason = if settings.protected_mode && settings.requirepass.is_none() && foreign {
        DENIED
    } else if !shared.clients.take_place(settings.max_clients) {
        crate::counters::add(&shared.counters.refused, 1);
        "ERR max number of clients reached"
    } else {
        crate::counters::add(&shared.counters.connections, 1);
        return Some(stream);
    };
    let text = match door {
        Door::Resp | Door::RespCluster => format!("-{reason}\r\n"),
        Door::Http => {
            let status = if reason == DENIED { "403 Forbidden" } else { "503 Service Unavailable" };
            format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n{reason}\n",
                reason.len() + 1
            )
        }
    };
    // A short text into an empty socket buffer; who does not take it is closed all the same.
    let _ = io::Write::write(&mut &stream, text.as_bytes());
    None
}
