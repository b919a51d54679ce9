//! What replicas do for each other without being asked: what one lacks is collected, hints are handed over, shards compared, one after the other,
//! at a pace.

use super::calm::Calm;
use super::counts;
use super::leaving::Placed;
use super::rebuild::since;
use super::replica::Replica;
use super::shell::{Frame, Shell, ceiling, refused};
use super::{Answer, Ask, Exchange, Exchanged, Order, Why};
use crate::control::NodeState;
use crate::entity::blocking;
use kvorum_sync::StoreId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often one thing is mended at most.
const MEND_EVERY: Duration = Duration::from_millis(100);

/// What was done is followed by a rest of so many times what it took: comparing takes a small part of a processor.
const REST_TIMES: u32 = 9;

/// Hints that are handed over at one time.
const HINTS_AT_ONCE: usize = 32;

/// Where the round is.
#[derive(Default)]
struct Round {
    turn: usize,
    /// The nodes that were there, by the print of the order.
    nodes: u64,
    /// Whether it was found out of all namespaces that nobody used here that nothing is lacking.
    knows_unused: bool,
    /// Shards of which nothing lies where it does not belong, among these nodes.
    placed: Placed,
    calm: Calm,
}

impl Shell {
    /// Mends until the node ends.
    pub(crate) async fn mend(self: Arc<Self>) {
        let (mut round, mut pause) = (Round::default(), MEND_EVERY);
        loop {
            tokio::select! {
                () = self.lacks.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            if self.nodes() == 0 {
                continue;
            }
            let now = Instant::now();
            if let Some(node) = self.node() {
                self.pulse(&node.inner);
            }
            self.mend_once(&mut round).await;
            // Who is being removed has nothing else to do.
            let rest = if self.order().has(self.me) { REST_TIMES } else { 0 };
            pause = MEND_EVERY.max(since(now) * rest);
        }
    }

    async fn mend_once(self: &Arc<Self>, round: &mut Round) {
        let order = self.order();
        if round.nodes != order.print() {
            self.open_replicas().await;
            self.reconsider().await;
            self.forget_hints().await;
            *round = Round { nodes: order.print(), ..Round::default() };
            *self.keeping.lock() = None;
        }
        if !order.has(self.me) {
            self.leave(&order, round).await;
            return;
        }
        round.knows_unused = round.knows_unused || self.look_at_unused().await;
        let open = self.opened();
        for (_, replica) in open.iter().filter(|(_, replica)| !replica.is_whole()) {
            self.collect(replica).await;
        }
        let is_there = |store: &StoreId| *store != self.me && self.transport.is_up(*store);
        let others: Vec<_> = order.stores().filter(is_there).collect();
        let Some(peer) = others.get(round.turn % others.len().max(1)).copied() else { return };
        round.turn += 1;
        self.hand_over(peer).await;
        // Each peer in turn; with each of them one shard after the other.
        let all =
            open.iter().flat_map(|(_, replica)| (0..replica.places()).map(move |place| (replica, place)));
        let all: Vec<(&Arc<Replica>, u16)> = all.collect();
        let turn = (round.turn / others.len().max(1)).checked_rem(all.len()).unwrap_or_default();
        let Some((replica, place)) = all.get(turn).copied() else { return };
        let id = (replica.namespace(), place);
        if !round.placed.contains(&id) && self.move_away(replica, place).await {
            round.placed.insert(id);
        }
        let now = Instant::now();
        let mut next = all.iter().cycle().skip(turn).take(all.len());
        let due = next.find(|(replica, place)| {
            let (id, changes) = ((replica.namespace(), *place), replica.changes(*place));
            !replica.doubts() && round.calm.is_due(id, peer, changes, now)
        });
        if let Some((replica, place)) = due.copied() {
            round.calm.compares((replica.namespace(), place), peer, now);
            let frame = Frame::own(replica.namespace(), &order);
            self.compares(replica, peer);
            if self.exchange(&frame, replica, peer, Exchange::begin(peer, place)).await {
                self.compared(replica, peer, place);
            }
        }
    }

    /// Nothing belongs to this node any more: it is being removed, or has left.
    async fn leave(self: &Arc<Self>, order: &Order, round: &mut Round) {
        let open = self.opened();
        self.hand_over_shards(&open, &mut round.placed, round.turn).await;
        round.turn += 1;
        self.take_stock(order, &open, &round.placed);
    }

    /// Hints for nodes that have left will never be asked for.
    async fn forget_hints(self: &Arc<Self>) {
        let (hints, map) = (Arc::clone(&self.hints), self.control.map());
        let comes_back = move |store| map.state(store) != NodeState::Left;
        if let Err(error) = blocking(move || hints.lock().retain(comes_back)).await {
            tracing::warn!("hints for nodes that have left stay until nodes come or go again: {error}");
        }
    }

    async fn hand_over(self: &Arc<Self>, to: StoreId) {
        let order = self.order();
        let hints = Arc::clone(&self.hints);
        let Ok(next) = blocking(move || hints.lock().next(to, None, HINTS_AT_ONCE)).await else { return };
        for hint in next {
            let ask = Ask::Write { key: hint.key.clone(), entry: hint.entry.clone(), why: Why::Mend };
            let frame = Frame::own(hint.namespace, &order);
            // Its deletion may be forgotten by now: it is not brought back.
            let is_over = hint.entry.version <= self.forgotten_upto(hint.namespace);
            if !is_over && !matches!(self.ask(&frame, to, ask).await, Some(Answer::Stored { .. })) {
                return;
            }
            counts::add(&self.counts.delivered, 1);
            let hints = Arc::clone(&self.hints);
            if blocking(move || hints.lock().delivered(&hint)).await.is_err() {
                return;
            }
        }
    }

    /// Carries out a comparison; answers whether it came to its end and left nothing out.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        frame: &Frame,
        replica: &Arc<Replica>,
        peer: StoreId,
        begun: (Exchange, Ask),
    ) -> bool {
        let (mut exchange, mut ask) = begun;
        while let Some(answer) = self.ask(frame, peer, ask).await {
            let Some(node) = self.node() else { return false };
            let (replica, order) = (Arc::clone(replica), Arc::clone(&frame.order));
            let stepped = blocking(move || {
                let next = exchange.step(answer, &replica, &order, ceiling(&node.inner));
                Ok((exchange, next.map_err(refused)?))
            });
            match stepped.await {
                Ok((going_on, Exchanged::Ask(next))) => (exchange, ask) = (going_on, next),
                Ok((_, Exchanged::Done { slots, moved, refused })) => {
                    counts::add(&self.counts.moved, moved);
                    if refused > 0 {
                        tracing::warn!(
                            store = peer.0,
                            refused,
                            "entries of a clock that is too far ahead wait"
                        );
                    }
                    tracing::trace!(store = peer.0, slots, moved, "compared a shard");
                    return refused == 0;
                }
                Err(error) => {
                    tracing::debug!(store = peer.0, %error, "a comparison of replicas ended early");
                    return false;
                }
            }
        }
        false
    }
}
