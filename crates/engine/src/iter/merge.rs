//! Several sources as one, in internal order. Between entries of the same key and version the newer source comes first: sequences alone can't
//! tell, as tables forget them.

use super::{Cursor, PayloadSource};
use crate::error::Result;
use crate::types::InternalEntry;
use std::cmp::Ordering;

pub(crate) struct Merge {
    /// The one that stands first in order is at the front; the rest are in order behind it. Exhausted ones are dropped.
    heads: Vec<Head>,
    backward: bool,
}

struct Head {
    cursor: Box<dyn Cursor>,
    /// 0 is the newest source.
    rank: usize,
}

impl Merge {
    /// Merges sources given from the newest to the oldest.
    pub(crate) fn new(sources: Vec<Box<dyn Cursor>>, backward: bool) -> Merge {
        let mut heads: Vec<Head> =
            sources.into_iter().enumerate().map(|(rank, cursor)| Head { cursor, rank }).collect();
        heads.retain(|head| head.cursor.entry().is_some());
        heads.sort_by(|a, b| order(a, b, backward));
        Merge { heads, backward }
    }

    pub(crate) fn entry(&self) -> Option<&InternalEntry> {
        self.heads.first().and_then(|head| head.cursor.entry())
    }

    pub(crate) fn payloads(&self) -> Option<&dyn PayloadSource> {
        self.heads.first().and_then(|head| head.cursor.payloads())
    }

    pub(crate) fn advance(&mut self) -> Result<()> {
        let Some(first) = self.heads.first_mut() else { return Ok(()) };
        first.cursor.advance()?;
        if first.cursor.entry().is_none() {
            self.heads.remove(0);
            return Ok(());
        }
        // Usually the winner wins again: one comparison.
        let mut place = 0;
        while let [a, b] = &self.heads[place..self.heads.len().min(place + 2)] {
            if order(a, b, self.backward) != Ordering::Greater {
                break;
            }
            self.heads.swap(place, place + 1);
            place += 1;
        }
        Ok(())
    }
}

fn order(a: &Head, b: &Head, backward: bool) -> Ordering {
    let (Some(left), Some(right)) = (a.cursor.entry(), b.cursor.entry()) else { return Ordering::Equal };
    let forward = left
        .key
        .cmp(&right.key)
        .then_with(|| right.version.cmp(&left.version))
        .then_with(|| a.rank.cmp(&b.rank));
    if backward { forward.reverse() } else { forward }
}
