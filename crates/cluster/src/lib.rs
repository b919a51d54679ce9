//! A Kvorum node: routing, shard runtimes, and what joins nodes together.
//!
//! A [`Node`] alone is a cluster of one. It executes the commands of `kvorum_model` ([`Node::execute`], [`Node::transaction`]) on strong
//! namespaces and speaks for the available one ([`Node::entity`]). Nothing here waits for a disk on the caller's thread, except where it says so:
//! what needs one comes back as a [`Prefetch`], and replies that rest on undurable writes come with a [`Commit`].
#![forbid(unsafe_code)]

mod alone;
mod available;
pub mod backup;
mod clock;
mod commit;
mod consistency;
#[cfg_attr(not(test), expect(dead_code, reason = "changes of the map are asked for by routing"))]
mod control;
mod cursor;
mod entity;
mod error;
mod execute;
mod fetching;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod keys;
mod keyspace;
mod latch;
mod namespace;
mod namespaces;
mod node;
mod op_id;
mod prefetch;
mod random_key;
mod route;
mod runtime;
mod session;
mod settings;
#[doc(hidden)]
pub mod shard;
mod stats;
mod system;
#[cfg(test)]
mod testing;
mod topology;
mod transaction;
#[cfg_attr(not(test), expect(dead_code, reason = "its figures are for /metrics"))]
mod transport;
mod upkeep;
mod verify;

#[doc(hidden)]
pub use control::rehearsal;

pub use commit::Commit;
pub use consistency::{Consistency, InForce, ReadMode, durability_of_word, durability_word};
pub use entity::{Entity, Entry, Quorum, Range};
pub use error::{Error, Result};
pub use namespace::{Mode, NamespaceId, SHARDS_DEFAULT, SHARDS_MAX, STRONG_NAMESPACES};
pub use namespaces::{
    Conflicts, NAMESPACES_MAX, NamespaceChange, NamespaceInfo, NamespaceSettings, Namespaces, REPLICATION_MAX,
};
pub use node::{Node, NodeParts};
pub use prefetch::{Fetched, Prefetch};
pub use route::{Held, STALE_AGE_MAX_MS, Served};
pub use runtime::{ClusterStatus, LeavingStatus, MemberStatus, NodeStatus, Nodes, Removal, ShardStatus};
pub use session::{Outcome, Progress, Request, Session, Transaction, Watched};
pub use settings::{Bootstrap, ClusterSettings, Durability, NodeSettings, PeerListener, PeerTls};
pub use stats::{NamespaceStats, NodeStats};
pub use topology::{SlotRange, Topology, TopologyNode};
pub use verify::{Verified, VerifiedShard};
