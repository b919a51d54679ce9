//! Any node takes any command: which shards it concerns, who leads them, what to do while nobody does.

mod alone;
mod asks;
mod attempt;
mod bytes;
mod codec;
mod commands;
mod door;
mod first;
mod here;
mod join;
mod keyspace;
mod member_reads;
mod plan;
mod replicas;
pub(crate) mod reply;
mod router;
mod serve;
mod together;
mod under_way;
mod whole;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use asks::decode as decode_asks;
pub(crate) use bytes::Reader;
#[cfg(test)]
pub(crate) use codec::tests::corpus;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use codec::{decode_answer, decode_ask};
pub(crate) use door::answer;
pub(crate) use join::{Boxed, join};
pub use member_reads::STALE_AGE_MAX_MS;
pub use replicas::Held;
pub use serve::Served;
pub(crate) use serve::has_scan;
pub(crate) use together::Together;
