//! From memtables to tables. The order is what makes it safe: the log is durable up to the memtable's last sequence; the table and its name
//! are; the edit is; only then the log may forget.

use crate::error::{Error, Result};
use crate::iter::Cursor;
use crate::memtable::Memtable;
use crate::sst::{ALL_SPACES, Head, TableMeta, TableWriter};
use crate::store::Shared;
use crate::tree::{Sources, TreeState, merge_memtables};
use crate::types::{Durability, InternalEntry, Kind, Sequence, Space, Version};
use crate::version::{Change, FloorKind, Levels, TableFile};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

/// What one tree brings to a flush.
struct Part {
    tree: Arc<TreeState>,
    memtables: Vec<Arc<dyn Memtable>>,
    upto: Sequence,
    bytes: u64,
    table: Option<TableMeta>,
}

impl Shared {
    /// Flushes all memtables that are there now.
    pub(crate) fn flush_all(&self) -> Result<()> {
        self.flush(&self.tree_states())
    }

    /// Flushes what there is a reason to flush: sealed memtables, the largest ones when memory runs short, those that hold back a long log.
    /// Answers whether there was a reason.
    pub(crate) fn flush_some(&self) -> Result<bool> {
        let chosen = self.choose();
        if chosen.is_empty() {
            return Ok(false);
        }
        self.flush(&chosen)?;
        Ok(true)
    }

    fn choose(&self) -> Vec<Arc<TreeState>> {
        let trees = self.tree_states();
        let log = self.log.usage();
        // The older half of a log that has become long goes, in one job.
        let middle = log.oldest + (self.published.load(Acquire).saturating_sub(log.oldest)) / 2;
        let pinned_below =
            if log.bytes >= self.settings.wal_bytes_max / 2 && log.segments > 1 { middle } else { 0 };
        let mut chosen = BTreeSet::new();
        let mut rest = Vec::new();
        for tree in &trees {
            let sources = tree.sources.load();
            let pins = sources.first_unflushed().is_some_and(|first| first < pinned_below);
            if pins || !sources.sealed.is_empty() {
                chosen.insert(tree.id);
            } else if let Some(active) = &sources.active {
                rest.push((active.summary().bytes, tree.id));
            }
        }
        let mut excess = self.stall.excess();
        rest.sort_unstable_by(|a, b| b.cmp(a));
        for (bytes, id) in rest {
            if excess == 0 {
                break;
            }
            chosen.insert(id);
            excess = excess.saturating_sub(bytes);
        }
        trees.into_iter().filter(|tree| chosen.contains(&tree.id)).collect()
    }

    fn flush(&self, trees: &[Arc<TreeState>]) -> Result<()> {
        let _flushing = self.flushing.lock();
        let begun = self.parts.clock.monotonic();
        let mut parts = self.seal(trees);
        let Some(last) = parts.iter().map(|part| part.upto).max() else { return Ok(()) };
        self.log.commit(last, Durability::Synced).wait()?;
        // Taken after the memtables were sealed: a snapshot taken later sees all of them.
        let snapshots = self.snapshots.sequences();
        for part in &mut parts {
            part.table = self.write_table(part, &snapshots)?;
        }
        let dir = &self.files.tables_dir;
        self.parts.fs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))?;
        let needed_from = self.needed_from(&parts);
        self.edit(edit_of(&parts, needed_from), || parts.iter().for_each(|part| self.install(part)))?;
        let bytes = parts.iter().map(|part| part.bytes).sum();
        self.stall.sub(bytes);
        self.stall.flushed(bytes, self.parts.clock.monotonic().saturating_sub(begun));
        self.log.release_below(needed_from)
    }

    /// Seals the trees' memtables and collects what is to be flushed.
    fn seal(&self, trees: &[Arc<TreeState>]) -> Vec<Part> {
        {
            let _writer = self.writer.lock();
            for tree in trees {
                tree.seal();
            }
        }
        let part = |tree: &Arc<TreeState>| {
            let memtables = tree.sources.load().sealed.clone();
            let upto = memtables.first()?.summary().last_sequence;
            let bytes = memtables.iter().map(|memtable| memtable.summary().bytes).sum();
            Some(Part { tree: Arc::clone(tree), memtables, upto, bytes, table: None })
        };
        trees.iter().filter_map(part).collect()
    }

    /// What the log must still hold once these memtables stand in tables.
    fn needed_from(&self, flushed: &[Part]) -> Sequence {
        // Read before the memtables are looked at: what comes meanwhile lies above.
        let next = self.published.load(Acquire) + 1;
        let unflushed = self.tree_states().into_iter().filter_map(|tree| {
            let sources = tree.sources.load();
            let part = flushed.iter().find(|part| part.tree.id == tree.id);
            let kept = |m: &&Arc<dyn Memtable>| {
                part.is_none_or(|part| !part.memtables.iter().any(|f| Arc::ptr_eq(f, m)))
            };
            sources
                .memtables()
                .filter(kept)
                .map(|m| m.summary().first_sequence)
                .filter(|&first| first > 0)
                .min()
        });
        unflushed.min().map_or(next, |first| first.min(next))
    }

    fn write_table(&self, part: &Part, snapshots: &[Sequence]) -> Result<Option<TableMeta>> {
        let id = self.versions.new_file_id()?;
        let options = self.table_options(0);
        let mut writer =
            TableWriter::new(Arc::clone(&self.parts.fs), &self.files.table_path(id), id, options)?;
        let rules = Rules::of(&part.tree, snapshots);
        for space in ALL_SPACES {
            rules.write(space, merge_memtables(&part.memtables, space), &mut writer)?;
        }
        if writer.is_empty() { Ok(None) } else { writer.finish().map(Some) }
    }

    fn install(&self, part: &Part) {
        let file = part.table.clone().map(|meta| TableFile::new(&self.files, meta, None));
        part.tree.flushed.fetch_max(part.upto, Release);
        part.tree.sources.rcu(|sources| {
            let mut next = Sources::clone(sources);
            next.sealed.retain(|sealed| !part.memtables.iter().any(|flushed| Arc::ptr_eq(flushed, sealed)));
            if let Some(file) = &file {
                let mut levels = Levels::clone(&next.levels);
                levels.add(0, Arc::clone(file));
                next.levels = Arc::new(levels);
            }
            next
        });
    }
}

fn edit_of(parts: &[Part], needed_from: Sequence) -> Vec<Change> {
    let mut changes = Vec::with_capacity(parts.len() * 2 + 1);
    for part in parts {
        let tree = part.tree.id;
        if let Some(meta) = &part.table {
            changes.push(Change::TableAdded { tree, level: 0, meta: Box::new(meta.clone()), foreign: None });
        }
        changes.push(Change::Flushed { tree, upto: part.upto });
    }
    changes.push(Change::NeededFrom { sequence: needed_from });
    changes
}

/// What a flush may leave out and forget.
struct Rules<'a> {
    /// Live snapshots, lowest first.
    snapshots: &'a [Sequence],
    /// Versions of clears: what has exactly such a version keeps its sequence, which says whether it came before the clear.
    clear_versions: Vec<Version>,
    notes_from: Version,
    /// Whether nothing older lies below.
    oldest: bool,
}

impl<'a> Rules<'a> {
    fn of(tree: &TreeState, snapshots: &'a [Sequence]) -> Rules<'a> {
        let sources = tree.sources.load();
        let clear_versions =
            sources.clears.iter().flat_map(|clears| clears.marks.iter().map(|m| m.cleared.version)).collect();
        Rules {
            snapshots,
            clear_versions,
            notes_from: tree.floor(FloorKind::Notes),
            oldest: sources.levels.is_empty(),
        }
    }

    /// Writes a space: of the same key and version only what some view can tell apart.
    fn write(&self, space: Space, mut merge: impl Cursor, writer: &mut TableWriter) -> Result<()> {
        let mut group: Vec<InternalEntry> = Vec::new();
        while let Some(&head) = merge.head() {
            let same = group
                .first()
                .is_some_and(|first| first.version == head.version && first.key[..] == *merge.key());
            if !same {
                self.write_group(space, &mut group, writer)?;
            }
            let hidden = same
                && group
                    .last()
                    .is_some_and(|newer| self.stripe(newer.sequence) == self.stripe(head.sequence));
            let released = space == Space::Notes && head.version < self.notes_from;
            if !hidden && !released {
                let Head { version, sequence, kind, late, expires_at, tag } = head;
                let (key, payload) = (merge.key_bytes(), merge.payload()?);
                let late = late && !self.oldest;
                group.push(InternalEntry { key, version, sequence, kind, late, expires_at, tag, payload });
            }
            merge.advance()?;
        }
        self.write_group(space, &mut group, writer)
    }

    fn write_group(
        &self,
        space: Space,
        group: &mut Vec<InternalEntry>,
        writer: &mut TableWriter,
    ) -> Result<()> {
        // A marker whose target is gone, with nothing older below, has done its work.
        while self.oldest && group.last().is_some_and(|oldest| oldest.kind == Kind::Retract) {
            group.pop();
        }
        for entry in group.drain(..) {
            let told_apart = self.snapshots.first().is_some_and(|&oldest| oldest < entry.sequence);
            let keep = told_apart || space != Space::Data || self.clear_versions.contains(&entry.version);
            writer.add(space, &entry, keep)?;
        }
        Ok(())
    }

    /// Entries of the same number are seen by the same snapshots.
    fn stripe(&self, sequence: Sequence) -> usize {
        self.snapshots.partition_point(|&snapshot| snapshot < sequence)
    }
}
