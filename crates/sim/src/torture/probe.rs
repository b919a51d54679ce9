//! Probes: for how long writes stand still.

use super::report::Gap;
use super::resp::Fate;
use super::{Pause, Torture};
use std::time::Duration;

const BETWEEN: Duration = Duration::from_millis(20);

/// Shorter ones are no news.
const GAP_MICROS_MIN: u64 = 300_000;

pub(super) fn run(torture: &Torture, number: usize) {
    let mut client = torture.client(number);
    let key = format!("{}:probe:{number}", torture.settings.run);
    let mut last = None;
    let mut gaps = Vec::new();
    for entry in 0_u64.. {
        if torture.stop.pause(BETWEEN) == Pause::Over {
            break;
        }
        let fate = client.call(&[b"SET", key.as_bytes(), entry.to_string().as_bytes()]);
        torture.count(&fate);
        if let Fate::Answered(_) = fate {
            let now = torture.watch.now();
            // Before the first one the cluster may still be coming up.
            if let Some(before) = last.replace(now).filter(|before| now - before >= GAP_MICROS_MIN) {
                gaps.push(Gap { probe: number, from: before, micros: now - before });
            }
        }
    }
    // One that never ended is one all the same.
    let now = torture.watch.now();
    let from = last.unwrap_or(0);
    if now - from >= GAP_MICROS_MIN {
        gaps.push(Gap { probe: number, from, micros: now - from });
    }
    torture.with_tally(|tally| tally.gaps.append(&mut gaps));
}
