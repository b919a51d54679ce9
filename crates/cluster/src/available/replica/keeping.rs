//! Writing and reading where what was written at the same time is kept.

use super::super::conflicts::Siblings;
use super::*;
use parking_lot::MutexGuard;

/// Locks for the keys of a replica: who keeps losers reads before it writes.
pub(super) const STRIPES: usize = 64;

impl Replica {
    /// Whether the namespace keeps what was written at the same time.
    pub(crate) fn set_keeps_losers(&self, keeps: bool) {
        self.keeps_losers.store(keeps, Relaxed);
    }

    pub(super) fn keeps_losers(&self) -> bool {
        self.keeps_losers.load(Relaxed)
    }

    /// Held while losers of a key are read and written.
    pub(super) fn stripe(&self, key: &[u8]) -> Option<MutexGuard<'_, ()>> {
        self.stripes.get(usize::from(slot(key)) % STRIPES).map(Mutex::lock)
    }

    /// As `write`, and remembers what the entry, or the one that stands, had not seen.
    pub(super) fn write_beside(
        &self,
        key: &[u8],
        entry: &Entry,
        why: Why,
        order: &Order,
    ) -> Result<(Answer, Sequence), Refusal> {
        let _one = self.stripe(key);
        let (_, tree) = self.tree_of(key)?;
        let found = self.get(key)?;
        let version = found.as_ref().map(|found| {
            let Found { version, sequence, kind, expires_at, tag, .. } = *found;
            FoundVersion { version, sequence, kind, expires_at, tag }
        });
        let mut batch = Batch::new();
        if self.is_kept(key, entry, order) {
            let beside = loser_key(key);
            let row = tree.get(&beside, &View::newest())?;
            let before =
                row.as_ref().map_or_else(Siblings::default, |row| Siblings::decode(row.value.clone()));
            let mut siblings = before.clone();
            siblings.take(entry, found.map(entry_of));
            if siblings != before {
                let version = row.map_or(0, |row| row.version + 1).max(entry.version);
                batch.put(tree, &beside, version, &siblings.encode(), Attributes::default());
            }
        }
        self.keep(key, entry, why, order, version, batch)
    }

    /// An entry with its base, where that is known.
    pub(super) fn with_base(&self, key: &[u8], entry: Entry) -> Result<Entry, Refusal> {
        if !self.keeps_losers() {
            return Ok(entry);
        }
        let base = self.siblings(key)?.base_of(entry.version);
        Ok(Entry { base, ..entry })
    }

    /// The entry of a key with its base, and those that were written at the same time.
    pub(super) fn entries_of(&self, key: &[u8], found: Found) -> Result<Vec<Entry>, Refusal> {
        let entry = entry_of(found);
        if !self.keeps_losers() {
            return Ok(vec![entry]);
        }
        let siblings = self.siblings(key)?;
        let base = siblings.base_of(entry.version);
        Ok([Entry { base, ..entry }].into_iter().chain(siblings.losers).collect())
    }

    fn siblings(&self, key: &[u8]) -> Result<Siblings, Refusal> {
        let (_, tree) = self.tree_of(key)?;
        let row = tree.get(&loser_key(key), &View::newest())?;
        Ok(row.map_or_else(Siblings::default, |row| Siblings::decode(row.value)))
    }

    pub(super) fn conflicts(&self, key: &Bytes) -> Result<(Answer, Sequence), Refusal> {
        let Some(found) = self.get(key)? else { return Ok((Answer::Fetched(Vec::new()), 0)) };
        let sequence = found.sequence;
        let all = self.entries_of(key, found)?.into_iter().map(|entry| (key.clone(), entry));
        Ok((Answer::Fetched(all.collect()), sequence))
    }
}
