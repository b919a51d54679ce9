//! Which nodes keep a slot: rendezvous hashing gives one fixed order of all nodes, and the replicas of an entry are the first `from` of it. So the
//! set for a smaller `from` is a prefix of the set for a larger one, and a node that comes or goes moves only what it has to.

use kvorum_sync::StoreId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The nodes that keep a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    nodes: Vec<(StoreId, u64)>,
    print: u64,
}

impl Order {
    /// Of nodes by their names: a new store under an old name keeps its place.
    pub(crate) fn of<'a>(nodes: impl IntoIterator<Item = (StoreId, &'a str)>) -> Order {
        let named = |(store, name): (StoreId, &str)| (store, xxh3_64_with_seed(name.as_bytes(), 0));
        let mut nodes: Vec<_> = nodes.into_iter().map(named).collect();
        nodes.sort_unstable();
        let print = |sum, (store, name): &(StoreId, u64)| {
            xxh3_64_with_seed(&[store.0.to_le_bytes(), name.to_le_bytes()].concat(), sum)
        };
        Order { print: nodes.iter().fold(0, print), nodes }
    }

    /// A digest of the nodes. Coordinators and replicas must know the same ones: else a replica may count as one that does not think so, and a
    /// new one may miss what others take for themselves.
    pub(crate) fn print(&self) -> u64 {
        self.print
    }

    /// Digests of the nodes' names, sorted: what the places of nodes come from.
    pub(crate) fn names(&self) -> Vec<u64> {
        let mut names: Vec<u64> = self.nodes.iter().map(|(_, name)| *name).collect();
        names.sort_unstable();
        names
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// All nodes, by their stores.
    pub(crate) fn stores(&self) -> impl Iterator<Item = StoreId> {
        self.nodes.iter().map(|(store, _)| *store)
    }

    /// The nodes in a slot's order.
    pub(crate) fn of_slot(&self, slot: u16) -> Vec<StoreId> {
        let mut weighed: Vec<_> =
            self.nodes.iter().map(|(store, name)| (weight(*name, slot), *store)).collect();
        weighed.sort_unstable_by(|one, other| other.cmp(one));
        weighed.into_iter().map(|(_, store)| store).collect()
    }

    /// Whether it is one of the nodes.
    pub(crate) fn has(&self, store: StoreId) -> bool {
        self.nodes.iter().any(|(other, _)| *other == store)
    }

    /// The place that a node of this order had in a slot's order among nodes of other names (by their digests); `None` if it was none of them.
    pub(crate) fn rank_among(&self, names: &[u64], slot: u16, of: StoreId) -> Option<u8> {
        let (_, name) = self.nodes.iter().find(|(store, _)| *store == of)?;
        names.contains(name).then_some(())?;
        let mine = weight(*name, slot);
        u8::try_from(names.iter().filter(|other| weight(**other, slot) > mine).count()).ok()
    }

    /// A node's place in a slot's order; `None` if it is none of them.
    pub(crate) fn rank(&self, slot: u16, of: StoreId) -> Option<u8> {
        let (_, name) = self.nodes.iter().find(|(store, _)| *store == of)?;
        let mine = (weight(*name, slot), of);
        let before = self.nodes.iter().filter(|(store, name)| (weight(*name, slot), *store) > mine).count();
        u8::try_from(before).ok()
    }
}

fn weight(name: u64, slot: u16) -> u64 {
    xxh3_64_with_seed(&slot.to_le_bytes(), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(names: &[(u64, &'static str)]) -> Order {
        Order::of(names.iter().map(|(store, name)| (StoreId(*store), *name)))
    }

    const FIVE: [(u64, &str); 5] = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")];

    #[test]
    fn ranks_are_places_in_the_order() {
        let order = order(&FIVE);
        for slot in 0..2000 {
            for (rank, store) in (0..).zip(order.of_slot(slot)) {
                assert_eq!(order.rank(slot, store), Some(rank));
            }
        }
        assert_eq!((order.len(), order.rank(0, StoreId(9))), (5, None));
        assert!(order.has(StoreId(5)) && !order.has(StoreId(9)));
    }

    #[test]
    fn places_among_the_nodes_that_were_are_known() {
        let (before, after) = (order(&FIVE[..4]), order(&FIVE));
        for slot in 0..2000 {
            for store in (1..=4).map(StoreId) {
                assert_eq!(after.rank_among(&before.names(), slot, store), before.rank(slot, store));
            }
            assert_eq!(after.rank_among(&before.names(), slot, StoreId(5)), None);
        }
    }

    #[test]
    fn the_print_is_of_the_nodes_alone() {
        let mut turned = FIVE;
        turned.reverse();
        assert_eq!(order(&FIVE).print(), order(&turned).print());
        for other in [&FIVE[..4], &[(1, "a"), (2, "b"), (3, "c"), (4, "d"), (6, "e")][..]] {
            assert_ne!(order(&FIVE).print(), order(other).print());
        }
    }

    #[test]
    fn slots_are_spread_evenly() {
        let order = order(&FIVE);
        let mut first = [0; 6];
        for slot in 0..16384 {
            first[order.of_slot(slot)[0].0 as usize] += 1;
        }
        assert!(first[1..].iter().all(|count| (2900..3700).contains(count)), "{first:?}");
    }

    #[test]
    fn a_new_node_only_takes_and_a_new_store_takes_over() {
        let (before, after) = (order(&FIVE[..4]), order(&FIVE));
        let replaced = order(&[(1, "a"), (2, "b"), (3, "c"), (44, "d")]);
        for slot in 0..2000 {
            let mut without = after.of_slot(slot);
            without.retain(|store| store.0 != 5);
            assert_eq!(without, before.of_slot(slot));
            let renamed: Vec<_> = before
                .of_slot(slot)
                .iter()
                .map(|store| if store.0 == 4 { StoreId(44) } else { *store })
                .collect();
            assert_eq!(renamed, replaced.of_slot(slot));
        }
    }
}
