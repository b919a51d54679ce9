//! Which entries a view admits, and what a clear of the tree makes of them.

use crate::sst::Head;
use crate::types::{Sequence, Version};
use std::ops::Bound;

/// A view, reduced to numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visibility<H = Vec<Version>> {
    /// The highest version.
    pub(crate) at: Version,
    /// The last sequence.
    pub(crate) upto: Sequence,
    /// Versions that are not seen.
    pub(crate) hidden: H,
}

impl<H: AsRef<[Version]>> Visibility<H> {
    pub(crate) fn admits(&self, version: Version, sequence: Sequence) -> bool {
        version <= self.at && sequence <= self.upto && !self.hidden.as_ref().contains(&version)
    }
}

/// The clear that decides for a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cleared {
    pub(crate) version: Version,
    pub(crate) sequence: Sequence,
    /// The first sequence of the clear's batch: at the same version, what was written before it is deleted, what came with it or later lives.
    pub(crate) batch: Sequence,
}

impl Cleared {
    pub(crate) fn deletes(&self, head: &Head) -> bool {
        head.version < self.version || (head.version == self.version && head.sequence < self.batch)
    }
}

/// All clears of a tree, lowest first, each with what took it back. A list is never changed, only replaced.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clears {
    pub(crate) marks: Vec<ClearMark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClearMark {
    pub(crate) cleared: Cleared,
    /// The sequence of the retract that took it back.
    pub(crate) retracted: Option<Sequence>,
}

impl ClearMark {
    /// Whether the view sees the clear, and not that it was taken back.
    pub(crate) fn stands<H: AsRef<[Version]>>(&self, view: &Visibility<H>) -> bool {
        view.admits(self.cleared.version, self.cleared.sequence)
            && self.retracted.is_none_or(|retract| retract > view.upto)
    }
}

impl Clears {
    pub(crate) fn with(&self, cleared: Cleared) -> Clears {
        let mut marks = self.marks.clone();
        let place = marks.partition_point(|m| {
            (m.cleared.version, m.cleared.sequence) < (cleared.version, cleared.sequence)
        });
        if marks.get(place).is_none_or(|m| m.cleared != cleared) {
            marks.insert(place, ClearMark { cleared, retracted: None });
        }
        Clears { marks }
    }

    pub(crate) fn without(&self, version: Version, sequence: Sequence) -> Clears {
        let mut marks = self.marks.clone();
        for mark in marks.iter_mut().filter(|m| m.cleared.version == version && m.cleared.sequence < sequence)
        {
            mark.retracted.get_or_insert(sequence);
        }
        Clears { marks }
    }

    /// The highest clear that a view sees.
    pub(crate) fn seen<H: AsRef<[Version]>>(&self, view: &Visibility<H>) -> Option<Cleared> {
        self.marks.iter().rev().find(|mark| mark.stands(view)).map(|mark| mark.cleared)
    }
}

/// Bounds on keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) low: Bound<bytes::Bytes>,
    pub(crate) high: Bound<bytes::Bytes>,
}

impl Bounds {
    pub(crate) fn all() -> Bounds {
        Bounds { low: Bound::Unbounded, high: Bound::Unbounded }
    }

    /// The keys that begin with `prefix`.
    pub(crate) fn prefix(prefix: &[u8]) -> Bounds {
        let mut end = prefix.to_vec();
        while end.last() == Some(&u8::MAX) {
            end.pop();
        }
        let high = match end.last_mut() {
            Some(last) => {
                *last += 1;
                Bound::Excluded(end.into())
            }
            None => Bound::Unbounded,
        };
        Bounds { low: Bound::Included(bytes::Bytes::copy_from_slice(prefix)), high }
    }

    /// Whether a key from `smallest` to `largest` can lie between.
    pub(crate) fn overlaps(&self, smallest: &[u8], largest: &[u8]) -> bool {
        !self.lie_above(largest) && !self.lie_below(smallest)
    }

    /// Whether all keys between lie above this one.
    pub(crate) fn lie_above(&self, key: &[u8]) -> bool {
        match &self.low {
            Bound::Included(low) => key < &low[..],
            Bound::Excluded(low) => key <= &low[..],
            Bound::Unbounded => false,
        }
    }

    /// Whether all keys between lie below this one.
    pub(crate) fn lie_below(&self, key: &[u8]) -> bool {
        match &self.high {
            Bound::Included(high) => key > &high[..],
            Bound::Excluded(high) => key >= &high[..],
            Bound::Unbounded => false,
        }
    }

    /// Whether no key can lie between.
    pub(crate) fn is_empty(&self) -> bool {
        match (&self.low, &self.high) {
            (Bound::Included(low), Bound::Included(high)) => low > high,
            (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => {
                low >= high
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(Bounds::prefix(b"ab").high, Bound::Excluded("ac".into()));
        assert_eq!(Bounds::prefix(&[1, 255, 255]).high, Bound::Excluded(vec![2].into()));
        assert_eq!(Bounds::prefix(&[255]).high, Bound::Unbounded);
        assert_eq!(Bounds::prefix(b"").high, Bound::Unbounded);
    }

    #[test]
    fn the_highest_visible_clear_decides() {
        let clear = |version, sequence| Cleared { version, sequence, batch: sequence };
        let clears = Clears::default().with(clear(5, 1)).with(clear(9, 2)).with(clear(7, 3)).without(9, 4);
        let seen =
            |at, upto, hidden: &[Version]| clears.seen(&Visibility { at, upto, hidden }).map(|c| c.version);
        assert_eq!(seen(100, 3, &[]), Some(9));
        assert_eq!(seen(100, 4, &[]), Some(7), "the clear at 9 was taken back");
        assert_eq!(seen(100, 4, &[7]), Some(5));
        assert_eq!(seen(4, 4, &[]), None);
    }
}
