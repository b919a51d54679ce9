//! A network thread: a current-thread runtime with its share of the connections.

use crate::clients::Clients;
use crate::shared::Shared;
use crate::{http, resp};
use parking_lot::Mutex;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Connections on their way from the acceptor to a thread.
const ARRIVALS_MAX: usize = 1024;

/// Threads of each network thread's pool for reads that need the disk.
const COLD_READERS_MAX: usize = 8;

/// Time for connections that are being served when the server ends.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Bytes of an input buffer, as it is kept for reuse.
pub(crate) const INPUT_BYTES: usize = 64 * 1024;

/// Larger output buffers are not kept for reuse.
const KEPT_OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Buffers of each kind that a thread keeps for reuse.
const KEPT_BUFFERS_MAX: usize = 64;

/// Which listener a connection came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Resp,
    /// The Redis protocol for cluster clients.
    RespCluster,
    Http,
}

/// A connection that a thread shall serve.
pub(crate) struct Arrival {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) door: Door,
}

/// What the connections of one thread share. Only they use it, so its locks are never waited for.
#[derive(Default)]
pub(crate) struct Local {
    busy: AtomicUsize,
    quiet: Notify,
    inputs: Mutex<Vec<Vec<u8>>>,
    outputs: Mutex<Vec<Vec<u8>>>,
}

/// A connection's right to finish what it has begun when the server ends.
pub(crate) struct Busy<'l>(&'l Local);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Relaxed) == 1 {
            self.0.quiet.notify_waiters();
        }
    }
}

impl Local {
    /// Marks a connection as being served.
    pub(crate) fn begin(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Relaxed);
        Busy(self)
    }

    /// An input buffer: [`INPUT_BYTES`] of whatever content.
    pub(crate) fn input(&self) -> Vec<u8> {
        self.inputs.lock().pop().unwrap_or_else(|| vec![0; INPUT_BYTES])
    }

    /// Takes an input buffer back.
    pub(crate) fn return_input(&self, buffer: Vec<u8>) {
        let mut kept = self.inputs.lock();
        if buffer.len() == INPUT_BYTES && kept.len() < KEPT_BUFFERS_MAX {
            kept.push(buffer);
        }
    }

    /// An empty output buffer.
    pub(crate) fn output(&self) -> Vec<u8> {
        self.outputs.lock().pop().unwrap_or_default()
    }

    /// Takes an output buffer back.
    pub(crate) fn return_output(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.outputs.lock();
        if (1..=KEPT_OUTPUT_BYTES_MAX).contains(&buffer.capacity()) && kept.len() < KEPT_BUFFERS_MAX {
            kept.push(buffer);
        }
    }

    async fn until_quiet(&self) {
        loop {
            let quiet = self.quiet.notified();
            if self.busy.load(Relaxed) == 0 {
                return;
            }
            quiet.await;
        }
    }
}

/// Starts a thread; it ends when the sender is dropped and its connections have finished.
pub(crate) fn start(
    number: usize,
    shared: Arc<Shared>,
) -> io::Result<(JoinHandle<()>, mpsc::Sender<Arrival>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(COLD_READERS_MAX)
        .thread_name(format!("cold-{number}"))
        .build()?;
    let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
    let run = move || runtime.block_on(serve(shared, arrivals));
    let thread = std::thread::Builder::new().name(format!("net-{number}")).spawn(run)?;
    Ok((thread, sender))
}

async fn serve(shared: Arc<Shared>, mut arrivals: mpsc::Receiver<Arrival>) {
    let local = Arc::new(Local::default());
    while let Some(arrival) = arrivals.recv().await {
        if let Err(error) = take(&shared, &local, arrival) {
            shared.clients.leave_place();
            tracing::debug!("a connection was lost before it was served: {error}");
        }
    }
    if tokio::time::timeout(FINISH_WITHIN, local.until_quiet()).await.is_err() {
        tracing::warn!("closed connections that were not done after {} s", FINISH_WITHIN.as_secs());
    }
}

fn take(shared: &Arc<Shared>, local: &Arc<Local>, arrival: Arrival) -> io::Result<()> {
    arrival.stream.set_nodelay(true)?;
    let local_address = arrival.stream.local_addr()?;
    let stream = tokio::net::TcpStream::from_std(arrival.stream)?;
    let (shared, local) = (Arc::clone(shared), Arc::clone(local));
    let place = Place(Arc::clone(&shared));
    match arrival.door {
        door @ (Door::Resp | Door::RespCluster) => {
            let client = shared.clients.open(arrival.peer, local_address, door);
            let known = Arc::clone(&client);
            let task = tokio::spawn(async move {
                let _place = place;
                let _listed = Listed(&shared, &client);
                resp::serve(stream, Arc::clone(&shared), local, Arc::clone(&client)).await;
            });
            Clients::set_task(&known, task.abort_handle());
        }
        Door::Http => {
            tokio::spawn(async move {
                let _place = place;
                http::serve(stream, shared, local).await;
            });
        }
    }
    Ok(())
}

/// A connection's place among those that are allowed; given back however its task ends.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.clients.leave_place();
    }
}

/// A client's entry in the list; taken out however its task ends.
struct Listed<'c>(&'c Shared, &'c crate::clients::Client);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.clients.close(self.1);
    }
}
