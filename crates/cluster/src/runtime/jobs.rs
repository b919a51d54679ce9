//! Work of the shards that waits for the disk: reading pieces of a transfer, taking them in. A few threads, so that no transfer keeps a shard's
//! latch or the log's thread waiting.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Jobs that wait at most. Each transfer has a few pieces under way: more only come where very many shards are rebuilt at one time.
const JOBS_WAITING_MAX: usize = 4096;

type Work = Box<dyn FnOnce() + Send>;

/// The threads and what they have before them. Dropped, it finishes the jobs in hand and forgets the others.
pub(crate) struct Jobs {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Work>,
    stopped: bool,
}

impl Jobs {
    /// Starts `threads` threads.
    pub(crate) fn start(threads: usize) -> std::io::Result<Jobs> {
        let jobs = Jobs { queue: Arc::default(), threads: Mutex::default() };
        for number in 0..threads {
            let queue = Arc::clone(&jobs.queue);
            let named = std::thread::Builder::new().name(format!("transfer-{number}"));
            let thread = named.spawn(move || queue.run())?;
            jobs.threads.lock().push(thread);
        }
        Ok(jobs)
    }

    /// Hands a job to the threads, which do `work` with it. Gives the job back if too many wait, or the threads have ended.
    pub(crate) fn run<J: Send + 'static>(
        &self,
        job: J,
        work: impl FnOnce(J) + Send + 'static,
    ) -> Result<(), J> {
        let mut state = self.queue.state.lock();
        if state.stopped || state.waiting.len() >= JOBS_WAITING_MAX {
            return Err(job);
        }
        state.waiting.push_back(Box::new(move || work(job)));
        drop(state);
        self.queue.changed.notify_one();
        Ok(())
    }

    /// Ends the threads and waits for them. A thread that ends them itself is not waited for.
    pub(crate) fn stop(&self) {
        {
            let mut state = self.queue.state.lock();
            state.stopped = true;
            state.waiting.clear();
        }
        self.queue.changed.notify_all();
        let own = std::thread::current().id();
        for thread in self.threads.lock().drain(..).filter(|thread| thread.thread().id() != own) {
            let _ = thread.join();
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Queue {
    fn run(&self) {
        while let Some(work) = self.next() {
            work();
        }
    }

    fn next(&self) -> Option<Work> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(work) = state.waiting.pop_front() {
                return Some(work);
            }
            self.changed.wait(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_run_side_by_side() {
        let jobs = Jobs::start(2).unwrap();
        let (first, from_first) = mpsc::channel();
        let (second, from_second) = mpsc::channel();
        let done = Arc::new(Mutex::new(Vec::new()));
        let (one, two) = (Arc::clone(&done), Arc::clone(&done));
        // Each waits for the other: on one thread neither would end.
        let first_job = move |()| {
            first.send(()).unwrap();
            from_second.recv().unwrap();
            one.lock().push(1);
        };
        let (ended, end) = mpsc::channel();
        let second_job = move |()| {
            from_first.recv().unwrap();
            second.send(()).unwrap();
            two.lock().push(2);
            ended.send(()).unwrap();
        };
        jobs.run((), first_job).unwrap();
        jobs.run((), second_job).unwrap();
        end.recv().unwrap();
        jobs.stop();
        done.lock().sort_unstable();
        assert_eq!(*done.lock(), [1, 2]);
        assert_eq!(jobs.run(7, |_| ()), Err(7), "it has ended");
    }

    #[test]
    fn what_waits_is_bounded() {
        let jobs = Jobs::start(1).unwrap();
        let (hold, held) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let blocker = move |()| {
            begun.send(()).unwrap();
            let _ = held.recv();
        };
        jobs.run((), blocker).unwrap();
        begins.recv().unwrap();
        let taken = (0..JOBS_WAITING_MAX + 1).take_while(|_| jobs.run((), |()| ()).is_ok()).count();
        assert_eq!(taken, JOBS_WAITING_MAX);
        drop(hold);
    }
}
