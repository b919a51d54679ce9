//! `WAIT` and `WAITAOF`: how many have what a connection wrote.

use super::attempt::{Kind, PATIENCE_MS};
use super::codec::{Answer, Work};
use super::join::{Boxed, join};
use super::router::{Asked, Router, millis};
use crate::latch::ShardId;
use crate::node::Node;
use crate::runtime::Cluster;
use crate::session::Session;
use kvorum_engine::Durability;
use kvorum_sync::Holders;
use std::sync::Arc;
use std::time::Duration;

/// How long the next question waits when nobody answered the last one, in milliseconds.
const PAUSE_MS: u64 = 50;

/// Who has everything that a connection has written to strong namespaces and knows the outcome of, on its device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Whether the leaders of the shards have it; of a node alone, whether it does.
    pub local: bool,
    /// How many other members of each shard have it, at least.
    pub replicas: u64,
}

impl Node {
    /// Waits until as many have the connection's writes as are wanted, or `within` is over (`None`: however long it takes). Answers who has them then.
    /// A node alone has no replicas, and waits for none.
    pub async fn held(&self, session: &Session, wanted: Held, within: Option<Duration>) -> Held {
        let Some(cluster) = self.inner.cluster.get() else {
            return self.held_alone(session, wanted.local, within).await;
        };
        let deadline = within
            .map(|within| millis().saturating_add(u64::try_from(within.as_millis()).unwrap_or(u64::MAX)));
        if session.written.sequence > 0
            && let Some(held) = self.held_until_handed_over(cluster, session, wanted, within, deadline).await
        {
            return held;
        }
        self.held_by_all(cluster, session, wanted, deadline).await
    }

    /// Of a connection that wrote while this node kept everything alone: who has that as long as groups do not have it, if that is enough or
    /// the time is over; `None` once they have it.
    async fn held_until_handed_over(
        &self,
        cluster: &Arc<Cluster>,
        session: &Session,
        wanted: Held,
        within: Option<Duration>,
        deadline_ms: Option<u64>,
    ) -> Option<Held> {
        let router = Router { node: self, cluster, own_shards: false };
        while cluster.handed_over.get().is_none() {
            let held = self.held_alone(session, wanted.local, within).await;
            let is_enough = wanted.replicas == 0 && (held.local || !wanted.local);
            if is_enough || deadline_ms.is_some_and(|deadline| millis() >= deadline) {
                return Some(held);
            }
            router.pause(PAUSE_MS).await;
        }
        None
    }

    /// Who has the connection's writes now.
    pub async fn held_now(&self, session: &Session) -> Held {
        // Nothing is wanted, so nobody waits but for the leaders' word.
        self.held(session, Held::default(), Some(Duration::from_millis(PATIENCE_MS))).await
    }

    /// Whether a node alone has the connection's writes on its device now.
    pub fn is_held_alone(&self, session: &Session) -> bool {
        self.inner.store.acknowledged(Durability::Synced) >= session.written.sequence
    }

    async fn held_alone(&self, session: &Session, wants_local: bool, within: Option<Duration>) -> Held {
        let sequence = session.written.sequence;
        if wants_local && let Some(commit) = crate::execute::commit(self, sequence, Durability::Synced) {
            // A failed sync leaves it where it is: not held.
            let _ = match within {
                Some(within) => tokio::time::timeout(within, commit.durable()).await.ok(),
                None => Some(commit.durable().await),
            };
        }
        Held { local: self.is_held_alone(session), replicas: 0 }
    }

    async fn held_by_all(
        &self,
        cluster: &Arc<Cluster>,
        session: &Session,
        wanted: Held,
        deadline_ms: Option<u64>,
    ) -> Held {
        let router = Router { node: self, cluster, own_shards: false };
        let others = usize::try_from(wanted.replicas).unwrap_or(usize::MAX);
        let wanted = Holders { leader: wanted.local, others };
        let mut shards = session.written.shards.clone();
        if session.written.sequence > 0 {
            // It is not known which of them it wrote to before groups kept them.
            for (shard, op) in cluster.handed_over.get().into_iter().flatten() {
                shards.entry(*shard).or_insert(op.version());
            }
        }
        let asks = shards
            .iter()
            .map(|(shard, op)| {
                Box::pin(router.held(*shard, *op, wanted, deadline_ms)) as Boxed<'_, Option<Holders>>
            })
            .collect();
        let mut all = join(asks).await.into_iter().flatten();
        // Who wrote nothing lacks nothing: the Redis protocol counts every replica then.
        let Some(first) = all.next() else { return Held { local: true, replicas: router.others() } };
        let least = all.fold(first, |least, held| Holders {
            leader: least.leader && held.leader,
            others: least.others.min(held.others),
        });
        Held { local: least.leader, replicas: least.others as u64 }
    }
}

impl Router<'_> {
    /// Who holds an item of a shard; `None` if the shard is not there any more.
    async fn held(
        &self,
        shard: ShardId,
        op: u64,
        wanted: Holders,
        deadline_ms: Option<u64>,
    ) -> Option<Holders> {
        let mut last = Holders::default();
        loop {
            let kept = self.node.inner.namespaces.get(shard.namespace).filter(|kept| !kept.is_dropped())?;
            let left = deadline_ms.map_or(PATIENCE_MS, |deadline| deadline.saturating_sub(millis()));
            let work = Work::Held { op, wanted };
            // The leader is asked anew now and then: it may be another one.
            let asked = self.ask_within(left.min(PATIENCE_MS), shard, kept.id, Kind::Read, &work, None).await;
            match asked {
                Asked::Answer(Answer::Held(held)) => last = held,
                // The same question at once would bring the same answer.
                _ => self.pause(PAUSE_MS.min(left)).await,
            }
            let is_enough = last.others >= wanted.others && (last.leader || !wanted.leader);
            if is_enough || deadline_ms.is_some_and(|deadline| millis() >= deadline) {
                return Some(last);
            }
        }
    }

    /// The other nodes that can be reached.
    fn others(&self) -> u64 {
        let map = self.cluster.control.map();
        map.nodes.keys().filter(|store| self.cluster.transport.is_up(**store)).count() as u64
    }
}
