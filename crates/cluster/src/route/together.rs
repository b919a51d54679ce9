//! Commands of connections and nodes that are ready at one moment, executed together: those of one shard under one latch and in few items, all of
//! them in one turn. Those that only read go apart from those that write: they need not wait for what is written at the same time.

use super::asks::Asks;
use super::codec::{Answer, Said};
use super::commands::Begun;
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
    let mut running = Running::new();
    cluster.in_turn_with_data(|| {
        for group in groups {
            let Group { shard, namespace, until, .. } = group;
            begin(Here { node: &node, cluster, shard, namespace, until }, group, &mut running, &mut replies);
        }
    });
    poll_fn(|context| cluster.in_turn_with_data(|| poll_all(context, &mut running, &mut replies))).await;
}

/// What is answered: whose asks, which part of them, and how.
type Answered = Vec<(usize, usize, Answer)>;

/// What has begun and is not done.
type Running<'w> = Vec<Option<Boxed<'w, Answered>>>;

/// Goes on with all that are not done, and hands out what is answered.
fn poll_all(context: &mut Context<'_>, running: &mut Running<'_>, replies: &mut [Replies]) -> Poll<()> {
    let mut done = Poll::Ready(());
    for place in running {
        let Some(future) = place else { continue };
        match future.as_mut().poll(context) {
            Poll::Pending => done = Poll::Pending,
            Poll::Ready(answered) => {
                *place = None;
                hand_out(answered, replies);
            }
        }
    }
    done
}

fn hand_out(answered: Answered, replies: &mut [Replies]) {
    for (asks, part, answer) in answered {
        if let Some(replies) = replies.get_mut(asks) {
            replies.set(part, answer);
        }
    }
}

/// Begins with a group. A connection whose command needs the disk goes on by itself: the others of the group don't wait for it.
fn begin<'w>(here: Here<'w>, mut group: Group<'w>, running: &mut Running<'w>, replies: &mut [Replies]) {
    while !group.parts.is_empty() {
        let mut begun = match here.begin(&group.commands, &|at| group.end_of(at)) {
            Ok(begun) => begun,
            Err(not) => return hand_out(group.told(not.answer(group.commands.len())), replies),
        };
        let Some(at) = begun.waits_at().filter(|_| group.parts.len() > 1) else {
            return running.push(Some(Box::pin(finish(here, group, begun))));
        };
        let Cut { before, stuck, first, behind } = group.cut(at);
        let rounds = begun.split();
        let (tell, told) = oneshot::channel();
        running.push(Some(Box::pin(async move {
            let (last, mut said) = here.settled(rounds).await;
            let of_stuck = said.split_off(before.commands.len().min(said.len()));
            // The one that waits for it goes with the node.
            let _ = tell.send((last, of_stuck));
            before.told(Answer::Said { last, all: said })
        })));
        running.push(Some(Box::pin(go_on(here, stuck, first, begun, told))));
        group = behind;
    }
}

async fn finish<'w>(here: Here<'w>, group: Group<'w>, begun: Begun) -> Answered {
    let answer = match here.finish(&group.commands, begun).await {
        Ok((last, all)) => Answer::Said { last, all },
        Err(not) => not.answer(group.commands.len()),
    };
    group.told(answer)
}

/// Executes the commands of one connection from the one on that waits for the disk, `first`. What became of those before is told by who executed them.
async fn go_on<'w>(
    here: Here<'w>,
    stuck: Group<'w>,
    first: usize,
    begun: Begun,
    told: oneshot::Receiver<(u64, Vec<Said>)>,
) -> Answered {
    let list = stuck.commands.get(first..).unwrap_or_default();
    let done = here.finish(list, begun).await;
    let (mut last, mut all) = told.await.unwrap_or_default();
    // As many as there are, unless nobody told: then it is not known.
    all.resize(first, Said::Unknown);
    match done {
        Err(not) if first == 0 => return stuck.told(not.answer(stuck.commands.len())),
        Err(_) => {}
        Ok((higher, said)) => {
            all.extend(said);
            last = last.max(higher);
        }
    }
    all.resize(stuck.commands.len(), Said::Again);
    stuck.told(Answer::Said { last, all })
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

/// A group around the part whose command waits for the disk.
struct Cut<'w> {
    before: Group<'w>,
    stuck: Group<'w>,
    /// Which of its commands waits.
    first: usize,
    behind: Group<'w>,
}

impl<'w> Group<'w> {
    /// Behind which command the part ends that the one at a place belongs to.
    fn end_of(&self, at: usize) -> usize {
        let mut end = 0;
        let ends = self.parts.iter().map(|part| {
            end += part.commands;
            end
        });
        ends.into_iter().find(|end| *end > at).unwrap_or(self.commands.len())
    }

    /// Cuts out the part that the command at a place belongs to.
    fn cut(mut self, at: usize) -> Cut<'w> {
        let end = self.end_of(at);
        let behind = self.split_off(end);
        let start = end - self.parts.last().map_or(0, |part| part.commands);
        let stuck = self.split_off(start);
        Cut { before: self, first: at - start, stuck, behind }
    }

    /// The parts from a command on.
    fn split_off(&mut self, from: usize) -> Group<'w> {
        let Group { shard, namespace, writes, until, .. } = *self;
        let mut start = 0;
        let kept = self.parts.iter().take_while(|part| {
            start += part.commands;
            start <= from
        });
        let kept = kept.count();
        let (commands, parts) = (self.commands.split_off(from), self.parts.split_off(kept));
        Group { shard, namespace, writes, until, commands, parts }
    }

    /// What is answered to each part, of the answer to all of them.
    fn told(&self, answer: Answer) -> Answered {
        let (last, mut all) = match answer {
            Answer::Said { last, all } => (if self.writes { last } else { 0 }, all.into_iter()),
            other => {
                return self.parts.iter().map(|part| (part.asks, part.part, other.clone())).collect();
            }
        };
        let told = |part: &PartOf| {
            let all = all.by_ref().take(part.commands).collect();
            (part.asks, part.part, Answer::Said { last, all })
        };
        self.parts.iter().map(told).collect()
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
