//! What a torture found.

use super::Tally;
use crate::linear::Verdict;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Lost keys that are named one by one.
const NAMED_MAX: usize = 10;

/// A time without an acknowledged write of one probe, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) probe: usize,
    pub(super) from: u64,
    pub(super) micros: u64,
}

/// What a torture found.
#[derive(Clone, Debug)]
pub struct Report {
    begun_unix_ms: u64,
    acknowledged: u64,
    operations: usize,
    ledger: usize,
    failures: BTreeMap<String, u64>,
    gaps: Vec<Gap>,
    verdict: Verdict,
    lost: Vec<String>,
}

impl Report {
    pub(super) fn new(begun_unix_ms: u64, tally: Tally, verdict: Verdict, lost: Vec<String>) -> Report {
        let Tally { history, failures, acknowledged, ledger, mut gaps } = tally;
        gaps.sort_by_key(|gap| (gap.from, gap.probe));
        Report {
            begun_unix_ms,
            acknowledged,
            operations: history.len(),
            ledger: ledger.len(),
            failures,
            gaps,
            verdict,
            lost,
        }
    }

    /// Whether the history is linearizable and everything acknowledged is there. A history too large to search is no proof of anything.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdict == Verdict::Linearizable && self.lost.is_empty()
    }

    /// The longest time for which writes of one key stood still.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        Duration::from_micros(self.gaps.iter().map(|gap| gap.micros).max().unwrap_or(0))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} requests acknowledged; {} operations on registers, {} ledger entries",
            self.acknowledged, self.operations, self.ledger
        )?;
        writeln!(f, "begun at {} ms of unix time", self.begun_unix_ms)?;
        for (why, count) in &self.failures {
            writeln!(f, "  {count} {why}")?;
        }
        for gap in &self.gaps {
            let Gap { probe, from, micros } = gap;
            writeln!(f, "  probe {probe}: no write for {} ms from {} ms on", micros / 1000, from / 1000)?;
        }
        writeln!(f, "longest gap of writes: {} ms", self.longest_gap().as_millis())?;
        match &self.verdict {
            Verdict::Linearizable => writeln!(f, "linearizable: yes")?,
            Verdict::TooLarge { key } => {
                writeln!(f, "linearizable: not decided, register {key} is too large")?;
            }
            Verdict::Violated { key, operations } => {
                writeln!(f, "linearizable: NO, register {key}:")?;
                for operation in operations {
                    writeln!(f, "  {operation:?}")?;
                }
            }
        }
        for lost in self.lost.iter().take(NAMED_MAX) {
            writeln!(f, "LOST {lost}")?;
        }
        write!(f, "acknowledged and lost: {}", self.lost.len())
    }
}
