//! Who counts: member lists, majorities, and the control plane's register of nominations.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::types::{Epoch, StoreId};

/// Members of a group, learners included: a bit of an acknowledgement mask each.
pub const MEMBERS_MAX: usize = 32;

/// A list of members: sorted, without repetition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "Vec<StoreId>", into = "Vec<StoreId>"))]
pub struct Members(Arc<[StoreId]>);

impl Members {
    /// A list of members; order and repetition do not matter.
    #[must_use]
    pub fn of(members: &[StoreId]) -> Members {
        let mut list = members.to_vec();
        list.sort_unstable();
        list.dedup();
        Members(list.into())
    }

    /// The members, sorted.
    #[must_use]
    pub fn as_slice(&self) -> &[StoreId] {
        &self.0
    }

    /// Whether the list names this store.
    #[must_use]
    pub fn contains(&self, store: StoreId) -> bool {
        self.0.binary_search(&store).is_ok()
    }

    /// How many make a majority.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }

    /// Whether the named stores hold a majority of the list.
    #[must_use]
    pub fn is_majority(&self, stores: impl IntoIterator<Item = StoreId>) -> bool {
        let mut mask = 0_u64;
        for store in stores {
            if let Ok(place) = self.0.binary_search(&store) {
                mask |= 1 << place;
            }
        }
        mask.count_ones() as usize >= self.majority()
    }

    /// How many members stand in exactly one of the two lists.
    #[must_use]
    pub fn difference(&self, other: &Members) -> usize {
        let only = |a: &Members, b: &Members| a.0.iter().filter(|store| !b.contains(**store)).count();
        only(self, other) + only(other, self)
    }
}

impl From<Vec<StoreId>> for Members {
    fn from(list: Vec<StoreId>) -> Members {
        Members::of(&list)
    }
}

impl From<Members> for Vec<StoreId> {
    fn from(members: Members) -> Vec<StoreId> {
        members.0.to_vec()
    }
}

/// The member lists of one reign: tails are gathered from a majority of `old`, led is with a majority of `new`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Membership {
    /// Whose tails count.
    pub old: Members,
    /// Whose acknowledgements count; differs from `old` by one member at most.
    pub new: Members,
}

impl Membership {
    /// A reign without a change of members.
    #[must_use]
    pub fn steady(members: &[StoreId]) -> Membership {
        let members = Members::of(members);
        Membership { old: members.clone(), new: members }
    }

    /// All stores of both lists, sorted.
    #[must_use]
    pub fn everyone(&self) -> Vec<StoreId> {
        Members::of(&[self.old.as_slice(), self.new.as_slice()].concat()).as_slice().to_vec()
    }
}

/// What the control plane holds of one shard. The rule that keeps two quick membership changes from losing each other's majority
/// lives here: only the shard's **last** nomination can make its list the current one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Register {
    current: Members,
    last: Option<(Epoch, Members)>,
    epoch: Epoch,
}

impl Register {
    /// A new shard with its first members, before any reign.
    #[must_use]
    pub fn new(members: Members) -> Register {
        Register { current: members, last: None, epoch: Epoch::ZERO }
    }

    /// The members that the next reign gathers from.
    #[must_use]
    pub fn current(&self) -> &Members {
        &self.current
    }

    /// The last epoch given out.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Gives out the next epoch, above `above` as well, with the member lists that it holds for.
    ///
    /// # Errors
    /// [`Error::Membership`] when `new` is empty, too long, or differs from the current list by more than one;
    /// [`Error::Exhausted`] when there is no epoch left.
    pub fn nominate(&mut self, above: Epoch, new: Members) -> Result<(Epoch, Membership)> {
        if new.as_slice().is_empty() || new.as_slice().len() > MEMBERS_MAX {
            return Err(Error::Membership(format!(
                "a group has 1 to {MEMBERS_MAX} members, not {}",
                new.as_slice().len()
            )));
        }
        let difference = self.current.difference(&new);
        if difference > 1 {
            return Err(Error::Membership(format!(
                "member lists of one change differ by one member, these by {difference}: change them one after the other"
            )));
        }
        let number = self.epoch.max(above).get() + 1;
        let epoch = Epoch::new(number)
            .ok_or_else(|| Error::Exhausted(format!("epoch {number} is beyond the last one")))?;
        self.epoch = epoch;
        self.last = Some((epoch, new.clone()));
        Ok((epoch, Membership { old: self.current.clone(), new }))
    }

    /// A manager reports that it leads. Accepted only for the last nomination; until then the old members stay the old ones.
    pub fn led(&mut self, epoch: Epoch) -> bool {
        match &self.last {
            Some((last, new)) if *last == epoch => {
                self.current = new.clone();
                true
            }
            _ => false,
        }
    }
}
