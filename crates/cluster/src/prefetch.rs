//! Work that needs the disk, to be done where waiting does no harm.

use crate::error::{Error, Result};
use crate::keys::{tree_name, with_user_key};
use crate::keyspace::{Reading, Scanned};
use crate::latch::ShardId;
use crate::namespace::{Mode, NamespaceId};
use crate::namespaces::Namespace;
use crate::node::Node;
use kvorum_engine::{Found, FoundVersion, Tree, TreeSettings, View};
use std::time::Duration;

/// Values are read ahead for the requests behind the blocked one up to this size, all together.
const LOOKAHEAD_BYTES_MAX: usize = 1 << 20;

/// What a blocked request needs before it can go on: records from the disk, or room in the write buffers.
#[must_use]
pub struct Prefetch {
    node: Node,
    job: Box<(Work, Fetched)>,
}

pub(crate) enum Work {
    /// Reads keys.
    Keys(Vec<WantedKey>),
    /// Makes the trees of a namespace.
    Trees(NamespaceId),
    /// None: the namespace was dropped, and this is how its request learns it.
    Dropped(NamespaceId),
    /// Raises the bound on hybrid timestamps.
    StampBound,
    /// Waits until the write buffers have room again.
    Room(Duration),
    /// Runs a command over all keys, the one at this place of its transaction.
    Keyspace(usize, Box<Reading>),
}

/// A key to be read.
pub(crate) struct WantedKey {
    pub(crate) namespace: NamespaceId,
    pub(crate) shard: ShardId,
    pub(crate) key: Vec<u8>,
    pub(crate) with_value: bool,
    /// Whether the blocked request can't do without; the others come along while there is room.
    pub(crate) needed: bool,
    /// The tree that it is read from; `None`: the shard's.
    pub(crate) tree: Option<Tree>,
    /// Set if the command must see the key's newest state: the mark of [`Fetching`](crate::fetching::Fetching). Its interest ends with
    /// [`Interest`].
    pub(crate) interest: Option<Interest>,
}

/// An interest in the writes of a key, ended when dropped.
pub(crate) struct Interest {
    pub(crate) node: Node,
    pub(crate) shard: ShardId,
    pub(crate) key: Vec<u8>,
    pub(crate) mark: u64,
}

impl Drop for Interest {
    fn drop(&mut self) {
        if let Some(shard) = self.node.inner.shard(self.shard) {
            shard.latch().fetching.end(&self.key);
        }
    }
}

/// What a [`Prefetch`] brought, for [`Session::resume`](crate::Session::resume).
#[derive(Default)]
pub struct Fetched {
    /// In order of namespace and key.
    keys: Vec<FetchedKey>,
    /// What commands over all keys have read, by the place of the command in its transaction.
    pub(crate) scanned: Vec<(usize, Scanned)>,
    /// How often such a command was read for the same transaction.
    pub(crate) scans: usize,
    /// How long the request has waited for room in the write buffers.
    pub(crate) waited: Duration,
    /// Why the work failed: the reply of the blocked request.
    pub(crate) error: Option<Error>,
}

/// A key that was read.
pub(crate) struct FetchedKey {
    namespace: NamespaceId,
    key: Vec<u8>,
    with_value: bool,
    pub(crate) record: Option<Found>,
    pub(crate) version: Option<FoundVersion>,
    /// Set if the record counts only while nobody wrote the key since.
    pub(crate) mark: Option<u64>,
    _interest: Option<Interest>,
}

impl Prefetch {
    /// `had`: what was fetched for the same request before, and is needed still.
    pub(crate) fn new(node: &Node, work: Work, had: Fetched) -> Prefetch {
        Prefetch { node: node.clone(), job: Box::new((work, had)) }
    }

    /// Does the work; may block for long (`KEYS` reads all keys). For a thread that nothing else waits for.
    pub fn run(self) -> Fetched {
        let Prefetch { node, job } = self;
        let (work, mut fetched) = *job;
        let done = match work {
            Work::Keys(keys) => fetched.read_all(&node, keys),
            Work::Trees(namespace) => make_trees(&node, namespace),
            Work::Dropped(namespace) => Err(dropped(&node, namespace)),
            Work::StampBound => node.inner.raise_stamp_bound(),
            Work::Room(time) => {
                fetched.waited += time;
                node.inner.store.held_back(fetched.waited);
                node.inner.wait_for_room(time)
            }
            Work::Keyspace(at, reading) => reading.run(&node).map(|scanned| fetched.add_scanned(at, scanned)),
        };
        fetched.error = done.err();
        fetched
    }
}

impl Fetched {
    /// Nothing.
    pub(crate) fn none() -> &'static Fetched {
        static NONE: Fetched =
            Fetched { keys: Vec::new(), scanned: Vec::new(), scans: 0, waited: Duration::ZERO, error: None };
        &NONE
    }

    fn add_scanned(&mut self, at: usize, scanned: Scanned) {
        self.scans += 1;
        self.scanned.retain(|(other, _)| *other != at);
        self.scanned.push((at, scanned));
    }

    /// The key's record, if it was fetched, with its value if that is wanted.
    pub(crate) fn get(&self, namespace: NamespaceId, key: &[u8], with_value: bool) -> Option<&FetchedKey> {
        let place = self.place(namespace, key).ok()?;
        self.keys.get(place).filter(|found| found.with_value || !with_value)
    }

    fn place(&self, namespace: NamespaceId, key: &[u8]) -> std::result::Result<usize, usize> {
        self.keys.binary_search_by(|found| (found.namespace, found.key.as_slice()).cmp(&(namespace, key)))
    }

    fn read_all(&mut self, node: &Node, keys: Vec<WantedKey>) -> Result<()> {
        let mut bytes = 0;
        for wanted in keys {
            if !wanted.needed && bytes >= LOOKAHEAD_BYTES_MAX {
                continue;
            }
            let fetched = read(node, wanted)?;
            bytes += fetched.record.as_ref().map_or(0, |record| record.value.len());
            match self.place(fetched.namespace, &fetched.key) {
                // It takes the place of an older one, or of one without its value.
                Ok(place) => {
                    if let Some(former) = self.keys.get_mut(place) {
                        *former = fetched;
                    }
                }
                Err(place) => self.keys.insert(place, fetched),
            }
        }
        Ok(())
    }
}

fn read(node: &Node, wanted: WantedKey) -> Result<FetchedKey> {
    let WantedKey { namespace, shard, key, with_value, tree, interest, .. } = wanted;
    let (mut record, mut version) = (None, None);
    if let Some(tree) = tree.as_ref().or_else(|| node.inner.tree(shard)) {
        let view = View::newest();
        if with_value {
            record = with_user_key(&key, |tree_key| tree.get(tree_key, &view))?;
            version = record.as_ref().map(version_of);
        } else {
            version = with_user_key(&key, |tree_key| tree.version_of(tree_key, &view))?;
        }
    }
    let mark = interest.as_ref().map(|interest| interest.mark);
    Ok(FetchedKey { namespace, key, with_value, record, version, mark, _interest: interest })
}

fn version_of(found: &Found) -> FoundVersion {
    let Found { version, sequence, kind, expires_at, tag, .. } = *found;
    FoundVersion { version, sequence, kind, expires_at, tag }
}

/// The error of whoever comes with the handle of a namespace that was dropped.
pub(crate) fn dropped(node: &Node, namespace: NamespaceId) -> Error {
    let name = node.inner.namespaces.get(namespace.id()).map(Namespace::name);
    Error::NoNamespace(name.unwrap_or_default() + " any more: it was dropped")
}

/// Makes the trees of a namespace: all at once, when it is first written to.
fn make_trees(node: &Node, namespace: NamespaceId) -> Result<()> {
    let inner = &*node.inner;
    // In a cluster a strong namespace gets its trees here only as long as they are not its members' matter.
    let hold = inner.alone();
    if hold.is_none() && namespace.mode() == Mode::Strong {
        return Ok(());
    }
    let _one = inner.changing_namespaces.lock();
    let kept = inner.namespaces.get(namespace.id()).filter(|namespace| !namespace.is_dropped());
    let kept = kept.ok_or_else(|| dropped(node, namespace))?;
    let names: Vec<String> = ShardId::all_of(namespace).map(tree_name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let trees = inner.store.trees(&names, tree_settings(namespace))?;
    for ((_, shard), tree) in kept.shards().zip(trees) {
        // Made under the lock; one that is set already is the same tree.
        let _ = shard.tree.set(tree);
    }
    Ok(())
}

/// A strong namespace has a history, of which a node alone keeps nothing; of an available one only the newest counts.
fn tree_settings(namespace: NamespaceId) -> TreeSettings {
    match namespace.mode() {
        Mode::Strong => TreeSettings::with_history(),
        Mode::Available => TreeSettings::newest_only(),
    }
}
