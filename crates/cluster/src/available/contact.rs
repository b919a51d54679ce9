//! Nodes stay in touch: each tells the others that it is awake and what it has seen of theirs, forgets deletions as far as none of them can bring
//! back what was deleted, and doubts what it holds when it was out of touch for too long, asleep or cut off.

use super::floors::{Own, Told, away};
use super::replica::Replica;
use super::shell::{Frame, Shell, is_kept, is_unused, refused};
use super::touch::Touch;
use super::{Answer, Ask, Order};
use crate::entity::blocking;
use crate::error::{Error, Result};
use crate::node::{Inner, Node};
use crate::route::{Boxed, join};
use kvorum_engine::Durability;
use kvorum_sync::StoreId;
use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use std::time::Duration;

/// How often it is looked whether this node slept or was cut off, at most.
const PULSE_EVERY_MS: u64 = 1000;

/// How often nodes tell each other that they are awake, and floors are looked at.
const TOUCH_EVERY: Duration = Duration::from_secs(30);

impl Shell {
    /// This node is awake now. If it has been standing still for so long that others forget deletions meanwhile (a process that was stopped, a
    /// machine that was suspended), or was cut off for so long, its replicas doubt what they hold before they say anything more.
    pub(super) fn pulse(&self, inner: &Inner) {
        if self.awake_for_ms() >= self.pulse_at_ms.load(Acquire).saturating_add(PULSE_EVERY_MS) {
            self.look_back(inner);
        }
    }

    /// As [`Shell::pulse`], at once.
    fn look_back(&self, inner: &Inner) {
        let _one = self.turning.lock();
        let now_ms = inner.hybrid.now_ms(inner.time.now());
        let before_ms = self.pulse_ms.swap(now_ms, AcqRel);
        let order = self.order();
        let others = self.others(&order);
        for (namespace, replica) in self.opened() {
            let own = self.own(inner, namespace);
            let stood_still = before_ms > 0 && now_ms.saturating_sub(before_ms) > own.patience_ms();
            let mut touches = self.touches.lock();
            let Some(touch) = touches.get_mut(&namespace) else { continue };
            if stood_still || touch.is_lost(own, &others) {
                if !replica.doubts() {
                    tracing::warn!(
                        namespace,
                        "this node stood still or was cut off for as long as the grace: it collects anew"
                    );
                }
                replica.doubt(&order, &self.sources(&self.control.map()));
                touch.doubts(own, self.met_ms.load(Acquire));
                self.lacks.notify_one();
            }
        }
        if others.iter().any(|store| self.transport.is_up(*store)) {
            self.met_ms.store(now_ms, Release);
        }
        self.pulse_at_ms.store(self.awake_for_ms(), Release);
    }

    /// Stays in touch until the node ends.
    pub(crate) async fn stay_in_touch(self: Arc<Self>) {
        loop {
            if self.nodes() > 0
                && let Some(node) = self.node()
            {
                self.pulse(&node.inner);
                for (namespace, replica) in self.opened().into_iter().filter(|(_, replica)| !replica.doubts())
                {
                    self.touch_others(&node, namespace, &replica).await;
                }
                self.note_awake().await;
            }
            tokio::time::sleep(TOUCH_EVERY).await;
        }
    }

    /// Tells the others that this node's replica is awake and does not doubt what it holds, and raises the floor below which deletions are forgotten.
    async fn touch_others(self: &Arc<Self>, node: &Node, namespace: u16, replica: &Arc<Replica>) {
        let inner = &*node.inner;
        let frame = Frame::own(namespace, &self.order());
        let others = self.others(&frame.order);
        let begun = self.own(inner, namespace);
        let seen = |store: &StoreId| {
            (*store, self.touches.lock().get(&namespace).map_or(0, |touch| touch.seen_ms(*store)))
        };
        let up = others.iter().filter(|store| self.transport.is_up(**store));
        let up: Vec<_> = up.map(seen).collect();
        if !self.is_safe(node).await {
            return;
        }
        let mut missed = vec![self.heard.lock().silent(namespace, &others, begun)];
        let tell = |(store, seen_ms)| -> Boxed<'_, _> {
            let ask = Ask::Awake { now_ms: begun.now_ms, seen_ms };
            let frame = &frame;
            Box::pin(async move { (store, self.ask(frame, store, ask).await) })
        };
        let answers = join(up.into_iter().map(tell).collect()).await;
        // It may have stood still meanwhile: what it learned before that counts from before that.
        self.look_back(inner);
        for (store, answer) in answers {
            let Some(Answer::Heard { now_ms, is_unused, silent }) = answer else { continue };
            if let Some(touch) = self.touches.lock().get_mut(&namespace) {
                touch.answered(store, begun.awake_for_ms, now_ms);
            }
            if is_unused {
                // It holds nothing, and so nothing that was deleted.
                let told = Told { now_ms, seen_ms: begun.now_ms, after_ms: begun.awake_for_ms };
                self.heard.lock().told(namespace, store, told);
            }
            missed.push(silent);
        }
        let own = self.own(inner, namespace);
        if replica.doubts() || own.awake_for_ms - begun.awake_for_ms > own.leeway_ms() {
            return;
        }
        let away = away(others.len() + 1, &missed);
        let Some(gone_ms) = self.heard.lock().gone_ms(namespace, &others, &away, own) else { return };
        let (replica, floor) = (Arc::clone(replica), inner.hybrid.floor(gone_ms));
        if let Err(error) = blocking(move || replica.set_tombstone_floor(floor).map_err(refused)).await {
            tracing::warn!("deletions can't be forgotten: {error}");
        }
    }

    /// What this node has compared others may forget: it must not lose it with its power.
    async fn is_safe(&self, node: &Node) -> bool {
        let store = node.inner.store.clone();
        let synced = blocking(move || Ok(store.commit_at(store.visible(), Durability::Synced).wait()?)).await;
        synced.inspect_err(|error| tracing::warn!("what was compared is not safe: {error}")).is_ok()
    }

    /// Another node is awake, and has seen what this one held at that time of this one's.
    pub(super) fn is_told(
        &self,
        node: &Node,
        from: StoreId,
        namespace: u16,
        (now_ms, seen_ms): (u64, u64),
    ) -> Result<Answer> {
        if !is_kept(node, namespace) {
            return Err(Error::NoNamespace(namespace.to_string()));
        }
        let own = self.own(&node.inner, namespace);
        let is_unused = is_unused(node, namespace) && !self.replicas.lock().contains_key(&namespace);
        let others = self.others(&self.order());
        let mut heard = self.heard.lock();
        heard.told(namespace, from, Told { now_ms, seen_ms, after_ms: own.awake_for_ms });
        let silent = heard.silent(namespace, &others, own);
        Ok(Answer::Heard { now_ms: own.now_ms, is_unused, silent })
    }

    /// A replica is opened that was last in touch when this node was last known to be.
    pub(super) fn begin_touch(&self, inner: &Inner, replica: &Replica) {
        let own = self.own(inner, replica.namespace());
        let ago_ms = match self.standing.awake_ms() {
            Some(awake_ms) if !replica.doubts() => own.now_ms.saturating_sub(awake_ms),
            _ => 0,
        };
        let touch = Touch::begin(ago_ms, own.awake_for_ms, self.begun_ms);
        self.touches.lock().insert(replica.namespace(), touch);
    }

    /// A shard is about to be compared with another node.
    pub(super) fn compares(&self, replica: &Replica, peer: StoreId) {
        if let Some(touch) = self.touches.lock().get_mut(&replica.namespace()) {
            touch.compares(peer, replica.places());
        }
    }

    /// It was, all of it.
    pub(super) fn compared(&self, replica: &Replica, peer: StoreId, place: u16) {
        if let Some(touch) = self.touches.lock().get_mut(&replica.namespace()) {
            touch.compared(peer, place);
        }
    }

    /// What a replica that doubts holds above this version was written when nobody else could know of it.
    pub(super) fn alone_from(&self, inner: &Inner, namespace: u16) -> u64 {
        let alone_ms = self.touches.lock().get(&namespace).map_or(u64::MAX, Touch::alone_ms);
        super::shell::ceiling_at(inner, alone_ms)
    }

    /// Notes when this node was last in touch, unless a replica doubts what it holds: then it would not, after a restart.
    async fn note_awake(self: &Arc<Self>) {
        let open = self.opened();
        let Some(node) = self.node().filter(|_| open.iter().all(|(_, replica)| !replica.doubts())) else {
            return;
        };
        let others = self.others(&self.order());
        let mut awake_ms = Some(node.inner.hybrid.now_ms(node.inner.time.now()));
        for (namespace, _) in open {
            let own = self.own(&node.inner, namespace);
            let touched = self.touches.lock().get(&namespace).and_then(|touch| touch.awake_ms(own, &others));
            awake_ms = awake_ms.min(touched);
        }
        let Some(awake_ms) = awake_ms else { return };
        let shell = Arc::clone(self);
        if let Err(error) = blocking(move || shell.standing.is_awake(awake_ms)).await {
            tracing::debug!("that this node is awake is not noted: {error}");
        }
    }

    fn others(&self, order: &Order) -> Vec<StoreId> {
        order.stores().filter(|store| *store != self.me).collect()
    }

    /// The node's time, and the grace of a namespace.
    pub(super) fn own(&self, inner: &Inner, namespace: u16) -> Own {
        let grace_ms = inner.namespaces.get(namespace).map_or(u64::MAX, |kept| kept.settings().grace_ms);
        let now_ms = inner.hybrid.now_ms(inner.time.now());
        Own { begun_ms: self.begun_ms, now_ms, awake_for_ms: self.awake_for_ms(), grace_ms }
    }

    fn awake_for_ms(&self) -> u64 {
        u64::try_from(super::rebuild::since(self.begun).as_millis()).unwrap_or(u64::MAX)
    }
}
