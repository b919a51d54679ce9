//! Sessions between nodes: framed messages over TCP (TLS when configured), one control connection and some data lanes for each pair of nodes.
//!
//! What is drawn in `docs/formats/peer.md` is read and written here. Control lanes live on a thread of their own, so that neither a busy shard nor a
//! slow disk makes a node look dead.

mod backoff;
mod connect;
mod core;
mod frame;
mod handshake;
mod lane;
mod link;
mod peers;
mod stats;
mod strangers;
#[cfg(test)]
mod tests;
mod tls;
mod types;

pub(crate) use stats::TransportStats;
pub(crate) use types::{CallError, Channel, Handler, Identity, NotSent, TransportSettings};
pub(crate) use types::{Pending, Secret, TlsSettings};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use {frame::decode_all, handshake::decode_handshake};

use self::core::Core;
use crate::error::{Error, Result};
use bytes::Bytes;
use kvorum_sync::{Lane, StoreId};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// The sessions of a node with its peers. It ends with [`Transport::stop`], or when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Transport {
    core: Arc<Core>,
    threads: Arc<Threads>,
}

struct Threads {
    stop: watch::Sender<bool>,
    running: Mutex<Vec<JoinHandle<()>>>,
    core: Arc<Core>,
}

impl Transport {
    /// Listens for other nodes. Nobody is dialled before [`Transport::set_peers`].
    ///
    /// Fails with [`Error::Invalid`] for certificates that can't be used or a listener that can't be served.
    pub(crate) fn start(
        settings: TransportSettings,
        listener: TcpListener,
        identity: Identity,
        handler: Arc<dyn Handler>,
    ) -> Result<Transport> {
        let tls = settings.tls.as_ref().map(tls::Tls::load).transpose().map_err(Error::Invalid)?;
        if settings.secret.is_none() && tls.is_none() {
            tracing::warn!(
                "ANYONE who reaches the peer port can read and change everything: there is no cluster secret. \
                 Give all nodes the same --cluster-secret-file"
            );
        }
        let io = |error: io::Error| Error::Invalid(format!("the peer port can't be served: {error}"));
        listener.set_nonblocking(true).map_err(io)?;
        let (control, data) = (runtime().map_err(io)?, runtime().map_err(io)?);
        let handles = [control.handle().clone(), data.handle().clone()];
        let core = Core::new(settings, tls, identity, handler, handles);
        let listener = {
            let _on = control.enter();
            tokio::net::TcpListener::from_std(listener).map_err(io)?
        };
        control.spawn(Arc::clone(&core).watch());
        control.spawn(Arc::clone(&core).listen(listener));
        let threads =
            Threads { stop: watch::Sender::new(false), running: Mutex::default(), core: Arc::clone(&core) };
        for (name, runtime) in [("peer-control", control), ("peer-data", data)] {
            let mut stop = threads.stop.subscribe();
            let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
                let _ = runtime.block_on(stop.wait_for(|stop| *stop));
                runtime.shutdown_background();
            });
            threads.running.lock().push(thread.map_err(io)?);
        }
        Ok(Transport { core, threads: Arc::new(threads) })
    }

    /// What this node says of itself from now on; its peers are told. Its store stays the same.
    pub(crate) fn set_identity(&self, identity: Identity) {
        self.core.set_identity(identity);
    }

    /// Keeps one session with each of these nodes (host:port), and ends those with others that were named here before.
    pub(crate) fn set_peers(&self, peers: &[(StoreId, String)]) {
        let core = &self.core;
        let me = core.me();
        let others: Vec<_> = peers.iter().filter(|(store, _)| *store != me).cloned().collect();
        core.peers.set(&others, |peer| core.control.spawn(Arc::clone(core).keep(peer)).abort_handle());
    }

    /// Takes no session with these stores any more: they have left the cluster for good.
    pub(crate) fn set_left(&self, stores: BTreeSet<StoreId>) {
        self.core.peers.set_left(stores);
    }

    /// Sends a message, if there is a connection and room; never waits. What was taken may still be lost with the connection: then
    /// [`Handler::reachable`] is told.
    pub(crate) fn send(
        &self,
        to: StoreId,
        lane: Lane,
        channel: Channel,
        body: Bytes,
    ) -> std::result::Result<(), NotSent> {
        self.core.peers.link(to, lane)?.send(channel, body)
    }

    /// Calls a node, and waits for its answer not longer than `deadline`. To be awaited where tokio has timers.
    pub(crate) fn call(
        &self,
        to: StoreId,
        lane: Lane,
        channel: Channel,
        body: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = std::result::Result<Bytes, CallError>> + Send + use<> {
        let call = self.core.peers.link(to, lane).and_then(|link| link.call(channel, body));
        async move { call?.wait(deadline).await }
    }

    /// Calls whoever is at an address, over a connection of its own; answers who that was, too.
    pub(crate) fn ask(
        &self,
        address: &str,
        channel: Channel,
        body: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = std::result::Result<(Identity, Bytes), CallError>> + Send + use<> {
        strangers::ask(Arc::clone(&self.core), address.to_owned(), channel, body, deadline)
    }

    /// Whether all lanes to a node are up.
    pub(crate) fn is_up(&self, store: StoreId) -> bool {
        self.core.peers.is_up(store)
    }

    /// What a peer says of itself, while there is a session with it.
    pub(crate) fn identity_of(&self, store: StoreId) -> Option<Identity> {
        self.core.peers.session(store).map(|session| session.identity.lock().clone())
    }

    /// What went and came.
    pub(crate) fn stats(&self) -> TransportStats {
        TransportStats { peers: self.core.peers.stats() }
    }

    /// Ends all sessions and both threads. A thread of the transport that calls it is not waited for.
    pub(crate) fn stop(&self) {
        self.threads.stop();
    }
}

impl Threads {
    fn stop(&self) {
        self.stop.send_replace(true);
        self.core.peers.close();
        let own = std::thread::current().id();
        for thread in self.running.lock().drain(..).filter(|thread| thread.thread().id() != own) {
            let _ = thread.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A runtime for one thread.
fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()
}

/// What the readers are tried with: targets of `fuzz/` and bytes for each.
#[cfg(test)]
pub(crate) fn corpus() -> [(&'static str, Vec<u8>); 2] {
    [("frame", frame::one_of_each().to_vec()), ("handshake", handshake::tests::all_records())]
}
