//! Records, as batches of the store.

use super::carry::Beside;
use super::floors::Floors;
use super::member::Member;
use super::note::{self, Came};
use super::outbox::Outbox;
use super::planted::MemberRule;
use super::transfer::Work;
use super::writes::{Payload, Writes};
use kvorum_engine::{Batch, Durability as Class};
use kvorum_sync::{Adoption, Durability, Item, Moment, OpId, Record, RecordId};

impl Member {
    /// Stores a record, behind all before it.
    pub(super) fn persist(
        &mut self,
        now: Moment,
        id: RecordId,
        record: Record,
        durability: Durability,
        beside: &Beside,
        out: &mut Outbox,
    ) {
        let payload = beside.writes().cloned().unwrap_or_else(|| Writes::new().finish());
        if record == Record::Rebuild {
            self.start_over();
        }
        if record == Record::Rebuild || !self.waiting.is_empty() {
            self.waiting.push_back((id, record, payload));
            return;
        }
        let lazy = durability == Durability::Lazy;
        if let Record::Item(item) = &record
            && let Some(mut batch) = self.draft.take()
        {
            self.add_item(&mut batch, item, &payload);
            self.draft = Some(batch);
            self.records.add(id, None, None);
            return;
        }
        self.store_record(id, &record, &payload, lazy, out);
        if lazy && self.lazy_since.is_none() {
            self.lazy_since = Some(now);
        }
    }

    fn store_record(
        &mut self,
        id: RecordId,
        record: &Record,
        payload: &Payload,
        lazy: bool,
        out: &mut Outbox,
    ) {
        let mut batch = Batch::new();
        let mut retired = None;
        match record {
            Record::Item(item) => self.add_item(&mut batch, item, payload),
            Record::Adopt(adoption) => {
                retired = self.install(adoption.checkpoint.op, out);
                if let Err(error) = self.add_adoption(&mut batch, adoption) {
                    self.halt(error, out);
                    return;
                }
            }
            Record::Checkpoint(checkpoint) => retired = self.install(checkpoint.op, out),
            // The reign that something was fetched for is over.
            Record::Promise(_) => self.receiver.forget(),
            Record::Rebuild | Record::Standing(_) => {}
        }
        let mut checkpoint = None;
        if !matches!(record, Record::Item(_)) {
            self.row.apply(record);
            self.row.tree = self.tree.id();
            self.row.floor = self.row.floor.max(self.floors.history());
            self.row.gc_floor = self.row.gc_floor.max(self.floors.tombstones());
            self.rows.put(&mut batch, self.shard, &self.row);
            checkpoint = Some(self.row.checkpoint.op);
        }
        let class = if lazy { Class::Buffered } else { Class::Synced };
        match self.store.write_admitted(&batch, class) {
            Ok(commit) => {
                let sequence = commit.sequence();
                self.last_write = sequence;
                self.records.add(id, Some(sequence), checkpoint);
                if let Some(old) = retired {
                    self.receiver.retire(sequence, old, self.tree.clone());
                }
                if !lazy {
                    out.must_be_durable(sequence);
                }
            }
            Err(_) if !self.config.holds(MemberRule::HaltWhenRefused) => {}
            Err(error) => self.halt(error, out),
        }
    }

    /// The item's values, and the item itself as their note.
    fn add_item(&mut self, batch: &mut Batch, item: &Item, payload: &Payload) {
        let note = note::encode(item, Came::Own, payload);
        // A tree that is being filled from files lacks what comes meanwhile.
        for tree in [Some(&self.tree), self.receiver.filling()].into_iter().flatten() {
            payload.add_to(batch, tree, item.op);
            batch.note(tree, item.op.version(), &note);
        }
        self.tail.insert(item.op, note);
    }

    /// In this order: retract, put.
    fn add_adoption(&mut self, batch: &mut Batch, adoption: &Adoption) -> kvorum_engine::Result<()> {
        for op in &adoption.retract {
            // What the installed files hold at or below their ceiling is final, whatever the member had of it.
            if *op > self.receiver.installed_upto()
                && self.config.holds(MemberRule::RetractValues)
                && let Some(note) = self.note_of(*op)
            {
                note.retract(batch, &self.tree);
            }
            self.tail.remove(op);
        }
        for item in &adoption.put {
            let Some(payload) = self.receiver.staged(item.op) else {
                let op = item.op;
                return Err(kvorum_engine::Error::Invalid(format!(
                    "item {op} of the adopted basis was not staged"
                )));
            };
            let payload = match self.config.holds(MemberRule::AdoptValues) {
                true => payload,
                false => Writes::new().finish(),
            };
            self.add_item(batch, item, &payload);
        }
        self.receiver.forget();
        Ok(())
    }

    /// Shipped files that reach up to a checkpoint take the place of the tree. Answers the one that they replace.
    fn install(&mut self, checkpoint: OpId, out: &mut Outbox) -> Option<kvorum_engine::Tree> {
        let (tree, ceiling) = self.receiver.take_built(checkpoint)?;
        self.row.floor = self.row.floor.max(ceiling);
        self.row.gc_floor = self.row.gc_floor.max(ceiling);
        Some(self.replace_tree(tree, out))
    }

    fn replace_tree(&mut self, tree: kvorum_engine::Tree, out: &mut Outbox) -> kvorum_engine::Tree {
        out.tree = Some(tree.clone());
        self.floors = Floors::of_tree(self.row.floor);
        std::mem::replace(&mut self.tree, tree)
    }

    /// The member's data is void. Its records wait until there is an empty tree.
    fn start_over(&mut self) {
        self.tail.clear();
        self.recent.clear();
        self.receiver.forget();
        self.receiver.add(Work::Empty);
    }

    /// The empty tree of a rebuilt member is there: what waited for it is stored.
    pub(super) fn started_over(&mut self, tree: &kvorum_engine::Tree, out: &mut Outbox) {
        let waiting = std::mem::take(&mut self.waiting);
        for (id, record, payload) in waiting {
            if self.halted.is_some() {
                return;
            }
            if record == Record::Rebuild {
                let old = self.replace_tree(tree.clone(), out);
                self.store_record(id, &record, &payload, false, out);
                if let Some(sequence) = self.records.last() {
                    self.receiver.retire(sequence, old, tree.clone());
                }
            } else {
                self.store_record(id, &record, &payload, false, out);
            }
        }
    }
}
