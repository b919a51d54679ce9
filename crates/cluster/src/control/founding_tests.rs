//! Foundings under bad weather: messages late and lost, nodes that stop and start again, in any order. Then the weather ends, and all must
//! get to one map. `SEEDS=500` runs more of them, `SEED=n` only one.

use super::Map;
use super::mesh::{Machine, Mesh, peers};
use super::message::Standing;
use std::collections::BTreeSet;
use std::time::Duration;

/// Foundings without the variable.
const SEEDS: u64 = 12;

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(test);
}

async fn pause(dice: &mut fastrand::Rng, most_ms: u64) {
    tokio::time::sleep(Duration::from_millis(dice.u64(0..most_ms))).await;
}

/// Who has voted and has no log yet, as soon as there is one: the worst moment to stop. `None` if nobody comes there.
async fn half_way(machines: &[Machine]) -> Option<usize> {
    for _ in 0..300 {
        let at = machines.iter().position(|machine| machine.control().0.has_voted() && !has_begun(machine));
        if at.is_some() {
            return at;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

/// One founding. Store ids, order, pauses, and who stops when, all by the seed.
async fn found(seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mesh = Mesh::new();
    let names = ["a", "b", "c", "d", "e"];
    let count = *dice.choice(&[2, 3, 3, 3, 3, 4, 5]).unwrap();
    let mut machines: Vec<Machine> =
        names[..count].iter().map(|name| mesh.machine(name, dice.u64(1..1_000_000))).collect();
    let list = peers(&machines.iter().collect::<Vec<_>>());
    mesh.set_weather(Some(seed));
    dice.shuffle(&mut machines);
    for machine in &mut machines {
        machine.start(list.clone()).await;
        if dice.bool() {
            pause(&mut dice, 1200).await;
        }
    }
    for _ in 0..dice.usize(0..5) {
        let at = match dice.bool() {
            true => half_way(&machines).await,
            false => None,
        };
        let at = match at {
            Some(at) => at,
            None => {
                pause(&mut dice, 2000).await;
                dice.usize(..count)
            }
        };
        machines[at].stop().await;
        pause(&mut dice, 1500).await;
        machines[at].start(list.clone()).await;
    }
    pause(&mut dice, 1500).await;
    mesh.set_weather(None);
    let mut clusters = BTreeSet::new();
    for machine in &machines {
        let all = |map: &Map| map.is_founded() && map.nodes.len() == count;
        let map = machine.sees(&format!("the cluster of seed {seed}"), all).await;
        clusters.insert(map.cluster);
    }
    assert_eq!(clusters.len(), 1, "seed {seed}: {clusters:?}");
    for machine in &mut machines {
        machine.stop().await;
    }
}

#[test]
fn every_founding_ends_and_in_one_cluster() {
    for seed in seeds() {
        run(found(seed));
    }
}

fn has_begun(machine: &Machine) -> bool {
    matches!(machine.control().0.introduce().standing, Standing::Member { .. })
}

async fn until(what: &str, is: impl Fn() -> bool) {
    for _ in 0..2000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[test]
fn who_voted_and_stopped_before_the_log_reached_it_takes_part_again() {
    run(async {
        let mesh = Mesh::new();
        let (mut a, mut b, mut c) = (mesh.machine("a", 10), mesh.machine("b", 20), mesh.machine("c", 30));
        let list = peers(&[&a, &b, &c]);
        mesh.set_only(Some("Vote"));
        for machine in [&mut a, &mut b, &mut c] {
            machine.start(list.clone()).await;
        }
        until("b votes", || b.control().0.has_voted()).await;
        assert!(has_begun(&a) && !has_begun(&b), "the vote comes before the log");
        b.stop().await;
        c.stop().await;
        mesh.set_only(None);
        b.start(list.clone()).await;
        for machine in [&a, &b] {
            machine.sees("a map without the third", |map| map.is_founded()).await;
        }
        c.start(list).await;
        c.sees("the map", |map| map.is_founded()).await;
        for machine in [&mut a, &mut b, &mut c] {
            machine.stop().await;
        }
    });
}

#[test]
fn who_voted_for_a_disk_that_is_gone_begins_no_log_and_another_does() {
    run(async {
        let mesh = Mesh::new();
        let (mut a, mut b, mut c) = (mesh.machine("a", 10), mesh.machine("b", 20), mesh.machine("c", 30));
        let list = peers(&[&a, &b, &c]);
        mesh.set_only(Some("Vote"));
        for machine in [&mut a, &mut b, &mut c] {
            machine.start(list.clone()).await;
        }
        until("b votes", || b.control().0.has_voted()).await;
        for machine in [&mut a, &mut b, &mut c] {
            machine.stop().await;
        }
        mesh.set_only(None);
        // The only log is gone; the lowest of the stores that are left has voted for it.
        a.wipe(40);
        for machine in [&mut a, &mut b, &mut c] {
            machine.start(list.clone()).await;
        }
        for machine in [&a, &b, &c] {
            let map = machine.sees("a map", |map| map.is_founded() && map.voters.len() == 3).await;
            assert!(map.nodes.contains_key(&a.store_id));
        }
        for machine in [&mut a, &mut b, &mut c] {
            machine.stop().await;
        }
    });
}

#[test]
fn who_hears_of_its_peers_only_after_one_has_begun_takes_part_all_the_same() {
    run(async {
        let mesh = Mesh::new();
        let (mut a, mut b, mut c) = (mesh.machine("a", 30), mesh.machine("b", 10), mesh.machine("c", 20));
        let list = peers(&[&a, &b, &c]);
        mesh.set_mute(&a, &[&b, &c], true);
        mesh.set_mute(&c, &[&a, &b], true);
        for machine in [&mut a, &mut b, &mut c] {
            machine.start(list.clone()).await;
        }
        // The lowest store id meets all the others, new as it is, and begins; they have met nobody.
        until("it begins", || has_begun(&b)).await;
        mesh.set_mute(&a, &[&b, &c], false);
        mesh.set_mute(&c, &[&a, &b], false);
        for machine in [&a, &b, &c] {
            machine.sees("one cluster", |map| map.is_founded() && map.voters.len() == 3).await;
        }
        for machine in [&mut a, &mut b, &mut c] {
            machine.stop().await;
        }
    });
}
