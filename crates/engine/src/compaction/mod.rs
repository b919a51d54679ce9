//! Compaction: which tables to rewrite, what of them must stay, and the rewriting.

mod rules;
mod stream;
#[cfg(test)]
mod views;

pub(crate) use rules::{MemorySpan, Rules, Span};
pub(crate) use stream::{Dropped, Kept, Stream};
