//! A tree: one map `(key, version) → entry` of a store.

mod delta;
mod ingest;
mod origin;
mod state;

pub use delta::{Delta, DeltaEntry};
pub use ingest::Exported;
pub(crate) use ingest::{link, new_folder};
pub(crate) use state::{Sources, TreeState, clear_payload, merge_memtables};

use crate::cache::Stamp;
use crate::checksum::key_hash;
use crate::error::{Error, Result};
use crate::iter::{Bounds, Cursor, Lookup, Merge, Range, RangeParts, Step, Visibility};
use crate::options::TreeSettings;
use crate::sst::{Access, Head, Looked, Lookup as TableLookup};
use crate::store::Shared;
use crate::types::{Kind, Sequence, Space, Version};
use crate::version::{FloorKind, LEVELS, TableFile};
use crate::view::{Cached, Direction, Found, FoundKind, FoundVersion, View};
use bytes::Bytes;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::sync::Arc;

/// A tree's number; never reused.
pub type TreeId = u32;

/// A handle to a tree. Cheap to clone.
#[derive(Clone)]
pub struct Tree {
    shared: Arc<Shared>,
    state: Arc<TreeState>,
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
        match self.get_by(key, view, Access::Wait)? {
            Cached::Ready(found) => Ok(found),
            Cached::WouldRead => unreachable!("a lookup that may wait never answers that it would have to"),
        }
    }

    /// As [`Tree::get`], if that is possible without waiting for the disk.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn get_cached(&self, key: &[u8], view: &View<'_>) -> Result<Cached> {
        self.get_by(key, view, Access::Cached)
    }

    fn get_by(&self, key: &[u8], view: &View<'_>, access: Access) -> Result<Cached> {
        let sought = self.sought(key);
        // The sources keep the blob file in place that the entry may point into.
        let sources = self.state.sources.load();
        let Cached::Ready(found) = self.find(&sources, &sought, view, access)? else {
            return Ok(Cached::WouldRead);
        };
        let Some((head, payload)) = found else { return Ok(Cached::Ready(None)) };
        let value = match head.kind {
            Kind::BlobPointer => sources.blobs.read(&payload, key, head.version, access)?,
            _ => Some(payload),
        };
        let Some(value) = value else { return Ok(Cached::WouldRead) };
        let Head { version, sequence, expires_at, tag, kind, .. } = head;
        Ok(Cached::Ready(Some(Found {
            version,
            sequence,
            kind: FoundKind::of(kind),
            value,
            expires_at,
            tag,
        })))
    }

    /// As [`Tree::get`] without the value, which is not read where it stands apart.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn version_of(&self, key: &[u8], view: &View<'_>) -> Result<Option<FoundVersion>> {
        match self.version_by(key, view, Access::Wait)? {
            Cached::Ready(found) => Ok(found),
            Cached::WouldRead => unreachable!("a lookup that may wait never answers that it would have to"),
        }
    }

    /// As [`Tree::version_of`], if that is possible without waiting for the disk.
    ///
    /// # Errors
    /// As [`Tree::get`].
    pub fn version_of_cached(&self, key: &[u8], view: &View<'_>) -> Result<Cached<Option<FoundVersion>>> {
        self.version_by(key, view, Access::Cached)
    }

    fn version_by(
        &self,
        key: &[u8],
        view: &View<'_>,
        access: Access,
    ) -> Result<Cached<Option<FoundVersion>>> {
        let sought = self.sought(key);
        let sources = self.state.sources.load();
        let Cached::Ready(found) = self.find(&sources, &sought, view, access)? else {
            return Ok(Cached::WouldRead);
        };
        Ok(Cached::Ready(found.map(|(head, _)| {
            let Head { version, sequence, expires_at, tag, kind, .. } = head;
            FoundVersion { version, sequence, kind: FoundKind::of(kind), expires_at, tag }
        })))
    }

    /// To be made before the sources are loaded.
    fn sought<'k>(&self, key: &'k [u8]) -> Sought<'k> {
        let hash = key_hash(key);
        Sought { key, hash, stamp: self.shared.records.as_ref().map(|records| records.stamp(hash)) }
    }

    /// The sources were loaded before: what they lack is then newer than the sequence that is read at, never older.
    fn find(
        &self,
        sources: &Sources,
        sought: &Sought<'_>,
        view: &View<'_>,
        access: Access,
    ) -> Result<Cached<Option<(Head, Bytes)>>> {
        let upto = view.snapshot.map_or_else(|| self.shared.visible(), |s| s.sequence());
        self.state.check_readable(view.at)?;
        let visibility = Visibility { at: view.at, upto, hidden: view.hidden };
        let cleared = sources.clears.as_ref().and_then(|clears| clears.seen(&visibility));
        let mut lookup = Lookup::new(visibility);
        let in_memory = find_in_memory(sources, sought, view.at, &mut lookup)?;
        // What is known of the tables is of the newest state, and only if no memtable has a say.
        let newest = view.at == Version::MAX && view.hidden.is_empty() && view.snapshot.is_none();
        let records =
            self.shared.records.as_ref().zip(sought.stamp).filter(|_| newest && in_memory.is_none());
        let known =
            records.and_then(|(records, stamp)| records.get(self.state.id, sought.hash, sought.key, stamp));
        let found = if known.is_some() {
            known
        } else {
            let key = TableLookup::new(sought.key, view.at, upto);
            if in_memory != Some(Step::Done)
                && find_in_tables(sources, &key, access, &mut lookup)? == Looked::WouldRead
            {
                return Ok(Cached::WouldRead);
            }
            let found = lookup.into_best();
            if let (Some((records, stamp)), Some((head, payload))) = (records, &found)
                && head.kind == Kind::Value
            {
                records.keep(self.state.id, sought.hash, sought.key, stamp, (head, payload));
            }
            found
        };
        let Some(cleared) = cleared else { return Ok(Cached::Ready(found)) };
        // A clear answers as a tombstone, for every key, so that the answer does not depend on what was there or what compaction removed.
        Ok(Cached::Ready(Some(found.filter(|(head, _)| !cleared.deletes(head)).unwrap_or_else(|| {
            let (version, sequence) = (cleared.version, cleared.sequence);
            (
                Head { version, sequence, kind: Kind::Tombstone, late: false, expires_at: None, tag: 0 },
                Bytes::new(),
            )
        }))))
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
        let (pin, upto) = self.pin(view);
        self.state.check_readable(view.at)?;
        let backward = direction == Direction::Backward;
        let view = Visibility { at: view.at, upto, hidden: view.hidden.to_vec() };
        let cleared = pin.clears.as_ref().and_then(|clears| clears.seen(&view));
        let merge = Merge::new(pin.cursors(Space::Data, bounds, backward)?, Space::Data, backward);
        Ok(Range::new(RangeParts { merge, view, cleared, backward, pin }))
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
        let mut merge =
            Merge::new(sources.cursors(Space::Notes, &Bounds::all(), false)?, Space::Notes, false);
        let mut notes = Vec::new();
        let mut decided = None;
        while let Some(head) = merge.head().copied() {
            // Of one version the newest operation decides, be it note or retract.
            if head.sequence <= upto && decided != Some(head.version) && versions.contains(&head.version) {
                decided = Some(head.version);
                if head.kind == Kind::Note {
                    notes.push((head.version, merge.payload()?));
                }
            }
            merge.advance()?;
        }
        Ok(notes)
    }

    /// Releases the notes below a version. A crash soon after may bring some back.
    pub fn retain_notes_from(&self, version: Version) {
        self.state.raise_floor(FloorKind::Notes, version);
        self.shared.floors_rose();
    }

    /// Raises the floor of the history: reads below it answer `HistoryGone`, writes at or below it `BelowFloor`, and compaction may drop what is
    /// shadowed at it. A lower one than before changes nothing. It is durable before anything is dropped on its account, and soon anyway.
    ///
    /// # Errors
    /// `Invalid` for a tree without history, or a dropped one.
    pub fn set_floor(&self, floor: Version) -> Result<()> {
        self.state.check_exists()?;
        if self.state.settings.newest_only {
            return Err(Error::Invalid(format!("tree {} keeps no history and so has no floor", self.name())));
        }
        self.raise(FloorKind::History, floor)
    }

    /// Raises the floor up to which compaction may drop tombstones and clears.
    ///
    /// # Errors
    /// `Invalid` for a dropped tree.
    pub fn set_tombstone_floor(&self, floor: Version) -> Result<()> {
        self.state.check_exists()?;
        self.raise(FloorKind::Tombstone, floor)
    }

    /// The floor up to which compaction may drop tombstones and clears: the highest that was set, also in an earlier life, unless a crash came before it
    /// was durable (then nothing was dropped on its account).
    pub fn tombstone_floor(&self) -> Version {
        self.state.floor(FloorKind::Tombstone)
    }

    /// Raises the time up to which compaction turns expired entries into tombstones.
    ///
    /// # Errors
    /// `Invalid` for a dropped tree.
    pub fn set_expiry_floor(&self, floor: u64) -> Result<()> {
        self.state.check_exists()?;
        self.raise(FloorKind::Expiry, floor)
    }

    fn raise(&self, floor: FloorKind, value: u64) -> Result<()> {
        if value <= self.state.floor(floor) {
            return Ok(());
        }
        self.state.check_exists()?;
        self.state.raise_floor(floor, value);
        self.shared.floors_rose();
        Ok(())
    }

    /// What it holds.
    pub fn stats(&self) -> TreeStats {
        let memory = self.state.memory();
        let sources = self.state.sources.load();
        let tables = sources.levels.tables();
        let (count, entries, bytes) = tables.fold((0, 0, 0), |(count, entries, bytes), table| {
            (count + 1, entries + table.meta.properties.entries, bytes + table.meta.file_bytes)
        });
        TreeStats {
            entries: memory.entries + entries,
            memtable_bytes: memory.bytes,
            tables: count,
            table_bytes: bytes,
        }
    }
}

/// A key that is looked for.
struct Sought<'k> {
    key: &'k [u8],
    hash: u64,
    /// Under which an answer may be known.
    stamp: Option<Stamp>,
}

/// How the memtables' entries change the lookup; `None` if they have none of the key.
fn find_in_memory(
    sources: &Sources,
    sought: &Sought<'_>,
    at: Version,
    lookup: &mut Lookup<'_>,
) -> Result<Option<Step>> {
    let mut last = None;
    for memtable in sources.memtables() {
        memtable.lookup(sought.key, sought.hash, at, &mut |head, payload| {
            let step = lookup.offer(head, || Ok(payload()))?;
            last = Some(step);
            Ok(if step == Step::Next { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        if last == Some(Step::Done) {
            break;
        }
    }
    Ok(last)
}

fn find_in_tables(
    sources: &Sources,
    key: &TableLookup<'_>,
    access: Access,
    lookup: &mut Lookup<'_>,
) -> Result<Looked> {
    for level in 0..LEVELS {
        let candidates = match level {
            0 => sources.levels.level(0),
            _ => sources.levels.covering(level, key.key).map_or(&[][..], std::slice::from_ref),
        };
        for file in candidates {
            match find_in_table(file, key, access, lookup)? {
                None => return Ok(Looked::WouldRead),
                Some(Step::Done) => return Ok(Looked::Done),
                Some(Step::Next | Step::NextSource) => {}
            }
        }
    }
    Ok(Looked::Done)
}

/// How a table's entries change the lookup; `None` if the disk would have to be waited for.
fn find_in_table(
    file: &TableFile,
    key: &TableLookup<'_>,
    access: Access,
    lookup: &mut Lookup<'_>,
) -> Result<Option<Step>> {
    if !file.meta.properties.covers(key.key) {
        return Ok(Some(Step::Next));
    }
    let table = match (access, file.table_if_open()) {
        (_, Some(table)) => table,
        (Access::Wait, None) => file.table()?,
        (Access::Cached, None) => return Ok(None),
    };
    let mut outcome = Ok(Step::Next);
    // Sequences of a table that came from elsewhere count another store's writes.
    let max_sequence = if file.foreign.is_some() { Sequence::MAX } else { key.max_sequence };
    let mut key = *key;
    key.max_sequence = max_sequence;
    let looked = table.get(&key, access, &mut |candidate| {
        let mut head = candidate.head;
        if let Some(foreign) = file.foreign {
            // It came from another store, whose order of writes says nothing about ours.
            (head.late, head.sequence) = (true, 0);
            if head.version > foreign.ceiling {
                return ControlFlow::Continue(());
            }
        }
        outcome = lookup.offer(&head, || candidate.payload());
        if matches!(outcome, Ok(Step::Next)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    match looked {
        Looked::Done => outcome.map(Some),
        Looked::WouldRead => Ok(None),
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
    /// Tables.
    pub tables: u64,
    /// Their bytes on disk.
    pub table_bytes: u64,
}
