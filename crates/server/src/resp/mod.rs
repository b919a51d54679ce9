//! The Redis protocol: bytes to commands, replies to bytes, and the connection between them.

mod connection;
mod inline;
mod input;
mod output;
mod parser;
mod turn;
mod writer;

pub(crate) use connection::serve;
pub(crate) use parser::integer;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use parser::{Batch, Limits, Parser, ProtocolError, Span};
pub(crate) use writer::Protocol;
