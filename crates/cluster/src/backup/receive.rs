//! The other end of a stream: a backup's folder, there whole or not at all.

use super::files::{
    Hasher, Output, PIECE_BYTES, create_durably, failed, join, list, parent_of, remove_quietly, sync_tree,
};
use super::{BackupFile, FILES, Page, Progress, write_page};
use crate::error::{Error, Result};
use kvorum_engine::fs::Fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Writes the stream of [`Backup`](super::Backup) into `target`, which must not exist or be empty. Every file is compared with its hash as it
/// comes; the folder gets its name when all of it is there and durable. In memory is no more than the page and one piece. Blocks.
pub fn receive(
    fs: &dyn Fs,
    stream: &mut dyn Read,
    target: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Page> {
    check_target(fs, target)?;
    let unfinished = unfinished_name(fs, target)?;
    let received = receive_into(fs, stream, &unfinished, progress).and_then(|page| {
        if fs.exists(target).map_err(|error| failed("look for", target, error))? {
            fs.remove_dir(target).map_err(|error| failed("replace", target, error))?;
        }
        fs.rename(&unfinished, target).map_err(|error| failed("rename", &unfinished, error))?;
        let parent = parent_of(target);
        fs.sync_dir(&parent).map_err(|error| failed("sync", &parent, error))?;
        Ok(page)
    });
    if received.is_err() {
        remove_quietly(fs, &unfinished);
    }
    received
}

/// Refuses a folder that holds something.
pub fn check_target(fs: &dyn Fs, target: &Path) -> Result<()> {
    match list(fs, target)?.first() {
        Some(entry) => Err(Error::Invalid(format!(
            "{} is not empty: it holds {}. Name a folder that does not exist or is empty",
            target.display(),
            entry.name
        ))),
        None => Ok(()),
    }
}

/// A name beside the target that nobody else has.
fn unfinished_name(fs: &dyn Fs, target: &Path) -> Result<PathBuf> {
    let Some(name) = target.file_name() else {
        return Err(Error::Invalid(format!("{} is no name for a folder", target.display())));
    };
    let name = format!("{}.unfinished-{:08x}", name.to_string_lossy(), fs.random() as u32);
    Ok(parent_of(target).join(name))
}

fn receive_into(
    fs: &dyn Fs,
    stream: &mut dyn Read,
    dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Page> {
    let mut stream = BufReader::with_capacity(PIECE_BYTES, stream);
    let page = Page::read(&mut stream).map_err(|error| broken("the page at its head", &error))?;
    let root = dir.join(FILES);
    create_durably(fs, dir)?;
    fs.create_dir_all(&root).map_err(|error| failed("create", &root, error))?;
    let mut done = Progress { bytes: 0, of_bytes: page.bytes() };
    progress(done);
    for file in &page.files {
        receive_file(fs, &mut stream, &root, file, &mut |bytes| {
            done.bytes += bytes;
            progress(done);
        })?;
    }
    let rest = stream.fill_buf().map_err(|error| broken("its end", &error))?;
    if !rest.is_empty() {
        return Err(Error::Storage("the transfer broke: bytes follow its last file".to_owned()));
    }
    sync_tree(fs, &root)?;
    // Last: without it nobody takes the folder for a backup.
    write_page(fs, dir, &page)?;
    Ok(page)
}

fn receive_file(
    fs: &dyn Fs,
    stream: &mut impl BufRead,
    root: &Path,
    file: &BackupFile,
    more: &mut dyn FnMut(u64),
) -> Result<()> {
    let path = join(root, &file.name);
    let (mut output, mut hasher) = (Output::create(fs, &path)?, Hasher::new());
    let mut rest = file.bytes;
    while rest > 0 {
        let what = || format!("{}, at byte {} of {}", file.name, file.bytes - rest, file.bytes);
        let buffer = stream.fill_buf().map_err(|error| broken(&what(), &error))?;
        if buffer.is_empty() {
            return Err(broken(&what(), &io::ErrorKind::UnexpectedEof.into()));
        }
        let piece = buffer.get(..usize::try_from(rest).unwrap_or(usize::MAX)).unwrap_or(buffer);
        output.write(piece)?;
        hasher.update(piece);
        let taken = piece.len();
        rest -= taken as u64;
        stream.consume(taken);
        more(taken as u64);
    }
    if hasher.finish() != file.hash {
        return Err(Error::Storage(format!(
            "{} came with the hash {:032x} instead of {:032x}: the transfer broke, or the node's file is damaged (kvorum check tells)",
            file.name,
            hasher.finish(),
            file.hash
        )));
    }
    output.finish()
}

fn broken(at: &str, error: &io::Error) -> Error {
    Error::Storage(format!("the transfer broke in {at}: {error}"))
}
