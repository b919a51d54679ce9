//! The way of a buffer's commands: cut by shard, each part to the node that leads its shard, tried again where that can do no harm, and the
//! replies back in order.

use super::attempt::{Attempt, Kind, Next, PATIENCE_MS, Setback};
use super::codec::{Answer, COMMANDS_MAX, Said, Work, decode_answer, encode_ask};
use super::first::is_whole;
use super::here::Here;
use super::join::{Boxed, join};
use super::plan::{Part, Parts, Piece};
use super::whole::Whole;
use crate::consistency::ReadMode;
use crate::control::Change;
use crate::execute::group::Command;
use crate::latch::ShardId;
use crate::namespace::NamespaceId;
use crate::node::Node;
use crate::runtime::{Cluster, now};
use crate::session::{Request, Written};
use crate::transport::{CallError, Channel};
use bytes::Bytes;
use kvorum_model::{ErrorReply, Reply};
use kvorum_sync::{Lane, Moment, OpId, StoreId};
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Longest wait for one answer of another node: a commit there may take a change of leaders.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_millis(PATIENCE_MS);

/// Routes for one node.
#[derive(Clone, Copy)]
pub(super) struct Router<'n> {
    pub(super) node: &'n Node,
    pub(super) cluster: &'n Arc<Cluster>,
    /// Commands over all keys look at the shards that this node leads alone: a cluster client asks the others by itself.
    pub(super) own_shards: bool,
}

/// How a connection wants its commands executed.
#[derive(Clone, Copy)]
pub(super) struct Wish<'w> {
    pub(super) read: ReadMode,
    /// The id of a request, and the place of that request.
    pub(super) id: Option<(usize, &'w [u8])>,
    /// Raised to the age of stale reads, in milliseconds.
    pub(super) age_ms: &'w AtomicU64,
}

/// What is asked of a shard as a whole, and its answer found.
pub(super) enum Asked {
    Answer(Answer),
    /// Surely not executed.
    Refused(ErrorReply),
    /// It may have been executed.
    Unknown,
}

impl Router<'_> {
    /// Executes requests that have keys, or whose replies follow from their words. What they wrote is noted in `written`.
    pub(super) async fn requests(
        &self,
        requests: &[Request<'_>],
        wish: Wish<'_>,
        written: &mut Written,
    ) -> Vec<Reply> {
        let Parts { parts, mut merging } = Parts::of(requests);
        let namespaces: Vec<NamespaceId> =
            parts.iter().filter_map(|part| namespace_of(part, requests)).collect();
        let mut first = self.first_answers(&parts, wish).await.into_iter();
        let runs = parts.iter().zip(namespaces).map(|(part, namespace)| {
            let first = first.next().flatten();
            let run: Boxed<'_, _> = match first {
                Some(Ok(Answer::Said { all, last })) if is_whole(part, &all) => Box::pin(ready((all, last))),
                first => Box::pin(self.part(part, namespace, wish, first)),
            };
            run
        });
        let all = join(runs.collect()).await;
        for (part, (said, last)) in parts.iter().zip(all) {
            written.note(part.shard, last);
            let refusal = self.refusal(part.shard);
            for (piece, said) in part.pieces.iter().zip(said) {
                merging.add(piece, said, &refusal);
            }
        }
        merging.into_replies()
    }

    /// Executes a part, piece by piece, or goes on after a first try. Answers the highest op id that it wrote, too; zero: none.
    async fn part(
        &self,
        part: &Part<'_>,
        namespace: NamespaceId,
        wish: Wish<'_>,
        mut first: Option<Result<Answer, Setback>>,
    ) -> (Vec<Said>, u64) {
        let mut said = vec![Said::Again; part.pieces.len()];
        let mut left: Vec<usize> = (0..part.pieces.len()).collect();
        let is_write = |at: &usize| part.pieces.get(*at).is_some_and(|piece| piece.spec.is_write());
        let is_named = |at: &usize| {
            let piece = part.pieces.get(*at);
            wish.id.is_some_and(|(named, _)| piece.is_some_and(|piece| piece.at == named))
        };
        let kind_of = |left: &[usize]| match left.iter().filter(|at| is_write(at)).count() {
            0 => Kind::Read,
            1 if left.iter().any(is_named) => Kind::Named,
            _ => Kind::Write,
        };
        let mut attempt = Attempt::new(millis(), PATIENCE_MS, kind_of(&left));
        let (mut hint, mut wrote) = (None, 0);
        while !left.is_empty() {
            let now_left: Vec<usize> = left.iter().copied().take(COMMANDS_MAX).collect();
            let pieces: Vec<&Piece<'_>> = now_left.iter().filter_map(|at| part.pieces.get(*at)).collect();
            let list: Vec<Command<'_>> = pieces.iter().map(|piece| (piece.spec, piece.args())).collect();
            let id = wish.id.filter(|_| now_left.iter().any(is_named)).map(|(_, id)| id);
            let until = now().after_micros(attempt.patience_ms(millis()).saturating_mul(1000));
            let tried = match first.take() {
                Some(tried) => tried,
                None => self.try_commands(part.shard, namespace, &list, (wish, id), hint.take(), until).await,
            };
            let setback = match tried {
                Ok(Answer::Said { all, last }) if all.len() == list.len() => {
                    wrote = wrote.max(last);
                    now_left.iter().zip(all).for_each(|(at, one)| set(&mut said, *at, one));
                    let before = left.len();
                    left.retain(|at| said.get(*at) == Some(&Said::Again));
                    if left.len() < before {
                        attempt.advanced();
                    }
                    Setback::Again
                }
                Ok(Answer::NotHere(leader)) => Setback::NotHere(leader),
                Ok(Answer::Refused(text)) => {
                    let refused = Said::Reply(Reply::Error(ErrorReply::new(text)));
                    left.drain(..).for_each(|at| set(&mut said, at, refused.clone()));
                    break;
                }
                Ok(_) => Setback::Lost,
                Err(setback) => setback,
            };
            if left.is_empty() {
                break;
            }
            match attempt.next(millis(), setback) {
                Next::Ask(leader) => hint = Some(leader),
                Next::Pause(pause_ms) => self.pause(pause_ms).await,
                Next::Refuse => break,
                Next::Unknown => {
                    let writes = left.iter().filter(|at| is_write(at));
                    writes.for_each(|at| set(&mut said, *at, Said::Unknown));
                    left.retain(|at| !is_write(at));
                    attempt.only_reads();
                }
            }
        }
        (said, wrote)
    }

    /// One try, here or at another node.
    async fn try_commands(
        &self,
        shard: ShardId,
        namespace: NamespaceId,
        list: &[Command<'_>],
        (wish, id): (Wish<'_>, Option<&[u8]>),
        hint: Option<StoreId>,
        until: Moment,
    ) -> Result<Answer, Setback> {
        let here = Here { node: self.node, cluster: self.cluster, shard, namespace, until };
        let only_reads = list.iter().all(|(spec, _)| !spec.is_write());
        if only_reads
            && wish.read != ReadMode::Leader
            && hint.is_none()
            && let Some(answer) = here.read_here(list, wish.read == ReadMode::Stale, wish.age_ms).await
        {
            return Ok(answer);
        }
        let to = self.leader(shard, hint).await?;
        if to == self.cluster.me {
            return Ok(here.commands(list, id).await);
        }
        let commands = list.iter().map(|(_, args)| args.words().to_vec()).collect();
        self.forward(to, shard, Work::Commands(commands), id, until).await
    }

    /// Asks a shard for something as a whole, until there is an answer.
    pub(super) async fn ask(
        &self,
        shard: ShardId,
        namespace: NamespaceId,
        kind: Kind,
        work: &Work<Bytes>,
        id: Option<&[u8]>,
    ) -> Asked {
        self.ask_within(PATIENCE_MS, shard, namespace, kind, work, id).await
    }

    /// As [`Router::ask`], with another patience in milliseconds, which is the time that the work takes at most, too.
    pub(super) async fn ask_within(
        &self,
        patience_ms: u64,
        shard: ShardId,
        namespace: NamespaceId,
        kind: Kind,
        work: &Work<Bytes>,
        id: Option<&[u8]>,
    ) -> Asked {
        let mut attempt = Attempt::new(millis(), patience_ms, kind);
        let mut hint = None;
        loop {
            let until = now().after_micros(attempt.patience_ms(millis()).saturating_mul(1000));
            let tried = async {
                let to = self.leader(shard, hint.take()).await?;
                if to == self.cluster.me {
                    let here = Here { node: self.node, cluster: self.cluster, shard, namespace, until };
                    return Ok(execute(&here, work, id).await);
                }
                self.forward(to, shard, work.clone(), id, until).await
            };
            let setback = match tried.await {
                Ok(Answer::NotHere(leader)) => Setback::NotHere(leader),
                Ok(Answer::Refused(text)) => return Asked::Refused(ErrorReply::new(text)),
                Ok(Answer::Said { last, all }) => match all.into_iter().next() {
                    Some(Said::Unknown) => return Asked::Unknown,
                    Some(Said::Again) | None => Setback::Again,
                    Some(reply) => return Asked::Answer(Answer::Said { last, all: vec![reply] }),
                },
                Ok(answer) => return Asked::Answer(answer),
                Err(setback) => setback,
            };
            match attempt.next(millis(), setback) {
                Next::Ask(leader) => hint = Some(leader),
                Next::Pause(pause_ms) => self.pause(pause_ms).await,
                Next::Refuse => return Asked::Refused(self.refusal(shard)),
                Next::Unknown => return Asked::Unknown,
            }
        }
    }

    async fn forward<B: AsRef<[u8]>>(
        &self,
        to: StoreId,
        shard: ShardId,
        work: Work<B>,
        id: Option<&[u8]>,
        until: Moment,
    ) -> Result<Answer, Setback> {
        let left = Duration::from_micros(until.micros_since(now())).min(ANSWER_WITHIN);
        let patience_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        let body = encode_ask(shard, patience_ms, id, &work);
        // The answer to what is given up there has to come back, too.
        let within = left + Duration::from_millis(250);
        let lane = Lane::Data((shard.place % 64) as u8);
        match self.cluster.transport.call(to, lane, Channel::Forward, body, within).await {
            Ok(body) => decode_answer(body).map_err(|expected| {
                tracing::warn!(%to, ?expected, "an answer for forwarded commands makes no sense");
                Setback::Lost
            }),
            Err(CallError::NotSent(_)) => Err(Setback::NotSent),
            Err(CallError::Lost(_)) => Err(Setback::Lost),
            // Whoever refuses has not looked at it.
            Err(CallError::Refused(_)) => Err(Setback::NotHere(None)),
        }
    }

    /// Who leads the shard, as far as the map says; sees to it that somebody will.
    pub(super) async fn leader(&self, shard: ShardId, hint: Option<StoreId>) -> Result<StoreId, Setback> {
        if let Some(leader) = hint {
            return Ok(leader);
        }
        let map = self.cluster.control.map();
        if let Some(row) = map.shards.get(&shard) {
            return row.manager().map(|(_, manager)| manager).ok_or(Setback::NoLeader);
        }
        let unused = map.namespaces.get(&shard.namespace).is_some_and(|row| !row.active && !row.dropped);
        if unused {
            // Somebody uses it now. That it was not told in time is as good as a missing leader.
            let change = Change::Activate { id: shard.namespace };
            let told = tokio::time::timeout(ANSWER_WITHIN, self.cluster.control.change(change)).await;
            if let Ok(Err(error)) = told {
                tracing::debug!(%error, "a namespace could not be brought into use yet");
            }
        }
        Err(Setback::NoLeader)
    }

    /// Waits a little, or until somebody else may lead, or there is room.
    pub(super) async fn pause(&self, pause_ms: u64) {
        let mut maps = self.cluster.control.changes();
        maps.mark_unchanged();
        tokio::select! {
            _ = maps.changed() => {}
            () = self.cluster.moved.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
        }
    }

    /// The error of what was surely not executed.
    pub(super) fn refusal(&self, shard: ShardId) -> ErrorReply {
        ErrorReply::new(format!(
            "TRYAGAIN shard {} of namespace {} took no command within {PATIENCE_MS} ms: nothing was executed",
            shard.place, shard.namespace
        ))
    }
}

/// Executes at this node's own member what is asked of a shard.
pub(super) async fn execute(here: &Here<'_>, work: &Work<Bytes>, id: Option<&[u8]>) -> Answer {
    let bad = |error: ErrorReply| Answer::Refused(error.text().to_owned());
    match work {
        Work::Commands(commands) => {
            let words: Vec<Vec<&[u8]>> =
                commands.iter().map(|words| words.iter().map(Bytes::as_ref).collect()).collect();
            match resolved(&words) {
                Ok(list) => here.commands(&list, id).await,
                Err(error) => bad(error),
            }
        }
        Work::Transaction { watched, commands } => {
            let words: Vec<Vec<&[u8]>> =
                commands.iter().map(|words| words.iter().map(Bytes::as_ref).collect()).collect();
            let watched: Vec<(&[u8], u64)> =
                watched.iter().map(|(key, version)| (&key[..], *version)).collect();
            match resolved(&words) {
                Ok(list) => here.transaction(&list, &watched, id).await,
                Err(error) => bad(error),
            }
        }
        Work::Versions(keys) => here.versions(&keys.iter().map(Bytes::as_ref).collect::<Vec<_>>()).await,
        Work::Clear => here.clear().await,
        Work::Page { after, looked_at_max, pattern, type_name } => {
            let (after, pattern, type_name) = (after.clone(), pattern.clone(), type_name.clone());
            here.whole(Whole::Page { after, looked_at_max: *looked_at_max, pattern, type_name }).await
        }
        Work::Keys(pattern) => here.whole(Whole::Keys(pattern.clone())).await,
        Work::Count => here.whole(Whole::Count).await,
        Work::RandomKey => {
            let seed = here.node.inner.cursors.lock().draw();
            here.whole(Whole::RandomKey { seed }).await
        }
        Work::Held { op, wanted } => here.held(OpId::from_version(*op), *wanted).await,
        Work::Scan(_) => Answer::Refused("ERR a scan concerns a node, not a shard".to_owned()),
    }
}

fn resolved<'w>(words: &'w [Vec<&'w [u8]>]) -> Result<Vec<Command<'w>>, ErrorReply> {
    let one = |words: &'w Vec<&'w [u8]>| {
        let args = kvorum_model::Args::new(words);
        Ok((kvorum_model::resolve(args)?, args))
    };
    words.iter().map(one).collect()
}

fn set(said: &mut [Said], at: usize, one: Said) {
    if let Some(place) = said.get_mut(at) {
        *place = one;
    }
}

fn namespace_of(part: &Part<'_>, requests: &[Request<'_>]) -> Option<NamespaceId> {
    requests.get(part.pieces.first()?.at).map(|request| request.namespace)
}

pub(super) fn millis() -> u64 {
    now().0 / 1000
}
