//! What was proposed and asked under a shard's latch, and what became of it.

use super::codec::Said;
use super::here::Here;
use crate::execute::add_effect;
use crate::execute::group::{Evaluated, Item, Ops, Rests};
use crate::fetching::Fetching;
use crate::runtime::{Wait, now};
use crate::shard::{Done, Draft, Member, Outbox, Writes};
use kvorum_engine::{Attributes, Batch, Durability};
use kvorum_sync::{Moment, Names, OpId};
use std::time::Duration;

/// Items and reads on their way.
pub(super) struct UnderWay {
    wait: Wait<Done>,
    /// Items that were proposed, or were to be.
    items: usize,
    /// Set if there are replies that wait for what they have read: whether that was asked.
    reads: Option<bool>,
    /// The items that were taken.
    ops: Ops,
    /// The item by which a request was executed that came again.
    met: Option<OpId>,
    /// Whether all items were taken.
    pub(super) whole: bool,
}

/// What became of what was under way.
pub(super) struct Fates {
    items: Vec<Fate>,
    reads: Fate,
    /// The highest item that is committed, of what clients wrote; zero: none.
    pub(super) kept: OpId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Again,
    Unknown,
}

impl UnderWay {
    /// How many items were to be stored.
    pub(super) fn items(&self) -> usize {
        self.items
    }

    /// The last item that was taken.
    pub(super) fn last(&self) -> Option<OpId> {
        self.ops.last().copied()
    }
}

impl Here<'_> {
    /// Proposes items and asks for the confirmation of reads: one batch. `after`: the item before them, in the order of the connection.
    #[expect(clippy::too_many_arguments, reason = "what is held under the latch comes apart")]
    pub(super) fn submit(
        &self,
        member: &mut Member,
        fetching: &mut Fetching,
        mut items: Vec<Item<'_>>,
        rests: Rests,
        after: Option<OpId>,
        now: Moment,
        out: &mut Outbox,
    ) -> UnderWay {
        let mut wait = self.cluster.waits.begin();
        let asked = items.len();
        if rests.on_time && items.is_empty() {
            // It carries the time, and nothing else.
            items.push(Item::default());
        }
        let wall_ms = self.node.inner.time.now();
        let (mut batch, mut ops) = (Batch::new(), Ops::new());
        for item in &items {
            let Some(token) = wait.token() else { break };
            let mut reads = item.reads.clone();
            // Those behind an item that is cancelled are cancelled with it: they are executed again in their order.
            reads.extend(ops.last().copied().or(after).filter(|before| !item.reads.contains(before)));
            let draft = Draft { token: Some(token), wall_ms, writes: writes(item), reads: Names::of(&reads) };
            match member.propose(now, draft, &mut batch, out) {
                Ok(op) => ops.push(op),
                Err(why) => {
                    self.cluster.waits.complete(token, Done::Refused(why));
                    break;
                }
            }
            if item.clears {
                fetching.all_written();
            }
            item.effects.iter().for_each(|effect| fetching.written(effect.key()));
            if let Some((key, _, _)) = &item.record {
                fetching.written(key);
            }
        }
        if !ops.is_empty() {
            match self.node.inner.store.write_admitted(&batch, Durability::Synced) {
                Ok(commit) => member.stored(commit.sequence(), out),
                Err(error) => member.lost(error, out),
            }
        }
        let (whole, met) = (ops.len() == items.len(), rests.met);
        let last = ops.last().copied().filter(|_| whole);
        let reads = rests.wanted.then(|| ask_for_reads(member, &mut wait, rests, last, whole, (now, out)));
        UnderWay { wait, items: asked, reads, ops, met, whole }
    }

    pub(super) fn nothing(&self) -> UnderWay {
        let wait = self.cluster.waits.begin();
        UnderWay { wait, items: 0, reads: None, ops: Ops::new(), met: None, whole: true }
    }

    /// Waits until it is known what became of it, or nobody waits for that any more.
    pub(super) async fn settle(&self, under_way: UnderWay) -> Fates {
        let UnderWay { wait, items, reads, ops, met, .. } = under_way;
        let none = if reads.is_some() { Fate::Again } else { Fate::Kept };
        let all = |fate: Fate| Fates { items: vec![fate; items], reads: none, kept: OpId::ZERO };
        if wait.is_empty() {
            return all(Fate::Again);
        }
        let left = Duration::from_micros(self.until.micros_since(now()));
        let Ok(answers) = tokio::time::timeout(left, wait).await else {
            return all(Fate::Unknown);
        };
        let mut fates: Vec<Fate> = answers.into_iter().map(|(_, done)| Fate::of(&done)).collect();
        let asked = if reads == Some(true) { fates.pop() } else { None };
        let reads = asked.unwrap_or(none);
        // What carries the time alone is no client's.
        let kept = fates.iter().zip(&ops).take(items).filter(|(fate, _)| **fate == Fate::Kept);
        let kept = kept.map(|(_, op)| *op).max();
        let met = met.filter(|_| reads == Fate::Kept);
        // Those that were never proposed.
        fates.resize(items.max(fates.len()), Fate::Again);
        Fates { items: fates, reads, kept: kept.max(met).unwrap_or(OpId::ZERO) }
    }
}

impl Fate {
    fn of(done: &Done) -> Fate {
        match done {
            Done::Committed | Done::ReadReady => Fate::Kept,
            Done::Unknown => Fate::Unknown,
            Done::Cancelled
            | Done::Again
            | Done::Refused(_)
            | Done::ReadHere { .. }
            | Done::Held(_)
            | Done::AtLeader(_) => Fate::Again,
        }
    }
}

impl Fates {
    pub(super) fn of(&self, done: Evaluated) -> Said {
        let fate = match done.item {
            Some(item) => self.items.get(item).copied().unwrap_or(Fate::Again),
            None => self.reads,
        };
        match fate {
            Fate::Kept => Said::Reply(done.reply),
            Fate::Again => Said::Again,
            Fate::Unknown => Said::Unknown,
        }
    }

    pub(super) fn are_reads_kept(&self) -> bool {
        self.reads == Fate::Kept
    }
}

/// Asks whether what was read stands; answers whether there is room for the question. `last`: the item that carries the time, and `whole`:
/// whether all items were taken, else what was read may rest on one that was not.
fn ask_for_reads(
    member: &mut Member,
    wait: &mut Wait<Done>,
    rests: Rests,
    last: Option<OpId>,
    whole: bool,
    (now, out): (Moment, &mut Outbox),
) -> bool {
    let on_time = rests.on_time;
    let mut ops: Ops = rests.into_ops();
    if on_time {
        ops.extend(last.filter(|last| !ops.contains(last)));
    }
    let Some(token) = wait.token() else { return false };
    if whole {
        member.read(now, token, &ops, out);
    } else {
        out.done.push((token, Done::Again));
    }
    true
}

fn writes(item: &Item<'_>) -> Writes {
    let mut writes = Writes::new();
    if item.clears {
        writes.clear();
    }
    item.effects.iter().for_each(|effect| add_effect(&mut writes, effect));
    if let Some((key, record, expires_at)) = &item.record {
        writes.put(key, record, Attributes { expires_at: Some(*expires_at), tag: 0 });
    }
    writes
}
