//! The map, for openraft: kept in memory, told to whoever watches it, and made durable by snapshots; after a restart the entries behind the last
//! snapshot are applied again.

use super::change::{Answers, State};
use super::disk::{Disk, SNAPSHOT, damaged};
use super::map::Map;
use super::raft::{Entry, LogId, SnapshotMeta, StorageError, StoredMembership, Types};
use kvorum_engine::Batch;
use kvorum_sync::StoreId;
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder};
use std::io::{self, Cursor};
use std::sync::Arc;
use tokio::sync::watch;

/// The map and what belongs to it.
pub(crate) struct StateMachine {
    disk: Arc<Disk>,
    state: State,
    applied: Option<LogId>,
    membership: StoredMembership,
    maps: watch::Sender<Arc<Map>>,
    stored: Stored,
}

/// What the snapshot on the disk covers. Held while one is written: an older one that was built beside must not take the place of one that
/// came from the leader, behind which the log is purged.
type Stored = Arc<tokio::sync::Mutex<Option<LogId>>>;

/// A snapshot: what it covers, and the state as JSON.
struct Saved {
    meta: SnapshotMeta,
    state: Vec<u8>,
}

impl Saved {
    fn open(self) -> Snapshot<Types> {
        Snapshot { meta: self.meta, snapshot: Box::new(Cursor::new(self.state)) }
    }

    async fn store(&self, disk: &Disk, stored: &Stored) -> io::Result<()> {
        let mut stored = stored.lock().await;
        if *stored > self.meta.last_log_id {
            return Ok(());
        }
        let head = serde_json::to_vec(&self.meta)?;
        let length = u32::try_from(head.len()).map_err(io::Error::other)?;
        let mut batch = Batch::new();
        disk.put(&mut batch, SNAPSHOT, &[&length.to_le_bytes()[..], &head, &self.state].concat());
        disk.write_synced(&batch).await?;
        *stored = self.meta.last_log_id;
        Ok(())
    }

    /// May wait for the disk.
    fn load(disk: &Disk) -> io::Result<Option<Saved>> {
        let Some(bytes) = disk.get(SNAPSHOT)? else { return Ok(None) };
        let split = || {
            let (length, rest) = bytes.split_first_chunk()?;
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        };
        let (head, state) = split().ok_or_else(|| damaged(SNAPSHOT, "a head as long as it says"))?;
        let meta = serde_json::from_slice(head).map_err(|error| damaged(SNAPSHOT, &error.to_string()))?;
        Ok(Some(Saved { meta, state: state.to_vec() }))
    }
}

impl StateMachine {
    /// Begins with the last snapshot. May wait for the disk.
    pub(crate) fn open(disk: Arc<Disk>, maps: watch::Sender<Arc<Map>>) -> io::Result<StateMachine> {
        let saved = Saved::load(&disk)?;
        let stored = saved.as_ref().and_then(|saved| saved.meta.last_log_id);
        let mut machine = StateMachine {
            disk,
            state: State::default(),
            applied: None,
            membership: StoredMembership::default(),
            maps,
            stored: Arc::new(tokio::sync::Mutex::new(stored)),
        };
        if let Some(saved) = saved {
            let state = machine.read(&saved.state)?;
            machine.become_snapshot(&saved.meta, state);
        }
        Ok(machine)
    }

    fn read(&self, state: &[u8]) -> io::Result<State> {
        serde_json::from_slice(state).map_err(|error| damaged(SNAPSHOT, &error.to_string()))
    }

    fn become_snapshot(&mut self, meta: &SnapshotMeta, state: State) {
        self.state = state;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
    }

    /// Who votes is in the map too: everybody may ask it.
    fn set_membership(&mut self, membership: StoredMembership) {
        let voters = membership.voter_ids().map(StoreId).collect();
        if self.state.map.voters != voters {
            self.state.map.voters = voters;
            if self.state.map.is_founded() {
                self.state.map.version += 1;
            }
        }
        self.membership = membership;
    }

    fn publish(&self) {
        self.maps.send_if_modified(|map| {
            let differs = **map != self.state.map;
            if differs {
                *map = Arc::new(self.state.map.clone());
            }
            differs
        });
    }
}

fn failed(verb: ErrorVerb) -> impl Fn(io::Error) -> StorageError {
    move |error| StorageError::from_io_error(ErrorSubject::Snapshot(None), verb, error)
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Answers>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            answers.push(match entry.payload {
                EntryPayload::Blank => Answers::default(),
                EntryPayload::Normal(proposal) => self.state.apply(&proposal),
                EntryPayload::Membership(membership) => {
                    self.set_membership(StoredMembership::new(Some(entry.log_id), membership));
                    Answers::default()
                }
            });
        }
        self.publish();
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let index = self.applied.map_or(0, |applied| applied.index);
        let term = self.applied.map_or(0, |applied| applied.leader_id.term);
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{term}-{index}"),
        };
        Builder { disk: self.disk.clone(), stored: self.stored.clone(), meta, state: self.state.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let saved = Saved { meta: meta.clone(), state: snapshot.into_inner() };
        // What can't be read is not stored.
        let state = self.read(&saved.state).map_err(failed(ErrorVerb::Read))?;
        saved.store(&self.disk, &self.stored).await.map_err(failed(ErrorVerb::Write))?;
        self.become_snapshot(&saved.meta, state);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let disk = self.disk.clone();
        let loaded = tokio::task::spawn_blocking(move || Saved::load(&disk)).await;
        let loaded = loaded.map_err(io::Error::other).flatten().map_err(failed(ErrorVerb::Read))?;
        Ok(loaded.map(Saved::open))
    }
}

/// Makes a snapshot beside the work.
pub(crate) struct Builder {
    disk: Arc<Disk>,
    stored: Stored,
    meta: SnapshotMeta,
    state: State,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let state =
            serde_json::to_vec(&self.state).map_err(|error| failed(ErrorVerb::Write)(error.into()))?;
        let saved = Saved { meta: self.meta.clone(), state };
        saved.store(&self.disk, &self.stored).await.map_err(failed(ErrorVerb::Write))?;
        Ok(saved.open())
    }
}
