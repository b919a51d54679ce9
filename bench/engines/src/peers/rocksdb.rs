//! RocksDB, with the settings its own guide gives for a small machine: LZ4, 10 bits of Bloom filter a key, the cache as asked.

use super::Engine;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, IteratorMode, Options, WaitForCompactOptions,
    WriteBatch, WriteOptions,
};
use std::path::Path;

pub(super) struct Rocks(DB);

pub(super) fn open(folder: &Path, cache_bytes: u64) -> Rocks {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(usize::try_from(cache_bytes).expect("a size")));
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(64 << 20);
    options.set_max_write_buffer_number(3);
    options.increase_parallelism(2);
    Rocks(DB::open(&options, folder).expect("a RocksDB store"))
}

impl Engine for Rocks {
    fn put(&self, key: &[u8], value: &[u8], synced: bool) {
        let mut options = WriteOptions::default();
        options.set_sync(synced);
        self.0.put_opt(key, value, &options).expect("a put");
    }

    fn put_all(&self, rows: &[([u8; 16], Vec<u8>)]) {
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            batch.put(key, value);
        }
        self.0.write(batch).expect("a batch");
    }

    fn delete(&self, key: &[u8]) {
        self.0.delete(key).expect("a delete");
    }

    fn get(&self, key: &[u8]) -> bool {
        self.0.get_pinned(key).expect("a get").is_some()
    }

    fn scan(&self, start: &[u8], limit: u64) -> u64 {
        let rows = self.0.iterator(IteratorMode::From(start, rocksdb::Direction::Forward));
        rows.take(usize::try_from(limit).unwrap_or(usize::MAX)).map(|row| row.expect("a row")).count() as u64
    }

    fn settle(&self) {
        self.0.flush().expect("a flush");
        self.0.wait_for_compact(&WaitForCompactOptions::default()).expect("idle");
    }
}
