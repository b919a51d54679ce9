//! openraft's own tests of a storage, and what they leave out: that everything is there after a restart.

use super::change::{Change, Proposal, RequestId};
use super::disk::Disk;
use super::log_store::LogStore;
use super::map::{ClusterId, Map, NodeInfo};
use super::raft::{Entry, StorageError, Types, Vote};
use super::state_machine::StateMachine;
use kvorum_engine::{Parts, Settings, Store};
use kvorum_sync::StoreId;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite, blank_ent, log_id};
use openraft::{EntryPayload, RaftLogReader, RaftSnapshotBuilder};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::watch;

struct Builder;

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.memory_bytes = 16 << 20;
    settings
}

fn open(path: &Path) -> (Store, Arc<Disk>, LogStore, StateMachine, watch::Receiver<Arc<Map>>) {
    let store = Store::open(path, settings(), Parts::real()).unwrap();
    let disk = Arc::new(Disk::open(&store).unwrap());
    let (maps, watched) = watch::channel(Arc::new(Map::default()));
    let machine = StateMachine::open(disk.clone(), maps).unwrap();
    (store, disk.clone(), LogStore::open(disk).unwrap(), machine, watched)
}

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let (_, _, log, machine, _) = open(dir.path());
        Ok((dir, log, machine))
    }
}

#[test]
fn openrafts_suite() {
    Suite::test_all(Builder).unwrap();
}

fn proposal(index: u64, changes: Vec<Change>) -> Entry {
    let id = RequestId { store: StoreId(1), boot: 1, number: index };
    Entry { log_id: log_id(1, 0, index), payload: EntryPayload::Normal(Proposal { id, changes }) }
}

fn found() -> Change {
    let info = NodeInfo { name: "a".into(), peer: "a:1".into(), ..NodeInfo::default() };
    let nodes = BTreeMap::from([(StoreId(1), info)]);
    Change::Found { cluster: ClusterId(5), nodes, namespaces: BTreeMap::new() }
}

#[tokio::test]
async fn log_and_vote_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (store, _, mut log, _, _) = open(dir.path());
        assert!(!log.has_begun());
        log.save_vote(&Vote::new(3, 9)).await.unwrap();
        log.blocking_append((0..20).map(|index| blank_ent::<Types>(1, 0, index))).await.unwrap();
        log.truncate(log_id(1, 0, 15)).await.unwrap();
        log.purge(log_id(1, 0, 4)).await.unwrap();
        log.blocking_append([blank_ent::<Types>(2, 0, 15)]).await.unwrap();
        log.save_committed(Some(log_id(1, 0, 9))).await.unwrap();
        store.close().unwrap();
    }
    let (_store, _, mut log, _, _) = open(dir.path());
    assert!(log.has_begun());
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(3, 9)));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 0, 9)));
    let state = log.get_log_state().await.unwrap();
    assert_eq!(
        (state.last_purged_log_id, state.last_log_id),
        (Some(log_id(1, 0, 4)), Some(log_id(2, 0, 15)))
    );
    let entries = log.try_get_log_entries(0..100).await.unwrap();
    assert_eq!(
        entries.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(),
        (5..=15).collect::<Vec<_>>()
    );
    let after = log.truncate(log_id(1, 0, 7)).await;
    after.unwrap();
    assert_eq!(
        log.get_log_state().await.unwrap().last_log_id,
        Some(log_id(1, 0, 6)),
        "also what the earlier run wrote"
    );
}

#[tokio::test]
async fn a_snapshot_carries_the_map_over_a_restart_and_to_others() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let map = {
        let (store, _, _, mut machine, maps) = open(one.path());
        machine.apply([proposal(1, vec![found()])]).await.unwrap();
        let map = maps.borrow().clone();
        assert_eq!((map.cluster, map.version), (ClusterId(5), 1));
        machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
        store.close().unwrap();
        map
    };
    let (_store, _, _, mut machine, maps) = open(one.path());
    assert_eq!(*maps.borrow(), map);
    let snapshot = machine.get_current_snapshot().await.unwrap().unwrap();
    let (_store, _, _, mut receiver, maps) = open(other.path());
    receiver.install_snapshot(&snapshot.meta, snapshot.snapshot.clone()).await.unwrap();
    assert_eq!(*maps.borrow(), map);
    assert_eq!(receiver.applied_state().await.unwrap().0, Some(log_id(1, 0, 1)));
}

#[tokio::test]
async fn an_older_snapshot_built_beside_does_not_replace_a_received_one() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, disk, _, mut machine, _maps) = open(dir.path());
    machine.apply([proposal(1, vec![found()])]).await.unwrap();
    let mut slow = machine.get_snapshot_builder().await;
    machine.apply([proposal(2, vec![])]).await.unwrap();
    let newer = machine.get_snapshot_builder().await.build_snapshot().await.unwrap();
    machine.install_snapshot(&newer.meta, newer.snapshot).await.unwrap();
    slow.build_snapshot().await.unwrap();
    let found = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(found.meta.last_log_id, Some(log_id(1, 0, 2)));
    drop(disk);
}

#[tokio::test]
async fn a_hole_in_the_log_is_an_error_that_names_the_entry() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, disk, mut log, _, _) = open(dir.path());
    log.blocking_append([blank_ent::<Types>(1, 0, 0), blank_ent::<Types>(1, 0, 2)]).await.unwrap();
    let error = LogStore::open(disk).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("log/") && error.contains("follows the one before"), "{error}");
}
