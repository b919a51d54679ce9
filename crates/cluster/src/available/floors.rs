//! How far deletions may be forgotten: no node that is awake may bring back what was deleted, whatever its own clock says.

use super::planted::{Fault, is_planted};
use kvorum_sync::StoreId;
use std::collections::BTreeMap;

/// Floors rise by so much at once.
const FLOOR_STEP_MS: u64 = 60_000;

/// What nodes said of their time, each of one namespace.
#[derive(Debug, Default)]
pub(super) struct Heard(BTreeMap<(u16, StoreId), Told>);

#[derive(Debug, Clone, Copy)]
struct Told {
    /// Since this node's life began.
    after_ms: u64,
    now_ms: u64,
}

/// This node's own time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    /// Its hybrid clock when its life began, in Unix milliseconds, and now.
    pub(super) begun_ms: u64,
    pub(super) now_ms: u64,
    /// How long it has been awake, by a clock that nobody sets.
    pub(super) awake_for_ms: u64,
    /// How long deletions are kept.
    pub(super) grace_ms: u64,
}

impl Heard {
    /// A node says what time it is, and does not doubt what it holds.
    pub(super) fn told(&mut self, namespace: u16, store: StoreId, now_ms: u64, own: Own) {
        self.0.insert((namespace, store), Told { after_ms: own.awake_for_ms, now_ms });
    }

    /// Deletions up to this time (Unix milliseconds) may be forgotten; `None` as long as a node may sleep that was never heard. The earliest clock
    /// counts, so that one that was set forward makes nobody forget; a node that was silent for the whole grace doubts what it holds when it
    /// is back, and holds nobody up.
    pub(super) fn gone_ms(
        &self,
        namespace: u16,
        others: impl IntoIterator<Item = StoreId>,
        own: Own,
    ) -> Option<u64> {
        let mut now_ms = own.now_ms.min(own.begun_ms.saturating_add(own.awake_for_ms));
        for store in others {
            match self.0.get(&(namespace, store)) {
                Some(told) => {
                    let silent_ms = own.awake_for_ms.saturating_sub(told.after_ms);
                    if silent_ms < own.grace_ms {
                        now_ms = now_ms.min(told.now_ms.saturating_add(silent_ms));
                    }
                }
                None if own.awake_for_ms >= own.grace_ms => {}
                None => return None,
            }
        }
        if is_planted(Fault::ForgetsByOwnClock) {
            now_ms = own.now_ms;
        }
        let gone_ms = now_ms.saturating_sub(own.grace_ms);
        // Rounded, so that replicas mostly forget the same.
        Some(gone_ms - gone_ms % FLOOR_STEP_MS.min(own.grace_ms / 4).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const BEGUN: u64 = 1_000_000 * HOUR;
    const OTHERS: [StoreId; 2] = [StoreId(2), StoreId(3)];

    fn own(awake_for_ms: u64) -> Own {
        Own { begun_ms: BEGUN, now_ms: BEGUN + awake_for_ms, awake_for_ms, grace_ms: 24 * HOUR }
    }

    #[test]
    fn nothing_is_forgotten_while_a_node_may_sleep() {
        let mut heard = Heard::default();
        let gone = |heard: &Heard, own| heard.gone_ms(16, OTHERS, own);
        heard.told(16, OTHERS[0], BEGUN + HOUR, own(HOUR));
        assert_eq!(gone(&heard, own(HOUR)), None);
        heard.told(16, OTHERS[1], BEGUN + HOUR, own(HOUR));
        assert_eq!(gone(&heard, own(HOUR)), Some(BEGUN - 23 * HOUR));
        assert_eq!(heard.gone_ms(17, OTHERS, own(HOUR)), None, "another namespace");
        // Whoever was silent for so long will doubt what it holds.
        assert_eq!(gone(&Heard::default(), own(25 * HOUR)), Some(BEGUN + HOUR));
        assert_eq!(gone(&heard, own(40 * HOUR)), Some(BEGUN + 16 * HOUR));
    }

    #[test]
    fn a_clock_that_was_set_forward_makes_nobody_forget() {
        let mut heard = Heard::default();
        let jumped = Own { now_ms: BEGUN + 9000 * HOUR, ..own(HOUR) };
        OTHERS.iter().for_each(|store| heard.told(16, *store, BEGUN, own(0)));
        assert_eq!(heard.gone_ms(16, OTHERS, jumped), Some(BEGUN - 23 * HOUR), "its own");
        heard.told(16, OTHERS[0], BEGUN + 9000 * HOUR, own(HOUR));
        assert_eq!(heard.gone_ms(16, OTHERS, own(HOUR)), Some(BEGUN - 23 * HOUR), "another one's");
        heard.told(16, OTHERS[1], BEGUN - 5 * HOUR, own(HOUR));
        assert_eq!(heard.gone_ms(16, OTHERS, own(HOUR)), Some(BEGUN - 29 * HOUR), "the earliest counts");
    }
}
