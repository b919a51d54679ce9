//! Who lives: from heartbeats alone, on a clock that comes in. Every voter keeps such a view, so that a new raft leader has one at once.

use super::leave::Keeping;
use super::map::{Map, NodeState, ShardId};
use super::report::{Beat, REPORT_LIFE_MICROS, Report};
use kvorum_sync::{Ask, Epoch, OpId, StoreId};
use std::collections::{BTreeMap, BTreeSet};

/// How often a node sends its heartbeat.
pub(crate) const BEAT_EVERY_MICROS: u64 = 150_000;

/// A node that is silent for so long is dead: six heartbeats.
pub(crate) const DEAD_AFTER_MICROS: u64 = 900_000;

/// Longer than this between two looks, and it was this node that stood still, not the others.
const STALL_MICROS: u64 = 300_000;

/// What is known of one node.
#[derive(Debug)]
struct Heard {
    boot: u64,
    number: u64,
    /// When its last heartbeat came.
    last: u64,
    /// Since when it has been heard without a gap.
    since: u64,
    hears: BTreeSet<StoreId>,
    sync_micros: u64,
    halted: bool,
    behind: bool,
    map_version: u64,
    keeping: Option<Keeping>,
    reports: Vec<Report>,
}

/// The heartbeats that came in. Times are microseconds of one clock.
#[derive(Debug, Default)]
pub(crate) struct Detector {
    nodes: BTreeMap<StoreId, Heard>,
    /// When a node was first looked for that was never heard.
    awaited: BTreeMap<StoreId, u64>,
    looked: u64,
}

/// What one node looks like to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vital {
    /// `None`: never heard in this run.
    pub(crate) silent_micros: Option<u64>,
    pub(crate) sync_micros: u64,
    pub(crate) map_version: u64,
}

/// What the planner goes by: the heartbeats as of one moment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) now: u64,
    /// Heard lately, and since when.
    pub(crate) alive: BTreeMap<StoreId, u64>,
    /// Silent for too long, and since when. A node that was never heard is neither alive nor dead at first.
    pub(crate) dead: BTreeMap<StoreId, u64>,
    /// How long the syncs of living nodes took lately; 0: there were none.
    pub(crate) sync_micros: BTreeMap<StoreId, u64>,
    /// Living nodes whose stores take no writes.
    pub(crate) halted: BTreeSet<StoreId>,
    /// Living nodes that are being brought up to what the others have.
    pub(crate) behind: BTreeSet<StoreId>,
    /// Whom each living node hears.
    pub(crate) hears: BTreeMap<StoreId, BTreeSet<StoreId>>,
    /// Members to whom the leader of this epoch is silent, and how far they are.
    pub(crate) missing: BTreeMap<ShardId, BTreeMap<StoreId, (Epoch, OpId)>>,
    /// Members that want a nomination above this epoch.
    pub(crate) wants: BTreeMap<ShardId, BTreeMap<StoreId, (Epoch, Ask)>>,
    /// Who says that it leads, in which epoch.
    pub(crate) led: BTreeMap<ShardId, BTreeMap<StoreId, Epoch>>,
    /// Learners that are ready, by the word of the leader of this epoch.
    pub(crate) ready: BTreeMap<ShardId, BTreeMap<StoreId, Epoch>>,
    /// What nodes that are being removed have of available namespaces.
    pub(crate) keeping: BTreeMap<StoreId, Keeping>,
}

impl View {
    /// Whether a node is heard.
    pub(crate) fn is_alive(&self, store: StoreId) -> bool {
        self.alive.contains_key(&store)
    }

    /// Whether a node is known to be silent for too long.
    pub(crate) fn is_dead(&self, store: StoreId) -> bool {
        self.dead.contains_key(&store)
    }

    /// Whether a living node hears another one.
    pub(crate) fn hears(&self, listener: StoreId, speaker: StoreId) -> bool {
        listener == speaker || self.hears.get(&listener).is_some_and(|heard| heard.contains(&speaker))
    }
}

impl Detector {
    /// Takes in a heartbeat. Answers whether it says something about shards that the one before did not.
    pub(crate) fn beat(&mut self, from: StoreId, beat: Beat, now: u64) -> bool {
        let before = self.nodes.get(&from);
        if before.is_some_and(|heard| heard.boot == beat.boot && heard.number >= beat.number) {
            return false;
        }
        let news = before.is_none_or(|heard| heard.reports != beat.reports || heard.keeping != beat.keeping);
        let gap = |heard: &Heard| now.saturating_sub(heard.last) >= DEAD_AFTER_MICROS;
        let since =
            before.filter(|heard| !gap(heard) && heard.boot == beat.boot).map_or(now, |heard| heard.since);
        let heard = Heard {
            boot: beat.boot,
            number: beat.number,
            last: now,
            since,
            hears: beat.hears.into_iter().collect(),
            sync_micros: beat.sync_micros,
            halted: beat.halted,
            behind: beat.behind,
            map_version: beat.map_version,
            keeping: beat.keeping,
            reports: beat.reports,
        };
        self.nodes.insert(from, heard);
        self.awaited.remove(&from);
        news
    }

    /// Looks at the clock, before anything is asked. A node that stood still itself (stopped, suspended, starved) heard nobody meanwhile, and
    /// takes nobody for dead because of it.
    pub(crate) fn look(&mut self, map: &Map, now: u64) {
        let stood = now.saturating_sub(self.looked);
        if self.looked > 0 && stood > STALL_MICROS {
            let unheard = self.nodes.values_mut().filter(|heard| heard.last <= self.looked);
            unheard.for_each(|heard| heard.last += stood);
            self.awaited.values_mut().for_each(|at| *at += stood);
        }
        self.looked = now;
        self.nodes.retain(|store, _| map.state(*store) != NodeState::Left);
        self.awaited.retain(|store, _| map.nodes.contains_key(store));
        for (store, row) in &map.nodes {
            if row.state != NodeState::Left && !self.nodes.contains_key(store) {
                self.awaited.entry(*store).or_insert(now);
            }
        }
    }

    /// Whether a node is heard.
    pub(crate) fn is_alive(&self, store: StoreId, now: u64) -> bool {
        self.nodes.get(&store).is_some_and(|heard| now.saturating_sub(heard.last) < DEAD_AFTER_MICROS)
    }

    /// How long a node has been silent, or was waited for in vain; 0 of one that nobody knows.
    pub(crate) fn silent_micros(&self, store: StoreId, now: u64) -> u64 {
        let last = self.nodes.get(&store).map(|heard| heard.last);
        last.or_else(|| self.awaited.get(&store).copied()).map_or(0, |last| now.saturating_sub(last))
    }

    /// Everybody who is heard.
    pub(crate) fn heard(&self, now: u64) -> Vec<StoreId> {
        self.nodes.keys().copied().filter(|store| self.is_alive(*store, now)).collect()
    }

    /// What is known of a node.
    pub(crate) fn vital(&self, store: StoreId, now: u64) -> Vital {
        let heard = self.nodes.get(&store);
        Vital {
            silent_micros: heard.map(|heard| now.saturating_sub(heard.last)),
            sync_micros: heard.map_or(0, |heard| heard.sync_micros),
            map_version: heard.map_or(0, |heard| heard.map_version),
        }
    }

    /// What the planner goes by, at `now`.
    pub(crate) fn view(&self, now: u64) -> View {
        let mut view = View { now, ..View::default() };
        for (&store, &at) in &self.awaited {
            if now.saturating_sub(at) >= DEAD_AFTER_MICROS {
                view.dead.insert(store, at);
            }
        }
        for (&store, heard) in &self.nodes {
            if !self.is_alive(store, now) {
                view.dead.insert(store, heard.last);
                continue;
            }
            view.alive.insert(store, heard.since);
            view.hears.insert(store, heard.hears.clone());
            view.sync_micros.insert(store, heard.sync_micros);
            if heard.halted {
                view.halted.insert(store);
            }
            view.keeping.extend(heard.keeping.clone().map(|keeping| (store, keeping)));
            if heard.behind {
                view.behind.insert(store);
            }
            for report in &heard.reports {
                view.take(store, report);
            }
        }
        view
    }
}

impl View {
    fn take(&mut self, from: StoreId, report: &Report) {
        match *report {
            Report::Led { shard, epoch } => {
                self.led.entry(shard).or_default().insert(from, epoch);
            }
            Report::Wants { shard, above, why } => {
                self.wants.entry(shard).or_default().insert(from, (above, why));
            }
            Report::LeaderMissing { shard, epoch, at } => {
                self.missing.entry(shard).or_default().insert(from, (epoch, at));
            }
            Report::LearnerReady { shard, epoch, store } => {
                self.ready.entry(shard).or_default().insert(store, epoch);
            }
            Report::Disk { .. } | Report::Keeping(_) | Report::Behind(_) => {}
        }
    }
}

const _: () = assert!(DEAD_AFTER_MICROS >= 5 * BEAT_EVERY_MICROS && REPORT_LIFE_MICROS < DEAD_AFTER_MICROS);

#[cfg(test)]
mod tests {
    use super::super::map::{NodeInfo, NodeRow};
    use super::*;

    const A: StoreId = StoreId(1);
    const B: StoreId = StoreId(2);
    const SHARD: ShardId = ShardId { namespace: 0, place: 0 };

    fn map() -> Map {
        let row = |slot| NodeRow { info: NodeInfo::default(), slot, state: NodeState::Up };
        Map { version: 1, nodes: BTreeMap::from([(A, row(0)), (B, row(1))]), ..Map::default() }
    }

    fn beat(boot: u64, number: u64) -> Beat {
        Beat { boot, number, hears: vec![A], ..Beat::default() }
    }

    /// Looks often enough to have stood still at no time.
    fn look_until(detector: &mut Detector, from: u64, to: u64) {
        (from..=to).step_by(100_000).for_each(|now| detector.look(&map(), now));
    }

    #[test]
    fn silence_is_death_after_a_while() {
        let mut detector = Detector::default();
        detector.beat(A, beat(1, 1), 1_000_000);
        detector.beat(B, beat(1, 1), 1_000_000);
        look_until(&mut detector, 1_000_000, 1_800_000);
        detector.beat(B, beat(1, 2), 1_800_000);
        let view = detector.view(1_899_999);
        assert_eq!((view.is_alive(A), view.is_dead(A)), (true, false));
        let view = detector.view(1_900_000);
        assert_eq!((view.is_alive(A), view.dead[&A]), (false, 1_000_000));
        assert!(view.is_alive(B) && view.hears(B, A) && view.hears(B, B) && !view.hears(A, B));
        detector.beat(A, beat(1, 3), 2_000_000);
        assert_eq!(detector.view(2_000_000).alive[&A], 2_000_000, "back, but not as long as before");
    }

    #[test]
    fn overtaken_heartbeats_and_those_of_the_boot_before_count_right() {
        let mut detector = Detector::default();
        detector.beat(A, beat(1, 5), 10);
        assert!(!detector.beat(A, beat(1, 4), 20));
        assert_eq!(detector.vital(A, 20).silent_micros, Some(10));
        detector.beat(A, beat(2, 1), 30);
        assert_eq!(detector.view(30).alive[&A], 30, "a restart begins anew");
    }

    #[test]
    fn who_was_never_heard_is_dead_only_after_a_while() {
        let mut detector = Detector::default();
        look_until(&mut detector, 5_000_000, 5_800_000);
        let view = detector.view(5_899_999);
        assert!(!view.is_alive(A) && !view.is_dead(A));
        look_until(&mut detector, 5_900_000, 5_900_000);
        assert!(detector.view(5_900_000).is_dead(A));
    }

    #[test]
    fn who_stood_still_itself_takes_nobody_for_dead() {
        let mut detector = Detector::default();
        detector.look(&map(), 1_000_000);
        detector.beat(A, beat(1, 1), 1_000_000);
        detector.look(&map(), 60_000_000);
        assert!(detector.view(60_000_000).is_alive(A));
        look_until(&mut detector, 60_000_000, 60_900_000);
        assert!(detector.view(60_900_000).is_dead(A), "but nor does it wait for ever");
    }

    #[test]
    fn reports_are_of_the_living_and_each_heartbeat_replaces_them() {
        let mut detector = Detector::default();
        let epoch = Epoch::new(4).unwrap();
        let reports = vec![
            Report::Led { shard: SHARD, epoch },
            Report::Wants { shard: SHARD, above: epoch, why: Ask::NoCommit },
            Report::LeaderMissing { shard: SHARD, epoch, at: OpId::ZERO },
            Report::LearnerReady { shard: SHARD, epoch, store: B },
        ];
        assert!(detector.beat(A, Beat { reports: reports.clone(), ..beat(1, 1) }, 10));
        let slow = Beat { reports, sync_micros: 400_000, ..beat(1, 2) };
        assert!(!detector.beat(A, slow, 20), "nothing new");
        let view = detector.view(20);
        assert_eq!(view.sync_micros, BTreeMap::from([(A, 400_000)]));
        assert_eq!(view.led[&SHARD][&A], epoch);
        assert_eq!(view.wants[&SHARD][&A], (epoch, Ask::NoCommit));
        assert_eq!(view.missing[&SHARD][&A], (epoch, OpId::ZERO));
        assert_eq!(view.ready[&SHARD][&B], epoch);
        let silent = detector.view(20 + DEAD_AFTER_MICROS);
        assert!(silent.led.is_empty() && silent.sync_micros.is_empty());
        assert!(detector.beat(A, beat(1, 3), 30));
        assert!(detector.view(30).led.is_empty());
    }
}
