//! The open connections of the Redis protocol: what `CLIENT LIST` tells, and what the idle timeout looks at.

use crate::network::Door;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// One connection.
pub(crate) struct Client {
    pub(crate) id: u64,
    /// Which listener it came through.
    pub(crate) door: Door,
    address: SocketAddr,
    local_address: SocketAddr,
    opened: Instant,
    /// Milliseconds after `opened` at which it last sent something.
    active_ms: AtomicU64,
    /// Whether it is being served at this moment.
    busy: AtomicBool,
    pub(crate) facts: Mutex<Facts>,
    task: Mutex<Option<AbortHandle>>,
}

/// What a connection says about itself, and what it did last.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) name: Bytes,
    pub(crate) library: Bytes,
    pub(crate) library_version: Bytes,
    pub(crate) database: Option<u16>,
    pub(crate) protocol: u8,
    /// Commands queued by `MULTI`; `None` outside.
    pub(crate) queued: Option<usize>,
    pub(crate) last_command: &'static str,
}

impl Client {
    /// Notes that it has sent something and is being served.
    pub(crate) fn begin(&self, now: Instant) {
        let ms = u64::try_from(now.duration_since(self.opened).as_millis()).unwrap_or(u64::MAX);
        self.active_ms.store(ms, Relaxed);
        self.busy.store(true, Relaxed);
    }

    /// Notes that it has been served.
    pub(crate) fn end(&self) {
        self.busy.store(false, Relaxed);
    }

    fn idle(&self, now: Instant) -> Duration {
        now.duration_since(self.opened).saturating_sub(Duration::from_millis(self.active_ms.load(Relaxed)))
    }

    /// Its line in `CLIENT LIST`, without a line end.
    pub(crate) fn line(&self, now: Instant) -> String {
        let facts = self.facts.lock().clone();
        let mut line = format!(
            "id={} addr={} laddr={} name={}",
            self.id,
            self.address,
            self.local_address,
            String::from_utf8_lossy(&facts.name)
        );
        let flags = if facts.queued.is_some() { "x" } else { "N" };
        let queued = facts.queued.map_or(-1, |count| i64::try_from(count).unwrap_or(i64::MAX));
        // Writing to a String can't fail.
        let _ = write!(
            line,
            " age={} idle={} flags={flags} db={} sub=0 psub=0 ssub=0 multi={queued} cmd={} user=default resp={} lib-name={} lib-ver={}",
            now.duration_since(self.opened).as_secs(),
            self.idle(now).as_secs(),
            facts.database.map_or(-1, i32::from),
            facts.last_command,
            facts.protocol,
            String::from_utf8_lossy(&facts.library),
            String::from_utf8_lossy(&facts.library_version),
        );
        line
    }
}

/// All of them.
#[derive(Default)]
pub(crate) struct Clients {
    next_id: AtomicU64,
    /// Connections of both doors.
    connections: AtomicUsize,
    open: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Clients {
    /// Counts a connection of either door, unless there are `max` already.
    pub(crate) fn take_place(&self, max: usize) -> bool {
        self.connections.fetch_update(Relaxed, Relaxed, |count| (count < max).then_some(count + 1)).is_ok()
    }

    /// Ends what [`take_place`](Clients::take_place) began.
    pub(crate) fn leave_place(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// Connections of both doors.
    pub(crate) fn count(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Enters a connection of the Redis protocol.
    pub(crate) fn open(&self, address: SocketAddr, local_address: SocketAddr, door: Door) -> Arc<Client> {
        let client = Arc::new(Client {
            id: self.next_id.fetch_add(1, Relaxed) + 1,
            door,
            address,
            local_address,
            opened: crate::time::now(),
            active_ms: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            facts: Mutex::new(Facts {
                name: Bytes::new(),
                library: Bytes::new(),
                library_version: Bytes::new(),
                database: Some(0),
                protocol: 2,
                queued: None,
                last_command: "NULL",
            }),
            task: Mutex::new(None),
        });
        self.open.lock().insert(client.id, Arc::clone(&client));
        client
    }

    /// Tells which task serves it, so that it can be ended from outside.
    pub(crate) fn set_task(client: &Client, task: AbortHandle) {
        *client.task.lock() = Some(task);
    }

    /// Takes a closed connection out.
    pub(crate) fn close(&self, client: &Client) {
        self.open.lock().remove(&client.id);
    }

    /// Those that are open, by age.
    pub(crate) fn list(&self) -> Vec<Arc<Client>> {
        self.open.lock().values().cloned().collect()
    }

    /// Closes those that have been idle for longer than `limit`.
    pub(crate) fn close_idle(&self, limit: Duration, now: Instant) {
        for client in self.list() {
            let idle = !client.busy.load(Relaxed) && client.idle(now) > limit;
            if let Some(task) = idle.then(|| client.task.lock().take()).flatten() {
                task.abort();
            }
        }
    }
}
