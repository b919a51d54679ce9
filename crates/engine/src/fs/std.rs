//! The operating system's file system, by way of safe system-call wrappers.

use super::{DirEntry, File, Fs};
use rustix::fs::{FallocateFlags, FlockOperation, StatVfsMountFlags};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::OpenOptions;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Zeros are written in pieces of this size where the file system can't reserve space.
const ZERO_FILL_BYTES: usize = 256 * 1024;

/// The real file system. Durability is what `fdatasync` and `fsync` of the system promise.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdFs;

impl Fs for StdFs {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(StdFile::new(file)))
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(writable).open(path)?;
        Ok(Arc::new(StdFile::new(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                names.push(DirEntry { name, is_dir: entry.file_type()?.is_dir() });
            }
        }
        names.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        std::fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        // The lock belongs to the open file, so that a second opening within this process is refused too.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(0);
        }
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn random(&self) -> u64 {
        // The standard library seeds its hash maps from the system's random source; every new state is another hash function.
        use std::hash::{BuildHasher, Hasher, RandomState};
        RandomState::new().build_hasher().finish()
    }
}

/// A file of the operating system.
#[derive(Debug)]
struct StdFile {
    file: std::fs::File,
    /// Whether the file system can read without waiting; found out at the first refusal.
    reads_without_waiting: AtomicBool,
}

impl StdFile {
    fn new(file: std::fs::File) -> StdFile {
        StdFile { file, reads_without_waiting: AtomicBool::new(true) }
    }

    /// Fills the file with zeros from its end up to `len`: what reserves space where `fallocate` does not exist.
    fn zero_fill(&self, len: u64) -> io::Result<()> {
        let zeros = vec![0; ZERO_FILL_BYTES];
        let mut at = self.len()?;
        while at < len {
            let piece = (len - at).min(ZERO_FILL_BYTES as u64);
            self.file.write_all_at(&zeros[..piece as usize], at)?;
            at += piece;
        }
        Ok(())
    }
}

impl File for StdFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        if !self.reads_without_waiting.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let wanted = buffer.len();
        let read =
            rustix::io::preadv2(&self.file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT);
        match read {
            Ok(read) if read == wanted => Ok(Some(read)),
            // Short: either the file ends here, or the rest is not in the page cache.
            Ok(read) if offset.saturating_add(read as u64) >= self.len()? => Ok(Some(read)),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => {
                self.reads_without_waiting.store(false, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.zero_fill(len),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn reads_are_short_only_at_the_end() {
        let dir = folder();
        let file = StdFs.create(&dir.path().join("a")).unwrap();
        file.write_at(b"0123456789", 0).unwrap();
        let mut buffer = [0; 6];
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 6);
        assert_eq!(&buffer, b"012345");
        assert_eq!(file.read_at(&mut buffer, 6).unwrap(), 4);
        assert_eq!(&buffer[..4], b"6789");
        assert_eq!(file.read_at(&mut buffer, 10).unwrap(), 0);
        assert_eq!(file.read_at(&mut buffer, 1000).unwrap(), 0);
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), 10);
    }

    #[test]
    fn a_read_of_fresh_bytes_needs_no_device_or_says_so() {
        let dir = folder();
        let file = StdFs.create(&dir.path().join("a")).unwrap();
        file.write_at(b"0123456789", 0).unwrap();
        let mut buffer = [0; 6];
        // Whether the file system reads without waiting is its own affair; a wrong answer is not.
        if let Some(read) = file.read_cached_at(&mut buffer, 6).unwrap() {
            assert_eq!(&buffer[..read], b"6789");
        }
        if let Some(read) = file.read_cached_at(&mut buffer, 0).unwrap() {
            assert_eq!(&buffer[..read], b"012345");
        }
    }

    #[test]
    fn create_refuses_an_existing_name_and_open_a_missing_one() {
        let dir = folder();
        let path = dir.path().join("a");
        StdFs.create(&path).unwrap();
        let kind = |result: io::Result<Arc<dyn File>>| result.err().map(|error| error.kind());
        assert_eq!(kind(StdFs.create(&path)), Some(io::ErrorKind::AlreadyExists));
        assert_eq!(kind(StdFs.open(&dir.path().join("b"), true)), Some(io::ErrorKind::NotFound));
        assert!(StdFs.exists(&path).unwrap());
        assert!(!StdFs.exists(&dir.path().join("b")).unwrap());
    }

    #[test]
    fn allocation_gives_zeros_and_keeps_what_is_there() {
        let dir = folder();
        let file = StdFs.create(&dir.path().join("a")).unwrap();
        file.write_at(b"kept", 0).unwrap();
        file.allocate(10_000).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        let mut bytes = vec![1; 10_000];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 10_000);
        assert_eq!(&bytes[..4], b"kept");
        assert!(bytes[4..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn zeros_are_written_where_space_cannot_be_reserved() {
        let dir = folder();
        let path = dir.path().join("a");
        let file =
            StdFile::new(OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap());
        file.write_at(b"kept", 0).unwrap();
        let len = ZERO_FILL_BYTES as u64 * 2 + 5;
        file.zero_fill(len).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, len);
        assert_eq!(&bytes[..4], b"kept");
        assert!(bytes[4..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn the_lock_has_one_holder_and_goes_with_it() {
        let dir = folder();
        let path = dir.path().join("LOCK");
        let held = StdFs.lock(&path).unwrap();
        let refused = StdFs.lock(&path).err().map(|error| error.kind());
        assert_eq!(refused, Some(io::ErrorKind::WouldBlock));
        drop(held);
        StdFs.lock(&path).unwrap();
    }

    #[test]
    fn names_are_listed_in_order() {
        let dir = folder();
        StdFs.create_dir_all(&dir.path().join("c/d")).unwrap();
        StdFs.create_dir_all(&dir.path().join("c/d")).unwrap();
        StdFs.create(&dir.path().join("b")).unwrap();
        StdFs.hard_link(&dir.path().join("b"), &dir.path().join("a")).unwrap();
        let names: Vec<_> =
            StdFs.list(dir.path()).unwrap().into_iter().map(|entry| (entry.name, entry.is_dir)).collect();
        assert_eq!(names, [("a".to_owned(), false), ("b".to_owned(), false), ("c".to_owned(), true)]);
        StdFs.rename(&dir.path().join("a"), &dir.path().join("e")).unwrap();
        StdFs.remove(&dir.path().join("b")).unwrap();
        StdFs.remove_dir(&dir.path().join("c/d")).unwrap();
        StdFs.sync_dir(dir.path()).unwrap();
        let names: Vec<_> = StdFs.list(dir.path()).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["c", "e"]);
    }

    #[test]
    fn free_space_and_random_numbers_come_from_the_system() {
        let dir = folder();
        assert!(StdFs.free_bytes(dir.path()).unwrap() > 0);
        assert_ne!(StdFs.random(), StdFs.random());
    }
}
