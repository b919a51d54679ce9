//! A node: opening, closing, and what all of it shares.

use crate::backup::{self, Saves};
use crate::clock::{HybridClock, Time};
use crate::cursor::Cursors;
use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::latch::{Shard, ShardId};
use crate::namespace::NamespaceId;
use crate::namespaces::{Namespaces, Table};
use crate::prefetch::{Fetched, Prefetch};
use crate::route::has_scan;
use crate::runtime::{Cluster, ClusterStatus};
use crate::session::{Outcome, Progress, Request, Session, Transaction, Watched};
use crate::settings::{Durability, NodeSettings};
use crate::stats::NodeStats;
use crate::system::System;
use crate::{control, execute, stats, transaction, upkeep};
use kvorum_engine::fs::Fs;
use kvorum_engine::{Batch, Clock, Parts, Sequence, Settings, Store, Tree, WalRetention};
use kvorum_model::Reply;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long a write waits for room in the write buffers before it is refused with [`Error::Busy`].
pub(crate) const ROOM_WAIT_MAX: Duration = Duration::from_secs(10);

/// A node: a cluster of one. Cheap to clone; all clones are the same node. It ends by [`Node::shutdown`], or when the last clone is dropped.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones of a node share.
pub(crate) struct Inner {
    pub(crate) settings: NodeSettings,
    pub(crate) store: Store,
    pub(crate) system: Arc<System>,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) store_id: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) time: Time,
    pub(crate) hybrid: HybridClock,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) opened_at: Duration,
    pub(crate) namespaces: Arc<Table>,
    /// Held while a namespace is made, changed or dropped, and while its trees are made.
    pub(crate) changing_namespaces: Mutex<()>,
    pub(crate) cursors: Mutex<Cursors>,
    pub(crate) limits: Limits,
    durability: AtomicU8,
    background_threads: bool,
    pub(crate) upkeep: upkeep::Worker,
    pub(crate) saves: Arc<Saves>,
    /// Empty in a node alone.
    pub(crate) cluster: OnceLock<Arc<Cluster>>,
}

/// Sizes in bytes beyond which the store takes nothing.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) value_bytes_max: u64,
    /// Of one command or transaction, with what the store adds to each of its writes.
    pub(crate) batch_bytes_max: u64,
}

/// What stands in place of machine and chance, for simulations and tests.
pub struct NodeParts {
    /// File system and clock of the store.
    pub storage: Parts,
    /// Where ids come from: different for every node that ever was.
    pub seed: u128,
    /// Whether the node does its upkeep on a thread of its own. Without one, [`Node::upkeep`] is to be called every second or so.
    pub background_threads: bool,
}

impl NodeParts {
    /// The machine's.
    pub fn real() -> Result<NodeParts> {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed)
            .map_err(|error| Error::Storage(format!("no random bytes from the system: {error}")))?;
        Ok(NodeParts { storage: Parts::real(), seed: u128::from_le_bytes(seed), background_threads: true })
    }
}

impl Node {
    /// Opens the store in `settings.data_dir`, made if missing, and begins a new epoch. Blocks.
    pub fn open(settings: NodeSettings) -> Result<Node> {
        Node::open_with(settings, NodeParts::real()?)
    }

    /// As [`Node::open`], with other parts than the machine's.
    pub fn open_with(settings: NodeSettings, parts: NodeParts) -> Result<Node> {
        let clock = Arc::clone(&parts.storage.clock);
        let limits = Limits::of(&settings);
        let fs = Arc::clone(&parts.storage.fs);
        backup::refuse_backup(&*fs, &settings.data_dir)?;
        let store = Store::open(&settings.data_dir, store_settings(&settings, &parts), parts.storage)?;
        let saves = Saves::open(Arc::clone(&fs), &settings.data_dir, Arc::clone(&clock))?;
        if settings.cluster.is_none() && control::has_something(&store)? {
            return Err(Error::Invalid(format!(
                "{} belongs to a cluster: start it with --peer, and as before",
                settings.data_dir.display()
            )));
        }
        let (system, mut found) = System::open(&store)?;
        let store_id = found.store_id.unwrap_or(parts.seed.to_le_bytes());
        let epoch = system.begin(&store, &mut found, store_id, &settings.entity_namespace)?;
        let inner = Arc::new(Inner {
            time: Time::new(Arc::clone(&clock), found.time_ms),
            // Slot 0: a node alone. Slots are given out by the control plane.
            hybrid: HybridClock::new(0, found.stamp_bound),
            opened_at: clock.monotonic(),
            clock,
            namespaces: Arc::new(Table::open(&store, &found.namespaces, epoch)?),
            changing_namespaces: Mutex::new(()),
            cursors: Mutex::new(Cursors::new(parts.seed as u64 ^ epoch)),
            durability: AtomicU8::new(settings.durability as u8),
            background_threads: parts.background_threads,
            upkeep: upkeep::Worker::default(),
            saves: Arc::new(saves),
            cluster: OnceLock::new(),
            settings,
            store,
            system: Arc::new(system),
            fs,
            store_id,
            epoch,
            limits,
        });
        if let Some(cluster) = &inner.settings.cluster {
            let started = Cluster::start(&inner, cluster)?;
            let _ = inner.cluster.set(started);
        }
        if parts.background_threads {
            upkeep::start(&inner)?;
        }
        Ok(Node { inner })
    }

    /// How its cluster stands, as this node sees it; `None` for a node alone.
    pub fn cluster_status(&self) -> Option<ClusterStatus> {
        self.inner.cluster.get().map(|cluster| cluster.status())
    }

    /// Waits until its cluster stands so; at once for a node alone. It is looked at whenever the cluster's map changes.
    pub async fn cluster_until(&self, mut condition: impl FnMut(&ClusterStatus) -> bool) {
        let Some(cluster) = self.inner.cluster.get() else { return };
        let mut changes = cluster.control.changes();
        while !condition(&cluster.status()) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until it was removed from its cluster for good, or replaced by another node of its name, and knows it; answers what to tell people. From
    /// then on the others take nothing of it any more: it should be shut down, and does not start on this folder again. Never ends for a node alone.
    pub async fn removed(&self) -> String {
        match self.inner.cluster.get() {
            Some(cluster) => {
                let control = cluster.control.clone();
                control.removed().await
            }
            None => std::future::pending().await,
        }
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &NodeSettings {
        &self.inner.settings
    }

    /// The namespace called `name`.
    pub fn namespace(&self, name: &[u8]) -> Option<NamespaceId> {
        self.inner.namespaces.named(name).map(|namespace| namespace.id)
    }

    /// Its namespaces, to list, make, change and drop them.
    pub fn namespaces(&self) -> Namespaces {
        Namespaces { node: self.clone() }
    }

    /// What an acknowledged write survives, as it is set now.
    pub fn durability(&self) -> Durability {
        match self.inner.durability.load(Relaxed) {
            0 => Durability::Buffered,
            1 => Durability::Written,
            _ => Durability::Synced,
        }
    }

    /// Changes what a write must survive before it is acknowledged, for writes from now on.
    pub fn set_durability(&self, durability: Durability) {
        self.inner.durability.store(durability as u8, Relaxed);
    }

    /// Executes `requests` in order on this thread, without waiting for a disk, and adds their replies to `replies`. `MULTI`, `SELECT` and
    /// their like are not for here: only requests whose table entry runs on data or on the keyspace, or answers by itself. On a node of a
    /// cluster it executes what the node keeps alone, up to the first request that is for others, too: see [`Progress::elsewhere`].
    pub fn execute(
        &self,
        session: &mut Session,
        requests: &[Request<'_>],
        replies: &mut Vec<Reply>,
    ) -> Progress {
        let Some(hold) = self.inner.alone() else {
            // What was read for them was read for this way of executing them.
            session.resume(Fetched::default());
            return Progress { elsewhere: true, ..Progress::default() };
        };
        execute::execute(self, session, requests, replies, &hold)
    }

    /// Executes `requests` as one: all or nothing, one durable batch, nothing in between; unless a watched key has changed.
    pub fn transaction(
        &self,
        session: &mut Session,
        requests: &[Request<'_>],
        watched: &Watched,
    ) -> Transaction {
        let hold = self.inner.alone().filter(|_| !self.is_clustered() || !has_scan(requests));
        match hold {
            Some(hold) => transaction::transaction(self, session, requests, watched, &hold),
            None => {
                session.resume(Fetched::default());
                Transaction { outcome: Outcome::Elsewhere, commit: None }
            }
        }
    }

    /// Adds `keys` to `watched` with the versions they have now. If it answers a [`Prefetch`], nothing was added: run it,
    /// [`resume`](Session::resume), and call again. Fails if a key can't be read, and on a node of a cluster if the namespace is not one that
    /// it keeps alone: there [`serve_watch`](Node::serve_watch) does it.
    pub fn watch(
        &self,
        session: &mut Session,
        namespace: NamespaceId,
        keys: &[&[u8]],
        watched: &mut Watched,
    ) -> Result<Option<Prefetch>> {
        let not_alone = || Error::Invalid("groups keep this namespace".into());
        self.watch_alone(session, namespace, keys, watched).ok_or_else(not_alone)?
    }

    /// As [`Node::watch`]; `None` if this node does not keep the namespace alone.
    pub(crate) fn watch_alone(
        &self,
        session: &mut Session,
        namespace: NamespaceId,
        keys: &[&[u8]],
        watched: &mut Watched,
    ) -> Option<Result<Option<Prefetch>>> {
        let kept = self.inner.namespaces.get(namespace.id());
        let hold = self.inner.alone().filter(|hold| kept.is_none_or(|kept| hold.covers(kept)))?;
        Some(transaction::watch(self, session, namespace, keys, watched, &hold))
    }

    /// The available namespace.
    pub fn entity(&self) -> Entity {
        Entity { node: self.clone() }
    }

    /// The node's time, Unix milliseconds: never falls, and expiry is judged by it.
    pub fn now_ms(&self) -> u64 {
        self.inner.time.now()
    }

    /// Figures for `INFO` and `/metrics`.
    pub fn stats(&self) -> NodeStats {
        stats::collect(self)
    }

    /// What a running node does every second: lets compaction know what nobody needs any more, and keeps the bound on hybrid timestamps ahead.
    pub fn upkeep(&self) -> Result<()> {
        self.inner.upkeep()
    }

    /// Writes what stands in memory alone to tables. Blocks.
    pub fn flush(&self) -> Result<()> {
        Ok(self.inner.store.flush()?)
    }

    /// Ends cleanly: hands over what it leads, makes durable what was written, notes the time, closes the store; from then on writes refuse.
    /// Blocks.
    pub fn shutdown(&self) -> Result<()> {
        if let Some(cluster) = self.inner.cluster.get() {
            cluster.drain();
            cluster.stop();
        }
        self.inner.upkeep.stop();
        let inner = &*self.inner;
        let mut batch = Batch::new();
        inner.system.put_time(&mut batch, inner.time.now());
        inner.system.put_stamp_bound(&mut batch, inner.hybrid.tight_bound());
        inner.write_patiently(&batch, Durability::Synced)?.wait()?;
        Ok(inner.store.close()?)
    }

    /// One turn of the store's background work, for nodes without background threads. Answers whether there may be more to do.
    pub fn run_background(&self) -> Result<bool> {
        Ok(self.inner.store.run_background()?)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(cluster) = self.cluster.get() {
            cluster.stop();
        }
    }
}

impl Inner {
    /// A shard of any namespace that this node knows.
    pub(crate) fn shard(&self, shard: ShardId) -> Option<&Shard> {
        self.namespaces.shard(shard)
    }

    /// What a write to a namespace survives, of connections that did not choose.
    pub(crate) fn durability_of(&self, namespace: NamespaceId, node: Durability) -> Durability {
        self.namespaces.get(namespace.id()).map_or(node, |namespace| namespace.durability(None, node))
    }

    /// The shard's tree; `None` if its namespace was never written to.
    pub(crate) fn tree(&self, shard: ShardId) -> Option<&Tree> {
        self.shard(shard)?.tree.get()
    }

    /// Whether the trees of a namespace are there.
    pub(crate) fn has_trees(&self, namespace: NamespaceId) -> bool {
        self.tree(ShardId::of(namespace, namespace.shards() - 1)).is_some()
    }

    /// The trees of a namespace, in order.
    pub(crate) fn trees(&self, namespace: NamespaceId) -> impl Iterator<Item = (ShardId, &Tree)> {
        ShardId::all_of(namespace).filter_map(|id| self.tree(id).map(|tree| (id, tree)))
    }

    /// Makes sure that the store will know after a restart that something has expired. Answers the sequence that must be durable before
    /// anybody is told. Blocks.
    pub(crate) fn note_expiry(
        &self,
        expires_at: u64,
        now_ms: u64,
        durability: Durability,
    ) -> Result<Sequence> {
        if let Some(sequence) = self.time.noted_by(expires_at) {
            return Ok(sequence);
        }
        let mut batch = Batch::new();
        self.system.put_time(&mut batch, now_ms);
        let sequence = self.write_patiently(&batch, durability)?.sequence();
        self.time.note(now_ms, sequence);
        Ok(sequence)
    }

    pub(crate) fn raise_stamp_bound(&self) -> Result<()> {
        self.hybrid.raise(self.time.now(), |bound| {
            let mut batch = Batch::new();
            self.system.put_stamp_bound(&mut batch, bound);
            Ok(self.write_patiently(&batch, Durability::Synced)?.wait()?)
        })
    }

    /// Writes a batch of the node's own; waits for room if need be. Blocks.
    pub(crate) fn write_patiently(
        &self,
        batch: &Batch,
        durability: Durability,
    ) -> Result<kvorum_engine::Commit> {
        let mut waited = Duration::ZERO;
        loop {
            match self.store.write(batch, durability) {
                Err(kvorum_engine::Error::Busy { retry_after }) if waited < ROOM_WAIT_MAX => {
                    waited += retry_after;
                    self.store.held_back(waited);
                    self.wait_for_room(retry_after)?;
                }
                done => return Ok(done?),
            }
        }
    }

    /// Waits as long as a refused writer was told to; in a node without background threads, makes room. Blocks.
    pub(crate) fn wait_for_room(&self, time: Duration) -> Result<()> {
        if self.background_threads {
            let nobody_wakes = Mutex::new(());
            Condvar::new().wait_for(&mut nobody_wakes.lock(), time);
        } else {
            self.store.run_background()?;
        }
        Ok(())
    }
}

impl Limits {
    fn of(settings: &NodeSettings) -> Limits {
        let value_bytes_max = settings.max_value_bytes.unwrap_or((settings.memory_bytes / 8).min(512 << 20));
        Limits { value_bytes_max, batch_bytes_max: settings.memory_bytes / 8 }
    }
}

fn store_settings(settings: &NodeSettings, parts: &NodeParts) -> Settings {
    let mut store = Settings::default();
    store.memory_bytes = settings.memory_bytes;
    store.max_value_bytes = settings.max_value_bytes;
    store.background_bytes_per_second = settings.background_bytes_per_second;
    // Segments are reserved whole: a node with little memory should not reserve much disk.
    store.wal_segment_bytes = (settings.memory_bytes / 4).clamp(1 << 20, 64 << 20);
    store.wal_dir = settings.wal_dir.clone();
    store.wal_retention = if settings.keep_whole_wal { WalRetention::All } else { WalRetention::Freed };
    store.background_threads = parts.background_threads;
    store
}
