//! Compactions keep to the rate that the settings give the background. They wait between pieces of their work, in the background's own thread; only other
//! compactions could wait for them meanwhile, so that one who asks for a compaction is not waited with.

use crate::error::{Error, Result};
use crate::store::Shared;
use crate::version::TableFile;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire};
use std::time::Duration;

/// What is owed for less than this is left to the next time.
const WAIT_MIN: Duration = Duration::from_millis(2);
/// After so long it is looked again whether there is still a reason to wait.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Is told the entries read since the last time, and the bytes written in all.
pub(super) type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> Result<()>;

/// How many ask for a compaction and wait for it.
#[derive(Default)]
pub(super) struct Hurry(AtomicU64);

/// One of them, until this is dropped.
pub(super) struct Hurried<'a>(&'a Hurry);

impl Hurry {
    pub(super) fn hurried(&self) -> Hurried<'_> {
        self.0.fetch_add(1, AcqRel);
        Hurried(self)
    }
}

impl Drop for Hurried<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, AcqRel);
    }
}

/// Charges a compaction as it goes on: what it read, as a part of its inputs, and what it wrote.
pub(super) struct Pacing<'a> {
    shared: &'a Shared,
    input_bytes: u64,
    input_entries: u64,
    entries: u64,
    charged_bytes: u64,
}

impl<'a> Pacing<'a> {
    pub(super) fn new(shared: &'a Shared, inputs: &[Arc<TableFile>]) -> Pacing<'a> {
        let input_bytes = inputs.iter().map(|file| file.meta.file_bytes).sum();
        let input_entries = inputs.iter().map(|file| file.meta.properties.entries).sum();
        Pacing { shared, input_bytes, input_entries, entries: 0, charged_bytes: 0 }
    }

    pub(super) fn progress(&mut self, entries: u64, written_bytes: u64) -> Result<()> {
        self.entries += entries;
        let part = u128::from(self.input_bytes) * u128::from(self.entries.min(self.input_entries));
        let read_bytes = u64::try_from(part / u128::from(self.input_entries.max(1))).unwrap_or(u64::MAX);
        let done = read_bytes + written_bytes;
        self.shared.pace.charge(done.saturating_sub(self.charged_bytes), self.shared.parts.clock.monotonic());
        self.charged_bytes = self.charged_bytes.max(done);
        if self.shared.settings.background_threads { self.shared.keep_pace() } else { Ok(()) }
    }
}

impl Shared {
    /// Whether a compaction may begin, as far as the rate goes. With threads of its own the store waits until it may.
    pub(super) fn may_compact_now(&self) -> Result<bool> {
        if self.settings.background_threads {
            self.keep_pace()?;
        }
        Ok(self.owed().is_zero())
    }

    /// What is to be waited for: nothing if somebody waits for compaction, or soon would.
    fn owed(&self) -> Duration {
        let now = self.parts.clock.monotonic();
        if self.stall.presses() || self.compactions.hurry.0.load(Acquire) > 0 {
            self.pace.forgive(now);
        }
        let owed = self.pace.owed(now);
        if owed < WAIT_MIN { Duration::ZERO } else { owed }
    }

    fn keep_pace(&self) -> Result<()> {
        loop {
            let owed = self.owed();
            if owed.is_zero() {
                return Ok(());
            }
            let begun = self.parts.clock.monotonic();
            let goes_on = self.signals.pause(owed.min(WAIT_MAX));
            self.pace.waited(self.parts.clock.monotonic().saturating_sub(begun));
            if !goes_on {
                return Err(Error::Closed);
            }
        }
    }
}
