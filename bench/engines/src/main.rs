//! The workloads of the engine table, one engine in one process: `engines ENGINE ROWS VALUE_BYTES CACHE_MIB FOLDER`.
//!
//! Each line: workload, thousand operations per second, CPU microseconds per operation of the whole process.

mod engine;

use engine::{Engine, open};
use std::path::Path;
use std::time::Instant;

const SCAN_ROWS: usize = 100;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, name, rows, value_bytes, cache_mib, folder] = &args[..] else {
        eprintln!("engines ENGINE ROWS VALUE_BYTES CACHE_MIB FOLDER");
        std::process::exit(2);
    };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let plan = Plan { rows: number(rows), value_bytes: number(value_bytes) as usize };
    let folder = Path::new(folder).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    let engine = open(name, &folder, number(cache_mib));
    plan.run(&*engine, &folder);
}

struct Plan {
    rows: u64,
    value_bytes: usize,
}

impl Plan {
    fn run(&self, engine: &dyn Engine, folder: &Path) {
        let reads = self.rows.min(500_000);
        self.measure("fill random", self.rows, |i| engine.put(&key(scatter(i, self.rows)), &self.value(i)));
        self.measure("settle", 1, |_| engine.settle());
        println!("disk bytes / user bytes: {:.2}", disk_bytes(folder) as f64 / (self.rows as f64 * (16 + self.value_bytes) as f64));
        self.measure("read random (first)", reads, |i| assert!(engine.get(&key(scatter(random(i), self.rows)))));
        self.measure("read random", reads, |i| assert!(engine.get(&key(scatter(random(i + 7), self.rows)))));
        self.measure("read missing", reads, |i| assert!(!engine.get(&key(self.rows * 3 + random(i) % self.rows))));
        self.measure("scan 100", 20_000, |i| engine.scan(&key(random(i) % self.rows), SCAN_ROWS));
        self.measure("full scan, per row", self.rows, |i| {
            if i == 0 {
                engine.scan(&key(0), usize::MAX);
            }
        });
        self.measure("overwrite", self.rows, |i| engine.put(&key(random(i) % self.rows), &self.value(i + 1)));
        self.measure("settle", 1, |_| engine.settle());
        println!("disk bytes / user bytes: {:.2}", disk_bytes(folder) as f64 / (self.rows as f64 * (16 + self.value_bytes) as f64));
        self.measure("read random", reads, |i| assert!(engine.get(&key(scatter(random(i + 9), self.rows)))));
        println!("{}", engine.report());
        println!("peak RSS MiB: {}", peak_rss_mib());
    }

    fn measure(&self, name: &str, operations: u64, mut operation: impl FnMut(u64)) {
        let (begun, cpu) = (Instant::now(), cpu_micros());
        (0..operations).for_each(&mut operation);
        let (took, cpu) = (begun.elapsed(), cpu_micros() - cpu);
        let rate = operations as f64 / took.as_secs_f64() / 1000.0;
        println!("{name:<22} {rate:>10.1} k/s {:>8.2} us CPU {:>8.2} s", cpu as f64 / operations as f64, took.as_secs_f64());
    }

    /// Half of it compresses.
    fn value(&self, i: u64) -> Vec<u8> {
        let mut value = vec![b'v'; self.value_bytes];
        for (n, chunk) in value.chunks_mut(8).enumerate().take(self.value_bytes / 16) {
            let bytes = random(i * 1_000_003 + n as u64).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        value
    }
}

fn key(i: u64) -> [u8; 16] {
    let mut key = *b"user000000000000";
    key[4..].copy_from_slice(format!("{i:012}").as_bytes());
    key
}

/// A permutation of the rows: each is written once, in no order.
fn scatter(i: u64, rows: u64) -> u64 {
    (u128::from(i % rows) * 2_654_435_761 % u128::from(rows)) as u64
}

fn random(i: u64) -> u64 {
    let mut x = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn cpu_micros() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    (ticks(11) + ticks(12)) * 10_000
}

fn peak_rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn disk_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() && entry.file_name() != "wal" => disk_bytes(&entry.path()),
        Ok(meta) if meta.is_file() => meta.len(),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}
