//! The node of a cluster as connections see it.

use super::alone::{Way, settle, shards_of};
use super::attempt::Kind;
use super::codec::{Answer, Said, Work};
use super::join::Boxed;
use super::plan::cross_shard;
use super::router::{Asked, Router, Wish};
use crate::available;
use crate::consistency::ReadMode;
use crate::error::{Error, Result};
use crate::keys::shard_of;
use crate::latch::ShardId;
use crate::namespace::{Mode, NamespaceId};
use crate::node::Node;
use crate::prefetch::dropped;
use crate::runtime::Cluster;
use crate::session::{Outcome, Progress, Request, Session, Watched};
use bytes::Bytes;
use kvorum_model::{ErrorReply, Keyspace, Reply, Run};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What a transaction came to.
#[derive(Debug)]
pub enum Served {
    /// Executed: a reply for each request.
    Done(Vec<Reply>),
    /// Not executed: a watched key has changed.
    Changed,
    /// The error that stands for all replies.
    Error(ErrorReply),
}

impl Node {
    /// Whether the node is one of a cluster. Then it may have to execute by [`serve`](Node::serve) and its like: what it does alone it says.
    pub fn is_clustered(&self) -> bool {
        self.inner.cluster.get().is_some()
    }

    /// Executes requests, in the order of their replies, wherever the keys are kept, and waits until their replies may be told.
    pub async fn serve(&self, session: &mut Session, requests: &[Request<'_>]) -> Vec<Reply> {
        let Some(cluster) = self.inner.cluster.get() else {
            let mut replies = Vec::with_capacity(requests.len());
            self.serve_alone(session, requests, &mut replies).await;
            return replies;
        };
        // What it is made of is deep: the compiler need not lay it out in whoever waits for it.
        let serving: Boxed<'_, _> = Box::pin(self.serve_clustered(cluster, session, requests));
        serving.await
    }

    async fn serve_clustered(
        &self,
        cluster: &Arc<Cluster>,
        session: &mut Session,
        requests: &[Request<'_>],
    ) -> Vec<Reply> {
        let router = Router { node: self, cluster, own_shards: session.own_shards };
        let mut replies = Vec::with_capacity(requests.len());
        loop {
            self.serve_alone(session, requests, &mut replies).await;
            let Some(first) = requests.get(replies.len()) else { return replies };
            let rest = requests.get(replies.len()..).unwrap_or_default();
            if !self.has(first.namespace) {
                replies.push(dropped(self, first.namespace).reply());
                continue;
            }
            // It is the numbered namespaces that it empties, wherever it is sent.
            let is_for_all = matches!(first.spec.run, Run::Keyspace(Keyspace::FlushAll));
            let namespace = if is_for_all { NamespaceId::ZERO } else { first.namespace };
            match router.way(namespace).await {
                Way::Members => {}
                Way::Alone => {
                    if namespace != first.namespace {
                        let mut reply = Vec::new();
                        self.serve_alone(session, &[Request { namespace, ..*first }], &mut reply).await;
                        replies.append(&mut reply);
                    }
                    continue;
                }
                Way::Nobody(error) => {
                    replies.push(Reply::Error(error));
                    continue;
                }
            }
            if let Run::Keyspace(kind) = first.spec.run {
                // Boxed: one future within the other would be deeper than compilers like.
                let all: Boxed<'_, Reply> = if first.namespace.mode() == Mode::Strong || first.spec.is_write()
                {
                    Box::pin(router.keyspace(kind, first, &mut session.written))
                } else {
                    let (shell, consistency) = (&cluster.available, &session.consistency);
                    Box::pin(available::keyspace(self, shell, consistency, kind, first))
                };
                replies.push(all.await);
                continue;
            }
            if router.spans_own(first) {
                match self.serve_spanning(&router, session, first).await {
                    Some(reply) => replies.push(reply),
                    None => replies
                        .extend(self.serve_keys(&router, session, rest.get(..1).unwrap_or_default()).await),
                }
                continue;
            }
            // Those of one kind that follow each other: commands over all keys see what came before.
            let mode = first.namespace.mode();
            let is_alike = |request: &&Request<'_>| {
                request.namespace.mode() == mode
                    && !matches!(request.spec.run, Run::Keyspace(_))
                    && (mode == Mode::Available || self.has(request.namespace) && !router.spans_own(request))
            };
            let alike = rest.get(..rest.iter().take_while(is_alike).count().max(1)).unwrap_or_default();
            if first.namespace.mode() == Mode::Available {
                replies.extend(self.serve_available(cluster, session, alike).await);
                continue;
            }
            replies.extend(self.serve_keys(&router, session, alike).await);
        }
    }

    /// Requests in strong namespaces, each at the shards of its keys.
    async fn serve_keys(
        &self,
        router: &Router<'_>,
        session: &mut Session,
        requests: &[Request<'_>],
    ) -> Vec<Reply> {
        let Some(first) = requests.first() else { return Vec::new() };
        let named = requests.iter().position(|request| request.spec.is_write());
        let id = if named.is_some() { session.request_id.take() } else { None };
        let read = self.read_mode(session, first.namespace);
        let age_ms = AtomicU64::new(0);
        let wish = Wish { read, id: named.zip(id.as_deref()), age_ms: &age_ms };
        let replies = router.requests(requests, wish, &mut session.written).await;
        session.age_ms = age_ms.into_inner();
        replies
    }

    /// A request over several shards that this node keeps alone: as one; `None` if others keep some of them, too.
    async fn serve_spanning(
        &self,
        router: &Router<'_>,
        session: &mut Session,
        request: &Request<'_>,
    ) -> Option<Reply> {
        let requests = std::slice::from_ref(request);
        // The id is for the next one that writes.
        let kept = session.request_id.take_if(|_| !request.spec.is_write());
        let shards = shards_of(requests, &Watched::new());
        let served = router.execute_alone(session, requests, &Watched::new(), &shards).await;
        session.request_id = session.request_id.take().or(kept);
        match served? {
            Served::Done(replies) => replies.into_iter().next(),
            Served::Error(error) => Some(Reply::Error(error)),
            // Nothing is watched.
            Served::Changed => None,
        }
    }

    /// Requests in available namespaces, at the replicas of their keys.
    async fn serve_available(
        &self,
        cluster: &Cluster,
        session: &mut Session,
        requests: &[Request<'_>],
    ) -> Vec<Reply> {
        if session.request_id.is_some() && requests.iter().any(|request| request.spec.is_write()) {
            session.request_id = None;
            let error = ErrorReply::new("ERR request ids need a strong namespace");
            return requests.iter().map(|_| Reply::Error(error.clone())).collect();
        }
        available::serve(self, &cluster.available, &session.consistency, requests).await
    }

    /// Whether a namespace is there still.
    fn has(&self, namespace: NamespaceId) -> bool {
        self.inner.namespaces.get(namespace.id()).is_some_and(|kept| !kept.is_dropped())
    }

    fn read_mode(&self, session: &Session, namespace: NamespaceId) -> ReadMode {
        let of_namespace = || self.inner.namespaces.get(namespace.id()).map(|kept| kept.settings().read);
        session.consistency.read.or_else(of_namespace).unwrap_or_default()
    }

    /// Executes the requests that have no reply yet, as far as this node keeps alone what they are about, and waits until the replies may be
    /// told.
    async fn serve_alone(&self, session: &mut Session, requests: &[Request<'_>], replies: &mut Vec<Reply>) {
        while let Some(rest) = requests.get(replies.len()..).filter(|rest| !rest.is_empty()) {
            let before = replies.len();
            let Progress { commit, blocked, elsewhere, .. } = self.execute(session, rest, replies);
            if let Some(commit) = commit
                && let Err(error) = commit.durable().await
            {
                replies.iter_mut().skip(before).for_each(|reply| *reply = error.reply());
            }
            if elsewhere {
                return;
            }
            if let Some(prefetch) = blocked {
                match tokio::task::spawn_blocking(move || prefetch.run()).await {
                    Ok(fetched) => session.resume(fetched),
                    Err(error) => replies.push(Error::Storage(error.to_string()).reply()),
                }
            }
        }
    }

    /// A transaction that this node keeps everything of alone; `None` if it does not.
    async fn serve_transaction_alone(
        &self,
        session: &mut Session,
        requests: &[Request<'_>],
        watched: &Watched,
    ) -> Option<Served> {
        loop {
            let done = self.transaction(session, requests, watched);
            if matches!(done.outcome, Outcome::Elsewhere) {
                return None;
            }
            if let Some(served) = settle(session, done).await {
                return Some(served);
            }
        }
    }

    /// Executes requests as one, on the shard that has all their keys, unless a watched key has changed.
    pub async fn serve_transaction(
        &self,
        session: &mut Session,
        requests: &[Request<'_>],
        watched: &Watched,
    ) -> Served {
        let Some(cluster) = self.inner.cluster.get() else {
            return Served::Error(ErrorReply::new("ERR this node is not one of a cluster"));
        };
        let router = Router { node: self, cluster, own_shards: session.own_shards };
        // What a scan in a transaction would answer holds in no larger cluster: it is refused in a small one as well.
        while !has_scan(requests) {
            if let Some(served) = self.serve_transaction_alone(session, requests, watched).await {
                return served;
            }
            match router.way_of_all(requests, watched).await {
                Way::Members => break,
                Way::Alone => {}
                Way::Nobody(error) => return Served::Error(error),
            }
        }
        let (namespace, shard) = match one_shard(requests, watched) {
            Ok(Some(shard)) => shard,
            Ok(None) => return answered_by_words(requests),
            Err(error) if error.code() != "CROSSSLOT" || has_scan(requests) => return Served::Error(error),
            Err(error) => {
                let shards = shards_of(requests, watched);
                let alone: Boxed<'_, _> = Box::pin(router.execute_alone(session, requests, watched, &shards));
                let served = alone.await;
                session.request_id = None;
                return served.unwrap_or(Served::Error(error));
            }
        };
        let id = session.request_id.take();
        let words = |request: &Request<'_>| {
            request.args.words().iter().map(|word| Bytes::copy_from_slice(word)).collect()
        };
        let work = Work::Transaction {
            watched: watched.keys.iter().map(|(_, key, version)| (key.clone(), *version)).collect(),
            commands: requests.iter().map(words).collect(),
        };
        let kind = match (requests.iter().any(|request| request.spec.is_write()), &id) {
            (false, _) => Kind::Read,
            (true, Some(_)) => Kind::Named,
            (true, None) => Kind::Write,
        };
        match router.ask(shard, namespace, kind, &work, id.as_deref()).await {
            Asked::Answer(Answer::Changed) => Served::Changed,
            Asked::Answer(Answer::Said { all, last }) => {
                session.written.note(shard, last);
                match all.into_iter().next() {
                    Some(Said::Reply(Reply::Array(replies))) if replies.len() == requests.len() => {
                        Served::Done(replies)
                    }
                    Some(Said::Reply(Reply::Error(error))) => Served::Error(error),
                    _ => Served::Error(unknown_transaction()),
                }
            }
            Asked::Answer(_) | Asked::Unknown => Served::Error(unknown_transaction()),
            Asked::Refused(error) => Served::Error(error),
        }
    }

    /// Adds `keys` to `watched` with the versions they have now.
    ///
    /// # Errors
    /// If a shard can't be asked, or too many keys are watched.
    pub async fn serve_watch(
        &self,
        namespace: NamespaceId,
        keys: &[&[u8]],
        watched: &mut Watched,
    ) -> Result<(), ErrorReply> {
        let Some(cluster) = self.inner.cluster.get() else {
            return Err(ErrorReply::new("ERR this node is not one of a cluster"));
        };
        if namespace.mode() == Mode::Available {
            return Err(ErrorReply::needs_strong());
        }
        watched.check_room(keys.len()).map_err(|error| ErrorReply::new(error.resp()))?;
        let router = Router { node: self, cluster, own_shards: false };
        let mut session = Session::new();
        loop {
            match self.watch_alone(&mut session, namespace, keys, watched) {
                Some(Ok(None)) => return Ok(()),
                Some(Err(error)) => return Err(ErrorReply::new(error.resp())),
                Some(Ok(Some(prefetch))) => match tokio::task::spawn_blocking(move || prefetch.run()).await {
                    Ok(fetched) => session.resume(fetched),
                    Err(error) => return Err(ErrorReply::new(Error::Storage(error.to_string()).resp())),
                },
                None => match router.way(namespace).await {
                    Way::Members => break,
                    Way::Alone => {}
                    Way::Nobody(error) => return Err(error),
                },
            }
        }
        for key in keys {
            let work = Work::Versions(vec![Bytes::copy_from_slice(key)]);
            let asked = router.ask(shard_of(namespace, key), namespace, Kind::Read, &work, None).await;
            match asked {
                Asked::Answer(Answer::Versions(versions)) => {
                    watched.expect(namespace, key, versions.first().copied().unwrap_or(0));
                }
                Asked::Refused(error) => return Err(error),
                Asked::Answer(_) | Asked::Unknown => return Err(router.refusal(shard_of(namespace, key))),
            }
        }
        Ok(())
    }
}

type Shard = (NamespaceId, ShardId);

/// The shard of all keys of a transaction, and of all that are watched; `None` if there are no keys.
fn one_shard(requests: &[Request<'_>], watched: &Watched) -> Result<Option<Shard>, ErrorReply> {
    let mut one: Option<Shard> = None;
    let mut add = |namespace: NamespaceId, key: &[u8]| {
        if namespace.mode() == Mode::Available {
            return Err(ErrorReply::needs_strong());
        }
        let shard = (namespace, shard_of(namespace, key));
        if *one.get_or_insert(shard) == shard { Ok(()) } else { Err(cross_shard()) }
    };
    for request in requests {
        if let Run::Keyspace(kind) = request.spec.run {
            let is_of_one_shard =
                request.namespace.shards() == 1 && !matches!(kind, Keyspace::Scan | Keyspace::FlushAll);
            if is_of_one_shard {
                add(request.namespace, b"")?;
                continue;
            }
            let text = format!(
                "CROSSSLOT {} concerns all shards: inside MULTI it needs a node that is the only member of all of them",
                request.spec.name.to_ascii_uppercase()
            );
            return Err(ErrorReply::new(text));
        }
        for key in request.spec.keys_of(request.args) {
            add(request.namespace, key)?;
        }
    }
    for (namespace, key, _) in &watched.keys {
        add(*namespace, key)?;
    }
    Ok(one)
}

/// A cursor says how far a scan came that others go on with: it can't be a part of something that is done as one.
pub(crate) fn has_scan(requests: &[Request<'_>]) -> bool {
    requests.iter().any(|request| matches!(request.spec.run, Run::Keyspace(Keyspace::Scan)))
}

fn answered_by_words(requests: &[Request<'_>]) -> Served {
    let answer = |request: &Request<'_>| match request.spec.run {
        Run::Answer(answer) => answer(request.args).unwrap_or_else(Reply::Error),
        _ => Reply::Error(ErrorReply::new(format!("ERR {} names no key", request.spec.name))),
    };
    Served::Done(requests.iter().map(answer).collect())
}

fn unknown_transaction() -> ErrorReply {
    ErrorReply::new(
        "UNKNOWN the outcome of the transaction is not known: it may have been executed, or may yet be",
    )
}
