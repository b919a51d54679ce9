//! Admission: how much may be in memory before writes are slowed, and before they are refused; and whether the device has room.

use crate::error::{Error, Result};
use crate::options::{Clock, Parts, Settings};
use parking_lot::{Condvar, Mutex};
use std::path::Path;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::task::Waker;
use std::time::Duration;

/// Flushing speed assumed until it was measured.
const FLUSH_BYTES_PER_SECOND: u64 = 50 << 20;
const FLUSH_BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// Longest time that a refused writer is told to wait.
const RETRY_MAX: Duration = Duration::from_millis(50);
const RETRY_MIN: Duration = Duration::from_micros(200);
/// Level 0 of a tree may hold this many times the write buffers before writes are slowed, and this many when they are slowest.
const DEBT_SLOW: u64 = 4;
/// With this many times the write buffers, compaction does not keep to its rate any more: more than what it begins at.
const DEBT_PRESSES: u64 = 3;
const DEBT_MOST: u64 = 16;
/// However full it is, some writes go through: this part of what flushing sustains.
const ROOM_PERCENT_MIN: u64 = 5;
/// The device is asked for its free space after this part of the reserve was written, or this often while it is short of it.
const DISK_CHECKS_PER_RESERVE: u64 = 16;
const DISK_RECHECK: Duration = Duration::from_millis(100);

pub(crate) struct Stall {
    /// Bytes in memtables, sealed ones included.
    used: AtomicU64,
    /// From here on something is flushed.
    flush_from: u64,
    /// From here on writes are slowed to what flushing sustains.
    slow_from: u64,
    /// From here on they are refused.
    limit: u64,
    flush_bytes_per_second: AtomicU64,
    /// When the next write of the slowed zone is due, in nanoseconds of the store's clock.
    next_due: AtomicU64,
    refused: AtomicU64,
    /// Bytes of the fullest level 0.
    debt: AtomicU64,
    longest_pause_micros: AtomicU64,
    turn: Mutex<()>,
    freed: Condvar,
    /// How often memory was freed or compaction caught up, and who awaits the next time.
    easings: AtomicU64,
    awaiting: Mutex<Vec<Waker>>,
    disk: Disk,
}

struct Disk {
    reserve: u64,
    /// Bytes written since the device was last asked.
    unchecked: AtomicU64,
    low: AtomicBool,
    last: Mutex<(Duration, u64)>,
}

impl Stall {
    pub(crate) fn new(settings: &Settings) -> Stall {
        let budget = settings.write_budget_bytes();
        Stall {
            used: AtomicU64::new(0),
            flush_from: budget / 2,
            slow_from: budget - budget / 4,
            limit: budget,
            flush_bytes_per_second: AtomicU64::new(FLUSH_BYTES_PER_SECOND),
            next_due: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            debt: AtomicU64::new(0),
            longest_pause_micros: AtomicU64::new(0),
            turn: Mutex::default(),
            freed: Condvar::new(),
            easings: AtomicU64::new(0),
            awaiting: Mutex::default(),
            disk: Disk {
                reserve: settings.disk_reserve_bytes,
                unchecked: AtomicU64::new(u64::MAX),
                low: AtomicBool::new(false),
                last: Mutex::default(),
            },
        }
    }

    /// Whether a write of this size may go on.
    pub(crate) fn admit(&self, bytes: u64, parts: &Parts, path: &Path) -> Result<()> {
        self.disk.admit(bytes, parts, path)?;
        let used = self.used.load(Relaxed);
        let debt = self.debt.load(Relaxed);
        if used < self.slow_from && debt < self.limit * DEBT_SLOW {
            return Ok(());
        }
        let admitted = self.pace(used, debt, bytes, &*parts.clock);
        if admitted.is_err() {
            self.refused.fetch_add(1, Relaxed);
        }
        admitted
    }

    /// Whether a write would be taken now; takes nothing itself.
    pub(crate) fn admission(&self, parts: &Parts, path: &Path) -> Result<()> {
        self.disk.admit(0, parts, path)?;
        let used = self.used.load(Relaxed);
        if !self.is_slow(used, self.debt.load(Relaxed)) {
            return Ok(());
        }
        self.due(used, 0, now_nanos(&*parts.clock)).map(drop)
    }

    /// Takes a write that can't turn back: those that can are held back the longer.
    pub(crate) fn admitted(&self, bytes: u64, parts: &Parts, path: &Path) -> Result<()> {
        self.disk.admit(bytes, parts, path)?;
        let (used, debt) = (self.used.load(Relaxed), self.debt.load(Relaxed));
        if self.is_slow(used, debt) {
            let from = self.next_due.load(Relaxed).max(now_nanos(&*parts.clock));
            self.next_due.store(from.saturating_add(self.cost_nanos(used, debt, bytes)), Relaxed);
        }
        Ok(())
    }

    /// Whether writes would soon be slowed for what compaction has not brought down.
    pub(crate) fn presses(&self) -> bool {
        self.used.load(Relaxed) >= self.slow_from || self.debt.load(Relaxed) >= self.limit * DEBT_PRESSES
    }

    fn is_slow(&self, used: u64, debt: u64) -> bool {
        used >= self.slow_from || debt >= self.limit * DEBT_SLOW
    }

    /// In the slowed zone writes get what flushing sustains, and less the fuller it is, or the more compaction lags behind.
    fn pace(&self, used: u64, debt: u64, bytes: u64, clock: &dyn Clock) -> Result<()> {
        let now = self.due(used, bytes, now_nanos(clock))?;
        self.next_due.store(now.saturating_add(self.cost_nanos(used, debt, bytes)), Relaxed);
        Ok(())
    }

    /// Whether it is time for the next write of the slowed zone; answers the time given.
    fn due(&self, used: u64, bytes: u64, now: u64) -> Result<u64> {
        if used >= self.limit {
            return Err(busy(self.flush_nanos(used - self.limit + bytes)));
        }
        let due = self.next_due.load(Relaxed);
        if due > now { Err(busy(due - now)) } else { Ok(now) }
    }

    /// Time for which a write of this size holds the next ones back.
    fn cost_nanos(&self, used: u64, debt: u64, bytes: u64) -> u64 {
        let percent = |left: u64, of: u64| (left * 100 / of.max(1)).clamp(ROOM_PERCENT_MIN, 100);
        let memory = percent(self.limit.saturating_sub(used), self.limit - self.slow_from);
        let (slow, most) = (self.limit * DEBT_SLOW, self.limit * DEBT_MOST);
        let disk = percent(most.saturating_sub(debt), most - slow);
        self.flush_nanos(bytes).saturating_mul(100) / memory.min(disk)
    }

    /// What flushing this takes.
    fn flush_nanos(&self, bytes: u64) -> u64 {
        let rate = self.flush_bytes_per_second.load(Relaxed);
        u64::try_from(u128::from(bytes) * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX)
    }

    /// Counts memory taken; answers whether something should be flushed.
    pub(crate) fn add(&self, bytes: u64) -> bool {
        self.used.fetch_add(bytes, Relaxed) + bytes >= self.flush_from
    }

    pub(crate) fn sub(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Relaxed);
        self.eased();
    }

    fn eased(&self) {
        self.freed.notify_all();
        self.easings.fetch_add(1, Release);
        let awaiting = std::mem::take(&mut *self.awaiting.lock());
        awaiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn easings(&self) -> u64 {
        self.easings.load(Acquire)
    }

    /// Wakes this one at the next easing; `false` if there was one since `seen`.
    pub(crate) fn await_easing(&self, seen: u64, waker: &Waker) -> bool {
        let mut awaiting = self.awaiting.lock();
        if self.easings() != seen {
            return false;
        }
        if !awaiting.iter().any(|other| other.will_wake(waker)) {
            awaiting.push(waker.clone());
        }
        true
    }

    /// Waits until memory was freed, or for a time.
    pub(crate) fn wait(&self, time: Duration) {
        let mut turn = self.turn.lock();
        let _ = self.freed.wait_for(&mut turn, time);
    }

    /// Learns how long a write was held back.
    pub(crate) fn paused(&self, time: Duration) {
        self.longest_pause_micros.fetch_max(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn longest_pause(&self) -> Duration {
        Duration::from_micros(self.longest_pause_micros.load(Relaxed))
    }

    /// Learns what the fullest level 0 holds.
    pub(crate) fn set_debt(&self, bytes: u64) {
        if bytes < self.debt.swap(bytes, Relaxed) {
            self.eased();
        }
    }

    /// Bytes that should be flushed now.
    pub(crate) fn excess(&self) -> u64 {
        let used = self.used.load(Relaxed);
        if used >= self.flush_from { used - self.flush_from / 2 } else { 0 }
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// How often a write was told to come again.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Learns how fast flushing is.
    pub(crate) fn flushed(&self, bytes: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = (bytes.saturating_mul(1_000_000) / micros).max(FLUSH_BYTES_PER_SECOND_MIN);
        let before = self.flush_bytes_per_second.load(Relaxed);
        self.flush_bytes_per_second.store((before * 3 + rate) / 4, Relaxed);
    }
}

fn now_nanos(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.monotonic().as_nanos()).unwrap_or(u64::MAX)
}

fn busy(nanos: u64) -> Error {
    Error::Busy { retry_after: Duration::from_nanos(nanos).clamp(RETRY_MIN, RETRY_MAX) }
}

impl Disk {
    fn admit(&self, bytes: u64, parts: &Parts, path: &Path) -> Result<()> {
        let unchecked = self.unchecked.load(Relaxed).saturating_add(bytes);
        self.unchecked.store(unchecked, Relaxed);
        if !self.low.load(Relaxed) && unchecked < self.reserve / DISK_CHECKS_PER_RESERVE {
            return Ok(());
        }
        let now = parts.clock.monotonic();
        let mut last = self.last.lock();
        if !self.low.load(Relaxed) || now >= last.0 + DISK_RECHECK {
            // A device that does not say is taken as having room: the write itself will tell.
            *last = (now, parts.fs.free_bytes(path).unwrap_or(u64::MAX));
            self.unchecked.store(0, Relaxed);
            self.low.store(last.1 < self.reserve, Relaxed);
        }
        if self.low.load(Relaxed) {
            return Err(Error::DiskFull {
                path: path.to_owned(),
                available_bytes: last.1,
                needed_bytes: self.reserve,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Still(AtomicU64);

    impl Clock for Still {
        fn monotonic(&self) -> Duration {
            Duration::from_nanos(self.0.load(Relaxed))
        }

        fn unix_ms(&self) -> u64 {
            0
        }
    }

    #[test]
    fn writes_are_slowed_before_they_are_refused() {
        let stall = Stall::new(&Settings { memory_bytes: 4 << 20, ..Settings::default() });
        let clock = Still(AtomicU64::new(1));
        assert!(!stall.add(stall.flush_from - 1));
        assert!(stall.add(1), "from half on something is flushed");
        stall.add(stall.slow_from - stall.flush_from);
        assert!(stall.pace(stall.used(), 0, 1000, &clock).is_ok());
        let Err(Error::Busy { retry_after }) = stall.pace(stall.used(), 0, 1000, &clock) else {
            panic!("the second comes too soon")
        };
        clock.0.fetch_add(u64::try_from(retry_after.as_nanos()).unwrap(), Relaxed);
        assert!(stall.pace(stall.used(), 0, 1000, &clock).is_ok(), "a write that waited as told is taken");
        clock.0.fetch_add(1 << 40, Relaxed);
        assert!(matches!(stall.pace(stall.limit, 0, 1000, &clock), Err(Error::Busy { .. })));
    }

    #[test]
    fn who_cannot_turn_back_holds_the_others_back() {
        let stall = Stall::new(&Settings { memory_bytes: 4 << 20, ..Settings::default() });
        let clock = std::sync::Arc::new(Still(AtomicU64::new(1)));
        let parts = Parts { clock: clock.clone(), ..Parts::real() };
        let path = Path::new("/");
        stall.add(stall.slow_from);
        assert!(stall.admission(&parts, path).is_ok());
        assert!(stall.admission(&parts, path).is_ok(), "asking takes nothing");
        let wait = |writes: u64| {
            (0..writes).for_each(|_| stall.admitted(10_000, &parts, path).expect("taken"));
            stall.next_due.load(Relaxed)
        };
        let (one, three) = (wait(1), wait(2));
        assert!(one > 1 && three - 1 == (one - 1) * 3, "each one counts: {one}, {three}");
        assert!(matches!(stall.admission(&parts, path), Err(Error::Busy { .. })));
        clock.0.store(three, Relaxed);
        assert!(stall.admission(&parts, path).is_ok());
        stall.add(stall.limit);
        assert!(matches!(stall.admission(&parts, path), Err(Error::Busy { .. })));
        assert!(stall.admitted(10_000, &parts, path).is_ok(), "over the limit, too");
    }
}
