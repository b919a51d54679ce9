//! A node.

use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::namespace::{self, NamespaceId};
use crate::prefetch::Prefetch;
use crate::session::{Outcome, Progress, Request, Session, Transaction, Watched};
use crate::settings::{Durability, NodeSettings};
use crate::stats::NodeStats;
use kvorum_model::{ErrorReply, Reply};
use std::sync::Arc;

/// A node: a cluster of one. Cheap to clone; all clones are the same node.
#[derive(Clone)]
pub struct Node {
    settings: Arc<NodeSettings>,
}

impl Node {
    /// Opens the store in `settings.data_dir`, made if missing, and begins a new epoch. Blocks.
    pub fn open(settings: NodeSettings) -> Result<Node> {
        Ok(Node { settings: Arc::new(settings) })
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// The namespace called `name`: `0` to `15`, or the name of the available namespace.
    pub fn namespace(&self, name: &[u8]) -> Option<NamespaceId> {
        namespace::by_name(name, &self.settings.entity_namespace)
    }

    /// What an acknowledged write survives, as it is set now.
    pub fn durability(&self) -> Durability {
        self.settings.durability
    }

    /// Changes what a write must survive before it is acknowledged, for writes from now on.
    pub fn set_durability(&self, durability: Durability) {
        let _ = durability;
    }

    /// Executes `requests` in order on this thread, without waiting for a disk, and adds their replies to `replies`. `MULTI`, `SELECT` and
    /// their like are not for here: only requests whose table entry runs on data or on the keyspace.
    pub fn execute(
        &self,
        session: &mut Session,
        requests: &[Request<'_>],
        replies: &mut Vec<Reply>,
    ) -> Progress {
        session.fetched = crate::prefetch::Fetched::default();
        replies.extend(requests.iter().map(|_| Reply::Error(ErrorReply::new(Error::NeedsStrong.resp()))));
        Progress { executed: requests.len(), blocked: None, commit: None }
    }

    /// Executes `requests` as one: all or nothing, one durable batch, nothing in between; unless a watched key has changed.
    pub fn transaction(
        &self,
        session: &mut Session,
        requests: &[Request<'_>],
        watched: &Watched,
    ) -> Transaction {
        let _ = (session, requests, watched);
        Transaction { outcome: Outcome::Refused(Error::NeedsStrong), commit: None }
    }

    /// Adds `keys` to `watched` with the versions they have now. Set: as [`Progress::blocked`](crate::Progress::blocked), then again with all keys.
    pub fn watch(
        &self,
        session: &mut Session,
        namespace: NamespaceId,
        keys: &[&[u8]],
        watched: &mut Watched,
    ) -> Option<Prefetch> {
        let _ = (session, namespace, keys, watched);
        None
    }

    /// The available namespace.
    pub fn entity(&self) -> Entity {
        Entity { node: self.clone() }
    }

    /// Figures for `INFO` and `/metrics`.
    pub fn stats(&self) -> NodeStats {
        NodeStats::default()
    }

    /// Ends cleanly: takes no more writes, makes durable what was written, closes the store. Blocks.
    pub fn shutdown(&self) -> Result<()> {
        Ok(())
    }
}
