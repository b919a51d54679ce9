//! What a node tells the control plane: heartbeats, and what the members of its shards noticed. Nothing here is a decision.

use super::leave::Keeping;
use super::map::{Map, ShardId};
use kvorum_sync::{Ask, Epoch, OpId, StoreId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Reports in one heartbeat; what does not fit follows when the map has settled the first ones.
pub(crate) const BEAT_REPORTS_MAX: usize = 4096;

/// After so long without a repetition a missed leader counts as heard again, and a wish as given up.
pub(crate) const REPORT_LIFE_MICROS: u64 = 600_000;

/// What the members of this node's shards have to say. Cheap to make, may be repeated at will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The own member leads in this epoch. Repeated by itself until the map knows.
    Led { shard: ShardId, epoch: Epoch },
    /// The own member wants a nomination with an epoch above `above`. Repeat it while it holds: it ends
    /// [`REPORT_LIFE_MICROS`] after the last time.
    Wants { shard: ShardId, above: Epoch, why: Ask },
    /// The leader of this epoch is silent to the own member, which holds everything up to `at` (zero: not known). Only of shards that have
    /// something under way: idle ones are silent. Repeat it while it holds.
    LeaderMissing { shard: ShardId, epoch: Epoch, at: OpId },
    /// The leader of this epoch found that this learner holds all that it needs to become a member.
    LearnerReady { shard: ShardId, epoch: Epoch, store: StoreId },
    /// How long the own store's last syncs took, and whether it takes no writes (poisoned, full).
    Disk { sync_micros: u64, halted: bool },
    /// What the own node has of available namespaces, while it is being removed.
    Keeping(Option<Keeping>),
    /// Whether a member of this node is being brought up to what the others have.
    Behind(bool),
}

/// A heartbeat: all of a node's state that matters to the control plane. Each replaces the one before, so a lost one is harmless.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beat {
    /// Drawn at every start.
    pub(crate) boot: u64,
    /// Rising within a boot: an overtaken heartbeat is dropped.
    pub(crate) number: u64,
    /// Whom this node hears.
    pub(crate) hears: Vec<StoreId>,
    pub(crate) sync_micros: u64,
    /// Its store takes no writes: it should lead nothing.
    #[serde(default)]
    pub(crate) halted: bool,
    /// It is being brought up to what the others have: what it were to lead would stand still until then.
    #[serde(default)]
    pub(crate) behind: bool,
    pub(crate) map_version: u64,
    /// While it is being removed.
    #[serde(default)]
    pub(crate) keeping: Option<Keeping>,
    pub(crate) reports: Vec<Report>,
}

/// The reports of this node that the map has not settled yet.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    led: BTreeMap<ShardId, Epoch>,
    ready: BTreeMap<(ShardId, StoreId), Epoch>,
    wants: BTreeMap<ShardId, (Epoch, Ask, u64)>,
    missing: BTreeMap<ShardId, (Epoch, OpId, u64)>,
    sync_micros: u64,
    halted: bool,
    keeping: Option<Keeping>,
    behind: bool,
}

impl Reports {
    /// Takes a report in at `now` (microseconds). Answers whether it is worth a heartbeat at once.
    pub(crate) fn add(&mut self, report: &Report, now: u64) -> bool {
        match *report {
            Report::Led { shard, epoch } => self.led.insert(shard, epoch) != Some(epoch),
            Report::LearnerReady { shard, epoch, store } => {
                self.ready.insert((shard, store), epoch) != Some(epoch)
            }
            Report::Wants { shard, above, why } => {
                let before = self.wants.insert(shard, (above, why, now));
                before.is_none_or(|(epoch, ask, _)| (epoch, ask) != (above, why))
            }
            Report::LeaderMissing { shard, epoch, at } => {
                let before = self.missing.insert(shard, (epoch, at, now));
                before.is_none_or(|(known, _, _)| known != epoch)
            }
            Report::Disk { sync_micros, halted } => {
                self.sync_micros = sync_micros;
                std::mem::replace(&mut self.halted, halted) != halted
            }
            Report::Keeping(ref keeping) => {
                let is_news = self.keeping != *keeping;
                self.keeping.clone_from(keeping);
                is_news
            }
            Report::Behind(behind) => {
                self.behind = behind;
                false
            }
        }
    }

    /// The latency of the own disk, as last reported.
    pub(crate) fn sync_micros(&self) -> u64 {
        self.sync_micros
    }

    /// Whether the own store takes no writes, as last reported.
    pub(crate) fn halted(&self) -> bool {
        self.halted
    }

    /// What the own node has of available namespaces, as last reported.
    pub(crate) fn keeping(&self) -> Option<Keeping> {
        self.keeping.clone()
    }

    /// Whether a member of this node is being brought up to what the others have, as last reported.
    pub(crate) fn behind(&self) -> bool {
        self.behind
    }

    /// Forgets what the map knows by now, what it has passed by, and what was not repeated.
    pub(crate) fn prune(&mut self, map: &Map, now: u64) {
        let epoch_of = |shard: &ShardId| map.shards.get(shard).map(|row| row.register.epoch());
        self.led.retain(|shard, epoch| {
            map.shards.get(shard).is_some_and(|row| row.register.epoch() == *epoch && !row.is_led())
                || epoch_of(shard).is_some_and(|known| known < *epoch)
        });
        self.ready.retain(|(shard, store), epoch| {
            map.shards
                .get(shard)
                .is_some_and(|row| row.register.epoch() == *epoch && row.learners.contains(*store))
        });
        let lives = |at: u64| now.saturating_sub(at) < REPORT_LIFE_MICROS;
        self.wants.retain(|shard, (above, _, at)| {
            lives(*at) && epoch_of(shard).is_some_and(|known| known <= *above)
        });
        self.missing.retain(|shard, (epoch, _, at)| {
            lives(*at) && epoch_of(shard).is_some_and(|known| known <= *epoch)
        });
    }

    /// What goes into the next heartbeat: the urgent first.
    pub(crate) fn list(&self) -> Vec<Report> {
        let wants = self.wants.iter().map(|(&shard, &(above, why, _))| Report::Wants { shard, above, why });
        let missing =
            self.missing.iter().map(|(&shard, &(epoch, at, _))| Report::LeaderMissing { shard, epoch, at });
        let led = self.led.iter().map(|(&shard, &epoch)| Report::Led { shard, epoch });
        let ready =
            self.ready.iter().map(|(&(shard, store), &epoch)| Report::LearnerReady { shard, epoch, store });
        wants.chain(missing).chain(led).chain(ready).take(BEAT_REPORTS_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::map::{Nomination, ShardRow};
    use super::*;
    use kvorum_sync::{Members, Register};

    const SHARD: ShardId = ShardId { namespace: 0, place: 3 };

    fn epoch(number: u32) -> Epoch {
        Epoch::new(number).unwrap()
    }

    /// A map whose only shard was nominated `nominations` times.
    fn map(nominations: u32, led: bool) -> Map {
        let members = Members::of(&[StoreId(1), StoreId(2)]);
        let mut register = Register::new(members.clone());
        let mut nomination = None;
        for _ in 0..nominations {
            let (epoch, membership) = register.nominate(Epoch::ZERO, members.clone()).unwrap();
            nomination = Some(Nomination { epoch, manager: StoreId(1), membership, led });
        }
        let learners = Members::of(&[StoreId(9)]);
        let row = ShardRow { register, nomination, learners };
        Map { version: 1, shards: BTreeMap::from([(SHARD, row)]), ..Map::default() }
    }

    #[test]
    fn a_report_is_repeated_until_the_map_knows() {
        let mut reports = Reports::default();
        let led = Report::Led { shard: SHARD, epoch: epoch(1) };
        assert!(reports.add(&led, 0), "new: a heartbeat at once");
        assert!(!reports.add(&led, 0));
        reports.prune(&map(0, false), 1);
        assert_eq!(reports.list(), std::slice::from_ref(&led), "the map may be behind");
        reports.prune(&map(1, false), 9_000_000);
        assert_eq!(reports.list(), [led]);
        reports.prune(&map(1, true), 1);
        assert_eq!(reports.list(), []);
    }

    #[test]
    fn wishes_end_with_time_and_with_their_epoch() {
        let mut reports = Reports::default();
        let wants = Report::Wants { shard: SHARD, above: epoch(1), why: Ask::NotLeading };
        let missing = Report::LeaderMissing { shard: SHARD, epoch: epoch(1), at: OpId::ZERO };
        for report in [&wants, &missing] {
            assert!(reports.add(report, 1000));
        }
        reports.prune(&map(1, true), REPORT_LIFE_MICROS);
        assert_eq!(reports.list(), [wants.clone(), missing]);
        reports.prune(&map(1, true), 1000 + REPORT_LIFE_MICROS);
        assert_eq!(reports.list(), []);
        reports.add(&wants, 0);
        reports.prune(&map(2, false), 1);
        assert_eq!(reports.list(), [], "a higher epoch was given out");
    }

    #[test]
    fn a_learner_is_ready_in_the_epoch_of_its_leader_only() {
        let mut reports = Reports::default();
        let ready = Report::LearnerReady { shard: SHARD, epoch: epoch(1), store: StoreId(9) };
        reports.add(&ready, 0);
        reports.prune(&map(1, true), 9_000_000);
        assert_eq!(reports.list(), [ready]);
        reports.prune(&map(2, true), 0);
        assert_eq!(reports.list(), []);
    }

    #[test]
    fn a_heartbeat_comes_back_from_its_bytes() {
        let reports = vec![
            Report::Wants { shard: SHARD, above: epoch(9), why: Ask::StepDown(kvorum_sync::StepDown::Drain) },
            Report::Disk { sync_micros: 12, halted: true },
        ];
        let hears = vec![StoreId(u64::MAX)];
        let keeping = Some(Keeping { among: vec![StoreId(1)], slots: 1024 });
        let beat = Beat {
            boot: 1,
            number: 2,
            hears,
            sync_micros: 12,
            halted: true,
            behind: true,
            map_version: 4,
            keeping,
            reports,
        };
        let bytes = serde_json::to_vec(&beat).unwrap();
        let before = br#"{"boot":1,"number":2,"hears":[],"sync_micros":0,"map_version":4,"reports":[]}"#;
        assert_eq!(serde_json::from_slice::<Beat>(before).unwrap().keeping, None, "of an earlier release");
        assert_eq!(serde_json::from_slice::<Beat>(&bytes).unwrap(), beat);
    }

    #[test]
    fn a_heartbeat_is_bounded_and_urgent_first() {
        let mut reports = Reports::default();
        for place in 0..=BEAT_REPORTS_MAX as u16 {
            reports.add(&Report::Led { shard: ShardId { namespace: 1, place }, epoch: epoch(1) }, 0);
        }
        reports.add(&Report::Wants { shard: SHARD, above: epoch(1), why: Ask::NoCommit }, 0);
        assert!(reports.add(&Report::Disk { sync_micros: 70, halted: true }, 0), "that is news");
        assert!(!reports.add(&Report::Disk { sync_micros: 70, halted: true }, 0) && reports.halted());
        let list = reports.list();
        assert_eq!(list.len(), BEAT_REPORTS_MAX);
        assert!(matches!(list[0], Report::Wants { .. }));
        assert_eq!(reports.sync_micros(), 70);
    }
}
