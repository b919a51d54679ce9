//! Puts or linearizable gets by many clients against the nodes of an etcd, in a closed loop: what its JSON gateway can't be asked for.
//!
//!     cargo run --release -p bench-etcd -- put 127.0.0.1:2379,127.0.0.1:22379,127.0.0.1:32379 --clients 64
//!
//! Prints operations, operations per second, and the 50th and 99th percentile of the time to an answer, in milliseconds. The first error ends it.

mod grpc;
mod messages;

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use grpc::{Connection, Problem};
use hdrhistogram::Histogram;
use messages::{PutRequest, RangeRequest, StatusRequest};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::cell::Cell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// Latencies above are counted as this.
const LATENCY_MICROS_MAX: u64 = 60_000_000;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Operation {
    Put,
    /// Linearizable.
    Get,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum To {
    Leader,
    /// Clients take turns.
    All,
}

#[derive(Parser)]
#[command(about, version)]
struct Options {
    operation: Operation,
    /// Addresses of the nodes, host:port
    #[arg(value_delimiter = ',', required = true)]
    nodes: Vec<String>,
    /// Clients, each with one operation under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    clients: u64,
    /// Connections that clients share; by default each has its own
    #[arg(long)]
    connections: Option<u64>,
    /// Which nodes are asked
    #[arg(long, value_enum, default_value_t = To::Leader)]
    to: To,
    /// Length of the run
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Keys to choose from
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Size of a value
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Put every key once instead, and print nothing: what gets need
    #[arg(long)]
    fill: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, load(&Rc::new(options)))
    };
    match run() {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn load(options: &Rc<Options>) -> Result<String, Problem> {
    let nodes = match options.to {
        To::All => options.nodes.clone(),
        To::Leader => vec![leader(&options.nodes).await?],
    };
    let mut connections = Vec::new();
    let count = options.connections.unwrap_or(options.clients).clamp(1, options.clients);
    for node in nodes.iter().cycle().take(usize::try_from(count)?) {
        connections.push(Connection::open(node).await?);
    }
    // The next key to be put, where all are.
    let filled = Rc::new(Cell::new(0));
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(options.seconds);
    let tasks: Vec<_> = (0..options.clients)
        .zip(connections.iter().cycle().cloned())
        .map(|(number, connection)| {
            let (options, filled) = (Rc::clone(options), Rc::clone(&filled));
            tokio::task::spawn_local(async move {
                if options.fill {
                    fill(&options, connection, &filled).await
                } else {
                    client(&options, connection, number, end).await
                }
            })
        })
        .collect();
    let mut times = histogram()?;
    for task in tasks {
        times.add(task.await??)?;
    }
    if options.fill {
        return Ok(String::new());
    }
    let millis = |percent| times.value_at_percentile(percent) as f64 / 1000.0;
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(format!("{} {rate:.0} {:.2} {:.2}\n", times.len(), millis(50.0), millis(99.0)))
}

/// The node that leads, as each says of itself.
async fn leader(nodes: &[String]) -> Result<String, Problem> {
    for node in nodes {
        let status = Connection::open(node).await?.call(&StatusRequest {}).await?;
        if status.header.is_some_and(|header| header.member_id == status.leader) {
            return Ok(node.clone());
        }
    }
    Err("none of these nodes leads: is there no majority, or is one missing among them?".into())
}

async fn client(
    options: &Options,
    mut connection: Connection,
    number: u64,
    end: Instant,
) -> Result<Histogram<u64>, Problem> {
    let mut random = SmallRng::seed_from_u64(number);
    let mut times = histogram()?;
    let value = Bytes::from(vec![b'v'; options.value_bytes]);
    loop {
        let begun = Instant::now();
        if begun >= end {
            return Ok(times);
        }
        let key = key(random.random_range(0..options.keys));
        match options.operation {
            Operation::Put => {
                connection.call(&PutRequest { key, value: value.clone() }).await?;
            }
            Operation::Get => {
                let answer = connection.call(&RangeRequest { key }).await?;
                let found = answer.kvs.first().map(|found| found.value.len());
                if found != Some(options.value_bytes) {
                    return Err(
                        "a key has no value of that size: fill first, with as many --keys and --value-bytes"
                            .into(),
                    );
                }
            }
        }
        times.saturating_record(u64::try_from(begun.elapsed().as_micros())?);
    }
}

/// Puts keys until all of them are.
async fn fill(
    options: &Options,
    mut connection: Connection,
    next: &Cell<u64>,
) -> Result<Histogram<u64>, Problem> {
    let value = Bytes::from(vec![b'v'; options.value_bytes]);
    while next.get() < options.keys {
        let key = key(next.replace(next.get() + 1));
        connection.call(&PutRequest { key, value: value.clone() }).await?;
    }
    Ok(histogram()?)
}

fn key(number: u64) -> Bytes {
    format!("key:{number:012}").into()
}

fn histogram() -> Result<Histogram<u64>, hdrhistogram::CreationError> {
    Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3)
}
