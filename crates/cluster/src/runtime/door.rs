//! What arrives from other nodes, and to whom it goes.

use super::Cluster;
use crate::node::{Inner, Node};
use crate::route;
use crate::transport::{Channel, Handler, Identity, Pending};
use bytes::Bytes;
use kvorum_engine::Error;
use kvorum_sync::{Lane, StoreId};
use std::sync::{Arc, OnceLock, Weak};

/// Where the transport hands over what came in. It is there before the node's part in the cluster is: what comes too early is lost, as on any
/// network.
#[derive(Default)]
pub(super) struct Door {
    cluster: OnceLock<Weak<Cluster>>,
    node: OnceLock<Weak<Inner>>,
}

impl Door {
    pub(super) fn open(&self, cluster: &Arc<Cluster>, node: &Arc<Inner>) {
        let _ = self.node.set(Arc::downgrade(node));
        let _ = self.cluster.set(Arc::downgrade(cluster));
    }

    fn node(&self) -> Option<Node> {
        Some(Node { inner: self.node.get()?.upgrade()? })
    }

    fn cluster(&self) -> Option<Arc<Cluster>> {
        self.cluster.get()?.upgrade()
    }
}

impl Handler for Door {
    fn message(&self, from: StoreId, lane: Lane, channel: Channel, body: Bytes) {
        let Some(cluster) = self.cluster() else { return };
        match channel {
            Channel::Shard => cluster.deliver(from, lane, &body),
            Channel::Control => cluster.control.handle_message(from, &body),
            Channel::Entity => cluster.available.hear(from, lane, body),
            Channel::Forward => {
                tracing::warn!(%from, ?channel, "a message where only calls are understood: dropped");
            }
        }
    }

    fn call(&self, from: StoreId, channel: Channel, body: Bytes) -> Pending<Result<Bytes, String>> {
        let Some(cluster) = self.cluster() else { return refuse("the node is starting") };
        match channel {
            Channel::Control => Box::pin(async move { cluster.control.handle_call(from, &body).await }),
            Channel::Forward => match self.node() {
                Some(node) => Box::pin(async move { route::answer(&node, body).await }),
                None => refuse("the node is starting"),
            },
            Channel::Entity => Box::pin(Arc::clone(&cluster.available).answer(from, body)),
            Channel::Shard => refuse("this node answers no such calls"),
        }
    }

    fn strangers_call(&self, _: &Identity, channel: Channel, body: Bytes) -> Pending<Result<Bytes, String>> {
        let Some(cluster) = self.cluster() else { return refuse("the node is starting") };
        match channel {
            Channel::Control => Box::pin(async move { cluster.control.handle_question(&body).await }),
            _ => refuse("strangers may only ask to enter"),
        }
    }

    fn reachable(&self, store: StoreId, up: bool) {
        if let Some(cluster) = self.cluster() {
            cluster.reached.add(store, up);
            if !up {
                cluster.available.lost(store);
            }
        }
    }

    fn quiet(&self) {
        if let Some(cluster) = self.cluster() {
            cluster.available.flush();
        }
    }

    fn pause(&self) -> Option<Pending<()>> {
        let cluster = self.cluster()?;
        let Err(Error::Busy { retry_after }) = cluster.store.admission() else { return None };
        let room = cluster.store.room();
        Some(Box::pin(async move {
            // The slowing of writes ends by the clock, too.
            let _ = tokio::time::timeout(retry_after, room).await;
        }))
    }
}

fn refuse(why: &str) -> Pending<Result<Bytes, String>> {
    let why = why.to_owned();
    Box::pin(async move { Err(why) })
}
