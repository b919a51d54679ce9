//! Kvorum's doors: the Redis protocol, HTTP, metrics.
//!
//! [`Server::bind`] takes the addresses, [`Bound::run`] serves a [`Node`](kvorum_cluster::Node) on them until it is told to stop. A few network
//! threads, each with a tokio current-thread runtime, share the connections; what a connection has sent is read, parsed, executed and
//! answered in one go.
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod accept;
mod clients;
mod configuration;
mod counters;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod http;
mod info;
mod metrics;
mod network;
mod resp;
mod rights;
mod session;
mod settings;
mod shared;
mod time;

pub use accept::{BindError, Bound, ServeError, Server};
pub use settings::ServerSettings;
pub use shared::ShutdownHandle;
