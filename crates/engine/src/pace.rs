//! A rate for work in the background: a token bucket that can go into debt. Bytes are charged when they were read or written; who can wait then waits until
//! they are paid for. It asks no clock itself.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What was not used lately can be used at once, for so long.
const BURST: Duration = Duration::from_millis(250);

pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    /// When all that was charged is paid for, on the store's clock.
    paid_at: Mutex<Duration>,
    waited_micros: AtomicU64,
}

impl Pace {
    /// So many bytes a second; 0 for as many as there are.
    pub(crate) fn new(bytes_per_second: u64) -> Pace {
        let bytes_per_second = Some(bytes_per_second).filter(|&rate| rate > 0);
        Pace { bytes_per_second, paid_at: Mutex::default(), waited_micros: AtomicU64::new(0) }
    }

    /// Takes bytes that were read or written.
    pub(crate) fn charge(&self, bytes: u64, now: Duration) {
        let Some(rate) = self.bytes_per_second else { return };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut paid_at = self.paid_at.lock();
        *paid_at = (*paid_at).max(now.saturating_sub(BURST)).saturating_add(cost);
    }

    /// How long it takes until all is paid for.
    pub(crate) fn owed(&self, now: Duration) -> Duration {
        self.paid_at.lock().saturating_sub(now)
    }

    /// Forgets what is owed: the work was urgent, and is not to be paid for when it no longer is.
    pub(crate) fn forgive(&self, now: Duration) {
        let mut paid_at = self.paid_at.lock();
        *paid_at = (*paid_at).min(now);
    }

    /// Learns how long somebody waited.
    pub(crate) fn waited(&self, time: Duration) {
        self.waited_micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn total_waited(&self) -> Duration {
        Duration::from_micros(self.waited_micros.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_charged_is_paid_for_at_the_rate() {
        let pace = Pace::new(1000);
        pace.charge(3000, 10 * SECOND);
        assert_eq!(
            pace.owed(10 * SECOND),
            3 * SECOND - BURST,
            "what was not used for a moment is there at once"
        );
        assert_eq!(pace.owed(11 * SECOND), 2 * SECOND - BURST);
        pace.charge(1000, 11 * SECOND);
        assert_eq!(pace.owed(11 * SECOND), 3 * SECOND - BURST);
        assert_eq!(pace.owed(20 * SECOND), Duration::ZERO);
        pace.charge(500, 100 * SECOND);
        assert_eq!(
            pace.owed(100 * SECOND),
            SECOND / 2 - BURST,
            "a long rest saves up no more than a short one"
        );
    }

    #[test]
    fn urgent_work_is_not_paid_for_later() {
        let pace = Pace::new(10);
        pace.charge(1000, SECOND);
        pace.forgive(2 * SECOND);
        assert_eq!(pace.owed(2 * SECOND), Duration::ZERO);
        pace.charge(10, 2 * SECOND);
        assert_eq!(pace.owed(2 * SECOND), SECOND, "nothing was saved up either");
    }

    #[test]
    fn without_a_rate_nothing_is_owed() {
        let pace = Pace::new(0);
        pace.charge(u64::MAX, SECOND);
        assert_eq!(pace.owed(SECOND), Duration::ZERO);
    }
}
