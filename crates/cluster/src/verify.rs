//! Comparing replicas: digests of keys and versions, of every shard, at every node that keeps it.

use crate::alone::Standing;
use crate::available::{Answer, Ask, Frame, Shell};
use crate::control::Map;
use crate::error::{Error, Result};
use crate::latch::ShardId;
use crate::namespace::Mode;
use crate::node::Node;
use crate::runtime::Cluster;
use kvorum_engine::{Direction, FoundKind, View};
use kvorum_sync::StoreId;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How often a shard is looked at again that is written to meanwhile.
const ROUNDS: usize = 20;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(150);

/// What expires so soon counts as expired at all members: some may have dropped it by now.
const EXPIRES_SOON_MS: u64 = 3_600_000;

/// What a comparison of all replicas came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Of each shard that is in use.
    pub shards: Vec<VerifiedShard>,
}

/// What a comparison of the replicas of a shard came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedShard {
    /// The namespace's name.
    pub namespace: String,
    /// Its place in the namespace.
    pub place: u16,
    /// The nodes that keep it.
    pub nodes: Vec<String>,
    /// Whether they have the same; `None` if that could not be found out.
    pub equal: Option<bool>,
    /// Why not, or where they differ.
    pub detail: String,
}

impl Verified {
    /// Shards whose replicas have not the same.
    pub fn differing(&self) -> usize {
        self.shards.iter().filter(|shard| shard.equal == Some(false)).count()
    }

    /// Shards of which it could not be found out.
    pub fn unknown(&self) -> usize {
        self.shards.iter().filter(|shard| shard.equal.is_none()).count()
    }
}

impl Node {
    /// Compares the replicas of all shards in use, in both modes: all nodes read all that they keep. What is written meanwhile is waited for; a shard
    /// that never rests is of unknown equality.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a node alone, which has nothing to compare.
    pub async fn verify_cluster(&self) -> Result<Verified> {
        let cluster = self.inner.cluster.get();
        let cluster = cluster.ok_or_else(|| Error::Invalid("this node is alone".into()))?;
        let verifying = Verifying { node: self, cluster, map: cluster.control.map() };
        let mut verified = Verified::default();
        for shard in verifying.map.shards.keys() {
            verified.shards.push(verifying.strong(*shard).await);
        }
        for kept in self.inner.namespaces.all().filter(|kept| kept.has_trees()) {
            if kept.id.mode() == Mode::Available {
                for shard in ShardId::all_of(kept.id) {
                    verified.shards.push(verifying.available(shard).await);
                }
            }
        }
        Ok(verified)
    }
}

struct Verifying<'n> {
    node: &'n Node,
    cluster: &'n Arc<Cluster>,
    map: Arc<Map>,
}

impl Verifying<'_> {
    fn shell(&self) -> &Arc<Shell> {
        &self.cluster.available
    }

    fn verified(
        &self,
        shard: ShardId,
        stores: &[StoreId],
        equal: Option<bool>,
        detail: String,
    ) -> VerifiedShard {
        let name = |store: &StoreId| self.name(*store);
        let namespace = self.node.inner.namespaces.get(shard.namespace).map(|kept| kept.name());
        VerifiedShard {
            namespace: namespace.unwrap_or_default(),
            place: shard.place,
            nodes: stores.iter().map(name).collect(),
            equal,
            detail,
        }
    }

    fn name(&self, store: StoreId) -> String {
        self.map.nodes.get(&store).map_or_else(|| format!("{:016x}", store.0), |row| row.info.name.clone())
    }

    /// The members of a group at the same point of its history.
    async fn strong(&self, shard: ShardId) -> VerifiedShard {
        let members = self.map.shards.get(&shard).map(|row| row.members().as_slice().to_vec());
        let members = members.unwrap_or_default();
        if self.cluster.alone.standing() == Standing::Alone {
            // Nobody has another one.
            return self.verified(shard, &members, Some(true), String::new());
        }
        let mut silent = BTreeSet::new();
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            silent.clear();
            let mut newest = 0;
            for member in &members {
                match self.member(shard, *member, None).await {
                    Some((checkpoint, _)) => newest = newest.max(checkpoint),
                    None => drop(silent.insert(*member)),
                }
            }
            let mut digests = BTreeMap::new();
            for member in members.iter().filter(|member| !silent.contains(member)) {
                if let Some((_, Some(digest))) = self.member(shard, *member, Some(newest)).await {
                    digests.insert(*member, digest);
                }
            }
            if digests.len() == members.len() {
                let distinct: BTreeSet<_> = digests.values().collect();
                let equal = distinct.len() <= 1;
                let told = |(store, digest): (&StoreId, &u64)| format!("{} {digest:016x}", self.name(*store));
                let all: Vec<String> = digests.iter().map(told).collect();
                let detail = if equal { String::new() } else { format!("at {newest}: {}", all.join(", ")) };
                return self.verified(shard, &members, Some(equal), detail);
            }
        }
        let detail = match silent.is_empty() {
            true => "its members never stood at the same point".to_owned(),
            false => {
                let names: Vec<_> = silent.iter().map(|store| self.name(*store)).collect();
                format!("no answer of {}", names.join(", "))
            }
        };
        self.verified(shard, &members, None, detail)
    }

    /// A member's checkpoint, and the digest of what it had at a version, if it can tell.
    async fn member(&self, shard: ShardId, of: StoreId, at: Option<u64>) -> Option<(u64, Option<u64>)> {
        let frame = Frame::own(shard.namespace, &self.shell().order());
        let expired_ms = self.node.now_ms().saturating_add(EXPIRES_SOON_MS);
        let ask = Ask::MemberDigest { place: shard.place, at, expired_ms };
        match self.shell().ask(&frame, of, ask).await? {
            Answer::MemberDigest { checkpoint, digest } => Some((checkpoint, digest)),
            _ => None,
        }
    }

    /// Each two nodes, as far as both should keep the same.
    async fn available(&self, shard: ShardId) -> VerifiedShard {
        let order = self.shell().order();
        let stores: Vec<StoreId> = order.stores().collect();
        let frame = Frame::own(shard.namespace, &order);
        let mut differ: Option<BTreeSet<(StoreId, StoreId, u16)>> = None;
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let mut now = BTreeSet::new();
            for (at, one) in stores.iter().enumerate() {
                for other in stores.iter().skip(at + 1) {
                    let (Some(ones), Some(others)) = (
                        self.digests(&frame, shard.place, *one, *other).await,
                        self.digests(&frame, shard.place, *other, *one).await,
                    ) else {
                        let pair = format!("no answer of {} or {}", self.name(*one), self.name(*other));
                        return self.verified(shard, &stores, None, pair);
                    };
                    let slots = ones.symmetric_difference(&others).map(|(slot, _)| (*one, *other, *slot));
                    now.extend(slots);
                }
            }
            // What differs every time is no write under way.
            let both = match &differ {
                Some(before) => before.intersection(&now).copied().collect(),
                None => now,
            };
            if both.is_empty() {
                return self.verified(shard, &stores, Some(true), String::new());
            }
            differ = Some(both);
        }
        let differ = differ.unwrap_or_default();
        let pairs: BTreeSet<_> = differ.iter().map(|(one, other, _)| (*one, *other)).collect();
        let told = |(one, other): &(StoreId, StoreId)| {
            let slots = differ.iter().filter(|(of, with, _)| (of, with) == (one, other)).count();
            format!("{} and {} in {slots} slots", self.name(*one), self.name(*other))
        };
        let all: Vec<String> = pairs.iter().map(told).collect();
        self.verified(shard, &stores, Some(false), all.join(", "))
    }

    async fn digests(
        &self,
        frame: &Frame,
        place: u16,
        of: StoreId,
        with: StoreId,
    ) -> Option<BTreeSet<(u16, u64)>> {
        match self.shell().ask(frame, of, Ask::DigestsWith { place, peer: with }).await? {
            Answer::Digests(digests) => Some(digests.into_iter().collect()),
            _ => None,
        }
    }
}

/// What this node's member of a group says of itself: its checkpoint, and the digest of what it had at a version. Waits for the disk.
pub(crate) fn member_digest(
    node: &Node,
    shard: ShardId,
    at: Option<u64>,
    expired_ms: u64,
) -> Result<(u64, Option<u64>)> {
    let gone = || Error::Storage("there is no member of this shard here".into());
    let place = node.inner.shard(shard).ok_or_else(gone)?;
    let (checkpoint, tree) = {
        let writer = place.latch();
        let member = writer.member.as_deref().filter(|member| member.is_readable()).ok_or_else(gone)?;
        (member.checkpoint().op.version(), member.tree().clone())
    };
    let Some(at) = at.filter(|at| *at <= checkpoint) else { return Ok((checkpoint, None)) };
    let range = match tree.range(.., &View::at(at), Direction::Forward) {
        Ok(range) => range,
        Err(kvorum_engine::Error::HistoryGone { .. }) => return Ok((checkpoint, None)),
        Err(error) => return Err(error.into()),
    };
    let mut digest = 0;
    for found in range {
        let (key, found) = found?;
        if found.kind == FoundKind::Value && found.expires_at.is_none_or(|expires_at| expires_at > expired_ms)
        {
            digest ^= xxh3_64_with_seed(&key, found.version);
        }
    }
    Ok((checkpoint, Some(digest)))
}
