//! What joins transport, control plane and the members of shards into a node of a cluster: threads, queues and clocks. It decides nothing.
//!
//! ```text
//! peer-control, peer-data   frames of other nodes         ─┐
//! net-N                     proposals of commands          ├─► a shard's member, one step under its latch ─► frames, answers, records, jobs
//! shards                    ticks, the map, peers          │
//! transfer-N                slow work that a member asked ─┤
//! log                       records that became durable   ─┘
//! ```

mod company;
mod door;
mod drain;
mod jobs;
mod links;
mod look;
mod members;
mod moments;
mod nodes;
mod pump;
mod reconcile;
mod shell;
mod start;
mod status;
#[cfg(test)]
mod tests;
mod ticks;
mod turn;
mod waits;

#[cfg(test)]
pub(crate) use links::ControlLinks;
pub(crate) use moments::now;
pub use nodes::{Nodes, Removal};
pub(crate) use start::store_id;
pub use status::{ClusterStatus, LeavingStatus, MemberStatus, NodeStatus, ShardStatus};
pub(crate) use waits::{Wait, Waits};

use crate::alone::Alone;
use crate::available::Shell;
use crate::control::Control;
use crate::latch::ShardId;
use crate::namespaces::Table;
use crate::route::Together;
use crate::shard::{Done, JobDone, MemberConfig, Rows};
use crate::transport::Transport;
use jobs::Jobs;
use kvorum_engine::Store;
use kvorum_engine::fs::Fs;
use kvorum_sync::{OpId, StoreId};
use look::Halt;
use parking_lot::Mutex;
use pump::Pump;
use shell::Reached;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use ticks::Ticks;
use tokio::sync::{Notify, watch};

/// A node's part in its cluster.
pub(crate) struct Cluster {
    pub(crate) me: StoreId,
    config: MemberConfig,
    table: Arc<Table>,
    store: Store,
    fs: Arc<dyn Fs>,
    rows: Rows,
    pub(crate) transport: Transport,
    pub(crate) control: Control,
    /// Whether it keeps all of them by itself.
    pub(crate) alone: Alone,
    /// What it wrote alone, up to which op id, by shard. Set when groups have it.
    pub(crate) handed_over: OnceLock<BTreeMap<ShardId, OpId>>,
    /// Its part in available namespaces.
    pub(crate) available: Arc<Shell>,
    /// Requests that wait for answers of members.
    pub(crate) waits: Waits<Done>,
    /// Commands that are ready to be executed here.
    pub(crate) together: Together,
    /// A member has room again, shows more, began to lead, or leads no more.
    pub(crate) moved: Notify,
    pump: Arc<Pump>,
    ticks: Ticks,
    jobs: Jobs,
    /// Jobs that found no room, to be told to their members. A few of each shard at most.
    refused: Mutex<Vec<(ShardId, Box<JobDone>)>>,
    /// Shards with a member here.
    open: Mutex<BTreeSet<ShardId>>,
    /// Those whose members stand still, because the store refused their records.
    still: Mutex<BTreeSet<ShardId>>,
    /// Shards that others keep, of which nothing is here any more.
    left: Mutex<BTreeSet<ShardId>>,
    told: Mutex<reconcile::Told>,
    following: Mutex<()>,
    halt: Mutex<Option<Halt>>,
    reached: Reached,
    reconcile: Notify,
    stopped: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}
