//! What a table that was taken in from elsewhere needs beside it when it is given out again: the manifest knows it, the table itself does not.
//!
//! ```text
//! ceiling u64 · names of the blob files it points into, u64 each, in the order of the table's own list · CRC-32C u32 over all before it
//! ```

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::types::Version;
use crate::version::TableFile;
use std::path::{Path, PathBuf};

/// How such a file's name ends; it begins as the table's.
pub(super) const ORIGIN: &str = "origin";

/// More names than a table has blob files.
const BYTES_MAX: usize = 16 << 20;

pub(super) struct Origin {
    /// What lies above is not seen.
    pub(super) ceiling: Version,
    /// How the blob files are named in the folder.
    pub(super) blobs: Vec<u64>,
}

impl Origin {
    /// Leaves it in the folder, for a table that has one; answers path and length.
    pub(super) fn write(fs: &dyn Fs, dir: &Path, table: &TableFile) -> Result<Option<(PathBuf, u64)>> {
        let Some(foreign) = table.foreign else { return Ok(None) };
        let path = dir.join(format!("{:012}.{ORIGIN}", table.id()));
        let mut bytes = foreign.ceiling.to_le_bytes().to_vec();
        bytes.extend(table.meta.properties.blobs.iter().flat_map(|blob| blob.file.to_le_bytes()));
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let file = fs.create(&path).map_err(|e| Error::io("create", &path, e))?;
        file.write_at(&bytes, 0).map_err(|e| Error::io("write", &path, e))?;
        file.sync().map_err(|e| Error::io("sync", &path, e))?;
        Ok(Some((path, bytes.len() as u64)))
    }

    pub(super) fn read(fs: &dyn Fs, path: &Path) -> Result<Origin> {
        let io = |e| Error::io("read", path, e);
        let file = fs.open(path, false).map_err(io)?;
        let length = usize::try_from(file.len().map_err(io)?).unwrap_or(usize::MAX);
        let damaged =
            |found: String| Error::damaged(path, 0, "where a table came from, with a checksum", found);
        if length > BYTES_MAX {
            return Err(damaged(format!("{length} bytes")));
        }
        let mut bytes = vec![0; length];
        file.read_at(&mut bytes, 0).map_err(io)?;
        let short = || damaged(format!("{length} bytes"));
        let (numbers, checksum) = bytes.split_last_chunk::<4>().ok_or_else(short)?;
        let computed = crc32c::crc32c(numbers);
        if computed != u32::from_le_bytes(*checksum) {
            return Err(damaged(format!("{length} bytes with checksum {computed:08x}")));
        }
        let (numbers, rest) = numbers.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|number| u64::from_le_bytes(*number));
        let ceiling = numbers.next().filter(|_| rest.is_empty()).ok_or_else(short)?;
        Ok(Origin { ceiling, blobs: numbers.collect() })
    }
}
