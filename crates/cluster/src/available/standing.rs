//! Whether a replica has all that it should: what must not be forgotten over a restart. It stands in the store's own tree.
//!
//! - A new store, under whatever name, lacks what the others have, in every namespace that was there before it: it answers no reads until it has
//!   collected everything from all of them.
//! - A store that gets slots of a node that left lacks what belongs into them.
//! - A store that slept, or was cut off, longer than the grace may hold what was deleted meanwhile, its deletion being forgotten by now: it doubts
//!   its own content, shows it to nobody, and lets go of what the others should have and have not.

use super::Order;
use super::planted::{Fault, is_planted};
use super::replica::{Begins, Replica, Sources};
use crate::error::{Error, Result};
use crate::system::System;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kvorum_engine::{Batch, Durability, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};

const FIRST: &str = "first";
const AWAKE: &str = "awake";
const WHOLE: &str = "whole/";

/// What the store knows.
pub(super) struct Standing {
    system: Arc<System>,
    store: Store,
    /// When this node was last known to be awake and in touch, in Unix milliseconds of its hybrid clock; [`NEVER`] before its first life.
    awake_ms: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// A moment of a node's hybrid clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// Unix milliseconds.
    pub(super) now_ms: u64,
    /// How long a node may be asleep or cut off before others may have forgotten what it has not seen.
    pub(super) lease_ms: u64,
}

impl Standing {
    /// As an earlier life left it. Waits for the disk.
    pub(super) fn open(system: &Arc<System>, store: &Store) -> Result<Standing> {
        let standing =
            Standing { system: Arc::clone(system), store: store.clone(), awake_ms: AtomicU64::new(NEVER) };
        standing.awake_ms.store(standing.number(AWAKE)?.unwrap_or(NEVER), Release);
        Ok(standing)
    }

    /// When this node was last known to be awake and in touch with the others; `None` before its first life.
    pub(super) fn awake_ms(&self) -> Option<u64> {
        Some(self.awake_ms.load(Acquire)).filter(|awake| *awake != NEVER)
    }

    /// From now on a replica serves among these nodes. What it lacks then is collected from `sources`. `is_opened`: it is just
    /// being opened, and may have slept. Waits for the disk.
    pub(super) fn turn(
        &self,
        replica: &Replica,
        order: &Order,
        sources: &Sources,
        moment: Moment,
        is_opened: bool,
    ) -> Result<()> {
        if self.awake_ms().is_none() {
            // Its first life: nobody forgot anything that it could have.
            self.is_awake(moment.now_ms)?;
        }
        let (namespace, names) = (replica.namespace(), order.names());
        let mut begins = self.begins(namespace, &names, moment)?;
        if !is_opened {
            // Whether it slept was found out when it was opened.
            begins = Begins { lacks: self.lacks(namespace, &names)?, doubts: false };
        }
        let before = self.whole_among(namespace)?.unwrap_or_default();
        replica.turn(order, begins, sources, before);
        if replica.is_whole() { self.is_whole(namespace, &names) } else { Ok(()) }
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
    pub(super) fn begins(&self, namespace: u16, names: &[u64], moment: Moment) -> Result<Begins> {
        let slept = |awake| moment.now_ms.saturating_sub(awake) > moment.lease_ms;
        let doubts = self.awake_ms().is_some_and(slept) && !is_planted(Fault::OversleptMerges);
        Ok(Begins { lacks: doubts || self.lacks(namespace, names)?, doubts })
    }

    fn lacks(&self, namespace: u16, names: &[u64]) -> Result<bool> {
        Ok(match self.whole_among(namespace)? {
            // With more nodes it keeps less than before, with others more.
            Some(known) => known.iter().any(|name| names.binary_search(name).is_err()),
            None => u64::from(namespace) <= self.number(FIRST)?.unwrap_or(u64::MAX),
        })
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

    /// This node was awake then, and in touch. Waits for the disk.
    pub(super) fn is_awake(&self, now_ms: u64) -> Result<()> {
        self.put(AWAKE, &now_ms.to_le_bytes())?;
        self.awake_ms.store(now_ms, Release);
        Ok(())
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
        let at = |now_ms| Moment { now_ms, lease_ms: HOUR };
        let (standing, store) = open();
        standing.begin(16).unwrap();
        standing.begin(20).unwrap();
        assert_eq!(
            standing.begins(16, &[1, 2, 3], at(0)).unwrap(),
            begins(true, false),
            "older than the store"
        );
        assert_eq!(standing.begins(17, &[1, 2, 3], at(0)).unwrap(), begins(false, false), "made in its time");
        standing.is_whole(16, &[1, 2, 3]).unwrap();
        standing.is_awake(5 * HOUR).unwrap();
        drop(standing);
        store.close().unwrap();
        drop(store);
        let (standing, _store) = open();
        let now = 6 * HOUR;
        assert_eq!(standing.begins(16, &[1, 2, 3], at(now)).unwrap(), begins(false, false));
        assert_eq!(
            standing.begins(16, &[1, 2, 3, 4], at(now)).unwrap(),
            begins(false, false),
            "it keeps less"
        );
        assert_eq!(standing.begins(16, &[1, 2], at(now)).unwrap(), begins(true, false), "it keeps more");
        assert_eq!(
            standing.begins(17, &[1, 2], at(now + 1)).unwrap(),
            begins(true, true),
            "it slept too long"
        );
    }
}
