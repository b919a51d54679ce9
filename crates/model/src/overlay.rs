//! A view of what is not stored yet, over what is.

use crate::effects::{Effect, Effects};
use crate::error::Stop;
use crate::view::{Label, Meta, Record, View};
use std::collections::HashMap;

/// A view that shows effects on top of a base: for the commands of a transaction, and for those of one input buffer whose batch is not
/// written yet. Inside a transaction evaluate each command against the overlay, [`apply`](Overlay::apply) its effects here and
/// [`absorb`](Effects::absorb) them into the transaction's own: only a key's last effect is left to be stored.
pub struct Overlay<'v, 'r> {
    base: &'v dyn View,
    changed: HashMap<&'r [u8], (u64, Effect<'r>)>,
}

impl<'v, 'r> Overlay<'v, 'r> {
    /// Nothing on top of `base` yet.
    pub fn new(base: &'v dyn View) -> Overlay<'v, 'r> {
        Overlay { base, changed: HashMap::new() }
    }

    /// Shows `effects` from now on, each at the version that the base gives next for its key.
    pub fn apply(&mut self, effects: &Effects<'r>) {
        for effect in effects.as_slice() {
            let version = self.base.next_version(effect.key());
            self.changed.insert(effect.key(), (version, effect.clone()));
        }
    }

    /// Shows one effect from now on, at `version`.
    pub fn apply_at(&mut self, version: u64, effect: Effect<'r>) {
        self.changed.insert(effect.key(), (version, effect));
    }

    /// Whether the overlay has something to say about `key`.
    pub fn covers(&self, key: &[u8]) -> bool {
        self.changed.contains_key(key)
    }
}

impl View for Overlay<'_, '_> {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, Stop> {
        match self.changed.get(key) {
            None => self.base.get(key),
            Some((_, Effect::Delete { .. })) => Ok(None),
            Some((version, Effect::Put { value, expires_at, tag, .. })) => Ok(Some(Record {
                version: *version,
                value: value.to_bytes(),
                expires_at: *expires_at,
                tag: *tag,
            })),
        }
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Meta>, Stop> {
        match self.changed.get(key) {
            None => self.base.meta(key),
            Some((_, Effect::Delete { .. })) => Ok(None),
            Some((version, Effect::Put { expires_at, tag, .. })) => {
                Ok(Some(Meta { version: *version, expires_at: *expires_at, tag: *tag }))
            }
        }
    }

    fn next_version(&self, key: &[u8]) -> u64 {
        self.base.next_version(key)
    }

    fn label(&self, key: &[u8]) -> Label {
        self.base.label(key)
    }
}
