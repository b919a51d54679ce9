//! Replicas that lack something collect it, and entries go where they belong when nodes come and leave. Floors rise only when nobody is asleep who
//! could bring back what was deleted.

use super::replica::{LISTED_MAX, Replica};
use super::shell::{Frame, Shell, refused};
use super::{Answer, Ask, Exchange};
use crate::control::{Map, NodeState};
use crate::entity::blocking;
use crate::error::Result;
use crate::node::Inner;
use bytes::Bytes;
use kvorum_model::slot;
use kvorum_sync::StoreId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Floors rise by so much at once.
const FLOOR_STEP_MS: u64 = 60_000;

/// Nodes that were heard to be awake in this life, each of one namespace.
#[derive(Default)]
pub(super) struct Heard(BTreeSet<(u16, StoreId)>);

impl Shell {
    /// Finds out what a replica that is opened lacks, or one that is open when the nodes have changed. Waits for the disk.
    pub(super) fn begin(&self, inner: &Inner, replica: &Replica, is_opened: bool) -> Result<()> {
        let (map, order) = (self.control.map(), self.order());
        self.see_first_map(&map)?;
        let namespace = replica.namespace();
        let grace_ms = inner.namespaces.get(namespace).map_or(u64::MAX, |kept| kept.settings().grace_ms);
        let now_ms = inner.hybrid.now_ms(inner.time.now());
        let begins = self.standing.begins(namespace, &order.names(), now_ms, grace_ms)?;
        if begins.lacks && (is_opened || !begins.doubts) {
            let others = map.addresses().into_iter().map(|(store, _)| store);
            replica.lacks(others.filter(|store| *store != self.me));
        }
        if replica.is_whole() {
            return self.standing.is_whole(namespace, &order.names());
        }
        if begins.doubts && is_opened {
            replica.doubt();
        }
        self.lacks.notify_one();
        Ok(())
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
        let mut all = true;
        for namespace in namespaces {
            let (shell, names) = (Arc::clone(self), order.names());
            let begins = blocking(move || shell.standing.begins(namespace, &names, 0, u64::MAX)).await;
            if !begins.is_ok_and(|begins| begins.lacks) {
                continue;
            }
            let mut is_unused = true;
            for store in order.stores().filter(|store| *store != self.me) {
                let answer = self.ask(&Frame::own(namespace, &order), store, Ask::Standing).await;
                is_unused &= matches!(answer, Some(Answer::Standing { is_unused: true, .. }));
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
                Some(node) => shell.begin(&node.inner, &replica, false),
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
        let map = self.control.map();
        for peer in replica.lacking() {
            if map.state(peer) == NodeState::Left || self.collect_from(replica, peer).await {
                replica.collected(peer);
            }
        }
        if replica.is_whole() {
            let (shell, namespace, names) = (Arc::clone(self), replica.namespace(), self.order().names());
            if let Err(error) = blocking(move || shell.standing.is_whole(namespace, &names)).await {
                tracing::warn!("that a replica has all it should have is not noted: {error}");
            }
        }
    }

    async fn collect_from(self: &Arc<Self>, replica: &Arc<Replica>, peer: StoreId) -> bool {
        if !self.transport.is_up(peer) {
            return false;
        }
        let frame = Frame::own(replica.namespace(), &self.order());
        let answer = self.ask(&frame, peer, Ask::Standing).await;
        let (Some(Answer::Standing { floor, doubts, .. }), Some(node)) = (answer, self.node()) else {
            return false;
        };
        if replica.doubts() && doubts {
            // Both slept: neither knows more than the other.
            return true;
        }
        let awake = self.standing.awake_before_ms.map_or(0, |awake| node.inner.hybrid.floor(awake));
        let deleted_upto = if replica.doubts() && floor > awake { floor } else { 0 };
        for place in 0..replica.places() {
            let begun = Exchange::collect(peer, place, deleted_upto);
            if !self.exchange(&frame, replica, peer, begun).await {
                return false;
            }
        }
        true
    }

    /// Hands the entries of a shard that others keep to all of those, and lets go of them. Answers whether none is left.
    pub(super) async fn move_away(self: &Arc<Self>, replica: &Arc<Replica>, place: u16) -> bool {
        let frame = Frame::own(replica.namespace(), &self.order());
        let (mut after, mut all) = (None::<Bytes>, true);
        loop {
            let (looked, order) = (Arc::clone(replica), Arc::clone(&frame.order));
            let found =
                blocking(move || looked.misplaced(place, &order, after.as_deref()).map_err(refused)).await;
            let Ok(found) = found else { return false };
            let more = found.len() >= LISTED_MAX;
            after = found.last().map(|(key, _)| key.clone());
            for (key, version) in found {
                all &= self.move_one(&frame, replica, key, version).await;
            }
            if !more {
                return all;
            }
        }
    }

    async fn move_one(
        self: &Arc<Self>,
        frame: &Frame,
        replica: &Arc<Replica>,
        key: Bytes,
        version: u64,
    ) -> bool {
        let (looked, sought) = (Arc::clone(replica), key.clone());
        let Ok(Some(entry)) = blocking(move || looked.entry(&sought).map_err(refused)).await else {
            return false;
        };
        let keepers = frame.order.of_slot(slot(&key)).into_iter().take(entry.from.into());
        for to in keepers {
            let ask = Ask::Write { key: key.clone(), entry: entry.clone() };
            if !matches!(self.ask(frame, to, ask).await, Some(Answer::Stored { .. })) {
                return false;
            }
        }
        let replica = Arc::clone(replica);
        // If there is a newer one by now, it is looked at next time.
        entry.version == version
            && blocking(move || replica.forget(&key, &entry).map_err(refused)).await.is_ok()
    }

    /// Deletions up to this version may be forgotten by others: the grace is over.
    pub(super) fn forgotten_upto(&self, namespace: u16) -> u64 {
        let Some(node) = self.node() else { return 0 };
        let Some(kept) = node.inner.namespaces.get(namespace) else { return 0 };
        let hybrid = &node.inner.hybrid;
        let now_ms = hybrid.now_ms(node.inner.time.now());
        hybrid.floor(now_ms.saturating_sub(kept.settings().grace_ms))
    }

    /// Raises the floors below which deletions are forgotten, as far as no node can bring back what was deleted: each of the others was awake in
    /// this life of this node, or this node has been awake for the whole grace.
    pub(super) async fn raise_floors(self: &Arc<Self>, heard: &mut Heard, awake_for: Duration) {
        let Some(node) = self.node() else { return };
        for (namespace, replica) in self.opened().into_iter().filter(|(_, replica)| !replica.doubts()) {
            let kept = node.inner.namespaces.get(namespace);
            let Some(grace_ms) = kept.map(|kept| kept.settings().grace_ms) else { continue };
            let frame = Frame::own(namespace, &self.order());
            let mut are_awake = true;
            for store in frame.order.stores().filter(|store| *store != self.me) {
                if !heard.0.contains(&(namespace, store)) && self.transport.is_up(store) {
                    let answer = self.ask(&frame, store, Ask::Standing).await;
                    if matches!(answer, Some(Answer::Standing { doubts: false, .. })) {
                        heard.0.insert((namespace, store));
                    }
                }
                are_awake &= heard.0.contains(&(namespace, store));
            }
            if are_awake || awake_for >= Duration::from_millis(grace_ms) {
                let hybrid = &node.inner.hybrid;
                // Rounded, so that replicas mostly forget the same.
                let gone_ms = hybrid.now_ms(node.inner.time.now()).saturating_sub(grace_ms);
                let floor = hybrid.floor(gone_ms - gone_ms % FLOOR_STEP_MS);
                if let Err(error) =
                    blocking(move || replica.set_tombstone_floor(floor).map_err(refused)).await
                {
                    tracing::warn!("deletions can't be forgotten: {error}");
                }
            }
        }
    }

    /// Notes that this node is awake, unless a replica doubts what it holds: then it would not, after a restart.
    pub(super) async fn note_awake(self: &Arc<Self>) {
        if self.opened().iter().any(|(_, replica)| replica.doubts()) {
            return;
        }
        let shell = Arc::clone(self);
        let noted = blocking(move || match shell.node() {
            Some(node) => shell.standing.is_awake(node.inner.hybrid.now_ms(node.inner.time.now())),
            None => Ok(()),
        });
        if let Err(error) = noted.await {
            tracing::debug!("that this node is awake is not noted: {error}");
        }
    }
}

/// How long it has been since then.
pub(super) fn since(begun: Instant) -> Duration {
    Instant::now().saturating_duration_since(begun)
}
