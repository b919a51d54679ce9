//! Whether a node is in touch with the others, so that they wait for it before they forget deletions, and what it has seen of theirs.
//!
//! A node tells each of the others that it is awake, and one that answers has heard it: from when it was asked it waits for as long as its patience.
//! Nobody goes on without a node that is not missed by more than half of all. So a node that enough of the others have answered of late is waited
//! for; one that has not been answered for so long, asleep or cut off, takes itself for forgotten, before it could have been.

use super::floors::{Own, touch_needed};
use super::planted::{Fault, is_planted};
use kvorum_sync::StoreId;
use std::collections::{BTreeMap, BTreeSet};

/// A node's touch with the others, in one namespace.
#[derive(Debug)]
pub(super) struct Touch {
    /// It was in touch then at least, by the clock that counts from the beginning of its life; negative: in an earlier life.
    base_ms: i64,
    peers: BTreeMap<StoreId, Peer>,
    /// What it holds of after this time was written when nobody else could know of it: it was alone, until it doubted.
    alone_ms: u64,
}

#[derive(Debug, Default)]
struct Peer {
    /// When it was asked what it answered last, since this life began.
    asked_ms: Option<u64>,
    /// Its time then, in Unix milliseconds.
    now_ms: u64,
    /// All that it held at this time of its was compared.
    seen_ms: u64,
    /// What is being compared: since when (its time), and the shards that are left.
    round: Option<(u64, BTreeSet<u16>)>,
}

impl Touch {
    /// A node begins that was in touch so long ago. `now_ms`: its time, in Unix milliseconds.
    pub(super) fn begin(ago_ms: u64, awake_for_ms: u64, now_ms: u64) -> Touch {
        let base_ms = signed(awake_for_ms).saturating_sub(signed(ago_ms));
        Touch { base_ms, peers: BTreeMap::new(), alone_ms: now_ms }
    }

    /// Another node has heard that this one is awake, and said what time it is there. `asked_ms`: since this life began.
    pub(super) fn answered(&mut self, peer: StoreId, asked_ms: u64, now_ms: u64) {
        let peer = self.peers.entry(peer).or_default();
        (peer.asked_ms, peer.now_ms) = (Some(asked_ms), now_ms);
    }

    /// All that another node held at this time of its (Unix milliseconds) was compared; zero if it never was.
    pub(super) fn seen_ms(&self, peer: StoreId) -> u64 {
        self.peers.get(&peer).map_or(0, |peer| peer.seen_ms)
    }

    /// A shard is about to be compared with another node.
    pub(super) fn compares(&mut self, peer: StoreId, places: u16) {
        if let Some(peer) = self.peers.get_mut(&peer)
            && peer.round.is_none()
            && peer.now_ms > 0
        {
            peer.round = Some((peer.now_ms, (0..places).collect()));
        }
    }

    /// It was, all of it.
    pub(super) fn compared(&mut self, peer: StoreId, place: u16) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        if let Some((_, left)) = &mut peer.round {
            left.remove(&place);
        }
        if let Some((began_ms, _)) = peer.round.take_if(|(_, left)| left.is_empty()) {
            peer.seen_ms = began_ms;
        }
    }

    /// When enough of the others had heard this node, since its life began.
    fn in_touch_ms(&self, own: Own, others: &[StoreId]) -> i64 {
        let needed = touch_needed(others.len() + 1);
        if needed == 0 {
            return signed(own.awake_for_ms);
        }
        let asked = |store| self.peers.get(store).and_then(|peer| peer.asked_ms);
        let mut asked: Vec<i64> = others.iter().filter_map(asked).map(signed).collect();
        asked.sort_unstable_by(|one, other| other.cmp(one));
        asked.get(needed - 1).map_or(self.base_ms, |asked_ms| self.base_ms.max(*asked_ms))
    }

    /// Whether this node was out of touch for so long that others may have forgotten deletions which it has not seen.
    pub(super) fn is_lost(&self, own: Own, others: &[StoreId]) -> bool {
        let out_ms = signed(own.awake_for_ms).saturating_sub(self.in_touch_ms(own, others));
        let is_blind = is_planted(Fault::CutOffMerges) || is_planted(Fault::OversleptMerges);
        out_ms > signed(own.lease_ms()) && !is_blind
    }

    /// It doubts what it holds, from now on. What it then learns of the others is good for as long as their patience, and so are its doubts: they
    /// begin anew if they are not over by then. `met_ms`: when it last met anybody, in Unix milliseconds of its own.
    pub(super) fn doubts(&mut self, own: Own, met_ms: u64) {
        (self.base_ms, self.alone_ms) = (signed(own.awake_for_ms), met_ms);
    }

    /// What it holds of after this time (Unix milliseconds of its own) was known to nobody else when its doubts began.
    pub(super) fn alone_ms(&self) -> u64 {
        self.alone_ms
    }

    /// When it was last in touch, in Unix milliseconds: by its own clock or, if all others have said that it is earlier, by theirs. `None` if that is
    /// nothing new in this life.
    pub(super) fn awake_ms(&self, own: Own, others: &[StoreId]) -> Option<u64> {
        let in_touch_ms = u64::try_from(self.in_touch_ms(own, others)).ok()?;
        let ago_ms = own.awake_for_ms.saturating_sub(in_touch_ms);
        let theirs = others.iter().filter_map(|store| {
            let peer = self.peers.get(store)?;
            let asked_ms = peer.asked_ms?;
            Some(peer.now_ms.saturating_add(own.awake_for_ms.saturating_sub(asked_ms)))
        });
        let now_ms = match theirs.max() {
            Some(theirs_ms) => own.now_ms.min(theirs_ms),
            None if touch_needed(others.len() + 1) == 0 => own.now_ms,
            None => return None,
        };
        Some(now_ms.saturating_sub(ago_ms))
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const BEGUN: u64 = 1_000_000 * HOUR;
    const OTHERS: [StoreId; 4] = [StoreId(2), StoreId(3), StoreId(4), StoreId(5)];

    fn own(awake_for_ms: u64) -> Own {
        Own { begun_ms: BEGUN, now_ms: BEGUN + awake_for_ms, awake_for_ms, grace_ms: 32 * HOUR }
    }

    #[test]
    fn a_node_is_lost_when_too_few_have_heard_it_for_almost_the_grace() {
        let is_lost = |touch: &Touch, hours, others| touch.is_lost(own(hours * HOUR), &OTHERS[..others]);
        let mut touch = Touch::begin(0, 0, BEGUN);
        assert!(!is_lost(&touch, 30, 2) && is_lost(&touch, 31, 2));
        touch.answered(OTHERS[0], 10 * HOUR, BEGUN);
        assert!(!is_lost(&touch, 40, 2) && is_lost(&touch, 41, 2));
        assert!(is_lost(&touch, 40, 4), "one of four is not enough");
        touch.answered(OTHERS[2], 5 * HOUR, BEGUN);
        assert!(!is_lost(&touch, 35, 4) && is_lost(&touch, 36, 4));
        assert!(!is_lost(&touch, 999, 1), "of two nodes none goes on without the other");
        touch.doubts(own(41 * HOUR), BEGUN + HOUR);
        assert!(!is_lost(&touch, 70, 2) && is_lost(&touch, 72, 2), "doubts begin anew");
        assert_eq!(touch.alone_ms(), BEGUN + HOUR);
        assert!(is_lost(&Touch::begin(30 * HOUR, 0, BEGUN), 1, 2), "it was out of touch in an earlier life");
    }

    #[test]
    fn all_is_seen_once_all_shards_were_compared_since() {
        let mut touch = Touch::begin(0, 0, BEGUN);
        touch.compares(OTHERS[0], 2);
        [0, 1].iter().for_each(|place| touch.compared(OTHERS[0], *place));
        assert_eq!(touch.seen_ms(OTHERS[0]), 0, "its time is not known");
        touch.answered(OTHERS[0], 1, BEGUN + 1);
        for (place, seen) in [(1, 0), (1, 0), (0, BEGUN + 1)] {
            touch.compares(OTHERS[0], 2);
            touch.answered(OTHERS[0], 2, BEGUN + 2);
            touch.compared(OTHERS[0], place);
            assert_eq!(touch.seen_ms(OTHERS[0]), seen);
        }
        assert_eq!(touch.seen_ms(OTHERS[1]), 0);
    }

    #[test]
    fn a_clock_that_was_set_forward_does_not_hide_a_sleep() {
        let mut touch = Touch::begin(3 * HOUR, 0, BEGUN);
        let far = Own { now_ms: BEGUN + 999 * HOUR, ..own(5 * HOUR) };
        assert_eq!(touch.awake_ms(far, &OTHERS[..2]), None, "of an earlier life");
        touch.answered(OTHERS[0], 4 * HOUR, BEGUN + 4 * HOUR);
        assert_eq!(touch.awake_ms(far, &OTHERS[..2]), Some(BEGUN + 4 * HOUR));
        touch.answered(OTHERS[1], 5 * HOUR, BEGUN + 998 * HOUR);
        assert_eq!(touch.awake_ms(own(5 * HOUR), &OTHERS[..2]), Some(BEGUN + 5 * HOUR), "its own is earlier");
        assert_eq!(touch.awake_ms(own(6 * HOUR), &[]), Some(BEGUN + 6 * HOUR), "no others");
    }
}
