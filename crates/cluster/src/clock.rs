//! Time: the node's, which never falls, and the hybrid timestamps of available namespaces.

use kvorum_engine::Clock;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};

/// The wall clock, made never to fall: not when the machine's clock is set back, and not over a restart (what was told to anybody as
/// expired stays so: see [`System`](crate::system::System)).
pub(crate) struct Time {
    clock: Arc<dyn Clock>,
    /// Highest time handed out, Unix milliseconds.
    last: AtomicU64,
    /// A time that the store will know after a restart, once `noted_by` is durable.
    noted: AtomicU64,
    noted_by: AtomicU64,
    /// The highest noted time that was found durable.
    durable: AtomicU64,
}

impl Time {
    /// Goes on above `last`, which the store knows durably.
    pub(crate) fn new(clock: Arc<dyn Clock>, last: u64) -> Time {
        let time = || AtomicU64::new(last);
        Time { clock, last: time(), noted: time(), noted_by: AtomicU64::new(0), durable: time() }
    }

    /// Unix milliseconds, not below any that was handed out before.
    pub(crate) fn now(&self) -> u64 {
        let now = self.clock.unix_ms();
        // Most calls find the same millisecond: no write to the shared line then.
        let last = self.last.load(Relaxed);
        if now <= last { last } else { self.last.fetch_max(now, AcqRel).max(now) }
    }

    /// The sequence that must be durable before anybody may be told that something expired at `expires_at`; `None` if the time is not
    /// noted in the store yet.
    pub(crate) fn noted_by(&self, expires_at: u64) -> Option<u64> {
        // In the opposite order of `note`: the sequence read belongs to the time read or a later one.
        let noted = self.noted.load(Acquire);
        (expires_at <= noted).then(|| self.noted_by.load(Acquire))
    }

    /// A time that the store will know after a restart, everything up to `synced` being durable. Lags behind when there are many writes.
    pub(crate) fn noted_durably(&self, synced: u64) -> u64 {
        let noted = self.noted.load(Acquire);
        let mut durable = self.durable.load(Acquire);
        if self.noted_by.load(Acquire) <= synced {
            durable = self.durable.fetch_max(noted, AcqRel).max(noted);
        }
        durable
    }

    /// Whether the noted time has fallen behind so far that the next batch should carry it.
    pub(crate) fn is_stale(&self, now: u64) -> bool {
        now >= self.noted.load(Relaxed).saturating_add(NOTE_EVERY_MS)
    }

    /// The store took a batch with this time, at this sequence.
    pub(crate) fn note(&self, time: u64, sequence: u64) {
        self.noted_by.fetch_max(sequence, AcqRel);
        self.noted.fetch_max(time, AcqRel);
    }
}

/// How often a batch carries the time at least, while there are batches.
const NOTE_EVERY_MS: u64 = 1000;

const COUNTER_BITS: u32 = 12;
const NODE_BITS: u32 = 10;

/// 2020-01-01, from which the milliseconds of a hybrid timestamp count.
const BASE_UNIX_MS: u64 = 1_577_836_800_000;

/// The 42 bits of milliseconds end in the year 2159.
const MS_MAX: u64 = (1 << 42) - 1;

/// How far ahead the bound is made durable: what a restart after a crash may find its clock ahead of the wall's at most.
const BOUND_AHEAD_MS: u64 = 10_000;

/// A stamp must be this far below the bound to be handed out: what threads hand out between a check and the use of its result is far less.
const BOUND_MARGIN_MS: u64 = 1000;

/// Hybrid timestamps: 42 bits of milliseconds since 2020 · 12 bits of a counter · 10 bits of the node's slot. Unique, rising, close to the wall
/// clock, and never below one of before a restart: a bound above all of them stands durably in the store before they are used.
pub(crate) struct HybridClock {
    /// Milliseconds and counter of the last stamp.
    last: AtomicU64,
    node_slot: AtomicU64,
    /// The durable bound, milliseconds since 2020.
    bound: AtomicU64,
    /// Held while the bound is raised.
    raising: Mutex<()>,
}

impl HybridClock {
    /// Starts above `bound`, the durable one that was found.
    pub(crate) fn new(node_slot: u64, bound: u64) -> HybridClock {
        let last = AtomicU64::new(bound << COUNTER_BITS);
        HybridClock {
            last,
            node_slot: AtomicU64::new(node_slot),
            bound: AtomicU64::new(bound),
            raising: Mutex::new(()),
        }
    }

    /// The next timestamp. [`HybridClock::is_bounded`] has been asked.
    pub(crate) fn stamp(&self, unix_ms: u64) -> u64 {
        let wall = unix_ms.saturating_sub(BASE_UNIX_MS).min(MS_MAX) << COUNTER_BITS;
        let next = |last: u64| wall.max(last + 1);
        let last = self.last.fetch_update(AcqRel, Relaxed, |last| Some(next(last))).unwrap_or_default();
        (next(last) << NODE_BITS) | self.node_slot.load(Relaxed)
    }

    /// The cluster's map gave the node this place: of one node at a time.
    pub(crate) fn set_node_slot(&self, slot: u16) {
        self.node_slot.store(u64::from(slot), Relaxed);
    }

    /// Another node gave this stamp: the next one of this node is above it. The caller has refused those too far ahead.
    pub(crate) fn observe(&self, stamp: u64) {
        self.last.fetch_max(stamp >> NODE_BITS, AcqRel);
    }

    /// The hybrid time in Unix milliseconds, by which expiry is judged.
    pub(crate) fn now_ms(&self, unix_ms: u64) -> u64 {
        unix_ms.max(BASE_UNIX_MS + (self.last.load(Acquire) >> COUNTER_BITS))
    }

    /// Whether stamps may be handed out now: the durable bound is above all of them.
    pub(crate) fn is_bounded(&self, unix_ms: u64) -> bool {
        self.ahead(unix_ms) >= BOUND_MARGIN_MS
    }

    /// Whether the clock is in use and will reach its bound soon.
    pub(crate) fn wants_raise(&self, unix_ms: u64) -> bool {
        let used = BASE_UNIX_MS + (self.last.load(Acquire) >> COUNTER_BITS) + BOUND_AHEAD_MS / 2 > unix_ms;
        used && self.ahead(unix_ms) < BOUND_AHEAD_MS / 2
    }

    /// Raises the bound by `persist`, which gets the new one and makes it durable. Blocks.
    pub(crate) fn raise<E>(&self, unix_ms: u64, persist: impl FnOnce(u64) -> Result<(), E>) -> Result<(), E> {
        let _one = self.raising.lock();
        if self.ahead(unix_ms) > BOUND_AHEAD_MS / 2 {
            return Ok(());
        }
        let bound = self.now_ms(unix_ms).saturating_sub(BASE_UNIX_MS) + BOUND_AHEAD_MS;
        persist(bound)?;
        self.bound.fetch_max(bound, AcqRel);
        Ok(())
    }

    /// The lowest bound that is above all stamps handed out: what a clean end leaves in the store.
    pub(crate) fn tight_bound(&self) -> u64 {
        (self.last.load(Acquire) >> COUNTER_BITS) + 1
    }

    /// The lowest timestamp of a time in Unix milliseconds.
    pub(crate) fn floor(&self, unix_ms: u64) -> u64 {
        unix_ms.saturating_sub(BASE_UNIX_MS).min(MS_MAX) << (COUNTER_BITS + NODE_BITS)
    }

    fn ahead(&self, unix_ms: u64) -> u64 {
        let now = self.now_ms(unix_ms).saturating_sub(BASE_UNIX_MS);
        self.bound.load(Acquire).saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestClock;

    #[test]
    fn time_never_falls() {
        let clock = TestClock::at(5_000);
        let time = Time::new(clock.clone(), 4_000);
        assert_eq!(time.now(), 5_000);
        clock.set(3_000);
        assert_eq!(time.now(), 5_000);
        assert_eq!(time.noted_by(4_001), None);
        time.note(5_000, 7);
        assert_eq!(time.noted_by(5_000), Some(7));
        assert_eq!((time.noted_durably(6), time.noted_durably(7)), (4_000, 5_000));
        assert!(time.is_stale(6_000) && !time.is_stale(5_999));
    }

    #[test]
    fn stamps_rise_and_stay_above_the_bound() {
        let wall = BASE_UNIX_MS + 1_000_000;
        let hybrid = HybridClock::new(5, 0);
        assert!(!hybrid.is_bounded(wall));
        let mut persisted = 0;
        let persist = |bound| {
            persisted = bound;
            Ok::<_, ()>(())
        };
        hybrid.raise(wall, persist).unwrap();
        assert!(hybrid.is_bounded(wall) && persisted == 1_000_000 + BOUND_AHEAD_MS);
        let mut last = 0;
        for step in 0..10_000 {
            // Also when the wall clock is set back.
            let stamp = hybrid.stamp(wall - step);
            assert!(stamp > last && stamp & 1023 == 5);
            last = stamp;
        }
        let again = HybridClock::new(5, persisted);
        assert!(again.stamp(wall - 50_000) > last);
        assert!(!again.is_bounded(wall), "nothing is handed out before a new bound is durable");
    }

    #[test]
    fn a_stamp_is_above_those_of_others() {
        let (ahead, behind) = (HybridClock::new(1, 0), HybridClock::new(2, 0));
        let seen = ahead.stamp(BASE_UNIX_MS + 5000);
        assert!(behind.stamp(BASE_UNIX_MS) < seen);
        behind.observe(seen);
        assert!(behind.stamp(BASE_UNIX_MS) > seen);
    }

    #[test]
    fn a_failed_raise_raises_nothing() {
        let hybrid = HybridClock::new(0, 0);
        assert_eq!(hybrid.raise(BASE_UNIX_MS, |_| Err("disk full")), Err("disk full"));
        assert!(!hybrid.is_bounded(BASE_UNIX_MS));
    }

    #[test]
    fn threads_get_different_stamps() {
        let hybrid = HybridClock::new(0, 0);
        let all = std::thread::scope(|scope| {
            let run = || (0..5000).map(|_| hybrid.stamp(BASE_UNIX_MS + 9)).collect::<Vec<_>>();
            let (a, b) = (scope.spawn(run), scope.spawn(run));
            let mut all = a.join().unwrap();
            all.extend(b.join().unwrap());
            all
        });
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
