//! The words of the transport: who speaks, over what, and what may go wrong.

use bytes::Bytes;
use kvorum_sync::{Lane, StoreId};
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

/// For whom a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Channel {
    /// The members of shards: messages of Sync.
    Shard,
    /// The control plane.
    Control,
    /// Commands that another node is asked to carry out.
    Forward,
    /// Available namespaces.
    Entity,
}

impl Channel {
    pub(super) fn number(self) -> u8 {
        match self {
            Channel::Shard => 0,
            Channel::Control => 1,
            Channel::Forward => 2,
            Channel::Entity => 3,
        }
    }

    pub(super) fn of(number: u8) -> Option<Channel> {
        [Channel::Shard, Channel::Control, Channel::Forward, Channel::Entity]
            .get(usize::from(number))
            .copied()
    }
}

/// What a node says of itself when it meets another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its store, which is its name for ever.
    pub(crate) store: StoreId,
    /// The name that people gave it.
    pub(crate) name: String,
    /// The cluster it belongs to; `None` before it belongs to one. Two different ones do not speak with each other.
    pub(crate) cluster: Option<u128>,
    /// Whether its store has never held anything.
    pub(crate) empty: bool,
    /// Version of the cluster map that it knows.
    pub(crate) map_version: u64,
}

/// Why a message was not taken. Nothing of it has left this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSent {
    /// There is no connection to that node now.
    #[error("there is no connection to that node")]
    Down,
    /// So much waits to be sent on this lane already that there is no room for this.
    #[error("too much waits to be sent to that node")]
    Full,
    /// The message is larger than a frame may be.
    #[error("the message is larger than a frame may be")]
    TooLarge,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// It was surely not delivered: no byte of it has left this node.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It may have arrived, and may have been carried out.
    #[error("no answer: {0}")]
    Lost(String),
    /// It arrived, and the other side answered with this text instead of a result.
    #[error("refused: {0}")]
    Refused(String),
}

impl From<NotSent> for CallError {
    fn from(reason: NotSent) -> CallError {
        CallError::NotSent(reason.to_string())
    }
}

/// A result that comes later.
pub(crate) type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What becomes of what arrives. Everything is called on the thread of the lane that it came over, and must not keep it for long.
pub(crate) trait Handler: Send + Sync + 'static {
    /// A message of another node. Those of one lane come in the order in which they were sent; some may be missing after a break.
    fn message(&self, from: StoreId, lane: Lane, channel: Channel, body: Bytes);

    /// A call of another node, and its answer. Runs on the lane's thread; other messages are handled while it waits.
    fn call(&self, from: StoreId, channel: Channel, body: Bytes) -> Pending<Result<Bytes, String>>;

    /// A call of a node that need not be a peer: it has the cluster's secret, if there is one, and belongs to this cluster or to none.
    fn strangers_call(
        &self,
        identity: &Identity,
        channel: Channel,
        body: Bytes,
    ) -> Pending<Result<Bytes, String>>;

    /// All lanes to a node are up, or one of them broke: what was under way may be lost. Each loss is told, also if it is mended by now.
    fn reachable(&self, store: StoreId, up: bool);

    /// A data lane has taken in all that was ready: a good moment to make it durable.
    fn quiet(&self) {}

    /// Data lanes read on only when this has passed: for a store whose write buffers are full. `None` to go on at once.
    fn pause(&self) -> Option<Pending<()>> {
        None
    }
}

/// The cluster's secret, which all nodes know. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Vec<u8>);

impl Secret {
    /// The secret of a file's content: white space around it does not count. `None` if nothing else is there.
    pub(crate) fn of(content: &[u8]) -> Option<Secret> {
        let secret = content.trim_ascii();
        (!secret.is_empty()).then(|| Secret(secret.to_vec()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Files for mutual TLS, PEM. Certificates must be good for the host in the node's peer address, for server and client authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    /// This node's certificate, with those between it and the authority.
    pub(crate) certificate_file: PathBuf,
    /// Its private key.
    pub(crate) key_file: PathBuf,
    /// The authority that signed the certificates of all nodes.
    pub(crate) authority_file: PathBuf,
}

/// Settings of the transport.
#[derive(Debug, Clone)]
pub(crate) struct TransportSettings {
    /// Data connections for each pair of nodes; of two numbers the smaller one counts.
    pub(crate) lanes: u8,
    /// What may wait to be sent on one lane, in bytes.
    pub(crate) queue_bytes_max: usize,
    /// The largest body of a frame, in bytes.
    pub(crate) frame_bytes_max: usize,
    /// What all nodes of the cluster know and nobody else.
    pub(crate) secret: Option<Secret>,
    /// Mutual TLS.
    pub(crate) tls: Option<TlsSettings>,
    /// How long connecting and the handshake may take, each.
    pub(crate) connect_time_max: Duration,
    /// How often a control connection is tried out.
    pub(crate) ping_every: Duration,
    /// After how long without a byte on it a control connection counts as dead, and the session with it.
    pub(crate) silence_max: Duration,
    /// The wait before the second attempt to connect; it doubles up to `backoff_max`, and half of it is by chance.
    pub(crate) backoff_first: Duration,
    /// The longest wait between attempts.
    pub(crate) backoff_max: Duration,
    /// Seed of the chance in waits.
    pub(crate) seed: u64,
}

impl Default for TransportSettings {
    fn default() -> TransportSettings {
        TransportSettings {
            lanes: 2,
            queue_bytes_max: 64 << 20,
            frame_bytes_max: 64 << 20,
            secret: None,
            tls: None,
            connect_time_max: Duration::from_secs(2),
            ping_every: Duration::from_millis(300),
            silence_max: Duration::from_millis(1500),
            backoff_first: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            seed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_have_numbers() {
        for number in 0..=255 {
            assert!(Channel::of(number).is_none_or(|channel| channel.number() == number));
        }
        assert_eq!((0..=255).filter_map(Channel::of).count(), 4);
    }

    #[test]
    fn a_secret_is_trimmed_and_never_printed() {
        let secret = Secret::of(b" very secret\r\n").unwrap();
        assert_eq!(secret.bytes(), b"very secret");
        assert!(!format!("{secret:?}").contains("very"));
        assert_eq!(Secret::of(b"\n"), None);
    }
}
