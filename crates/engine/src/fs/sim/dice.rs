//! The simulation's own randomness: the same numbers for a seed on every platform and in every release.

/// A small seeded generator (`SplitMix64`: Steele, Lea and Flood, 2014). For simulations, not for secrets.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that always roll the same for the same seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of a product: no bias that a test could see, and no division.
        ((u128::from(self.next_u64()) * u128::from(end)) >> 64) as u64
    }

    /// A length or index below `end`; 0 if `end` is 0.
    pub fn index(&mut self, end: usize) -> usize {
        self.below(end as u64) as usize
    }

    /// True once in `n` rolls.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.one_in(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut dice = Dice::new(0);
        assert_eq!(dice.next_u64(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(dice.next_u64(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn rolls_stay_below_their_end_and_reach_everything() {
        let mut dice = Dice::new(1);
        let mut seen = [0; 6];
        for _ in 0..600 {
            seen[dice.index(6)] += 1;
        }
        assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
        assert_eq!(dice.below(0), 0);
    }
}
