//! Lists, ranges and digests of what a replica holds.

use super::super::conflicts::Siblings;
use super::*;
use crate::keys::loser_bound;

impl Replica {
    pub(super) fn fetch(&self, keys: &[Bytes]) -> Result<(Answer, Sequence), Refusal> {
        let (mut entries, mut bytes, mut sequence) = (Vec::new(), 0, 0);
        for key in keys {
            let Some(found) = self.get(key)? else { continue };
            bytes += key.len() + found.value.len();
            if bytes > FETCHED_BYTES && !entries.is_empty() {
                break;
            }
            sequence = sequence.max(found.sequence);
            entries.extend(self.handed(key)?.into_iter().map(|entry| (key.clone(), entry)));
        }
        Ok((Answer::Fetched(entries), sequence))
    }

    /// Keys and versions of some slots, or of all if none is named, behind `after` and up to `upto`, in key order: at most [`LISTED_MAX`] of them.
    pub(in crate::available) fn list(
        &self,
        place: u16,
        slots: &BTreeSet<u16>,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
    ) -> Result<Vec<Listed>, Refusal> {
        let (after, upto) = (after.map(user_key), upto.map(user_key));
        let low = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let high = upto.as_deref().map_or(Bound::Excluded(USER_KEYS_END), Bound::Included);
        if after.is_some() && after >= upto && upto.is_some() {
            return Ok(Vec::new());
        }
        let mut listed = Vec::new();
        self.scan(place, (low, high), |one| {
            if slots.is_empty() || slots.contains(&slot(&one.key)) {
                listed.push(one);
            }
            listed.len() < LISTED_MAX
        })?;
        Ok(listed)
    }

    /// Digests of the slots that this node and `peer` both keep entries of: of those entries that both should have.
    pub(in crate::available) fn digests(
        &self,
        place: u16,
        peer: StoreId,
        order: &Order,
    ) -> Result<Vec<(u16, u64)>, Refusal> {
        let index = usize::from(place);
        let (Some(changes), Some(digests)) = (self.changes.get(index), self.digests.get(index)) else {
            return Err(Refusal::NoShard(place));
        };
        let mut digests = digests.lock();
        let at = (changes.load(Acquire), self.tombstone_floor.load(Acquire));
        if digests.at != Some(at) {
            let mut sums = HashMap::new();
            self.scan(place, (Bound::Unbounded, Bound::Excluded(USER_KEYS_END)), |one| {
                if !one.shadow {
                    let version = if is_planted(Fault::DigestsWithoutVersions) { 0 } else { one.version };
                    let mut digest = xxh3_64_with_seed(&one.key, version);
                    if one.beside != 0 {
                        digest = xxh3_64_with_seed(&digest.to_le_bytes(), one.beside);
                    }
                    *sums.entry((slot(&one.key), one.from)).or_insert(0) ^= digest;
                }
                true
            })?;
            *digests = Digests { at: Some(at), sums };
        }
        let mut shared = std::collections::BTreeMap::new();
        for ((slot, from), sum) in &digests.sums {
            let ranks = [self.me, peer].map(|store| order.rank(*slot, store));
            if ranks.iter().all(|rank| rank.is_some_and(|rank| rank < *from)) {
                *shared.entry(*slot).or_insert(0) ^= sum;
            }
        }
        Ok(shared.into_iter().collect())
    }

    /// Entries, deletions too, that others keep and this node does not, behind a key: at most [`LISTED_MAX`] keys with their versions.
    pub(in crate::available) fn misplaced(
        &self,
        place: u16,
        order: &Order,
        after: Option<&[u8]>,
    ) -> Result<Vec<(Bytes, u64)>, Refusal> {
        let after = after.map(user_key);
        let low = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut misplaced = Vec::new();
        self.scan(place, (low, Bound::Excluded(USER_KEYS_END)), |one| {
            let rank = order.rank(slot(&one.key), self.me);
            let is_kept = rank.is_some_and(|rank| rank < one.from) || is_planted(Fault::KeepsBeyondFrom);
            if !one.shadow && !is_kept {
                misplaced.push((one.key, one.version));
            }
            misplaced.len() < LISTED_MAX
        })?;
        Ok(misplaced)
    }

    /// Goes over keys and versions in key order, as long as `take` says so.
    fn scan(
        &self,
        place: u16,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        mut take: impl FnMut(Listed) -> bool,
    ) -> Result<(), Refusal> {
        let tree = self.trees.get(usize::from(place)).ok_or(Refusal::NoShard(place))?;
        let floor = self.tombstone_floor.load(Acquire);
        let mut losers = match self.keeps_losers() {
            true => {
                let (low, high) = (loser_bound(bounds.0, true), loser_bound(bounds.1, false));
                let bounds = (low.as_ref().map(Vec::as_slice), high.as_ref().map(Vec::as_slice));
                Some(tree.range(bounds, &View::newest(), Direction::Forward)?.peekable())
            }
            false => None,
        };
        let range = tree.range(bounds, &View::newest(), Direction::Forward)?.with_tombstones();
        for found in range {
            let (key, found) = found?;
            let is_gone = found.kind == FoundKind::Tombstone && found.version <= floor;
            let is_deletion = found.kind == FoundKind::Tombstone;
            if is_gone || (is_deletion && is_planted(Fault::ComparesNoDeletions)) {
                continue;
            }
            let (from, shadow) = of_tag(found.tag);
            let mut beside = 0;
            if let Some(losers) = &mut losers {
                let is_before = |row: &Result<(Bytes, Found), _>| {
                    row.as_ref().is_ok_and(|(other, _)| other.get(1..) < key.get(1..))
                };
                while losers.next_if(is_before).is_some() {}
                let is_its = |row: &Result<(Bytes, Found), _>| {
                    row.as_ref().map_or(true, |(other, _)| other.get(1..) == key.get(1..))
                };
                if let Some(row) = losers.next_if(is_its) {
                    beside = Siblings::decode(row?.1.value).digest(found.version);
                }
            }
            let beside = if shadow || is_planted(Fault::LosersStay) { 0 } else { beside };
            let listed = Listed { key: key.slice(1..), version: found.version, from, shadow, beside };
            if !take(listed) {
                break;
            }
        }
        Ok(())
    }

    /// The entry that stands under a key, with its base, and what was written at the same time.
    pub(in crate::available) fn entries(&self, key: &[u8]) -> Result<Vec<Entry>, Refusal> {
        self.get(key)?.map_or(Ok(Vec::new()), |found| self.entries_of(key, found))
    }

    /// As [`Replica::entries`]: what another replica is given.
    pub(in crate::available) fn handed(&self, key: &[u8]) -> Result<Vec<Entry>, Refusal> {
        let mut entries = self.entries(key)?;
        if is_planted(Fault::LosersStay) {
            entries.truncate(1);
        }
        Ok(entries)
    }
}
