//! The only source of chance: a generator whose stream for a seed is the same on every platform.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Seeded dice.
#[derive(Clone, Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Dice of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Dice of their own for a part of the run, so that drawing more in one part does not change another.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.0.random())
    }

    /// A number from `low` up to and without `high`; `low` if there is none.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        if high <= low { low } else { self.0.random_range(low..high) }
    }

    /// An index below `count`, which is not 0.
    pub fn index(&mut self, count: usize) -> usize {
        self.0.random_range(0..count)
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.0.random_bool(probability.min(1.0))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.random()
    }
}
