//! `MULTI`/`EXEC` and `WATCH`: several requests as one.

use crate::alone::Hold;
use crate::error::{Error, Result};
use crate::execute::{Evaluation, Isolation, Needs, NotAlone, Plan, Proposed, Room, Step, commit};
use crate::keys::shard_of;
use crate::namespace::{Mode, NamespaceId};
use crate::node::Node;
use crate::prefetch::{Fetched, Prefetch};
use crate::session::{Outcome, Request, Session, Transaction, Watched};
use bytes::Bytes;
use kvorum_model::{ErrorReply, Reply, Stop};
use kvorum_sync::OpId;

/// What the node executes alone; [`Outcome::Elsewhere`] if that is not all of it.
pub(crate) fn transaction(
    node: &Node,
    session: &mut Session,
    requests: &[Request<'_>],
    watched: &Watched,
    hold: &Hold<'_>,
) -> Transaction {
    let elsewhere = || Transaction { outcome: Outcome::Elsewhere, commit: None };
    let mut namespaces =
        watched.keys.iter().map(|(namespace, _, _)| node.inner.namespaces.get(namespace.id()));
    if !namespaces.all(|kept| kept.is_none_or(|kept| hold.covers(kept))) {
        return elsewhere();
    }
    execute(node, session, requests, watched, Some(hold)).unwrap_or_else(|NotAlone| elsewhere())
}

/// As [`transaction`], over shards of whose groups this node is the only member.
pub(crate) fn transaction_of_groups(
    node: &Node,
    session: &mut Session,
    requests: &[Request<'_>],
    watched: &Watched,
) -> Result<Transaction, NotAlone> {
    execute(node, session, requests, watched, None)
}

fn execute(
    node: &Node,
    session: &mut Session,
    requests: &[Request<'_>],
    watched: &Watched,
    hold: Option<&Hold<'_>>,
) -> Result<Transaction, NotAlone> {
    let mut fetched = std::mem::take(&mut session.fetched);
    if let Some(error) = fetched.error.take() {
        return Ok(Transaction { outcome: Outcome::Refused(error), commit: None });
    }
    if requests.iter().any(|request| request.namespace.mode() == Mode::Available) {
        return Ok(Transaction { outcome: Outcome::Refused(Error::NeedsStrong), commit: None });
    }
    let mut plan = Plan::of(node, session.consistency.durability, requests, Isolation::All, hold);
    if plan.elsewhere {
        return Err(NotAlone);
    }
    if let Some(work) = plan.work.take() {
        let blocked = Prefetch::new(node, work, Fetched::default());
        return Ok(Transaction { outcome: Outcome::Blocked(blocked), commit: None });
    }
    for (namespace, key, _) in &watched.keys {
        plan.latches.insert(shard_of(*namespace, key));
    }
    let mut evaluation = Evaluation::new(node, &plan, Isolation::All, fetched);
    if hold.is_none() {
        evaluation.group()?;
    }
    if let Some(id) = &session.request_id {
        evaluation.name(id);
    }
    let outcome = run(&mut evaluation, requests, watched);
    if !matches!(outcome, Outcome::Blocked(_)) {
        session.request_id = None;
    }
    let (sequence, durability) = evaluation.rests_on();
    let proposed = evaluation.take_proposed();
    // The latches are given back.
    drop(evaluation);
    for Proposed { shard, op, out } in proposed {
        session.written.note(shard, op.map_or(0, OpId::version));
        if let Some(cluster) = node.inner.cluster.get() {
            cluster.carry_out(shard, out);
        }
    }
    if hold.is_some() {
        session.written.sequence = session.written.sequence.max(sequence);
    }
    Ok(Transaction { outcome, commit: commit(node, sequence, durability) })
}

fn run<'r>(evaluation: &mut Evaluation<'_, 'r>, requests: &[Request<'r>], watched: &Watched) -> Outcome {
    match evaluation.remembered(requests) {
        None => {}
        Some(Ok(Reply::Array(replies))) => return written(evaluation, Outcome::Done(replies)),
        Some(Ok(_)) => {
            return Outcome::Refused(Error::Invalid("the request id was used for another command".into()));
        }
        Some(Err(Stop::Error(error))) => return Outcome::Refused(Error::Invalid(without_code(&error))),
        Some(Err(Stop::WouldRead)) => {
            return Outcome::Refused(Error::Storage("a record is not in memory".into()));
        }
    }
    match evaluation.is_unchanged(watched) {
        Ok(true) => {}
        Ok(false) => {
            // The answer may rest on an expiry.
            return written(evaluation, Outcome::Changed);
        }
        Err(Stop::WouldRead) => {
            let keys: Vec<_> =
                watched.keys.iter().map(|(namespace, key, _)| (*namespace, &key[..])).collect();
            return Outcome::Blocked(evaluation.prefetch_watched(&keys));
        }
        Err(Stop::Error(error)) => return Outcome::Refused(Error::Storage(error.text().to_owned())),
    }
    let mut replies = Vec::with_capacity(requests.len());
    for (at, request) in requests.iter().enumerate() {
        if let Step::Blocked(needs) = evaluation.step(request, at, false, &mut replies) {
            let rest = requests.get(at..).unwrap_or_default();
            return Outcome::Blocked(evaluation.prefetch(needs, rest, true));
        }
    }
    if evaluation.hold_to_batch() && evaluation.is_named() {
        evaluation.remember(requests, &Reply::Array(replies.clone()));
    }
    written(evaluation, Outcome::Done(replies))
}

/// What an error says, without its code.
fn without_code(error: &ErrorReply) -> String {
    error.text().strip_prefix("ERR ").unwrap_or(error.text()).to_owned()
}

/// The outcome, once what it rests on is written.
fn written(evaluation: &mut Evaluation<'_, '_>, outcome: Outcome) -> Outcome {
    let Err(error) = evaluation.try_write() else { return outcome };
    match evaluation.may_wait(&error) {
        Some(retry_after) => {
            let needs = Needs::Room(Room { from: 0, retry_after });
            Outcome::Blocked(evaluation.prefetch(needs, &[], true))
        }
        None => Outcome::Refused(error),
    }
}

impl Evaluation<'_, '_> {
    fn is_unchanged(&self, watched: &Watched) -> Result<bool, Stop> {
        for (namespace, key, version) in &watched.keys {
            if self.version_of(*namespace, key)? != *version {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub(crate) fn watch(
    node: &Node,
    session: &mut Session,
    namespace: NamespaceId,
    keys: &[&[u8]],
    watched: &mut Watched,
    hold: &Hold<'_>,
) -> Result<Option<Prefetch>> {
    let mut fetched = std::mem::take(&mut session.fetched);
    if let Some(error) = fetched.error.take() {
        return Err(error);
    }
    if namespace.mode() == Mode::Available {
        return Err(Error::NeedsStrong);
    }
    watched.check_room(keys.len())?;
    // No latches: `EXEC` compares under them.
    let plan = Plan::new(Some(hold));
    let mut evaluation = Evaluation::new(node, &plan, Isolation::All, fetched);
    let mut versions = Vec::with_capacity(keys.len());
    for key in keys {
        match evaluation.version_of(namespace, key) {
            Ok(version) => versions.push((namespace, Bytes::copy_from_slice(key), version)),
            Err(Stop::Error(error)) => return Err(Error::Storage(error.text().to_owned())),
            Err(Stop::WouldRead) => {
                let keys: Vec<_> = keys.iter().map(|key| (namespace, *key)).collect();
                return Ok(Some(evaluation.prefetch_watched(&keys)));
            }
        }
    }
    // Of a key that is watched twice the first version counts: it may have changed since.
    for (namespace, key, version) in versions {
        if !watched.keys.iter().any(|(n, k, _)| *n == namespace && *k == key) {
            watched.keys.push((namespace, key, version));
        }
    }
    Ok(None)
}
