//! Medians of rounds, and Kvorum's ratio to the best peer round by round.

use std::collections::HashMap;

/// What one run of a workload gave.
#[derive(Clone, Copy)]
pub(crate) struct Outcome {
    /// Operations in a second.
    pub(crate) rate: f64,
    /// Processor time of the whole process for one operation, in microseconds.
    pub(crate) cpu_us: f64,
    /// 99th percentile of one operation, in microseconds.
    pub(crate) p99_us: f64,
    /// Bytes in the store's folder afterwards.
    pub(crate) disk_bytes: u64,
    /// Bytes in the folder for each byte of the rows that live.
    pub(crate) space: f64,
    /// Bytes given to the file system, background work until the store is idle among them, for each byte of the rows written or asked for.
    pub(crate) written: f64,
}

pub(crate) struct Report {
    engines: Vec<String>,
    runs: HashMap<(String, String), Vec<Outcome>>,
}

impl Report {
    pub(crate) fn new(engines: &[String]) -> Report {
        println!(
            "{:<22} {:<8} {:>12} {:>10} {:>10} {:>10} {:>7} {:>7}  kvorum / best peer by round",
            "workload", "engine", "op/s", "cpu us/op", "p99 us", "disk MiB", "space", "written"
        );
        Report { engines: engines.to_vec(), runs: HashMap::new() }
    }

    pub(crate) fn add(&mut self, workload: &str, engine: &str, outcome: Outcome) {
        self.runs.entry((workload.to_owned(), engine.to_owned())).or_default().push(outcome);
    }

    pub(crate) fn print(&self, workload: &str) {
        for engine in &self.engines {
            let runs = &self.runs[&(workload.to_owned(), engine.clone())];
            let ratios = if engine == "kvorum" { self.ratios(workload) } else { String::new() };
            println!(
                "{workload:<22} {engine:<8} {:>12.0} {:>10.2} {:>10.1} {:>10.1} {:>7.2} {:>7.2}  {ratios}",
                median(runs.iter().map(|run| run.rate)),
                median(runs.iter().map(|run| run.cpu_us)),
                median(runs.iter().map(|run| run.p99_us)),
                median(runs.iter().map(|run| run.disk_bytes as f64)) / f64::from(1 << 20),
                median(runs.iter().map(|run| run.space)),
                median(runs.iter().map(|run| run.written)),
            );
        }
    }

    fn ratios(&self, workload: &str) -> String {
        let rate = |engine: &str, round: usize| {
            self.runs
                .get(&(workload.to_owned(), engine.to_owned()))
                .and_then(|runs| runs.get(round))
                .map(|run| run.rate)
        };
        let mut ratios = Vec::new();
        for round in 0.. {
            let Some(ours) = rate("kvorum", round) else { break };
            let peers = self.engines.iter().filter(|engine| *engine != "kvorum");
            let best = peers.filter_map(|engine| rate(engine, round)).fold(0.0_f64, f64::max);
            ratios.push(ours / best);
        }
        let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        format!("{:.2} ({})", median(ratios.iter().copied()), each.join(" "))
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
