//! Any node takes any command: which shards it concerns, who leads them, what to do while nobody does.

mod attempt;
mod bytes;
mod codec;
mod plan;
mod reply;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use codec::{decode_answer, decode_ask};
