//! Replicas that lack something collect it, and entries go where they belong when nodes come and leave.

use super::collect::{Collect, Collecting, Moved, Moving};
use super::replica::{Replica, Sources};
use super::shell::{Frame, Shell, ceiling, refused};
use super::standing::Moment;
use super::{Answer, Ask};
use crate::control::{Map, NodeState};
use crate::entity::blocking;
use crate::error::Result;
use crate::node::Inner;
use crate::route::{Boxed, join};
use kvorum_engine::Durability;
use kvorum_sync::StoreId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl Shell {
    /// From now on a replica serves among the nodes that the map has. Waits for the disk.
    pub(super) fn turn(&self, inner: &Inner, replica: &Replica, is_opened: bool) -> Result<()> {
        let _one = self.turning.lock();
        let (map, order) = (self.control.map(), self.order());
        self.see_first_map(&map)?;
        if !is_opened && replica.is_among(&order) {
            return Ok(());
        }
        let own = self.own(inner, replica.namespace());
        let moment = Moment { now_ms: own.now_ms, lease_ms: own.lease_ms() };
        self.standing.turn(replica, &order, &self.sources(&map), moment, is_opened)?;
        if is_opened {
            self.begin_touch(inner, replica);
        }
        if !replica.is_whole() {
            self.lacks.notify_one();
        }
        Ok(())
    }

    /// From whom a replica of this node collects what it lacks.
    pub(super) fn sources(&self, map: &Map) -> Sources {
        let others = map.addresses().into_iter().map(|(store, _)| store);
        let name = |store: &StoreId| map.nodes.get(store).map(|row| &row.info.name);
        let mine = name(&self.me);
        // Others that came back on an empty disk collect for themselves.
        let left = map.nodes.values().filter(|row| row.state == NodeState::Left).map(|row| &row.info.name);
        Sources {
            others: others.filter(|store| *store != self.me).collect(),
            lost: left.filter(|name| Some(*name) == mine || map.named(name).is_none()).count(),
        }
    }

    /// What is there before this store comes may be older than it.
    fn see_first_map(&self, map: &Map) -> Result<()> {
        self.standing.begin(map.namespaces.keys().next_back().copied().unwrap_or(0))
    }

    /// Opens the replicas of what this node has trees of.
    pub(super) async fn open_replicas(self: &Arc<Self>) {
        let shell = Arc::clone(self);
        let opened = blocking(move || {
            let Some(node) = shell.node() else { return Ok(()) };
            shell.see_first_map(&shell.control.map())?;
            for kept in node.inner.namespaces.all().filter(|kept| kept.has_trees()) {
                if super::shell::is_kept(&node, kept.id.id()) {
                    shell.replica(&node, kept.id.id())?;
                }
            }
            Ok(())
        });
        if let Err(error) = opened.await {
            tracing::warn!("a replica of an available namespace can't be opened yet: {error}");
        }
    }

    /// Finds out of namespaces that this node never held anything of whether others did: if not, nothing is lacking. Answers whether all is known.
    pub(super) async fn look_at_unused(self: &Arc<Self>) -> bool {
        let Some(node) = self.node() else { return false };
        let order = self.order();
        let unused = |id: &u16| super::shell::is_kept(&node, *id) && super::shell::is_unused(&node, *id);
        let namespaces: Vec<u16> = self.control.map().namespaces.keys().copied().filter(unused).collect();
        let never = Moment { now_ms: 0, lease_ms: u64::MAX };
        let mut all = true;
        for namespace in namespaces {
            let (shell, names) = (Arc::clone(self), order.names());
            let begins = blocking(move || shell.standing.begins(namespace, &names, never)).await;
            if !begins.is_ok_and(|begins| begins.lacks) {
                continue;
            }
            let mut is_unused = true;
            for store in order.stores().filter(|store| *store != self.me) {
                let answer = self.ask(&Frame::own(namespace, &order), store, Ask::Standing).await;
                is_unused &= matches!(answer, Some(Answer::Standing(stands)) if stands.is_unused);
                all &= answer.is_some();
            }
            if is_unused {
                let (shell, names) = (Arc::clone(self), order.names());
                all &= blocking(move || shell.standing.is_whole(namespace, &names)).await.is_ok();
            }
        }
        all
    }

    /// The nodes have changed: some replicas may have to keep more.
    pub(super) async fn reconsider(self: &Arc<Self>) {
        for (_, replica) in self.opened() {
            let shell = Arc::clone(self);
            let begun = blocking(move || match shell.node() {
                Some(node) => shell.turn(&node.inner, &replica, false),
                None => Ok(()),
            });
            if let Err(error) = begun.await {
                tracing::warn!("what a replica lacks is not known yet: {error}");
            }
        }
    }

    /// The open replicas, by namespace.
    pub(super) fn opened(&self) -> Vec<(u16, Arc<Replica>)> {
        let mut open: Vec<_> =
            self.replicas.lock().iter().map(|(id, replica)| (*id, Arc::clone(replica))).collect();
        open.sort_unstable_by_key(|(id, _)| *id);
        open
    }

    /// Collects what a replica lacks from the nodes that are there.
    pub(super) async fn collect(self: &Arc<Self>, replica: &Arc<Replica>) {
        self.make_known(replica).await;
        let map = self.control.map();
        for peer in replica.lacking() {
            if map.state(peer) == NodeState::Left {
                replica.collected(peer, true);
            } else if self.transport.is_up(peer) {
                self.collect_from(replica, peer).await;
            }
        }
        if replica.is_whole() {
            let (shell, replica) = (Arc::clone(self), Arc::clone(replica));
            let noted = blocking(move || {
                let _one = shell.turning.lock();
                let order = shell.order();
                let holds = replica.is_whole() && replica.is_among(&order);
                if holds { shell.standing.is_whole(replica.namespace(), &order.names()) } else { Ok(()) }
            });
            if let Err(error) = noted.await {
                tracing::warn!("that a replica has all it should have is not noted: {error}");
            }
        }
    }

    /// Tells all others at once that this node is one of them now: writes count here as soon as they know.
    async fn make_known(self: &Arc<Self>, replica: &Arc<Replica>) {
        let frame = Frame::own(replica.namespace(), &self.order());
        let reached = |store: &StoreId| self.transport.is_up(*store);
        let ask = |store| -> Boxed<'_, _> {
            let frame = &frame;
            Box::pin(async move { (store, self.ask(frame, store, Ask::Standing).await) })
        };
        let asked = replica.unturned().into_iter().filter(reached).map(ask).collect();
        for (store, answer) in join(asked).await {
            if let Some(answer) = answer
                && replica.is_among(&frame.order)
            {
                replica.turned(store, matches!(answer, Answer::Standing(stands) if stands.is_whole));
            }
        }
    }

    async fn collect_from(self: &Arc<Self>, replica: &Arc<Replica>, peer: StoreId) {
        let frame = Frame::own(replica.namespace(), &self.order());
        let (mut collect, mut ask) = Collect::begin(peer);
        while let Some(answer) = self.ask(&frame, peer, ask).await {
            let Some(node) = self.node() else { return };
            let (shell, replica, order) = (Arc::clone(self), Arc::clone(replica), Arc::clone(&frame.order));
            let stepped = blocking(move || {
                let inner = &*node.inner;
                let alone_from = shell.alone_from(inner, replica.namespace());
                let next =
                    collect.step(answer, &replica, &order, (ceiling(inner), alone_from)).map_err(refused)?;
                if let Collecting::Done(collected) = &next {
                    // What came is durable before anybody relies on it.
                    inner.store.commit_at(inner.store.visible(), Durability::Synced).wait()?;
                    let _one = shell.turning.lock();
                    if replica.is_among(&order) {
                        collected.note(&replica);
                    }
                }
                Ok((collect, next))
            });
            match stepped.await {
                Ok((going_on, Collecting::Ask(next))) => (collect, ask) = (going_on, next),
                Ok(_) => return,
                Err(error) => {
                    tracing::debug!(store = peer.0, %error, "what a node has is not collected yet");
                    return;
                }
            }
        }
    }

    /// Hands the entries of a shard that others keep to all of those, and lets go of them. Answers whether none is left.
    pub(super) async fn move_away(self: &Arc<Self>, replica: &Arc<Replica>, place: u16) -> bool {
        let frame = Frame::own(replica.namespace(), &self.order());
        let (mut moving, mut answer) = (Moving::begin(place), None);
        loop {
            let (replica, order) = (Arc::clone(replica), Arc::clone(&frame.order));
            let stepped = blocking(move || {
                let next = moving.step(answer.as_ref(), &replica, &order).map_err(refused)?;
                Ok((moving, next))
            });
            match stepped.await {
                Ok((going_on, Moved::Ask(to, ask))) => {
                    moving = going_on;
                    answer = self.ask(&frame, to, ask).await;
                }
                Ok((_, Moved::Done(all))) => return all,
                Err(error) => {
                    tracing::debug!(%error, "entries that others keep stay until the next round");
                    return false;
                }
            }
        }
    }

    /// Deletions up to this version may be forgotten by others: the grace is over.
    pub(super) fn forgotten_upto(&self, namespace: u16) -> u64 {
        let Some(node) = self.node() else { return 0 };
        let Some(kept) = node.inner.namespaces.get(namespace) else { return 0 };
        let hybrid = &node.inner.hybrid;
        let now_ms = hybrid.now_ms(node.inner.time.now());
        hybrid.floor(now_ms.saturating_sub(kept.settings().grace_ms))
    }
}

/// How long it has been since then.
pub(super) fn since(begun: Instant) -> Duration {
    Instant::now().saturating_duration_since(begun)
}
