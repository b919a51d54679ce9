//! Which keys are being read from the disk for a command that must see their newest state.
//!
//! Such a command is evaluated under its shards' latches, which are never held over a read of the disk. So it stops, the keys are read
//! without latches, and it is evaluated again. A record read in between is the newest unless the key was written meanwhile, and that
//! is what is noted here. It can't be told from the trees: the newer write may have gone to a table, and out of the cache, already.

use std::collections::HashMap;

/// The keys of one shard that are being read, under the shard's latch.
#[derive(Default)]
pub(crate) struct Fetching {
    keys: HashMap<Box<[u8]>, Interest>,
}

struct Interest {
    readers: usize,
    writes: u64,
}

impl Fetching {
    /// Notes the interest of one reader; answers the mark that [`is_newest`](Fetching::is_newest) wants.
    pub(crate) fn begin(&mut self, key: &[u8]) -> u64 {
        if let Some(interest) = self.keys.get_mut(key) {
            interest.readers += 1;
            return interest.writes;
        }
        self.keys.insert(key.into(), Interest { readers: 1, writes: 0 });
        0
    }

    /// Ends the interest of one reader.
    pub(crate) fn end(&mut self, key: &[u8]) {
        if let Some(interest) = self.keys.get_mut(key) {
            interest.readers -= 1;
            if interest.readers == 0 {
                self.keys.remove(key);
            }
        }
    }

    /// Notes that a key is written.
    pub(crate) fn written(&mut self, key: &[u8]) {
        if !self.keys.is_empty()
            && let Some(interest) = self.keys.get_mut(key)
        {
            interest.writes += 1;
        }
    }

    /// Notes that all keys are written: a clear.
    pub(crate) fn all_written(&mut self) {
        for interest in self.keys.values_mut() {
            interest.writes += 1;
        }
    }

    /// Whether the key was not written since [`begin`](Fetching::begin) gave `mark`.
    pub(crate) fn is_newest(&self, key: &[u8], mark: u64) -> bool {
        self.keys.get(key).is_some_and(|interest| interest.writes == mark)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_in_between_is_seen_by_every_reader() {
        let mut fetching = Fetching::default();
        let first = fetching.begin(b"k");
        fetching.written(b"other");
        assert!(fetching.is_newest(b"k", first));
        fetching.written(b"k");
        let second = fetching.begin(b"k");
        assert!(!fetching.is_newest(b"k", first));
        assert!(fetching.is_newest(b"k", second));
        fetching.all_written();
        assert!(!fetching.is_newest(b"k", second));
        fetching.end(b"k");
        fetching.end(b"k");
        assert!(fetching.is_empty());
        fetching.written(b"k");
        assert!(fetching.is_empty());
    }
}
