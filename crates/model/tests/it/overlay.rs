//! A view of what is not stored yet, over what is.

use kvorum_model::{Effect, Effects, Label, Meta, Record, Stop, View};
use std::collections::HashMap;

/// A view that shows effects on top of a base: what the commands of a transaction see of the ones before them. The plainest one there can be,
/// to hold commands to; a node keeps its own, over namespaces and clears.
pub(crate) struct Overlay<'v, 'r> {
    base: &'v dyn View,
    changed: HashMap<&'r [u8], (u64, Effect<'r>)>,
}

impl<'v, 'r> Overlay<'v, 'r> {
    /// Nothing on top of `base` yet.
    pub(crate) fn new(base: &'v dyn View) -> Overlay<'v, 'r> {
        Overlay { base, changed: HashMap::new() }
    }

    /// Shows `effects` from now on, each at the version that the base gives next for its key.
    pub(crate) fn apply(&mut self, effects: &Effects<'r>) {
        for effect in effects.as_slice() {
            let version = self.base.next_version(effect.key());
            self.changed.insert(effect.key(), (version, effect.clone()));
        }
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
