//! The member of one shard's group: the replication core of `kvorum_sync` over trees of the engine.
//!
//! A [`Member`] has no clock, socket or thread of its own. It is stepped under its shard's latch; what it wants comes back in an [`Outbox`]:
//! messages to send, answers for those who wait, jobs that wait for the disk. Its records reach [`kvorum_engine::Store::write`] in the order in
//! which the core gives them out, because that happens in the step itself.
//!
//! ```text
//!   values of an item          its note (item and keys)      promise, epoch, checkpoint …
//!   tree, version = op    +    tree, note of version op      `sys`, `shard/{namespace}/{place}`       one batch, one record of the log
//! ```

mod bytes_in;
mod carry;
mod config;
#[cfg(test)]
mod corpus;
mod durable;
mod floors;
mod held;
mod jobs;
mod left;
mod member;
mod note;
mod open;
mod outbox;
mod persist;
mod planted;
mod propose;
mod read;
mod recent;
mod row;
mod rows;
mod status;
mod transfer;
pub mod wire;
mod writes;

pub use crate::latch::ShardId;
pub use config::MemberConfig;
#[cfg(test)]
pub(crate) use corpus::{corpus, is_read};
pub use jobs::{Job, JobDone};
pub use member::Member;
pub use open::MemberParts;
pub use outbox::{Done, MemberInput, MemberReport, Outbox, Send};
#[cfg(feature = "planted")]
pub use planted::MemberPlanted;
pub use planted::MemberRule;
pub use propose::Draft;
pub(crate) use row::promised_epoch;
pub use rows::Rows;
pub use status::{MemberRole, MemberStatus};
pub use wire::ShardMessage;
pub use writes::{Writes, key_hash};

/// Reads bytes as everything that stands in stores or travels beside messages.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn read_data(bytes: &bytes::Bytes) {
    use kvorum_sync::{OpId, Way};
    let _row = row::Row::decode(bytes);
    let _note = note::decode(OpId::ZERO, bytes);
    let _writes = writes::Payload::parse(bytes.clone()).map(|writes| writes.digest(OpId::ZERO));
    for way in [Way::Items, Way::Delta, Way::Files] {
        let _piece = transfer::check_piece(way, bytes);
    }
}
