//! The server over real sockets, on a node in a folder of its own.
#![expect(clippy::unwrap_used, reason = "a test ends at the first failure")]

mod client;
mod cluster_door;
mod http;
mod limits;
mod namespaces;
mod openapi;
mod session;
mod shutdown;
mod transaction;
