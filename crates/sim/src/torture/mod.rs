//! Torture of a running cluster: clients of real nodes, while somebody else kills, stops and cuts them off.
//!
//! Three kinds of clients run side by side. **Registers** read, write and write conditionally few keys together; their history must be
//! linearizable. **Ledgers** write each key once; what was acknowledged must be there at the end. **Probes** write one key each, over and over:
//! the longest time between two of its acknowledged writes is how long writes stood still.

mod ledger;
mod probe;
mod register;
mod report;
mod resp;
mod time;

pub use report::Report;

use crate::dice::Dice;
use crate::history::Operation;
use crate::linear;
use resp::{Client, Fate};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use time::{Pause, Stop};

/// What to do to whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The nodes' RESP addresses.
    pub nodes: Vec<SocketAddr>,
    /// How long clients write.
    pub time: Duration,
    /// How long the cluster may take, once the time is over, to answer every last question.
    pub settle: Duration,
    /// How long one request may take.
    pub patience: Duration,
    /// Clients of each kind: registers, ledgers, probes.
    pub clients: [usize; 3],
    /// Keys that registers use at one time.
    pub keys: u64,
    /// Where dice begin.
    pub seed: u64,
    /// Names the run: no key of another run is touched.
    pub run: String,
}

/// Operations of the registers on one key before the next one takes its place: the search for an order stays small.
const OPERATIONS_PER_KEY: u64 = 250;

/// What all clients of a run share.
struct Torture {
    settings: Settings,
    watch: time::Watch,
    stop: Stop,
    /// The next value: no two writes of registers write the same.
    value: AtomicU64,
    /// Operations of registers begun.
    begun: AtomicU64,
    tally: Mutex<Tally>,
}

/// What clients bring home.
#[derive(Default)]
struct Tally {
    history: Vec<Operation>,
    /// Requests that were not answered as asked, by their code or cause.
    failures: BTreeMap<String, u64>,
    acknowledged: u64,
    /// Keys and values of acknowledged ledger writes.
    ledger: Vec<(String, u64)>,
    gaps: Vec<report::Gap>,
}

impl Torture {
    fn client(&self, number: usize) -> Client {
        Client::new(&self.settings.nodes, number, self.settings.patience)
    }

    fn with_tally<T>(&self, change: impl FnOnce(&mut Tally) -> T) -> T {
        change(&mut self.tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Counts what is no answer.
    fn count(&self, fate: &Fate) {
        self.with_tally(|tally| match fate {
            Fate::Answered(_) => tally.acknowledged += 1,
            Fate::Refused(why) => *tally.failures.entry(format!("refused ({why})")).or_default() += 1,
            Fate::Unknown(why) => *tally.failures.entry(format!("unknown ({why})")).or_default() += 1,
        });
    }
}

/// Tortures the nodes, waits until they answer again, and judges.
///
/// # Errors
/// A cluster that does not answer within [`Settings::settle`]: what it was asked and what came.
pub fn run(settings: Settings) -> Result<Report, String> {
    let torture = Torture {
        watch: time::Watch::start(),
        stop: Stop::default(),
        value: AtomicU64::new(1),
        begun: AtomicU64::new(0),
        tally: Mutex::default(),
        settings,
    };
    let mut dice = Dice::new(torture.settings.seed);
    let [registers, ledgers, probes] = torture.settings.clients;
    std::thread::scope(|scope| {
        let torture = &torture;
        for number in 0..registers {
            let dice = dice.fork();
            scope.spawn(move || register::run(torture, number, dice));
        }
        for number in 0..ledgers {
            scope.spawn(move || ledger::run(torture, number));
        }
        for number in 0..probes {
            scope.spawn(move || probe::run(torture, number));
        }
        torture.stop.after(torture.settings.time);
    });
    let deadline = torture.watch.now() + torture.settings.settle.as_micros() as u64;
    register::read_all(&torture, deadline)?;
    let lost = ledger::missing(&torture, deadline)?;
    let tally = torture.tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let verdict = linear::check(&tally.history);
    Ok(Report::new(torture.watch.begun_unix_ms(), tally, verdict, lost))
}
