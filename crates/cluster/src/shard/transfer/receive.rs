//! The jobs of a receiver.

use super::files_in::FilesIn;
use super::piece::{self, is_last};
use crate::shard::note::{self, Came};
use bytes::Bytes;
use kvorum_engine::fs::Fs;
use kvorum_engine::{Batch, Durability, Error, Store, Tree, TreeSettings};
use kvorum_sync::{OpId, TransferId, Way};
use std::path::PathBuf;
use std::sync::Arc;

/// See [`super::Work`], with all it takes.
pub(in crate::shard) enum ReceiveJob {
    /// An empty tree.
    Empty {
        /// Its name.
        name: String,
    },
    /// A folder and a tree for files.
    Begin {
        /// Where the folder is.
        fs: Arc<dyn Fs>,
        /// The folder.
        dir: PathBuf,
        /// The tree's name.
        name: String,
        /// Whose files.
        transfer: TransferId,
        /// What is above is dropped.
        ceiling: OpId,
    },
    /// Parts of files.
    Files {
        /// What is here of them.
        files: Box<FilesIn>,
        /// The piece.
        number: u64,
        /// What it brought.
        payload: Bytes,
        /// The member's tree.
        own: Tree,
        /// Its items above the ceiling.
        tail: Vec<OpId>,
    },
    /// Items or entries.
    Data {
        /// The member's tree.
        tree: Tree,
        /// Whose.
        transfer: TransferId,
        /// The piece.
        number: u64,
        /// What it holds.
        way: Way,
        /// What is above is dropped.
        ceiling: OpId,
        /// What it brought.
        payload: Bytes,
        /// The member's own items: they stand as they are.
        own: Vec<OpId>,
    },
    /// Files of no use.
    Discard(Box<FilesIn>),
    /// A tree of no use.
    Retire {
        /// The shard's name of its tree.
        base: String,
        /// The tree.
        old: Tree,
        /// What took its place.
        new: Tree,
    },
}

/// What came of it.
pub(in crate::shard) enum Received {
    /// Nothing that anybody waits for.
    Nothing,
    /// An empty tree.
    Empty(kvorum_engine::Result<Tree>),
    /// Files may come.
    Began {
        /// Whose.
        transfer: TransferId,
        /// Where they go.
        files: Result<Box<FilesIn>, String>,
    },
    /// Files came.
    Files {
        /// All of them so far.
        files: Box<FilesIn>,
        /// The piece.
        number: u64,
        /// Whether it was the last.
        last: bool,
        /// Whether they could be stored.
        result: Result<(), String>,
    },
    /// Data came.
    Data {
        /// Whose.
        transfer: TransferId,
        /// The piece.
        number: u64,
        /// Up to where history came in part, behind the last piece.
        upto: Option<OpId>,
        /// Whether it could be stored.
        result: kvorum_engine::Result<()>,
    },
    /// There was no room for the job.
    Refused(ReceiveJob),
}

impl ReceiveJob {
    /// Blocks.
    pub(in crate::shard) fn run(self, store: &Store) -> Received {
        match self {
            ReceiveJob::Empty { name } => Received::Empty(store.tree(&name, TreeSettings::with_history())),
            ReceiveJob::Begin { fs, dir, name, transfer, ceiling } => {
                let files = FilesIn::begin((&fs, store), (&dir, &name), (transfer, ceiling));
                Received::Began { transfer, files: files.map(Box::new).map_err(|error| error.to_string()) }
            }
            ReceiveJob::Files { mut files, number, payload, own, tail } => {
                let last = is_last(&payload);
                let result = take_files(&mut files, store, &payload, (&own, &tail));
                Received::Files { files, number, last, result }
            }
            ReceiveJob::Data { tree, transfer, number, way, ceiling, payload, own } => {
                let upto = (is_last(&payload) && way == Way::Delta).then_some(ceiling);
                let result = take_data(store, &tree, (way, ceiling), &payload, &own);
                Received::Data { transfer, number, upto, result }
            }
            ReceiveJob::Discard(files) => {
                if let Err(error) = files.remove(store) {
                    tracing::warn!(%error, "files of a broken transfer are left until the next start");
                }
                Received::Nothing
            }
            ReceiveJob::Retire { base, old, new } => {
                if let Err(error) = retire(store, &base, &old, &new) {
                    tracing::warn!(%error, tree = base, "a tree of no use is left until the next start");
                }
                Received::Nothing
            }
        }
    }
}

fn take_files(
    files: &mut FilesIn,
    store: &Store,
    payload: &Bytes,
    (own, tail): (&Tree, &[OpId]),
) -> Result<(), String> {
    let taken = files.take(piece::files(payload)?);
    let done = taken.and_then(|()| if is_last(payload) { files.finish(store, own, tail) } else { Ok(()) });
    done.map_err(|error| error.to_string())
}

fn take_data(
    store: &Store,
    tree: &Tree,
    (way, ceiling): (Way, OpId),
    payload: &Bytes,
    own: &[OpId],
) -> kvorum_engine::Result<()> {
    let mut floor = OpId::ZERO;
    loop {
        let batch = data_batch(tree, (way, floor, ceiling), payload, own)?;
        if batch.is_empty() {
            return Ok(());
        }
        match store.write_waiting(&batch, Durability::Synced) {
            // Items came from the leader meanwhile, and the checkpoint passed what the piece holds: the member has that already.
            Err(Error::BelowFloor { floor: risen, .. }) if risen > floor.version() => {
                floor = OpId::from_version(risen);
            }
            taken => return taken?.wait(),
        }
    }
}

/// What a piece holds above the floor and up to the ceiling.
fn data_batch(
    tree: &Tree,
    (way, floor, ceiling): (Way, OpId, OpId),
    payload: &Bytes,
    own: &[OpId],
) -> kvorum_engine::Result<Batch> {
    let mut batch = Batch::new();
    let strange = |expected| Error::Invalid(format!("a piece of a transfer lacks {expected}"));
    let wanted = |version: u64| version > floor.version() && version <= ceiling.version();
    if way == Way::Items {
        for item in piece::items(payload).map_err(strange)? {
            if wanted(item.op.version()) && own.binary_search(&item.op).is_err() {
                item.payload.add_to(&mut batch, tree, item.op);
                batch.note(tree, item.op.version(), &note::with_kind(&item.note, Came::Shipped));
            }
        }
    } else {
        let delta = piece::delta(payload).map_err(strange)?;
        delta
            .clears
            .iter()
            .filter(|version| wanted(**version))
            .for_each(|version| batch.clear(tree, *version));
        let entries = delta.entries.iter().filter(|(version, _)| wanted(*version));
        entries.for_each(|(version, write)| write.add_to(&mut batch, tree, *version));
    }
    Ok(batch)
}

/// Gives the shard's name to its tree, and drops the other one.
fn retire(store: &Store, base: &str, old: &Tree, new: &Tree) -> kvorum_engine::Result<()> {
    let name = new.name();
    if &*name != base {
        store.swap_trees(base, &name)?;
    }
    store.drop_tree(&old.name())?;
    Ok(())
}
