//! What a node can be told: plain data.

pub use kvorum_engine::Durability;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

/// Settings of a node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeSettings {
    /// The store's folder; made if missing.
    pub data_dir: PathBuf,
    /// Where the write-ahead log lies, if not in the store's folder.
    pub wal_dir: Option<PathBuf>,
    /// Memory for write buffers, caches and filters, in bytes.
    pub memory_bytes: u64,
    /// Largest value, in bytes; `None` for the engine's default (an eighth of `memory_bytes`, at most 512 MiB).
    pub max_value_bytes: Option<u64>,
    /// What flushes and compactions may read and write in a second, in bytes; 0: as much as the device gives.
    pub background_bytes_per_second: u64,
    /// What a write survives once it is acknowledged. Can be changed at run time: [`Node::set_durability`](crate::Node::set_durability).
    pub durability: Durability,
    /// The name of the available namespace behind `/v0/entity`.
    pub entity_namespace: String,
    /// Keep all of the write-ahead log, so that an empty data folder can be rebuilt from it.
    pub keep_whole_wal: bool,
    /// As one of a cluster's nodes; `None`: alone.
    pub cluster: Option<ClusterSettings>,
}

impl NodeSettings {
    /// The defaults, for a store in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> NodeSettings {
        NodeSettings {
            data_dir: data_dir.into(),
            wal_dir: None,
            memory_bytes: 256 << 20,
            max_value_bytes: None,
            background_bytes_per_second: 0,
            durability: Durability::Synced,
            entity_namespace: "entity".to_owned(),
            keep_whole_wal: false,
            cluster: None,
        }
    }
}

/// What makes a node one of a cluster.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClusterSettings {
    /// Its name, unique in the cluster. A new store under the name of a node that is gone takes its place.
    pub name: String,
    /// Where other nodes connect.
    pub listener: PeerListener,
    /// `host:port` at which other nodes reach it; `None`: the listener's address.
    pub advertise: Option<String>,
    /// `host:port` of the RESP door as clients reach it; empty: there is none.
    pub resp: String,
    /// `host:port` of the door for cluster clients as they reach it; empty: there is none.
    pub resp_cluster: String,
    /// `host:port` of the HTTP door as clients reach it; empty: there is none.
    pub http: String,
    /// How it finds its cluster when its store has none yet.
    pub bootstrap: Bootstrap,
    /// What all nodes of the cluster know and nobody else; `None`: whoever reaches the listener is believed.
    pub secret: Option<Vec<u8>>,
    /// Files for mutual TLS between the nodes; `None`: without.
    pub tls: Option<PeerTls>,
}

/// Files for mutual TLS between nodes, PEM. Certificates must be good for the host in the node's peer address, for server and client authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTls {
    /// This node's certificate, with those between it and the authority.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
    /// The authority that signed the certificates of all nodes.
    pub authority_file: PathBuf,
}

impl ClusterSettings {
    /// A node of this name behind this listener, which founds a cluster of its own that others may join.
    pub fn new(name: impl Into<String>, listener: PeerListener) -> ClusterSettings {
        ClusterSettings {
            name: name.into(),
            listener,
            advertise: None,
            resp: String::new(),
            resp_cluster: String::new(),
            http: String::new(),
            bootstrap: Bootstrap::Alone,
            secret: None,
            tls: None,
        }
    }
}

/// How a node finds its cluster. Once its store belongs to one, it goes on with that and asks nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootstrap {
    /// It founds one of its own, with the data that it has.
    Alone,
    /// All nodes get the same list of names and addresses (`host:port`), itself among them, and found a cluster if each of them says that it is new.
    Peers(Vec<(String, String)>),
    /// It asks the node at this address (`host:port`) to let it in.
    Join(String),
}

/// A listener for other nodes, bound before anything is written.
#[derive(Clone)]
pub struct PeerListener {
    listener: Arc<TcpListener>,
    address: SocketAddr,
}

impl PeerListener {
    /// Binds `address`; with port 0 the system chooses one.
    ///
    /// # Errors
    /// What the system says, such as an address in use.
    pub fn bind(address: SocketAddr) -> io::Result<PeerListener> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        Ok(PeerListener { listener: Arc::new(listener), address })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Another handle of the socket.
    pub(crate) fn socket(&self) -> io::Result<TcpListener> {
        self.listener.try_clone()
    }
}

impl fmt::Debug for PeerListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerListener").field(&self.address).finish()
    }
}
