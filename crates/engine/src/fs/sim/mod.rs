//! A simulated file system that loses power: seeded, deterministic, in memory.
//!
//! It keeps what the running system sees apart from what is durable. When the power goes, of every file survives what was synced and any part of
//! the rest, torn at sectors and in any order; of every folder the synced names and any part of the changes since. A *kill* of the process keeps
//! the page cache: all that was written, synced or not, is still there and still not durable.
//!
//! ```
//! use kvorum_engine::fs::{Fs, sim::SimFs};
//! use std::path::Path;
//!
//! let fs = SimFs::new(42);
//! let file = fs.create(Path::new("/a"))?;
//! file.write_at(b"synced", 0)?;
//! file.sync()?;
//! fs.sync_dir(Path::new("/"))?;
//! file.write_at(b"perhaps", 6)?;
//! let after = fs.after_power_loss();
//! assert!(after.bytes(Path::new("/a")).unwrap().starts_with(b"synced"));
//! assert!(file.write_at(b"gone", 0).is_err(), "the old machine is off");
//! # Ok::<(), std::io::Error>(())
//! ```

mod content;
mod dice;
mod disk;
mod fault;
mod inode;
mod names;
#[cfg(test)]
mod tests;

pub use dice::Dice;
pub use fault::{Fault, FaultKind, Operation};

use super::{DirEntry, File, Fs};
use crate::options::Clock;
use disk::{Disk, SlowSync, Verdict, error_of};
use fault::{full, power_off};
use names::Node;
use parking_lot::Mutex;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The simulated file system; clones are the same one.
#[derive(Debug, Clone)]
pub struct SimFs {
    disk: Arc<Mutex<Disk>>,
}

impl SimFs {
    /// An empty device. All its misfortunes follow from the seed.
    pub fn new(seed: u64) -> SimFs {
        SimFs::of(Disk::new(seed))
    }

    fn of(disk: Disk) -> SimFs {
        SimFs { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Switches this machine off and gives what the next one finds on the device.
    pub fn after_power_loss(&self) -> SimFs {
        self.next_life(true)
    }

    /// Kills the process and gives what the next one finds: all that was written, still not durable where it was not.
    pub fn after_kill(&self) -> SimFs {
        self.next_life(false)
    }

    /// A copy of the device as it stands; this machine goes on.
    #[must_use]
    pub fn copy(&self) -> SimFs {
        SimFs::of(self.disk.lock().survivors(false))
    }

    fn next_life(&self, power_lost: bool) -> SimFs {
        let mut disk = self.disk.lock();
        disk.off = true;
        SimFs::of(disk.survivors(power_lost))
    }

    /// The machine goes off in the middle of the operation with this number, counted from 1.
    pub fn off_at(&self, operation: u64) {
        self.disk.lock().off_at = Some(operation);
    }

    /// The machine goes off now.
    pub fn switch_off(&self) {
        self.disk.lock().off = true;
    }

    /// The next sync of a file whose path contains this takes so long, by [`SimFs::clock`]. `meanwhile` runs in the middle of it, before any of
    /// it is durable.
    pub fn slow_sync(&self, path_contains: &str, takes: Duration, meanwhile: impl FnOnce() + Send + 'static) {
        let path_contains = path_contains.to_owned();
        self.disk.lock().slow = Some(SlowSync { path_contains, takes, meanwhile: Box::new(meanwhile) });
    }

    /// Withdraws the slow sync that has not come; whether there was one.
    pub fn withdraw_slow_sync(&self) -> bool {
        self.disk.lock().slow.take().is_some()
    }

    /// The machine's clock: it moves with every operation on the device, and goes on in the next life.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(DeviceClock { disk: Arc::clone(&self.disk) })
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.disk.lock().elapsed += time;
    }

    /// Whether the machine went off.
    pub fn is_off(&self) -> bool {
        self.disk.lock().off
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.disk.lock().operations
    }

    /// Adds a rule for things to go wrong.
    pub fn inject(&self, fault: Fault) {
        self.disk.lock().faults.push(fault);
    }

    /// Withdraws all rules; whether one had more to spoil.
    pub fn heal(&self) -> bool {
        !std::mem::take(&mut self.disk.lock().faults).is_empty()
    }

    /// Sets how many bytes the device holds; files already there stay.
    pub fn set_capacity(&self, bytes: u64) {
        self.disk.lock().capacity_bytes = bytes;
    }

    /// One in so many reads that refuse to wait for the device is refused; 0 (as at the beginning) for none.
    pub fn set_cold_reads(&self, one_in: u64) {
        self.disk.lock().cold_one_in = one_in;
    }

    /// All files in order, with their lengths.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let disk = self.disk.lock();
        disk.names.files().map(|(path, inode)| (path.to_owned(), disk.inodes[inode].len() as u64)).collect()
    }

    /// A file's bytes as the running system sees them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        let inode = &disk.inodes[disk.file(path).ok()?];
        let mut bytes = vec![0; inode.len()];
        inode.read(&mut bytes, 0);
        Some(bytes)
    }

    /// Flips the bits of `mask` in one byte on the device, unnoticed.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn damage(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let inode = disk.file(path)?;
        disk.inodes[inode].damage(usize::try_from(offset).unwrap_or(usize::MAX), mask);
        Ok(())
    }

    fn handle(&self, inode: usize, path: &Path) -> Arc<dyn File> {
        Arc::new(SimFile { disk: self.disk.clone(), inode, path: path.to_owned() })
    }
}

impl Fs for SimFs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk.lock();
        let (happens, answer) = disk.whole(Operation::Create, path)?;
        if disk.names.get(path).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        disk.check_parent(path)?;
        if happens {
            let inode = disk.add_file(path);
            drop(disk);
            return answer.map(|()| self.handle(inode, path));
        }
        Err(answer.err().unwrap_or_else(power_off))
    }

    fn open(&self, path: &Path, _writable: bool) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk.lock();
        disk.look(Operation::Open, path)?;
        let inode = disk.file(path)?;
        drop(disk);
        Ok(self.handle(inode, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let (happens, answer) = disk.whole(Operation::Name, to)?;
        if disk.names.get(from).is_none() {
            return Err(ErrorKind::NotFound.into());
        }
        disk.check_parent(to)?;
        let replaced = match disk.names.get(to) {
            Some(Node::Dir) => return Err(ErrorKind::AlreadyExists.into()),
            Some(Node::File(inode)) => Some(inode),
            None => None,
        };
        if happens && from != to {
            disk.names.rename(from, to);
            replaced.into_iter().for_each(|inode| disk.unlink(inode));
        }
        answer
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let (happens, answer) = disk.whole(Operation::Name, to)?;
        let inode = disk.file(from)?;
        if disk.names.get(to).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        disk.check_parent(to)?;
        if happens {
            disk.names.add(to, Node::File(inode));
            disk.link(inode);
        }
        answer
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let (happens, answer) = disk.whole(Operation::Name, path)?;
        let inode = disk.file(path)?;
        if happens {
            disk.names.remove(path);
            disk.unlink(inode);
        }
        answer
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let (happens, answer) = disk.whole(Operation::Name, path)?;
        match disk.names.get(path) {
            None => return Err(ErrorKind::NotFound.into()),
            Some(Node::File(_)) => return Err(ErrorKind::NotADirectory.into()),
            Some(Node::Dir) if disk.names.list(path).next().is_some() => {
                return Err(ErrorKind::DirectoryNotEmpty.into());
            }
            Some(Node::Dir) => {}
        }
        if happens {
            disk.names.remove(path);
        }
        answer
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let (happens, answer) = disk.whole(Operation::Name, path)?;
        let mut missing: Vec<&Path> =
            path.ancestors().take_while(|folder| disk.names.get(folder).is_none()).collect();
        missing.reverse();
        if happens {
            missing.into_iter().for_each(|folder| disk.names.add(folder, Node::Dir));
        }
        answer
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut disk = self.disk.lock();
        disk.look(Operation::Look, dir)?;
        if disk.names.get(dir) != Some(Node::Dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let entry = |(path, node): (&Path, Node)| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(DirEntry { name, is_dir: node == Node::Dir })
        };
        Ok(disk.names.list(dir).filter_map(entry).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut disk = self.disk.lock();
        disk.look(Operation::Look, path)?;
        Ok(disk.names.get(path).is_some())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let (happens, answer) = disk.whole(Operation::SyncDir, dir)?;
        if disk.names.get(dir) != Some(Node::Dir) {
            return Err(ErrorKind::NotFound.into());
        }
        if happens {
            disk.names.sync_dir(dir);
        }
        answer
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut disk = self.disk.lock();
        disk.look(Operation::Look, path)?;
        disk.check_parent(path)?;
        if disk.names.get(path).is_none() {
            disk.add_file(path);
        }
        if !disk.locks.insert(path.to_owned()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Held { disk: self.disk.clone(), path: path.to_owned() }))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let mut disk = self.disk.lock();
        disk.look(Operation::Look, path)?;
        Ok(disk.free_bytes())
    }

    fn random(&self) -> u64 {
        self.disk.lock().dice.next_u64()
    }
}

/// Time as the device spends it.
struct DeviceClock {
    disk: Arc<Mutex<Disk>>,
}

impl Clock for DeviceClock {
    fn monotonic(&self) -> Duration {
        self.disk.lock().elapsed
    }

    fn unix_ms(&self) -> u64 {
        u64::try_from(self.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A held lock.
struct Held {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.disk.lock().locks.remove(&self.path);
    }
}

/// An open file of the simulation.
struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
    path: PathBuf,
}

impl SimFile {
    fn read(&self, disk: &mut Disk, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let verdict = disk.gate(Operation::Read, &self.path)?;
        let inode = &disk.inodes[self.inode];
        match verdict {
            Verdict::Go => Ok(inode.read(buffer, offset)),
            Verdict::Off => Err(power_off()),
            Verdict::Fail(FaultKind::Misdirected) => {
                let count = inode.read(buffer, offset);
                let elsewhere = disk.dice.below(inode.len() as u64);
                inode.read(&mut buffer[..count], elsewhere);
                Ok(count)
            }
            Verdict::Fail(kind) => Err(error_of(kind)),
        }
    }

    fn change_len(&self, len: u64, shrink: bool) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| full())?;
        let mut disk = self.disk.lock();
        let (happens, answer) = disk.whole(Operation::Allocate, &self.path)?;
        if happens {
            let now = disk.inodes[self.inode].len();
            if len > now {
                disk.claim(self.inode, len)?;
                disk.inodes[self.inode].set_len(len);
            } else if shrink && len < now {
                disk.give_back(self.inode, len);
                disk.inodes[self.inode].set_len(len);
            }
        }
        answer
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read(&mut self.disk.lock(), buffer, offset)
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        let mut disk = self.disk.lock();
        let one_in = disk.cold_one_in;
        if one_in > 0 && disk.dice.one_in(one_in) {
            return Ok(None);
        }
        self.read(&mut disk, buffer, offset).map(Some)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(|_| full())?;
        let mut disk = self.disk.lock();
        let verdict = disk.gate(Operation::Write, &self.path)?;
        // What goes wrong goes wrong in the middle.
        let (count, answer) = match verdict {
            Verdict::Fail(FaultKind::Short) => {
                let count = disk.dice.index(bytes.len() + 1);
                disk.claim(self.inode, offset + count)?;
                disk.inodes[self.inode].write(&bytes[..count], offset);
                drop(disk);
                return self.write_at(&bytes[count..], (offset + count) as u64);
            }
            Verdict::Go => (bytes.len(), Ok(())),
            Verdict::Off => (disk.dice.index(bytes.len() + 1), Err(power_off())),
            Verdict::Fail(kind) => (disk.dice.index(bytes.len() + 1), Err(error_of(kind))),
        };
        disk.claim(self.inode, offset + count)?;
        disk.inodes[self.inode].write(&bytes[..count], offset);
        answer
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let mut verdict = disk.gate(Operation::Sync, &self.path)?;
        let begun_with = disk.inodes[self.inode].unsynced();
        if verdict == Verdict::Go
            && let Some(slow) =
                disk.slow.take_if(|slow| self.path.to_string_lossy().contains(&slow.path_contains))
        {
            disk.elapsed += slow.takes;
            drop(disk);
            (slow.meanwhile)();
            disk = self.disk.lock();
            verdict = if disk.off { Verdict::Off } else { verdict };
        }
        let disk = &mut *disk;
        let inode = &mut disk.inodes[self.inode];
        match verdict {
            Verdict::Go => {
                inode.sync_first(begun_with);
                Ok(())
            }
            Verdict::Off => {
                if disk.dice.coin() {
                    inode.sync();
                }
                Err(power_off())
            }
            Verdict::Fail(kind) => {
                inode.fail_sync(&mut disk.dice);
                Err(error_of(kind))
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        let mut disk = self.disk.lock();
        disk.look(Operation::Look, &self.path)?;
        Ok(disk.inodes[self.inode].len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change_len(len, true)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change_len(len, false)
    }
}
