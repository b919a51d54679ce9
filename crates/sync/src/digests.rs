//! Digests compared at commit points: the odd one against a majority is found.

use std::collections::VecDeque;

use crate::types::{Digest, OpId};

/// Points under comparison.
const POINTS_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Vote {
    point: OpId,
    /// The leader's own digest.
    own: Digest,
    /// Place of the member and its digest.
    votes: Vec<(usize, Digest)>,
    alarmed: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Digests {
    told: VecDeque<Vote>,
}

/// What a comparison found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// Nothing to say.
    Fine,
    /// The member at this place stands alone against a majority.
    Odd(usize),
    /// They differ, and no majority says which is right.
    Torn,
}

impl Digests {
    /// Remembers a point that was told with its digest.
    pub(crate) fn told(&mut self, point: OpId, own: Digest) {
        if self.told.len() == POINTS_MAX {
            self.told.pop_front();
        }
        self.told.push_back(Vote { point, own, votes: Vec::new(), alarmed: false });
    }

    /// The leader's digest at a point that it told.
    pub(crate) fn own(&self, point: OpId) -> Option<Digest> {
        self.told.iter().find(|vote| vote.point == point).map(|vote| vote.own)
    }

    /// A member's digest at a point. `voters` have voices, `need` of them make a majority.
    pub(crate) fn vote(
        &mut self,
        point: OpId,
        place: usize,
        digest: Digest,
        (voters, need): (usize, usize),
        needs_majority: bool,
    ) -> Verdict {
        let Some(vote) = self.told.iter_mut().find(|vote| vote.point == point) else { return Verdict::Fine };
        if vote.votes.iter().any(|(voted, _)| *voted == place) {
            return Verdict::Fine;
        }
        vote.votes.push((place, digest));
        let count = |digest: Digest| vote.votes.iter().filter(|(_, other)| *other == digest).count();
        let best = vote.votes.iter().map(|(_, digest)| *digest).max_by_key(|digest| count(*digest));
        let odd = best.and_then(|best| vote.votes.iter().find(|(_, digest)| *digest != best));
        let Some((odd, best)) = odd.map(|(place, _)| *place).zip(best) else { return Verdict::Fine };
        if count(best) >= need || !needs_majority {
            vote.votes.retain(|(place, _)| *place != odd);
            Verdict::Odd(odd)
        } else if vote.votes.len() >= voters && !vote.alarmed {
            vote.alarmed = true;
            Verdict::Torn
        } else {
            Verdict::Fine
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odd_one_is_named_only_against_a_majority() {
        let point = OpId::from_version(9);
        let mut digests = Digests::default();
        digests.told(point, Digest(1));
        let mut vote = |place, digest| digests.vote(point, place, Digest(digest), (3, 2), true);
        assert_eq!(vote(0, 7), Verdict::Fine);
        assert_eq!(vote(1, 8), Verdict::Fine);
        assert_eq!(vote(1, 7), Verdict::Fine, "one voice each");
        assert_eq!(vote(2, 7), Verdict::Odd(1));
    }

    #[test]
    fn without_a_majority_there_is_an_alarm_and_nobody_is_rebuilt() {
        let point = OpId::from_version(9);
        let mut digests = Digests::default();
        digests.told(point, Digest(1));
        assert_eq!(digests.vote(point, 0, Digest(1), (2, 2), true), Verdict::Fine);
        assert_eq!(digests.vote(point, 1, Digest(2), (2, 2), true), Verdict::Torn);
    }
}
