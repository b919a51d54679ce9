//! What the server can be told: plain data.

use std::net::{Ipv4Addr, SocketAddr};

/// Settings of the server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerSettings {
    /// Address of the Redis protocol; port 0 takes any free one.
    pub resp: SocketAddr,
    /// Address of the Redis protocol for cluster clients, which find the node of a key by themselves; `None`: no such door.
    pub resp_cluster: Option<SocketAddr>,
    /// The host by which clients reach this node; `None`: the address that a listener is bound to.
    pub advertise: Option<String>,
    /// Address of HTTP; `None`: no HTTP.
    pub http: Option<SocketAddr>,
    /// Network threads.
    pub threads: usize,
    /// The password of both doors.
    pub requirepass: Option<String>,
    /// Whether clients of other machines are refused as long as there is no password.
    pub protected_mode: bool,
    /// Connections at once, of both doors together.
    pub max_clients: usize,
    /// Seconds after which an idle connection of the Redis protocol is closed; 0: never.
    pub timeout_seconds: u64,
    /// Longest word of a command, bytes.
    pub bulk_bytes_max: u64,
    /// Bytes of one command that has not arrived whole, or of one transaction's queued commands, beyond which the connection is closed or
    /// the command refused.
    pub query_buffer_bytes_max: u64,
    /// Largest body of an HTTP request, bytes.
    pub http_body_bytes_max: u64,
    /// Names besides `localhost` and plain addresses by which HTTP clients without a password may call this server.
    pub http_hosts: Vec<String>,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings {
            resp: (Ipv4Addr::LOCALHOST, 6379).into(),
            resp_cluster: None,
            advertise: None,
            http: Some((Ipv4Addr::LOCALHOST, 8379).into()),
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            requirepass: None,
            protected_mode: true,
            max_clients: 10_000,
            timeout_seconds: 0,
            bulk_bytes_max: 512 << 20,
            query_buffer_bytes_max: 1 << 30,
            http_body_bytes_max: 64 << 20,
            http_hosts: Vec::new(),
        }
    }
}
