//! The engine against a plain list of everything that was ever written, with all that may happen in between. Whatever view is taken, both
//! must answer alike, point by point and in ranges of both directions.

use kvorum_engine::fs::sim::SimFs;
use kvorum_engine::{
    Attributes, Batch, Cached, Direction, Durability, Error, Found, Parts, Settings, Snapshot, Store,
    SystemClock, Tree, TreeSettings, View,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const KEYS: u8 = 5;
const VERSIONS: u64 = 12;
/// Times at which values expire.
const TIMES: u64 = 100;

#[derive(Debug, Clone)]
enum Write {
    /// A value that may expire.
    Put(u8, u64, u8, Option<u64>),
    Delete(u8, u64),
    Retract(u8, u64),
    Clear(u64),
    RetractClear(u64),
    Note(u64, u8),
    RetractNote(u64),
}

#[derive(Debug, Clone)]
enum Step {
    /// Writes of one batch, each in one of the trees.
    Write(Vec<(usize, Write)>),
    Flush,
    Compact,
    Reopen,
    Snapshot,
    DropSnapshot(usize),
    Floor(u64),
    /// Tombstones and clears up to here may go: whether a key was deleted or never was is then the same.
    TombstoneFloor(u64),
    /// What expired up to here is deleted, sooner or later.
    ExpiryFloor(usize, u64),
    Check {
        at: u64,
        hidden: Vec<u64>,
    },
}

fn a_write() -> impl Strategy<Value = Write> {
    let (key, version) = (0..KEYS, 1..=VERSIONS);
    prop_oneof![
        6 => (key.clone(), version.clone(), any::<u8>()).prop_map(|(k, v, x)| Write::Put(k, v, x, None)),
        2 => (key.clone(), version.clone(), any::<u8>(), 1..TIMES).prop_map(|(k, v, x, at)| Write::Put(k, v, x, Some(at))),
        2 => (key.clone(), version.clone()).prop_map(|(k, v)| Write::Delete(k, v)),
        3 => (key, version.clone()).prop_map(|(k, v)| Write::Retract(k, v)),
        1 => version.clone().prop_map(Write::Clear),
        1 => version.clone().prop_map(Write::RetractClear),
        1 => (version.clone(), any::<u8>()).prop_map(|(v, x)| Write::Note(v, x)),
        1 => version.prop_map(Write::RetractNote),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => prop::collection::vec((0..NAMES.len(), a_write()), 1..5).prop_map(Step::Write),
        6 => Just(Step::Flush),
        3 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        2 => Just(Step::Snapshot),
        1 => (0..4_usize).prop_map(Step::DropSnapshot),
        1 => (0..VERSIONS / 2).prop_map(Step::Floor),
        1 => (0..VERSIONS / 2).prop_map(Step::TombstoneFloor),
        1 => (0..NAMES.len(), 0..TIMES).prop_map(|(tree, at)| Step::ExpiryFloor(tree, at)),
        6 => (0..=VERSIONS + 1, prop::collection::vec(1..=VERSIONS, 0..3)).prop_map(|(at, hidden)| Step::Check { at, hidden }),
    ]
}

/// One operation as it was written.
#[derive(Debug, Clone)]
struct Done {
    sequence: u64,
    batch: u64,
    write: Write,
}

#[derive(Debug, Default)]
struct Model {
    trees: [Vec<Done>; NAMES.len()],
    floors: [u64; NAMES.len()],
    expiry_floors: [u64; NAMES.len()],
}

/// Version and value; nothing for a key that is deleted or never was.
type Answer = Option<(u64, Vec<u8>)>;

fn value_of(x: u8) -> Vec<u8> {
    // Some values are long, so that blocks end within a key.
    vec![x; if x.is_multiple_of(16) { 700 } else { usize::from(x % 16) }]
}

impl Model {
    fn lowest(&self, tree: usize, write: &Write) -> bool {
        let floor = self.floors[tree];
        let (Write::Put(_, v, ..)
        | Write::Delete(_, v)
        | Write::Retract(_, v)
        | Write::Clear(v)
        | Write::RetractClear(v)) = write
        else {
            return false;
        };
        floor > 0 && *v <= floor
    }

    fn get(&self, tree: usize, key: u8, at: u64, upto: u64, hidden: &[u64]) -> Answer {
        let sees =
            |version: u64, sequence: u64| version <= at && sequence <= upto && !hidden.contains(&version);
        // By version the last operation counts: a value, a deletion, or nothing at all.
        let mut versions: BTreeMap<u64, (&Done, Option<Vec<u8>>, bool)> = BTreeMap::new();
        let mut clears: BTreeMap<u64, &Done> = BTreeMap::new();
        for done in &self.trees[tree] {
            match &done.write {
                Write::Put(k, v, x, expires_at) if *k == key && sees(*v, done.sequence) => {
                    let lives = expires_at.is_none_or(|at| at > self.expiry_floors[tree]);
                    drop(versions.insert(*v, (done, lives.then(|| value_of(*x)), true)));
                }
                Write::Delete(k, v) if *k == key && sees(*v, done.sequence) => {
                    drop(versions.insert(*v, (done, None, true)));
                }
                Write::Retract(k, v) if *k == key && sees(*v, done.sequence) => drop(versions.remove(v)),
                Write::Clear(v) if sees(*v, done.sequence) => drop(clears.insert(*v, done)),
                Write::RetractClear(v) if sees(*v, done.sequence) => drop(clears.remove(v)),
                _ => {}
            }
        }
        let (version, (done, value, _)) = versions.pop_last()?;
        let cleared = clears
            .last_key_value()
            .is_some_and(|(v, clear)| version < *v || (version == *v && done.sequence < clear.batch));
        if cleared { None } else { value.map(|value| (version, value)) }
    }

    fn notes(&self, tree: usize) -> Vec<(u64, Vec<u8>)> {
        let mut notes = BTreeMap::new();
        for done in &self.trees[tree] {
            match done.write {
                Write::Note(v, x) => drop(notes.insert(v, value_of(x))),
                Write::RetractNote(v) => drop(notes.remove(&v)),
                _ => {}
            }
        }
        notes.into_iter().rev().collect()
    }
}

/// As it can be written to the tree.
fn possible(tree: usize, write: &Write) -> Write {
    match *write {
        Write::Retract(key, version) if tree == NEWEST => Write::Delete(key, version),
        Write::RetractClear(version) if tree == NEWEST => Write::Clear(version),
        _ => write.clone(),
    }
}

struct Run {
    fs: SimFs,
    store: Option<Store>,
    model: Model,
    snapshots: Vec<Snapshot>,
}

const NAMES: [&str; 3] = ["one", "two", "newest"];
/// The tree without history: only its newest state is asked for, and nothing is taken back in it.
const NEWEST: usize = 2;

impl Run {
    fn new() -> Run {
        let mut run = Run { fs: SimFs::new(1), store: None, model: Model::default(), snapshots: Vec::new() };
        run.open();
        for (index, name) in NAMES.into_iter().enumerate() {
            let settings =
                if index == NEWEST { TreeSettings::newest_only() } else { TreeSettings::with_history() };
            run.store().tree(name, settings).expect("a tree");
        }
        run
    }

    fn open(&mut self) {
        let mut settings = Settings::default();
        settings.background_threads = false;
        settings.wal_segment_bytes = 1 << 16;
        settings.block_bytes = 256;
        // So small that a few tables of level 0 are reason enough to compact.
        settings.write_buffer_bytes = Some(8 << 10);
        let parts = Parts::new(Arc::new(self.fs.clone()), Arc::new(SystemClock::new()));
        self.store = Some(Store::open("/store", settings, parts).expect("the store opens"));
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("an open store")
    }

    fn tree(&self, index: usize) -> Tree {
        self.store().find_tree(NAMES[index]).expect("the tree is there")
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(writes) => self.write(writes),
            Step::Flush => self.store().flush().expect("flushed"),
            Step::Compact => self.store().compact().expect("compacted"),
            Step::Reopen => {
                self.snapshots.clear();
                self.store = None;
                self.open();
            }
            Step::Snapshot => self.snapshots.push(self.store().snapshot()),
            Step::DropSnapshot(index) if *index < self.snapshots.len() => drop(self.snapshots.remove(*index)),
            Step::DropSnapshot(_) => {}
            Step::Floor(floor) => {
                self.tree(0).set_floor(*floor).expect("raised");
                self.model.floors[0] = self.model.floors[0].max(*floor);
            }
            Step::TombstoneFloor(floor) => self.tree(0).set_tombstone_floor(*floor).expect("raised"),
            Step::ExpiryFloor(tree, floor) => {
                self.tree(*tree).set_expiry_floor(*floor).expect("raised");
                self.model.expiry_floors[*tree] = self.model.expiry_floors[*tree].max(*floor);
            }
            Step::Check { at, hidden } => self.check(*at, hidden),
        }
    }

    fn write(&mut self, writes: &[(usize, Write)]) {
        let mut batch = Batch::new();
        let writes: Vec<_> = writes.iter().map(|(tree, write)| (*tree, possible(*tree, write))).collect();
        for (index, write) in &writes {
            let tree = self.tree(*index);
            let attributes = Attributes::default();
            match write {
                Write::Put(k, v, x, expires_at) => {
                    let attributes = Attributes { expires_at: *expires_at, ..attributes };
                    batch.put(&tree, &[*k], *v, &value_of(*x), attributes);
                }
                Write::Delete(k, v) => batch.delete(&tree, &[*k], *v, attributes),
                Write::Retract(k, v) => batch.retract(&tree, &[*k], *v),
                Write::Clear(v) => batch.clear(&tree, *v),
                Write::RetractClear(v) => batch.retract_clear(&tree, *v),
                Write::Note(v, x) => batch.note(&tree, *v, &value_of(*x)),
                Write::RetractNote(v) => batch.retract_note(&tree, *v),
            }
        }
        let below = writes.iter().any(|(tree, write)| self.model.lowest(*tree, write));
        let mut written = self.store().write(&batch, Durability::Written);
        while let Err(Error::Busy { .. }) = written {
            self.store().flush().expect("flushed");
            written = self.store().write(&batch, Durability::Written);
        }
        match written {
            Err(Error::BelowFloor { .. }) => assert!(below, "refused for no reason"),
            Err(error) => panic!("{error}"),
            Ok(commit) => {
                assert!(!below, "taken below the floor");
                let first = commit.sequence() + 1 - writes.len() as u64;
                commit.wait().expect("written");
                for (sequence, (tree, write)) in (first..).zip(writes) {
                    self.model.trees[tree].push(Done { sequence, batch: first, write });
                }
            }
        }
    }

    fn check(&self, at: u64, hidden: &[u64]) {
        for index in 0..NAMES.len() {
            let (at, hidden) = if index == NEWEST { (u64::MAX, &[][..]) } else { (at, hidden) };
            let (tree, floor) = (self.tree(index), self.model.floors[index]);
            // What lies at or below the floor can't be pending any more.
            let hidden: Vec<u64> = hidden.iter().copied().filter(|v| *v > floor).collect();
            let views = std::iter::once(None).chain(self.snapshots.iter().map(Some));
            for snapshot in views {
                let upto = snapshot.map_or(u64::MAX, Snapshot::sequence);
                let view = View { at, hidden: &hidden, snapshot };
                if at < floor {
                    assert!(matches!(tree.get(&[0], &view), Err(Error::HistoryGone { .. })));
                    continue;
                }
                self.check_view(index, &tree, &view, upto);
            }
            let notes: Vec<_> =
                tree.notes(..).expect("readable").into_iter().map(|(v, n)| (v, n.to_vec())).collect();
            assert_eq!(notes, self.model.notes(index));
        }
    }

    /// Whether it is a value that has not expired: one that has may be there still, or be a tombstone by now.
    fn lives(&self, tree: usize, found: &Found) -> bool {
        found.is_value() && found.expires_at.is_none_or(|at| at > self.model.expiry_floors[tree])
    }

    fn check_view(&self, index: usize, tree: &Tree, view: &View<'_>, upto: u64) {
        let mut expected = Vec::new();
        for key in 0..KEYS {
            let answer = self.model.get(index, key, view.at, upto, view.hidden);
            let lives = |found: &Found| self.lives(index, found);
            let found = tree.get(&[key], view).expect("readable").filter(lives);
            assert_eq!(
                found.as_ref().map(|f| (f.version, f.value.to_vec())),
                answer,
                "key {key} of tree {index}, {view:?}"
            );
            let version = tree.version_of(&[key], view).expect("readable");
            assert_eq!(
                version.map(|f| f.version).filter(|_| answer.is_some()),
                answer.as_ref().map(|(v, _)| *v)
            );
            if let Cached::Ready(cached) = tree.get_cached(&[key], view).expect("readable") {
                assert_eq!(cached.filter(lives), found);
            }
            expected.extend(answer.map(|(version, value)| (vec![key], version, value)));
        }
        let read = |range: kvorum_engine::Range| -> Vec<_> {
            range
                .map(|pair| pair.expect("readable"))
                .filter(|(_, found)| self.lives(index, found))
                .map(|(key, f)| (key.to_vec(), f.version, f.value.to_vec()))
                .collect()
        };
        assert_eq!(
            read(tree.range(.., view, Direction::Forward).expect("a range")),
            expected,
            "forward, {view:?}"
        );
        let part: Vec<_> = expected.iter().filter(|(key, ..)| (1..3).contains(&key[0])).cloned().collect();
        assert_eq!(read(tree.range(&[1][..]..&[3][..], view, Direction::Forward).expect("a range")), part);
        expected.reverse();
        assert_eq!(
            read(tree.range(.., view, Direction::Backward).expect("a range")),
            expected,
            "backward, {view:?}"
        );
        let part: Vec<_> = expected.iter().filter(|(key, ..)| (1..=3).contains(&key[0])).cloned().collect();
        assert_eq!(read(tree.range(&[1][..]..=&[3][..], view, Direction::Backward).expect("a range")), part);
    }
}

/// How many runs: `PROPTEST_CASES` for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn every_view_answers_as_the_list_of_all_writes_does(steps in prop::collection::vec(a_step(), 1..100)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
        run.check(u64::MAX, &[]);
        run.step(&Step::Flush);
        run.check(u64::MAX, &[]);
    }
}
