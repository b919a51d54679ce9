//! What this node does without the others: everything, as long as it keeps everything alone; else commands over several shards as one, where it
//! is the only member of the groups of all of them.

use super::attempt::{Attempt, Kind, Next, PATIENCE_MS, Setback};
use super::router::{Router, millis};
use super::serve::Served;
use crate::alone::Standing;
use crate::error::Error;
use crate::keys::shard_of;
use crate::latch::ShardId;
use crate::namespace::{Mode, NamespaceId, numbered};
use crate::namespaces::Namespace;
use crate::session::{Outcome, Request, Session, Transaction, Watched};
use crate::transaction::transaction_of_groups;
use kvorum_model::{ErrorReply, Keyspace, Reply, Run};

/// Who is a member of some shards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Members {
    /// This node alone.
    Us,
    /// Others, too.
    Others,
    /// That will be known soon.
    Nobody,
}

/// Who executes what is asked of a namespace.
pub(super) enum Way {
    /// This node alone. It may be otherwise as soon as it is tried.
    Alone,
    /// Members of groups, or replicas.
    Members,
    /// It is not known, and there is no more time to wait for it: surely nothing was executed.
    Nobody(ErrorReply),
}

/// The shards that requests touch as one, and those of watched keys, each once.
pub(super) fn shards_of(requests: &[Request<'_>], watched: &Watched) -> Vec<ShardId> {
    let mut shards = Vec::new();
    for request in requests {
        match request.spec.run {
            Run::Keyspace(Keyspace::FlushAll) => shards.extend(numbered().flat_map(ShardId::all_of)),
            Run::Keyspace(_) => shards.extend(ShardId::all_of(request.namespace)),
            _ => {
                let keys = request.spec.keys_of(request.args);
                shards.extend(keys.map(|key| shard_of(request.namespace, key)));
            }
        }
    }
    shards.extend(watched.keys.iter().map(|(namespace, key, _)| shard_of(*namespace, key)));
    shards.sort_unstable();
    shards.dedup();
    shards
}

impl Router<'_> {
    /// Who executes what is asked of a namespace. Waits until that is known, and sees to it that a namespace is in use from now on.
    pub(super) async fn way(&self, namespace: NamespaceId) -> Way {
        let mut attempt = Attempt::new(millis(), PATIENCE_MS, Kind::Read);
        let first = ShardId { namespace: namespace.id(), place: 0 };
        loop {
            let kept = self.node.inner.namespaces.get(namespace.id());
            match self.cluster.alone.standing() {
                _ if namespace.mode() == Mode::Available => return Way::Members,
                Standing::Grouped => return Way::Members,
                // Whoever tries is told that it was dropped.
                _ if kept.is_none_or(Namespace::is_dropped) => return Way::Alone,
                Standing::Alone if kept.is_some_and(Namespace::is_in_use) => return Way::Alone,
                Standing::Alone => _ = self.leader(first, None).await,
                Standing::Unknown => {}
            }
            match attempt.next(millis(), Setback::NoLeader) {
                Next::Pause(pause_ms) => self.pause(pause_ms).await,
                Next::Ask(_) | Next::Refuse | Next::Unknown => return Way::Nobody(self.refusal(first)),
            }
        }
    }

    /// As [`Router::way`], of all namespaces that a transaction touches: alone if that is so of all of them.
    pub(super) async fn way_of_all(&self, requests: &[Request<'_>], watched: &Watched) -> Way {
        let touched = requests.iter().filter(|request| !matches!(request.spec.run, Run::Answer(_)));
        let touched = touched.map(|request| request.namespace);
        let watched = watched.keys.iter().map(|(namespace, _, _)| *namespace);
        let mut all = Way::Members;
        for namespace in touched.chain(watched).filter(|namespace| namespace.mode() == Mode::Strong) {
            match self.way(namespace).await {
                Way::Alone => all = Way::Alone,
                other => return other,
            }
        }
        all
    }

    /// Whether a request is to be executed over several shards, and nobody else is known to keep any of them.
    pub(super) fn spans_own(&self, request: &Request<'_>) -> bool {
        if !matches!(request.spec.run, Run::Data(_)) {
            return false;
        }
        let mut shards = request.spec.keys_of(request.args).map(|key| shard_of(request.namespace, key));
        let Some(first) = shards.next() else { return false };
        let Some(_) = shards.find(|shard| *shard != first) else { return false };
        let all = shards_of(std::slice::from_ref(request), &Watched::new());
        self.members(&all) != Members::Others
    }

    fn members(&self, shards: &[ShardId]) -> Members {
        let (map, me) = (self.cluster.control.map(), self.cluster.me);
        let mut members = Members::Us;
        for shard in shards {
            match map.shards.get(shard) {
                Some(row) if row.members().as_slice() != [me] || row.acting().as_slice() != [me] => {
                    return Members::Others;
                }
                Some(_) => {}
                None => members = Members::Nobody,
            }
        }
        members
    }

    /// Executes requests as one; `None` if others have members of these shards.
    pub(super) async fn execute_alone(
        &self,
        session: &mut Session,
        requests: &[Request<'_>],
        watched: &Watched,
        shards: &[ShardId],
    ) -> Option<Served> {
        let mut attempt = Attempt::new(millis(), PATIENCE_MS, Kind::Read);
        loop {
            match self.members(shards) {
                Members::Others => return None,
                Members::Nobody => {
                    for shard in shards {
                        // Sees to it that a namespace that nobody used is used from now on.
                        let _ = self.leader(*shard, None).await;
                    }
                }
                Members::Us => {
                    // If it is not so under the latches, it has not begun to lead, or is about to get company.
                    if let Ok(done) = transaction_of_groups(self.node, session, requests, watched) {
                        match settle(session, done).await {
                            Some(served) => return Some(served),
                            None => continue,
                        }
                    }
                }
            }
            match attempt.next(millis(), Setback::NoLeader) {
                Next::Pause(pause_ms) => self.pause(pause_ms).await,
                Next::Ask(_) | Next::Refuse | Next::Unknown => {
                    return Some(Served::Error(self.refusal(*shards.first()?)));
                }
            }
        }
    }
}

/// Waits until the outcome may be told; `None`: what was missing was read, and it is executed again.
pub(super) async fn settle(session: &mut Session, done: Transaction) -> Option<Served> {
    let served = match done.outcome {
        Outcome::Done(replies) => Served::Done(replies),
        Outcome::Changed => Served::Changed,
        Outcome::Refused(error) => Served::Error(error_reply(&error)),
        // Whoever asks has looked for it.
        Outcome::Elsewhere => return None,
        Outcome::Blocked(prefetch) => {
            return match tokio::task::spawn_blocking(move || prefetch.run()).await {
                Ok(fetched) => {
                    session.resume(fetched);
                    None
                }
                Err(error) => Some(Served::Error(error_reply(&Error::Storage(error.to_string())))),
            };
        }
    };
    if let Some(commit) = done.commit
        && let Err(error) = commit.durable().await
    {
        return Some(Served::Error(error_reply(&error)));
    }
    Some(served)
}

fn error_reply(error: &Error) -> ErrorReply {
    match error.reply() {
        Reply::Error(error) => error,
        _ => ErrorReply::new(error.resp()),
    }
}
