//! `BGSAVE` and `SAVE`: a checkpoint in the data folder, `checkpoints/<Unix milliseconds>`, laid out as a backup. The last one is kept.

use super::files::{failed, list, remove_all, remove_quietly};
use super::{PAGE, Page, checkpoint, write_page};
use crate::error::{Error, Result};
use crate::node::{Inner, Node};
use kvorum_engine::Clock;
use kvorum_engine::fs::Fs;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const CHECKPOINTS: &str = "checkpoints";
const STREAMS: &str = "backup.tmp";
/// What the name of a checkpoint ends with while it is made.
const UNFINISHED: &str = ".tmp";

/// What a node knows of its checkpoints and backups.
pub(crate) struct Saves {
    pub(super) fs: Arc<dyn Fs>,
    data: PathBuf,
    clock: Arc<dyn Clock>,
    /// Whether a backup is being sent.
    pub(super) streaming: AtomicBool,
    streams: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// Since when one is being made, by the clock that never goes back.
    running_since: Option<Duration>,
    last_ms: u64,
    last_sequence: u64,
    last_took: Option<Duration>,
    last_failed: bool,
    saves: u64,
}

/// What became of the checkpoints that `BGSAVE` and `SAVE` make.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SaveStats {
    /// Time since the one that is being made was begun.
    pub running: Option<Duration>,
    /// When the last one was taken, Unix milliseconds; the node's start if there is none.
    pub last_ms: u64,
    /// How long it took to make the last one of this run.
    pub last_took: Option<Duration>,
    /// Whether the last attempt failed.
    pub last_failed: bool,
    /// Checkpoints made by this run.
    pub saves: u64,
    /// Writes since the last one.
    pub changes: u64,
    /// Whether a backup is being sent.
    pub streaming: bool,
}

impl Saves {
    /// Looks for the last checkpoint, and removes what a process that was killed has left unfinished. The store must be locked.
    pub(crate) fn open(fs: Arc<dyn Fs>, data: &Path, clock: Arc<dyn Clock>) -> Result<Saves> {
        for unfinished in [STREAMS, super::restore::WORK] {
            remove_all(&*fs, &data.join(unfinished))?;
        }
        let mut state = State {
            running_since: None,
            last_ms: clock.unix_ms(),
            last_sequence: 0,
            last_took: None,
            last_failed: false,
            saves: 0,
        };
        let dir = data.join(CHECKPOINTS);
        let mut found = Vec::new();
        for entry in list(&*fs, &dir)? {
            if entry.name.strip_suffix(UNFINISHED).is_some_and(|name| time_of(name).is_some()) {
                remove_all(&*fs, &dir.join(&entry.name))?;
            } else {
                found.extend(time_of(&entry.name));
            }
        }
        if let Some(last) = found.iter().max() {
            state.last_ms = *last;
            state.last_sequence = read_sequence(&*fs, &dir.join(last.to_string()));
        }
        let (streaming, streams) = (AtomicBool::new(false), AtomicU64::new(0));
        Ok(Saves { fs, data: data.to_owned(), clock, streaming, streams, state: Mutex::new(state) })
    }

    /// A folder of its own for the next backup that is sent.
    pub(super) fn next_stream_dir(&self) -> PathBuf {
        self.data.join(STREAMS).join(self.streams.fetch_add(1, Relaxed).to_string())
    }

    pub(crate) fn stats(&self, visible: u64) -> SaveStats {
        let state = self.state.lock();
        SaveStats {
            running: state.running_since.map(|since| self.clock.monotonic().saturating_sub(since)),
            last_ms: state.last_ms,
            last_took: state.last_took,
            last_failed: state.last_failed,
            saves: state.saves,
            changes: visible.saturating_sub(state.last_sequence),
            streaming: self.streaming.load(Relaxed),
        }
    }

    /// Notes that one is begun; false if one is being made.
    fn begin(&self) -> bool {
        let mut state = self.state.lock();
        let is_free = state.running_since.is_none();
        state.running_since = state.running_since.or_else(|| Some(self.clock.monotonic()));
        is_free
    }

    fn end(&self, saved: &Result<Page>) {
        let mut state = self.state.lock();
        let took = state.running_since.take().map(|since| self.clock.monotonic().saturating_sub(since));
        state.last_failed = saved.is_err();
        if let Ok(page) = saved {
            state.last_ms = page.taken_ms;
            state.last_sequence = page.sequence;
            state.last_took = took;
            state.saves += 1;
        }
    }
}

/// The time in the name of a checkpoint's folder.
fn time_of(name: &str) -> Option<u64> {
    name.parse().ok().filter(|time: &u64| time.to_string() == name)
}

/// The sequence of a checkpoint; 0 if its page can't be read, which only makes `INFO` count too many changes.
fn read_sequence(fs: &dyn Fs, dir: &Path) -> u64 {
    let read = super::restore::read_page(fs, dir);
    read.map_or_else(
        |error| {
            tracing::warn!("{error}");
            0
        },
        |page| page.sequence,
    )
}

impl Node {
    /// Makes a checkpoint `checkpoints/<Unix milliseconds>` in the data folder, and removes the one before; false if one is being made
    /// already. Blocks.
    pub fn save(&self) -> Result<bool> {
        if !self.inner.saves.begin() {
            return Ok(false);
        }
        let saved = save(&self.inner);
        self.inner.saves.end(&saved);
        saved.map(|_| true)
    }

    /// As [`Node::save`], on a thread of its own.
    pub fn save_in_background(&self) -> Result<bool> {
        if !self.inner.saves.begin() {
            return Ok(false);
        }
        let node = self.clone();
        let work = move || {
            let saved = save(&node.inner);
            if let Err(error) = &saved {
                tracing::warn!("the checkpoint failed: {error}");
            }
            node.inner.saves.end(&saved);
        };
        let spawned = std::thread::Builder::new().name("save".to_owned()).spawn(work);
        let started = spawned.map_err(|error| Error::Storage(format!("cannot start a thread: {error}")));
        if let Err(error) = &started {
            self.inner.saves.end(&Err(error.clone()));
        }
        started.map(|_| true)
    }
}

fn save(inner: &Inner) -> Result<Page> {
    let (fs, all) = (&*inner.saves.fs, inner.saves.data.join(CHECKPOINTS));
    let mut time_ms = inner.time.now();
    while fs.exists(&all.join(time_ms.to_string())).map_err(|error| failed("look for", &all, error))? {
        time_ms += 1;
    }
    let (dir, unfinished) = (all.join(time_ms.to_string()), all.join(format!("{time_ms}{UNFINISHED}")));
    let made = checkpoint(inner, &unfinished).and_then(|page| {
        let page = Page { taken_ms: time_ms, ..page };
        write_page(fs, &unfinished, &page)?;
        fs.rename(&unfinished, &dir).map_err(|error| failed("rename", &unfinished, error))?;
        for folder in [&all, &inner.saves.data] {
            fs.sync_dir(folder).map_err(|error| failed("sync", folder, error))?;
        }
        Ok(page)
    });
    if made.is_err() {
        remove_quietly(fs, &unfinished);
        return made;
    }
    for entry in list(fs, &all)? {
        let old = all.join(&entry.name);
        if time_of(&entry.name).is_some_and(|time| time != time_ms)
            && let Err(error) = remove_old(fs, &old)
        {
            tracing::warn!("the checkpoint {} is left over and may be deleted: {error}", old.display());
        }
    }
    made
}

/// Removes a checkpoint. Its page goes first, durably: what a crash in between leaves is no checkpoint any more, and says so.
fn remove_old(fs: &dyn Fs, dir: &Path) -> Result<()> {
    let page = dir.join(PAGE);
    if fs.exists(&page).map_err(|error| failed("look for", &page, error))? {
        fs.remove(&page).map_err(|error| failed("remove", &page, error))?;
        fs.sync_dir(dir).map_err(|error| failed("sync", dir, error))?;
    }
    remove_all(fs, dir)
}
