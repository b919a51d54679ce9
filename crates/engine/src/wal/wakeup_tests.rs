//! Group commit under any interleaving: nobody who waits is forgotten.
//!
//! Everything that threads share is behind the core's one lock, so the order of its calls is all there is to explore. Here seeded dice choose
//! it: who pushes, looks, leads, gives way, is dropped, and when a leader's write ends.

use super::core::{Core, Limits, Look, Work};
use super::waiters::Ticket;
use super::*;
use crate::error::Error;
use crate::fs::sim::{Dice, Fault, Operation, SimFs};
use crate::options::WalRetention;
use crate::types::{Durability, Sequence};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

/// Set when somebody is to be polled.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// One who writes, waits, and writes again.
struct Actor {
    woken: Arc<Flag>,
    waits_for: Option<(Sequence, Durability)>,
    ticket: Option<Ticket>,
    /// Gives the others a turn before it leads, as a task does.
    gives_way: bool,
    gave_way: bool,
    left: u32,
}

struct World {
    core: Core,
    actors: Vec<Actor>,
    work: Option<Work>,
    fails_at: u64,
    steps: u64,
}

impl World {
    fn new(dice: &mut Dice) -> World {
        let limits = Limits { segment_bytes: 1 << 30, buffer_bytes_max: 1 << 20 };
        let mut core = Core::new(limits, 1);
        assert!(core.begin_segment(true));
        core.finish_segment(Ok(()));
        let actor = |dice: &mut Dice| Actor {
            woken: Arc::new(Flag(AtomicBool::new(true))),
            waits_for: None,
            ticket: None,
            gives_way: dice.coin(),
            gave_way: false,
            left: 1 + dice.below(6) as u32,
        };
        let actors = (0..2 + dice.index(4)).map(|_| actor(dice)).collect();
        World {
            core,
            actors,
            work: None,
            fails_at: if dice.one_in(4) { dice.below(60) } else { u64::MAX },
            steps: 0,
        }
    }

    /// Whoever is awake acts, or the leader's write ends. False when nothing can happen any more.
    fn step(&mut self, dice: &mut Dice) -> bool {
        self.steps += 1;
        let awake: Vec<usize> = (0..self.actors.len())
            .filter(|&index| self.actors[index].left > 0 && self.actors[index].woken.0.load(Ordering::SeqCst))
            .collect();
        if self.work.is_some() && (awake.is_empty() || dice.one_in(3)) {
            self.finish();
            return true;
        }
        if awake.is_empty() {
            return false;
        }
        self.act(awake[dice.index(awake.len())], dice);
        true
    }

    fn finish(&mut self) {
        let Some(work) = self.work.take() else { return };
        let failed = self.steps >= self.fails_at;
        let result = if failed { Err(Error::Invalid("a device error".to_owned())) } else { Ok(()) };
        let mut wakers = Vec::new();
        self.core.finish(work, result, &mut wakers);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn act(&mut self, index: usize, dice: &mut Dice) {
        let actor = &mut self.actors[index];
        let Some((sequence, durability)) = actor.waits_for else {
            let durability = [Durability::Written, Durability::Synced][dice.index(2)];
            match self.core.push(b"record", 1, Durability::Buffered) {
                Ok(sequence) => actor.waits_for = Some((sequence, durability)),
                Err(_) => actor.left = 0,
            }
            return;
        };
        if dice.one_in(12) {
            // It loses interest, perhaps just after it was woken to lead.
            actor.waits_for = None;
            actor.left -= 1;
            if let Some(ticket) = actor.ticket.take() {
                let mut wakers = Vec::new();
                self.core.forget(ticket, &mut wakers);
                wakers.into_iter().for_each(Waker::wake);
            }
            return;
        }
        actor.woken.0.store(false, Ordering::SeqCst);
        let waker = || Waker::from(actor.woken.clone());
        match self.core.look(sequence, durability, &mut actor.ticket, waker) {
            Look::Done(result) => {
                let marks = self.core.watermarks();
                let safe = if durability == Durability::Synced { marks.synced } else { marks.written };
                assert!(result.is_err() || (sequence <= safe && sequence <= marks.acknowledged));
                (actor.waits_for, actor.gave_way) = (None, false);
                actor.left -= 1;
                actor.woken.0.store(true, Ordering::SeqCst);
            }
            Look::Wait => actor.gave_way = false,
            Look::Lead if actor.gives_way && !actor.gave_way => {
                actor.gave_way = true;
                actor.woken.0.store(true, Ordering::SeqCst);
            }
            Look::Lead => {
                assert!(self.work.is_none(), "two leaders");
                actor.gave_way = false;
                self.work = self.core.begin();
                assert!(self.work.is_some(), "told to lead, with nothing to do");
                actor.woken.0.store(true, Ordering::SeqCst);
            }
        }
    }
}

/// Who waits for ever with this seed.
fn forgotten(seed: u64) -> usize {
    let mut dice = Dice::new(seed);
    let mut world = World::new(&mut dice);
    while world.step(&mut dice) {}
    world.actors.iter().filter(|actor| actor.left > 0).count()
}

#[test]
fn nobody_who_waits_is_forgotten() {
    for seed in 0..3000 {
        assert_eq!(forgotten(seed), 0, "wait for ever with seed {seed}");
    }
}

#[cfg(feature = "planted-bugs")]
#[test]
fn a_leader_that_nominates_nobody_is_caught() {
    crate::planted::plant(Some(crate::planted::Planted::NobodyNominated));
    assert!((0..300).any(|seed| forgotten(seed) > 0));
}

#[test]
fn threads_share_groups_and_all_come_back() {
    for seed in 0..20 {
        let fs = SimFs::new(seed);
        let settings = LogSettings {
            segment_bytes: 32 * 1024,
            buffer_bytes_max: 8 * 1024,
            retention: WalRetention::Freed,
            needed_from: 1,
            reaches: 0,
            begins_at: 1,
        };
        let open = |fs: &SimFs, replay: &mut dyn FnMut(Sequence, &[u8])| {
            let replay = &mut |sequence, record: &[u8]| {
                replay(sequence, record);
                Ok(())
            };
            Log::open(Arc::new(fs.clone()), Path::new("/wal"), &settings, replay).expect("the log opens").0
        };
        let log = open(&fs, &mut |_, _| {});
        if seed % 2 == 1 {
            fs.inject(Fault { skip: 100, ..Fault::once(Operation::Sync, "wal") });
        }
        let safe: Sequence = std::thread::scope(|scope| {
            let writer = |thread: u64| {
                let log = log.clone();
                move || write_until_refused(&log, &mut Dice::new(seed * 100 + thread))
            };
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(writer(thread))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).max().unwrap_or(0)
        });
        assert!(safe <= log.synced());
        drop(log);
        let mut last = 0;
        open(&fs.after_power_loss(), &mut |sequence, _| last = sequence);
        assert!(last >= safe, "seed {seed}: {safe} was acknowledged, {last} is there");
    }
}

/// Writes and waits; the last sequence that was acknowledged as synced.
fn write_until_refused(log: &Arc<Log>, dice: &mut Dice) -> Sequence {
    let mut safe = 0;
    for _ in 0..300 {
        let durability = [Durability::Buffered, Durability::Written, Durability::Synced][dice.index(3)];
        match log.push(&[1; 40], 1, durability) {
            Ok(sequence) => {
                if log.commit(sequence, durability).wait().is_err() {
                    break;
                }
                if durability == Durability::Synced {
                    safe = sequence;
                }
            }
            Err(Error::Busy { .. }) => log.maintain(),
            Err(_) => break,
        }
    }
    safe
}
