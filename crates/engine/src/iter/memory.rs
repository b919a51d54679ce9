//! A cursor over a memtable: takes entries in portions, so that the seek into the list is shared by many.

use super::Cursor;
use super::visible::Bounds;
use crate::error::Result;
use crate::memtable::{Memtable, MemtableEntry, Position};
use crate::sst::Head;
use crate::types::Space;
use bytes::Bytes;
use std::ops::Bound;
use std::sync::Arc;

const FIRST_PORTION_ENTRIES: usize = 8;
const PORTION_ENTRIES_MAX: usize = 256;

pub(crate) struct MemoryCursor {
    memtable: Arc<dyn Memtable>,
    space: Space,
    low: Bound<Position>,
    high: Bound<Position>,
    backward: bool,
    portion: Vec<MemtableEntry>,
    at: usize,
    portion_entries: usize,
    exhausted: bool,
}

impl MemoryCursor {
    pub(crate) fn new(
        memtable: Arc<dyn Memtable>,
        space: Space,
        bounds: &Bounds,
        backward: bool,
    ) -> MemoryCursor {
        let low = match &bounds.low {
            Bound::Included(key) => Bound::Included(Position::first_of(key.clone())),
            Bound::Excluded(key) => Bound::Excluded(Position::last_of(key.clone())),
            Bound::Unbounded => Bound::Unbounded,
        };
        let high = match &bounds.high {
            Bound::Included(key) => Bound::Included(Position::last_of(key.clone())),
            Bound::Excluded(key) => Bound::Excluded(Position::first_of(key.clone())),
            Bound::Unbounded => Bound::Unbounded,
        };
        let exhausted = bounds.is_empty();
        let mut cursor = MemoryCursor {
            memtable,
            space,
            low,
            high,
            backward,
            portion: Vec::new(),
            at: 0,
            portion_entries: FIRST_PORTION_ENTRIES,
            exhausted,
        };
        cursor.refill();
        cursor
    }

    fn refill(&mut self) {
        if self.exhausted {
            self.portion.clear();
            return;
        }
        if let Some(last) = self.portion.last() {
            let behind = Bound::Excluded(Position::of(last));
            if self.backward {
                self.high = behind;
            } else {
                self.low = behind;
            }
        }
        self.portion.clear();
        self.at = 0;
        self.memtable.scan(
            self.space,
            (self.low.as_ref(), self.high.as_ref()),
            self.backward,
            self.portion_entries,
            &mut self.portion,
        );
        self.exhausted = self.portion.len() < self.portion_entries;
        self.portion_entries = (self.portion_entries * 4).min(PORTION_ENTRIES_MAX);
    }
}

impl Cursor for MemoryCursor {
    fn head(&self) -> Option<&Head> {
        self.portion.get(self.at).map(|entry| &entry.head)
    }

    fn key(&self) -> &[u8] {
        self.portion.get(self.at).map_or(&[], |entry| &entry.key)
    }

    fn key_bytes(&self) -> Bytes {
        self.portion.get(self.at).map_or_else(Bytes::new, |entry| entry.key.clone())
    }

    fn payload(&self) -> Result<Bytes> {
        Ok(self.portion.get(self.at).map_or_else(Bytes::new, |entry| entry.payload.clone()))
    }

    fn advance(&mut self) -> Result<()> {
        self.at += 1;
        if self.at >= self.portion.len() {
            self.refill();
        }
        Ok(())
    }
}
