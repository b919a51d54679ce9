//! The sound core keeps every promise, seed after seed. `SEEDS=from..to` extends, `SEED=n` replays one.

use kvorum_sim::plan::Plan;
use kvorum_sim::run::run;

fn seeds() -> std::ops::Range<u64> {
    let number = |text: &str| text.parse().expect("SEED=n or SEEDS=from..to");
    if let Ok(seed) = std::env::var("SEED") {
        let seed = number(&seed);
        return seed..seed + 1;
    }
    let Ok(range) = std::env::var("SEEDS") else { return 1..61 };
    let (from, to) = range.split_once("..").expect("SEEDS=from..to");
    number(from)..number(to)
}

/// Seeds beyond the range above that once broke a promise; docs/bugs-found.md tells of each.
const ONCE_BROKEN: [u64; 2] = [740, 1409];

#[test]
fn seeds_that_once_failed_keep_their_promises() {
    for seed in ONCE_BROKEN {
        assert_eq!(run(&Plan::of(seed), false).failure, None, "seed {seed}");
    }
}

#[test]
fn the_sound_core_keeps_its_promises() {
    let (mut commits, mut reigns) = (0, 0);
    for seed in seeds() {
        let outcome = run(&Plan::of(seed), false);
        let failure = outcome.failure.unwrap_or_default();
        assert!(
            failure.is_empty(),
            "seed {seed}: {failure}\nreplay: cargo run --profile sim -p kvorum-sim -- --seed {seed}"
        );
        commits += outcome.commits;
        reigns += outcome.reigns;
    }
    println!("{commits} commits in {reigns} reigns");
    assert!(commits > 0 && reigns > 0, "something was done");
}
