//! Commands on behalf of HTTP: the one place where they are given to the node.

use super::Answer;
use crate::session;
use crate::shared::Shared;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue};
use kvorum_cluster::{
    Commit, Consistency, NamespaceId, Outcome, Prefetch, Request, Served, Session, Watched,
};
use kvorum_model::{Args, Reply, resolve};

/// What is to be run.
pub(super) struct Job<'j> {
    pub(super) namespace: NamespaceId,
    pub(super) consistency: Consistency,
    /// Whether all are to be executed as one.
    pub(super) atomic: bool,
    /// The id of the request, under which it is executed once however often it comes.
    pub(super) request_id: Option<&'j [u8]>,
    /// Versions that keys must have; only for what is executed as one.
    pub(super) expected: &'j [(&'j [u8], u64)],
}

impl Job<'_> {
    /// Commands in a namespace, one after the other.
    pub(super) fn in_order(namespace: NamespaceId, consistency: Consistency) -> Job<'static> {
        Job { namespace, consistency, atomic: false, request_id: None, expected: &[] }
    }

    /// Commands in a namespace, as one.
    pub(super) fn as_one(namespace: NamespaceId, consistency: Consistency) -> Job<'static> {
        Job { atomic: true, ..Job::in_order(namespace, consistency) }
    }
}

/// The id that a request gives itself, so that it may be sent again.
pub(super) fn request_id(headers: &HeaderMap) -> Result<Option<&[u8]>, Answer> {
    let Some(id) = headers.get("idempotency-key").map(HeaderValue::as_bytes) else { return Ok(None) };
    if session::request_id(id).is_none() {
        let text = format!("Idempotency-Key has 1 to {} bytes", session::REQUEST_ID_BYTES_MAX);
        return Err(Answer::text(StatusCode::BAD_REQUEST, text));
    }
    Ok(Some(id))
}

/// Runs one command and waits until its reply may be told.
pub(super) async fn run_one(shared: &Shared, job: Job<'_>, words: &[&[u8]]) -> Result<Reply, Answer> {
    let replies = run(shared, job, &[words]).await?.unwrap_or_default();
    replies.into_iter().next().ok_or_else(|| unexpected(&Reply::Nil))
}

/// Runs commands and waits until their replies may be told. `None`: nothing was executed, because a key has another version than expected.
pub(super) async fn run(
    shared: &Shared,
    job: Job<'_>,
    commands: &[&[&[u8]]],
) -> Result<Option<Vec<Reply>>, Answer> {
    let mut requests = Vec::with_capacity(commands.len());
    for words in commands {
        let args = Args::new(words);
        let spec = resolve(args).map_err(|error| unexpected(&Reply::Error(error)))?;
        requests.push(Request { namespace: job.namespace, spec, args });
    }
    let mut session = Session::new();
    session.consistency = job.consistency;
    session.request_id = job.request_id.map(Bytes::copy_from_slice);
    if !job.atomic {
        return in_order(shared, &mut session, &requests).await.map(Some);
    }
    let mut watched = Watched::new();
    for (key, version) in job.expected {
        watched.expect(job.namespace, key, *version);
    }
    loop {
        let done = shared.node.transaction(&mut session, &requests, &watched);
        match done.outcome {
            Outcome::Done(replies) => {
                settle(done.commit).await?;
                return Ok(Some(replies));
            }
            Outcome::Changed => {
                settle(done.commit).await?;
                return Ok(None);
            }
            Outcome::Blocked(prefetch) => session.resume(fetch(prefetch).await?),
            Outcome::Refused(error) => return Err(Answer::of(&error)),
            Outcome::Elsewhere => break,
        }
    }
    match shared.node.serve_transaction(&mut session, &requests, &watched).await {
        Served::Done(replies) => Ok(Some(replies)),
        Served::Changed => Ok(None),
        Served::Error(error) => Err(unexpected(&Reply::Error(error))),
    }
}

async fn in_order(
    shared: &Shared,
    session: &mut Session,
    requests: &[Request<'_>],
) -> Result<Vec<Reply>, Answer> {
    let mut replies = Vec::with_capacity(requests.len());
    while let Some(rest) = requests.get(replies.len()..).filter(|rest| !rest.is_empty()) {
        let progress = shared.node.execute(session, rest, &mut replies);
        settle(progress.commit).await?;
        if progress.elsewhere {
            let rest = requests.get(replies.len()..).unwrap_or_default();
            replies.extend(shared.node.serve(session, rest).await);
            break;
        }
        if let Some(prefetch) = progress.blocked {
            session.resume(fetch(prefetch).await?);
        }
    }
    Ok(replies)
}

async fn settle(commit: Option<Commit>) -> Result<(), Answer> {
    match commit {
        Some(commit) => commit.durable().await.map_err(|error| Answer::of(&error)),
        None => Ok(()),
    }
}

async fn fetch(prefetch: Prefetch) -> Result<kvorum_cluster::Fetched, Answer> {
    let reading = tokio::task::spawn_blocking(move || prefetch.run());
    reading.await.map_err(|error| Answer::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// A command's error, or a reply that it never gives.
pub(super) fn unexpected(reply: &Reply) -> Answer {
    match reply {
        Reply::Error(error) => {
            let status = match error.code() {
                "ERR" | "WRONGTYPE" | "CROSSSLOT" => StatusCode::BAD_REQUEST,
                "CONFLICT" => StatusCode::CONFLICT,
                "UNKNOWN" => StatusCode::GATEWAY_TIMEOUT,
                "BUSY" | "MISCONF" | "TRYAGAIN" | "CLUSTERDOWN" => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Answer::text(status, error.text())
        }
        _ => Answer::text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the command gave a reply that it should not give",
        ),
    }
}
