//! Kvorum's engine beside RocksDB and fjall: the same workloads, interleaved in one run, so that a shared machine's moods hit all alike.
//!
//! `cargo run --release -p bench-engines -- --rows 1000000 --rounds 3 fill-random read-hit`
#![forbid(unsafe_code)]

mod overload;
mod peers;
mod reopen;
mod report;
mod workloads;

use clap::Parser;
use report::Report;
use workloads::{Plan, WORKLOADS};

/// Compares storage engines.
#[derive(Parser)]
struct Arguments {
    /// Rows loaded before the reads.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Bytes of a value (half of them compressible).
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Cache of each engine in MiB; write buffers come on top for the peers, Kvorum gets the sum as its budget.
    #[arg(long, default_value_t = 512)]
    cache_mib: u64,
    /// How often each workload runs on each engine, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Engines: kvorum, rocksdb, fjall.
    #[arg(long, value_delimiter = ',', default_value = "kvorum,rocksdb,fjall")]
    engines: Vec<String>,
    /// Instead of workloads: how long a store takes to open after it was killed with all its rows in memory and log.
    #[arg(long)]
    reopen: bool,
    /// Instead of workloads: the longest pause of a write that is not synced while Kvorum is overloaded for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    overload: Option<u64>,
    /// Loads a store in this folder, says so and waits to be killed.
    #[arg(long, hide = true)]
    load_into: Option<std::path::PathBuf>,
    /// Workloads; all if none is named.
    workloads: Vec<String>,
}

fn main() {
    let arguments = Arguments::parse();
    let plan = Plan {
        rows: arguments.rows,
        value_bytes: arguments.value_bytes,
        cache_bytes: arguments.cache_mib << 20,
    };
    if let Some(folder) = &arguments.load_into {
        return reopen::load_and_wait(&arguments.engines[0], folder, &plan);
    }
    if arguments.reopen {
        return reopen::compare(&arguments.engines, &plan, arguments.rounds);
    }
    if let Some(seconds) = arguments.overload {
        return overload::run(seconds, &plan);
    }
    let known = |name: &String| WORKLOADS.iter().any(|workload| workload.name == *name);
    if let Some(odd) = arguments.workloads.iter().find(|name| !known(name)) {
        let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
        eprintln!("no workload {odd:?}; there are: {}", names.join(" "));
        std::process::exit(2);
    }
    let chosen = WORKLOADS.iter().filter(|workload| {
        arguments.workloads.is_empty() || arguments.workloads.iter().any(|n| n == workload.name)
    });
    let mut report = Report::new(&arguments.engines);
    for workload in chosen {
        for round in 0..arguments.rounds {
            for engine in &arguments.engines {
                let outcome = workloads::run(workload, engine, &plan, round as u64);
                report.add(workload.name, engine, outcome);
            }
        }
        report.print(workload.name);
    }
}
