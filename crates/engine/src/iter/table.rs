//! Cursors over one table, and over a level whose tables follow one another.

use super::Cursor;
use super::visible::Bounds;
use crate::error::Result;
use crate::sst::{Head, TableIter};
use crate::types::{Kind, Sequence, Space, Version};
use crate::version::TableFile;
use bytes::Bytes;
use std::ops::{Bound, Range};
use std::sync::Arc;

/// A cursor over a part of a table. Of a table that came from elsewhere it leaves out what is above the ceiling, and takes everything as late.
pub(crate) struct TableCursor {
    iter: TableIter,
    bounds: Bounds,
    backward: bool,
    ceiling: Option<Version>,
    /// The head where it stands; `None` at the end.
    head: Option<Head>,
}

impl TableCursor {
    /// A cursor that starts at the first entry of its direction. `bulk` reads ahead from the start and leaves the cache alone.
    pub(crate) fn new(
        file: &TableFile,
        space: Space,
        bounds: &Bounds,
        backward: bool,
        bulk: bool,
    ) -> Result<TableCursor> {
        let table = Arc::clone(file.table()?);
        let iter = if bulk { TableIter::bulk(table, space) } else { TableIter::new(table, space) };
        let ceiling = file.foreign.map(|foreign| foreign.ceiling);
        let mut cursor = TableCursor { iter, bounds: bounds.clone(), backward, ceiling, head: None };
        if backward {
            cursor.seek_high()?;
        } else {
            cursor.seek_low()?;
        }
        cursor.settle()?;
        Ok(cursor)
    }

    fn seek_low(&mut self) -> Result<()> {
        match &self.bounds.low {
            Bound::Unbounded => self.iter.seek_first(),
            Bound::Included(key) => self.iter.seek(key, Version::MAX),
            Bound::Excluded(key) => {
                self.iter.seek(key, 0)?;
                while self.iter.head().is_some() && self.iter.key() == &key[..] {
                    self.iter.next()?;
                }
                Ok(())
            }
        }
    }

    fn seek_high(&mut self) -> Result<()> {
        match &self.bounds.high {
            Bound::Unbounded => self.iter.seek_last(),
            Bound::Excluded(key) => self.iter.seek_before(key, Version::MAX),
            Bound::Included(key) => {
                self.iter.seek(key, 0)?;
                while self.iter.head().is_some() && self.iter.key() == &key[..] {
                    self.iter.next()?;
                }
                if self.iter.head().is_some() { self.iter.prev() } else { self.iter.seek_last() }
            }
        }
    }

    fn step(&mut self) -> Result<()> {
        if self.backward { self.iter.prev() } else { self.iter.next() }
    }

    /// Takes the head where the iterator stands, past what is not to be seen.
    fn settle(&mut self) -> Result<()> {
        loop {
            self.head = self.iter.head().copied().filter(|_| self.within());
            let Some((head, ceiling)) = self.head.as_mut().zip(self.ceiling) else { return Ok(()) };
            if head.version <= ceiling {
                head.late = true;
                // It counts the other store's writes.
                head.sequence = 0;
                return Ok(());
            }
            self.step()?;
        }
    }

    fn within(&self) -> bool {
        let key = self.iter.key();
        if self.backward {
            match &self.bounds.low {
                Bound::Included(low) => key >= &low[..],
                Bound::Excluded(low) => key > &low[..],
                Bound::Unbounded => true,
            }
        } else {
            match &self.bounds.high {
                Bound::Included(high) => key <= &high[..],
                Bound::Excluded(high) => key < &high[..],
                Bound::Unbounded => true,
            }
        }
    }
}

impl Cursor for TableCursor {
    fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    fn key(&self) -> &[u8] {
        self.iter.key()
    }

    fn payload(&self) -> Result<Bytes> {
        if self.ceiling.is_some() && self.head.is_some_and(|head| head.kind == Kind::Clear) {
            // The first sequence of its batch, in the other store. Here what has exactly its version came with it.
            return Ok(Bytes::from_static(&[0; size_of::<Sequence>()]));
        }
        self.iter.payload()
    }

    fn advance(&mut self) -> Result<()> {
        self.step()?;
        self.settle()
    }
}

/// A cursor over the data space of tables whose keys don't overlap. Opens one at a time.
pub(crate) struct LevelCursor {
    /// All of the level: shared, as there may be thousands.
    tables: Arc<Vec<Arc<TableFile>>>,
    /// Those of them that are still to come.
    rest: Range<usize>,
    current: Option<TableCursor>,
    bounds: Bounds,
    backward: bool,
    bulk: bool,
}

impl LevelCursor {
    /// Over tables in key order.
    pub(crate) fn new(
        tables: &Arc<Vec<Arc<TableFile>>>,
        bounds: &Bounds,
        backward: bool,
        bulk: bool,
    ) -> Result<LevelCursor> {
        let start = tables.partition_point(|table| bounds.lie_above(&table.meta.properties.largest_key));
        let end = tables.partition_point(|table| !bounds.lie_below(&table.meta.properties.smallest_key));
        let (tables, bounds) = (Arc::clone(tables), bounds.clone());
        let mut cursor = LevelCursor { tables, rest: start..end, current: None, bounds, backward, bulk };
        cursor.settle()?;
        Ok(cursor)
    }

    fn settle(&mut self) -> Result<()> {
        while self.current.as_ref().is_none_or(|current| current.head().is_none()) {
            let next = if self.backward { self.rest.next_back() } else { self.rest.next() };
            let Some(table) = next.and_then(|next| self.tables.get(next)) else { return Ok(()) };
            self.current =
                Some(TableCursor::new(table, Space::Data, &self.bounds, self.backward, self.bulk)?);
        }
        Ok(())
    }
}

impl Cursor for LevelCursor {
    fn head(&self) -> Option<&Head> {
        self.current.as_ref()?.head()
    }

    fn key(&self) -> &[u8] {
        self.current.as_ref().map_or(&[], Cursor::key)
    }

    fn payload(&self) -> Result<Bytes> {
        self.current.as_ref().map_or_else(|| Ok(Bytes::new()), Cursor::payload)
    }

    fn advance(&mut self) -> Result<()> {
        if let Some(current) = &mut self.current {
            current.advance()?;
        }
        self.settle()
    }
}
