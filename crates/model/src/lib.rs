//! Kvorum's data types and commands as pure functions: *(command, view of keys) → (reply, effects)*.
//!
//! The one command table ([`table`], [`lookup`], [`resolve`]) drives dispatch, routing (key positions), rights (flags and categories), the
//! replies of `COMMAND` and the page for people who come from Redis. A data command reads through a [`View`], is evaluated once by
//! [`evaluate`], and hands back a [`Reply`] and [`Effects`]: the exact puts and deletes, with time and expiry resolved. Nothing here knows
//! a clock, a socket or a file.
#![forbid(unsafe_code)]

mod args;
mod catalogue;
mod command;
mod context;
mod effects;
mod error;
mod glob;
mod number;
mod page;
mod reply;
mod slot;
mod spec;
mod table;
mod view;

pub use args::Args;
pub use command::keyspace::{SCAN_COUNT_DEFAULT, ScanOptions, check_flush, pattern_matches};
pub use command::part::STRING_BYTES_MAX;
pub use context::{Context, evaluate};
pub use effects::{Effect, Effects, Value};
pub use error::{ErrorReply, Stop};
pub use glob::{Case, glob_match, literal_prefix};
pub use number::{parse_i64, parse_u64};
pub use page::coming_from_redis;
pub use reply::Reply;
pub use slot::{SLOTS, hashed_part, slot};
pub use spec::argument::{Argument, ArgumentKind};
pub use spec::flags::{Categories, Flags, Group};
pub use spec::{AnswerFn, Available, CommandSpec, DataFn, Keyspace, Run, SessionCommand};
pub use table::{lookup, resolve, table};
pub use view::{Label, Meta, Record, TAG_STRING, View, type_name};
