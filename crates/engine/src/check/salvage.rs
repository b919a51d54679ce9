//! Saving what is whole: into a new store, source by source from the oldest to the newest, so that of one key and version the later write still
//! wins.

use super::{Checked, Source, each_block, file_bytes};
use crate::batch::{Attributes, Batch};
use crate::blob::BlobSet;
use crate::error::{Error, Result};
use crate::options::{Parts, Settings, TreeSettings};
use crate::record::Operations;
use crate::sst::{Access, Space, Table, TableIter};
use crate::store::Store;
use crate::tree::{Tree, TreeId};
use crate::types::{Durability, Kind, Version};
use crate::version::{FloorKind, TreeRecord};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Operations written at once.
const BATCH_OPERATIONS: usize = 256;

/// What [`salvage`] did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Salvaged {
    /// Operations brought over: entries of tables and of the log, also those that others hide.
    pub operations: u64,
    /// What could not be read.
    pub checked: Checked,
}

/// Writes what is whole of the damaged store in `from` into a new store in the empty folder `into`. Nothing in `from` is changed.
///
/// The log's whole records are brought over also behind a damaged one: of what was written last, batches may be missing in between.
///
/// # Errors
/// As [`check`](super::check); `Invalid` if `into` is not empty; what writing there answers.
pub fn salvage(
    from: impl AsRef<Path>,
    into: impl AsRef<Path>,
    settings: &Settings,
    parts: &Parts,
) -> Result<Salvaged> {
    save(&Source::open(from.as_ref(), settings, parts)?, into.as_ref(), settings, parts)
}

/// Makes a new store in the empty folder `into` from nothing but a log that was kept whole
/// ([`WalRetention::All`](crate::WalRetention::All)): the data folder may be lost. Nothing in `log` is changed. Floors are those of
/// the last flush before the loss; what was taken in as files the log does not know.
///
/// # Errors
/// `Damaged` if the names of the trees in the log's folder are; else as [`salvage`].
pub fn rebuild(
    log: impl AsRef<Path>,
    into: impl AsRef<Path>,
    settings: &Settings,
    parts: &Parts,
) -> Result<Salvaged> {
    save(&Source::of_log(log.as_ref(), parts)?, into.as_ref(), settings, parts)
}

fn save(source: &Source, into: &Path, settings: &Settings, parts: &Parts) -> Result<Salvaged> {
    let exists = parts.fs.exists(into).map_err(|e| Error::io("look for", into, e))?;
    if exists && !parts.fs.list(into).map_err(|e| Error::io("list", into, e))?.is_empty() {
        return Err(Error::Invalid(format!("{} is not empty", into.display())));
    }
    let store = Store::open(into, Settings { wal_dir: None, ..settings.clone() }, parts.clone())?;
    let mut saver = Saver { store: &store, batch: Batch::new(), salvaged: Salvaged::default() };
    let mut trees = BTreeMap::new();
    for (id, record) in source.trees() {
        let settings =
            if record.newest_only { TreeSettings::newest_only() } else { TreeSettings::with_history() };
        let tree = store.tree(&record.name, settings)?;
        saver.tables(source, record, &tree)?;
        trees.insert(id, tree);
    }
    saver.log(source, &trees)?;
    for (id, record) in source.trees() {
        if let Some(tree) = trees.get(&id) {
            FloorKind::ALL.into_iter().for_each(|floor| tree.state().raise_floor(floor, record.floor(floor)));
        }
    }
    store.shared.floors_rose();
    let salvaged = saver.salvaged;
    store.flush()?;
    store.close()?;
    Ok(salvaged)
}

struct Saver<'a> {
    store: &'a Store,
    batch: Batch,
    salvaged: Salvaged,
}

impl Saver<'_> {
    /// The deepest level first, of level 0 the oldest table first.
    fn tables(&mut self, source: &Source, record: &TreeRecord, tree: &Tree) -> Result<()> {
        let blobs = BlobSet::new(&source.files, record.blobs.values().copied());
        let checked = &mut self.salvaged.checked;
        checked.files += (record.levels.iter().flatten().count() + record.blobs.len()) as u64;
        checked.bytes += file_bytes(record);
        for (meta, foreign) in record.levels.iter().rev().flatten() {
            let path = source.files.table_path(meta.id);
            let table = Table::open(Arc::clone(&source.files.fs), &path, meta.clone(), &source.files.cache);
            let Some(table) = self.salvaged.checked.note(table)? else { continue };
            let ceiling = foreign.map_or(Version::MAX, |foreign| foreign.ceiling);
            let mut checked = std::mem::take(&mut self.salvaged.checked);
            let mut lost = Vec::new();
            let visited = each_block(&table, &mut checked, &mut |space, iter| match self
                .entry(space, iter, &blobs, ceiling, tree)
            {
                Err(damage @ Error::Damaged { .. }) => {
                    lost.push(damage);
                    Ok(())
                }
                other => other,
            });
            lost.into_iter().for_each(|damage| checked.damaged(damage));
            self.salvaged.checked = checked;
            visited?;
        }
        self.write()
    }

    fn entry(
        &mut self,
        space: Space,
        iter: &TableIter,
        blobs: &BlobSet,
        ceiling: Version,
        tree: &Tree,
    ) -> Result<()> {
        let Some(head) = iter.head().copied().filter(|head| head.version <= ceiling) else { return Ok(()) };
        let payload = iter.payload()?;
        let value = match head.kind {
            Kind::BlobPointer => {
                blobs.read(&payload, iter.key(), head.version, Access::Wait)?.unwrap_or_default()
            }
            _ => payload,
        };
        let attributes = Attributes { expires_at: head.expires_at, tag: head.tag };
        self.add(tree, (space, head.kind), iter.key(), head.version, &value, attributes)
    }

    /// The log last: it is newer than any table, and what stands in both is the same.
    fn log(&mut self, source: &Source, trees: &BTreeMap<TreeId, Tree>) -> Result<()> {
        let (mut result, mut records) = (Ok(()), 0);
        let damages = source.read_log(&mut |_, record| {
            records += 1;
            if result.is_ok() {
                result = self.record(record, trees, source);
            }
        })?;
        result?;
        self.salvaged.checked.log_records = records;
        damages.into_iter().for_each(|damage| self.salvaged.checked.damaged(damage));
        self.write()
    }

    /// A record is a batch: it is written whole, in one.
    fn record(&mut self, record: &[u8], trees: &BTreeMap<TreeId, Tree>, source: &Source) -> Result<()> {
        self.write()?;
        for operation in Operations::new(record) {
            let operation =
                operation.map_err(|what| Error::damaged(&source.wal_dir, 0, what, "other bytes"))?;
            // A tree that is not there was dropped later.
            let Some(tree) = trees.get(&operation.tree) else { continue };
            let attributes = Attributes { expires_at: operation.expires_at, tag: operation.tag };
            let kind = (operation.space, operation.kind);
            self.push(tree, kind, operation.key, operation.version, operation.payload, attributes);
        }
        self.write()
    }

    fn add(
        &mut self,
        tree: &Tree,
        kind: (Space, Kind),
        key: &[u8],
        version: Version,
        value: &[u8],
        attributes: Attributes,
    ) -> Result<()> {
        let limit = self.store.settings().batch_limit_bytes();
        if self.batch.len() >= BATCH_OPERATIONS
            || (self.batch.bytes() + key.len() + value.len()) as u64 + 64 > limit
        {
            self.write()?;
        }
        self.push(tree, kind, key, version, value, attributes);
        Ok(())
    }

    fn push(
        &mut self,
        tree: &Tree,
        (space, kind): (Space, Kind),
        key: &[u8],
        version: Version,
        value: &[u8],
        attributes: Attributes,
    ) {
        self.salvaged.operations += 1;
        let batch = &mut self.batch;
        match (space, kind) {
            (Space::Data, Kind::Tombstone) => batch.delete(tree, key, version, attributes),
            (Space::Data, Kind::Retract) => batch.retract(tree, key, version),
            (Space::Data, _) => batch.put(tree, key, version, value, attributes),
            (Space::Clears, Kind::Retract) => batch.retract_clear(tree, version),
            (Space::Clears, _) => batch.clear(tree, version),
            (Space::Notes, Kind::Retract) => batch.retract_note(tree, version),
            (Space::Notes, _) => batch.note(tree, version, value),
        }
    }

    fn write(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        loop {
            match self.store.write(&batch, Durability::Buffered).and_then(|commit| commit.wait()) {
                Err(Error::Busy { .. }) => self.store.flush()?,
                written => return written,
            }
        }
    }
}
