//! How long one write may have to wait when writers give all they can for minutes.

use crate::peers::{self, Engine as _};
use crate::workloads::{KEY_BYTES, Plan, fill, key, scatter};
use hdrhistogram::Histogram;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const WRITERS: u64 = 2;

/// Writes rows from a range of `plan.rows` with two threads, and at the same time syncs a file of its own four times a second: what the device itself makes wait.
pub(crate) fn run(seconds: u64, plan: &Plan) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = peers::kvorum::open(folder.path(), plan.cache_bytes);
    let pauses = Mutex::new(Histogram::<u64>::new(3).expect("a histogram"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut device = Histogram::<u64>::new(3).expect("a histogram");
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, pauses) = (&store, &pauses);
            scope.spawn(move || {
                let mut mine = Histogram::<u64>::new(3).expect("a histogram");
                let mut value = vec![0; plan.value_bytes];
                for index in 0.. {
                    let began = Instant::now();
                    if began >= end {
                        break;
                    }
                    let row = scatter(index << 1 | writer) % plan.rows;
                    store.put(&key(row), fill(&mut value, index), false);
                    mine.record(micros(began)).expect("a histogram that grows");
                }
                pauses.lock().expect("the histogram").add(mine).expect("equal histograms");
            });
        }
        let probe = std::fs::File::create(folder.path().join("probe")).expect("a file");
        while Instant::now() < end {
            let began = Instant::now();
            std::io::Write::write_all(&mut &probe, &[7; 4096]).expect("a write");
            probe.sync_data().expect("a sync");
            device.record(micros(began)).expect("a histogram that grows");
            std::thread::sleep(Duration::from_millis(250));
        }
    });
    let pauses = pauses.into_inner().expect("the histogram");
    let mib = pauses.len() * (KEY_BYTES + plan.value_bytes) as u64 >> 20;
    println!("overload {seconds} s: {} writes, {mib} MiB of rows", pauses.len());
    for (name, histogram) in [("write", &pauses), ("device's sync", &device)] {
        let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "{name}: p50 {:.3} p99 {:.3} p99.99 {:.3} longest {:.1} ms",
            ms(0.5),
            ms(0.99),
            ms(0.9999),
            ms(1.0)
        );
    }
    println!("the store's own count of the longest pause: {:?}", store.longest_pause());
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}
