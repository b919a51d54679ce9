//! A random key of a tree: the next one behind a random place between its first key and its last.

use crate::error::Result;
use crate::keys::{USER_KEYS_END, user_key};
use crate::keyspace::range;
use bytes::Bytes;
use kvorum_engine::{Direction, Found, Snapshot, Tree, View};

/// A key for which `exists` answers true; none if there is none. Blocks: for long only where many keys in a row have expired.
pub(crate) fn random_key(
    tree: &Tree,
    snapshot: &Snapshot,
    dice: &mut fastrand::Rng,
    exists: &mut dyn FnMut(&[u8], &Found) -> bool,
) -> Result<Option<Bytes>> {
    let Some(place) = random_place(tree, snapshot, dice)? else { return Ok(None) };
    for after in [Some(&place[..]), None] {
        for entry in range(tree, b"", after, snapshot)? {
            let (key, found) = entry?;
            let key = key.slice(1..);
            if exists(&key, &found) {
                return Ok(Some(key));
            }
        }
    }
    Ok(None)
}

/// Where to look from; none if the tree has no keys.
fn random_place(tree: &Tree, snapshot: &Snapshot, dice: &mut fastrand::Rng) -> Result<Option<Vec<u8>>> {
    let (view, first) = (View::newest().of(snapshot), user_key(b""));
    let at_end = |direction| -> Result<Option<Bytes>> {
        let mut keys = tree.range(&first[..]..USER_KEYS_END, &view, direction)?.keys_only();
        Ok(keys.next().transpose()?.map(|(key, _)| key.slice(1..)))
    };
    let (Some(first), Some(last)) = (at_end(Direction::Forward)?, at_end(Direction::Backward)?) else {
        return Ok(None);
    };
    let shared = first.iter().zip(last.iter()).take_while(|(one, other)| one == other).count();
    let number = |key: &Bytes, filler: u8| {
        let mut bytes = [filler; 8];
        let rest = key.get(shared..).unwrap_or_default().iter();
        bytes.iter_mut().zip(rest).for_each(|(place, byte)| *place = *byte);
        u64::from_be_bytes(bytes)
    };
    let (low, high) = (number(&first, 0), number(&last, u8::MAX));
    let mut place = first.get(..shared).unwrap_or_default().to_vec();
    place.extend(dice.u64(low.min(high)..=high).to_be_bytes());
    Ok(Some(place))
}

/// Where to begin with things of these weights: with one at random, each as likely as it is heavy.
pub(crate) fn weighted_start(weights: &[u64], dice: &mut fastrand::Rng) -> usize {
    let total: u64 = weights.iter().sum();
    let mut rest = dice.u64(..total.max(1));
    let lies_in = |weight: &u64| {
        let lies = rest < *weight;
        rest = rest.saturating_sub(*weight);
        lies
    };
    weights.iter().position(lies_in).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_weighs_nothing_is_never_first() {
        let mut dice = fastrand::Rng::with_seed(1);
        let mut seen = [0; 4];
        for _ in 0..1000 {
            seen[weighted_start(&[0, 1, 9, 0], &mut dice)] += 1;
        }
        assert!(seen[0] == 0 && seen[3] == 0 && seen[1] > 20 && seen[2] > 5 * seen[1], "{seen:?}");
        assert_eq!(weighted_start(&[], &mut dice), 0);
    }
}
