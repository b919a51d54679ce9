//! A tree: one map `(key, version) → entry` of a store.

use crate::error::{Error, Result};
use crate::iter::{Bounds, Clears, Cursor, Lookup, MemoryCursor, Merge, Range, RangeParts, Step, Visibility};
use crate::memtable::{List, Memtable, Summary};
use crate::options::TreeSettings;
use crate::store::Shared;
use crate::types::{InternalEntry, Kind, Sequence, Space, Version};
use crate::view::{Cached, Direction, Found, FoundKind, FoundVersion, View};
use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::RwLock;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// A tree's number; never reused.
pub type TreeId = u32;

/// A handle to a tree. Cheap to clone.
#[derive(Clone)]
pub struct Tree {
    shared: Arc<Shared>,
    state: Arc<TreeState>,
}

/// What all handles of a tree share.
pub(crate) struct TreeState {
    pub(crate) id: TreeId,
    pub(crate) settings: TreeSettings,
    pub(crate) name: RwLock<Arc<str>>,
    pub(crate) sources: ArcSwap<Sources>,
    pub(crate) floors: Floors,
    /// The largest version in sealed sources: a write that is not above it is late.
    pub(crate) sealed_largest: AtomicU64,
    pub(crate) dropped: AtomicBool,
}

/// The caller's bounds on history. They only rise.
#[derive(Default)]
pub(crate) struct Floors {
    pub(crate) history: AtomicU64,
    pub(crate) tombstone: AtomicU64,
    pub(crate) expiry: AtomicU64,
    /// The highest tombstone or clear that was dropped.
    pub(crate) gc: AtomicU64,
    /// Notes below are released.
    pub(crate) notes: AtomicU64,
}

/// Where a tree's entries stand, at a moment. Never changed, only replaced.
#[derive(Clone, Default)]
pub(crate) struct Sources {
    pub(crate) active: Option<Arc<dyn Memtable>>,
    /// Full memtables that are being flushed, the newest first.
    pub(crate) sealed: Vec<Arc<dyn Memtable>>,
    pub(crate) clears: Option<Arc<Clears>>,
}

impl Sources {
    pub(crate) fn memtables(&self) -> impl Iterator<Item = &Arc<dyn Memtable>> {
        self.active.iter().chain(self.sealed.iter())
    }

    /// One cursor for each source, the newest first.
    fn cursors(&self, space: Space, bounds: &Bounds, backward: bool) -> Vec<Box<dyn Cursor>> {
        let memory = |m: &Arc<dyn Memtable>| {
            Box::new(MemoryCursor::new(Arc::clone(m), space, bounds, backward)) as Box<dyn Cursor>
        };
        self.memtables().map(memory).collect()
    }
}

impl TreeState {
    pub(crate) fn new(id: TreeId, name: &str, settings: TreeSettings) -> TreeState {
        TreeState {
            id,
            settings,
            name: RwLock::new(name.into()),
            sources: ArcSwap::default(),
            floors: Floors::default(),
            sealed_largest: AtomicU64::new(0),
            dropped: AtomicBool::new(false),
        }
    }

    /// The memtable that takes writes. Called by the writer alone.
    pub(crate) fn writable(&self) -> Arc<dyn Memtable> {
        if let Some(active) = &self.sources.load().active {
            return Arc::clone(active);
        }
        let fresh: Arc<dyn Memtable> = Arc::new(List::default());
        self.sources.rcu(|sources| Sources { active: Some(Arc::clone(&fresh)), ..Sources::clone(sources) });
        fresh
    }

    pub(crate) fn memory(&self) -> Summary {
        let mut total = Summary::default();
        for memtable in self.sources.load().memtables() {
            let summary = memtable.summary();
            total.bytes += summary.bytes;
            total.entries += summary.entries;
        }
        total
    }

    /// Nothing at or below this may be written.
    pub(crate) fn write_floor(&self) -> Version {
        let floor = if self.settings.newest_only { &self.floors.gc } else { &self.floors.history };
        floor.load(Acquire)
    }

    fn check_readable(&self, at: Version) -> Result<()> {
        let floor = self.floors.history.load(Acquire);
        if at < floor { Err(Error::HistoryGone { asked: at, floor }) } else { Ok(()) }
    }

    fn check_exists(&self) -> Result<()> {
        if self.dropped.load(Acquire) {
            return Err(Error::Invalid(format!("tree {} ({}) was dropped", self.name.read(), self.id)));
        }
        Ok(())
    }
}

impl Tree {
    pub(crate) fn new(shared: Arc<Shared>, state: Arc<TreeState>) -> Tree {
        Tree { shared, state }
    }

    pub(crate) fn state(&self) -> &Arc<TreeState> {
        &self.state
    }

    /// Its name.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.state.name.read())
    }

    /// Its number, never given to another tree of the store.
    pub fn id(&self) -> TreeId {
        self.state.id
    }

    /// How it was created.
    pub fn settings(&self) -> TreeSettings {
        self.state.settings
    }

    /// What the view sees of a key; a tombstone is an answer too. May wait for the disk.
    ///
    /// # Errors
    /// `HistoryGone` below the floor; `Io` and `Damaged` of the files read.
    pub fn get(&self, key: &[u8], view: &View<'_>) -> Result<Option<Found>> {
        Ok(self.find(key, view)?.map(|entry| {
            let kind = FoundKind::of(entry.kind);
            Found {
                version: entry.version,
                sequence: entry.sequence,
                kind,
                value: entry.payload,
                expires_at: entry.expires_at,
                tag: entry.tag,
            }
        }))
    }

    /// As [`Tree::get`], if that is possible without waiting for the disk.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn get_cached(&self, key: &[u8], view: &View<'_>) -> Result<Cached> {
        self.get(key, view).map(Cached::Ready)
    }

    /// As [`Tree::get`] without the value, which is not read where it stands apart.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn version_of(&self, key: &[u8], view: &View<'_>) -> Result<Option<FoundVersion>> {
        Ok(self.find(key, view)?.map(|entry| FoundVersion {
            version: entry.version,
            sequence: entry.sequence,
            kind: FoundKind::of(entry.kind),
            expires_at: entry.expires_at,
            tag: entry.tag,
        }))
    }

    /// As [`Tree::version_of`], if that is possible without waiting for the disk.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn version_of_cached(&self, key: &[u8], view: &View<'_>) -> Result<Cached<Option<FoundVersion>>> {
        self.version_of(key, view).map(Cached::Ready)
    }

    fn find(&self, key: &[u8], view: &View<'_>) -> Result<Option<InternalEntry>> {
        // The sources first, then the sequence: what the sources lack is then newer than what is seen of them, never older.
        let sources = self.state.sources.load();
        let upto = view.snapshot.map_or_else(|| self.shared.visible(), |s| s.sequence());
        self.state.check_readable(view.at)?;
        let visibility = Visibility { at: view.at, upto, hidden: view.hidden };
        let cleared = sources.clears.as_ref().and_then(|clears| clears.seen(&visibility));
        let mut lookup = Lookup::new(visibility);
        for memtable in sources.memtables() {
            let mut step = Step::Next;
            memtable.lookup(key, view.at, &mut |entry| {
                step = lookup.offer(entry);
                if step == Step::Next { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if step == Step::Done {
                break;
            }
        }
        let found = lookup.into_best();
        let Some(cleared) = cleared else { return Ok(found) };
        // A clear answers as a tombstone, for every key, so that the answer does not depend on what was there or what compaction removed.
        Ok(Some(found.filter(|entry| !cleared.deletes(entry)).unwrap_or_else(|| InternalEntry {
            key: Bytes::new(),
            version: cleared.version,
            sequence: cleared.sequence,
            kind: Kind::Tombstone,
            late: false,
            expires_at: None,
            tag: 0,
            payload: Bytes::new(),
        })))
    }

    /// Streams what the view sees of a range of keys: the newest visible entry of each, in key order or backwards. Deleted keys are left out,
    /// unless [`Range::with_tombstones`] asks for them.
    ///
    /// # Errors
    /// `HistoryGone` below the floor; `Io` and `Damaged` of the files read, also by the iterator, which then ends.
    pub fn range<'k>(
        &self,
        keys: impl RangeBounds<&'k [u8]>,
        view: &View<'_>,
        direction: Direction,
    ) -> Result<Range> {
        let owned = |bound: Bound<&&[u8]>| bound.map(|key| Bytes::copy_from_slice(key));
        self.range_of(
            &Bounds { low: owned(keys.start_bound()), high: owned(keys.end_bound()) },
            view,
            direction,
        )
    }

    /// As [`Tree::range`] over the keys that begin with `prefix`.
    ///
    /// # Errors
    /// As [`Tree::range`].
    pub fn prefix(&self, prefix: &[u8], view: &View<'_>, direction: Direction) -> Result<Range> {
        self.range_of(&Bounds::prefix(prefix), view, direction)
    }

    fn range_of(&self, bounds: &Bounds, view: &View<'_>, direction: Direction) -> Result<Range> {
        let (sources, upto) = self.pin(view);
        self.state.check_readable(view.at)?;
        let backward = direction == Direction::Backward;
        let visibility = Visibility { at: view.at, upto, hidden: view.hidden.to_vec() };
        let cleared = sources.clears.as_ref().and_then(|clears| clears.seen(&visibility));
        let merge = Merge::new(sources.cursors(Space::Data, bounds, backward), backward);
        Ok(Range::new(RangeParts { merge, view: visibility, cleared, backward, pin: None }))
    }

    /// Sources and a sequence that belong together: no clear up to the sequence is missing from the sources.
    fn pin(&self, view: &View<'_>) -> (Arc<Sources>, Sequence) {
        loop {
            let sources = self.state.sources.load_full();
            let upto = view.snapshot.map_or_else(|| self.shared.visible(), |s| s.sequence());
            if Arc::ptr_eq(&sources, &self.state.sources.load()) {
                return (sources, upto);
            }
        }
    }

    /// The note of exactly this version.
    ///
    /// # Errors
    /// `Io` and `Damaged` of the files read.
    pub fn note(&self, version: Version) -> Result<Option<Bytes>> {
        Ok(self.notes(version..=version)?.pop().map(|(_, note)| note))
    }

    /// The notes of a range of versions, the highest version first. Released ones may be among them still.
    ///
    /// # Errors
    /// `Io` and `Damaged` of the files read.
    pub fn notes(&self, versions: impl RangeBounds<Version>) -> Result<Vec<(Version, Bytes)>> {
        let (sources, upto) = self.pin(&View::default());
        let mut merge = Merge::new(sources.cursors(Space::Notes, &Bounds::all(), false), false);
        let mut notes = Vec::new();
        let mut decided = None;
        while let Some(entry) = merge.entry() {
            // Of one version the newest operation decides, be it note or retract.
            if entry.sequence <= upto && decided != Some(entry.version) && versions.contains(&entry.version) {
                decided = Some(entry.version);
                if entry.kind == Kind::Note {
                    notes.push((entry.version, entry.payload.clone()));
                }
            }
            merge.advance()?;
        }
        Ok(notes)
    }

    /// Releases the notes below a version.
    pub fn retain_notes_from(&self, version: Version) {
        self.state.floors.notes.fetch_max(version, Relaxed);
    }

    /// Raises the floor of the history: reads below it answer `HistoryGone`, writes at or below it `BelowFloor`, and compaction may drop what is
    /// shadowed at it. A lower one than before changes nothing.
    ///
    /// # Errors
    /// `Invalid` for a tree without history; `Poisoned` and `Io` when it can't be made durable.
    pub fn set_floor(&self, floor: Version) -> Result<()> {
        self.state.check_exists()?;
        if self.state.settings.newest_only {
            return Err(Error::Invalid(format!("tree {} keeps no history and so has no floor", self.name())));
        }
        self.state.floors.history.fetch_max(floor, Release);
        Ok(())
    }

    /// Raises the floor up to which compaction may drop tombstones and clears.
    ///
    /// # Errors
    /// `Poisoned` and `Io` when it can't be made durable.
    pub fn set_tombstone_floor(&self, floor: Version) -> Result<()> {
        self.state.check_exists()?;
        self.state.floors.tombstone.fetch_max(floor, Release);
        Ok(())
    }

    /// Raises the time up to which compaction turns expired entries into tombstones.
    ///
    /// # Errors
    /// `Poisoned` and `Io` when it can't be made durable.
    pub fn set_expiry_floor(&self, floor: u64) -> Result<()> {
        self.state.check_exists()?;
        self.state.floors.expiry.fetch_max(floor, Release);
        Ok(())
    }

    /// What it holds.
    pub fn stats(&self) -> TreeStats {
        let memory = self.state.memory();
        TreeStats { entries: memory.entries, memtable_bytes: memory.bytes }
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("id", &self.state.id).field("name", &self.name()).finish()
    }
}

/// What a tree holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TreeStats {
    /// Entries of all versions, tombstones among them: an upper bound of the keys.
    pub entries: u64,
    /// Memory of its memtables.
    pub memtable_bytes: u64,
}
