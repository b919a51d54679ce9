//! What was counted, and how it is told.

use super::client::Answer;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Latencies above are counted as this.
const LATENCY_MICROS_MAX: u64 = 3_600_000_000;

/// Digits of a latency that count.
const DIGITS: u8 = 3;

/// Kinds of errors that are told apart; the rest count as `other`.
const ERROR_KINDS_MAX: usize = 16;

/// Counts and latencies of some clients.
pub(crate) struct Tally {
    reads: Histogram<u64>,
    writes: Histogram<u64>,
    missing: u64,
    errors: BTreeMap<String, u64>,
    broken: u64,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally { reads: histogram(), writes: histogram(), missing: 0, errors: BTreeMap::new(), broken: 0 }
    }

    /// An answer, that long after the operation was sent or fell due.
    pub(crate) fn answer(&mut self, is_read: bool, latency: Duration, answer: &Answer) {
        match answer {
            Answer::Error(code) => {
                let known = self.errors.len() < ERROR_KINDS_MAX || self.errors.contains_key(code);
                let kind = if known { code.as_str() } else { "other" };
                *self.errors.entry(kind.to_owned()).or_default() += 1;
                return;
            }
            Answer::Missing => self.missing += 1,
            Answer::Done => {}
        }
        let histogram = if is_read { &mut self.reads } else { &mut self.writes };
        histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MICROS_MAX));
    }

    /// A connection broke.
    pub(crate) fn broke(&mut self) {
        self.broken += 1;
    }

    /// Adds what other clients counted.
    pub(crate) fn add(&mut self, other: &Tally) -> Result<(), String> {
        let failed = |error: hdrhistogram::errors::AdditionError| error.to_string();
        self.reads.add(&other.reads).map_err(failed)?;
        self.writes.add(&other.writes).map_err(failed)?;
        self.missing += other.missing;
        self.broken += other.broken;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        Ok(())
    }

    /// Operations that were answered without an error.
    pub(crate) fn operations(&self) -> u64 {
        self.reads.len() + self.writes.len()
    }

    /// Answers that were errors, and connections that broke.
    pub(crate) fn failures(&self) -> u64 {
        self.errors.values().sum::<u64>() + self.broken
    }

    /// A percentile of the latency of all operations.
    pub(crate) fn percentile(&self, percent: f64) -> Result<Duration, String> {
        let mut all = self.reads.clone();
        all.add(&self.writes).map_err(|error| error.to_string())?;
        Ok(Duration::from_micros(all.value_at_percentile(percent)))
    }

    /// The table of a run of that length.
    pub(crate) fn table(&self, took: Duration) -> Result<String, String> {
        let mut all = self.reads.clone();
        all.add(&self.writes).map_err(|error| error.to_string())?;
        let mut text =
            String::from("          ops      ops/s   p50 ms   p90 ms   p99 ms p99.9 ms   max ms\n");
        for (name, histogram) in [("read", &self.reads), ("write", &self.writes), ("all", &all)] {
            if !histogram.is_empty() {
                let _ = writeln!(text, "{}", row(name, histogram, took));
            }
        }
        text.push_str(&self.remarks());
        Ok(text)
    }

    /// Errors, if there were any, and reads that found nothing.
    pub(crate) fn remarks(&self) -> String {
        let mut text = String::new();
        if self.missing > 0 {
            let _ = writeln!(text, "{} reads found no value (write the keys first: --get 0)", self.missing);
        }
        for (kind, count) in &self.errors {
            let _ = writeln!(text, "{count} errors: {kind}");
        }
        if self.broken > 0 {
            let _ = writeln!(text, "{} connections broke", self.broken);
        }
        text
    }
}

fn row(name: &str, histogram: &Histogram<u64>, took: Duration) -> String {
    let rate = histogram.len() as f64 / took.as_secs_f64().max(f64::EPSILON);
    let mut row = format!("{name:5} {:8} {rate:10.0}", histogram.len());
    for percent in [50.0, 90.0, 99.0, 99.9, 100.0] {
        let _ = write!(row, " {:8.3}", histogram.value_at_percentile(percent) as f64 / 1000.0);
    }
    row
}

fn histogram() -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, DIGITS) {
        Ok(histogram) => histogram,
        // Bounds and digits are constants that the library takes, as every test shows.
        Err(error) => unreachable!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_adds_up() {
        let (mut one, mut other) = (Tally::new(), Tally::new());
        for millis in 1..=100 {
            one.answer(true, Duration::from_millis(millis), &Answer::Done);
            other.answer(false, Duration::from_millis(100 + millis), &Answer::Done);
        }
        other.answer(true, Duration::from_secs(9), &Answer::Error(String::from("UNKNOWN")));
        other.broke();
        one.add(&other).unwrap();
        assert_eq!((one.operations(), one.failures()), (200, 2));
        let p99 = one.percentile(99.0).unwrap().as_millis();
        assert!((197..=199).contains(&p99), "{p99}");
        let table = one.table(Duration::from_secs(2)).unwrap();
        assert!(table.contains("all        200        100"), "{table}");
        assert!(table.contains("1 errors: UNKNOWN\n1 connections broke"), "{table}");
    }
}
