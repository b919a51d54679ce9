//! Commands of the table, run for a request of the JSON API.

use crate::shared::Shared;
use kvorum_cluster::{Error, NamespaceId, Outcome, Prefetch, Progress, Request, Session, Watched};
use kvorum_model::{Args, Reply, lookup};

/// Runs one command on a namespace.
pub(super) async fn run(shared: &Shared, namespace: NamespaceId, words: &[&[u8]]) -> Result<Reply, Error> {
    let requests = [request(namespace, words)?];
    let mut session = Session::new();
    let mut replies = Vec::with_capacity(1);
    loop {
        let Progress { blocked, commit, .. } = shared.node.execute(&mut session, &requests, &mut replies);
        if let Some(prefetch) = blocked {
            read_ahead(shared, &mut session, prefetch).await?;
            continue;
        }
        if let Some(commit) = commit {
            commit.durable().await?;
        }
        return replies.pop().ok_or_else(|| Error::Invalid(String::from("the command has no reply")));
    }
}

/// Runs commands as one transaction; a reply each.
pub(super) async fn transaction(
    shared: &Shared,
    namespace: NamespaceId,
    commands: &[Vec<&[u8]>],
) -> Result<Vec<Reply>, Error> {
    let requests = commands.iter().map(|words| request(namespace, words)).collect::<Result<Vec<_>, _>>()?;
    let mut session = Session::new();
    let watched = Watched::new();
    loop {
        let done = shared.node.transaction(&mut session, &requests, &watched);
        match done.outcome {
            Outcome::Blocked(prefetch) => read_ahead(shared, &mut session, prefetch).await?,
            Outcome::Refused(error) => return Err(error),
            Outcome::Changed => return Err(Error::Invalid(String::from("nothing was watched, yet it changed"))),
            Outcome::Done(replies) => {
                if let Some(commit) = done.commit {
                    commit.durable().await?;
                }
                return Ok(replies);
            }
        }
    }
}

fn request<'w>(namespace: NamespaceId, words: &'w [&'w [u8]]) -> Result<Request<'w>, Error> {
    let args = Args::new(words);
    let spec = words.first().and_then(|name| lookup(name));
    let spec = spec.ok_or_else(|| Error::Invalid(String::from("no such command")))?;
    Ok(Request { namespace, spec, args })
}

async fn read_ahead(shared: &Shared, session: &mut Session, prefetch: Prefetch) -> Result<(), Error> {
    crate::counters::add(&shared.counters.cold_reads, 1);
    let fetched = tokio::task::spawn_blocking(move || prefetch.run()).await;
    let fetched = fetched.map_err(|error| Error::Storage(format!("a read of the store ended early: {error}")))?;
    session.resume(fetched);
    Ok(())
}
