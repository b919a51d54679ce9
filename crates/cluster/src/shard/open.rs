//! Opening a member from what its store holds, and making one of a shard that a node alone wrote.

use super::carry::Beside;
use super::config::MemberConfig;
use super::durable::Records;
use super::floors::Floors;
use super::member::Member;
use super::note::{self, Came};
use super::outbox::Outbox;
use super::planted::MemberRule;
use super::recent::Recent;
use super::row::Row;
use super::rows::Rows;
use super::transfer::{Receiver, Sources, clean_up};
use crate::error::{Error, Result};
use crate::keys::tree_name;
use crate::latch::ShardId;
use bytes::Bytes;
use kvorum_engine::fs::Fs;
use kvorum_engine::{Batch, Store, Tree, TreeSettings};
use kvorum_sync::{Checkpoint, Durable, Effects, Epoch, Input, Moment, OpId, Promise, Replica, StoreId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What a member is made of.
#[derive(Clone)]
pub struct MemberParts {
    /// The store.
    pub store: Store,
    /// Its file system.
    pub fs: Arc<dyn Fs>,
    /// Where states of members stand in it.
    pub rows: Rows,
    /// The shard.
    pub shard: ShardId,
    /// The store's id.
    pub me: StoreId,
    /// Drawn at every start.
    pub nonce: u64,
    /// Limits and times.
    pub config: MemberConfig,
}

impl Member {
    /// Opens the member from what the store holds of it; a new one has nothing. Blocks.
    ///
    /// # Errors
    /// What can't be read of it, or what the store refuses.
    pub fn open(parts: MemberParts, now: Moment, out: &mut Outbox) -> Result<Member> {
        let found = parts.rows.read(parts.shard)?;
        let tree = own_tree(&parts, found.as_ref())?;
        clean_up(&*parts.fs, parts.store.path(), parts.shard)?;
        let row = found.unwrap_or_else(|| Row { tree: tree.id(), ..Row::default() });
        let (durable, tail) = recovered(&tree, &row, &parts.config)?;
        let mut effects = Effects::new();
        let MemberParts { store, fs, rows, shard, me, nonce, config } = parts;
        let replica = Replica::recover(me, nonce, config.core.clone(), &durable, true, now, &mut effects);
        // The last transfer may have brought items in part, and the last run may have cut the history up to the checkpoint: nothing below is given
        // out.
        let (floor, gc_floor) = (row.floor.max(row.checkpoint.op), row.gc_floor);
        let mut floors = Floors::of_tree(floor);
        floors.checkpoint_durable(row.checkpoint.op, row.checkpoint.time);
        let mut member = Member {
            store,
            fs,
            rows,
            shard,
            tree,
            config,
            replica,
            row,
            records: Records::default(),
            waiting: VecDeque::new(),
            tail,
            recent: Recent::default(),
            clears: BTreeSet::new(),
            last_write: 0,
            clients: BTreeMap::new(),
            watchers: Vec::new(),
            proposing: None,
            refused: None,
            draft: None,
            wants_bytes: false,
            sources: Sources::default(),
            receiver: Receiver::default(),
            repeats: Vec::new(),
            repeating: false,
            floors,
            lazy_since: None,
            halted: None,
            again: VecDeque::new(),
            effects: Effects::new(),
        };
        for effect in effects.drain() {
            member.carry_out(now, effect, &Beside::Nothing, out);
        }
        member.feed(now, Input::Floors { floor, gc_floor }, Beside::Nothing, out);
        member.start_jobs(out);
        Ok(member)
    }

    /// Makes the first member of a group of a shard that this store wrote as a node alone: everything in it is final. `batch` gets the member's
    /// state; it must be durable before the member is opened. `epoch` is one that the store began, above all op ids in the shard; `time_ms` is
    /// not below any that it told. Only for the store that is the shard's one member: what others hold of it is unknown to the groups. Answers
    /// the op id up to which all is final; `None`: there is a member, or the shard was never written.
    ///
    /// # Errors
    /// What can't be read of it.
    pub fn convert(
        parts: &MemberParts,
        epoch: Epoch,
        time_ms: u64,
        batch: &mut Batch,
    ) -> Result<Option<OpId>> {
        let Some(tree) = parts.store.find_tree(&tree_name(parts.shard)) else { return Ok(None) };
        if parts.rows.read(parts.shard)?.is_some() {
            return Ok(None);
        }
        let op = OpId::new(epoch, 0);
        let row = Row {
            promise: Promise { epoch, manager: parts.me, nonce: parts.nonce },
            epoch,
            basis_end: op,
            checkpoint: Checkpoint { op, time: time_ms, ..Checkpoint::default() },
            tree: tree.id(),
            // What was written alone has no notes, and its tombstones went when nobody else needed them.
            floor: op,
            gc_floor: op,
            ..Row::default()
        };
        parts.rows.put(batch, parts.shard, &row);
        Ok(Some(op))
    }
}

/// The tree that holds the member's data, under the shard's name; the others that bear it are half-made or done with, and go.
pub(super) fn own_tree(parts: &MemberParts, row: Option<&Row>) -> Result<Tree> {
    let (store, base) = (&parts.store, tree_name(parts.shard));
    let made = format!("{base}{MADE}");
    let others: Vec<Arc<str>> =
        store.tree_names().into_iter().filter(|name| name.starts_with(&made)).collect();
    if let Some(row) = row {
        let is_own = |tree: &Tree| tree.id() == row.tree;
        if !store.find_tree(&base).is_some_and(|tree| is_own(&tree)) {
            let own = others.iter().find(|name| store.find_tree(name).is_some_and(|tree| is_own(&tree)));
            let lost =
                || Error::Storage(format!("the tree {} of {base} is not there: restore the store", row.tree));
            let own = own.ok_or_else(lost)?;
            store.tree(&base, TreeSettings::with_history())?;
            store.swap_trees(&base, own)?;
        }
    }
    let names: Vec<&str> = others.iter().map(AsRef::as_ref).collect();
    store.drop_trees(&names)?;
    Ok(store.tree(&base, TreeSettings::with_history())?)
}

/// What stands between a shard's name and the number of a tree in the making.
pub(super) const MADE: char = '~';

type Tail = BTreeMap<OpId, Bytes>;

/// The core's durable state, and the notes of the tail.
fn recovered(tree: &Tree, row: &Row, config: &MemberConfig) -> Result<(Durable, Tail)> {
    let (mut durable, mut tail) = (row.durable(), Tail::new());
    if !config.holds(MemberRule::TailFromNotes) {
        return Ok((durable, tail));
    }
    for (version, bytes) in tree.notes(row.checkpoint.op.version() + 1..)? {
        let op = OpId::from_version(version);
        let note = note::decode(op, &bytes).map_err(|expected| {
            Error::Storage(format!(
                "the note of {op} in {} lacks {expected}: {}",
                tree.name(),
                bytes.escape_ascii()
            ))
        })?;
        if note.came == Came::Own {
            durable.tail.insert(op, note.item);
            tail.insert(op, bytes);
        }
    }
    Ok((durable, tail))
}
