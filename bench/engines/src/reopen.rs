//! How long a store takes to open after `kill -9`, with its last rows in the log only.

use crate::peers;
use crate::report::median;
use crate::workloads::{Plan, key, load, scatter};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const LOADED: &str = "loaded";

/// The child: loads, says so, and waits to be killed.
pub(crate) fn load_and_wait(engine: &str, folder: &Path, plan: &Plan) {
    let store = peers::open(engine, folder, plan.cache_bytes);
    load(store.as_ref(), plan);
    println!("{LOADED}");
    loop {
        std::thread::park();
    }
}

/// Prints the milliseconds from opening to the first row read, by engine: the median and each round.
pub(crate) fn compare(engines: &[String], plan: &Plan, rounds: usize) {
    let mut times = vec![Vec::new(); engines.len()];
    for _ in 0..rounds {
        for (times, engine) in times.iter_mut().zip(engines) {
            times.push(one(engine, plan));
        }
    }
    for (times, engine) in times.iter().zip(engines) {
        let each: Vec<_> = times.iter().map(|ms| format!("{ms:.0}")).collect();
        println!("reopen {engine:<8} {:>8.0} ms ({})", median(times.iter().copied()), each.join(" "));
    }
}

fn one(engine: &str, plan: &Plan) -> f64 {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let number = |value: u64| value.to_string();
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--engines",
            engine,
            "--rows",
            &number(plan.rows),
            "--value-bytes",
            &number(plan.value_bytes as u64),
        ])
        .args(["--cache-mib", &number(plan.cache_bytes >> 20), "--load-into"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    assert_eq!(line.trim(), LOADED, "the child loads all rows");
    child.kill().expect("a kill");
    child.wait().expect("its end");
    let began = Instant::now();
    let store = peers::open(engine, folder.path(), plan.cache_bytes);
    assert!(store.get(&key(scatter(plan.rows - 1))), "the last row survives the kill");
    began.elapsed().as_secs_f64() * 1e3
}
