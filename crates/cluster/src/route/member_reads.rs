//! Reads that this node's member answers though it does not lead: fresh ones, for which the leader says from memory what has changed, and stale
//! ones.

use super::codec::{Answer, Said};
use super::here::Here;
use crate::execute::group::Command;
use crate::keys::{shard_of, with_user_key};
use crate::runtime::now;
use crate::shard::{Done, MemberInput, key_hash};
use bytes::Bytes;
use kvorum_engine::{Cached, Found, FoundKind, Tree};
use kvorum_model::{Args, CommandSpec, Effects, Label, Record, Reply, Run, Stop, View};
use kvorum_sync::{KeyHash, KeyState, Names, OpId, ReadWhat};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Older than this, a stale read goes to the leader, in milliseconds.
pub const STALE_AGE_MAX_MS: u64 = 10_000;

/// How a member sees the shard: everything final at its checkpoint, and what the leader knows beyond it.
#[derive(Clone)]
struct Sight {
    tree: Tree,
    checkpoint: OpId,
    /// The shard's time there, Unix milliseconds.
    time_ms: u64,
    keys: Vec<KeyHash>,
    states: Names<KeyState>,
    /// Set if it answers though what it sees may be old: by how many milliseconds at most.
    stale: Option<u64>,
    labelled: bool,
}

/// Why a read is for the leader after all.
struct AtLeader;

impl Here<'_> {
    /// Executes commands that only read; `None` if the leader must. The age of stale reads raises `age_ms`.
    pub(super) async fn read_here(
        &self,
        list: &[Command<'_>],
        stale: bool,
        age_ms: &AtomicU64,
    ) -> Option<Answer> {
        let labelled = list.iter().all(|(spec, _)| spec.name == "getv");
        let sight = if stale { self.stale_sight()? } else { self.fresh_sight(list, labelled).await? };
        let mut all = Vec::with_capacity(list.len());
        for (spec, args) in list {
            let reply = match sight.evaluate(spec, *args, false) {
                Ok(Ok(reply)) => reply,
                Ok(Err(Stop::Error(error))) => Reply::Error(error),
                Err(AtLeader) => return None,
                Ok(Err(Stop::WouldRead)) => sight.evaluate_cold(spec, *args).await?,
            };
            all.push(Said::Reply(reply));
        }
        age_ms.fetch_max(sight.stale.unwrap_or(0), Relaxed);
        Some(Answer::Said { last: 0, all })
    }

    fn stale_sight(&self) -> Option<Sight> {
        let now = now();
        let seen = self.cluster.with_member(self.shard, |member, _, out| {
            member.refresh_age(now, out);
            let (checkpoint, age) = member.stale_view(now)?;
            let age = age.filter(|age| *age <= STALE_AGE_MAX_MS * 1000)?;
            Some((member.tree().clone(), checkpoint, member.checkpoint().time, age.div_ceil(1000)))
        });
        let (tree, checkpoint, time_ms, age_ms) = seen??;
        let (keys, states) = (Vec::new(), Names::none());
        Some(Sight { tree, checkpoint, time_ms, keys, states, stale: Some(age_ms), labelled: false })
    }

    async fn fresh_sight(&self, list: &[Command<'_>], labelled: bool) -> Option<Sight> {
        let mut keys: Vec<KeyHash> = Vec::new();
        for (spec, args) in list {
            for key in spec.keys_of(*args) {
                debug_assert_eq!(shard_of(self.namespace, key), self.shard);
                let hash = with_user_key(key, key_hash);
                if !keys.contains(&hash) {
                    keys.push(hash);
                }
            }
        }
        let mut wait = self.cluster.waits.begin();
        let token = wait.token()?;
        let what = ReadWhat::Keys(Names::of(&keys));
        self.cluster.step(self.shard, MemberInput::FollowerRead { token, what, labelled });
        let left = Duration::from_micros(self.until.micros_since(now()));
        let answers = tokio::time::timeout(left, wait).await.ok()?;
        let (_, Done::ReadHere { checkpoint, keys: states }) = answers.into_iter().next()? else {
            return None;
        };
        let (tree, time_ms) = self
            .cluster
            .with_member(self.shard, |member, _, _| (member.tree().clone(), member.checkpoint().time))?;
        Some(Sight { tree, checkpoint, time_ms, keys, states, stale: None, labelled })
    }
}

impl Sight {
    fn evaluate(
        &self,
        spec: &CommandSpec,
        args: Args<'_>,
        may_block: bool,
    ) -> Result<Result<Reply, Stop>, AtLeader> {
        let Run::Data(run) = spec.run else { return Err(AtLeader) };
        let label = self.stale.map_or(Label::Stable, Label::Stale);
        let view = SightView { sight: self, may_block, lost: false.into(), label: label.into() };
        let reply = kvorum_model::evaluate(run, args, &view, self.time_ms, &mut Effects::new());
        if view.lost.get() { Err(AtLeader) } else { Ok(reply) }
    }

    /// On a thread that may wait for the disk; `None` if the leader must answer.
    async fn evaluate_cold(&self, spec: &'static CommandSpec, args: Args<'_>) -> Option<Reply> {
        let words: Vec<Bytes> = args.words().iter().map(|word| Bytes::copy_from_slice(word)).collect();
        let sight = self.clone();
        let read = move || {
            let words: Vec<&[u8]> = words.iter().map(Bytes::as_ref).collect();
            sight.evaluate(spec, Args::new(&words), true).map_err(|AtLeader| ())
        };
        match tokio::task::spawn_blocking(read).await.ok()?.ok()? {
            Ok(reply) => Some(reply),
            Err(Stop::Error(error)) => Some(Reply::Error(error)),
            Err(Stop::WouldRead) => None,
        }
    }

    /// What the leader knows of a key.
    fn state(&self, key: &[u8]) -> Option<KeyState> {
        let hash = with_user_key(key, key_hash);
        let place = self.keys.iter().position(|known| *known == hash)?;
        self.states.as_slice().get(place).copied()
    }
}

struct SightView<'s> {
    sight: &'s Sight,
    may_block: bool,
    /// Set when only the leader can tell.
    lost: std::cell::Cell<bool>,
    label: std::cell::Cell<Label>,
}

impl SightView<'_> {
    fn lose(&self) -> Stop {
        self.lost.set(true);
        Stop::WouldRead
    }

    fn find(&self, key: &[u8], at: OpId) -> Result<Option<Found>, Stop> {
        let view = kvorum_engine::View::at(at.version());
        let tree = &self.sight.tree;
        let failed = |_| self.lose();
        if self.may_block {
            return with_user_key(key, |key| tree.get(key, &view)).map_err(failed);
        }
        match with_user_key(key, |key| tree.get_cached(key, &view)).map_err(failed)? {
            Cached::Ready(found) => Ok(found),
            Cached::WouldRead => Err(Stop::WouldRead),
        }
    }
}

impl View for SightView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, Stop> {
        let sight = self.sight;
        let mut at = sight.checkpoint;
        if sight.stale.is_none() {
            let state = sight.state(key).ok_or_else(|| self.lose())?;
            if sight.labelled && state.pending != OpId::ZERO {
                self.label.set(Label::Old);
            }
            if state.committed != OpId::ZERO {
                at = state.committed;
            }
        }
        let found = self.find(key, at)?;
        if at != sight.checkpoint && found.as_ref().is_none_or(|found| found.version != at.version()) {
            // Another key has the same hash.
            return Err(self.lose());
        }
        let Some(found) = found.filter(|found| found.kind == FoundKind::Value) else { return Ok(None) };
        if found.expires_at.is_some_and(|at| at > sight.time_ms) && sight.stale.is_none() {
            // The leader's time may have passed it.
            return Err(self.lose());
        }
        let (version, value, expires_at, tag) = (found.version, found.value, found.expires_at, found.tag);
        Ok(Some(Record { version, value, expires_at, tag }))
    }

    fn next_version(&self, _key: &[u8]) -> u64 {
        0
    }

    fn label(&self, _key: &[u8]) -> Label {
        self.label.get()
    }
}
