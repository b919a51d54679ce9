//! When shards are compared. What was just written differs between replicas because it is still under way, so that comparing it costs much and finds
//! nothing: a shard rests after it was written to. One that is written all the time is compared now and then all the same.

use kvorum_sync::StoreId;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// A shard that was written to is left alone for so long.
const REST: Duration = Duration::from_secs(1);

/// After so long it is compared with a node all the same.
const REST_MAX: Duration = Duration::from_secs(30);

/// A shard of a namespace.
pub(super) type Place = (u16, u16);

/// What was written and compared when.
#[derive(Default)]
pub(super) struct Calm {
    /// How often a shard had changed, and since when it has not.
    changes: HashMap<Place, (u64, Instant)>,
    compared: HashMap<(Place, StoreId), Instant>,
}

impl Calm {
    /// Whether a shard that has changed so often in this life is to be compared with a node now.
    pub(super) fn is_due(&mut self, place: Place, with: StoreId, changes: u64, now: Instant) -> bool {
        let (before, since) = self.changes.entry(place).or_insert((0, now));
        if *before != changes {
            (*before, *since) = (changes, now);
        }
        let is_calm = changes == 0 || now.saturating_duration_since(*since) >= REST;
        is_calm
            || self
                .compared
                .get(&(place, with))
                .is_none_or(|at| now.saturating_duration_since(*at) >= REST_MAX)
    }

    /// It begins to be compared.
    pub(super) fn compares(&mut self, place: Place, with: StoreId, now: Instant) {
        self.compared.insert((place, with), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = (16, 3);
    const PEERS: [StoreId; 2] = [StoreId(2), StoreId(3)];

    #[test]
    fn what_is_written_all_the_time_is_compared_now_and_then() {
        let (mut calm, begun) = (Calm::default(), Instant::now());
        let mut compared = 0;
        for tick in 0..1200 {
            let now = begun + tick * REST / 10;
            if calm.is_due(PLACE, PEERS[0], u64::from(tick) + 1, now) {
                calm.compares(PLACE, PEERS[0], now);
                compared += 1;
            }
        }
        assert_eq!(compared, 4, "in two minutes");
    }

    #[test]
    fn what_rested_is_compared_and_so_is_a_node_that_was_away() {
        let (mut calm, begun) = (Calm::default(), Instant::now());
        assert!(calm.is_due(PLACE, PEERS[0], 0, begun), "nothing was written");
        calm.compares(PLACE, PEERS[0], begun);
        assert!(!calm.is_due(PLACE, PEERS[0], 1, begun));
        assert!(calm.is_due(PLACE, PEERS[1], 1, begun), "it was never compared");
        assert!(!calm.is_due(PLACE, PEERS[0], 1, begun + REST / 2));
        assert!(calm.is_due(PLACE, PEERS[0], 1, begun + REST));
        assert!(!calm.is_due(PLACE, PEERS[0], 2, begun + REST), "written again");
        assert!(calm.is_due(PLACE, PEERS[0], 3, begun + REST_MAX));
    }
}
