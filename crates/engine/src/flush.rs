//! From memtables to tables. The order is what makes it safe: the log is durable up to the memtable's last sequence; the table and its name
//! are; the edit is; only then the log may forget.

use crate::blob::BlobStore;
use crate::cache::Records;
use crate::compaction::{Written, sync_dirs};
use crate::error::Result;
use crate::iter::Cleared;
use crate::memtable::Memtable;
use crate::planted::{Planted, is_planted};
use crate::sst::TableMeta;
use crate::store::Shared;
use crate::tree::{Sources, TreeState};
use crate::types::{Durability, Sequence, Version};
use crate::version::{Change, Foreign, Levels, TableFile};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// What comes from another store.
pub(crate) struct Arrived {
    /// The oldest first.
    pub(crate) tables: Vec<(TableMeta, Foreign)>,
    pub(crate) blobs: Vec<Arc<BlobStore>>,
    pub(crate) clears: Vec<Cleared>,
    pub(crate) largest_version: Version,
    pub(crate) blobs_added: Vec<Change>,
}

/// What one tree brings to a flush.
struct Part<'a> {
    tree: Arc<TreeState>,
    memtables: Vec<Arc<dyn Memtable>>,
    upto: Sequence,
    bytes: u64,
    written: Option<Written<'a>>,
}

impl Shared {
    /// Tells admission how much compaction has to bring down.
    pub(crate) fn note_debt(&self) {
        let level_0 = |tree: Arc<TreeState>| {
            tree.sources.load().levels.level(0).iter().map(|table| table.meta.file_bytes).sum::<u64>()
        };
        self.stall.set_debt(self.tree_states().into_iter().map(level_0).max().unwrap_or(0));
    }

    /// Flushes all memtables that are there now.
    pub(crate) fn flush_all(&self) -> Result<()> {
        self.flush_trees(&self.tree_states())
    }

    /// Flushes what there is a reason to flush: sealed memtables, the largest ones when memory runs short, those that hold back a long log.
    /// Answers whether there was a reason.
    pub(crate) fn flush_some(&self) -> Result<bool> {
        let chosen = self.choose();
        if chosen.is_empty() {
            return Ok(false);
        }
        self.flush_trees(&chosen)?;
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
        trees
            .into_iter()
            .filter(|tree| chosen.contains(&tree.id) && !self.compaction_is_behind(tree))
            .collect()
    }

    /// Flushes all memtables, then looks at the store before another flush does anything: all trees stand at the sequence given.
    pub(crate) fn flush_all_then<T>(&self, then: impl FnOnce(Sequence) -> T) -> Result<T> {
        let _flushing = self.flushing.lock();
        let sequence = self.flush_held(&self.tree_states(), || ())?;
        Ok(then(sequence))
    }

    /// Brings in tables that came from elsewhere: newer than all that was flushed, older than what is written from now on.
    pub(crate) fn install_foreign(&self, tree: &Arc<TreeState>, foreign: Arrived) -> Result<()> {
        let _flushing = self.flushing.lock();
        // What is written from now on is looked at first, so it is late unless it is above all that comes in.
        let sealed = self.flush_held(std::slice::from_ref(tree), || {
            tree.sealed_largest.fetch_max(foreign.largest_version, Relaxed);
        })?;
        let Arrived { tables, blobs, clears, blobs_added: mut changes, .. } = foreign;
        let arrive = |(meta, foreign): (TableMeta, Foreign)| {
            TableFile::new(&self.files, meta.arrived(sealed), Some(foreign))
        };
        let tables: Vec<_> = tables.into_iter().map(arrive).collect();
        changes.extend(tables.iter().map(|file| {
            let meta = Box::new(file.meta.clone());
            Change::TableAdded { tree: tree.id, level: 0, meta, foreign: file.foreign }
        }));
        self.edit(changes, || {
            tree.sources.rcu(|sources| {
                let mut next = Sources::clone(sources);
                let mut levels = Levels::clone(&next.levels);
                tables.iter().for_each(|table| levels.add(0, Arc::clone(table)));
                next.levels = Arc::new(levels);
                next.blobs = Arc::new(next.blobs.changed(&blobs, &[]));
                let own = next.clears.as_deref().cloned().unwrap_or_default();
                let all = clears.iter().fold(own, |all, cleared| all.with(*cleared));
                next.clears = Some(Arc::new(all)).filter(|all| !all.marks.is_empty());
                next
            });
        })?;
        self.records.iter().for_each(Records::arrived);
        self.signals.compaction_wanted();
        Ok(())
    }

    pub(crate) fn flush_trees(&self, trees: &[Arc<TreeState>]) -> Result<()> {
        let _flushing = self.flushing.lock();
        self.flush_held(trees, || ()).map(drop)
    }

    /// Flushes trees, by who holds the lock for it; `at_seal` runs while nobody writes. Answers the sequence at which they were sealed.
    fn flush_held(&self, trees: &[Arc<TreeState>], at_seal: impl FnOnce()) -> Result<Sequence> {
        let begun = self.parts.clock.monotonic();
        let (sealed, mut parts) = self.seal(trees, at_seal);
        let Some(last) = parts.iter().map(|part| part.upto).max() else { return Ok(sealed) };
        if !is_planted(Planted::TableBeforeLog) {
            self.log.commit(last, Durability::Synced).wait()?;
        }
        for part in &mut parts {
            part.written = Some(self.write_memtables(&part.tree, &part.memtables, part.upto)?);
        }
        if !is_planted(Planted::TableFolderNotSynced) {
            sync_dirs(&self.files, parts.iter().filter_map(|part| part.written.as_ref()))?;
        }
        let needed_from = self.needed_from(&parts);
        let edited =
            self.edit(edit_of(&parts, needed_from), || parts.iter().for_each(|part| self.install(part)));
        if edited.is_ok() || self.versions.has_failed() {
            parts.iter_mut().filter_map(|part| part.written.as_mut()).for_each(Written::keep);
        }
        edited?;
        let bytes = parts.iter().map(|part| part.bytes).sum();
        self.stall.sub(bytes);
        let written = parts.iter().filter_map(|part| part.written.as_ref());
        let files = written.map(|w| {
            w.tables.iter().map(|t| t.file_bytes).sum::<u64>()
                + w.blobs.iter().map(|b| b.file_bytes).sum::<u64>()
        });
        let flushed_bytes = files.sum();
        self.counters.flushed_bytes.fetch_add(flushed_bytes, Relaxed);
        self.pace.charge(flushed_bytes, self.parts.clock.monotonic());
        self.counters.flushes.fetch_add(1, Relaxed);
        self.note_debt();
        self.stall.flushed(bytes, self.parts.clock.monotonic().saturating_sub(begun));
        self.log.release_below(needed_from)?;
        Ok(sealed)
    }

    /// Seals the trees' memtables and collects what is to be flushed.
    fn seal(&self, trees: &[Arc<TreeState>], at_seal: impl FnOnce()) -> (Sequence, Vec<Part<'_>>) {
        let sealed = {
            let _writer = self.writer.lock();
            for tree in trees {
                tree.seal();
            }
            at_seal();
            self.published.load(Acquire)
        };
        let part = |tree: &Arc<TreeState>| {
            let memtables = tree.sources.load().sealed.clone();
            let upto = memtables.first()?.summary().last_sequence;
            let bytes = memtables.iter().map(|memtable| memtable.summary().bytes).sum();
            Some(Part { tree: Arc::clone(tree), memtables, upto, bytes, written: None })
        };
        (sealed, trees.iter().filter_map(part).collect())
    }

    /// What the log must still hold once these memtables stand in tables.
    fn needed_from(&self, flushed: &[Part<'_>]) -> Sequence {
        // Read before the memtables are looked at: what comes meanwhile lies above.
        let next = self.published.load(Acquire) + 1;
        if is_planted(Planted::OtherTreesForgotten) {
            return next;
        }
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

    fn install(&self, part: &Part<'_>) {
        let (tables, blobs) = part.written.as_ref().map_or((&[][..], &[][..]), |w| (&w.tables, &w.blobs));
        let tables: Vec<_> =
            tables.iter().map(|meta| TableFile::new(&self.files, meta.clone(), None)).collect();
        let blobs: Vec<_> = blobs.iter().map(|blob| BlobStore::new(&self.files, *blob)).collect();
        part.tree.flushed.fetch_max(part.upto, Release);
        part.tree.sources.rcu(|sources| {
            let mut next = Sources::clone(sources);
            next.sealed.retain(|sealed| !part.memtables.iter().any(|flushed| Arc::ptr_eq(flushed, sealed)));
            if !tables.is_empty() {
                let mut levels = Levels::clone(&next.levels);
                tables.iter().for_each(|table| levels.add(0, Arc::clone(table)));
                next.levels = Arc::new(levels);
                next.blobs = Arc::new(next.blobs.changed(&blobs, &[]));
            }
            next
        });
    }
}

fn edit_of(parts: &[Part<'_>], needed_from: Sequence) -> Vec<Change> {
    let mut changes = Vec::with_capacity(parts.len() * 2 + 1);
    for part in parts {
        let tree = part.tree.id;
        let written = part.written.as_ref();
        for meta in written.iter().flat_map(|written| &written.tables) {
            changes.push(Change::TableAdded { tree, level: 0, meta: Box::new(meta.clone()), foreign: None });
        }
        let blobs = written.iter().flat_map(|written| &written.blobs);
        changes.extend(blobs.map(|blob| Change::BlobAdded { tree, blob: *blob }));
        changes.push(Change::Flushed { tree, upto: part.upto });
    }
    changes.push(Change::NeededFrom { sequence: needed_from });
    changes
}
