//! Any node takes any command: which shards it concerns, who leads them, what to do while nobody does.

mod attempt;
mod bytes;
mod codec;
mod join;
mod plan;
pub(crate) mod reply;

pub(crate) use bytes::Reader;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use codec::{decode_answer, decode_ask};
