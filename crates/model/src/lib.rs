//! Kvorum's data types and commands as pure functions: *(command, view of keys) → (reply, effects)*.
//!
//! The one command table ([`table`], [`lookup`], [`resolve`]) drives dispatch, routing (key positions), rights (flags and categories), the
//! replies of `COMMAND` and the page for people who come from Redis. A data command reads through a [`View`], is evaluated once by
//! [`evaluate`], and hands back a [`Reply`] and [`Effects`]: the exact puts and deletes, with time and expiry resolved. Nothing here knows
//! a clock, a socket or a file.
#![forbid(unsafe_code)]

mod args;
mod command;
mod context;
mod effects;
mod error;
mod overlay;
mod reply;
mod spec;
mod table;
mod view;

pub use args::Args;
pub use context::{Context, evaluate};
pub use effects::{Effect, Effects, Value};
pub use error::{ErrorReply, Stop};
pub use overlay::Overlay;
pub use reply::Reply;
pub use spec::{
    AnswerFn, Available, Categories, CommandSpec, DataFn, Flags, Group, Keyspace, Run, SessionCommand,
};
pub use table::{lookup, resolve, table};
pub use view::{Label, Meta, Record, TAG_STRING, View};

#[cfg(test)]
mod tests;
