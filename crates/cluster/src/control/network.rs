//! How control planes reach each other: a small door that the transport implements, and openraft's network over it.

use super::map::{ClusterId, NodeInfo};
use super::message::{Appended, Call, Installed, Voted, decode, encode_call};
use super::raft::Types;
use bytes::Bytes;
use kvorum_sync::StoreId;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, InstallSnapshotRequest, VoteRequest};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// An answer that is on its way.
pub(crate) type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// It surely did not arrive.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It may have arrived.
    #[error("no answer: {0}")]
    Lost(String),
    /// The other side says no.
    #[error("refused: {0}")]
    Refused(String),
}

/// What the control plane needs of the transport. Nothing here waits.
pub(crate) trait Links: Send + Sync + 'static {
    /// Sends a heartbeat. May be lost.
    fn send(&self, to: StoreId, body: Bytes);
    /// Calls a peer.
    fn call(&self, to: StoreId, body: Bytes, deadline: Duration) -> Pending<Result<Bytes, LinkError>>;
    /// Asks whoever listens at an address.
    fn ask(&self, address: &str, body: Bytes, deadline: Duration) -> Pending<Result<Bytes, LinkError>>;
    /// Who the peers are, and where.
    fn set_peers(&self, peers: &[(StoreId, String)]);
    /// These have left for good: nothing of theirs is taken.
    fn set_left(&self, stores: BTreeSet<StoreId>);
    /// What this node belongs to.
    fn set_cluster(&self, cluster: ClusterId, map_version: u64);
}

/// After so long a node is tried again that could not be reached.
const RETRY_AFTER: Duration = Duration::from_millis(150);

/// Makes openraft's connections.
#[derive(Clone)]
pub(crate) struct Network(pub(crate) Arc<dyn Links>);

/// openraft's connection to one node.
pub(crate) struct Connection {
    links: Arc<dyn Links>,
    to: u64,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, _node: &NodeInfo) -> Connection {
        Connection { links: self.0.clone(), to: target }
    }
}

type CallError<E> = RPCError<u64, NodeInfo, RaftError<u64, E>>;

impl Connection {
    async fn call<T: DeserializeOwned, E: std::error::Error>(
        &self,
        mut call: Call,
        deadline: Duration,
    ) -> Result<T, CallError<E>> {
        let failed = |error: io::Error| RPCError::Unreachable(Unreachable::new(&error));
        let body = encode_call(&mut call).map_err(|text| failed(io::Error::other(text)))?;
        let answer = self.links.call(StoreId(self.to), body, deadline).await;
        let answer = answer.map_err(|error| failed(io::Error::other(error)))?;
        decode(&answer).map_err(|text| failed(io::Error::other(text)))
    }
}

impl RaftNetwork<Types> for Connection {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<Appended, CallError<openraft::error::Infallible>> {
        self.call(Call::Append(request), option.hard_ttl()).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<Installed, CallError<InstallSnapshotError>> {
        self.call(Call::Snapshot(request), option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<Voted, CallError<openraft::error::Infallible>> {
        self.call(Call::Vote(request), option.hard_ttl()).await
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_AFTER))
    }
}
