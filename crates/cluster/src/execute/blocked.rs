//! What a request that can't go on needs first.

use super::evaluation::Evaluation;
use super::plan::Isolation;
use crate::keys::shard_of;
use crate::keyspace::Reading;
use crate::namespace::NamespaceId;
use crate::prefetch::{Fetched, Interest, Prefetch, WantedKey, Work};
use crate::session::Request;
use std::collections::BTreeMap;
use std::time::Duration;

/// Keys that are fetched together at most, those that the blocked request itself needs not counted.
const LOOKAHEAD_KEYS_MAX: usize = 64;

/// What a blocked request needs.
pub(crate) enum Needs {
    /// The keys that it reads.
    Keys,
    /// All keys.
    Keyspace(usize, Box<Reading>),
    /// Room in the write buffers.
    Room(Room),
}

/// The write buffers are full: the requests from a place on were not executed after all.
pub(crate) struct Room {
    pub(crate) from: usize,
    pub(crate) retry_after: Duration,
}

impl Evaluation<'_, '_> {
    /// The work that the first of `rest` is blocked on. `again`: it is the request that the fetched records were fetched for, and may need
    /// them still.
    pub(crate) fn prefetch(&mut self, needs: Needs, rest: &[Request<'_>], again: bool) -> Prefetch {
        let work = match needs {
            // Outside of a transaction the blocked request is the first when it is executed again.
            Needs::Keyspace(_, reading) if self.isolation == Isolation::Each => Work::Keyspace(0, reading),
            Needs::Keyspace(at, reading) => Work::Keyspace(at, reading),
            Needs::Keys => Work::Keys(self.wanted(rest)),
            Needs::Room(room) => Work::Room(room.retry_after),
        };
        let had = std::mem::take(&mut self.fetched);
        if again {
            return Prefetch::new(self.node, work, had);
        }
        self.spent = had;
        Prefetch::new(self.node, work, Fetched::default())
    }

    /// The key that was missing; all keys of the blocked request, which needs them at once; and some of those like it that follow.
    fn wanted(&mut self, rest: &[Request<'_>]) -> Vec<WantedKey> {
        let (Some(missing), Some(blocked)) = (self.missing.take(), rest.first()) else { return Vec::new() };
        let mut wanted: BTreeMap<(NamespaceId, &[u8]), bool> = BTreeMap::new();
        wanted.insert((blocked.namespace, &missing.key), true);
        for (at, request) in rest.iter().enumerate() {
            let is_alike = std::ptr::eq(request.spec, blocked.spec);
            if at == 0 || (is_alike && wanted.len() < LOOKAHEAD_KEYS_MAX) {
                for key in request.spec.keys_of(request.args) {
                    wanted.entry((request.namespace, key)).or_insert(at == 0);
                }
            }
        }
        let wanted = wanted.into_iter();
        wanted
            .map(|((namespace, key), needed)| self.want(namespace, key, missing.with_value, needed))
            .collect()
    }

    /// A key to be fetched; if its shard is latched, for a command that must see its newest state.
    fn want(&mut self, namespace: NamespaceId, key: &[u8], with_value: bool, needed: bool) -> WantedKey {
        let shard = shard_of(namespace, key);
        let interest = self.latches.get_mut(shard).map(|writer| {
            let mark = writer.fetching.begin(key);
            Interest { node: self.node.clone(), shard, key: key.to_vec(), mark }
        });
        WantedKey { namespace, shard, key: key.to_vec(), with_value, needed, tree: None, interest }
    }

    /// The work for the keys that a connection watches.
    pub(crate) fn prefetch_watched(&mut self, keys: &[(NamespaceId, &[u8])]) -> Prefetch {
        let keys = keys.iter().map(|(namespace, key)| self.want(*namespace, key, false, true)).collect();
        let had = std::mem::take(&mut self.fetched);
        Prefetch::new(self.node, Work::Keys(keys), had)
    }
}
