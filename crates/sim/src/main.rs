//! `kvorum-sim`: one seed, or as many as fit into a time.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use kvorum_sim::cluster;
use kvorum_sim::plan::Plan;
use kvorum_sim::run::{Outcome, run};
use kvorum_sim::shrink::{kind, shrink};
use kvorum_sim::torture;
use std::net::SocketAddr;

/// Simulates replica groups by seed; exits with 1 if a run breaks a promise.
#[derive(Debug, Parser)]
#[command(version, about, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Run this seed and print what came of it.
    #[arg(long, conflicts_with = "swarm")]
    seed: Option<u64>,
    /// Run seeds for so many seconds.
    #[arg(long, value_name = "SECONDS")]
    swarm: Option<u64>,
    /// The first seed of a swarm.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// The last seed of a swarm, which ends there if it still has time.
    #[arg(long, default_value_t = u64::MAX)]
    upto: u64,
    /// Run the shard's members of `kvorum-cluster` over the real engine, instead of the replication core alone.
    #[arg(long)]
    cluster: bool,
    /// With --seed: print everything that happened.
    #[arg(long)]
    trace: bool,
    /// Runs that shrinking a failure may take.
    #[arg(long, default_value_t = 400)]
    shrink: usize,
}

impl Arguments {
    fn plan(&self, seed: u64) -> Plan {
        if self.cluster { cluster::plan_of(seed) } else { Plan::of(seed) }
    }

    fn run_plan(&self, plan: &Plan, keep_lines: bool) -> Outcome {
        if self.cluster { cluster::run_plan(plan, keep_lines) } else { run(plan, keep_lines) }
    }

    fn run(&self, seed: u64, keep_lines: bool) -> Outcome {
        self.run_plan(&self.plan(seed), keep_lines)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes to and reads from running nodes, while somebody else torments them; exits with 1 if a promise is broken.
    Torture(Torture),
}

#[derive(Debug, clap::Args)]
struct Torture {
    /// The nodes' RESP addresses.
    #[arg(long, value_delimiter = ',', required = true)]
    nodes: Vec<SocketAddr>,
    /// How long clients write.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long the nodes may take afterwards to answer every last question.
    #[arg(long, default_value_t = 60)]
    settle_seconds: u64,
    /// How long one request may take.
    #[arg(long, default_value_t = 1000)]
    patience_ms: u64,
    /// Clients that share a few keys.
    #[arg(long, default_value_t = 8)]
    registers: usize,
    /// Clients that write each key once.
    #[arg(long, default_value_t = 2)]
    ledgers: usize,
    /// Clients that measure for how long writes stand still.
    #[arg(long, default_value_t = 8)]
    probes: usize,
    /// Keys that the first kind uses at one time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// What clients do follows from it; when they do it, does not.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Fail if the writes of a key stand still for longer.
    #[arg(long)]
    gap_max_ms: Option<u64>,
    /// Names the run: keys begin with it.
    #[arg(long, default_value = "torture")]
    run: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Torture(torture)) = arguments.command {
        return torture_nodes(torture);
    }
    match (arguments.seed, arguments.swarm) {
        (Some(seed), _) => one(seed, &arguments),
        (None, seconds) => swarm(Duration::from_secs(seconds.unwrap_or(10)), &arguments),
    }
}

fn torture_nodes(arguments: Torture) -> ExitCode {
    let limit = arguments.gap_max_ms.map(Duration::from_millis);
    let settings = torture::Settings {
        nodes: arguments.nodes,
        time: Duration::from_secs(arguments.seconds),
        settle: Duration::from_secs(arguments.settle_seconds),
        patience: Duration::from_millis(arguments.patience_ms),
        clients: [arguments.registers, arguments.ledgers, arguments.probes],
        keys: arguments.keys,
        seed: arguments.seed,
        run: arguments.run,
    };
    match torture::run(settings) {
        Ok(report) => {
            println!("{report}");
            let in_time = limit.is_none_or(|limit| report.longest_gap() <= limit);
            if !in_time {
                println!("writes stood still for longer than {} ms", limit.unwrap_or_default().as_millis());
            }
            if report.is_good() && in_time { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => {
            println!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn summary(seed: u64, outcome: &Outcome) -> String {
    format!(
        "seed {seed}: hash {:016x}, {} events, {} operations, {} commits, {} reigns, {:.1} s of virtual time: {}",
        outcome.hash,
        outcome.events,
        outcome.operations,
        outcome.commits,
        outcome.reigns,
        outcome.micros as f64 / 1e6,
        outcome.failure.as_deref().unwrap_or("all promises kept"),
    )
}

fn one(seed: u64, arguments: &Arguments) -> ExitCode {
    let outcome = arguments.run(seed, arguments.trace);
    for line in &outcome.lines {
        println!("{line}");
    }
    println!("{}", summary(seed, &outcome));
    if outcome.failure.is_none() {
        return ExitCode::SUCCESS;
    }
    if !arguments.trace {
        explain(seed, arguments);
    }
    ExitCode::FAILURE
}

/// Shrinks a failing seed, and prints what is left of it.
fn explain(seed: u64, arguments: &Arguments) {
    eprintln!("shrinking seed {seed} …");
    let small = shrink(&arguments.plan(seed), arguments.shrink, |plan| {
        arguments.run_plan(plan, false).failure.map(|failure| kind(&failure).to_string())
    });
    let outcome = arguments.run_plan(&small, true);
    let tail = outcome.lines.len().saturating_sub(400);
    for line in outcome.lines.iter().skip(tail) {
        println!("{line}");
    }
    for fault in &small.faults {
        println!("left of the plan: {fault:?}");
    }
    for deed in &small.deeds {
        println!("left of the plan: {deed:?}");
    }
    println!("left of the plan: {:?}", Plan { faults: Vec::new(), deeds: Vec::new(), ..small });
    println!("shrunk from {}", summary(seed, &outcome));
    let whole = if arguments.cluster { "--cluster " } else { "" };
    println!("replay: cargo run --profile sim -p kvorum-sim -- {whole}--seed {seed}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a swarm flies is real time; nothing inside a run sees it"
)]
fn swarm(limit: Duration, arguments: &Arguments) -> ExitCode {
    let begun = std::time::Instant::now();
    let (mut runs, mut commits, mut operations, mut told) = (0_u64, 0, 0, 0);
    let mut seed = arguments.from;
    while seed <= arguments.upto && begun.elapsed() < limit {
        let outcome = arguments.run(seed, false);
        runs += 1;
        commits += outcome.commits;
        operations += outcome.operations;
        if outcome.failure.is_some() {
            println!("{}", summary(seed, &outcome));
            explain(seed, arguments);
            return ExitCode::FAILURE;
        }
        if begun.elapsed().as_secs() / 5 > told {
            told = begun.elapsed().as_secs() / 5;
            eprintln!(
                "{:>4} s: {runs} runs, {operations} operations, {commits} commits, next seed {}",
                told * 5,
                seed + 1
            );
        }
        seed += 1;
    }
    println!(
        "{runs} runs, {operations} operations, {commits} commits in {:.0} s: all promises kept",
        begun.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}
