//! The workloads: what is loaded first, what is timed.

use crate::peers::{self, Engine};
use crate::report::Outcome;
use hdrhistogram::Histogram;
use rand::distr::Distribution;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Sizes that all workloads share.
pub(crate) struct Plan {
    pub(crate) rows: u64,
    pub(crate) value_bytes: usize,
    pub(crate) cache_bytes: u64,
}

/// One workload.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    loaded: bool,
    threads: u64,
    operations: fn(&Plan) -> u64,
    step: Step,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    FillSequential,
    FillRandom,
    FillBatches,
    Synced,
    ReadHit,
    ReadMissing,
    Scan100,
    FullScan,
    ZipfMix,
    Overwrite,
    DeleteHalf,
}

impl Step {
    /// What stands in the store afterwards and what was written differ from what was loaded: it is settled before it is weighed.
    const fn writes_to_a_loaded_store(self) -> bool {
        matches!(self, Step::Overwrite | Step::DeleteHalf)
    }
}

const fn row(
    name: &'static str,
    loaded: bool,
    threads: u64,
    operations: fn(&Plan) -> u64,
    step: Step,
) -> Workload {
    Workload { name, loaded, threads, operations, step }
}

/// All workloads, in the order they run.
pub(crate) const WORKLOADS: &[Workload] = &[
    row("fill-sequential", false, 1, |plan| plan.rows, Step::FillSequential),
    row("fill-random", false, 1, |plan| plan.rows, Step::FillRandom),
    row("fill-batches-100", false, 1, |plan| plan.rows / 100, Step::FillBatches),
    row("synced-32", false, 32, |_| 20_000, Step::Synced),
    row("read-hit", true, 1, |_| 500_000, Step::ReadHit),
    row("read-hit-2", true, 2, |_| 1_000_000, Step::ReadHit),
    row("read-missing", true, 1, |_| 500_000, Step::ReadMissing),
    row("scan-100", true, 1, |_| 20_000, Step::Scan100),
    row("full-scan", true, 1, |plan| plan.rows, Step::FullScan),
    row("zipf-mix-2", true, 2, |_| 500_000, Step::ZipfMix),
    row("overwrite", true, 1, |plan| plan.rows, Step::Overwrite),
    row("delete-half", true, 1, |plan| plan.rows / 2, Step::DeleteHalf),
];

/// Runs a workload on a fresh store of the engine.
pub(crate) fn run(workload: &Workload, engine: &str, plan: &Plan, round: u64) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = peers::open(engine, folder.path(), plan.cache_bytes);
    if workload.loaded {
        load(store.as_ref(), plan);
        store.settle();
        warm(store.as_ref(), plan);
    }
    let total = (workload.operations)(plan);
    let latencies = Mutex::new(Histogram::<u64>::new(3).expect("a histogram"));
    let written = written_bytes();
    let (cpu, began) = (cpu_seconds(), Instant::now());
    if workload.step == Step::FullScan {
        assert_eq!(store.scan(&[], u64::MAX), plan.rows, "a full scan sees every row");
    } else {
        std::thread::scope(|scope| {
            for thread in 0..workload.threads {
                let (store, latencies) = (store.as_ref(), &latencies);
                scope.spawn(move || {
                    let mine = steps(workload, store, plan, round * 1000 + thread, total / workload.threads);
                    latencies.lock().expect("the histogram").add(mine).expect("equal histograms");
                });
            }
        });
    }
    let (elapsed, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let rows = if workload.step == Step::FillBatches { total * 100 } else { total } as f64;
    let p99_us = latencies.lock().expect("the histogram").value_at_quantile(0.99) as f64 / 1e3;
    if !workload.loaded || workload.step.writes_to_a_loaded_store() {
        store.settle();
    }
    let row_bytes = (KEY_BYTES + plan.value_bytes) as f64;
    let live = if workload.step == Step::DeleteHalf { plan.rows.div_ceil(2) } else { plan.rows };
    let disk_bytes = folder_bytes(folder.path());
    Outcome {
        rate: rows / elapsed,
        cpu_us: cpu * 1e6 / rows,
        p99_us,
        disk_bytes,
        space: disk_bytes as f64 / (live as f64 * row_bytes),
        written: (written_bytes() - written) as f64 / (rows * row_bytes),
    }
}

fn steps(workload: &Workload, store: &dyn Engine, plan: &Plan, seed: u64, count: u64) -> Histogram<u64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let zipf = rand_zipf(plan.rows);
    let mut latencies = Histogram::new(3).expect("a histogram");
    let mut value = vec![0; plan.value_bytes];
    for index in 0..count {
        let pick = random.random_range(0..plan.rows);
        let began = Instant::now();
        match workload.step {
            Step::FillSequential => store.put(&key(index), fill(&mut value, index), false),
            Step::FillRandom => store.put(&key(scatter(index)), fill(&mut value, index), false),
            Step::FillBatches => {
                let rows: Vec<_> = (index * 100..(index + 1) * 100)
                    .map(|row| (key(scatter(row)), fill(&mut value, row).to_vec()))
                    .collect();
                store.put_all(&rows);
            }
            Step::Synced => store.put(&key(scatter(seed << 32 | index)), fill(&mut value, index), true),
            Step::ReadHit => assert!(store.get(&key(scatter(pick))), "a loaded key"),
            Step::ReadMissing => assert!(!store.get(&key(scatter(pick + plan.rows))), "a key never written"),
            Step::Scan100 => assert!(store.scan(&key(scatter(pick)), 100) > 0, "a scan from a loaded key"),
            Step::Overwrite => store.put(&key(scatter(pick)), fill(&mut value, !index), false),
            Step::DeleteHalf => store.delete(&key(scatter(index * 2))),
            Step::FullScan => unreachable!("one call, timed as a whole"),
            Step::ZipfMix => {
                let row = zipf.sample(&mut random);
                if index % 2 == 0 {
                    store.put(&key(scatter(row)), fill(&mut value, index), false);
                } else {
                    store.get(&key(scatter(row)));
                }
            }
        }
        latencies.record(duration_ns(began.elapsed())).expect("a histogram that grows");
    }
    latencies
}

fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn load(store: &dyn Engine, plan: &Plan) {
    let mut value = vec![0; plan.value_bytes];
    for row in 0..plan.rows {
        store.put(&key(scatter(row)), fill(&mut value, row), false);
    }
}

/// Reads a tenth of the rows, so that caches hold what they would in the long run.
fn warm(store: &dyn Engine, plan: &Plan) {
    for row in 0..plan.rows / 2 {
        store.get(&key(scatter(row * 2)));
    }
}

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;

/// 16-byte keys whose order is that of the number.
pub(crate) fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"key:____________";
    for (at, byte) in key.iter_mut().skip(4).enumerate() {
        *byte = b'a' + ((number >> (55 - 5 * at)) & 31) as u8 % 26;
    }
    let tail = number.to_be_bytes();
    key[8..].copy_from_slice(&tail);
    key
}

/// A permutation of the 64-bit numbers, so that rows come in random order and none twice.
pub(crate) fn scatter(row: u64) -> u64 {
    let mut x = row.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Fills the first half with noise of the row and leaves the second half alike in all rows.
pub(crate) fn fill(value: &mut [u8], row: u64) -> &[u8] {
    let half = value.len() / 2;
    let mut state = row;
    for chunk in value[..half].chunks_mut(8) {
        state = scatter(state);
        let noise = state.to_le_bytes();
        chunk.copy_from_slice(&noise[..chunk.len()]);
    }
    value
}

struct Zipf {
    rows: f64,
    exponent: f64,
}

fn rand_zipf(rows: u64) -> Zipf {
    Zipf { rows: rows as f64, exponent: 0.99 }
}

impl Distribution<u64> for Zipf {
    /// The continuous approximation by inversion: P(row) ~ 1 / (row + 1)^0.99.
    fn sample<R: rand::Rng + ?Sized>(&self, random: &mut R) -> u64 {
        let power = 1.0 - self.exponent;
        let uniform: f64 = random.random();
        let row = (uniform * ((self.rows + 1.0).powf(power) - 1.0) + 1.0).powf(1.0 / power);
        (row as u64).saturating_sub(1)
    }
}

/// User and system time of this process so far, in seconds.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Bytes that this process has given to the file system so far.
fn written_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = text.lines().find_map(|line| line.strip_prefix("wchar: "));
    field.and_then(|field| field.trim().parse().ok()).unwrap_or(0)
}

fn folder_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
