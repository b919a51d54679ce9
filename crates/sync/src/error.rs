//! Why something was not done, in few kinds that a caller acts upon.

use thiserror::Error;

/// Result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, and what to do about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// A member list that no reign may have.
    #[error("member list refused: {0}")]
    Membership(String),
    /// Epochs or serials have run out.
    #[error("numbers exhausted: {0}")]
    Exhausted(String),
    /// A rule of the protocol does not hold: a bug or damaged memory. The replica must stop.
    #[error("invariant broken: {0}")]
    Invariant(String),
}

/// Why a proposal or a read was not taken. Every one of these means **surely not executed**: a client library may repeat it by itself.
/// An unknown outcome is never a refusal; it is [`crate::Outcome::Unknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// This replica does not lead; the one it follows, if it knows.
    NotLeader(Option<crate::StoreId>),
    /// No majority has room in its window. [`crate::Effect::Room`] follows; past its own deadline the driver fails the request.
    Busy,
    /// The serials of the epoch have run out; the next epoch was asked for.
    SerialsExhausted,
    /// The leader is settling what is pending before it hands over.
    Draining,
    /// The replica's data is being rebuilt, or being caught up, or too old to answer.
    Unreadable,
}
