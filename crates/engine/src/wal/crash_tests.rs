//! The log through many lives on a device that loses power, by seed: `SEED=n` replays one, `SEEDS=n` runs more.

use super::*;
use crate::error::{Error, Result};
use crate::fs::sim::{Dice, Fault, Operation, SimFs};
use crate::options::WalRetention;
use crate::types::{Durability, Sequence};
use std::path::Path;
use std::sync::Arc;

const LIVES: usize = 6;

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(default),
    }
}

struct Given {
    first: Sequence,
    last: Sequence,
    record: Vec<u8>,
}

/// What the log was given and what it promised.
#[derive(Default)]
struct World {
    given: Vec<Given>,
    /// Promised to survive a kill, power loss.
    written: Sequence,
    synced: Sequence,
    /// Everything below is in tables, durably.
    needed_from: Sequence,
    serial: u64,
}

impl World {
    /// Opens the log and checks what it replays: all that was promised, in order, and nothing else.
    fn open(&mut self, fs: &SimFs, retention: WalRetention, promised: Sequence) -> Result<Arc<Log>> {
        let settings = LogSettings {
            segment_bytes: 16 * 1024,
            buffer_bytes_max: 4096,
            retention,
            needed_from: self.needed_from.max(1),
            reaches: 0,
            begins_at: 1,
        };
        let mut replayed: Vec<(Sequence, Vec<u8>)> = Vec::new();
        let (log, recovered) =
            Log::open(Arc::new(fs.clone()), Path::new("/wal"), &settings, &mut |first, bytes| {
                replayed.push((first, bytes.to_vec()));
                Ok(())
            })?;
        let last = recovered.next_sequence - 1;
        assert!(last >= promised, "promised up to {promised}, found up to {last}");
        let from = replayed.first().map_or(last + 1, |&(first, _)| first);
        assert!(from <= self.needed_from.max(1) || replayed.is_empty(), "begins at {from}");
        if retention == WalRetention::All {
            assert!(self.needed_from > 1 || from == 1);
        }
        self.given.retain(|given| given.last <= last);
        let expected = self.given.iter().filter(|given| given.first >= from);
        let found = replayed.iter().map(|(first, bytes)| (*first, bytes.as_slice()));
        assert!(expected.map(|given| (given.first, given.record.as_slice())).eq(found), "other records");
        // What was recovered is made durable before the log is used.
        (self.written, self.synced) = (last, last);
        Ok(log)
    }

    fn step(&mut self, log: &Arc<Log>, dice: &mut Dice) {
        match dice.below(20) {
            0 => log.maintain(),
            1 => log.rotate(),
            2 => {
                let watermark = dice.below(self.synced + 1);
                self.needed_from = self.needed_from.max(watermark);
                // A removal that fails is tried again at the next call.
                let _ = log.release_below(watermark);
            }
            3 => {
                log.lead();
            }
            _ => self.push(log, dice),
        }
        self.written = self.written.max(log.written());
        self.synced = self.synced.max(log.synced());
        assert!(log.synced() <= log.written());
    }

    fn push(&mut self, log: &Arc<Log>, dice: &mut Dice) {
        self.serial += 1;
        let mut record = self.serial.to_le_bytes().to_vec();
        let length = if dice.one_in(10) { 3000 } else { 200 };
        record.resize(8 + dice.index(length), self.serial as u8);
        let durability = [Durability::Buffered, Durability::Written, Durability::Synced][dice.index(3)];
        let operations = 1 + dice.below(5);
        match log.push(&record, operations, durability) {
            Ok(first) => {
                let last = first + operations - 1;
                assert_eq!(
                    first,
                    self.given.last().map_or(self.synced.max(self.written), |given| given.last) + 1
                );
                self.given.push(Given { first, last, record });
                if dice.coin() && log.commit(last, durability).wait().is_ok() {
                    match durability {
                        Durability::Buffered => {}
                        Durability::Written => assert!(log.written() >= last),
                        Durability::Synced => assert!(log.synced() >= last),
                    }
                    assert!(log.acknowledged() >= last);
                }
            }
            Err(Error::Busy { .. }) => {
                log.lead();
                log.maintain();
            }
            Err(Error::Poisoned { .. } | Error::DiskFull { .. } | Error::Io { .. }) => log.maintain(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn run(seed: u64) {
    let mut dice = Dice::new(seed);
    let mut fs = SimFs::new(dice.next_u64());
    let mut world = World::default();
    let retention = if dice.one_in(4) { WalRetention::All } else { WalRetention::Freed };
    let mut promised = 0;
    for _ in 0..LIVES {
        if dice.coin() {
            fs.off_at(1 + dice.below(90));
        }
        if dice.one_in(3) {
            let operation =
                [Operation::Write, Operation::Sync, Operation::Create, Operation::SyncDir][dice.index(4)];
            fs.inject(Fault { skip: dice.below(20), ..Fault::once(operation, "wal") });
        }
        if dice.one_in(4) {
            fs.set_capacity(dice.below(100_000));
        }
        match world.open(&fs, retention, promised) {
            Ok(log) => {
                for _ in 0..dice.below(80) {
                    world.step(&log, &mut dice);
                }
                if dice.one_in(3) {
                    let _ = log.close();
                    world.synced = world.synced.max(log.synced());
                }
            }
            Err(Error::Io { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        fs.set_capacity(u64::MAX);
        let power_lost = dice.coin();
        fs = if power_lost { fs.after_power_loss() } else { fs.after_kill() };
        if power_lost {
            world.written = world.synced;
        }
        promised = world.written;
    }
    fs.heal();
    let log = world.open(&fs, retention, promised).expect("the log opens");
    let last = log.push(b"the last", 1, Durability::Synced).expect("the log takes records");
    log.commit(last, Durability::Synced).wait().expect("and keeps them");
}

/// The log's own bugs, which the store's crash test finds more rarely: its segments are larger.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_caught() {
    use crate::planted::{Planted, plant};
    let bugs = [
        Planted::AcknowledgedBeforeSync,
        Planted::SegmentFreedTooEarly,
        Planted::SegmentLeftUnsynced,
        Planted::DurabilityOverstated,
        Planted::ReplayedNotMadeDurable,
        Planted::SegmentFolderNotSynced,
    ];
    let caught = bugs.map(|bug| {
        plant(Some(bug));
        (bug, (0..2000).find(|&seed| std::panic::catch_unwind(|| run(seed)).is_err()))
    });
    plant(None);
    println!("{caught:?}");
    assert!(caught.iter().all(|(_, seed)| seed.is_some()), "not caught: {caught:?}");
}

#[test]
fn every_promise_holds_through_crashes() {
    for seed in seeds(1000) {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "failed at SEED={seed}");
    }
}
