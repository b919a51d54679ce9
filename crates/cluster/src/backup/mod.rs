//! Backups: a checkpoint of the store with a page that names its files, their lengths and hashes. The page is the same in a backup's folder, in
//! a checkpoint that `BGSAVE` made, and at the head of what a node streams.
//!
//! ```text
//! TARGET/BACKUP            the page, written last
//! TARGET/files/…           the store's files
//!
//! a stream:  page ‖ bytes of the first file ‖ bytes of the second ‖ …       (lengths and hashes stand in the page)
//! ```

pub(crate) mod files;
mod page;
mod receive;
mod restore;
mod save;
mod stream;

pub use page::{BackupFile, Page};
pub use receive::{check_target, receive};
pub use restore::{Restored, inspect, is_backup, make_own, restore};
pub use save::SaveStats;
pub(crate) use save::Saves;
pub use stream::Backup;

use crate::error::{Error, Result};
use crate::node::Inner;
use files::{hash_file, join, list, write_whole};
use kvorum_engine::fs::Fs;
use std::path::Path;

/// Name of the page in a backup's folder.
const PAGE: &str = "BACKUP";

/// The folder beside the page that holds the store's files.
const FILES: &str = "files";

/// How far a transfer, a restore or a verification is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes done.
    pub bytes: u64,
    /// Of so many.
    pub of_bytes: u64,
}

/// Refuses to serve a backup's folder: it holds the id of the store that it was taken of, and would be changed.
pub(crate) fn refuse_backup(fs: &dyn Fs, data: &Path) -> Result<()> {
    let inside = data.file_name().is_some_and(|name| name == FILES);
    let beside = data.parent().filter(|_| inside).map(|parent| parent.join(PAGE));
    for page in [Some(data.join(PAGE)), beside].into_iter().flatten() {
        if fs.exists(&page).map_err(|error| files::failed("look for", &page, error))? {
            return Err(Error::Invalid(format!(
                "{} belongs to a backup, which is not to be served: kvorum restore {} --data DIR makes a store of it",
                data.display(),
                page.parent().unwrap_or(data).display()
            )));
        }
    }
    Ok(())
}

/// Makes a checkpoint in `dir/files` and answers its page, which is not written anywhere yet.
fn checkpoint(inner: &Inner, dir: &Path) -> Result<Page> {
    let fs = &*inner.saves.fs;
    let root = dir.join(FILES);
    fs.create_dir_all(dir).map_err(|error| files::failed("create", dir, error))?;
    let made = inner.store.checkpoint(&root)?;
    let mut entries = Vec::with_capacity(made.files.len() + 3);
    for (path, bytes, hash) in made.files {
        let relative = path.strip_prefix(&root).unwrap_or(&path);
        let parts: Vec<_> = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect();
        entries.push(BackupFile { name: parts.join("/"), bytes, hash });
    }
    // What the checkpoint does not name: its manifest and format, which are small.
    for entry in list(fs, &root)?.into_iter().filter(|entry| !entry.is_dir) {
        let (bytes, hash) = hash_file(fs, &join(&root, &entry.name))?;
        entries.push(BackupFile { name: entry.name, bytes, hash });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Page {
        store_id: inner.store_id.iter().map(|byte| format!("{byte:02x}")).collect(),
        epoch: inner.epoch,
        sequence: made.sequence,
        taken_ms: inner.time.now(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        files: entries,
    })
}

/// Writes the page into a backup's folder, whose files are there.
fn write_page(fs: &dyn Fs, dir: &Path, page: &Page) -> Result<()> {
    write_whole(fs, &dir.join(PAGE), page.text().as_bytes())?;
    fs.sync_dir(dir).map_err(|error| files::failed("sync", dir, error))
}
