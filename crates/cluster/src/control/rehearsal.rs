//! The deciding parts of the control plane without raft, sockets and clocks: heartbeats go in, nominations come out. So the simulation of whole
//! members has them named managers by the planner that nodes run.

use super::change::{Change, Proposal, RequestId, State};
use super::detector::Detector;
use super::map::{ClusterId, NamespaceRow, NodeInfo, ShardId, ShardRow};
use super::planner::{Planner, PlannerConfig};
use super::report::{Beat, Report, Reports};
use crate::namespace::Mode;
use crate::namespaces::NamespaceSettings;
use crate::shard::MemberReport;
use kvorum_sync::{Epoch, Members, Membership, OpId, StoreId};
use std::collections::BTreeMap;

/// The shard that the map has.
const SHARD: ShardId = ShardId { namespace: 0, place: 0 };

/// A heartbeat on its way.
#[derive(Clone, Debug)]
pub struct Heartbeat(Beat);

/// A node's part: whom it hears, and what its member noticed.
#[derive(Debug)]
pub struct NodeSide {
    boot: u64,
    beats: u64,
    detector: Detector,
    reports: Reports,
}

impl NodeSide {
    /// That of a node that starts, with a number drawn at this start.
    #[must_use]
    pub fn new(boot: u64) -> NodeSide {
        NodeSide { boot, beats: 0, detector: Detector::default(), reports: Reports::default() }
    }

    /// The own member noticed something, at `now` microseconds.
    pub fn noticed(&mut self, report: MemberReport, now: u64) {
        let shard = SHARD;
        self.reports.add(
            &match report {
                MemberReport::Led { epoch } => Report::Led { shard, epoch },
                MemberReport::Wants { above, why } => Report::Wants { shard, above, why },
                MemberReport::LeaderMissing { epoch, at } => Report::LeaderMissing { shard, epoch, at },
            },
            now,
        );
    }

    /// The leader that the own member followed in this epoch can't be reached; the member holds everything up to `at`.
    pub fn leader_is_silent(&mut self, epoch: Epoch, at: OpId, now: u64) {
        self.reports.add(&Report::LeaderMissing { shard: SHARD, epoch, at }, now);
    }

    /// The own member, which leads in this epoch, finds a learner caught up.
    pub fn learner_is_ready(&mut self, epoch: Epoch, store: StoreId, now: u64) {
        self.reports.add(&Report::LearnerReady { shard: SHARD, epoch, store }, now);
    }

    /// Another node's heartbeat came.
    pub fn hears(&mut self, from: StoreId, beat: &Heartbeat, now: u64) {
        self.detector.beat(from, beat.0.clone(), now);
    }

    /// The next heartbeat, for a node that knows the newest map.
    pub fn beat(&mut self, plane: &Rehearsal, now: u64) -> Heartbeat {
        let map = &plane.state.map;
        self.detector.look(map, now);
        self.reports.prune(map, now);
        self.beats += 1;
        Heartbeat(Beat {
            boot: self.boot,
            number: self.beats,
            hears: self.detector.heard(now),
            sync_micros: 0,
            halted: self.reports.halted(),
            behind: self.reports.behind(),
            map_version: map.version,
            keeping: None,
            reports: self.reports.list(),
        })
    }
}

/// The map, and who decides what is to be changed in it.
#[derive(Debug)]
pub struct Rehearsal {
    state: State,
    detector: Detector,
    planner: Planner,
    entries: u64,
}

impl Rehearsal {
    /// A cluster of these nodes, with one shard that all of them keep.
    #[must_use]
    pub fn new(stores: &[StoreId]) -> Rehearsal {
        let copies = u8::try_from(stores.len()).ok();
        let settings =
            NamespaceSettings { shards: 1, replication: copies, ..NamespaceSettings::new(Mode::Strong) };
        let row = NamespaceRow { name: "0".to_owned(), settings, active: true, dropped: false };
        let found = Change::Found {
            cluster: ClusterId(1),
            nodes: stores.iter().enumerate().map(|(at, store)| (*store, info(at))).collect(),
            namespaces: BTreeMap::from([(SHARD.namespace, row)]),
        };
        let mut plane = Rehearsal {
            state: State::default(),
            detector: Detector::default(),
            planner: Planner::new(PlannerConfig::default()),
            entries: 0,
        };
        plane.apply(vec![found]);
        plane
    }

    fn apply(&mut self, changes: Vec<Change>) {
        self.entries += 1;
        let id = RequestId { number: self.entries, ..RequestId::default() };
        self.state.apply(&Proposal { id, changes });
    }

    /// A new store comes up in the place of the one that the node `at` had.
    pub fn replaces(&mut self, at: usize, fresh: StoreId) {
        let info = info(at);
        let replaces = self.state.map.named(&info.name);
        self.apply(vec![Change::Join { store: fresh, info, replaces }]);
    }

    /// A heartbeat came.
    pub fn hears(&mut self, from: StoreId, beat: Heartbeat, now: u64) {
        self.detector.beat(from, beat.0, now);
    }

    /// Another node decides from now on: it has heard all heartbeats as well, and has none of the memory that damps.
    pub fn change_hands(&mut self) {
        self.planner = Planner::new(PlannerConfig::default());
    }

    /// Decides.
    pub fn decide(&mut self, now: u64) {
        self.detector.look(&self.state.map, now);
        let changes = self.planner.plan(&self.state.map, &self.detector.view(now));
        if !changes.is_empty() {
            self.apply(changes);
        }
    }

    fn row(&self) -> Option<&ShardRow> {
        self.state.map.shards.get(&SHARD)
    }

    /// The last nomination: epoch, manager, members.
    #[must_use]
    pub fn nomination(&self) -> Option<(Epoch, StoreId, Membership)> {
        let last = self.row()?.nomination.as_ref()?;
        Some((last.epoch, last.manager, last.membership.clone()))
    }

    /// Who is to be caught up, once the last nominated manager is known to lead.
    #[must_use]
    pub fn learners(&self) -> Option<Members> {
        self.row().filter(|row| row.is_led()).map(|row| row.learners.clone())
    }

    /// Whether the shard is led by whom it was given to, and its members are these.
    #[must_use]
    pub fn is_settled(&self, stores: &[StoreId]) -> bool {
        self.row().is_some_and(|row| {
            row.is_led() && row.members() == row.acting() && *row.members() == Members::of(stores)
        })
    }
}

fn info(at: usize) -> NodeInfo {
    NodeInfo { name: format!("n{at}"), peer: format!("n{at}:1"), ..NodeInfo::default() }
}
