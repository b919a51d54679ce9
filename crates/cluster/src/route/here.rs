//! Commands at this node's own member of a shard: evaluated under the latch, proposed with one batch, awaited without it.

use super::codec::{Answer, Said};
use crate::execute::group::{
    self, Command, Evaluated, Ground, Item, Leader, Named, Ops, Rests, Stopped, record_key,
};
use crate::fetching::Fetching;
use crate::keys::with_user_key;
use crate::latch::{ShardId, Writer};
use crate::namespace::NamespaceId;
use crate::node::Node;
use crate::prefetch::{Fetched, Interest, Prefetch, WantedKey, Work};
use crate::runtime::{Cluster, Wait, now};
use crate::shard::{Done, Draft, Member, MemberRole, Outbox, Writes};
use kvorum_engine::{Attributes, Batch, Durability, Found, Tree, View};
use kvorum_model::{Effect, ErrorReply, Reply};
use kvorum_sync::{Epoch, Moment, Names, OpId, StoreId};
use std::sync::Arc;
use std::time::Duration;

/// Keys of commands behind the one that needs the disk that are read along with its own, at most.
const LOOKAHEAD_KEYS_MAX: usize = 64;

/// This node's member of a shard, and until when somebody waits for its answers.
#[derive(Clone, Copy)]
pub(super) struct Here<'n> {
    pub(super) node: &'n Node,
    pub(super) cluster: &'n Arc<Cluster>,
    pub(super) shard: ShardId,
    pub(super) namespace: NamespaceId,
    pub(super) until: Moment,
}

/// Why nothing was done. Whatever was asked was surely not executed.
#[derive(Debug)]
pub(super) enum Not {
    /// This member does not lead; the one that does, if it is known.
    Here(Option<StoreId>),
    /// There is no room now.
    Room,
    /// It never will be.
    Refused(String),
}

impl Not {
    pub(super) fn answer(self, commands: usize) -> Answer {
        match self {
            Not::Here(leader) => Answer::NotHere(leader),
            Not::Room => Answer::Said { last: 0, all: vec![Said::Again; commands] },
            Not::Refused(text) => Answer::Refused(text),
        }
    }
}

/// Items and reads on their way.
pub(super) struct UnderWay {
    wait: Wait<Done>,
    /// Items that were proposed, or were to be.
    items: usize,
    /// Set if there are replies that wait for what they have read: whether that was asked.
    reads: Option<bool>,
    /// The last item that was taken.
    pub(super) last: Option<OpId>,
    /// Whether all items were taken.
    pub(super) whole: bool,
}

/// What became of what was under way.
pub(super) struct Fates {
    items: Vec<Fate>,
    reads: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    Again,
    Unknown,
}

/// What was read from the disk for commands that needed it. Never dropped under the latch, which it takes.
#[derive(Default)]
struct Warm {
    epoch: Epoch,
    keys: Fetched,
    record: Option<(Option<Found>, Interest)>,
}

/// What is to be read from the disk.
enum Cold {
    Keys(Vec<WantedKey>),
    Record(Tree, Interest),
}

struct Round {
    done: Vec<Evaluated>,
    under_way: UnderWay,
    cold: Option<(Epoch, Cold)>,
}

impl Leader for Member {
    fn is_committed(&self, op: OpId) -> bool {
        Member::is_committed(self, op)
    }

    fn pending_clear(&self) -> Option<OpId> {
        Member::pending_clear(self)
    }

    fn last_time_ms(&self) -> u64 {
        self.item_time_ms()
    }
}

impl Here<'_> {
    /// Executes commands one by one. `id`: of the first of them that writes.
    pub(super) async fn commands(&self, list: &[Command<'_>], id: Option<&[u8]>) -> Answer {
        let key = id.map(record_key);
        let named = key.as_deref().zip(list.iter().position(|(spec, _)| spec.is_write()));
        let (mut warm, mut rounds, mut done) = (Warm::default(), Vec::new(), 0);
        let mut after = None;
        while let Some(rest) = list.get(done..).filter(|rest| !rest.is_empty()) {
            let named = named.and_then(|(key, at)| Some((at.checked_sub(done)?, key)));
            let round = match self.round(rest, named, after, &warm) {
                Ok(round) => round,
                Err(not) if done == 0 => return not.answer(list.len()),
                Err(_) => break,
            };
            done += round.done.len();
            after = round.under_way.last.or(after);
            let goes_on = round.under_way.whole;
            let (cold, advanced) = (round.cold, !round.done.is_empty());
            rounds.push((round.done, round.under_way));
            if !goes_on {
                break;
            }
            if let Some((epoch, cold)) = cold {
                warm = match self.warm_up(epoch, cold, warm, advanced).await {
                    Ok(warm) => warm,
                    Err(error) => {
                        rounds.push((vec![Evaluated { reply: error, item: None }], self.nothing()));
                        break;
                    }
                };
            }
        }
        let mut all = Vec::with_capacity(list.len());
        for (evaluated, under_way) in rounds {
            let fates = self.settle(under_way).await;
            all.extend(evaluated.into_iter().map(|done| fates.of(done)));
        }
        all.resize(list.len(), Said::Again);
        Answer::Said { last: after.map_or(0, OpId::version), all }
    }

    /// Executes commands as one.
    pub(super) async fn transaction(
        &self,
        list: &[Command<'_>],
        watched: &[(&[u8], u64)],
        id: Option<&[u8]>,
    ) -> Answer {
        let key = id.map(record_key);
        let mut warm = Warm::default();
        loop {
            let tried = self.try_transaction(list, watched, key.as_deref(), &warm);
            let (reply, under_way) = match tried {
                Err(not) => return not.answer(1),
                Ok(Tried::Done(reply, under_way)) => (Some(reply), under_way),
                Ok(Tried::Changed(under_way)) => (None, under_way),
                Ok(Tried::Cold(epoch, cold)) => {
                    warm = match self.warm_up(epoch, cold, warm, false).await {
                        Ok(warm) => warm,
                        Err(error) => return Answer::Said { last: 0, all: vec![Said::Reply(error)] },
                    };
                    continue;
                }
            };
            let (last, item) = (under_way.last.map_or(0, OpId::version), (under_way.items > 0).then_some(0));
            let fates = self.settle(under_way).await;
            return match reply {
                Some(reply) => Answer::Said { last, all: vec![fates.of(Evaluated { reply, item })] },
                None if fates.reads == Fate::Kept => Answer::Changed,
                None => Answer::Said { last, all: vec![Said::Again] },
            };
        }
    }

    /// The present versions of keys.
    pub(super) async fn versions(&self, keys: &[&[u8]]) -> Answer {
        let mut warm = Warm::default();
        loop {
            let tried = self.at_leader(|member, fetching, now, out| {
                let ground = self.ground(member, fetching, &warm)?;
                let epoch = ground.next.epoch();
                match group::versions(&ground, keys) {
                    Ok((found, rests)) => {
                        let under_way = self.submit(member, fetching, Vec::new(), rests, None, now, out);
                        Ok(Ok((found, under_way)))
                    }
                    Err((_, Some(error))) => Err(Not::Refused(error.text().to_owned())),
                    Err((stopped, None)) => {
                        let wanted: Vec<&[u8]> = keys.to_vec();
                        Ok(Err((epoch, self.cold(member, fetching, &stopped, &wanted, None))))
                    }
                }
            });
            match tried {
                Err(not) => return not.answer(1),
                Ok(Ok((found, under_way))) => {
                    return match self.settle(under_way).await.reads {
                        Fate::Kept => Answer::Versions(found),
                        _ => Answer::Said { last: 0, all: vec![Said::Again] },
                    };
                }
                Ok(Err((_, None))) => return Not::Room.answer(1),
                Ok(Err((epoch, Some(cold)))) => {
                    warm = match self.warm_up(epoch, cold, warm, false).await {
                        Ok(warm) => warm,
                        Err(Reply::Error(error)) => return Answer::Refused(error.text().to_owned()),
                        Err(_) => return Not::Room.answer(1),
                    };
                }
            }
        }
    }

    /// Empties the shard.
    pub(super) async fn clear(&self) -> Answer {
        let tried = self.at_leader(|member, fetching, now, out| {
            fetching.all_written();
            let item = Item::clear();
            Ok(self.submit(member, fetching, vec![item], Rests::default(), None, now, out))
        });
        match tried {
            Err(not) => not.answer(1),
            Ok(under_way) => {
                let last = under_way.last.map_or(0, OpId::version);
                let fates = self.settle(under_way).await;
                Answer::Said { last, all: vec![fates.of(Evaluated { reply: Reply::Ok, item: Some(0) })] }
            }
        }
    }

    /// Does something with the member under its latch, if it leads, then carries out what it wants.
    pub(super) fn at_leader<T>(
        &self,
        work: impl FnOnce(&mut Member, &mut Fetching, Moment, &mut Outbox) -> Result<T, Not>,
    ) -> Result<T, Not> {
        let place = self.node.inner.shard(self.shard).ok_or(Not::Here(None))?;
        match self.node.inner.store.admission() {
            Ok(()) => {}
            Err(kvorum_engine::Error::Busy { .. }) => return Err(Not::Room),
            // Another member leads soon.
            Err(_) => return Err(Not::Here(None)),
        }
        let mut out = Outbox::default();
        let answer = {
            let mut writer = place.latch();
            let Writer { member, fetching, .. } = &mut *writer;
            match member.as_deref_mut() {
                None => Err(Not::Here(None)),
                Some(member) if !member.leads() => Err(Not::Here(leader_of(member))),
                Some(member) => work(member, fetching, now(), &mut out),
            }
        };
        self.cluster.carry_out(self.shard, out);
        answer
    }

    fn ground<'g>(
        &self,
        member: &'g Member,
        fetching: &'g Fetching,
        warm: &'g Warm,
    ) -> Result<Ground<'g>, Not> {
        let inner = &*self.node.inner;
        let next = member.next_op().ok_or(Not::Room)?;
        Ok(Ground {
            leader: member,
            tree: member.tree(),
            namespace: self.namespace,
            next,
            now_ms: member.time_ms(inner.time.now()),
            fetching,
            // In another reign the shard may have been written without this node's knowing.
            fetched: if warm.epoch == next.epoch() { &warm.keys } else { Fetched::none() },
            limits: inner.limits,
        })
    }

    fn round(
        &self,
        rest: &[Command<'_>],
        named: Option<(usize, &[u8])>,
        after: Option<OpId>,
        warm: &Warm,
    ) -> Result<Round, Not> {
        self.at_leader(|member, fetching, now, out| {
            if rest.iter().any(|(spec, _)| spec.is_write()) {
                member.room().map_err(|_| Not::Room)?;
            }
            let ground = self.ground(member, fetching, warm)?;
            let epoch = ground.next.epoch();
            let named = named.map(|(at, key)| (at, Named { key, fetched: warm.record(epoch, fetching) }));
            let commanded = group::commands(&ground, rest.iter().copied(), named);
            let done = commanded.done;
            let under_way = self.submit(member, fetching, commanded.items, commanded.rests, after, now, out);
            let cold = commanded.stopped.and_then(|stopped| {
                let wanted = wanted_keys(rest.get(done.len()..).unwrap_or_default());
                self.cold(member, fetching, &stopped, &wanted, named.map(|(_, named)| named.key))
            });
            Ok(Round { done, under_way, cold: cold.map(|cold| (epoch, cold)) })
        })
    }

    fn try_transaction(
        &self,
        list: &[Command<'_>],
        watched: &[(&[u8], u64)],
        key: Option<&[u8]>,
        warm: &Warm,
    ) -> Result<Tried, Not> {
        self.at_leader(|member, fetching, now, out| {
            if list.iter().any(|(spec, _)| spec.is_write()) {
                member.room().map_err(|_| Not::Room)?;
            }
            let ground = self.ground(member, fetching, warm)?;
            let epoch = ground.next.epoch();
            let named = key.map(|key| Named { key, fetched: warm.record(epoch, fetching) });
            match group::transaction(&ground, list, watched, named) {
                group::Transacted::Done { reply, item, rests } => {
                    let items = item.into_iter().collect();
                    Ok(Tried::Done(reply, self.submit(member, fetching, items, rests, None, now, out)))
                }
                group::Transacted::Changed(rests) => {
                    Ok(Tried::Changed(self.submit(member, fetching, Vec::new(), rests, None, now, out)))
                }
                group::Transacted::Stopped(stopped) => {
                    let mut wanted = wanted_keys(list);
                    wanted.extend(watched.iter().map(|(key, _)| *key));
                    let cold = self.cold(member, fetching, &stopped, &wanted, key).ok_or(Not::Room)?;
                    Ok(Tried::Cold(epoch, cold))
                }
            }
        })
    }

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
        let (mut batch, mut last, mut taken) = (Batch::new(), None, 0);
        for item in &items {
            let Some(token) = wait.token() else { break };
            let mut reads = item.reads.clone();
            // Those behind an item that is cancelled are cancelled with it: they are executed again in their order.
            reads.extend(last.or(after).filter(|before| !item.reads.contains(before)));
            let draft = Draft { token: Some(token), wall_ms, writes: writes(item), reads: Names::of(&reads) };
            match member.propose(now, draft, &mut batch, out) {
                Ok(op) => last = Some(op),
                Err(why) => {
                    self.cluster.waits.complete(token, Done::Refused(why));
                    break;
                }
            }
            taken += 1;
            item.effects.iter().for_each(|effect| fetching.written(effect.key()));
            if let Some((key, _, _)) = &item.record {
                fetching.written(key);
            }
        }
        if taken > 0 {
            match self.node.inner.store.write_admitted(&batch, Durability::Synced) {
                Ok(commit) => member.stored(commit.sequence(), out),
                Err(error) => member.lost(error, out),
            }
        }
        let whole = taken == items.len();
        let reads = rests
            .wanted
            .then(|| ask_for_reads(member, &mut wait, rests, last.filter(|_| whole), whole, (now, out)));
        UnderWay { wait, items: asked.min(items.len()), reads, last, whole }
    }

    fn nothing(&self) -> UnderWay {
        UnderWay { wait: self.cluster.waits.begin(), items: 0, reads: None, last: None, whole: true }
    }

    /// Waits until it is known what became of it, or nobody waits for that any more.
    pub(super) async fn settle(&self, under_way: UnderWay) -> Fates {
        let UnderWay { wait, items, reads, .. } = under_way;
        let none = if reads.is_some() { Fate::Again } else { Fate::Kept };
        if wait.is_empty() {
            return Fates { items: vec![Fate::Again; items], reads: none };
        }
        let left = Duration::from_micros(self.until.micros_since(now()));
        let Ok(answers) = tokio::time::timeout(left, wait).await else {
            return Fates { items: vec![Fate::Unknown; items], reads: none };
        };
        let mut fates: Vec<Fate> = answers.into_iter().map(|(_, done)| Fate::of(&done)).collect();
        let asked = if reads == Some(true) { fates.pop() } else { None };
        let reads = asked.unwrap_or(none);
        // Those that were never proposed.
        fates.resize(items.max(fates.len()), Fate::Again);
        Fates { items: fates, reads }
    }

    /// What to read from the disk so that the evaluation can go on; `None` if that is not what it lacks.
    fn cold(
        &self,
        member: &Member,
        fetching: &mut Fetching,
        stopped: &Stopped,
        keys: &[&[u8]],
        record: Option<&[u8]>,
    ) -> Option<Cold> {
        let (key, with_value) = match (stopped, record) {
            (Stopped::Cold { key, with_value }, _) => (key, *with_value),
            (Stopped::ColdRecord, Some(key)) => {
                return Some(Cold::Record(member.tree().clone(), self.interest(fetching, key)));
            }
            _ => return None,
        };
        let mut all: Vec<&[u8]> = vec![key];
        all.extend(keys.iter().filter(|other| **other != key.as_slice()));
        all.get(1..)?;
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|key| seen.insert(*key));
        let want = |(at, key): (usize, &&[u8])| WantedKey {
            namespace: self.namespace,
            shard: self.shard,
            key: key.to_vec(),
            with_value,
            needed: at == 0,
            tree: Some(member.tree().clone()),
            interest: Some(self.interest(fetching, key)),
        };
        Some(Cold::Keys(all.iter().enumerate().map(want).collect()))
    }

    fn interest(&self, fetching: &mut Fetching, key: &[u8]) -> Interest {
        let mark = fetching.begin(key);
        Interest { node: self.node.clone(), shard: self.shard, key: key.to_vec(), mark }
    }

    /// Reads from the disk, on a thread that may wait for it. `advanced`: what was read before was for other commands.
    async fn warm_up(&self, epoch: Epoch, cold: Cold, mut warm: Warm, advanced: bool) -> Result<Warm, Reply> {
        let gone =
            |error: &dyn std::fmt::Display| Reply::Error(ErrorReply::new(format!("ERR storage: {error}")));
        if warm.epoch != epoch {
            warm = Warm { epoch, ..Warm::default() };
        }
        match cold {
            Cold::Record(tree, interest) => {
                let key = interest.key.clone();
                let read = move || tree.get(&key, &View::newest());
                let found = tokio::task::spawn_blocking(read).await.map_err(|error| gone(&error))?;
                warm.record = Some((found.map_err(|error| gone(&error))?, interest));
            }
            Cold::Keys(wanted) => {
                let had = std::mem::take(&mut warm.keys);
                let had = if advanced { Fetched::default() } else { had };
                let prefetch = Prefetch::new(self.node, Work::Keys(wanted), had);
                let reading = tokio::task::spawn_blocking(move || prefetch.run());
                warm.keys = reading.await.map_err(|error| gone(&error))?;
                if let Some(error) = warm.keys.error.take() {
                    return Err(error.reply());
                }
            }
        }
        Ok(warm)
    }
}

/// What came of a transaction that was tried.
enum Tried {
    Done(Reply, UnderWay),
    Changed(UnderWay),
    Cold(Epoch, Cold),
}

impl Warm {
    /// What was read of the request's record, if it counts still.
    fn record(&self, epoch: Epoch, fetching: &Fetching) -> Option<&Option<Found>> {
        let (found, interest) = self.record.as_ref().filter(|_| self.epoch == epoch)?;
        fetching.is_newest(&interest.key, interest.mark).then_some(found)
    }
}

impl Fate {
    fn of(done: &Done) -> Fate {
        match done {
            Done::Committed | Done::ReadReady => Fate::Kept,
            Done::Unknown => Fate::Unknown,
            Done::Cancelled | Done::Again | Done::Refused(_) | Done::ReadHere { .. } | Done::AtLeader(_) => {
                Fate::Again
            }
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

fn leader_of(member: &Member) -> Option<StoreId> {
    match member.role() {
        MemberRole::Following { leader } => leader,
        _ => None,
    }
}

fn wanted_keys<'r>(list: &[Command<'r>]) -> Vec<&'r [u8]> {
    let Some((first, _)) = list.first() else { return Vec::new() };
    let mut wanted = Vec::new();
    for (at, (spec, args)) in list.iter().enumerate() {
        if at == 0 || (std::ptr::eq(*spec, *first) && wanted.len() < LOOKAHEAD_KEYS_MAX) {
            wanted.extend(spec.keys_of(*args));
        }
    }
    wanted
}

fn writes(item: &Item<'_>) -> Writes {
    let mut writes = Writes::new();
    if item.clears {
        writes.clear();
    }
    for effect in &item.effects {
        with_user_key(effect.key(), |key| match effect {
            Effect::Put { value, expires_at, tag, .. } => {
                writes.put(key, value.as_slice(), Attributes { expires_at: *expires_at, tag: *tag });
            }
            Effect::Delete { .. } => writes.delete(key, Attributes::default()),
        });
    }
    if let Some((key, record, expires_at)) = &item.record {
        writes.put(key, record, Attributes { expires_at: Some(*expires_at), tag: 0 });
    }
    writes
}
