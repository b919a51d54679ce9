//! The simulated device: every operation passes its gate, where it is counted and may go wrong.

use super::dice::Dice;
use super::fault::{Fault, FaultKind, Operation, device_error, full, power_off};
use super::inode::Inode;
use super::names::{Names, Node};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The device, its files and its future misfortunes.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) dice: Dice,
    pub(super) names: Names,
    pub(super) inodes: Vec<Inode>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) faults: Vec<Fault>,
    pub(super) operations: u64,
    /// The power goes off in the middle of this operation.
    pub(super) off_at: Option<u64>,
    pub(super) off: bool,
    pub(super) capacity_bytes: u64,
    used_bytes: u64,
    /// One in so many reads that refuse to wait is refused; 0 for none.
    pub(super) cold_one_in: u64,
    /// Time since the first life began.
    pub(super) elapsed: Duration,
    /// The next sync that takes long.
    pub(super) slow: Option<SlowSync>,
}

/// A sync that takes long, and what happens meanwhile.
pub(super) struct SlowSync {
    pub(super) path_contains: String,
    pub(super) takes: Duration,
    pub(super) meanwhile: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for SlowSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlowSync").field("takes", &self.takes).finish_non_exhaustive()
    }
}

/// Time of an operation that nothing slows.
const OPERATION_TAKES: Duration = Duration::from_micros(20);

/// How an operation is to go.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Verdict {
    Go,
    Fail(FaultKind),
    /// The power goes off in the middle.
    Off,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Disk {
        Disk {
            dice: Dice::new(seed),
            names: Names::default(),
            inodes: Vec::new(),
            locks: BTreeSet::new(),
            faults: Vec::new(),
            operations: 0,
            off_at: None,
            off: false,
            capacity_bytes: u64::MAX,
            used_bytes: 0,
            cold_one_in: 0,
            elapsed: Duration::ZERO,
            slow: None,
        }
    }

    /// What the next life finds: after power loss, or after a kill of the process only.
    pub(super) fn survivors(&mut self, power_lost: bool) -> Disk {
        let mut next = Disk::new(self.dice.next_u64());
        let mut dice = Dice::new(self.dice.next_u64());
        next.names = if power_lost { self.names.after_power_loss(&mut dice) } else { self.names.clone() };
        next.capacity_bytes = self.capacity_bytes;
        next.cold_one_in = self.cold_one_in;
        next.elapsed = self.elapsed;
        let mut numbers = BTreeMap::new();
        let inodes = &mut next.inodes;
        next.names.renumber(&mut |old| {
            *numbers.entry(old).or_insert_with(|| {
                let inode = &self.inodes[old];
                inodes.push(if power_lost { inode.after_power_loss(&mut dice) } else { inode.clone() });
                inodes.len() - 1
            })
        });
        next.inodes.iter_mut().for_each(|inode| inode.links = 0);
        let linked: Vec<usize> = next.names.files().map(|(_, inode)| inode).collect();
        linked.into_iter().for_each(|inode| next.link(inode));
        next
    }

    /// Every operation comes through here first.
    pub(super) fn gate(&mut self, operation: Operation, path: &Path) -> io::Result<Verdict> {
        if self.off {
            return Err(power_off());
        }
        self.operations += 1;
        self.elapsed += OPERATION_TAKES;
        if self.off_at.is_some_and(|at| self.operations >= at) {
            self.off = true;
            return Ok(Verdict::Off);
        }
        let struck =
            self.faults.iter_mut().find_map(|fault| fault.strikes(operation, path).then_some(fault.kind));
        self.faults.retain(|fault| fault.times > 0);
        Ok(struck.map_or(Verdict::Go, Verdict::Fail))
    }

    /// For operations that happen whole or not at all: whether this one happens, and what it answers then.
    pub(super) fn whole(&mut self, operation: Operation, path: &Path) -> io::Result<(bool, io::Result<()>)> {
        Ok(match self.gate(operation, path)? {
            Verdict::Go => (true, Ok(())),
            Verdict::Fail(kind) => (false, Err(error_of(kind))),
            Verdict::Off => (self.dice.coin(), Err(power_off())),
        })
    }

    /// For operations that only look.
    pub(super) fn look(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        self.whole(operation, path)?.1
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(inode),
            Some(Node::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// The folder that a new name is to stand in.
    pub(super) fn check_parent(&self, path: &Path) -> io::Result<()> {
        match path.parent().map(|parent| self.names.get(parent)) {
            Some(Some(Node::Dir)) => Ok(()),
            Some(Some(Node::File(_))) => Err(ErrorKind::NotADirectory.into()),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn add_file(&mut self, path: &Path) -> usize {
        self.inodes.push(Inode::default());
        let inode = self.inodes.len() - 1;
        self.names.add(path, Node::File(inode));
        self.link(inode);
        inode
    }

    pub(super) fn link(&mut self, inode: usize) {
        if self.inodes[inode].links == 0 {
            self.used_bytes += self.inodes[inode].len() as u64;
        }
        self.inodes[inode].links += 1;
    }

    pub(super) fn unlink(&mut self, inode: usize) {
        self.inodes[inode].links -= 1;
        if self.inodes[inode].links == 0 {
            self.used_bytes -= self.inodes[inode].len() as u64;
        }
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.capacity_bytes.saturating_sub(self.used_bytes)
    }

    /// Grows the file to at least `len` on the books; the device must have the space.
    pub(super) fn claim(&mut self, inode: usize, len: usize) -> io::Result<()> {
        let more = len.saturating_sub(self.inodes[inode].len()) as u64;
        if self.inodes[inode].links > 0 {
            if more > self.free_bytes() {
                return Err(full());
            }
            self.used_bytes += more;
        }
        Ok(())
    }

    /// Cuts the file to `len` on the books.
    pub(super) fn give_back(&mut self, inode: usize, len: usize) {
        if self.inodes[inode].links > 0 {
            self.used_bytes -= self.inodes[inode].len().saturating_sub(len) as u64;
        }
    }
}

pub(super) fn error_of(kind: FaultKind) -> io::Error {
    match kind {
        FaultKind::Full => full(),
        FaultKind::Error | FaultKind::Misdirected | FaultKind::Short => device_error(),
    }
}
