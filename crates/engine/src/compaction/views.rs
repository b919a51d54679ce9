//! The model of views: whatever is written, sealed and compacted in whatever order, every view that is allowed sees what the plain list
//! of all operations says.

use super::rules::{MemorySpan, Rules, Span};
use super::stream::{Kept, Stream};
use crate::iter::{Cleared, Clears, Lookup, Step, Visibility};
use crate::sst::Head;
use crate::types::{InternalEntry, Kind, Sequence, Space, Version};
use bytes::Bytes;
use proptest::prelude::*;
use std::sync::Arc;

fn head_of(entry: &InternalEntry) -> Head {
    let &InternalEntry { version, sequence, kind, late, expires_at, tag, .. } = entry;
    Head { version, sequence, kind, late, expires_at, tag }
}

const KEYS: u8 = 3;
const VERSIONS: u64 = 16;
/// What every view must see of a key: version and payload of a value that has not expired.
type Answer = Option<(Version, Bytes)>;

#[derive(Debug, Clone)]
enum Action {
    Put { key: u8, version: Version, expires_at: Option<u64> },
    Delete { key: u8, version: Version },
    Retract { key: u8, version: Version },
    Clear { version: Version, with: Option<u8> },
    RetractClear { version: Version },
    Seal,
    Snapshot,
    Release,
    Floor(Version),
    TombstoneFloor(Version),
    ExpiryFloor(u64),
    Compact { from: usize, count: usize },
}

fn action() -> impl Strategy<Value = Action> {
    let key = || 0..KEYS;
    let version = || 1..VERSIONS;
    prop_oneof![
        12 => (key(), version(), proptest::option::weighted(0.2, 1u64..8))
            .prop_map(|(key, version, expires_at)| Action::Put { key, version, expires_at }),
        5 => (key(), version()).prop_map(|(key, version)| Action::Delete { key, version }),
        4 => (key(), version()).prop_map(|(key, version)| Action::Retract { key, version }),
        1 => (version(), proptest::option::of(key())).prop_map(|(version, with)| Action::Clear { version, with }),
        1 => version().prop_map(|version| Action::RetractClear { version }),
        6 => Just(Action::Seal),
        2 => Just(Action::Snapshot),
        2 => Just(Action::Release),
        2 => version().prop_map(Action::Floor),
        2 => version().prop_map(Action::TombstoneFloor),
        1 => (1u64..8).prop_map(Action::ExpiryFloor),
        6 => (0usize..5, 1usize..5).prop_map(|(from, count)| Action::Compact { from, count }),
    ]
}

#[derive(Default, Clone, Debug)]
struct Source {
    data: Vec<InternalEntry>,
    clears: Vec<InternalEntry>,
}

impl Source {
    fn add(&mut self, space: Space, entry: InternalEntry) {
        let list = if space == Space::Clears { &mut self.clears } else { &mut self.data };
        list.push(entry);
        list.sort_by_key(|e| (e.key.clone(), !e.version, !e.sequence));
    }

    fn span(&self) -> Span {
        let versions = || self.data.iter().chain(&self.clears).map(|e| e.version);
        Span {
            smallest_key: self.data.first().map_or(Bytes::new(), |e| e.key.clone()),
            largest_key: self.data.last().map_or(Bytes::new(), |e| e.key.clone()),
            has_data: !self.data.is_empty(),
            smallest_version: versions().min().unwrap_or(Version::MAX),
            largest_version: versions().max().unwrap_or(0),
            smallest_late: self.data.iter().filter(|e| e.late).map(|e| e.version).min(),
            has_retracts: self.data.iter().any(|e| e.kind == Kind::Retract),
            note_versions: None,
        }
    }
}

#[derive(Default)]
struct World {
    newest_only: bool,
    /// All that was ever written, in order, with true sequences.
    truth: Vec<(Space, InternalEntry)>,
    memory: Source,
    /// The newest first.
    sources: Vec<Source>,
    sequence: Sequence,
    sealed_largest: Version,
    snapshots: Vec<Sequence>,
    floor: Version,
    tombstone_floor: Version,
    collected: Version,
    expiry_floor: u64,
}

impl World {
    fn write(
        &mut self,
        space: Space,
        key: Option<u8>,
        version: Version,
        kind: Kind,
        expires_at: Option<u64>,
    ) {
        self.sequence += 1;
        let sequence = self.sequence;
        let payload =
            if kind == Kind::Value { Bytes::from(format!("written {sequence}")) } else { Bytes::new() };
        let late = space == Space::Data && version <= self.sealed_largest;
        let key = Bytes::from(key.map_or(vec![], |key| vec![key]));
        let entry = InternalEntry { key, version, sequence, kind, late, expires_at, tag: 0, payload };
        self.truth.push((space, entry.clone()));
        self.memory.add(space, entry);
    }

    fn refuses(&self, version: Version) -> bool {
        version <= if self.newest_only { self.collected } else { self.floor }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Put { version, .. }
            | Action::Delete { version, .. }
            | Action::Retract { version, .. }
            | Action::Clear { version, .. }
            | Action::RetractClear { version }
                if self.refuses(version) => {}
            // A tree that keeps no history can't bring back what a retracted entry hid.
            Action::Retract { .. } if self.newest_only => {}
            Action::Put { key, version, expires_at } => {
                self.write(Space::Data, Some(key), version, Kind::Value, expires_at);
            }
            Action::Delete { key, version } => {
                self.write(Space::Data, Some(key), version, Kind::Tombstone, None);
            }
            Action::Retract { key, version } => {
                self.write(Space::Data, Some(key), version, Kind::Retract, None);
            }
            Action::Clear { version, with } => {
                self.write(Space::Clears, None, version, Kind::Clear, None);
                if let Some(key) = with {
                    self.write(Space::Data, Some(key), version, Kind::Value, None);
                }
            }
            Action::RetractClear { version } => self.write(Space::Clears, None, version, Kind::Retract, None),
            Action::Seal => self.seal(),
            Action::Snapshot => self.snapshots.push(self.sequence),
            Action::Release => drop(self.snapshots.pop()),
            Action::Floor(version) if !self.newest_only => self.floor = self.floor.max(version),
            Action::Floor(_) => {}
            Action::TombstoneFloor(version) => self.tombstone_floor = self.tombstone_floor.max(version),
            Action::ExpiryFloor(time) => self.expiry_floor = self.expiry_floor.max(time),
            Action::Compact { from, count } => self.compact(from, count),
        }
    }

    /// What a flush does: the memtable becomes a source, through the same stream.
    fn seal(&mut self) {
        let sealed = std::mem::take(&mut self.memory);
        let values = sealed.data.iter().filter(|e| e.kind != Kind::Retract);
        self.sealed_largest = values.map(|e| e.version).max().unwrap_or(0).max(self.sealed_largest);
        self.sources.insert(0, sealed);
        self.compact(0, 1);
    }

    fn clears(&self) -> Clears {
        let mut entries: Vec<_> = self.sources.iter().chain([&self.memory]).flat_map(|s| &s.clears).collect();
        entries.sort_by_key(|e| e.sequence);
        clears_of(entries.into_iter())
    }

    fn compact(&mut self, from: usize, count: usize) {
        let end = (from + count).min(self.sources.len());
        if from >= end {
            return;
        }
        self.collected = self.collected.max(self.tombstone_floor);
        let mut views = self.snapshots.clone();
        views.sort_unstable();
        views.dedup();
        let memory = &self.memory.data;
        let rules = Rules {
            views,
            floor: (!self.newest_only).then_some(self.floor),
            drop_upto: self.collected,
            expiry_floor: self.expiry_floor,
            notes_floor: 0,
            clears: Arc::new(self.clears()),
            older: self.sources[end..].iter().map(Source::span).collect(),
            newer: self.sources[..from].iter().map(Source::span).collect(),
            memory: MemorySpan {
                smallest_version: memory.iter().map(|e| e.version).min().unwrap_or(Version::MAX),
                has_retracts: memory.iter().any(|e| e.kind == Kind::Retract),
            },
        };
        let inputs: Vec<_> = self.sources.drain(from..end).collect();
        let data = run(&rules, Space::Data, inputs.iter().map(|s| &s.data[..]));
        let clears = run(&rules, Space::Clears, inputs.iter().map(|s| &s.clears[..]));
        self.sources.insert(from, Source { data, clears });
    }

    /// What the files say, read as the store reads them.
    fn stored(&self, key: u8, view: &Visibility<&[Version]>) -> Answer {
        let mut lookup = Lookup::new(Visibility { at: view.at, upto: view.upto, hidden: view.hidden });
        'sources: for source in [&self.memory].into_iter().chain(&self.sources) {
            for entry in source.data.iter().filter(|e| e.key[..] == [key] && e.version <= view.at) {
                match lookup.offer(&head_of(entry), || Ok(entry.payload.clone())).expect("in memory") {
                    Step::Next => {}
                    Step::NextSource => continue 'sources,
                    Step::Done => break 'sources,
                }
            }
        }
        self.answer(lookup.into_best(), self.clears().seen(view))
    }

    /// What the plain list of operations says.
    fn true_answer(&self, key: u8, view: &Visibility<&[Version]>) -> Answer {
        let mut seen: Vec<_> = self
            .truth
            .iter()
            .filter(|(space, e)| {
                *space == Space::Data && e.key[..] == [key] && view.admits(e.version, e.sequence)
            })
            .map(|(_, e)| e)
            .collect();
        seen.sort_by_key(|e| (!e.version, !e.sequence));
        seen.dedup_by_key(|e| e.version);
        let clears =
            clears_of(self.truth.iter().filter(|(space, _)| *space == Space::Clears).map(|(_, e)| e));
        let found = seen.into_iter().find(|e| e.kind != Kind::Retract);
        self.answer(found.map(|e| (head_of(e), e.payload.clone())), clears.seen(view))
    }

    fn answer(&self, found: Option<(Head, Bytes)>, cleared: Option<Cleared>) -> Answer {
        let (head, payload) =
            found.filter(|(h, _)| h.kind == Kind::Value && !cleared.is_some_and(|c| c.deletes(h)))?;
        let expired = head.expires_at.is_some_and(|at| at <= self.expiry_floor);
        (!expired).then_some((head.version, payload))
    }

    fn check(&self) {
        let floor = if self.newest_only { Version::MAX } else { self.floor };
        for &upto in self.snapshots.iter().chain([&self.sequence]) {
            for at in (floor..=VERSIONS).chain([Version::MAX]) {
                let hideable = if self.newest_only { Version::MAX } else { floor + 1 };
                let one = (hideable..at.min(VERSIONS)).map(|v| vec![v]);
                let two = (hideable..at.min(VERSIONS)).map(|v| vec![v, v + 2]);
                for hidden in one.chain(two).chain([vec![]]) {
                    let view = Visibility { at, upto, hidden: &hidden[..] };
                    for key in 0..KEYS {
                        let (stored, truth) = (self.stored(key, &view), self.true_answer(key, &view));
                        assert_eq!(stored, truth, "key {key} by {view:?} of {:#?}", self.sources);
                    }
                }
            }
        }
    }
}

fn clears_of<'a>(entries: impl Iterator<Item = &'a InternalEntry>) -> Clears {
    entries.fold(Clears::default(), |clears, e| match e.kind {
        Kind::Clear => clears.with(Cleared { version: e.version, sequence: e.sequence, batch: e.sequence }),
        _ => clears.without(e.version, e.sequence),
    })
}

/// Merges the inputs, the newest first, and lets the stream judge.
fn run<'a>(
    rules: &Rules,
    space: Space,
    inputs: impl Iterator<Item = &'a [InternalEntry]>,
) -> Vec<InternalEntry> {
    let mut entries: Vec<_> = inputs.flatten().cloned().collect();
    // Stable: of equal pairs the newer source's come first, as each source has them.
    entries.sort_by_key(|e| (e.key.clone(), !e.version));
    let (mut stream, mut out) = (Stream::new(rules, space), Vec::new());
    let count = entries.len();
    entries.into_iter().for_each(|entry| stream.offer(entry, &mut out));
    let dropped = stream.finish(&mut out);
    if space == Space::Data {
        assert_eq!(count, out.len() + dropped.entries as usize);
    }
    let strip = |Kept { entry, keep_sequence }: Kept| InternalEntry {
        sequence: if keep_sequence { entry.sequence } else { 0 },
        ..entry
    };
    out.into_iter().map(strip).collect()
}

fn play(newest_only: bool, actions: &[Action]) -> World {
    let mut world = World { newest_only, ..World::default() };
    for action in actions {
        world.act(action);
        if matches!(action, Action::Compact { .. } | Action::Seal) {
            world.check();
        }
    }
    world.check();
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_view_sees_the_same_before_and_after(newest_only: bool, actions in proptest::collection::vec(action(), 1..60)) {
        play(newest_only, &actions);
    }

    #[test]
    fn when_nobody_looks_back_only_the_newest_values_stay(newest_only: bool, actions in proptest::collection::vec(action(), 1..60)) {
        let mut world = play(newest_only, &actions);
        world.snapshots.clear();
        for last in [Action::Floor(VERSIONS), Action::TombstoneFloor(VERSIONS), Action::Seal, Action::Compact { from: 0, count: 99 }] {
            world.act(&last);
        }
        // What a clear hides goes first; the clear itself, once nothing stands under it; then what stood with it loses its sequence.
        world.act(&Action::Compact { from: 0, count: 99 });
        world.act(&Action::Compact { from: 0, count: 99 });
        world.check();
        let [source] = &world.sources[..] else { panic!("one source: {:#?}", world.sources) };
        prop_assert!(source.clears.is_empty(), "{:#?}", source.clears);
        prop_assert!(source.data.len() <= usize::from(KEYS));
        for entry in &source.data {
            prop_assert_eq!((entry.kind, entry.late, entry.sequence), (Kind::Value, false, 0));
        }
    }
}

/// What the stream must not do, done: the model of views sees it.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_caught() {
    use crate::planted::{Planted, plant};
    use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
    let bugs = [Planted::TombstoneDroppedTooEarly, Planted::RetractDroppedTooEarly, Planted::LateBitCleared];
    let caught = bugs.map(|bug| {
        let config = ProptestConfig {
            cases: 2000,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..ProptestConfig::default()
        };
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let strategy = (any::<bool>(), proptest::collection::vec(action(), 1..60));
        plant(Some(bug));
        let played = TestRunner::new_with_rng(config, rng).run(&strategy, |(newest_only, actions)| {
            play(newest_only, &actions);
            Ok(())
        });
        (bug, played.is_err())
    });
    plant(None);
    assert!(caught.iter().all(|(_, caught)| *caught), "not caught: {caught:?}");
}
