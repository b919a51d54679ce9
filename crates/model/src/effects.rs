//! What a command does to the keys: exact puts and deletes.

use bytes::Bytes;
use std::collections::HashMap;

/// Effects up to this number are searched one by one; above it an index by key is kept.
const SCANNED_EFFECTS_MAX: usize = 16;

/// The bytes of a put: borrowed from the request where the client sent them, owned where the command made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'r> {
    /// A part of the request.
    Borrowed(&'r [u8]),
    /// Made by the command, or taken over from the view.
    Owned(Bytes),
}

impl Value<'_> {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Value::Borrowed(bytes) => bytes,
            Value::Owned(bytes) => bytes,
        }
    }

    /// The bytes with an owner; copies borrowed ones.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Value::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Value::Owned(bytes) => bytes.clone(),
        }
    }
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect<'r> {
    /// The key gets this value, in place of whatever it had.
    Put {
        /// The key.
        key: &'r [u8],
        /// Its new value.
        value: Value<'r>,
        /// Absolute Unix milliseconds at which it ceases to exist.
        expires_at: Option<u64>,
        /// Data type; [`TAG_STRING`](crate::TAG_STRING) for strings.
        tag: u8,
    },
    /// The key ceases to exist.
    Delete {
        /// The key.
        key: &'r [u8],
    },
}

impl<'r> Effect<'r> {
    /// The key that changes.
    pub fn key(&self) -> &'r [u8] {
        match self {
            Effect::Put { key, .. } | Effect::Delete { key } => key,
        }
    }
}

/// A set of changes that is stored as one: at most one for each key, the last one wins.
#[derive(Debug, Clone, Default)]
pub struct Effects<'r> {
    list: Vec<Effect<'r>>,
    /// Key → place in `list`; empty while the list is short.
    places: HashMap<&'r [u8], usize>,
}

impl<'r> Effects<'r> {
    /// No effects.
    pub fn new() -> Effects<'r> {
        Effects::default()
    }

    /// Adds a change; a former one of the same key is replaced.
    pub fn push(&mut self, effect: Effect<'r>) {
        let key = effect.key();
        if let Some(place) = self.place(key) {
            if let Some(former) = self.list.get_mut(place) {
                *former = effect;
            }
            return;
        }
        if self.list.len() == SCANNED_EFFECTS_MAX {
            self.places = self.list.iter().enumerate().map(|(at, each)| (each.key(), at)).collect();
        }
        if self.list.len() >= SCANNED_EFFECTS_MAX {
            self.places.insert(key, self.list.len());
        }
        self.list.push(effect);
    }

    /// Whether `key` is changed.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.place(key).is_some()
    }

    fn place(&self, key: &[u8]) -> Option<usize> {
        if self.list.len() > SCANNED_EFFECTS_MAX {
            return self.places.get(key).copied();
        }
        self.list.iter().position(|effect| effect.key() == key)
    }

    /// The changes, each key once, in the order in which the keys were first changed.
    pub fn as_slice(&self) -> &[Effect<'r>] {
        &self.list
    }

    /// Number of changed keys.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets all changes; keeps the memory for the next command.
    pub fn clear(&mut self) {
        self.list.clear();
        self.places.clear();
    }
}
