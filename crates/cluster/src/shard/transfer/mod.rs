//! Data between members: what a source reads from a pinned snapshot, what a receiver stores. All of it waits for the disk, so all of it is jobs.

mod files_in;
mod files_out;
mod piece;
mod receive;
mod receiver;
mod serve;
mod source;

pub(super) use piece::check as check_piece;
#[cfg(test)]
pub(super) use piece::one_of_each;
pub(super) use receive::{ReceiveJob, Received};
pub(super) use receiver::{Receiver, Work};
pub(super) use serve::Sources;
pub(super) use source::{ReadPiece, Source, SourceFailed};

use crate::backup::files as disk;
use crate::error::Result;
use crate::latch::ShardId;
use kvorum_engine::fs::Fs;
use std::path::{Path, PathBuf};

/// The folder in a store's folder for files under way.
const FOLDER: &str = "transfers";

/// A folder for the files of one transfer of a shard.
fn folder(store: &Path, shard: ShardId, which: &str) -> PathBuf {
    store.join(FOLDER).join(format!("{}-{which}", stem(shard)))
}

fn stem(shard: ShardId) -> String {
    format!("{}-{}", shard.namespace, shard.place)
}

/// Removes what earlier runs left of a shard's transfers. Blocks.
pub(super) fn clean_up(fs: &dyn Fs, store: &Path, shard: ShardId) -> Result<()> {
    let root = store.join(FOLDER);
    let own = format!("{}-", stem(shard));
    for entry in disk::list(fs, &root)? {
        // The end of the shard's place is the first dash behind it.
        if entry.is_dir && entry.name.starts_with(&own) {
            remove_folder(fs, &root.join(&entry.name))?;
        }
    }
    Ok(())
}

/// Removes a folder with the files in it. Blocks.
fn remove_folder(fs: &dyn Fs, dir: &Path) -> Result<()> {
    for entry in disk::list(fs, dir)? {
        let path = dir.join(&entry.name);
        fs.remove(&path).map_err(|error| disk::failed("remove", &path, error))?;
    }
    match fs.remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(disk::failed("remove", dir, error)),
        _ => Ok(()),
    }
}
