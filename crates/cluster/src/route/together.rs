//! Commands of connections and nodes that are ready at one moment, executed together: those of one shard under one latch and in few items, all of
//! them in one turn. Those that only read go apart from those that write: they need not wait for what is written at the same time.

use super::asks::Asks;
use super::codec::Answer;
use super::here::Here;
use super::join::Boxed;
use crate::execute::group::Command;
use crate::latch::ShardId;
use crate::namespace::{Mode, NamespaceId};
use crate::node::Node;
use crate::runtime::{Cluster, now};
use kvorum_model::Args;
use kvorum_sync::Moment;
use parking_lot::Mutex;
use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Threads that gather apart from each other.
const STRIPES: usize = 64;

/// What is ready, thread by thread.
pub(crate) struct Together {
    stripes: [Mutex<Stripe>; STRIPES],
}

#[derive(Default)]
struct Stripe {
    /// As many as connections and calls are served at one time.
    waiting: Vec<Waiting>,
    /// Will execute them once this thread has seen to all that is ready.
    executor: Option<JoinHandle<()>>,
}

/// What one connection asks, and where the answers go: one for each part.
struct Waiting {
    asks: Asks,
    until: Moment,
    answers: oneshot::Sender<Vec<Answer>>,
}

impl Default for Together {
    fn default() -> Together {
        Together { stripes: std::array::from_fn(|_| Mutex::default()) }
    }
}

thread_local! {
    static STRIPE: Cell<Option<usize>> = const { Cell::new(None) };
}

fn stripe() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    STRIPE.get().unwrap_or_else(|| {
        let stripe = THREADS.fetch_add(1, Relaxed) % STRIPES;
        STRIPE.set(Some(stripe));
        stripe
    })
}

/// Executes commands at this node's own members, together with what else is ready on this thread. `None` if the node ends meanwhile.
pub(super) async fn execute(node: &Node, cluster: &Arc<Cluster>, asks: Asks) -> Option<Vec<Answer>> {
    let (answers, done) = oneshot::channel();
    let until = now().after_micros(u64::from(asks.patience_ms).saturating_mul(1000));
    let at = stripe();
    {
        let mut stripe = cluster.together.stripes.get(at)?.lock();
        stripe.waiting.push(Waiting { asks, until, answers });
        // One that will not run any more was on a runtime that has ended.
        if stripe.executor.as_ref().is_none_or(JoinHandle::is_finished) {
            stripe.executor = Some(tokio::spawn(execute_all(node.clone(), at)));
        }
    }
    done.await.ok()
}

async fn execute_all(node: Node, at: usize) {
    let Some(cluster) = node.inner.cluster.get() else { return };
    let Some(stripe) = cluster.together.stripes.get(at) else { return };
    let waiting = {
        let mut stripe = stripe.lock();
        stripe.executor = None;
        std::mem::take(&mut stripe.waiting)
    };
    let (asks, mut replies): (Vec<_>, Vec<_>) =
        waiting.into_iter().map(|Waiting { asks, until, answers }| ((asks, until), answers)).unzip();
    let mut replies: Vec<Replies> = asks
        .iter()
        .zip(replies.drain(..))
        .map(|((asks, _), to)| Replies::new(asks.parts.len(), to))
        .collect();
    let words: Vec<Vec<&[u8]>> = asks.iter().map(|(asks, _)| asks.words()).collect();
    let groups = grouped(&node, &asks, &words, &mut replies);
    let here = |group: &Group<'_>| {
        let Group { shard, namespace, until, .. } = *group;
        Here { node: &node, cluster, shard, namespace, until }
    };
    let heres: Vec<Here<'_>> = groups.iter().map(here).collect();
    let mut running: Vec<Option<Boxed<'_, Answer>>> = Vec::with_capacity(groups.len());
    for (here, group) in heres.iter().zip(&groups) {
        running.push(Some(Box::pin(here.commands(&group.commands, None))));
    }
    poll_fn(|context| cluster.in_turn(|| poll_all(context, &mut running, &groups, &mut replies))).await;
}

/// Goes on with all that are not done, and hands out what is answered.
fn poll_all(
    context: &mut Context<'_>,
    running: &mut [Option<Boxed<'_, Answer>>],
    groups: &[Group<'_>],
    replies: &mut [Replies],
) -> Poll<()> {
    let mut done = Poll::Ready(());
    for (place, group) in running.iter_mut().zip(groups) {
        let Some(future) = place else { continue };
        match future.as_mut().poll(context) {
            Poll::Pending => done = Poll::Pending,
            Poll::Ready(answer) => {
                *place = None;
                group.hand_out(answer, replies);
            }
        }
    }
    done
}

/// Commands for one shard, of whoever asked for them.
struct Group<'w> {
    shard: ShardId,
    namespace: NamespaceId,
    writes: bool,
    until: Moment,
    commands: Vec<Command<'w>>,
    parts: Vec<PartOf>,
}

/// A part of a group.
struct PartOf {
    /// Whose it is, and which of its parts.
    asks: usize,
    part: usize,
    commands: usize,
}

/// Answers as far as they are known, and who waits for them.
struct Replies {
    answers: Vec<Option<Answer>>,
    missing: usize,
    to: Option<oneshot::Sender<Vec<Answer>>>,
}

impl Replies {
    fn new(parts: usize, to: oneshot::Sender<Vec<Answer>>) -> Replies {
        Replies { answers: vec![None; parts], missing: parts, to: Some(to) }
    }

    fn set(&mut self, part: usize, answer: Answer) {
        let Some(place @ None) = self.answers.get_mut(part) else { return };
        *place = Some(answer);
        self.missing -= 1;
        if self.missing == 0
            && let Some(to) = self.to.take()
        {
            let _ = to.send(self.answers.drain(..).flatten().collect());
        }
    }
}

impl Group<'_> {
    fn hand_out(&self, answer: Answer, replies: &mut [Replies]) {
        let (last, mut all) = match answer {
            Answer::Said { last, all } => (if self.writes { last } else { 0 }, all.into_iter()),
            other => {
                for PartOf { asks, part, .. } in &self.parts {
                    replies.get_mut(*asks).into_iter().for_each(|replies| replies.set(*part, other.clone()));
                }
                return;
            }
        };
        for PartOf { asks, part, commands } in &self.parts {
            let said = all.by_ref().take(*commands).collect();
            if let Some(replies) = replies.get_mut(*asks) {
                replies.set(*part, Answer::Said { last, all: said });
            }
        }
    }
}

/// Puts together what is for one shard: reads first, so that they don't see what is written in this turn and need not wait for it.
fn grouped<'w>(
    node: &Node,
    asks: &'w [(Asks, Moment)],
    words: &'w [Vec<&'w [u8]>],
    replies: &mut [Replies],
) -> Vec<Group<'w>> {
    let mut groups: Vec<Group<'w>> = Vec::new();
    for (at, (((asks, until), words), replies)) in asks.iter().zip(words).zip(replies).enumerate() {
        for (number, part) in asks.parts.iter().enumerate() {
            let commands: Result<Vec<Command<'w>>, Answer> =
                asks.commands(part, words).map(resolved).collect();
            let (namespace, commands) = match home(node, part.shard).and_then(|home| Ok((home, commands?))) {
                Ok(found) => found,
                Err(answer) => {
                    replies.set(number, answer);
                    continue;
                }
            };
            let writes = commands.iter().any(|(spec, _)| spec.is_write());
            let part_of = PartOf { asks: at, part: number, commands: commands.len() };
            let goes = |group: &&mut Group<'_>| group.shard == part.shard && group.writes == writes;
            match groups.iter_mut().find(goes) {
                Some(group) => {
                    group.until = group.until.min(*until);
                    group.commands.extend(commands);
                    group.parts.push(part_of);
                }
                None => groups.push(Group {
                    shard: part.shard,
                    namespace,
                    writes,
                    until: *until,
                    commands,
                    parts: vec![part_of],
                }),
            }
        }
    }
    groups.sort_by_key(|group| (group.writes, group.shard));
    groups
}

fn resolved<'w>(words: &'w [&'w [u8]]) -> Result<Command<'w>, Answer> {
    let args = Args::new(words);
    match kvorum_model::resolve(args) {
        Ok(spec) => Ok((spec, args)),
        Err(error) => Err(Answer::Refused(error.text().to_owned())),
    }
}

/// The strong namespace of a shard that may be here, or what to answer for all others.
pub(super) fn home(node: &Node, shard: ShardId) -> Result<NamespaceId, Answer> {
    let kept = node.inner.namespaces.get(shard.namespace).filter(|kept| !kept.is_dropped());
    let kept = kept.ok_or(Answer::NotHere(None))?;
    if kept.id.mode() == Mode::Available || shard.place >= kept.id.shards() {
        return Err(Answer::Refused("ERR needs a strong namespace".to_owned()));
    }
    Ok(kept.id)
}
