//! Who does what needs no client: one thread keeps the log (syncs what was only written), one flushes, one compacts.

use crate::error::{Error, Result};
use crate::store::Shared;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the log is looked after: what was `Written` is synced within a second.
const LOG_TURN: Duration = Duration::from_millis(500);
/// How often the flusher looks without having been woken.
const FLUSH_TURN: Duration = Duration::from_secs(1);
/// How often the compactor does: floors rise and entries expire without a write.
const COMPACTION_TURN: Duration = Duration::from_secs(2);
/// Wait after a failed flush: doubled each time.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// What the workers wait for.
#[derive(Default)]
pub(crate) struct Signals {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Default)]
struct Wanted {
    flush: bool,
    compact: bool,
    stop: bool,
}

impl Signals {
    pub(crate) fn flush_wanted(&self) {
        let mut wanted = self.wanted.lock();
        if !wanted.flush {
            wanted.flush = true;
            self.changed.notify_all();
        }
    }

    pub(crate) fn compaction_wanted(&self) {
        let mut wanted = self.wanted.lock();
        if !wanted.compact {
            wanted.compact = true;
            self.changed.notify_all();
        }
    }

    pub(crate) fn stop(&self) {
        self.wanted.lock().stop = true;
        self.changed.notify_all();
    }

    /// Waits for a time, or until the store closes: then `false`.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let mut wanted = self.wanted.lock();
        let _ = self.changed.wait_while_for(&mut wanted, |wanted| !wanted.stop, time);
        !wanted.stop
    }

    /// Waits until a flush is wanted, or for a time; `false` when the store closes.
    fn await_flush(&self, time: Duration) -> bool {
        let mut wanted = self.wanted.lock();
        let _ = self.changed.wait_while_for(&mut wanted, |wanted| !wanted.stop && !wanted.flush, time);
        wanted.flush = false;
        !wanted.stop
    }
}

impl Signals {
    /// Waits until a compaction is wanted, or for a time; `false` when the store closes.
    fn await_compaction(&self, time: Duration) -> bool {
        let mut wanted = self.wanted.lock();
        let _ = self.changed.wait_while_for(&mut wanted, |wanted| !wanted.stop && !wanted.compact, time);
        wanted.compact = false;
        !wanted.stop
    }
}

/// The threads of an open store.
pub(crate) struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Workers> {
        let mut workers = Workers { threads: Vec::new() };
        let work =
            [("kvorum-log", keep_log as fn(&Shared)), ("kvorum-flush", flush), ("kvorum-compact", compact)];
        for (name, work) in work {
            let shared = Arc::clone(shared);
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared));
            workers
                .threads
                .push(thread.map_err(|e| Error::io("start a thread for", std::path::Path::new(name), e))?);
        }
        Ok(workers)
    }

    /// Waits until they have ended, after they were told to.
    pub(crate) fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a background thread of the store panicked");
            }
        }
    }
}

fn keep_log(shared: &Shared) {
    while shared.signals.pause(LOG_TURN) {
        shared.log.maintain();
        if let Err(error) = shared.persist_floors() {
            tracing::warn!(%error, "floors could not be made durable");
        }
    }
}

fn flush(shared: &Shared) {
    let mut back_off = BACK_OFF_MIN;
    while shared.signals.await_flush(FLUSH_TURN) {
        match turn(shared) {
            Ok(false) => back_off = BACK_OFF_MIN,
            Ok(true) => {
                back_off = BACK_OFF_MIN;
                shared.signals.flush_wanted();
            }
            // Reads go on; there is nothing to be done before the store is reopened.
            Err(Error::Poisoned { .. }) => {}
            Err(error) => {
                tracing::warn!(%error, retry_ms = u64::try_from(back_off.as_millis()).unwrap_or(u64::MAX), "a flush failed and is tried again");
                if !shared.signals.pause(back_off) {
                    return;
                }
                back_off = (back_off * 2).min(BACK_OFF_MAX);
                shared.signals.flush_wanted();
            }
        }
    }
}

/// One turn of flushing, if there is a reason for it. Answers whether there may be more to do.
pub(crate) fn turn(shared: &Shared) -> Result<bool> {
    let flushed = shared.flush_some()?;
    if flushed {
        shared.open_level_0();
        shared.signals.compaction_wanted();
    }
    shared.files.graveyard.sweep(&*shared.parts.fs);
    Ok(flushed)
}

fn compact(shared: &Shared) {
    let mut back_off = BACK_OFF_MIN;
    while shared.signals.await_compaction(COMPACTION_TURN) {
        match shared.compact_some() {
            Ok(more) => {
                back_off = BACK_OFF_MIN;
                shared.note_debt();
                shared.files.graveyard.sweep(&*shared.parts.fs);
                if more {
                    shared.signals.compaction_wanted();
                    // A flush may have waited for level 0 to become smaller.
                    shared.signals.flush_wanted();
                }
            }
            Err(Error::Poisoned { .. } | Error::Closed) => {}
            Err(error) => {
                tracing::warn!(%error, retry_ms = u64::try_from(back_off.as_millis()).unwrap_or(u64::MAX), "a compaction failed and is tried again");
                if !shared.signals.pause(back_off) {
                    return;
                }
                back_off = (back_off * 2).min(BACK_OFF_MAX);
                shared.signals.compaction_wanted();
            }
        }
    }
}
