//! Commands at this node's own member of a shard: evaluated under the latch, proposed with one batch, awaited without it.

use super::codec::{Answer, Said};
use super::under_way::UnderWay;
use super::whole::{Looking, pending};
use crate::execute::group::{
    self, AllKeys, Command, Evaluated, Ground, Item, Leader, Named, Rests, Stopped, record_key,
};
use crate::fetching::Fetching;
use crate::latch::{ShardId, Writer};
use crate::namespace::NamespaceId;
use crate::node::Node;
use crate::prefetch::{Fetched, Interest, Prefetch, WantedKey, Work};
use crate::runtime::{Cluster, now};
use crate::shard::{Done, Member, MemberRole, Outbox};
use kvorum_engine::{Found, Tree, View};
use kvorum_model::{ErrorReply, Reply};
use kvorum_sync::{Epoch, Holders, Moment, OpId, StoreId};
use std::sync::Arc;

/// Keys of commands behind the one that needs the disk that are read along with its own, at most.
const LOOKAHEAD_KEYS_MAX: usize = 64;

/// Why a transaction over all keys is given up.
const KEEPS_CHANGING: &str =
    "BUSY the keys change faster than they can be read inside MULTI: ask outside of it";

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

/// What was read from the disk for commands that needed it. Never dropped under the latch, which it takes.
#[derive(Default)]
pub(super) struct Warm {
    epoch: Epoch,
    keys: Fetched,
    record: Option<(Option<Found>, Interest)>,
    all_keys: Option<AllKeys>,
}

/// What is to be read from the disk.
pub(super) enum Cold {
    Keys(Vec<WantedKey>),
    Record(Tree, Interest),
    Look(Box<Looking>),
}

/// What came of commands that were looked at once.
pub(super) struct Round {
    pub(super) done: Vec<Evaluated>,
    pub(super) under_way: UnderWay,
    /// What the first one that is not done needs of the disk.
    pub(super) cold: Option<(Epoch, Cold)>,
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
                    if warm.all_keys.as_ref().is_some_and(|all| all.is_enough(list.len())) {
                        return Answer::Refused(KEEPS_CHANGING.to_owned());
                    }
                    warm = match self.warm_up(epoch, cold, warm, false).await {
                        Ok(warm) => warm,
                        Err(error) => return Answer::Said { last: 0, all: vec![Said::Reply(error)] },
                    };
                    continue;
                }
            };
            let item = (under_way.items() > 0).then_some(0);
            let fates = self.settle(under_way).await;
            let last = fates.kept.version();
            return match reply {
                Some(reply) => Answer::Said { last, all: vec![fates.of(Evaluated { reply, item })] },
                None if fates.are_reads_kept() => Answer::Changed,
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
                    return match self.settle(under_way).await.are_reads_kept() {
                        true => Answer::Versions(found),
                        false => Answer::Said { last: 0, all: vec![Said::Again] },
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
            let item = Item::clear();
            Ok(self.submit(member, fetching, vec![item], Rests::default(), None, now, out))
        });
        match tried {
            Err(not) => not.answer(1),
            Ok(under_way) => {
                let fates = self.settle(under_way).await;
                Answer::Said {
                    last: fates.kept.version(),
                    all: vec![fates.of(Evaluated { reply: Reply::Ok, item: Some(0) })],
                }
            }
        }
    }

    /// Waits until as many members hold an item as are wanted, or there is no more time.
    pub(super) async fn held(&self, op: OpId, wanted: Holders) -> Answer {
        let mut wait = self.cluster.waits.begin();
        let Some(token) = wait.token() else { return Not::Room.answer(1) };
        let asked = self.at_leader(|member, _, now, out| {
            member.watch(now, token, (op, wanted), self.until, out);
            Ok(())
        });
        if let Err(not) = asked {
            return not.answer(1);
        }
        match wait.await.into_iter().next() {
            Some((_, Done::Held(held))) => Answer::Held(held),
            _ => Answer::NotHere(None),
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
        let all_keys = warm.all_keys.as_ref().filter(|_| warm.epoch == next.epoch());
        Ok(Ground {
            leader: member,
            tree: member.tree(),
            namespace: self.namespace,
            next,
            // What was told as expired stays so.
            now_ms: all_keys
                .and_then(|all| all.time_before(next))
                .unwrap_or_else(|| member.time_ms(inner.time.now())),
            fetching,
            // In another reign the shard may have been written without this node's knowing.
            fetched: if warm.epoch == next.epoch() { &warm.keys } else { Fetched::none() },
            all_keys,
            limits: inner.limits,
        })
    }

    /// Executes commands until one needs the disk. `after`: the item before them, in the order of the connection. `end_of`: how far those go that
    /// come from the same connection as the one at a place.
    pub(super) fn round(
        &self,
        rest: &[Command<'_>],
        named: Option<(usize, &[u8])>,
        after: Option<OpId>,
        warm: &Warm,
        end_of: &dyn Fn(usize) -> usize,
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
                let wanted = wanted_keys(rest.get(done.len()..end_of(done.len())).unwrap_or_default());
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
                group::Transacted::Stopped(Stopped::Look(at, look)) => {
                    let (next, now_ms) = (ground.next, ground.now_ms);
                    let (pending, seen) = (pending(member)?, self.seen(member, now_ms));
                    Ok(Tried::Cold(epoch, Cold::Look(Box::new(Looking { at, look, seen, next, pending }))))
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
    pub(super) async fn warm_up(
        &self,
        epoch: Epoch,
        cold: Cold,
        mut warm: Warm,
        advanced: bool,
    ) -> Result<Warm, Reply> {
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
            Cold::Look(looking) => {
                let mut all = warm.all_keys.take().unwrap_or_else(AllKeys::new);
                let seed = self.node.inner.cursors.lock().draw();
                let looking = tokio::task::spawn_blocking(move || looking.look(seed, &mut all).map(|()| all));
                let read = looking.await.map_err(|error| gone(&error))?;
                warm.all_keys = Some(read.map_err(|error| error.reply())?);
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
