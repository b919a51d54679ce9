//! How long to wait before connecting again.

use std::time::Duration;

/// Waits that double, half of each by chance: nodes that lost the same peer do not come back to it at one moment.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
    dice: fastrand::Rng,
}

impl Backoff {
    pub(super) fn new(first: Duration, most: Duration, seed: u64) -> Backoff {
        Backoff { first, most, next: first, dice: fastrand::Rng::with_seed(seed) }
    }

    /// The wait before the next attempt.
    pub(super) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.most);
        whole.mul_f64(0.5 + self.dice.f64() / 2.0)
    }

    /// An attempt came through.
    pub(super) fn succeeded(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_bound_and_start_anew() {
        let ms = Duration::from_millis;
        for seed in 0..50 {
            let mut backoff = Backoff::new(ms(10), ms(100), seed);
            for whole in [10, 20, 40, 80, 100, 100] {
                let wait = backoff.wait();
                assert!(wait >= ms(whole) / 2 && wait <= ms(whole), "seed {seed}: {wait:?} of {whole}");
            }
            backoff.succeeded();
            assert!(backoff.wait() <= ms(10));
        }
    }

    #[test]
    fn a_seed_gives_the_same_waits() {
        let waits = |seed| {
            let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1), seed);
            (0..9).map(|_| backoff.wait()).collect::<Vec<_>>()
        };
        assert_eq!(waits(4), waits(4));
        assert_ne!(waits(4), waits(5));
    }
}
