//! Whole members over the real engine: one seed is one run, and promises are kept. `CLUSTER_SEEDS=n` runs more.

use kvorum_sim::cluster::{plan_of, run_plan};

#[test]
fn a_seed_of_whole_members_gives_one_trace_twice() {
    for seed in 1..=4 {
        let (one, two) = (run_plan(&plan_of(seed), false), run_plan(&plan_of(seed), true));
        assert_eq!(one.hash, two.hash, "seed {seed}");
        assert_eq!((one.events, one.commits), (two.events, two.commits), "seed {seed}");
    }
}

#[test]
fn whole_members_keep_their_promises() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut commits = 0;
    for seed in 1..=number("CLUSTER_SEEDS").unwrap_or(20) {
        let outcome = run_plan(&plan_of(seed), false);
        let failure = outcome.failure.unwrap_or_default();
        assert!(
            failure.is_empty(),
            "seed {seed}: {failure}\nreplay: cargo run --profile sim -p kvorum-sim -- --cluster --seed {seed}"
        );
        commits += outcome.commits;
    }
    assert!(commits > 0, "something was done");
}
