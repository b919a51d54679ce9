//! How a node's part in its cluster begins, and how it ends.

use super::door::Door;
use super::jobs::Jobs;
use super::links::ControlLinks;
use super::look::Halt;
use super::pump::Pumped;
use super::{Cluster, shell};
use crate::available::{HINTS_TREE, Shell};
use crate::control::{self, Control, ControlParts, NamespaceRow, NodeInfo};
use crate::error::{Error, Result};
use crate::keys::SYSTEM_TREE;
use crate::node::Inner;
use crate::settings::{Bootstrap, ClusterSettings, PeerTls};
use crate::shard::{MemberConfig, MemberInput, Rows};
use crate::transport::{Identity, Secret, TlsSettings, Transport, TransportSettings};
use kvorum_sync::{Epoch, StoreId};
use parking_lot::Mutex;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Threads for the slow work of members.
const JOB_THREADS: usize = 2;

/// The store's id as the protocols have it.
pub(crate) fn store_id(id: [u8; 16]) -> StoreId {
    let (first, _) = id.split_first_chunk().unwrap_or((&[0; 8], &[]));
    StoreId(u64::from_le_bytes(*first))
}

impl Cluster {
    /// Begins to listen, to speak, and to do what the map says. Does not wait for there to be a map.
    pub(crate) fn start(inner: &Arc<Inner>, settings: &ClusterSettings) -> Result<Arc<Cluster>> {
        refuse_removed(inner)?;
        let begun = control::has_something(&inner.store)?;
        let own = [SYSTEM_TREE, control::TREE, HINTS_TREE];
        let has_data = inner.store.tree_names().iter().any(|name| !own.contains(&&**name));
        if !begun && has_data && settings.bootstrap != Bootstrap::Alone {
            return Err(Error::Invalid(format!(
                "{} has data, which can't be brought into a cluster of others: start it alone with --peer and let them join, or begin with an empty folder",
                inner.settings.data_dir.display()
            )));
        }
        let me = store_id(inner.store_id);
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| failed("no random bytes", &io::Error::other(error)))?;
        let boot = u128::from_le_bytes(random) as u64;
        let door = Arc::new(Door::default());
        let identity = Identity {
            store: me,
            name: settings.name.clone(),
            cluster: None,
            empty: !begun && !has_data,
            map_version: 0,
        };
        let transport = TransportSettings {
            secret: settings.secret.as_deref().and_then(Secret::of),
            tls: settings.tls.as_ref().map(tls),
            seed: (u128::from_le_bytes(random) >> 64) as u64,
            ..TransportSettings::default()
        };
        let socket = settings.listener.socket().map_err(|error| failed("the listener for peers", &error))?;
        let transport = Transport::start(transport, socket, identity.clone(), Arc::clone(&door) as _)?;
        let stopped = watch::Sender::new(false);
        let links = ControlLinks::new(transport.clone(), identity);
        let parts = control_parts(inner, settings, links, boot);
        let (control, control_thread) = start_control(parts, stopped.subscribe())?;
        let available = Shell::open(inner, me, control.clone(), transport.clone())?;
        let cluster = Arc::new(Cluster {
            me,
            alone: Default::default(),
            handed_over: Default::default(),
            available,
            config: MemberConfig::for_memory(inner.settings.memory_bytes),
            table: Arc::clone(&inner.namespaces),
            store: inner.store.clone(),
            fs: Arc::clone(&inner.fs),
            rows: Rows::of(&inner.system),
            transport,
            control,
            waits: Default::default(),
            together: Default::default(),
            moved: Default::default(),
            pump: Default::default(),
            ticks: Default::default(),
            jobs: Jobs::start(JOB_THREADS).map_err(|error| failed("threads", &error))?,
            refused: Mutex::default(),
            open: Mutex::default(),
            still: Mutex::default(),
            left: Mutex::default(),
            told: Mutex::default(),
            following: Mutex::default(),
            halt: Mutex::default(),
            reached: Default::default(),
            reconcile: Default::default(),
            stopped,
            threads: Mutex::new(vec![control_thread]),
        });
        door.open(&cluster, inner);
        cluster.start_threads(inner)?;
        Ok(cluster)
    }

    fn start_threads(self: &Arc<Self>, inner: &Arc<Inner>) -> Result<()> {
        let cluster = Arc::clone(self);
        let pump = move || {
            let store = cluster.store.clone();
            cluster.pump.run(&store, &mut |pumped| cluster.pumped(&pumped));
        };
        let runtime = own_runtime()?;
        let (cluster, node) = (Arc::clone(self), Arc::downgrade(inner));
        let shell = move || runtime.block_on(shell::run(cluster, node));
        let runtime = own_runtime()?;
        let (available, mut stopped) = (Arc::clone(&self.available), self.stopped.subscribe());
        let (handle, settling, store) =
            (runtime.handle().clone(), Arc::clone(&self.available), self.store.clone());
        let settle = move || {
            let _tasks = handle.enter();
            settling.settle(&store);
        };
        // Apart from the shards: comparing replicas reads much.
        let mend = move || {
            runtime.block_on(async move {
                tokio::select! {
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                    () = Arc::clone(&available).mend() => {}
                    () = Arc::clone(&available).watch_times() => {}
                    () = Arc::clone(&available).stay_in_touch() => {}
                }
            });
        };
        let threads = [
            spawn("log", pump)?,
            spawn("shards", shell)?,
            spawn("mending", mend)?,
            spawn("entities", settle)?,
        ];
        self.threads.lock().extend(threads);
        Ok(())
    }

    pub(super) fn pumped(self: &Arc<Self>, pumped: &Pumped<'_>) {
        match pumped {
            Pumped::Durable(shards, synced) => {
                self.in_turn(|| {
                    shards.iter().for_each(|shard| self.step(*shard, MemberInput::Durable(*synced)));
                });
            }
            Pumped::Failed(kvorum_engine::Error::Closed) => self.pump.stop(),
            Pumped::Failed(error) => self.set_halt(Some(Halt::Poisoned(error.to_string()))),
        }
    }

    /// Ends all threads and connections, without handing anything over: see [`Cluster::drain`]. Waits for their end, unless it is one of them
    /// that ends them: the last handle of the node may have been its own.
    pub(crate) fn stop(&self) {
        if self.stopped.send_replace(true) {
            return;
        }
        self.transport.stop();
        self.pump.stop();
        self.available.stop();
        self.jobs.stop();
        let threads = std::mem::take(&mut *self.threads.lock());
        if !OURS.get() {
            for thread in threads {
                let _ = thread.join();
            }
        }
    }
}

thread_local! {
    /// Whether this thread is one of the shell's.
    pub(super) static OURS: Cell<bool> = const { Cell::new(false) };
}

/// A store that has left its cluster for good is over.
fn refuse_removed(inner: &Inner) -> Result<()> {
    let removed =
        control::was_removed(&inner.store).map_err(|error| failed("what it belonged to", &error))?;
    let folder = inner.settings.data_dir.display();
    removed.map_or(Ok(()), |why| Err(Error::Invalid(format!("{folder}: {why}"))))
}

fn tls(files: &PeerTls) -> TlsSettings {
    let PeerTls { certificate_file, key_file, authority_file } = files.clone();
    TlsSettings { certificate_file, key_file, authority_file }
}

fn control_parts(inner: &Inner, settings: &ClusterSettings, links: ControlLinks, boot: u64) -> ControlParts {
    let info = NodeInfo {
        name: settings.name.clone(),
        peer: settings.advertise.clone().unwrap_or_else(|| settings.listener.address().to_string()),
        resp: settings.resp.clone(),
        resp_cluster: settings.resp_cluster.clone(),
        http: settings.http.clone(),
        epoch: u32::try_from(inner.epoch).ok().and_then(Epoch::new).unwrap_or_default(),
    };
    let namespaces = inner.namespaces.all().map(|namespace| {
        let row = NamespaceRow {
            name: namespace.name(),
            settings: namespace.settings(),
            active: namespace.id.id() == 0 || inner.has_trees(namespace.id),
            dropped: false,
        };
        (namespace.id.id(), row)
    });
    ControlParts {
        store: inner.store.clone(),
        links: Arc::new(links),
        clock: Arc::clone(&inner.clock),
        me: store_id(inner.store_id),
        boot,
        info,
        bootstrap: match &settings.bootstrap {
            Bootstrap::Alone => control::Bootstrap::Alone,
            Bootstrap::Peers(peers) => control::Bootstrap::Peers(peers.clone()),
            Bootstrap::Join(address) => control::Bootstrap::Join(address.clone()),
        },
        namespaces: namespaces.collect::<BTreeMap<_, _>>(),
    }
}

/// Starts the control plane on a thread of its own, so that neither a busy shard nor a slow disk looks like a dead node.
fn start_control(
    parts: ControlParts,
    mut stopped: watch::Receiver<bool>,
) -> Result<(Control, JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed("a runtime", &error))?;
    let (sender, started) = mpsc::channel();
    let run = move || {
        runtime.block_on(async move {
            let control = match Control::start(parts).await {
                Ok(control) => control,
                Err(error) => {
                    let _ = sender.send(Err(error));
                    return;
                }
            };
            let _ = sender.send(Ok(control.clone()));
            let _ = stopped.wait_for(|stopped| *stopped).await;
            control.shutdown().await;
        });
    };
    let thread = spawn("control", run)?;
    let control = started.recv().unwrap_or_else(|_| Err(io::Error::other("its thread ended")));
    Ok((control.map_err(|error| failed("the control plane", &error))?, thread))
}

/// A runtime for one of the shell's threads. Whoever lets go of the node last, on a thread for what blocks, does not wait for that thread's end: it
/// waits for him.
fn own_runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(1).on_thread_start(|| OURS.set(true));
    builder.build().map_err(|error| failed("a runtime", &error))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let run = move || {
        OURS.set(true);
        run();
    };
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|error| failed("a thread", &error))
}

fn failed(what: &str, error: &io::Error) -> Error {
    Error::Storage(format!("the node can't be one of a cluster: {what}: {error}"))
}
