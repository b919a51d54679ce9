//! Foundings under bad weather: messages late and lost, nodes that stop and start again, in any order. Then the weather ends, and all must
//! get to one map. `SEEDS=500` runs more of them, `SEED=n` only one.

use super::mesh::{Machine, Mesh, peers};
use super::message::Standing;
use super::{Bootstrap, Map};
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
    stop_all(&mut machines).await;
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

/// Three machines with these store ids, and the list of all.
fn three(mesh: &Mesh, stores: [u64; 3]) -> ([Machine; 3], Bootstrap) {
    let names = ["a", "b", "c"];
    let machines = [0, 1, 2].map(|at| mesh.machine(names[at], stores[at]));
    let list = peers(&machines.iter().collect::<Vec<_>>());
    (machines, list)
}

async fn start_all(machines: &mut [Machine], list: &Bootstrap) {
    for machine in machines {
        machine.start(list.clone()).await;
    }
}

async fn stop_all(machines: &mut [Machine]) {
    for machine in machines {
        machine.stop().await;
    }
}

/// The second of them has voted, and nothing but votes has gone from one to another.
async fn stuck_behind_the_vote(mesh: &Mesh) -> ([Machine; 3], Bootstrap) {
    let (mut machines, list) = three(mesh, [10, 20, 30]);
    mesh.set_only(Some("Vote"));
    start_all(&mut machines, &list).await;
    until("b votes", || machines[1].control().0.has_voted()).await;
    (machines, list)
}

#[test]
fn who_voted_and_stopped_before_the_log_reached_it_takes_part_again() {
    run(async {
        let mesh = Mesh::new();
        let (mut machines, list) = stuck_behind_the_vote(&mesh).await;
        assert!(has_begun(&machines[0]) && !has_begun(&machines[1]), "the vote comes before the log");
        stop_all(&mut machines[1..]).await;
        mesh.set_only(None);
        machines[1].start(list.clone()).await;
        for machine in &machines[..2] {
            machine.sees("a map without the third", |map| map.is_founded()).await;
        }
        machines[2].start(list).await;
        machines[2].sees("the map", |map| map.is_founded()).await;
        stop_all(&mut machines).await;
    });
}

#[test]
fn who_voted_for_a_disk_that_is_gone_begins_no_log_and_another_does() {
    run(async {
        let mesh = Mesh::new();
        let (mut machines, list) = stuck_behind_the_vote(&mesh).await;
        stop_all(&mut machines).await;
        mesh.set_only(None);
        // The only log is gone; the lowest of the stores that are left has voted for it.
        machines[0].wipe(40);
        start_all(&mut machines, &list).await;
        for machine in &machines {
            let map = machine.sees("a map", |map| map.is_founded() && map.voters.len() == 3).await;
            assert!(map.nodes.contains_key(&machines[0].store_id));
        }
        stop_all(&mut machines).await;
    });
}

#[test]
fn who_hears_of_its_peers_only_after_one_has_begun_takes_part_all_the_same() {
    run(async {
        let mesh = Mesh::new();
        let (mut machines, list) = three(&mesh, [30, 10, 20]);
        let set_mute = |[a, b, c]: &[Machine; 3], is_mute| {
            mesh.set_mute(a, &[b, c], is_mute);
            mesh.set_mute(c, &[a, b], is_mute);
        };
        set_mute(&machines, true);
        start_all(&mut machines, &list).await;
        // The lowest store id meets all the others, new as it is, and begins; they have met nobody.
        until("it begins", || has_begun(&machines[1])).await;
        set_mute(&machines, false);
        for machine in &machines {
            machine.sees("one cluster", |map| map.is_founded() && map.voters.len() == 3).await;
        }
        stop_all(&mut machines).await;
    });
}
