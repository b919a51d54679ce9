//! One seed is one run.

use kvorum_sim::plan::Plan;
use kvorum_sim::run::run;

#[test]
fn a_seed_gives_one_trace_twice() {
    for seed in 1..=12 {
        let (one, two) = (run(&Plan::of(seed), false), run(&Plan::of(seed), true));
        assert_eq!(one.hash, two.hash, "seed {seed}");
        assert_eq!(
            (one.events, one.commits, &one.failure),
            (two.events, two.commits, &two.failure),
            "seed {seed}"
        );
    }
}

#[test]
fn seeds_differ() {
    let hashes: std::collections::BTreeSet<u64> =
        (1..=12).map(|seed| run(&Plan::of(seed), false).hash).collect();
    assert_eq!(hashes.len(), 12);
}
