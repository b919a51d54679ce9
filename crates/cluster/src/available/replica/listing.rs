//! A replica's entries in key order, over all its shards: for ranges and scans of the cluster.

use super::{FETCHED_BYTES, LISTED_MAX, Refusal, Replica, entry_of};
use crate::available::marks::mark_of;
use crate::available::wire::Answer;
use crate::keys::{USER_KEYS_END, user_key};
use crate::random_key::{random_key, weighted_start};
use bytes::Bytes;
use kvorum_engine::{Direction, Sequence, Tree, View};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Keys without values that an answer has at most.
pub(in crate::available) const KEYS_MAX: u16 = 4096;

impl Replica {
    /// Entries of all shards in key order, deletions too: as many as an answer holds. With `keys`, at most so many, and without their values (an
    /// empty one stands for it).
    pub(super) fn range(
        &self,
        from: &[u8],
        is_first: bool,
        end: Option<&[u8]>,
        keys: Option<u16>,
    ) -> Result<(Answer, Sequence), Refusal> {
        let (from, end) = (user_key(from), end.map(user_key));
        let low = if is_first { Bound::Included(&from[..]) } else { Bound::Excluded(&from[..]) };
        let high = Bound::Excluded(end.as_deref().unwrap_or(USER_KEYS_END));
        let most = keys.map_or(LISTED_MAX, |most| most.clamp(1, KEYS_MAX).into());
        let (mut entries, mut bytes, mut sequence) = (Vec::new(), 0, 0);
        if end.as_ref().is_some_and(|end| *end <= from) {
            return Ok((Answer::Fetched(entries), sequence));
        }
        let mut heads = BTreeMap::new();
        for tree in &self.trees {
            let mut range = tree.range((low, high), &View::newest(), Direction::Forward)?.with_tombstones();
            if keys.is_some() {
                range = range.keys_only();
            }
            if let Some(found) = range.next() {
                let (key, found) = found?;
                heads.insert(key, (found, range));
            }
        }
        while entries.len() < most
            && let Some((key, (found, mut range))) = heads.pop_first()
        {
            sequence = sequence.max(found.sequence);
            let mut entry = entry_of(found);
            if keys.is_some() {
                entry.value = entry.value.map(|_| Bytes::new());
            }
            bytes += key.len() + entry.value.as_ref().map_or(0, Bytes::len);
            if bytes > FETCHED_BYTES && !entries.is_empty() {
                break;
            }
            entries.push((key.slice(1..), entry));
            if let Some(found) = range.next() {
                let (key, found) = found?;
                heads.insert(key, (found, range));
            }
        }
        Ok((Answer::Fetched(entries), sequence))
    }

    /// The first key of this mark, deleted or not: goes over all keys until it is found.
    pub(super) fn marked(&self, mark: u64) -> Result<Option<Bytes>, Refusal> {
        let namespace = self.namespace.id();
        for tree in &self.trees {
            let all = (Bound::Included(user_key(b"")), Bound::Excluded(USER_KEYS_END.to_vec()));
            let bounds = (all.0.as_ref().map(Vec::as_slice), all.1.as_ref().map(Vec::as_slice));
            let range = tree.range(bounds, &View::newest(), Direction::Forward)?;
            for found in range.with_tombstones().keys_only() {
                let key = found?.0.slice(1..);
                if mark_of(namespace, &key) == mark {
                    return Ok(Some(key));
                }
            }
        }
        Ok(None)
    }

    /// A key at random; none if there is none.
    pub(super) fn drawn(&self, seed: u64) -> Result<Option<Bytes>, Refusal> {
        let (mut dice, snapshot) = (fastrand::Rng::with_seed(seed), self.store.snapshot());
        let trees: Vec<&Tree> = self.trees.iter().collect();
        let weights: Vec<u64> = trees.iter().map(|tree| tree.stats().entries).collect();
        let (before, from) = trees.split_at(weighted_start(&weights, &mut dice));
        for tree in from.iter().chain(before) {
            if let Some(key) = random_key(tree, &snapshot, &mut dice, &mut |_, _| true)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }
}
