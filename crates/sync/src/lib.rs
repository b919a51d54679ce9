//! Sync: the replication core of Kvorum's strong namespaces, without I/O.
//!
//! A [`Replica`] is one member of one shard's group. It has no clock, socket, file, thread or randomness: a driver gives it
//! [`Input`]s and the moment, and carries out the [`Effect`]s that come back. The protocol is described in `docs/sync.md`.
//!
//! # What the driver promises
//!
//! - **One store, one id.** [`StoreId`] is random and made with the store's folder; a wiped disk gets another one.
//! - **Boot nonce.** Drawn at every start; no two runs of a store share one.
//! - **Records.** Each [`Record`] of [`Effect::Persist`] is stored atomically and in the order given, and [`Input::Persisted`] says up to where
//!   they are durable. After a crash any suffix of the records not reported durable may be missing, and only a suffix.
//! - **Conditions.** An effect with [`After::Durable`] is carried out when that record is durable, or never.
//! - **Values.** The core names items and never sees a value. With [`Record::Item`] and [`Message::Write`] the driver carries the values of the
//!   proposal or of the message that came in; when a write is repeated later it reads them from the tree at `version = op`. With
//!   [`Record::Adopt`] it puts the values that [`Effect::Ingest`] staged.
//! - **Restart.** [`Replica::recover`] takes the [`Durable`] state as the records left it; nothing else survives.
//! - **Time.** `now` is monotonic and counts suspension.
#![forbid(unsafe_code)]

mod basis;
mod config;
mod core;
mod digests;
mod durable;
mod effect;
mod error;
mod face;
mod fence;
mod follower_read;
mod input;
mod invariant;
mod item;
mod key_index;
mod log;
mod membership;
mod message;
mod names;
mod node;
mod planted;
mod read;
mod records;
mod reign;
mod resync;
mod role;
mod trace;
mod transfer;
mod types;

pub use config::Config;
pub use durable::{Adoption, Durable, Record};
pub use effect::{After, Alarm, Ask, Durability, Effect, Effects, Lane, Outcome};
pub use error::{Error, Refusal, Result};
pub use input::{Input, StepDown};
pub use invariant::{INVARIANTS, Invariant};
pub use item::{Item, Keys, Proposal};
pub use membership::{MEMBERS_MAX, Members, Membership, Register};
pub use message::{
    Adopt, AskRead, BasisItem, Fetch, Gather, Hello, KeyState, Message, Piece, Promised, ReadAnswer,
    ReadWhat, Want, Way,
};
pub use names::Names;
pub use node::{Replica, RoleName};
#[cfg(feature = "planted")]
pub use planted::Planted;
pub use planted::Rule;
pub use role::leader::Holders;
pub use types::{
    Checkpoint, Digest, EPOCH_MAX, Epoch, KeyHash, Moment, OpId, Promise, RecordId, SERIAL_MAX, Standing,
    StoreId, Token, TransferId,
};
