//! The engines under one small face.

use std::path::Path;

pub trait Engine {
    /// Writes one row, handed to the system but not synced.
    fn put(&self, key: &[u8], value: &[u8]);
    /// Whether the key has a value; reads it.
    fn get(&self, key: &[u8]) -> bool;
    /// Reads up to `rows` rows from `from` on.
    fn scan(&self, from: &[u8], rows: usize);
    /// Flushes, and lets background work come to rest.
    fn settle(&self);
    /// What it has to say of itself.
    fn report(&self) -> String {
        String::new()
    }
}

pub fn open(name: &str, folder: &Path, cache_mib: u64) -> Box<dyn Engine> {
    match name {
        "kvorum" => Box::new(kvorum::open(folder, cache_mib)),
        #[cfg(feature = "fjall")]
        "fjall" => Box::new(fjall::open(folder, cache_mib)),
        other => panic!("no engine {other} here (some are behind features)"),
    }
}

mod kvorum {
    use super::{Engine, Path};
    use kvorum_engine::{
        Attributes, Batch, Direction, Durability, Error, Parts, Settings, Store, Tree, TreeSettings, View,
    };
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    pub struct Kvorum {
        store: Store,
        tree: Tree,
        version: AtomicU64,
    }

    pub fn open(folder: &Path, cache_mib: u64) -> Kvorum {
        let mut settings = Settings::default();
        // Cache and three write buffers of 64 MiB, as the peers have.
        settings.memory_bytes = (cache_mib + 192) << 20;
        settings.write_buffer_bytes = Some(192 << 20);
        settings.memtable_bytes = Some(64 << 20);
        let store = Store::open(folder, settings, Parts::real()).expect("a store");
        let tree = store.tree("bench", TreeSettings::newest_only()).expect("a tree");
        Kvorum { store, tree, version: AtomicU64::new(1) }
    }

    impl Engine for Kvorum {
        fn put(&self, key: &[u8], value: &[u8]) {
            loop {
                let mut batch = Batch::new();
                let version = self.version.fetch_add(1, Relaxed);
                batch.put(&self.tree, key, version, value, Attributes::default());
                match self.store.write(batch, Durability::Written) {
                    Ok(commit) => return commit.wait().expect("a commit"),
                    Err(Error::Busy { retry_after }) => std::thread::sleep(retry_after),
                    Err(error) => panic!("{error}"),
                }
            }
        }

        fn get(&self, key: &[u8]) -> bool {
            self.tree.get(key, &View::newest()).expect("a read").is_some()
        }

        fn scan(&self, from: &[u8], rows: usize) {
            let range = self.tree.range(from.., &View::newest(), Direction::Forward).expect("a range");
            let bytes: usize = range.take(rows).map(|row| row.expect("a row").1.value.len()).sum();
            assert!(bytes > 0);
        }

        fn settle(&self) {
            self.store.flush().expect("a flush");
            self.store.compact().expect("a compaction");
        }

        fn report(&self) -> String {
            format!("{:?}", self.store.stats())
        }
    }
}

#[cfg(feature = "fjall")]
mod fjall {
    use super::{Engine, Path};
    use fjall::{Config, Keyspace, PartitionCreateOptions, PartitionHandle, PersistMode};

    pub struct Fjall {
        keyspace: Keyspace,
        partition: PartitionHandle,
    }

    pub fn open(folder: &Path, cache_mib: u64) -> Fjall {
        let keyspace = Config::new(folder).cache_size(cache_mib << 20).open().expect("a keyspace");
        let options = PartitionCreateOptions::default().max_memtable_size(64 << 20);
        let partition = keyspace.open_partition("bench", options).expect("a partition");
        Fjall { keyspace, partition }
    }

    impl Engine for Fjall {
        fn put(&self, key: &[u8], value: &[u8]) {
            self.partition.insert(key, value).expect("a write");
        }

        fn get(&self, key: &[u8]) -> bool {
            self.partition.get(key).expect("a read").is_some()
        }

        fn scan(&self, from: &[u8], rows: usize) {
            let range = self.partition.range(from..);
            let bytes: usize = range.take(rows).map(|row| row.expect("a row").1.len()).sum();
            assert!(bytes > 0);
        }

        fn settle(&self) {
            self.keyspace.persist(PersistMode::SyncAll).expect("a sync");
            self.partition.rotate_memtable_and_wait().expect("a flush");
            while self.keyspace.active_compactions() > 0 {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }
}
