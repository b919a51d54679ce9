//! The blob files of a tree, and reading values from them.

use super::format::{HEAD_BYTES, check_head, open_record};
use crate::cache::{Cache, FileKey};
use crate::error::{Error, Result};
use crate::fs::File;
use crate::sst::{Access, BlobPointer};
use crate::types::Version;
use crate::version::{BlobFile, Files};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// Largest value that goes through the cache: larger ones would push out too much for one read.
const CACHED_VALUE_BYTES_MAX: u64 = 64 << 10;

/// A blob file of the file set. It goes when it has left the set and the last reader is done.
pub(crate) struct BlobStore {
    pub(crate) meta: BlobFile,
    files: Arc<Files>,
    key: FileKey,
    head_checked: AtomicBool,
    removed: AtomicBool,
}

impl BlobStore {
    pub(crate) fn new(files: &Arc<Files>, meta: BlobFile) -> Arc<BlobStore> {
        let (head_checked, removed) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(BlobStore {
            meta,
            key: files.cache.register(),
            files: Arc::clone(files),
            head_checked,
            removed,
        })
    }

    fn path(&self) -> PathBuf {
        self.files.blob_path(self.meta.id)
    }

    /// The value of `(key, version)` that the pointer names; `None` if the device would have to be waited for and must not.
    pub(crate) fn read(
        &self,
        pointer: &BlobPointer,
        key: &[u8],
        version: Version,
        access: Access,
    ) -> Result<Option<Bytes>> {
        let cache: &Cache = &self.files.cache;
        let cached = pointer.value_bytes <= CACHED_VALUE_BYTES_MAX;
        if cached && let Some(value) = cache.value(self.key, pointer.offset) {
            return Ok(Some(value));
        }
        let path = self.path();
        let end = pointer.offset.checked_add(pointer.stored_bytes);
        if end.is_none_or(|end| end > self.meta.file_bytes) {
            let expected = format!("a record within the file's {} bytes", self.meta.file_bytes);
            return Err(Error::damaged(
                &path,
                pointer.offset,
                expected,
                format!("{} bytes", pointer.stored_bytes),
            ));
        }
        let Some(file) = self.file(access)? else { return Ok(None) };
        let mut record = vec![0; pointer.stored_bytes as usize];
        let read = match access {
            Access::Wait => file.read_at(&mut record, pointer.offset).map(Some),
            Access::Cached => file.read_cached_at(&mut record, pointer.offset),
        };
        match read.map_err(|e| Error::io("read", &path, e))? {
            Some(len) if len == record.len() => {}
            Some(len) if access == Access::Wait => {
                let (expected, found) =
                    (format!("{} bytes", record.len()), format!("{len} before the file's end"));
                return Err(Error::damaged(&path, pointer.offset, expected, found));
            }
            _ => return Ok(None),
        }
        let value = open_record(&path, pointer.offset, (key, version), pointer.value_bytes, record)?;
        if cached {
            cache.keep_value(self.key, pointer.offset, value.clone());
        }
        Ok(Some(value))
    }

    /// The open file, its head checked once.
    fn file(&self, access: Access) -> Result<Option<Arc<dyn File>>> {
        let cache = &self.files.cache;
        if access == Access::Cached {
            return Ok(cache.handle_if_open(self.key).filter(|_| self.head_checked.load(Acquire)));
        }
        let path = self.path();
        let file = cache.handle(self.key, &*self.files.fs, &path)?;
        if !self.head_checked.load(Acquire) {
            let mut head = [0; HEAD_BYTES];
            let read = file.read_at(&mut head, 0).map_err(|e| Error::io("read", &path, e))?;
            check_head(&path, head.get(..read).unwrap_or_default())?;
            self.head_checked.store(true, Release);
        }
        Ok(Some(file))
    }

    /// Says that the file left the set durably: it is removed with the last pin.
    pub(crate) fn remove_when_unused(&self) {
        self.removed.store(true, Relaxed);
    }
}

impl Drop for BlobStore {
    fn drop(&mut self) {
        self.files.cache.forget(self.key);
        if self.removed.load(Relaxed) {
            self.files.graveyard.bury(&self.path());
        }
    }
}

/// A tree's blob files. Never changed, only replaced.
#[derive(Clone, Default)]
pub(crate) struct BlobSet {
    files: BTreeMap<u64, Arc<BlobStore>>,
}

impl BlobSet {
    pub(crate) fn new(files: &Arc<Files>, metas: impl Iterator<Item = BlobFile>) -> BlobSet {
        BlobSet { files: metas.map(|meta| (meta.id, BlobStore::new(files, meta))).collect() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<BlobStore>> {
        self.files.values()
    }

    /// The same set with some files more and some less.
    pub(crate) fn changed(&self, added: &[Arc<BlobStore>], removed: &[u64]) -> BlobSet {
        let mut files = self.files.clone();
        files.retain(|id, _| !removed.contains(id));
        files.extend(added.iter().map(|file| (file.meta.id, Arc::clone(file))));
        BlobSet { files }
    }

    /// The value that an entry's payload points at; `None` if the device would have to be waited for and must not.
    pub(crate) fn read(
        &self,
        payload: &[u8],
        key: &[u8],
        version: Version,
        access: Access,
    ) -> Result<Option<Bytes>> {
        let pointer = BlobPointer::decode(payload);
        let pointer =
            pointer.ok_or_else(|| Error::Invalid(format!("a blob pointer that is none: {payload:02x?}")))?;
        let file = self.files.get(&pointer.file);
        let file = file.ok_or_else(|| {
            Error::Invalid(format!(
                "a table points into blob file {}, which its tree does not have",
                pointer.file
            ))
        })?;
        file.read(&pointer, key, version, access)
    }
}
