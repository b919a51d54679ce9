//! What replicas do for each other without being asked: hints are handed over, shards compared, one after the other, at a pace.

use super::replica::Replica;
use super::shell::{Frame, Shell, ceiling};
use super::{Answer, Ask, Exchange, Exchanged};
use crate::entity::blocking;
use crate::error::Error;
use kvorum_sync::StoreId;
use std::sync::Arc;
use std::time::Duration;

/// How often one thing is mended.
const MEND_EVERY: Duration = Duration::from_millis(100);

/// Hints that are handed over at one time.
const HINTS_AT_ONCE: usize = 32;

impl Shell {
    /// Hands over hints and compares shards until the node ends.
    pub(crate) async fn mend(self: Arc<Self>) {
        let mut turn = 0;
        loop {
            tokio::time::sleep(MEND_EVERY).await;
            let order = self.order();
            let is_there = |store: &StoreId| *store != self.me && self.transport.is_up(*store);
            let others: Vec<_> = order.stores().filter(is_there).collect();
            let Some(peer) = others.get(turn % others.len().max(1)).copied() else { continue };
            turn += 1;
            self.hand_over(peer).await;
            // Each peer in turn; with each of them one shard after the other.
            let shard = turn / others.len().max(1);
            let mut replicas: Vec<_> =
                self.replicas.lock().iter().map(|(id, replica)| (*id, Arc::clone(replica))).collect();
            replicas.sort_unstable_by_key(|(id, _)| *id);
            let places: usize = replicas.iter().map(|(_, replica)| usize::from(replica.places())).sum();
            let mut place = shard.checked_rem(places).unwrap_or_default();
            for (namespace, replica) in replicas {
                if place < usize::from(replica.places()) {
                    self.compare(namespace, &replica, peer, place as u16).await;
                    break;
                }
                place -= usize::from(replica.places());
            }
        }
    }

    async fn hand_over(self: &Arc<Self>, to: StoreId) {
        let order = self.order();
        let hints = Arc::clone(&self.hints);
        let Ok(next) = blocking(move || hints.lock().next(to, None, HINTS_AT_ONCE)).await else { return };
        for hint in next {
            let ask = Ask::Write { key: hint.key.clone(), entry: hint.entry.clone() };
            let frame = Frame::own(hint.namespace, &order);
            if !matches!(self.ask(&frame, to, ask).await, Some(Answer::Stored { .. })) {
                return;
            }
            let hints = Arc::clone(&self.hints);
            if blocking(move || hints.lock().delivered(&hint)).await.is_err() {
                return;
            }
        }
    }

    async fn compare(self: &Arc<Self>, namespace: u16, replica: &Arc<Replica>, peer: StoreId, place: u16) {
        let frame = Frame::own(namespace, &self.order());
        let (mut exchange, mut ask) = Exchange::begin(peer, place);
        while let Some(answer) = self.ask(&frame, peer, ask).await {
            let Some(node) = self.node() else { return };
            let (replica, order) = (Arc::clone(replica), Arc::clone(&frame.order));
            let stepped = blocking(move || {
                let next = exchange.step(answer, &replica, &order, ceiling(&node.inner));
                Ok((exchange, next.map_err(|refusal| Error::Invalid(refusal.to_string()))?))
            });
            match stepped.await {
                Ok((going_on, Exchanged::Ask(next))) => (exchange, ask) = (going_on, next),
                Ok((_, Exchanged::Done { .. })) => return,
                Err(error) => {
                    return tracing::debug!(store = peer.0, place, %error, "a comparison of replicas ended early");
                }
            }
        }
    }
}
