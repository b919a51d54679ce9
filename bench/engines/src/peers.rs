//! The engines behind one small face.

use std::path::Path;

mod fjall;
pub(crate) mod kvorum;
mod rocksdb;

/// What a workload needs of an engine.
pub(crate) trait Engine: Send + Sync {
    /// Writes a row; `synced` waits until it is on the device.
    fn put(&self, key: &[u8], value: &[u8], synced: bool);
    /// Writes rows as one batch.
    fn put_all(&self, rows: &[([u8; 16], Vec<u8>)]);
    /// Deletes a row.
    fn delete(&self, key: &[u8]);
    /// Reads a row; whether it is there.
    fn get(&self, key: &[u8]) -> bool;
    /// Reads up to `limit` rows from `start` on, values too; how many.
    fn scan(&self, start: &[u8], limit: u64) -> u64;
    /// Flushes and waits for the background to be idle.
    fn settle(&self);
}

/// Opens a store, a fresh one if there is none.
pub(crate) fn open(engine: &str, folder: &Path, cache_bytes: u64) -> Box<dyn Engine> {
    match engine {
        "kvorum" => Box::new(kvorum::open(folder, cache_bytes)),
        "rocksdb" => Box::new(rocksdb::open(folder, cache_bytes)),
        "fjall" => Box::new(fjall::open(folder, cache_bytes)),
        odd => {
            eprintln!("no engine {odd:?}; there are: kvorum rocksdb fjall");
            std::process::exit(2);
        }
    }
}
