//! What looks at all keys of a shard: pages of a scan, lists of keys, their number. Read from a snapshot that was taken under the latch, on a
//! thread that may wait; told once everything that was pending then is committed.

use super::codec::{Answer, Said};
use super::here::{Here, Not};
use super::under_way::UnderWay;
use crate::error::Result;
use crate::execute::group::{AllKeys, Found as FoundKeys, Look, Ops, Rests, Wanted};
use crate::keyspace::{SCAN_BYTES_MAX, range};
use crate::random_key::random_key;
use crate::shard::Member;
use bytes::Bytes;
use kvorum_engine::{Found, Snapshot, Tree};
use kvorum_model::{ScanOptions, literal_prefix, pattern_matches};
use kvorum_sync::OpId;
use std::collections::BTreeSet;

/// What is wanted of the keys.
pub(super) enum Whole {
    Page {
        after: Option<Bytes>,
        looked_at_max: u32,
        pattern: Option<Bytes>,
        type_name: Option<Bytes>,
    },
    Keys(Bytes),
    Count,
    /// Any key, from these dice.
    RandomKey {
        seed: u64,
    },
}

/// A shard as it was at one moment.
pub(super) struct Seen {
    tree: Tree,
    snapshot: Snapshot,
    now_ms: u64,
    /// Of the last item.
    last_time_ms: u64,
    /// Keys that do not count.
    hidden: BTreeSet<Vec<u8>>,
}

/// A look at all keys for a command of a transaction.
pub(super) struct Looking {
    pub(super) at: usize,
    pub(super) look: Look,
    pub(super) seen: Seen,
    /// The item that comes next, and those that are pending.
    pub(super) next: OpId,
    pub(super) pending: Ops,
}

impl Looking {
    /// Blocks.
    pub(super) fn look(self, seed: u64, all: &mut AllKeys) -> Result<()> {
        let Looking { at, look, mut seen, next, pending } = self;
        all.begin(next, pending, seen.now_ms);
        seen.hidden.clone_from(&look.hidden);
        let whole = match &look.wanted {
            Wanted::Keys(pattern) => Whole::Keys(pattern.clone()),
            Wanted::Count => Whole::Count,
            Wanted::RandomKey => Whole::RandomKey { seed },
        };
        let walked = whole.walk(&seen)?;
        let found = match walked.answer {
            Answer::Page { keys, .. } => FoundKeys::Keys(keys),
            Answer::Count(count) => FoundKeys::Count(count),
            _ => return Ok(()),
        };
        all.add(at, look, found, walked.expired_at);
        Ok(())
    }
}

/// What a walk found.
struct Walked {
    answer: Answer,
    /// The latest expiry that hid a key.
    expired_at: u64,
}

impl Here<'_> {
    pub(super) async fn whole(&self, whole: Whole) -> Answer {
        let looked = self.at_leader(|member, fetching, now, out| {
            let inner = &*self.node.inner;
            let rests = Rests { wanted: true, ops: pending(member)?, ..Rests::default() };
            let seen = self.seen(member, member.time_ms(inner.time.now()));
            Ok((seen, self.submit(member, fetching, Vec::new(), rests, None, now, out)))
        });
        let (seen, under_way) = match looked {
            Ok(looked) => looked,
            Err(not) => return not.answer(1),
        };
        let last_time_ms = seen.last_time_ms;
        let walked = match tokio::task::spawn_blocking(move || whole.walk(&seen)).await {
            Ok(Ok(walked)) => walked,
            Ok(Err(error)) => return Answer::Refused(error.resp()),
            Err(error) => return Answer::Refused(format!("ERR storage: {error}")),
        };
        let mut waits = vec![under_way];
        if walked.expired_at > last_time_ms {
            match self.carry_time() {
                Ok(carrier) => waits.push(carrier),
                Err(not) => return not.answer(1),
            }
        }
        for wait in waits {
            if !self.settle(wait).await.are_reads_kept() {
                return Answer::Said { last: 0, all: vec![Said::Again] };
            }
        }
        walked.answer
    }

    /// The shard as it is now, by this time.
    pub(super) fn seen(&self, member: &Member, now_ms: u64) -> Seen {
        Seen {
            tree: member.tree().clone(),
            snapshot: self.node.inner.store.snapshot(),
            now_ms,
            last_time_ms: member.item_time_ms(),
            hidden: BTreeSet::new(),
        }
    }

    /// Something was told as expired by a time that no item carries: one that does.
    fn carry_time(&self) -> Result<UnderWay, Not> {
        self.at_leader(|member, fetching, now, out| {
            let rests = Rests { wanted: true, on_time: true, ..Rests::default() };
            Ok(self.submit(member, fetching, Vec::new(), rests, None, now, out))
        })
    }
}

/// All items that may yet be cancelled.
pub(super) fn pending(member: &Member) -> Result<Ops, Not> {
    let next = member.next_op().ok_or(Not::Room)?;
    let point = member.commit_point();
    let first = if point.epoch() == next.epoch() { point.serial() + 1 } else { 1 };
    let all = (first..next.serial()).map(|serial| OpId::new(next.epoch(), serial));
    Ok(all.filter(|op| !member.is_committed(*op)).collect())
}

impl Whole {
    /// Blocks.
    fn walk(self, seen: &Seen) -> Result<Walked> {
        let mut expired_at = 0;
        let mut exists = |key: &[u8], found: &Found| {
            let expired = found.expires_at.filter(|at| *at <= seen.now_ms);
            expired_at = expired_at.max(expired.unwrap_or(0));
            expired.is_none() && !seen.hidden.contains(key)
        };
        let answer = match &self {
            Whole::Count => {
                let mut count = 0;
                for entry in range(&seen.tree, b"", None, &seen.snapshot)? {
                    let (key, found) = entry?;
                    count += u64::from(exists(key.get(1..).unwrap_or_default(), &found));
                }
                Answer::Count(count)
            }
            Whole::RandomKey { seed } => {
                let mut dice = fastrand::Rng::with_seed(*seed);
                let key = random_key(&seen.tree, &seen.snapshot, &mut dice, &mut exists)?;
                Answer::Page { next: None, keys: key.into_iter().collect() }
            }
            Whole::Keys(pattern) => {
                let mut keys = Vec::new();
                for entry in range(&seen.tree, &literal_prefix(pattern), None, &seen.snapshot)? {
                    let (key, found) = entry?;
                    let key = key.slice(1..);
                    if exists(&key, &found) && pattern_matches(pattern, &key) {
                        keys.push(key);
                    }
                }
                Answer::Page { next: None, keys }
            }
            Whole::Page { after, looked_at_max, pattern, type_name } => {
                let options = ScanOptions {
                    cursor: 0,
                    pattern: pattern.as_deref(),
                    count: u64::from(*looked_at_max),
                    type_name: type_name.as_deref(),
                };
                page(seen, after.as_deref(), &options, &mut exists)?
            }
        };
        Ok(Walked { answer, expired_at })
    }
}

fn page(
    seen: &Seen,
    after: Option<&[u8]>,
    options: &ScanOptions<'_>,
    exists: &mut dyn FnMut(&[u8], &Found) -> bool,
) -> Result<Answer> {
    let prefix = options.pattern.map(literal_prefix).unwrap_or_default();
    let (mut keys, mut looked_at, mut bytes) = (Vec::new(), 0, 0);
    for entry in range(&seen.tree, &prefix, after, &seen.snapshot)? {
        let (key, found) = entry?;
        let key = key.slice(1..);
        looked_at += 1;
        bytes += key.len();
        if exists(&key, &found) && options.wants(&key, found.tag) {
            keys.push(key.clone());
        }
        if looked_at >= options.count || bytes >= SCAN_BYTES_MAX {
            return Ok(Answer::Page { next: Some(key), keys });
        }
    }
    Ok(Answer::Page { next: None, keys })
}
