//! Namespaces that keep what was written at the same time: beside the entry that won, its losers, for the application to look at.
//!
//! Every entry is written with its *base*: the version that its writer had seen. An older entry was seen by the winner if it is not newer than the
//! winner's base; else both were written at the same time, and the older one is kept. A later write whose base is above it says that it was looked at.
//!
//! ```text
//! key    0x40 · the user's key
//! value  version of the winner (8) · its base (8) · losers, newest first: entries as on the wire
//! ```

use super::Entry;
use super::wire::{entry, put_entry};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Losers kept of one key at most, and their bytes.
const LOSERS_MAX: usize = 16;
const LOSERS_BYTES_MAX: usize = 1 << 20;

/// Of an entry whose base nobody knows: it was written before the namespace kept such things. It counts as having seen everything.
const SAW_ALL: u64 = u64::MAX;

/// What is remembered beside an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Siblings {
    winner: u64,
    base: u64,
    pub(super) losers: Vec<Entry>,
}

impl Siblings {
    /// Nothing in place of what can't be read: the losers are gone, the entry itself is not.
    pub(super) fn decode(mut from: Bytes) -> Siblings {
        let read = |from: &mut Bytes| Some((from.try_get_u64_le().ok()?, from.try_get_u64_le().ok()?));
        let Some((winner, base)) = read(&mut from) else { return Siblings::default() };
        let mut losers = Vec::new();
        while let Some(loser) = (!from.is_empty()).then(|| entry(&mut from)).flatten() {
            losers.push(loser);
        }
        Siblings { winner, base, losers }
    }

    pub(super) fn encode(&self) -> BytesMut {
        let mut to = BytesMut::new();
        to.put_u64_le(self.winner);
        to.put_u64_le(self.base);
        self.losers.iter().for_each(|loser| put_entry(loser, &mut to));
        to
    }

    /// The base of the entry of this version, if it is known here.
    pub(super) fn base_of(&self, version: u64) -> Option<u64> {
        (self.winner == version && version > 0).then_some(self.base)
    }

    /// A digest of what stands beside the entry of this version; zero if that is nothing.
    pub(super) fn digest(&self, version: u64) -> u64 {
        if self.winner != version || (self.base == SAW_ALL && self.losers.is_empty()) {
            return 0;
        }
        let sum = |sum: u64, loser: &Entry| xxh3_64_with_seed(&loser.version.to_le_bytes(), sum);
        self.losers.iter().fold(xxh3_64_with_seed(&self.base.to_le_bytes(), version), sum)
    }

    /// Takes in an entry, beside the one that stood there before.
    pub(super) fn take(&mut self, new: &Entry, before: Option<Entry>) {
        let before = before.map(|entry| Entry { base: self.base_of(entry.version).or(entry.base), ..entry });
        let mut all = std::mem::take(&mut self.losers);
        all.extend(before.into_iter().chain([new.clone()]));
        *self = Siblings::of(all);
    }

    /// The winner of some entries of a key, and those that were written at the same time. One with the winner's value is none: nothing of it is lost,
    /// and a write that was tried again has been there before.
    pub(super) fn of(mut all: Vec<Entry>) -> Siblings {
        all.retain(|entry| !entry.shadow);
        // Of the same version the one whose base is known.
        all.sort_by_key(|entry| std::cmp::Reverse((entry.version, entry.base.is_some())));
        all.dedup_by_key(|entry| entry.version);
        let Some(first) = all.first() else { return Siblings::default() };
        let (winner, base, value) = (first.version, first.base.unwrap_or(SAW_ALL), first.value.clone());
        let mut bytes = 0;
        let mut fits = |entry: &Entry| {
            bytes += entry.value.as_ref().map_or(0, Bytes::len);
            bytes <= LOSERS_BYTES_MAX
        };
        // They are kept where the winner is, whatever was asked for them.
        let from = first.from;
        let beside = all.into_iter().skip(1).map(|entry| Entry { from, ..entry });
        let concurrent = beside.filter(|entry| entry.version > base && entry.value != value);
        let losers = concurrent.take(LOSERS_MAX).take_while(|entry| fits(entry)).collect();
        Siblings { winner, base, losers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: u64, base: Option<u64>) -> Entry {
        let value = Some(Bytes::from(format!("value {version}")));
        Entry { version, value, expires_at: None, from: 3, shadow: false, base }
    }

    fn versions(siblings: &Siblings) -> (u64, Vec<u64>) {
        (siblings.winner, siblings.losers.iter().map(|loser| loser.version).collect())
    }

    /// What is left of entries that come in this order.
    fn taken(entries: &[Entry]) -> Siblings {
        let (mut siblings, mut standing) = (Siblings::default(), None::<Entry>);
        for entry in entries {
            siblings.take(entry, standing.clone());
            siblings = Siblings::decode(siblings.encode().freeze());
            if standing.as_ref().is_none_or(|standing| standing.version < entry.version) {
                // As the tree has it: without its base.
                standing = Some(Entry { base: None, ..entry.clone() });
            }
        }
        siblings
    }

    #[test]
    fn what_the_winner_had_not_seen_is_kept_in_whatever_order_it_comes() {
        let (one, two, three) = (entry(10, Some(5)), entry(20, Some(5)), entry(30, Some(10)));
        for order in [[&one, &two, &three], [&three, &two, &one], [&two, &three, &one], [&three, &one, &two]]
        {
            let siblings = taken(&order.map(Clone::clone));
            assert_eq!(versions(&siblings), (30, vec![20]), "30 has seen 10, and not 20: {order:?}");
        }
    }

    #[test]
    fn who_has_seen_them_ends_a_conflict() {
        let conflict = [entry(10, Some(5)), entry(20, Some(5))];
        assert_eq!(versions(&taken(&conflict)), (20, vec![10]));
        let seen = [conflict[0].clone(), conflict[1].clone(), entry(30, Some(20))];
        assert_eq!(versions(&taken(&seen)), (30, vec![]));
        // A loser that comes late is not brought back.
        let late = [conflict[1].clone(), entry(30, Some(20)), conflict[0].clone()];
        assert_eq!(versions(&taken(&late)), (30, vec![]));
    }

    #[test]
    fn deletions_are_losers_too_and_unknown_bases_make_no_conflicts() {
        let deleted = Entry { value: None, ..entry(10, Some(5)) };
        let siblings = taken(&[entry(20, Some(5)), deleted.clone()]);
        assert_eq!(siblings.losers, [deleted]);
        assert_eq!(versions(&taken(&[entry(10, Some(5)), entry(20, None)])), (20, vec![]));
    }

    #[test]
    fn a_write_that_was_tried_again_is_no_conflict_of_itself() {
        let first = entry(10, Some(5));
        let again = Entry { value: first.value.clone(), ..entry(30, Some(5)) };
        let siblings = taken(&[first, entry(20, Some(5)), again]);
        assert_eq!(versions(&siblings), (30, vec![20]));
    }

    #[test]
    fn losers_are_bounded() {
        let many: Vec<Entry> = (1..100).map(|version| entry(version, Some(0))).collect();
        let siblings = taken(&many);
        assert_eq!((siblings.losers.len(), siblings.losers[0].version), (LOSERS_MAX, 98));
        let large = |version: u8| Some(Bytes::from(vec![version; LOSERS_BYTES_MAX / 2]));
        let large: Vec<Entry> =
            (1..9).map(|version| Entry { value: large(version), ..entry(version.into(), Some(0)) }).collect();
        assert_eq!(taken(&large).losers.len(), 2);
        assert_eq!(Siblings::decode(Bytes::from_static(b"nonsense")), Siblings::default());
    }
}
