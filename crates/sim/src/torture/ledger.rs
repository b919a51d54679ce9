//! Ledgers: each key is written once, and what was acknowledged must be there at the end.

use super::resp::{Fate, Reply};
use super::{Pause, Torture};
use std::time::Duration;

const BETWEEN: Duration = Duration::from_millis(4);
const AFTER_FAILURE: Duration = Duration::from_millis(30);

pub(super) fn run(torture: &Torture, number: usize) {
    let mut client = torture.client(number);
    let mut written = Vec::new();
    let mut pause = BETWEEN;
    for entry in 0_u64.. {
        if torture.stop.pause(pause) == Pause::Over {
            break;
        }
        let key = format!("{}:ledger:{number}:{entry}", torture.settings.run);
        let fate = client.call(&[b"SET", key.as_bytes(), entry.to_string().as_bytes()]);
        torture.count(&fate);
        pause = AFTER_FAILURE;
        if let Fate::Answered(Reply::Simple(_)) = fate {
            written.push((key, entry));
            pause = BETWEEN;
        }
    }
    torture.with_tally(|tally| tally.ledger.append(&mut written));
}

/// Acknowledged keys that are not there, or have another value.
pub(super) fn missing(torture: &Torture, deadline: u64) -> Result<Vec<String>, String> {
    let ledger = torture.with_tally(|tally| std::mem::take(&mut tally.ledger));
    let mut missing = Vec::new();
    let mut client = torture.client(0);
    for (key, entry) in &ledger {
        loop {
            match client.call(&[b"GET", key.as_bytes()]) {
                Fate::Answered(reply) => {
                    if reply.number() != Some(*entry) {
                        missing.push(format!("{key}: {reply:?} instead of {entry}"));
                    }
                    break;
                }
                fate if torture.watch.now() > deadline => {
                    return Err(format!("the cluster does not answer GET {key}: {fate:?}"));
                }
                _ => {
                    super::time::Stop::default().pause(AFTER_FAILURE);
                }
            }
        }
    }
    torture.with_tally(|tally| tally.ledger = ledger);
    Ok(missing)
}
