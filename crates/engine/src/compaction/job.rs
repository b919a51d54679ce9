//! Carries out a choice: reads the inputs, lets the stream judge, writes the outputs, and makes the edit. The order is what makes it safe:
//! the collection floor is durable before anything rests on it; tables and their names are durable before the edit; inputs go after it.

use super::output::{Apart, Outputs, Written, sync_dirs};
use super::pacing::{Hurry, Pacing, Progress};
use super::rules::Rules;
use super::standing::{Stand, Standing, rules_for};
use super::strategy::{Choice, Shape, Sizes, debt};
use super::stream::{Dropped, Stream};
use crate::blob::{BlobSet, BlobStore, live_bytes};
use crate::error::{Error, Result};
use crate::iter::{Bounds, Clears, Cursor, LevelCursor, Merge, TableCursor};
use crate::options::Settings;
use crate::planted::{Planted, is_planted};
use crate::sst::{ALL_SPACES, Head, TableMeta};
use crate::store::Shared;
use crate::tree::{Sources, TreeId, TreeState};
use crate::types::{InternalEntry, Sequence, Space, Version};
use crate::version::{Change, FloorKind, LEVELS, Levels, TableFile};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use std::time::Duration;

/// Bytes at which an output table is closed.
const TABLE_BYTES: u64 = 32 << 20;
/// The target of level 0, however much memory there is for writes: what stands there is read by every lookup.
const LEVEL_0_BYTES_MAX: u64 = 128 << 20;
/// Without a write for so long, compaction does what does not press.
const QUIET_AFTER: Duration = Duration::from_secs(5);
/// Tables in level 0 of a tree from which on its flushes wait: writes are then slowed to what compaction sustains.
const LEVEL_0_TABLES_STOP: usize = 32;
/// The same in targets of level 0.
const LEVEL_0_TARGETS_STOP: u64 = 12;
/// Entries after which a job looks whether the store is being closed.
const ENTRIES_PER_LOOK: u64 = 1024;

/// Tables of which is remembered what they seemed to hold; forgetting costs a compaction that finds nothing.
const BASELINES_MAX: usize = 4096;

/// What compactions remember between them. One runs at a time.
#[derive(Default)]
pub(crate) struct Compactions {
    state: Mutex<State>,
    counters: Counters,
    pub(super) hurry: Hurry,
}

#[derive(Default)]
struct State {
    /// The tree that is looked at first next time.
    turn: usize,
    /// See `Forgettable::baseline`.
    baseline: HashMap<u64, u64>,
    /// Trees that were found in order, and how they stood then.
    in_order: HashMap<TreeId, Stand>,
    /// The last sequence that was seen, and when it was new.
    last_write: (Sequence, Duration),
}

impl State {
    /// Whether nobody has written for a while.
    fn is_quiet(&mut self, published: Sequence, now: Duration) -> bool {
        if self.last_write.0 != published {
            self.last_write = (published, now);
        }
        now.saturating_sub(self.last_write.1) >= QUIET_AFTER
    }
}

#[derive(Default)]
struct Counters {
    jobs: AtomicU64,
    moves: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    dropped_entries: AtomicU64,
}

/// What compactions have done since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CompactionStats {
    /// Compactions that rewrote tables.
    pub jobs: u64,
    /// Tables that went to another level as they were, or left unread.
    pub moves: u64,
    /// Bytes of the tables read.
    pub read_bytes: u64,
    /// Bytes of the tables written.
    pub written_bytes: u64,
    /// Entries that were dropped.
    pub dropped_entries: u64,
}

impl Compactions {
    pub(crate) fn stats(&self) -> CompactionStats {
        let Counters { jobs, moves, read_bytes, written_bytes, dropped_entries } = &self.counters;
        CompactionStats {
            jobs: jobs.load(Relaxed),
            moves: moves.load(Relaxed),
            read_bytes: read_bytes.load(Relaxed),
            written_bytes: written_bytes.load(Relaxed),
            dropped_entries: dropped_entries.load(Relaxed),
        }
    }
}

impl Shared {
    /// Compacts once, if a tree needs it. Answers whether there may be more to do.
    pub(crate) fn compact_some(&self) -> Result<bool> {
        self.compact_next(false)
    }

    /// As [`Shared::compact_some`], also where nothing presses.
    pub(crate) fn settle_some(&self) -> Result<bool> {
        let _hurry = self.compactions.hurry.hurried();
        self.compact_next(true)
    }

    fn compact_next(&self, settle: bool) -> Result<bool> {
        if !self.may_compact_now()? {
            return Ok(false);
        }
        let mut state = self.compactions.state.lock();
        let idle = settle || state.is_quiet(self.published.load(Acquire), self.parts.clock.monotonic());
        let trees = self.tree_states();
        if state.in_order.len() > trees.len() * 2 + 64 {
            state.in_order.clear();
        }
        for step in 0..trees.len() {
            let index = (state.turn + step) % trees.len();
            if self.compact_tree(&mut state, &trees[index], idle)? {
                state.turn = index + 1;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn sizes(&self) -> Sizes {
        // Each time level 0 goes down it meets most of the level below: the larger it may grow, the less is written twice.
        let level_0_bytes = (self.settings.write_budget_bytes() * 2).min(LEVEL_0_BYTES_MAX);
        Sizes { level_0_bytes, table_bytes: TABLE_BYTES.min(level_0_bytes), idle: false }
    }

    /// Bytes of a tree that compaction has yet to bring where they belong.
    pub(crate) fn compaction_debt(&self, tree: &TreeState) -> u64 {
        let sources = tree.sources.load();
        let level = |level: usize| sources.levels.level(level).iter().map(|file| &file.meta).collect();
        debt(&Shape { levels: std::array::from_fn(level) }, &self.sizes())
    }

    /// Whether the tree's level 0 has grown so large that no more should come before some of it went down.
    pub(crate) fn compaction_is_behind(&self, tree: &TreeState) -> bool {
        let sources = tree.sources.load();
        let tables = sources.levels.level(0);
        let bytes: u64 = tables.iter().map(|file| file.meta.file_bytes).sum();
        tables.len() >= LEVEL_0_TABLES_STOP || bytes >= self.sizes().level_0_bytes * LEVEL_0_TARGETS_STOP
    }

    /// Opens new tables before readers meet them, who may not be allowed to wait.
    pub(crate) fn open_level_0(&self) {
        for tree in self.tree_states() {
            for file in tree.sources.load().levels.level(0) {
                if let Err(error) = file.table().map(drop) {
                    tracing::warn!(%error, "a new table can't be opened; whoever reads it is told");
                }
            }
        }
    }

    fn compact_tree(&self, state: &mut State, tree: &Arc<TreeState>, idle: bool) -> Result<bool> {
        let stand = Stand::of(self, tree, idle);
        if stand.tables == 0 || tree.dropped.load(Acquire) || state.in_order.get(&tree.id) == Some(&stand) {
            return Ok(false);
        }
        let sizes = Sizes { idle, ..self.sizes() };
        let standing = Standing::of(self, tree);
        let Some(choice) = standing.choose(&sizes, standing.tombstone_floor, &state.baseline) else {
            state.in_order.insert(tree.id, stand);
            return Ok(false);
        };
        let collects = standing.collects(&choice, &state.baseline);
        if collects > tree.floor(FloorKind::Gc) {
            // From here on what such a deletion hides is refused, and peers that lack it take everything anew.
            tree.raise_floor(FloorKind::Gc, collects);
            self.edit(vec![Change::Floor { tree: tree.id, floor: FloorKind::Gc, value: collects }], || ())?;
        }
        // Judged anew, now that nothing below the collection floor can come any more.
        let standing = Standing::of(self, tree);
        match choice {
            Choice::Drop { .. } => {
                let choice = standing.choose(&sizes, standing.rules.drop_upto, &state.baseline);
                let Some(Choice::Drop { tables, .. }) = choice else { return Ok(false) };
                state.baseline.retain(|table, _| !tables.contains(table));
                let inputs = files(&standing.sources.levels, &tables);
                self.replace(tree, &inputs, None, 0, &Dropped::default())?;
                self.compactions.counters.moves.fetch_add(inputs.len() as u64, Relaxed);
            }
            Choice::Move { table, to } => self.shift(tree, table, to)?,
            Choice::Merge { inputs, to } => self.merge(state, tree, &standing, &inputs, to)?,
        }
        Ok(true)
    }

    fn shift(&self, tree: &TreeState, table: u64, to: usize) -> Result<()> {
        let edit = vec![Change::TableMoved { tree: tree.id, table, level: to as u8 }];
        self.edit(edit, || {
            tree.sources.rcu(|sources| {
                let mut levels = Levels::clone(&sources.levels);
                if let Some((_, file)) = levels.remove(table) {
                    levels.add(to, file);
                }
                Sources { levels: Arc::new(levels), ..Sources::clone(sources) }
            });
        })?;
        self.compactions.counters.moves.fetch_add(1, Relaxed);
        Ok(())
    }

    fn merge(
        &self,
        state: &mut State,
        tree: &Arc<TreeState>,
        standing: &Standing,
        inputs: &[u64],
        to: usize,
    ) -> Result<()> {
        let levels = &standing.sources.levels;
        let rules = rules_for(standing, inputs, to);
        let input_files = files(levels, inputs);
        let read: u64 = input_files.iter().map(|file| file.meta.file_bytes).sum();
        self.check_room(read)?;
        let mut pacing = Pacing::new(self, &input_files);
        let largest_sequence = input_files.iter().map(|file| file.meta.properties.largest_sequence).max();
        let new_id = || self.versions.new_file_id();
        let (victims, blobs) = (standing.victims(), &standing.sources.blobs);
        let apart = self.apart(&victims, blobs);
        let (options, table_bytes) = (self.table_options(to as u8), self.sizes().table_bytes);
        let age = largest_sequence.unwrap_or(0);
        let mut outputs = Outputs::new(&self.files, &new_id, options, apart, table_bytes, age);
        let mut dropped = Dropped::default();
        for space in ALL_SPACES {
            let merge = Merge::new(cursors(levels, inputs, space)?, space, false);
            let mut progress = |entries, written| pacing.progress(entries, written);
            let part = self.judge(&rules, space, merge, &mut outputs, &mut progress)?;
            dropped.entries += part.entries;
            dropped.tombstone = dropped.tombstone.max(part.tombstone);
            dropped.clears.extend(part.clears);
        }
        let mut written = outputs.finish()?;
        sync_dirs(&self.files, std::iter::once(&written))?;
        let replaced = self.replace(tree, &input_files, Some(&written), to, &dropped);
        if replaced.is_ok() || self.versions.has_failed() {
            written.keep();
        }
        replaced?;
        remember(state, standing, &written.tables, inputs);
        let counters = &self.compactions.counters;
        let bytes = written.tables.iter().map(|table| table.file_bytes).sum::<u64>()
            + written.blobs.iter().map(|blob| blob.file_bytes).sum::<u64>();
        counters.jobs.fetch_add(1, Relaxed);
        counters.read_bytes.fetch_add(read, Relaxed);
        counters.written_bytes.fetch_add(bytes, Relaxed);
        counters.dropped_entries.fetch_add(dropped.entries, Relaxed);
        tracing::debug!(tree = tree.id, inputs = inputs.len(), to, read, bytes, dropped.entries, "compacted");
        Ok(())
    }

    /// Compaction must not take the room that a flush needs.
    fn check_room(&self, needed: u64) -> Result<()> {
        let available_bytes = self.parts.fs.free_bytes(&self.path).unwrap_or(u64::MAX);
        let needed_bytes = needed + self.settings.disk_reserve_bytes;
        if available_bytes < needed_bytes {
            return Err(Error::DiskFull { path: self.path.clone(), available_bytes, needed_bytes });
        }
        Ok(())
    }

    /// Reads all of `merge`, and writes what stays. `progress` is told the entries read since the last time, and the bytes written in all.
    pub(super) fn judge(
        &self,
        rules: &Rules,
        space: Space,
        mut merge: Merge,
        outputs: &mut Outputs<'_, '_>,
        progress: Progress<'_>,
    ) -> Result<Dropped> {
        let mut stream = Stream::new(rules, space);
        let mut kept = Vec::new();
        let mut seen = 0_u64;
        while let Some(&head) = merge.head() {
            let Head { version, sequence, kind, late, expires_at, tag } = head;
            let (key, payload) = (merge.key_bytes(), merge.payload()?);
            stream.offer(
                InternalEntry { key, version, sequence, kind, late, expires_at, tag, payload },
                &mut kept,
            );
            for entry in kept.drain(..) {
                outputs.add(space, entry)?;
            }
            merge.advance()?;
            seen += 1;
            if seen.is_multiple_of(ENTRIES_PER_LOOK) {
                if self.closed.load(Acquire) {
                    return Err(Error::Closed);
                }
                progress(ENTRIES_PER_LOOK, outputs.bytes())?;
            }
        }
        progress(seen % ENTRIES_PER_LOOK, outputs.bytes())?;
        let dropped = stream.finish(&mut kept);
        kept.into_iter().try_for_each(|entry| outputs.add(space, entry))?;
        Ok(dropped)
    }

    /// Which values stand apart from their keys in what is written now.
    pub(super) fn apart<'a>(&self, victims: &'a [u64], blobs: &'a BlobSet) -> Apart<'a> {
        let Settings { blob_threshold_bytes: threshold_bytes, compression: compress, .. } = self.settings;
        Apart { threshold_bytes, compress, victims, blobs }
    }

    /// Makes the edit that puts the outputs in the place of the inputs, and shows it to readers. Blob files that no table points at any
    /// more leave with it.
    fn replace(
        &self,
        tree: &TreeState,
        inputs: &[Arc<TableFile>],
        outputs: Option<&Written<'_>>,
        to: usize,
        dropped: &Dropped,
    ) -> Result<()> {
        if is_planted(Planted::InputsRemovedEarly) {
            inputs.iter().for_each(|file| drop(self.parts.fs.remove(&self.files.table_path(file.id()))));
        }
        let id = tree.id;
        let (tables, blobs) = outputs.map_or((&[][..], &[][..]), |written| (&written.tables, &written.blobs));
        let unpointed = unpointed(&tree.sources.load(), inputs, tables);
        let mut changes: Vec<Change> =
            inputs.iter().map(|file| Change::TableRemoved { tree: id, table: file.id() }).collect();
        changes.extend(tables.iter().map(|meta| Change::TableAdded {
            tree: id,
            level: to as u8,
            meta: Box::new(meta.clone()),
            foreign: None,
        }));
        changes.extend(blobs.iter().map(|blob| Change::BlobAdded { tree: id, blob: *blob }));
        changes.extend(unpointed.iter().map(|blob| Change::BlobRemoved { tree: id, blob: blob.meta.id }));
        // Opened here, so that readers who may not wait find them open; and what can't be read must not replace anything.
        let added: Vec<_> =
            tables.iter().map(|meta| TableFile::new(&self.files, meta.clone(), None)).collect();
        added.iter().try_for_each(|file| file.table().map(drop))?;
        let added_blobs: Vec<_> = blobs.iter().map(|blob| BlobStore::new(&self.files, *blob)).collect();
        let removed_blobs: Vec<u64> = unpointed.iter().map(|blob| blob.meta.id).collect();
        self.edit(changes, || {
            tree.sources.rcu(|sources| {
                let mut levels = Levels::clone(&sources.levels);
                inputs.iter().for_each(|file| drop(levels.remove(file.id())));
                added.iter().for_each(|file| levels.add(to, Arc::clone(file)));
                let clears = sources.clears.as_ref().map(|clears| without(clears, &dropped.clears));
                let blobs = Arc::new(sources.blobs.changed(&added_blobs, &removed_blobs));
                Sources { levels: Arc::new(levels), clears, blobs, ..Sources::clone(sources) }
            });
        })?;
        inputs.iter().for_each(|file| file.remove_when_unused());
        unpointed.iter().for_each(|blob| blob.remove_when_unused());
        Ok(())
    }
}

/// Blob files that no table points at once the outputs stand in the inputs' place.
fn unpointed(sources: &Sources, inputs: &[Arc<TableFile>], outputs: &[TableMeta]) -> Vec<Arc<BlobStore>> {
    let stays = |file: &&Arc<TableFile>| inputs.iter().all(|input| input.id() != file.id());
    let tables = sources.levels.tables().filter(stays).map(|file| &file.meta).chain(outputs);
    let live = live_bytes(tables);
    sources.blobs.iter().filter(|blob| !live.contains_key(&blob.meta.id)).cloned().collect()
}

/// The clears that are left.
fn without(clears: &Arc<Clears>, gone: &[(Version, Sequence)]) -> Arc<Clears> {
    if gone.is_empty() {
        return Arc::clone(clears);
    }
    let mut marks = clears.marks.clone();
    marks.retain(|mark| !gone.contains(&(mark.cleared.version, mark.cleared.sequence)));
    Arc::new(Clears { marks })
}

fn files(levels: &Levels, ids: &[u64]) -> Vec<Arc<TableFile>> {
    levels.tables().filter(|file| ids.contains(&file.id())).cloned().collect()
}

/// The inputs as sources, the newest first.
fn cursors(levels: &Levels, inputs: &[u64], space: Space) -> Result<Vec<Box<dyn Cursor>>> {
    let mut cursors: Vec<Box<dyn Cursor>> = Vec::new();
    for level in 0..LEVELS {
        let chosen: Vec<_> =
            levels.level(level).iter().filter(|file| inputs.contains(&file.id())).cloned().collect();
        if level > 0 && space == Space::Data {
            cursors.push(Box::new(LevelCursor::new(&Arc::new(chosen), &Bounds::all(), false, true)?));
            continue;
        }
        for file in chosen.iter().filter(|file| file.meta.properties.entries_of(space) > 0) {
            cursors.push(Box::new(TableCursor::new(file, space, &Bounds::all(), false, true)?));
        }
    }
    Ok(cursors)
}

/// Notes what the new tables seem to hold of garbage already: it could not be dropped, so it is no reason to try again.
fn remember(state: &mut State, standing: &Standing, tables: &[TableMeta], inputs: &[u64]) {
    state.baseline.retain(|table, _| !inputs.contains(table));
    if state.baseline.len() > BASELINES_MAX {
        state.baseline.clear();
    }
    let none = HashMap::new();
    let forgettable = standing.rules.forgettable(standing.tombstone_floor, &none);
    for table in tables {
        let seeming = forgettable.estimate(&table.properties, true);
        if seeming > 0 {
            state.baseline.insert(table.id, seeming);
        }
    }
}
