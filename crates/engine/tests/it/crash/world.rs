//! One store, its device and what was promised of it, life after life.

use super::check::check;
use super::model::{Model, ModelTree, Op};
use kvorum_engine::fs::sim::{Dice, Fault, FaultKind, Operation, SimFs};
use kvorum_engine::{
    Attributes, Batch, Commit, Durability, Error, Parts, Result, Sequence, Settings, Store, Tree, TreeId,
    TreeSettings, WalRetention,
};
use std::sync::Arc;

const PATH: &str = "/store";
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A change of names that was begun and may or may not have happened.
#[derive(Clone, Copy)]
pub(super) enum Begun {
    Create(&'static str, bool),
    Drop(&'static str),
    Swap(&'static str, &'static str),
}

pub(crate) struct World {
    pub(super) dice: Dice,
    pub(super) fs: SimFs,
    pub(super) settings: Settings,
    pub(super) model: Model,
    pub(super) begun: Option<Begun>,
    /// What must survive a kill, and power loss.
    pub(super) written: Sequence,
    pub(super) synced: Sequence,
    /// What the log's own marks vouch for: what a flipped bit in it can't take away unnoticed.
    pub(super) vouched: Sequence,
    pub(super) seen_synced: Sequence,
    /// Acknowledged in whatever class, and told that it failed, in this life.
    pub(super) acknowledged: Sequence,
    pub(super) failed: Option<Sequence>,
    pub(super) version: u64,
    /// Values can be of so many bytes.
    pub(super) value_bytes: usize,
    /// Reads go to the wrong place in this life: damage may be found where there is none.
    pub(super) lies: bool,
    /// Nothing goes wrong in this life.
    pub(super) peaceful: bool,
    /// Tells its life on standard error: when one seed is replayed.
    pub(super) talks: bool,
}

impl World {
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.talks {
            eprintln!("{:5} {}", self.fs.operations(), what());
        }
    }

    pub(crate) fn new(mut dice: Dice) -> World {
        let fs = SimFs::new(dice.next_u64());
        // Large ones fill many log segments.
        let value_bytes = if dice.one_in(3) { 6000 } else { 60 };
        World {
            settings: settings(&mut dice),
            fs,
            dice,
            model: Model::default(),
            begun: None,
            written: 0,
            synced: 0,
            vouched: 0,
            seen_synced: 0,
            acknowledged: 0,
            failed: None,
            version: 1,
            value_bytes,
            lies: false,
            peaceful: false,
            talks: std::env::var_os("SEED").is_some(),
        }
    }

    /// A life that ends badly.
    pub(crate) fn live(&mut self) {
        self.prepare_faults();
        match self.open() {
            Ok(store) => {
                let steps = self.dice.below(60);
                for _ in 0..steps {
                    let result = self.step(&store);
                    self.judge(&store, result);
                    if self.fs.is_off() {
                        break;
                    }
                }
                if self.dice.one_in(4) {
                    let _ = store.close();
                    self.note_promises(&store);
                }
            }
            Err(Error::Io { .. } | Error::DiskFull { .. }) => {}
            Err(Error::Damaged { .. } | Error::UnknownFormat { .. }) if self.lies => {}
            Err(error) => panic!("the store does not open: {error}"),
        }
        let power_lost = self.dice.coin();
        self.tell(|| format!("the end: {}", if power_lost { "power loss" } else { "a kill" }));
        self.fs = if power_lost { self.fs.after_power_loss() } else { self.fs.after_kill() };
        self.fs.set_capacity(u64::MAX);
        if power_lost {
            self.written = self.synced;
        }
        if self.dice.one_in(3) {
            self.live_on_damage();
        }
    }

    /// The last life: nothing goes wrong, and all is looked at closely.
    pub(crate) fn live_in_peace(&mut self) {
        (self.lies, self.peaceful) = (false, true);
        for round in 0..2 {
            let store = self.open().expect("the store opens");
            self.check(&store);
            for _ in 0..20 {
                match self.step(&store) {
                    Err(Error::Busy { .. }) => drop(store.run_background().expect("the background works")),
                    done => done.expect("nothing goes wrong any more"),
                }
            }
            store.flush().expect("the store flushes");
            while store.run_background().expect("the background works") {}
            self.check(&store);
            store.close().expect("the store closes");
            self.check_leaks(&store);
            drop(store);
            if round == 1 {
                self.synced = self.model.last();
                self.fs = self.fs.after_power_loss();
                self.check(&self.open_again());
            }
        }
    }

    fn open_again(&self) -> Store {
        let parts = Parts::new(Arc::new(self.fs.clone()), self.fs.clock());
        Store::open(PATH, self.settings.clone(), parts).expect("a closed store opens")
    }

    /// Whatever is in the folders is part of the store.
    fn check_leaks(&self, store: &Store) {
        let count = |folder: &str| {
            self.fs.files().iter().filter(|(path, _)| path.starts_with(format!("{PATH}/{folder}"))).count()
                as u64
        };
        let stats = store.stats();
        assert_eq!(count("tables"), stats.tables, "tables: {:?}", self.fs.files());
        let files = self.fs.files();
        let manifests =
            files.iter().filter(|(path, _)| path.to_string_lossy().starts_with("/store/MANIFEST")).count();
        assert!(manifests <= 2, "{manifests} manifests");
        let segments =
            files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "wal")).count() as u64;
        // One may stand ready.
        assert!(segments <= stats.wal_segments + 1, "{:?}", self.fs.files());
    }

    fn prepare_faults(&mut self) {
        let dice = &mut self.dice;
        if dice.one_in(3) {
            self.fs.off_at(1 + dice.below(40));
        } else if dice.coin() {
            self.fs.off_at(1 + dice.below(400));
        }
        if dice.one_in(3) {
            let operations =
                [Operation::Write, Operation::Sync, Operation::Create, Operation::SyncDir, Operation::Name];
            let paths = ["wal", "tables", "MANIFEST", "", "blobs"];
            let operation = operations[dice.index(operations.len())];
            let path = paths[dice.index(paths.len())];
            self.fs.inject(Fault { skip: dice.below(30), ..Fault::once(operation, path) });
        }
        if dice.one_in(3) {
            let short = Fault::once(Operation::Write, "");
            self.fs.inject(Fault { skip: dice.below(30), times: 5, kind: FaultKind::Short, ..short });
        }
        if dice.one_in(6) {
            let used: u64 = self.fs.files().iter().map(|(_, len)| len).sum();
            self.fs.set_capacity(used + dice.below(6 << 20));
        }
        self.lies = dice.one_in(5);
        if self.lies {
            let misread = Fault::once(Operation::Read, "");
            self.fs.inject(Fault { skip: dice.below(80), kind: FaultKind::Misdirected, ..misread });
        }
        self.fs.set_cold_reads(dice.below(3));
    }

    /// Opens the store, finds out how far it goes and holds it to what was promised.
    pub(super) fn open(&mut self) -> Result<Store> {
        let parts = Parts::new(Arc::new(self.fs.clone()), self.fs.clock());
        let store = Store::open(PATH, self.settings.clone(), parts)?;
        let last = store.visible();
        assert!(last >= self.written, "promised up to {}, found up to {last}", self.written);
        self.tell(|| format!("a life begins at {last}; promised {} and {}", self.written, self.synced));
        self.model.cut(last);
        (self.written, self.synced, self.acknowledged, self.failed) = (last, last, last, None);
        self.seen_synced = last;
        self.settle_names(&store);
        self.check(&store);
        Ok(store)
    }

    /// A change of names that was cut off either happened or not.
    fn settle_names(&mut self, store: &Store) {
        let begun = self.begun.take();
        match begun {
            Some(Begun::Create(name, newest_only)) => {
                if let Some(tree) = store.find_tree(name) {
                    self.created(name, &tree, newest_only);
                }
            }
            Some(Begun::Drop(name)) if store.find_tree(name).is_none() => self.dropped(name),
            Some(Begun::Swap(one, other))
                if store.find_tree(one).is_some_and(|tree| tree.id() != self.model.names[one]) =>
            {
                self.swapped(one, other);
            }
            _ => {}
        }
    }

    fn created(&mut self, name: &str, tree: &Tree, newest_only: bool) {
        let known = self.model.trees.insert(tree.id(), ModelTree::new(newest_only));
        assert!(known.is_none(), "id {} was given twice", tree.id());
        self.model.names.insert(name.to_owned(), tree.id());
    }

    fn dropped(&mut self, name: &str) {
        self.model.names.remove(name);
    }

    fn swapped(&mut self, one: &str, other: &str) {
        let (a, b) = (self.model.names[one], self.model.names[other]);
        self.model.names.insert(one.to_owned(), b);
        self.model.names.insert(other.to_owned(), a);
    }

    pub(super) fn check(&self, store: &Store) {
        let mut dice = self.dice.clone();
        match check(store, &self.model, self.lies, &mut dice) {
            Ok(()) => {}
            Err(Error::Io { .. }) if self.fs.is_off() => {}
            Err(error) => panic!("a read failed: {error}"),
        }
    }

    /// What a step answered must be explained by what goes wrong.
    pub(super) fn judge(&mut self, store: &Store, result: Result<()>) {
        self.note_promises(store);
        if let Err(error) = &result {
            self.tell(|| error.to_string());
        }
        match result {
            Ok(()) | Err(Error::Busy { .. } | Error::DiskFull { .. } | Error::BelowFloor { .. }) => {}
            Err(Error::Poisoned { .. } | Error::Io { .. }) => {}
            Err(Error::Damaged { .. } | Error::UnknownFormat { .. }) if self.lies => {}
            Err(error) => panic!("a step failed: {error}"),
        }
        if store.stats().poisoned.is_some() && !self.fs.is_off() {
            let visible = store.visible();
            let failed = self.failed.filter(|&failed| failed > self.acknowledged);
            assert!(
                failed.is_none_or(|failed| visible < failed),
                "serves {visible}, which failed: {failed:?}"
            );
            assert!(visible >= self.acknowledged, "acknowledged {}, serves {visible}", self.acknowledged);
            if self.begun.is_none() {
                self.check(store);
            }
        }
    }

    fn note_promises(&mut self, store: &Store) {
        self.synced = self.synced.max(store.synced());
        if self.synced > self.seen_synced {
            // What was synced since stands in groups that say what had been synced before them.
            self.vouched = self.vouched.max(self.seen_synced);
            self.seen_synced = self.synced;
        }
        self.written = self.written.max(self.synced).max(store.acknowledged(Durability::Written));
    }

    pub(super) fn step(&mut self, store: &Store) -> Result<()> {
        match self.dice.below(40) {
            0 | 1 => {
                self.tell(|| "flush".to_owned());
                store.flush()?;
            }
            6 => {
                self.tell(|| "compact".to_owned());
                store.compact()?;
            }
            2..=5 => {
                self.tell(|| "background".to_owned());
                store.run_background()?;
            }
            7 => drop(store.lead()),
            8 if self.begun.is_none() => self.check(store),
            9..=11 => self.change_names(store)?,
            12 | 13 => self.raise_floors(store)?,
            _ => self.write(store)?,
        }
        Ok(())
    }

    fn change_names(&mut self, store: &Store) -> Result<()> {
        if self.begun.is_some() {
            // The one before failed, so what the names are shows in the next life.
            return Ok(());
        }
        let (one, other) = (NAMES[self.dice.index(4)], NAMES[self.dice.index(4)]);
        match (self.model.names.contains_key(one), self.model.names.contains_key(other)) {
            (true, true) if one != other && self.dice.coin() => {
                self.tell(|| format!("swap {one} and {other}"));
                self.begun = Some(Begun::Swap(one, other));
                store.swap_trees(one, other)?;
                self.swapped(one, other);
            }
            (true, _) if self.dice.one_in(4) => {
                self.tell(|| format!("drop {one}"));
                self.begun = Some(Begun::Drop(one));
                assert!(store.drop_tree(one)?, "there was no tree {one}");
                self.dropped(one);
            }
            (true, _) => {}
            (false, _) => self.create(store, one)?,
        }
        self.begun = None;
        Ok(())
    }

    fn create(&mut self, store: &Store, name: &'static str) -> Result<()> {
        let newest_only = self.dice.one_in(4);
        let settings = if newest_only { TreeSettings::newest_only() } else { TreeSettings::with_history() };
        self.tell(|| format!("create {name}, newest only: {newest_only}"));
        self.begun = Some(Begun::Create(name, newest_only));
        let tree = store.tree(name, settings)?;
        self.created(name, &tree, newest_only);
        self.begun = None;
        Ok(())
    }

    fn raise_floors(&mut self, store: &Store) -> Result<()> {
        let Some((name, id)) = self.any_tree() else { return Ok(()) };
        let Some(tree) = store.find_tree(&name) else { return Ok(()) };
        let to = self.version.saturating_sub(self.dice.below(60));
        self.tell(|| format!("raise a floor of {name} to {to}"));
        let Some(model) = self.model.trees.get_mut(&id) else { return Ok(()) };
        let expiry = self.dice.below(300);
        match self.dice.below(4) {
            // The model's floors rise first: whether the store's did is not known after an error.
            0 if !model.newest_only => {
                model.floor = model.floor.max(to);
                tree.set_floor(to)?;
            }
            1 => {
                model.tombstone_floor = model.tombstone_floor.max(to);
                tree.set_tombstone_floor(to)?;
            }
            2 => {
                model.expiry_floor = model.expiry_floor.max(expiry);
                tree.set_expiry_floor(expiry)?;
            }
            _ => {
                model.notes_from = model.notes_from.max(to);
                tree.retain_notes_from(to);
            }
        }
        Ok(())
    }

    fn any_tree(&mut self) -> Option<(String, TreeId)> {
        let count = self.model.names.len();
        let index = self.dice.index(count);
        self.model.names.iter().nth(index).map(|(name, id)| (name.clone(), *id))
    }

    fn write(&mut self, store: &Store) -> Result<()> {
        if self.model.names.is_empty() {
            return if self.begun.is_none() { self.create(store, "a") } else { Ok(()) };
        }
        let Some((batch, ops)) = self.compose(store) else { return Ok(()) };
        let durability = self.durability();
        self.tell(|| format!("write {durability:?} after {}: {ops:?}", self.model.last()));
        let commit = match store.write(&batch, durability) {
            Err(Error::Busy { .. }) if self.dice.coin() => store.write_admitted(&batch, durability)?,
            Err(Error::Busy { .. }) => {
                store.run_background()?;
                store.write(&batch, durability)?
            }
            taken => taken?,
        };
        let last = commit.sequence();
        self.model.write(last, &ops);
        if durability == Durability::Buffered {
            self.acknowledged = self.acknowledged.max(last);
        }
        match self.dice.below(12) {
            0 if durability == Durability::Synced => self.wait_long(store, commit),
            0..4 => self.wait(commit, durability),
            _ => Ok(()),
        }
    }

    pub(super) fn durability(&mut self) -> Durability {
        [Durability::Buffered, Durability::Written, Durability::Synced][self.dice.index(3)]
    }

    /// A batch over some of the trees.
    pub(super) fn compose(&mut self, store: &Store) -> Option<(Batch, Vec<(TreeId, Op)>)> {
        let mut batch = Batch::new();
        let mut ops = Vec::new();
        for _ in 0..1 + self.dice.index(5) {
            let Some((name, id)) = self.any_tree() else { break };
            let Some(tree) = store.find_tree(&name) else {
                assert!(self.begun.is_some(), "the model has tree {name}");
                break;
            };
            let op = self.op(id);
            add(&mut batch, &tree, &op);
            ops.push((id, op));
        }
        (!ops.is_empty()).then_some((batch, ops))
    }

    pub(super) fn wait(&mut self, commit: Commit, durability: Durability) -> Result<()> {
        let last = commit.sequence();
        let result = commit.wait();
        if result.is_ok() {
            self.acknowledged = self.acknowledged.max(last);
            match durability {
                Durability::Synced => self.synced = self.synced.max(last),
                Durability::Written => self.written = self.written.max(last),
                Durability::Buffered => {}
            }
        } else {
            self.failed = Some(self.failed.map_or(last, |failed| failed.min(last)));
        }
        result
    }

    fn op(&mut self, tree: TreeId) -> Op {
        let model = &self.model.trees[&tree];
        // Without history, nothing is left to come back from under what is taken back.
        let history = !model.newest_only;
        let lowest = 1 + if model.newest_only { model.tombstone_floor } else { model.floor };
        let dice = &mut self.dice;
        // Mostly rising; sometimes late; sometimes equal to an older one.
        let version = if dice.one_in(4) {
            lowest + dice.below(self.version.saturating_sub(lowest))
        } else {
            self.version = self.version.max(lowest) + 1;
            self.version
        };
        let key = vec![b'k', b'0' + dice.below(10) as u8];
        match dice.below(30) {
            0 => {
                self.version = self.version.max(lowest) + 1;
                Op::Clear { version: self.version }
            }
            1 if history => Op::RetractClear { version },
            2..=4 => Op::Note { version, bytes: vec![version as u8; dice.index(40)] },
            5 => Op::RetractNote { version },
            6..=9 => Op::Delete { key, version },
            10..=12 if history => Op::Retract { key, version },
            _ => {
                let length = if dice.one_in(8) { 3000 } else { self.value_bytes };
                let mut value = dice.next_u64().to_le_bytes().to_vec();
                value.resize(8 + dice.index(length), version as u8);
                let expires_at = dice.one_in(4).then(|| 1 + dice.below(1000));
                Op::Put { key, version, value, expires_at, tag: dice.below(4) as u8 }
            }
        }
    }
}

fn add(batch: &mut Batch, tree: &Tree, op: &Op) {
    match op {
        Op::Put { key, version, value, expires_at, tag } => {
            batch.put(tree, key, *version, value, Attributes { expires_at: *expires_at, tag: *tag });
        }
        Op::Delete { key, version } => batch.delete(tree, key, *version, Attributes::default()),
        Op::Retract { key, version } => batch.retract(tree, key, *version),
        Op::Clear { version } => batch.clear(tree, *version),
        Op::RetractClear { version } => batch.retract_clear(tree, *version),
        Op::Note { version, bytes } => batch.note(tree, *version, bytes),
        Op::RetractNote { version } => batch.retract_note(tree, *version),
    }
}

fn settings(dice: &mut Dice) -> Settings {
    let mut settings = Settings::default();
    settings.memory_bytes = 1 << 20;
    settings.write_buffer_bytes = Some(64 << 10);
    settings.memtable_bytes = Some(if dice.coin() { 2 << 10 } else { 16 << 10 });
    settings.wal_segment_bytes = 16 << 10;
    settings.wal_bytes_max = 8 << 20;
    settings.disk_reserve_bytes = 0;
    settings.blob_threshold_bytes = if dice.coin() { 1 << 20 } else { 64 };
    settings.block_bytes = 256;
    settings.compression = dice.coin();
    settings.wal_retention = if dice.one_in(6) { WalRetention::All } else { WalRetention::Freed };
    settings.background_threads = false;
    settings
}
