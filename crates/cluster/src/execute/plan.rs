//! What must be held and made before requests can be evaluated.

use crate::alone::Hold;
use crate::keys::shard_of;
use crate::latch::{ShardId, ShardSet};
use crate::namespace::{Mode, NamespaceId, numbered};
use crate::namespaces::Namespace;
use crate::node::{Inner, Node};
use crate::prefetch::Work;
use crate::session::Request;
use kvorum_engine::Durability;
use kvorum_model::{Keyspace, Run};
use smallvec::SmallVec;

/// What the requests of a buffer need.
pub(crate) struct Plan {
    /// Shards whose latches are held while the requests are evaluated.
    pub(crate) latches: ShardSet,
    /// Requests that can be evaluated; the one after them needs `work` first.
    pub(crate) ready: usize,
    pub(crate) work: Option<Work>,
    /// Set if the one after them is not for this node alone.
    pub(crate) elsewhere: bool,
    /// Whether the node keeps by itself what is touched: no member of a group has a part in it.
    pub(crate) alone: bool,
    /// Of each ready request the shard of its first key, where it was needed for the latches.
    pub(crate) shards: SmallVec<[Option<ShardId>; 64]>,
    /// What a write must survive: of the namespaces that are touched, the one that asks for most.
    pub(crate) durability: Durability,
}

/// The shard of one key of the request under evaluation, which is asked for several times: hashing costs as much as a lookup.
#[derive(Default)]
pub(crate) struct KnownShard(Option<(NamespaceId, *const [u8], ShardId)>);

impl KnownShard {
    /// Of a request's first key, if the plan has it.
    pub(crate) fn of(request: &Request<'_>, shard: Option<ShardId>) -> KnownShard {
        let key = request.spec.keys_of(request.args).next();
        KnownShard(shard.zip(key).map(|(shard, key)| (request.namespace, std::ptr::from_ref(key), shard)))
    }

    /// The shard of a key. The known key lives as long as this, so what stands at its place is it.
    pub(crate) fn shard_of(&self, namespace: NamespaceId, key: &[u8]) -> ShardId {
        match self.0 {
            Some((of, known, shard)) if of == namespace && std::ptr::eq(known, key) => shard,
            _ => shard_of(namespace, key),
        }
    }
}

/// Whether a buffer's requests are executed one by one or as one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Each request for itself: a read of one key needs no latch.
    Each,
    /// All as one: nothing that they touch may change meanwhile.
    All,
}

impl Plan {
    /// A plan for nothing yet.
    pub(crate) fn new(hold: Option<&Hold<'_>>) -> Plan {
        Plan {
            latches: ShardSet::default(),
            ready: 0,
            work: None,
            elsewhere: false,
            alone: hold.is_some(),
            shards: SmallVec::new(),
            durability: Durability::Buffered,
        }
    }

    pub(crate) fn of(
        node: &Node,
        asked: Option<Durability>,
        requests: &[Request<'_>],
        isolation: Isolation,
        hold: Option<&Hold<'_>>,
    ) -> Plan {
        let inner = &*node.inner;
        let mut plan = Plan::new(hold);
        let mut known: Option<&Namespace> = None;
        for request in requests {
            let kept = match known.filter(|known| known.id == request.namespace) {
                Some(known) => known,
                None => {
                    let kept = inner.namespaces.get(request.namespace.id());
                    let Some(kept) = kept.filter(|kept| !kept.is_dropped()) else {
                        plan.work = Some(Work::Dropped(request.namespace));
                        break;
                    };
                    if hold.is_some_and(|hold| !hold.covers(kept)) {
                        plan.elsewhere = true;
                        break;
                    }
                    plan.durability = plan.durability.max(kept.durability(asked, node.durability()));
                    kept
                }
            };
            known = Some(kept);
            plan.work = plan.work_before(inner, kept, request);
            if plan.work.is_some() {
                break;
            }
            plan.ready += 1;
            plan.add_latches(request, isolation);
        }
        plan
    }

    fn add_latches(&mut self, request: &Request<'_>, isolation: Isolation) {
        let spec = request.spec;
        let mut first = None;
        match spec.run {
            Run::Keyspace(Keyspace::FlushDb) => self.latches.insert_namespace(request.namespace),
            Run::Keyspace(Keyspace::FlushAll) => {
                numbered().for_each(|each| self.latches.insert_namespace(each));
            }
            Run::Keyspace(_) if isolation == Isolation::All => {
                self.latches.insert_namespace(request.namespace);
            }
            Run::Data(_) if isolation == Isolation::All || needs_latches(request) => {
                for key in spec.keys_of(request.args) {
                    let shard = shard_of(request.namespace, key);
                    self.latches.insert(shard);
                    first.get_or_insert(shard);
                }
            }
            _ => {}
        }
        self.shards.push(first);
    }

    fn work_before(&self, inner: &Inner, namespace: &Namespace, request: &Request<'_>) -> Option<Work> {
        if !matches!(request.spec.run, Run::Data(_)) || !request.spec.is_write() {
            return None;
        }
        let is_available = request.namespace.mode() == Mode::Available;
        // Those of members are their matter.
        if !namespace.has_trees() && (is_available || self.alone) {
            return Some(Work::Trees(request.namespace));
        }
        let unbounded = is_available && !inner.hybrid.is_bounded(inner.time.now());
        unbounded.then_some(Work::StampBound)
    }
}

/// Whether a command is evaluated under latches: it writes, or it must see several keys as of one moment.
pub(crate) fn needs_latches(request: &Request<'_>) -> bool {
    let spec = request.spec;
    spec.is_write() || (spec.first_key != spec.last_key && spec.keys_of(request.args).nth(1).is_some())
}
