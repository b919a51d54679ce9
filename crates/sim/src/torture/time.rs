//! Time of a torture: it is real, so this is the one place that asks for it.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Microseconds since the torture began.
pub(super) struct Watch {
    begun: Instant,
    /// When that was by the clock on the wall: whoever torments the nodes meanwhile relates its deeds to gaps by it.
    begun_unix_ms: u64,
}

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "histories of real nodes are ordered by real time")]
    pub(super) fn start() -> Watch {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Watch { begun: Instant::now(), begun_unix_ms: unix.as_millis() as u64 }
    }

    pub(super) fn now(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    pub(super) fn begun_unix_ms(&self) -> u64 {
        self.begun_unix_ms
    }
}

/// Tells all clients that the time is over.
#[derive(Default)]
pub(super) struct Stop {
    over: Mutex<bool>,
    changed: Condvar,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    GoOn,
    Over,
}

impl Stop {
    /// Waits for the time and then says that it is over.
    pub(super) fn after(&self, time: Duration) {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(over, time, |over| !*over);
        let (mut over, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *over = true;
        drop(over);
        self.changed.notify_all();
    }

    /// Lets some time pass, less if the whole time is over.
    pub(super) fn pause(&self, time: Duration) -> Pause {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(over, time, |over| !*over);
        let (over, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if *over { Pause::Over } else { Pause::GoOn }
    }
}
