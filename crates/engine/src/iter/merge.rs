//! Several sources as one, in internal order. Between entries of the same key and version the newer source comes first: sequences alone can't
//! tell, as tables forget them. In the spaces of notes and clears it is the other way round: they stand in any table of a level, so that the
//! place tells nothing, but tables keep their sequences.

use super::Cursor;
use crate::error::Result;
use crate::sst::Head;
use crate::types::Space;
use bytes::Bytes;
use std::cmp::Ordering;

pub(crate) struct Merge {
    /// The one that stands first in order is at the front; the rest are in order behind it. Exhausted ones are dropped.
    sources: Vec<Source>,
    way: Way,
}

#[derive(Clone, Copy)]
struct Way {
    backward: bool,
    by_sequence: bool,
}

struct Source {
    cursor: Box<dyn Cursor>,
    /// 0 is the newest.
    rank: usize,
}

impl Merge {
    /// Merges sources given from the newest to the oldest.
    pub(crate) fn new(cursors: Vec<Box<dyn Cursor>>, space: Space, backward: bool) -> Merge {
        let way = Way { backward, by_sequence: space != Space::Data };
        let mut sources: Vec<Source> =
            cursors.into_iter().enumerate().map(|(rank, cursor)| Source { cursor, rank }).collect();
        sources.retain(|source| source.cursor.head().is_some());
        sources.sort_by(|a, b| order(a, b, way));
        Merge { sources, way }
    }
}

impl Cursor for Merge {
    fn head(&self) -> Option<&Head> {
        self.sources.first()?.cursor.head()
    }

    fn key(&self) -> &[u8] {
        self.sources.first().map_or(&[], |source| source.cursor.key())
    }

    fn key_bytes(&self) -> Bytes {
        self.sources.first().map_or_else(Bytes::new, |source| source.cursor.key_bytes())
    }

    fn payload(&self) -> Result<Bytes> {
        self.sources.first().map_or_else(|| Ok(Bytes::new()), |source| source.cursor.payload())
    }

    fn advance(&mut self) -> Result<()> {
        let Some(first) = self.sources.first_mut() else { return Ok(()) };
        first.cursor.advance()?;
        if first.cursor.head().is_none() {
            self.sources.remove(0);
            return Ok(());
        }
        // Usually the winner wins again: one comparison.
        let mut place = 0;
        while let Some([a, b]) = self.sources.get(place..place + 2) {
            if order(a, b, self.way) != Ordering::Greater {
                break;
            }
            self.sources.swap(place, place + 1);
            place += 1;
        }
        Ok(())
    }
}

fn order(a: &Source, b: &Source, way: Way) -> Ordering {
    let (Some(left), Some(right)) = (a.cursor.head(), b.cursor.head()) else { return Ordering::Equal };
    let keys = a.cursor.key().cmp(b.cursor.key());
    let sequences = if way.by_sequence { right.sequence.cmp(&left.sequence) } else { Ordering::Equal };
    let forward =
        keys.then_with(|| right.version.cmp(&left.version)).then(sequences).then_with(|| a.rank.cmp(&b.rank));
    if way.backward { forward.reverse() } else { forward }
}
