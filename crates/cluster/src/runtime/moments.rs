//! The clock of leases and time-outs: monotonic, and it counts the time for which the machine was suspended.

use kvorum_sync::Moment;
use rustix::time::{ClockId, Timespec, clock_gettime};

const MICROS_PER_SECOND: u64 = 1_000_000;
const NANOS_PER_MICRO: u64 = 1000;

/// The clock that goes on while the machine sleeps.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;

/// Here the monotonic clock is the one that goes on while the machine sleeps.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Now, in microseconds since the machine was started.
pub(crate) fn now() -> Moment {
    moment(clock_gettime(CLOCK))
}

fn moment(time: Timespec) -> Moment {
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    Moment(
        part(time.tv_sec)
            .saturating_mul(MICROS_PER_SECOND)
            .saturating_add(part(time.tv_nsec) / NANOS_PER_MICRO),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_microseconds_and_never_fall() {
        assert_eq!(moment(Timespec { tv_sec: 3, tv_nsec: 4_999 }), Moment(3_000_004));
        let first = now();
        assert!(first > Moment(0) && now() >= first);
    }
}
