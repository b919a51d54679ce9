//! What a flush writes: memtables are judged like the inputs of a compaction, so that what nobody can see never reaches a table.

use super::garbage::spans;
use super::output::{Outputs, Written};
use super::rules::Rules;
use super::standing::{Standing, memory_of};
use crate::error::Result;
use crate::memtable::Memtable;
use crate::sst::ALL_SPACES;
use crate::store::Shared;
use crate::tree::{TreeState, merge_memtables};
use crate::types::Sequence;
use std::sync::Arc;

impl Shared {
    /// Writes sealed memtables of a tree, the newest first, as one table of level 0, and their large values as blob files. The last
    /// sequence in them is `upto`. The caller makes the names durable, then the edit.
    pub(crate) fn write_memtables(
        &self,
        tree: &TreeState,
        memtables: &[Arc<dyn Memtable>],
        upto: Sequence,
    ) -> Result<Written<'_>> {
        let standing = Standing::of(self, tree);
        let sources = &standing.sources;
        let others = sources.memtables().filter(|m| !memtables.iter().any(|flushed| Arc::ptr_eq(flushed, m)));
        let rules = Rules {
            older: spans(sources.levels.tables().map(|file| &file.meta)),
            memory: memory_of(others),
            ..standing.rules.clone()
        };
        let new_id = || self.versions.new_file_id();
        let apart = self.apart(&[], &sources.blobs);
        let mut outputs = Outputs::new(&self.files, &new_id, self.table_options(0), apart, u64::MAX, upto);
        for space in ALL_SPACES {
            self.judge(&rules, space, merge_memtables(memtables, space), &mut outputs, &mut |_, _| Ok(()))?;
        }
        outputs.finish()
    }
}
