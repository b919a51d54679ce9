//! A backup on its way out of a running node: a checkpoint in a folder of its own, read piece by piece, and gone when it was read or given up.

use super::files::{PIECE_BYTES, failed, join, remove_quietly};
use super::{BackupFile, FILES, Page, Saves, checkpoint};
use crate::error::Result;
use crate::node::Node;
use bytes::Bytes;
use kvorum_engine::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Release};

/// A backup that is being sent. Its node goes on; what is written from now on is not in it.
pub struct Backup {
    /// What it holds.
    pub page: Page,
    head: Option<Bytes>,
    root: PathBuf,
    /// Place of the next file in the page.
    next: usize,
    open: Option<(Arc<dyn File>, BackupFile, u64)>,
    place: Place,
}

impl Node {
    /// Takes a backup to be sent; `None` while another one is. Blocks for as long as a flush takes.
    pub fn backup(&self) -> Result<Option<Backup>> {
        let inner = &*self.inner;
        let Some(place) = Place::take(&inner.saves) else { return Ok(None) };
        let page = checkpoint(inner, &place.dir)?;
        let (head, root) = (Some(Bytes::from(page.text())), place.dir.join(FILES));
        Ok(Some(Backup { page, head, root, next: 0, open: None, place }))
    }
}

impl Backup {
    /// Bytes of the whole stream.
    pub fn stream_bytes(&self) -> u64 {
        self.page.bytes() + self.head.as_ref().map_or(0, |head| head.len() as u64)
    }

    /// The next piece of the stream, at most 256 KiB but for the page itself; `None` at its end. Reads from the disk.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>> {
        if let Some(head) = self.head.take() {
            return Ok(Some(head));
        }
        let fs = &*self.place.saves.fs;
        loop {
            if let Some((file, entry, offset)) = &mut self.open {
                let path = join(&self.root, &entry.name);
                let rest = usize::try_from(entry.bytes - *offset).unwrap_or(usize::MAX);
                if rest > 0 {
                    let mut piece = vec![0; rest.min(PIECE_BYTES)];
                    let read =
                        file.read_at(&mut piece, *offset).map_err(|error| failed("read", &path, error))?;
                    if read == 0 {
                        return Err(super::files::damaged(
                            &path,
                            *offset,
                            format!("{} bytes", entry.bytes),
                            "its end",
                        ));
                    }
                    piece.truncate(read);
                    *offset += read as u64;
                    return Ok(Some(piece.into()));
                }
                self.open = None;
            }
            let Some(entry) = self.page.files.get(self.next) else { return Ok(None) };
            self.next += 1;
            let path = join(&self.root, &entry.name);
            let file = fs.open(&path, false).map_err(|error| failed("open", &path, error))?;
            self.open = Some((file, entry.clone(), 0));
        }
    }
}

/// The right to be the one backup that is being sent, and the folder of its checkpoint.
struct Place {
    saves: Arc<Saves>,
    dir: PathBuf,
}

impl Place {
    fn take(saves: &Arc<Saves>) -> Option<Place> {
        if saves.streaming.swap(true, AcqRel) {
            return None;
        }
        let dir = saves.next_stream_dir();
        Some(Place { saves: Arc::clone(saves), dir })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Files that the store has compacted away meanwhile are freed here, which takes its time: not on a network thread.
        let (saves, dir) = (Arc::clone(&self.saves), self.dir.clone());
        let remove = move || remove_stream(&saves, &dir);
        let spawned = std::thread::Builder::new().name("backup-end".to_owned()).spawn(remove);
        if spawned.is_err() {
            remove_stream(&self.saves, &self.dir);
        }
        self.saves.streaming.store(false, Release);
    }
}

fn remove_stream(saves: &Saves, dir: &Path) {
    remove_quietly(&*saves.fs, dir);
    // Fails while the next backup has its folder in there.
    let _ = dir.parent().map(|parent| saves.fs.remove_dir(parent));
}
