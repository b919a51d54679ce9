//! What a connection asks of its reads and writes.

use crate::entity::{NODES, Quorum};
use crate::error::{Error, Result};
use crate::namespace::{Mode, NamespaceId};
use crate::node::Node;
use kvorum_engine::Durability;
use serde::{Deserialize, Serialize};

/// Who may answer a read in a strong namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReadMode {
    /// The shard's leader, once it has shown that it still leads: the newest acknowledged write is seen.
    #[default]
    Leader,
    /// Any member, once it knows that it has seen every write acknowledged before the read: as fresh as [`ReadMode::Leader`].
    Follower,
    /// Any member, as far as it has come: may be old, never torn.
    Stale,
}

impl ReadMode {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            ReadMode::Leader => "leader",
            ReadMode::Follower => "follower",
            ReadMode::Stale => "stale",
        }
    }

    /// The mode of a word, in any case.
    pub fn of_word(word: &str) -> Option<ReadMode> {
        [ReadMode::Leader, ReadMode::Follower, ReadMode::Stale]
            .into_iter()
            .find(|mode| word.eq_ignore_ascii_case(mode.word()))
    }
}

/// What a connection asked for; `None` where it leaves it to the namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Consistency {
    /// Who answers its reads in strong namespaces.
    pub read: Option<ReadMode>,
    /// In available namespaces: how many replicas must answer.
    pub ack: Option<u32>,
    /// In available namespaces: how many replicas keep an entry.
    pub from: Option<u32>,
    /// What a write survives before it is acknowledged. A namespace that asks for more gets more.
    pub durability: Option<Durability>,
}

/// What is in force for a connection in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct InForce {
    /// Strong namespaces: who answers reads.
    pub read: Option<ReadMode>,
    /// Available namespaces: how many replicas must answer, of how many that keep an entry.
    pub quorum: Option<(u32, u32)>,
    /// What a write survives before it is acknowledged.
    pub durability: Durability,
}

impl Node {
    /// What is in force in a namespace for a connection that has asked for this.
    ///
    /// # Errors
    /// [`Error::NoNamespace`]; [`Error::Invalid`] if so many replicas can't be asked.
    pub fn in_force(&self, namespace: NamespaceId, asked: &Consistency) -> Result<InForce> {
        let kept = self.inner.namespaces.get(namespace.id()).filter(|kept| !kept.is_dropped());
        let kept =
            kept.ok_or_else(|| Error::NoNamespace(format!("of the id {} any more", namespace.id())))?;
        let settings = kept.settings();
        // Checked in strong namespaces too: the connection may go on to an available one.
        let nodes = self.inner.cluster.get().map_or(NODES, |cluster| cluster.available.nodes().max(NODES));
        let quorum = Quorum { ack: asked.ack, from: asked.from }.resolve(nodes, settings.replication)?;
        let (read, quorum) = match namespace.mode() {
            Mode::Strong => (Some(asked.read.unwrap_or(settings.read)), None),
            Mode::Available => (None, Some(quorum)),
        };
        Ok(InForce { read, quorum, durability: kept.durability(asked.durability, self.durability()) })
    }
}

/// The word of a durability class.
pub fn durability_word(durability: Durability) -> &'static str {
    match durability {
        Durability::Buffered => "buffered",
        Durability::Written => "written",
        Durability::Synced => "synced",
    }
}

/// The durability class of a word, in any case.
pub fn durability_of_word(word: &str) -> Option<Durability> {
    [Durability::Buffered, Durability::Written, Durability::Synced]
        .into_iter()
        .find(|durability| word.eq_ignore_ascii_case(durability_word(*durability)))
}

/// For serde: a durability class, or none, as its word.
pub(crate) mod durability_as_word {
    use super::{durability_of_word, durability_word};
    use kvorum_engine::Durability;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::{Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(class: &Option<Durability>, to: S) -> Result<S::Ok, S::Error> {
        class.map(durability_word).serialize(to)
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Option<Durability>, D::Error> {
        let word: Option<String> = Deserialize::deserialize(from)?;
        let class = |word: String| {
            durability_of_word(&word)
                .ok_or_else(|| D::Error::custom(format!("no durability class: {word:?}")))
        };
        word.map(class).transpose()
    }
}
