//! The log and the vote, for openraft: written to the engine, read from memory. The log is short, because it is purged behind snapshots.

use super::disk::{COMMITTED, Disk, PURGED, VOTE, damaged, log_key};
use super::raft::{Entry, LogId, StorageError, Types, Vote};
use kvorum_engine::{Batch, Durability};
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{ErrorSubject, ErrorVerb, OptionalSend, RaftLogId, RaftLogReader};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

/// Entries of one answer to a reader.
const READ_ENTRIES_MAX: u64 = 64;

/// The log. Clones are readers of the same one.
#[derive(Clone)]
pub(crate) struct LogStore {
    disk: Arc<Disk>,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    entries: BTreeMap<u64, Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
    committed: Option<LogId>,
}

impl LogStore {
    /// Reads the log. May wait for the disk.
    pub(crate) fn open(disk: Arc<Disk>) -> io::Result<LogStore> {
        let purged: Option<LogId> = disk.get_json(PURGED)?;
        let mut expected = None;
        let mut entries = BTreeMap::new();
        for (index, entry) in disk.entries::<Entry>()? {
            if purged.is_some_and(|purged| index <= purged.index) {
                continue;
            }
            if expected.is_some_and(|expected| index != expected) || entry.log_id.index != index {
                return Err(damaged(&log_key(index), "the entry that follows the one before"));
            }
            expected = Some(index + 1);
            entries.insert(index, entry);
        }
        let log = Log { entries, purged, vote: disk.get_json(VOTE)?, committed: disk.get_json(COMMITTED)? };
        Ok(LogStore { disk, log: Arc::new(Mutex::new(log)) })
    }

    /// Whether the log was ever begun, here or by another node.
    pub(crate) fn has_begun(&self) -> bool {
        let log = self.log.lock();
        !log.entries.is_empty() || log.purged.is_some()
    }
}

fn failed(subject: ErrorSubject<u64>, verb: ErrorVerb) -> impl Fn(io::Error) -> StorageError {
    move |error| StorageError::from_io_error(subject.clone(), verb, error)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.log.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let end = end.min(start.saturating_add(READ_ENTRIES_MAX));
        self.try_get_log_entries(start..end).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let log = self.log.lock();
        let last = log.entries.last_key_value().map(|(_, entry)| *entry.get_log_id());
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last.or(log.purged) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let failed = failed(ErrorSubject::Vote, ErrorVerb::Write);
        let mut batch = Batch::new();
        self.disk.put_json(&mut batch, VOTE, vote).map_err(&failed)?;
        self.disk.write_synced(&batch).await.map_err(&failed)?;
        self.log.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.log.lock().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let failed = failed(ErrorSubject::Store, ErrorVerb::Write);
        let mut batch = Batch::new();
        self.disk.put_json(&mut batch, COMMITTED, &committed).map_err(&failed)?;
        // Only a node that starts and hears nobody misses what a crash takes from this: it then has a map a little older.
        drop(self.disk.write(&batch, Durability::Written).await.map_err(&failed)?);
        self.log.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.log.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let failed = failed(ErrorSubject::Logs, ErrorVerb::Write);
        let entries: Vec<Entry> = entries.into_iter().collect();
        let mut batch = Batch::new();
        for entry in &entries {
            self.disk.put_json(&mut batch, &log_key(entry.log_id.index), entry).map_err(&failed)?;
        }
        let commit = self.disk.write(&batch, Durability::Synced).await.map_err(&failed)?;
        self.log.lock().entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
        tokio::task::spawn_blocking(move || {
            callback.log_io_completed(commit.wait().map_err(io::Error::other));
        });
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let failed = failed(ErrorSubject::Log(log_id), ErrorVerb::Delete);
        let mut batch = Batch::new();
        {
            let log = self.log.lock();
            log.entries
                .range(log_id.index..)
                .for_each(|(index, _)| self.disk.delete(&mut batch, &log_key(*index)));
        }
        self.disk.write_synced(&batch).await.map_err(&failed)?;
        self.log.lock().entries.split_off(&log_id.index);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let failed = failed(ErrorSubject::Log(log_id), ErrorVerb::Delete);
        let mut batch = Batch::new();
        self.disk.put_json(&mut batch, PURGED, &log_id).map_err(&failed)?;
        {
            let log = self.log.lock();
            let gone = log.entries.range(..=log_id.index);
            gone.for_each(|(index, _)| self.disk.delete(&mut batch, &log_key(*index)));
        }
        // What a crash brings back is purged again.
        drop(self.disk.write(&batch, Durability::Written).await.map_err(&failed)?);
        let mut log = self.log.lock();
        log.entries = log.entries.split_off(&(log_id.index + 1));
        log.purged = Some(log_id);
        Ok(())
    }
}
