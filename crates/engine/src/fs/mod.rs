//! The file system as the engine sees it: a small trait, so that the real engine runs over a simulated disk that loses power.

pub mod sim;
mod std;

pub use self::std::StdFs;

use ::std::io;
use ::std::path::Path;
use ::std::sync::Arc;

/// A file system. Paths are absolute or relative as the caller gave the store's folder; implementations must be usable from many threads.
///
/// Durability follows POSIX at its least generous: bytes survive power loss only after [`File::sync`], and names (creations, renames,
/// removals) only after [`Fs::sync_dir`] of their folder.
pub trait Fs: Send + Sync + 'static {
    /// Creates a file for reading and writing; fails with `AlreadyExists` if there is one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading and, if `writable`, writing.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn File>>;
    /// Renames a file or folder, replacing a file of that name atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// A second name for the same file.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a folder and its missing parents; an existing folder is no error.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Whether a file or folder of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes an exclusive lock on the file (created if missing); `WouldBlock` if another holder has it. Released on drop.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// Bytes that may still be written on the device that holds `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// A number that can't be foreseen (a simulation draws it from its seed): it salts the log's checksums.
    fn random(&self) -> u64;
}

/// An open file. All offsets are absolute; there is no cursor.
pub trait File: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// As [`File::read_at`], but answers `None` instead of waiting for the device.
    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>>;
    /// Writes all of `bytes` at `offset`, extending the file if need be.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all bytes written so far, and the length, durable (`fdatasync`). After an error nothing may be assumed of earlier writes.
    fn sync(&self) -> io::Result<()>;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file holds no byte.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves `len` bytes of space from the start, so that later writes within them need none; the length becomes at least `len`.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without the folder. Names that are not UTF-8 are none of ours and are not listed.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
}
