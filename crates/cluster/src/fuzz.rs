//! Readers of bytes that other nodes send, one function for each format: they answer errors and never panic. `fuzz/` runs them with libFuzzer.

use crate::route;
use bytes::Bytes;

/// A target: its name, as in `fuzz/`, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 2] = [
    ("forward_ask", |bytes| _ = route::decode_ask(Bytes::copy_from_slice(bytes))),
    ("forward_answer", |bytes| _ = route::decode_answer(Bytes::copy_from_slice(bytes))),
];

/// Runs the target of this name.
pub fn run(name: &str, bytes: &[u8]) {
    TARGETS.iter().filter(|(target, _)| *target == name).for_each(|(_, run)| run(bytes));
}
