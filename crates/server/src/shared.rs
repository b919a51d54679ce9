//! What all connections share.

use crate::clients::Clients;
use crate::counters::Counters;
use crate::settings::ServerSettings;
use kvorum_cluster::Node;
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;
use tokio::time::Instant;

/// Stops a server from any thread; clones stop the same one.
#[derive(Debug, Clone)]
pub struct ShutdownHandle {
    stopping: Arc<watch::Sender<bool>>,
}

impl ShutdownHandle {
    pub(crate) fn new() -> ShutdownHandle {
        ShutdownHandle { stopping: Arc::new(watch::Sender::new(false)) }
    }

    /// Lets the server finish what it has read, then end. At once, and any number of times.
    pub fn shutdown(&self) {
        self.stopping.send_replace(true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves when the server shall stop.
    pub async fn stopping(&self) {
        // The sender lives in `self`, so this can't fail.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }
}

/// The server as its connections see it.
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) clients: Clients,
    pub(crate) counters: Counters,
    pub(crate) shutdown: ShutdownHandle,
    pub(crate) started: Instant,
    settings: RwLock<Arc<ServerSettings>>,
    generation: AtomicU64,
}

impl Shared {
    /// `settings` hold the addresses that were really bound.
    pub(crate) fn new(node: Node, settings: ServerSettings, shutdown: ShutdownHandle) -> Shared {
        Shared {
            node,
            clients: Clients::default(),
            counters: Counters::default(),
            shutdown,
            started: crate::time::now(),
            settings: RwLock::new(Arc::new(settings)),
            generation: AtomicU64::new(0),
        }
    }

    /// The settings as they are now.
    pub(crate) fn settings(&self) -> Arc<ServerSettings> {
        Arc::clone(&self.settings.read())
    }

    /// Replaces `settings` by what the server has now, if `generation` says that they are old.
    pub(crate) fn refresh(&self, generation: &mut u64, settings: &mut Arc<ServerSettings>) {
        let now = self.generation.load(Ordering::Acquire);
        if now != *generation {
            *generation = now;
            *settings = self.settings();
        }
    }

    /// Changes settings: all that `change` does, or nothing if it fails.
    pub(crate) fn change<E>(
        &self,
        change: impl FnOnce(&mut ServerSettings) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut settings = self.settings.write();
        let mut changed = ServerSettings::clone(&settings);
        change(&mut changed)?;
        *settings = Arc::new(changed);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// `host:port` by which clients reach the door for cluster clients; empty without one.
    pub(crate) fn cluster_address(&self) -> String {
        let settings = self.settings.read();
        let Some(address) = settings.resp_cluster else { return String::new() };
        match &settings.advertise {
            Some(host) => format!("{host}:{}", address.port()),
            None => address.to_string(),
        }
    }

    /// The address that the Redis protocol is served on.
    pub(crate) fn resp_address(&self) -> SocketAddr {
        self.settings.read().resp
    }
}
