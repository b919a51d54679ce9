//! The keys of a shard's tree: a kind byte, then the raw key, so that ranges come in key order. And the names of the trees.

use crate::latch::ShardId;
use crate::namespace::NamespaceId;
use std::ops::Bound;

/// What a tree key stands for: its first byte. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum KeyKind {
    /// A key of a user.
    User = 0x10,
    /// The id of a request that may be sent again.
    Request = 0x30,
    /// What was written at the same time as the entry of a user's key, and lost.
    Loser = 0x40,
}

// Taken for later kinds, so that all user keys stand together and no byte is used twice: 0x20 parts of a collection.

/// Keys up to this length are built on the stack.
const STACK_KEY_BYTES: usize = 63;

/// Longest user key: the engine's limit less the kind byte.
pub(crate) const USER_KEY_BYTES_MAX: usize = kvorum_engine::KEY_BYTES_MAX - 1;

/// Calls `then` with the tree key of a user's key.
pub(crate) fn with_user_key<R>(key: &[u8], then: impl FnOnce(&[u8]) -> R) -> R {
    let mut stack = [0; STACK_KEY_BYTES + 1];
    if let Some(space) = stack.get_mut(..=key.len())
        && let Some((kind, rest)) = space.split_first_mut()
    {
        *kind = KeyKind::User as u8;
        rest.copy_from_slice(key);
        return then(space);
    }
    then(&user_key(key))
}

/// The tree key of a user's key.
pub(crate) fn user_key(key: &[u8]) -> Vec<u8> {
    let mut tree_key = Vec::with_capacity(key.len() + 1);
    tree_key.push(KeyKind::User as u8);
    tree_key.extend_from_slice(key);
    tree_key
}

/// The tree key of what lost against the entry of a user's key.
pub(crate) fn loser_key(key: &[u8]) -> Vec<u8> {
    [&[KeyKind::Loser as u8], key].concat()
}

/// The bound of losers' keys where `bound` is one of users' keys; `is_low`: where they begin, if it bounds nothing.
pub(crate) fn loser_bound(bound: Bound<&[u8]>, is_low: bool) -> Bound<Vec<u8>> {
    let of_loser = |key: &[u8]| {
        let (kind, rest) = key.split_first().unwrap_or((&(KeyKind::User as u8), &[]));
        let kind = kind - KeyKind::User as u8 + KeyKind::Loser as u8;
        [&[kind], rest].concat()
    };
    match bound {
        Bound::Unbounded => {
            let first = KeyKind::Loser as u8;
            if is_low { Bound::Included(vec![first]) } else { Bound::Excluded(vec![first + 1]) }
        }
        bound => bound.map(of_loser),
    }
}

/// The first tree key behind all keys of users.
pub(crate) const USER_KEYS_END: &[u8] = &[KeyKind::User as u8 + 1];

/// The tree of a shard.
pub(crate) fn tree_name(shard: ShardId) -> String {
    format!("n{}/s{}", shard.namespace, shard.place)
}

/// The tree of the state of the store itself.
pub(crate) const SYSTEM_TREE: &str = "sys";

/// The shard of a user's key: the hash slots are cut evenly.
pub(crate) fn shard_of(namespace: NamespaceId, key: &[u8]) -> ShardId {
    ShardId::of_slot(namespace, kvorum_model::slot(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short_keys_are_built_alike() {
        for length in [0, 1, STACK_KEY_BYTES - 1, STACK_KEY_BYTES, STACK_KEY_BYTES + 1, 5000] {
            let key = vec![b'x'; length];
            with_user_key(&key, |built| assert_eq!(built, user_key(&key), "{length}"));
            assert!(user_key(&key).as_slice() < USER_KEYS_END);
        }
    }

    #[test]
    fn keys_with_a_common_tag_share_a_shard() {
        let of = |key: &str| shard_of(NamespaceId::ZERO, key.as_bytes());
        assert_eq!(of("{user1}.a"), of("{user1}.b"));
        assert_eq!(of("{user1}.a"), of("user1"));
        let used: std::collections::HashSet<_> = (0..1000).map(|i| of(&format!("key:{i}"))).collect();
        assert_eq!(used.len(), usize::from(NamespaceId::ZERO.shards()));
    }
}
