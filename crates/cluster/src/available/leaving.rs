//! A node that is being removed hands over all that it keeps: it is none of those that keep entries any more, so all of it belongs to others.

use super::Order;
use super::replica::Replica;
use super::shell::{Shell, is_kept};
use crate::control::Keeping;
use crate::route::{Boxed, join};
use kvorum_model::SLOTS;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Shards that are handed over at the same time.
const SHARDS_AT_ONCE: usize = 8;

/// Shards of namespaces that are handed over.
pub(super) type Placed = BTreeSet<(u16, u16)>;

impl Shell {
    /// Hands over the next shards of those that are not handed over yet; each time others come first, so that one that can't be handed over now holds
    /// up nobody.
    pub(super) async fn hand_over_shards(
        self: &Arc<Self>,
        open: &[(u16, Arc<Replica>)],
        placed: &mut Placed,
        turn: usize,
    ) {
        let all = open
            .iter()
            .flat_map(|(id, replica)| (0..replica.places()).map(move |place| (*id, place, replica)));
        let mut left: Vec<_> = all.filter(|(id, place, _)| !placed.contains(&(*id, *place))).collect();
        let from = (turn * SHARDS_AT_ONCE).checked_rem(left.len()).unwrap_or_default();
        left.rotate_left(from);
        let hand = |(id, place, replica)| -> Boxed<'_, _> {
            Box::pin(async move { ((id, place), self.move_away(replica, place).await) })
        };
        let moving = left.into_iter().take(SHARDS_AT_ONCE).map(hand).collect();
        let moved = join(moving).await;
        placed.extend(moved.into_iter().filter(|(_, all)| *all).map(|(shard, _)| shard));
    }

    /// Notes how much is still to be handed over among these nodes; nothing while that is not known.
    pub(super) fn take_stock(&self, order: &Order, open: &[(u16, Arc<Replica>)], placed: &Placed) {
        let Some(node) = self.node() else { return };
        let unopened = node.inner.namespaces.all().any(|kept| {
            let id = kept.id.id();
            kept.has_trees() && is_kept(&node, id) && !open.iter().any(|(other, _)| *other == id)
        });
        let turned = open.iter().all(|(_, replica)| replica.is_among(order));
        let slots = |(id, replica): &(u16, Arc<Replica>)| {
            let places = replica.places();
            let left = (0..places).filter(|place| !placed.contains(&(*id, *place))).count() as u64;
            left * u64::from(SLOTS / places.max(1))
        };
        let stock = Keeping { among: order.stores().collect(), slots: open.iter().map(slots).sum() };
        *self.keeping.lock() = (turned && !unopened).then_some(stock);
    }
}
