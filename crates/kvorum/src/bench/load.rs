//! A run: clients on threads, each in a closed loop or at the times at which its operations fall due.

use super::client::{Client, Problem};
use super::options::Options;
use super::tally::Tally;
use super::workload::{Operation, Workload};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Barrier, watch};
use tokio::time::{Instant, sleep_until};

/// Before a broken connection is made anew.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);

/// Whether a run is to end before its time.
pub(crate) type Ended = watch::Receiver<bool>;

/// All clients of a run.
pub(crate) struct Run {
    options: Options,
    /// Operations per second of all clients; none in a closed loop.
    rate: Option<u64>,
    /// Operations that may still begin.
    left: AtomicI64,
    ended: Ended,
    /// Clients wait here for each other until all have their connections: making them is no part of the load.
    connected: Barrier,
    /// When all had them.
    start: OnceLock<Instant>,
}

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) took: Duration,
}

impl Run {
    pub(crate) fn new(options: &Options, rate: Option<u64>, ended: &Ended) -> Arc<Run> {
        let left = options.requests.map_or(i64::MAX, |requests| i64::try_from(requests).unwrap_or(i64::MAX));
        Arc::new(Run {
            options: options.clone(),
            rate,
            left: AtomicI64::new(left),
            ended: ended.clone(),
            connected: Barrier::new(usize::try_from(options.clients).unwrap_or(usize::MAX)),
            start: OnceLock::new(),
        })
    }

    /// Runs all clients to the end of the run's time or operations, or until it is ended.
    pub(crate) fn execute(self: &Arc<Run>) -> Result<Outcome, String> {
        let threads = self.options.threads;
        let spawn = |thread| {
            let run = Arc::clone(self);
            std::thread::Builder::new().name(format!("load-{thread}")).spawn(move || run.thread(thread))
        };
        let handles: Vec<_> =
            (0..threads).map(spawn).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let mut tally = Tally::new();
        for handle in handles {
            let counted =
                handle.join().map_err(|_| String::from("a thread of the load generator panicked"))??;
            tally.add(&counted)?;
        }
        Ok(Outcome { tally, took: self.start.get().map_or(Duration::ZERO, Instant::elapsed) })
    }

    /// The clients of one thread.
    fn thread(self: &Arc<Run>, thread: u64) -> Result<Tally, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let Options { clients, threads, .. } = self.options;
        runtime.block_on(async {
            let tasks: Vec<_> = (thread..clients)
                .step_by(usize::try_from(threads).unwrap_or(1))
                .map(|client| tokio::spawn(Arc::clone(self).client(client)))
                .collect();
            let mut tally = Tally::new();
            for task in tasks {
                let counted = task.await.map_err(|error| error.to_string())?;
                tally.add(&counted?)?;
            }
            Ok(tally)
        })
    }

    async fn client(self: Arc<Run>, number: u64) -> Result<Tally, String> {
        let options = &self.options;
        let mut workload = Workload::new(options, number);
        let mut tally = Tally::new();
        let mut ended = self.ended.clone();
        let address = self.address(number);
        let connected = Client::connect(options, address).await;
        // Also who has none: the others wait for all.
        self.connected.wait().await;
        let mut connection = Some(connected.map_err(|problem| format!("cannot load {address}: {problem}"))?);
        let start = *self.start.get_or_init(Instant::now);
        let end = start + options.time;
        let mut schedule = Schedule::new(self.rate, options.clients, number, start);
        let (mut due, mut operations, mut answers) = (Vec::new(), Vec::<Operation>::new(), Vec::new());
        while self.begin(&mut schedule, end, &mut ended, &mut due).await {
            let Some(client) = &mut connection else { break };
            operations.clear();
            operations.extend(due.iter().map(|_| workload.next()));
            answers.clear();
            let performed = client.perform(&operations, &mut answers).await;
            let now = Instant::now();
            for ((operation, due), answer) in operations.iter().zip(&due).zip(&answers) {
                tally.answer(operation.is_read, now.saturating_duration_since(*due), answer);
            }
            match performed {
                Ok(()) => {}
                Err(Problem::Refused(why)) => return Err(why),
                Err(Problem::Broken(_)) => {
                    tally.broke();
                    connection = self.reconnect(address, end).await?;
                }
            }
        }
        Ok(tally)
    }

    /// Waits until something is due; puts when each operation of the next round fell due into `due`. False at the end.
    async fn begin(
        &self,
        schedule: &mut Schedule,
        end: Instant,
        ended: &mut Ended,
        due: &mut Vec<Instant>,
    ) -> bool {
        due.clear();
        if *ended.borrow() {
            return false;
        }
        if schedule.next().is_some_and(|next| next >= end) {
            return false;
        }
        if let Some(next) = schedule.next() {
            tokio::select! {
                biased;
                () = sleep_until(next) => {}
                _ = ended.wait_for(|ended| *ended) => return false,
            }
        }
        let now = Instant::now();
        while (due.len() as u64) < self.options.pipeline && now < end && self.left.fetch_sub(1, Relaxed) > 0 {
            match schedule.take(now) {
                Some(at) => due.push(at),
                None => {
                    self.left.fetch_add(1, Relaxed);
                    break;
                }
            }
        }
        !due.is_empty()
    }

    /// The node of that client.
    fn address(&self, number: u64) -> &str {
        let place = usize::try_from(number).unwrap_or_default() % self.options.addresses.len().max(1);
        self.options.addresses.get(place).map_or("", String::as_str)
    }

    /// A new connection, if there is one to be had before the end.
    async fn reconnect(&self, address: &str, end: Instant) -> Result<Option<Client>, String> {
        loop {
            let next = Instant::now() + RECONNECT_AFTER;
            if next >= end || *self.ended.borrow() {
                return Ok(None);
            }
            sleep_until(next).await;
            match Client::connect(&self.options, address).await {
                Ok(client) => return Ok(Some(client)),
                Err(Problem::Refused(why)) => return Err(why),
                Err(Problem::Broken(_)) => {}
            }
        }
    }
}

/// When a client's operations fall due.
struct Schedule {
    /// Of the next one, and the time to the one after it; none in a closed loop.
    next: Option<(Instant, Duration)>,
}

impl Schedule {
    fn new(rate: Option<u64>, clients: u64, number: u64, start: Instant) -> Schedule {
        let next = rate.map(|rate| {
            let apart = Duration::from_secs_f64(clients as f64 / rate as f64);
            // Clients take turns instead of all being due at once.
            (start + apart.mul_f64(number as f64 / clients as f64), apart)
        });
        Schedule { next }
    }

    fn next(&self) -> Option<Instant> {
        self.next.map(|(next, _)| next)
    }

    /// When the operation that can be sent now fell due; none if it does not yet.
    fn take(&mut self, now: Instant) -> Option<Instant> {
        let Some((next, apart)) = &mut self.next else { return Some(now) };
        (*next <= now).then(|| {
            let due = *next;
            *next += *apart;
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_fall_due_evenly_whatever_the_answers_take() {
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        // Four clients, 1000 operations a second: one of this client each 4 ms, the second client 1 ms behind the first.
        let mut schedule = Schedule::new(Some(1000), 4, 1, start);
        assert_eq!(schedule.take(at(999)), None);
        assert_eq!(schedule.take(at(1000)), Some(at(1000)));
        assert_eq!(schedule.take(at(1500)), None);
        // A stall of 20 ms: what fell due meanwhile counts from then.
        let late: Vec<_> = std::iter::from_fn(|| schedule.take(at(21_000))).collect();
        assert_eq!(late, [at(5000), at(9000), at(13_000), at(17_000), at(21_000)]);
        let mut closed = Schedule::new(None, 4, 1, start);
        assert_eq!(closed.take(at(7)), Some(at(7)));
    }
}
