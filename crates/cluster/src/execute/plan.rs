//! What must be held and made before requests can be evaluated.

use crate::keys::shard_of;
use crate::namespace::{Mode, NamespaceId};
use crate::node::Inner;
use crate::prefetch::Work;
use crate::session::Request;
use crate::shard::ShardSet;
use kvorum_model::{Keyspace, Run};

/// What the requests of a buffer need.
#[derive(Default)]
pub(crate) struct Plan {
    /// Shards whose latches are held while the requests are evaluated.
    pub(crate) latches: ShardSet,
    /// Requests that can be evaluated; the one after them needs `work` first.
    pub(crate) ready: usize,
    pub(crate) work: Option<Work>,
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
    pub(crate) fn of(inner: &Inner, requests: &[Request<'_>], isolation: Isolation) -> Plan {
        let mut plan = Plan::default();
        let now = inner.time.now();
        for request in requests {
            plan.work = work_before(inner, request, now);
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
        match spec.run {
            Run::Keyspace(Keyspace::FlushDb) => self.latches.insert_namespace(request.namespace),
            Run::Keyspace(Keyspace::FlushAll) => {
                strong().for_each(|each| self.latches.insert_namespace(each));
            }
            Run::Keyspace(_) if isolation == Isolation::All => {
                self.latches.insert_namespace(request.namespace);
            }
            Run::Data(_) if isolation == Isolation::All || needs_latches(request) => {
                for key in spec.keys_of(request.args) {
                    self.latches.insert(shard_of(request.namespace, key));
                }
            }
            _ => {}
        }
    }
}

/// Whether a command is evaluated under latches: it writes, or it must see several keys as of one moment.
pub(crate) fn needs_latches(request: &Request<'_>) -> bool {
    let spec = request.spec;
    spec.is_write() || (spec.first_key != spec.last_key && spec.keys_of(request.args).nth(1).is_some())
}

/// The namespaces that `FLUSHALL` clears.
pub(crate) fn strong() -> impl Iterator<Item = NamespaceId> {
    crate::namespace::all().filter(|namespace| namespace.mode() == Mode::Strong)
}

fn work_before(inner: &Inner, request: &Request<'_>, now: u64) -> Option<Work> {
    if !matches!(request.spec.run, Run::Data(_)) || !request.spec.is_write() {
        return None;
    }
    if !inner.has_trees(request.namespace) {
        return Some(Work::Trees(request.namespace));
    }
    let unbounded = request.namespace.mode() == Mode::Available && !inner.hybrid.is_bounded(now);
    unbounded.then_some(Work::StampBound)
}
