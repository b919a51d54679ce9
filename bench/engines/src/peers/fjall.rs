//! fjall, the peer in Rust.

use super::Engine;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;

pub(super) struct Fjall {
    database: Database,
    rows: Keyspace,
}

pub(super) fn open(folder: &Path, cache_bytes: u64) -> Fjall {
    let database = Database::builder(folder).cache_size(cache_bytes).open().expect("a fjall store");
    let rows = database.keyspace("rows", KeyspaceCreateOptions::default).expect("a keyspace");
    Fjall { database, rows }
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8], synced: bool) {
        self.rows.insert(key, value).expect("a put");
        if synced {
            self.database.persist(PersistMode::SyncData).expect("a sync");
        }
    }

    fn put_all(&self, rows: &[([u8; 16], Vec<u8>)]) {
        let mut batch = self.database.batch();
        for (key, value) in rows {
            batch.insert(&self.rows, &key[..], &value[..]);
        }
        batch.commit().expect("a batch");
    }

    fn delete(&self, key: &[u8]) {
        self.rows.remove(key).expect("a delete");
    }

    fn get(&self, key: &[u8]) -> bool {
        self.rows.get(key).expect("a get").is_some()
    }

    fn scan(&self, start: &[u8], limit: u64) -> u64 {
        let rows = self.rows.range(start.to_vec()..);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        rows.take(limit).map(|row| row.into_inner().expect("a row")).count() as u64
    }

    fn settle(&self) {
        self.rows.rotate_memtable_and_wait().expect("a flush");
        while self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
