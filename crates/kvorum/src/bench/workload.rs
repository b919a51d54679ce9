//! Which operations come: keys, reads and writes, from a seed.

use super::options::Options;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation {
    /// A read; else a write.
    pub(crate) is_read: bool,
    /// Which key.
    pub(crate) key: u64,
}

/// The operations of one client.
pub(crate) struct Workload {
    random: SmallRng,
    keys: u64,
    reads_percent: u64,
    zipf: Option<Zipf<f64>>,
}

impl Workload {
    /// Of the client of that number.
    pub(crate) fn new(options: &Options, client: u64) -> Workload {
        // An error would mean a skew or count out of the range that the options allow.
        let zipf = (options.zipf > 0.0).then(|| Zipf::new(options.keys as f64, options.zipf).ok()).flatten();
        let random = SmallRng::seed_from_u64(options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ client);
        Workload { random, keys: options.keys, reads_percent: options.reads_percent, zipf }
    }

    /// The next operation.
    pub(crate) fn next(&mut self) -> Operation {
        let key = match &self.zipf {
            // Ranks are spread over all keys, so that the popular ones don't stand together.
            Some(zipf) => {
                (zipf.sample(&mut self.random) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % self.keys
            }
            None => self.random.random_range(0..self.keys),
        };
        Operation { is_read: self.random.random_range(0..100) < self.reads_percent, key }
    }
}

/// A key's name.
pub(crate) fn key_name(key: u64) -> String {
    format!("key:{key:012}")
}

/// The value that all writes carry: bytes that compression finds something in, as in life.
pub(crate) fn value(bytes: u64, seed: u64) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(seed);
    (0..bytes).map(|_| b'a' + random.random_range(0..16u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(zipf: f64) -> Vec<Operation> {
        let matches =
            super::super::options::command().get_matches_from(["bench", "--get", "25", "--keys", "1000"]);
        let mut options = Options::of(&matches, "", None, None).unwrap();
        options.zipf = zipf;
        let mut workload = Workload::new(&options, 3);
        (0..10_000).map(|_| workload.next()).collect()
    }

    #[test]
    fn a_seed_gives_the_same_operations_in_the_share_asked_for() {
        assert_eq!(drawn(0.0), drawn(0.0));
        let reads = drawn(0.0).iter().filter(|operation| operation.is_read).count();
        assert!((2_200..2_800).contains(&reads), "{reads}");
        assert!(drawn(0.0).iter().all(|operation| operation.key < 1000));
    }

    #[test]
    fn skew_makes_keys_popular() {
        let most = |operations: &[Operation]| {
            let count = |key| operations.iter().filter(|operation| operation.key == key).count();
            (0..1000).map(count).max().unwrap()
        };
        assert!(most(&drawn(0.99)) > 10 * most(&drawn(0.0)));
    }
}
