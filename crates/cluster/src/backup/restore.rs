//! From a backup to a store that can be served: a new one, with an id of its own and an epoch far above.

use super::files::{
    Hasher, Output, create_durably, damaged, failed, join, list, read_pieces, remove_all, remove_quietly,
    sync_tree,
};
use super::receive::check_target;
use super::{BackupFile, FILES, PAGE, Page, Progress};
use crate::error::{Error, Result};
use crate::node::NodeParts;
use crate::system::System;
use kvorum_engine::fs::{File, Fs};
use kvorum_engine::{Settings, Store};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

/// Where a restore works, in the folder that it fills.
pub(super) const WORK: &str = "restore.tmp";

/// Memory for the store while its id is written, in bytes.
const MEMORY_BYTES: u64 = 16 << 20;

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The page of the backup.
    pub page: Page,
    /// The id of the new store.
    pub store_id: String,
    /// The epoch that it stands in; the first start is in the next.
    pub epoch: u64,
}

/// Makes a store in `data` of the backup in `source`. `data` must not exist or be empty. All hashes are compared before any file of the store
/// is there; a store that was not completed is not served. Blocks.
pub fn restore(
    parts: &NodeParts,
    source: &Path,
    data: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored> {
    let fs = &*parts.storage.fs;
    let page = read_page(fs, source)?;
    let was_there = fs.exists(data).map_err(|error| failed("look for", data, error))?;
    let work = data.join(WORK);
    // A restore that was killed has left nothing else.
    if list(fs, data)?.iter().all(|entry| entry.name == WORK) {
        remove_all(fs, &work)?;
    }
    check_target(fs, data)?;
    let restored = fill(parts, &page, source, data, progress);
    if restored.is_err() {
        remove_quietly(fs, &work);
        if !was_there {
            // Fails, and shall, if parts of a store are there.
            let _ = fs.remove_dir(data);
        }
    }
    let (store_id, epoch) = restored?;
    Ok(Restored { page, store_id, epoch })
}

fn fill(
    parts: &NodeParts,
    page: &Page,
    source: &Path,
    data: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(String, u64)> {
    let fs = &*parts.storage.fs;
    create_durably(fs, data)?;
    let work = data.join(WORK);
    let (copy, store) = (work.join("copy"), work.join("store"));
    let mut done = Progress { bytes: 0, of_bytes: page.bytes() };
    progress(done);
    for file in &page.files {
        let path = join(&copy, &file.name);
        let mut output = Output::create(fs, &path)?;
        verify_file(fs, source, file, &mut |piece| {
            done.bytes += piece.len() as u64;
            progress(done);
            output.write(piece)
        })?;
        output.finish()?;
    }
    sync_tree(fs, &copy)?;
    let epoch = make_new(parts, &copy, &store)?;
    sync_tree(fs, &work)?;
    move_up(fs, &store, data)?;
    remove_quietly(fs, &work);
    Ok((id_text(&parts.seed.to_le_bytes()), epoch))
}

fn id_text(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Gives the store in `copy` an id and an epoch of its own, and makes a checkpoint of that in `target`: a store without a log, so that its
/// first start may put the log wherever it is told. Answers the epoch.
fn make_new(parts: &NodeParts, copy: &Path, target: &Path) -> Result<u64> {
    let store = open_store(parts, copy)?;
    let (system, _) = System::open(&store)?;
    let epoch = system.become_new(&store, parts.seed.to_le_bytes())?;
    store.checkpoint(target)?;
    store.close()?;
    Ok(epoch)
}

/// Gives the closed store in `dir` an id and an epoch of its own, where it is: it was made of another one and has not all that the other has
/// acknowledged. Answers the id. Blocks.
pub fn make_own(parts: &NodeParts, dir: &Path) -> Result<String> {
    let store = open_store(parts, dir)?;
    let (system, _) = System::open(&store)?;
    system.become_new(&store, parts.seed.to_le_bytes())?;
    store.flush()?;
    store.close()?;
    Ok(id_text(&parts.seed.to_le_bytes()))
}

fn open_store(parts: &NodeParts, dir: &Path) -> Result<Store> {
    let mut settings = Settings::default();
    settings.memory_bytes = MEMORY_BYTES;
    settings.wal_segment_bytes = 1 << 20;
    settings.background_threads = false;
    Ok(Store::open(dir, settings, parts.storage.clone())?)
}

/// Whether a folder is a backup's.
pub fn is_backup(fs: &dyn Fs, dir: &Path) -> Result<bool> {
    let page = dir.join(PAGE);
    fs.exists(&page).map_err(|error| failed("look for", &page, error))
}

/// Moves a finished store into its folder. `FORMAT` comes last: without it, but with `CURRENT`, which comes first, nobody opens the folder.
fn move_up(fs: &dyn Fs, from: &Path, to: &Path) -> Result<()> {
    let place = |name: &str| match name {
        "CURRENT" => 0,
        "FORMAT" => 2,
        _ => 1,
    };
    let mut entries = list(fs, from)?;
    entries.sort_by_key(|entry| place(&entry.name));
    for entry in entries {
        let (old, new) = (from.join(&entry.name), to.join(&entry.name));
        if place(&entry.name) == 2 {
            fs.sync_dir(to).map_err(|error| failed("sync", to, error))?;
        }
        fs.rename(&old, &new).map_err(|error| failed("rename", &old, error))?;
        if place(&entry.name) == 0 {
            fs.sync_dir(to).map_err(|error| failed("sync", to, error))?;
        }
    }
    fs.sync_dir(to).map_err(|error| failed("sync", to, error))
}

/// Reads a backup's page.
pub(super) fn read_page(fs: &dyn Fs, dir: &Path) -> Result<Page> {
    let path = dir.join(PAGE);
    if !is_backup(fs, dir)? {
        return Err(Error::Invalid(format!("{} is no backup: it has no file {PAGE}", dir.display())));
    }
    let file = fs.open(&path, false).map_err(|error| failed("open", &path, error))?;
    let mut input = BufReader::new(Cursor { file, offset: 0 });
    let page = Page::read(&mut input)
        .map_err(|error| damaged(&path, 0, "the page of a backup", error.to_string()))?;
    match input.bytes().next() {
        None => Ok(page),
        Some(_) => Err(damaged(&path, 0, "nothing behind the last line", "more bytes")),
    }
}

/// Reads a file of a backup, compares it with its line in the page, and hands its bytes on.
fn verify_file(
    fs: &dyn Fs,
    backup: &Path,
    file: &BackupFile,
    each: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let path = join(&backup.join(FILES), &file.name);
    let mut hasher = Hasher::new();
    let bytes = read_pieces(fs, &path, &mut |piece| {
        hasher.update(piece);
        each(piece)
    })?;
    if bytes != file.bytes {
        return Err(damaged(
            &path,
            bytes.min(file.bytes),
            format!("{} bytes", file.bytes),
            format!("{bytes} bytes"),
        ));
    }
    let found = hasher.finish();
    if found != file.hash {
        return Err(damaged(&path, 0, format!("the hash {:032x}", file.hash), format!("{found:032x}")));
    }
    Ok(())
}

/// Compares a backup with its page: the page, and what is wrong with its files. Blocks.
///
/// # Errors
/// If there is no page or it is damaged itself.
pub fn inspect(fs: &dyn Fs, source: &Path, progress: &mut dyn FnMut(Progress)) -> Result<(Page, Vec<Error>)> {
    let page = read_page(fs, source)?;
    let mut done = Progress { bytes: 0, of_bytes: page.bytes() };
    let mut damages = Vec::new();
    for file in &page.files {
        let checked = verify_file(fs, source, file, &mut |piece| {
            done.bytes += piece.len() as u64;
            progress(done);
            Ok(())
        });
        damages.extend(checked.err());
    }
    Ok((page, damages))
}

/// Reads a file from its start.
struct Cursor {
    file: Arc<dyn File>,
    offset: u64,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
