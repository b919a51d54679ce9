//! What passes between a connection and the node.

use crate::commit::Commit;
use crate::consistency::Consistency;
use crate::error::{Error, Result};
use crate::latch::ShardId;
use crate::namespace::NamespaceId;
use crate::prefetch::{Fetched, Prefetch};
use bytes::Bytes;
use kvorum_engine::Sequence;
use kvorum_model::{Args, CommandSpec, Reply};
use std::collections::BTreeMap;

/// Keys that a connection watches at most.
const WATCHED_KEYS_MAX: usize = 65_536;

/// One command to be executed.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Where it is executed.
    pub namespace: NamespaceId,
    /// The command's entry in the table.
    pub spec: &'static CommandSpec,
    /// Its name and arguments.
    pub args: Args<'a>,
}

/// What the node keeps for one connection between two calls.
#[derive(Default)]
pub struct Session {
    /// Whether commands over all keys look at the shards that this node leads alone, as cluster clients of the Redis protocol expect.
    pub own_shards: bool,
    /// What the connection asks of its reads and writes.
    pub consistency: Consistency,
    /// The id of the next request that writes: its retry under the same id, on whatever connection, is not executed again.
    pub request_id: Option<Bytes>,
    /// By how many milliseconds the last reads may have been behind, at most; zero unless they were stale.
    pub age_ms: u64,
    pub(crate) fetched: Fetched,
    /// What it wrote.
    pub(crate) written: Written,
}

/// What a connection wrote, as far as it knows the outcome: so that it can ask who has it.
#[derive(Default)]
pub(crate) struct Written {
    /// While the node kept everything alone: nothing that it wrote then stands behind this in the log.
    pub(crate) sequence: Sequence,
    /// Through members of groups: of each shard the highest op id. As many as there are shards at most.
    pub(crate) shards: BTreeMap<ShardId, u64>,
}

impl Written {
    /// Something was written to a shard; zero: nothing.
    pub(crate) fn note(&mut self, shard: ShardId, version: u64) {
        if version > 0 {
            let highest = self.shards.entry(shard).or_default();
            *highest = version.max(*highest);
        }
    }
}

impl Session {
    /// A new connection's.
    pub fn new() -> Session {
        Session::default()
    }

    /// Takes what a [`Prefetch`] has read. The blocked request is then executed again: by [`Node::execute`](crate::Node::execute) with the
    /// requests from `executed` on, by [`Node::transaction`](crate::Node::transaction) and [`Node::watch`](crate::Node::watch) with all of them.
    pub fn resume(&mut self, fetched: Fetched) {
        self.fetched = fetched;
    }
}

/// How far [`Node::execute`](crate::Node::execute) came.
#[must_use]
#[derive(Default)]
pub struct Progress {
    /// Requests that have been executed; as many replies were added.
    pub executed: usize,
    /// Set if the request after those needs the disk: [`Prefetch::run`] it on a thread that may block, give what it returns to
    /// [`Session::resume`], then execute the rest. It may block again.
    pub blocked: Option<Prefetch>,
    /// Set if the replies rest on writes that are not durable yet: they may be sent when it resolves; if it fails, its error is the reply to
    /// every one of them.
    pub commit: Option<Commit>,
    /// Set if the request after those is for others, too, or for nobody but members of groups: [`Node::serve`](crate::Node::serve) executes it.
    /// Never on a node without a cluster.
    pub elsewhere: bool,
}

/// What [`Node::transaction`](crate::Node::transaction) came to.
#[must_use]
pub struct Transaction {
    /// The outcome.
    pub outcome: Outcome,
    /// As [`Progress::commit`].
    pub commit: Option<Commit>,
}

/// The outcome of a transaction.
pub enum Outcome {
    /// Executed: a reply for each request.
    Done(Vec<Reply>),
    /// Not executed: a watched key has changed.
    Changed,
    /// Not executed yet, because it needs the disk: as [`Progress::blocked`]; then all of it is executed again.
    Blocked(Prefetch),
    /// Not executed: [`Node::serve_transaction`](crate::Node::serve_transaction) does it, as [`Progress::elsewhere`].
    Elsewhere,
    /// Surely not executed.
    Refused(Error),
}

/// The keys that a connection watches, with the versions that they had.
#[derive(Default)]
pub struct Watched {
    pub(crate) keys: Vec<(NamespaceId, Bytes, u64)>,
}

impl Watched {
    /// Nothing watched.
    pub fn new() -> Watched {
        Watched::default()
    }

    /// Refuses more keys than a connection may watch.
    pub(crate) fn check_room(&self, keys: usize) -> Result<()> {
        if self.keys.len() + keys > WATCHED_KEYS_MAX {
            return Err(Error::Invalid(format!("a connection can watch {WATCHED_KEYS_MAX} keys")));
        }
        Ok(())
    }

    /// Forgets all (`UNWATCH`, and after `EXEC` and `DISCARD`).
    pub fn clear(&mut self) {
        self.keys.clear();
    }

    /// Lets a transaction run only if the key has this version: 0 if it is absent. Of a key that is watched already the first version counts.
    pub fn expect(&mut self, namespace: NamespaceId, key: &[u8], version: u64) {
        if !self.keys.iter().any(|(of, known, _)| *of == namespace && *known == key) {
            self.keys.push((namespace, Bytes::copy_from_slice(key), version));
        }
    }

    /// Whether no key is watched.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}
