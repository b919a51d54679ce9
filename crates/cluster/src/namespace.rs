//! What a namespace is: a mode, a number of shards, and the handle that the rest passes around.

use serde::{Deserialize, Serialize};

/// How a namespace is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// One order of writes in each shard; the version is the op id of the shard's log. All data types.
    Strong,
    /// No leader: the newest hybrid timestamp wins. Strings only.
    Available,
}

/// Number of strong namespaces that are there from the start: `SELECT 0` to `SELECT 15`.
pub const STRONG_NAMESPACES: u16 = 16;

/// The id of the available namespace that is there from the start.
const ENTITY: u16 = STRONG_NAMESPACES;

/// Namespaces with ids below this are there from the start, and stay.
pub(crate) const BUILT_IN: u16 = ENTITY + 1;

/// Shards of a namespace, unless it is made with another number.
pub const SHARDS_DEFAULT: u16 = 16;

/// Shards of a namespace at most.
pub const SHARDS_MAX: u16 = 1024;

/// A namespace of this node; from [`Node::namespace`](crate::Node::namespace). Its number, mode and shards never change, so the handle has them
/// with it: nothing is looked up to find the shard of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespaceId {
    id: u16,
    shards: u16,
    mode: Mode,
}

impl NamespaceId {
    /// The namespace that a connection starts in.
    pub const ZERO: NamespaceId = NamespaceId::new(0, Mode::Strong, SHARDS_DEFAULT);

    /// The available namespace of `/v0/entity`.
    pub const ENTITY: NamespaceId = NamespaceId::new(ENTITY, Mode::Available, SHARDS_DEFAULT);

    /// Of the table of namespaces, which checks the number of shards.
    pub(crate) const fn new(id: u16, mode: Mode, shards: u16) -> NamespaceId {
        NamespaceId { id, shards, mode }
    }

    /// The namespace of `SELECT number`; `None` beyond [`STRONG_NAMESPACES`].
    pub fn numbered(number: u16) -> Option<NamespaceId> {
        (number < STRONG_NAMESPACES).then_some(NamespaceId::new(number, Mode::Strong, SHARDS_DEFAULT))
    }

    /// Its id: never another namespace's, also not once this one is dropped.
    pub fn id(self) -> u16 {
        self.id
    }

    /// How it is kept.
    pub fn mode(self) -> Mode {
        self.mode
    }

    /// Into how many shards its hash slots are cut.
    pub fn shards(self) -> u16 {
        self.shards
    }

    /// The place of the shard that a key lies in.
    pub fn place_of(self, key: &[u8]) -> u16 {
        crate::keys::shard_of(self, key).place
    }

    /// The number for `SELECT`, `None` for a namespace that has only a name.
    pub fn number(self) -> Option<u16> {
        (self.id < STRONG_NAMESPACES).then_some(self.id)
    }

    /// Whether it is there from the start: then it can't be dropped.
    pub fn is_built_in(self) -> bool {
        self.id < BUILT_IN
    }
}

/// The namespaces that are there from the start, in order.
pub(crate) fn built_in() -> impl Iterator<Item = NamespaceId> {
    numbered().chain([NamespaceId::ENTITY])
}

/// The namespaces that `FLUSHALL` clears: those of `SELECT` with a number.
pub(crate) fn numbered() -> impl Iterator<Item = NamespaceId> {
    (0..STRONG_NAMESPACES).map(|number| NamespaceId::new(number, Mode::Strong, SHARDS_DEFAULT))
}

/// The name of a namespace that is there from the start.
pub(crate) fn built_in_name(id: NamespaceId, entity: &str) -> String {
    id.number().map_or_else(|| entity.to_owned(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_from_the_start() {
        assert_eq!(built_in().count(), usize::from(BUILT_IN));
        assert!(built_in().enumerate().all(|(at, id)| usize::from(id.id()) == at && id.is_built_in()));
        assert_eq!(built_in_name(NamespaceId::ZERO, "entity"), "0");
        assert_eq!(built_in_name(NamespaceId::ENTITY, "entity"), "entity");
        assert_eq!(NamespaceId::numbered(15).and_then(NamespaceId::number), Some(15));
        assert_eq!(NamespaceId::numbered(16), None);
        assert_eq!(NamespaceId::ENTITY.number(), None);
    }
}
