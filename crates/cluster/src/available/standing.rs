//! Whether a replica has all that it should: what must not be forgotten over a restart. It stands in the store's own tree.
//!
//! - A new store, under whatever name, lacks what the others have, in every namespace that was there before it: it answers no reads until it has
//!   collected everything from all of them.
//! - A store that gets slots of a node that left lacks what belongs into them.
//! - A store that slept longer than the grace may hold what was deleted meanwhile, its deletion being forgotten by now: it doubts its own content,
//!   shows it to nobody, and lets go of what the others should have and have not.

use crate::error::{Error, Result};
use crate::system::System;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kvorum_engine::{Batch, Durability, Store};
use std::sync::Arc;

const FIRST: &str = "first";
const AWAKE: &str = "awake";
const WHOLE: &str = "whole/";

/// What the store knows.
pub(super) struct Standing {
    system: Arc<System>,
    store: Store,
    /// When an earlier life was last known to be awake, in Unix milliseconds of its hybrid clock.
    pub(super) awake_before_ms: Option<u64>,
}

/// How a replica begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begins {
    /// It lacks what other nodes have.
    pub(super) lacks: bool,
    /// It may hold what was deleted meanwhile.
    pub(super) doubts: bool,
}

impl Standing {
    /// As an earlier life left it. Waits for the disk.
    pub(super) fn open(system: &Arc<System>, store: &Store) -> Result<Standing> {
        let mut standing =
            Standing { system: Arc::clone(system), store: store.clone(), awake_before_ms: None };
        standing.awake_before_ms = standing.number(AWAKE)?;
        Ok(standing)
    }

    /// The first map of the cluster that this store sees has namespaces up to this id: what is in them may be older than the store. Only the first
    /// call counts. Waits for the disk.
    pub(super) fn begin(&self, highest: u16) -> Result<()> {
        match self.number(FIRST)? {
            Some(_) => Ok(()),
            None => self.put(FIRST, &u64::from(highest).to_le_bytes()),
        }
    }

    /// How a replica begins, in a cluster of nodes of these names (by their digests, sorted).
    pub(super) fn begins(&self, namespace: u16, names: &[u64], now_ms: u64, grace_ms: u64) -> Result<Begins> {
        let doubts = self.awake_before_ms.is_some_and(|awake| now_ms.saturating_sub(awake) > grace_ms);
        let is_new = u64::from(namespace) <= self.number(FIRST)?.unwrap_or(u64::MAX);
        let lacks = match self.whole_among(namespace)? {
            // With more nodes it keeps less than before, with others more.
            Some(known) => known.iter().any(|name| names.binary_search(name).is_err()),
            None => is_new,
        };
        Ok(Begins { lacks: lacks || doubts, doubts })
    }

    /// The nodes among which the replica has all that it should.
    fn whole_among(&self, namespace: u16) -> Result<Option<Vec<u64>>> {
        let Some(mut bytes) = self.system.available(&format!("{WHOLE}{namespace}"))? else { return Ok(None) };
        let mut names = Vec::with_capacity(bytes.len() / 8);
        while let Ok(name) = bytes.try_get_u64_le() {
            names.push(name);
        }
        Ok(Some(names))
    }

    /// The replica has all that it should, among nodes of these names. Waits for the disk.
    pub(super) fn is_whole(&self, namespace: u16, names: &[u64]) -> Result<()> {
        if self.whole_among(namespace)?.as_deref() == Some(names) {
            return Ok(());
        }
        let mut bytes = BytesMut::new();
        names.iter().for_each(|name| bytes.put_u64_le(*name));
        self.put(&format!("{WHOLE}{namespace}"), &bytes)
    }

    /// This node is awake. Waits for the disk.
    pub(super) fn is_awake(&self, now_ms: u64) -> Result<()> {
        self.put(AWAKE, &now_ms.to_le_bytes())
    }

    fn number(&self, row: &str) -> Result<Option<u64>> {
        let Some(bytes): Option<Bytes> = self.system.available(row)? else { return Ok(None) };
        let number = bytes.as_ref().try_into().map(u64::from_le_bytes);
        number.map(Some).map_err(|_| {
            Error::Storage(format!(
                "what the store says of its replicas ({row}) has {} bytes instead of 8",
                bytes.len()
            ))
        })
    }

    fn put(&self, row: &str, value: &[u8]) -> Result<()> {
        let mut batch = Batch::new();
        self.system.put_available(&mut batch, row, value);
        Ok(self.store.write_waiting(&batch, Durability::Synced)?.wait()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvorum_engine::{Parts, Settings};

    const HOUR: u64 = 3_600_000;

    #[test]
    fn a_store_remembers_what_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let store = Store::open(dir.path(), Settings::default(), Parts::real()).unwrap();
            let system = Arc::new(System::open(&store).unwrap().0);
            (Standing::open(&system, &store).unwrap(), store)
        };
        let begins = |lacks, doubts| Begins { lacks, doubts };
        let (standing, store) = open();
        standing.begin(16).unwrap();
        standing.begin(20).unwrap();
        assert_eq!(
            standing.begins(16, &[1, 2, 3], 0, HOUR).unwrap(),
            begins(true, false),
            "older than the store"
        );
        assert_eq!(
            standing.begins(17, &[1, 2, 3], 0, HOUR).unwrap(),
            begins(false, false),
            "made in its time"
        );
        standing.is_whole(16, &[1, 2, 3]).unwrap();
        standing.is_awake(5 * HOUR).unwrap();
        drop(standing);
        store.close().unwrap();
        drop(store);
        let (standing, _store) = open();
        let now = 6 * HOUR;
        assert_eq!(standing.begins(16, &[1, 2, 3], now, HOUR).unwrap(), begins(false, false));
        assert_eq!(
            standing.begins(16, &[1, 2, 3, 4], now, HOUR).unwrap(),
            begins(false, false),
            "it keeps less"
        );
        assert_eq!(standing.begins(16, &[1, 2], now, HOUR).unwrap(), begins(true, false), "it keeps more");
        assert_eq!(
            standing.begins(17, &[1, 2], now + 1, HOUR).unwrap(),
            begins(true, true),
            "it slept too long"
        );
    }
}
