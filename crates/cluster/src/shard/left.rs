//! What a store keeps of a shard whose group it has left: nothing but its promise.

use super::member::Member;
use super::open::{MADE, MemberParts, own_tree};
use super::transfer::clean_up;
use crate::error::Result;
use crate::keys::tree_name;
use kvorum_engine::{Batch, Durability, TreeSettings};
use kvorum_sync::{Epoch, OpId, Record, Standing};

impl Member {
    /// Removes the data of a shard of which this store is no member any more. The promise stays, and with it the mark that there is nothing behind
    /// it: if the store becomes a member again, it counts nowhere before it has everything. `known`: the last epoch of the map that says so;
    /// if the member followed a later one, the map is from before it joined, and nothing is done. Answers whether there was something. Nobody
    /// has the member open. Blocks; broken off anywhere, it may be done again.
    ///
    /// # Errors
    /// What the store refuses.
    pub fn leave(parts: &MemberParts, known: Epoch) -> Result<bool> {
        let Some(mut row) = parts.rows.read(parts.shard)? else { return Ok(false) };
        if row.promise.epoch > known {
            return Ok(false);
        }
        let base = tree_name(parts.shard);
        let is_void = row.standing == Standing::Rebuilding { until: OpId::MAX };
        let own = parts.store.find_tree(&base).filter(|tree| tree.id() == row.tree);
        if is_void && own.is_some_and(|tree| tree.stats().entries == 0) {
            return Ok(false);
        }
        clean_up(&*parts.fs, parts.store.path(), parts.shard)?;
        let name = format!("{base}{MADE}left");
        parts.store.drop_trees(&[&name])?;
        let empty = parts.store.tree(&name, TreeSettings::with_history())?;
        row.apply(&Record::Rebuild);
        row.tree = empty.id();
        let mut batch = Batch::new();
        parts.rows.put(&mut batch, parts.shard, &row);
        // From here on the old tree is nobody's.
        parts.store.write_admitted(&batch, Durability::Synced)?.wait()?;
        own_tree(parts, Some(&row))?;
        Ok(true)
    }
}
