//! Commands of the Redis protocol in the available namespaces of a cluster: their keys are read from the replicas, what they change is written to
//! the replicas. Commands with different keys run at the same time.

use super::conflicts::Siblings;
use super::shell::{Frame, Shell, Wanted, keeps_losers};
use super::{Answer, Ask, COPIES_MAX, Entry, Operation, Outcome, TRIES};
use crate::consistency::Consistency;
use crate::entity::{Quorum, blocking};
use crate::error::{Error, Result};
use crate::execute::check_size;
use crate::namespace::NamespaceId;
use crate::node::Node;
use crate::route::{Boxed, join};
use crate::session::Request;
use bytes::Bytes;
use kvorum_engine::Durability;
use kvorum_model::{
    Args, DataFn, Effect, Effects, ErrorReply, Meta, Record, Reply, Run, Stop, TAG_STRING, View, evaluate,
    slot,
};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Commands of one connection that run at the same time, at most.
const AT_ONCE_MAX: usize = 128;

/// What one connection asks of its requests.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'n> {
    node: &'n Node,
    shell: &'n Arc<Shell>,
    namespace: NamespaceId,
    ack: u8,
    from: u8,
    durability: Option<Durability>,
}

/// Executes requests on data, all in the same namespace; answers as many replies.
pub(crate) async fn serve(
    node: &Node,
    shell: &Arc<Shell>,
    consistency: &Consistency,
    requests: &[Request<'_>],
) -> Vec<Reply> {
    let mut replies = Vec::with_capacity(requests.len());
    while let Some(first) = requests.get(replies.len()) {
        let asked = match Asked::of(node, shell, consistency, first.namespace) {
            Ok(asked) => asked,
            Err(error) => {
                replies.push(error.reply());
                continue;
            }
        };
        let rest = requests.get(replies.len()..).unwrap_or_default();
        let round = rest.get(..apart(rest)).unwrap_or(rest);
        let running: Vec<Boxed<'_, Reply>> =
            round.iter().map(|request| -> Boxed<'_, Reply> { Box::pin(asked.run(request)) }).collect();
        replies.extend(join(running).await);
    }
    replies
}

/// How many of the requests have no key in common, and so may run at the same time.
fn apart(requests: &[Request<'_>]) -> usize {
    let mut seen: HashSet<&[u8]> = HashSet::new();
    let namespace = requests.first().map(|request| request.namespace);
    for (count, request) in requests.iter().enumerate().take(AT_ONCE_MAX) {
        let keys: HashSet<&[u8]> = request.spec.keys_of(request.args).collect();
        if Some(request.namespace) != namespace || !keys.is_disjoint(&seen) {
            return count;
        }
        seen.extend(keys);
    }
    requests.len().min(AT_ONCE_MAX)
}

impl<'n> Asked<'n> {
    /// Fails if so many replicas can't be asked.
    fn of(
        node: &'n Node,
        shell: &'n Arc<Shell>,
        consistency: &Consistency,
        namespace: NamespaceId,
    ) -> Result<Asked<'n>> {
        let quorum = Quorum { ack: consistency.ack, from: consistency.from };
        let (ack, from) = shell.copies(namespace.id(), quorum)?;
        Ok(Asked { node, shell, namespace, ack, from, durability: consistency.durability })
    }

    async fn run(self, request: &Request<'_>) -> Reply {
        let done = match request.spec.run {
            Run::Data(_) if request.spec.name.eq_ignore_ascii_case("conflicts") => {
                self.conflicts(request.args.at(1)).await
            }
            Run::Data(run) => match request.spec.check_available(request.args) {
                Ok(()) => self.execute(run, request).await,
                Err(error) => Err(error),
            },
            Run::Answer(answer) => answer(request.args),
            _ => {
                let name = request.spec.name;
                Err(ErrorReply::new(format!("ERR {name} concerns the connection, not the data")))
            }
        };
        done.unwrap_or_else(Reply::Error)
    }

    async fn execute(self, run: DataFn, request: &Request<'_>) -> Result<Reply, ErrorReply> {
        let inner = &*self.node.inner;
        let (mut left, mut bases) = (TRIES, HashMap::new());
        loop {
            if request.spec.is_write() && !inner.hybrid.is_bounded(inner.time.now()) {
                let node = self.node.clone();
                let raised = blocking(move || node.inner.raise_stamp_bound()).await;
                raised.map_err(|error| error.error_reply())?;
            }
            let (reply, writes) = self.evaluate_reading(run, request, &mut bases).await?;
            left -= 1;
            // What was found there instead may change what the command says: it begins anew.
            if self.write(writes).await? || left == 0 {
                return Ok(reply);
            }
        }
    }

    /// Evaluates a command, and reads what it needs. `bases`: the versions that its writes are based on, since it was first tried: what it finds
    /// there later was written at the same time.
    async fn evaluate_reading(
        self,
        run: DataFn,
        request: &Request<'_>,
        bases: &mut HashMap<Bytes, u64>,
    ) -> Result<(Reply, Vec<(Bytes, Entry)>), ErrorReply> {
        let mut known = HashMap::new();
        let keeps_losers = keeps_losers(self.node, self.namespace.id());
        if keeps_losers && request.spec.is_write() {
            self.read(request, &mut known).await?;
        }
        loop {
            match self.evaluate(run, request.args, &known) {
                Ok((reply, mut writes)) => {
                    for (key, entry) in writes.iter_mut().filter(|_| keeps_losers) {
                        let seen = known.get(&key[..]).and_then(Option::as_ref);
                        let seen = seen.map_or(0, |seen: &Entry| seen.version);
                        entry.base = Some(*bases.entry(key.clone()).or_insert(seen));
                    }
                    return Ok((reply, writes));
                }
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::WouldRead) => self.read(request, &mut known).await?,
            }
        }
    }

    fn evaluate(
        self,
        run: DataFn,
        args: Args<'_>,
        known: &HashMap<&[u8], Option<Entry>>,
    ) -> Result<(Reply, Vec<(Bytes, Entry)>), Stop> {
        let inner = &*self.node.inner;
        let now_ms = inner.hybrid.now_ms(inner.time.now());
        let view = QuorumView { node: self.node, known, stamp: Cell::new(None) };
        let mut effects = Effects::new();
        let reply = evaluate(run, args, &view, now_ms, &mut effects)?;
        check_size(inner.limits, effects.as_slice())?;
        let entry = |effect: &Effect<'_>| {
            let (value, expires_at) = match effect {
                Effect::Put { value, expires_at, .. } => (Some(value.to_bytes()), *expires_at),
                Effect::Delete { .. } => (None, None),
            };
            let entry = Entry {
                version: view.stamp(),
                value,
                expires_at,
                from: self.from,
                shadow: false,
                base: None,
            };
            (Bytes::copy_from_slice(effect.key()), entry)
        };
        Ok((reply, effects.as_slice().iter().map(entry).collect()))
    }

    /// Reads all keys of a request that are not known yet.
    async fn read<'r>(
        self,
        request: &Request<'r>,
        known: &mut HashMap<&'r [u8], Option<Entry>>,
    ) -> Result<(), ErrorReply> {
        let keys: HashSet<&[u8]> =
            request.spec.keys_of(request.args).filter(|key| !known.contains_key(key)).collect();
        if keys.is_empty() {
            return Err(ErrorReply::new(format!("ERR {} reads what it does not name", request.spec.name)));
        }
        let one = |key: &'r [u8]| -> Boxed<'_, _> {
            let read = Operation::Read { from: self.from };
            Box::pin(async move { (key, self.coordinate(Bytes::copy_from_slice(key), read).await) })
        };
        for (key, outcome) in join(keys.into_iter().map(one).collect()).await {
            let entry = match outcome {
                Ok(Outcome::Read(entry)) => entry,
                Ok(_) => return Err(ErrorReply::new("ERR a read was answered as a write")),
                Err(error) => return Err(error.error_reply()),
            };
            known.insert(key, entry);
        }
        Ok(())
    }

    /// Writes; answers whether all of it is the newest there.
    async fn write(self, writes: Vec<(Bytes, Entry)>) -> Result<bool, ErrorReply> {
        let (several, mut newest) = (writes.len() > 1, true);
        let one = |(key, entry)| -> Boxed<'_, _> {
            Box::pin(async move { self.coordinate(key, Operation::Write(entry)).await })
        };
        for outcome in join(writes.into_iter().map(one).collect()).await {
            match outcome {
                Ok(outcome) => newest &= !matches!(outcome, Outcome::Written { newer: Some(_) }),
                // Of the other keys some are written.
                Err(error) if several => {
                    return Err(ErrorReply::new(format!("UNKNOWN a part may be written: {error}")));
                }
                Err(error) => return Err(error.error_reply()),
            }
        }
        Ok(newest)
    }

    /// `CONFLICTS key`: what was written at the same time as the newest value and lost, newest first.
    async fn conflicts(self, key: &[u8]) -> Result<Reply, ErrorReply> {
        let losers = self.shell.conflicts(self.namespace.id(), key, self.ack, self.from).await;
        let loser = |entry: Entry| {
            let value = entry.value.map_or(Reply::Nil, Reply::Bulk);
            Reply::Array(vec![value, Reply::version(entry.version)])
        };
        let losers = losers.map_err(|error| error.error_reply())?;
        Ok(Reply::Array(losers.into_iter().map(loser).collect()))
    }

    async fn coordinate(self, key: Bytes, operation: Operation) -> Result<Outcome> {
        let (namespace, durability) = (self.namespace.id(), self.durability);
        let wanted = Wanted { namespace, key, operation, ack: self.ack, durability };
        self.shell.coordinate(wanted).await
    }
}

impl Shell {
    /// `ack` and `from` in a namespace, as they are in force for who asks for this.
    pub(crate) fn copies(&self, namespace: u16, quorum: Quorum) -> Result<(u8, u8)> {
        let nodes = self.nodes();
        if nodes == 0 {
            // There is no map yet, and so nobody to ask.
            return Err(Error::TooFew { at_most: 0, wanted: quorum.ack.unwrap_or(1) });
        }
        let inner = self.node().ok_or_else(|| Error::Unknown("the node ends".into()))?.inner;
        let replication = inner.namespaces.get(namespace).and_then(|kept| kept.settings().replication);
        let (ack, from) = quorum.resolve(nodes, replication)?;
        let copies = |number: u32| u8::try_from(number).ok().filter(|copies| *copies <= COPIES_MAX);
        let most = || Error::Invalid(format!("from is {from}, and {COPIES_MAX} are the most"));
        Ok((copies(ack).ok_or_else(most)?, copies(from).ok_or_else(most)?))
    }
}

impl Shell {
    /// What was written at the same time as the newest entry of a key and lost, newest first: of all replicas that answer, `ack` at least.
    async fn conflicts(
        self: &Arc<Self>,
        namespace: u16,
        key: &[u8],
        ack: u8,
        from: u8,
    ) -> Result<Vec<Entry>> {
        let (order, key) = (self.order(), Bytes::copy_from_slice(key));
        let frame = Frame::patient(namespace, &order, None);
        let ask = |store| -> Boxed<'_, _> {
            Box::pin(self.ask(&frame, store, Ask::Conflicts { key: key.clone(), ack, from }))
        };
        let asked = order.of_slot(slot(&key)).into_iter().take(from.into()).map(ask).collect();
        let (mut answered, mut all) = (0, Vec::new());
        for answer in join(asked).await {
            if let Some(Answer::Fetched(entries)) = answer {
                answered += 1;
                all.extend(entries.into_iter().map(|(_, entry)| entry));
            }
        }
        if answered < ack {
            return Err(Error::TooFew { at_most: answered.into(), wanted: ack.into() });
        }
        Ok(Siblings::of(all).losers)
    }

    /// Where losers are kept: the version that a write is based on that comes now.
    pub(crate) async fn base(
        self: &Arc<Self>,
        namespace: u16,
        key: &[u8],
        (ack, from): (u8, u8),
    ) -> Result<Option<u64>> {
        if !self.node().is_some_and(|node| keeps_losers(&node, namespace)) {
            return Ok(None);
        }
        let (key, operation) = (Bytes::copy_from_slice(key), Operation::Read { from });
        match self.coordinate(Wanted { namespace, key, operation, ack, durability: None }).await? {
            Outcome::Read(Some(entry)) => Ok(Some(entry.version)),
            _ => Ok(Some(0)),
        }
    }
}

/// What was read of the keys of a command.
struct QuorumView<'a> {
    node: &'a Node,
    known: &'a HashMap<&'a [u8], Option<Entry>>,
    /// The command's timestamp, once it has asked for one.
    stamp: Cell<Option<u64>>,
}

impl QuorumView<'_> {
    fn stamp(&self) -> u64 {
        let inner = &*self.node.inner;
        let stamp = self.stamp.get().unwrap_or_else(|| inner.hybrid.stamp(inner.time.now()));
        self.stamp.set(Some(stamp));
        stamp
    }
}

impl View for QuorumView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Record>, Stop> {
        let found = self.known.get(key).ok_or(Stop::WouldRead)?;
        Ok(found.as_ref().and_then(|entry| {
            let Entry { version, expires_at, .. } = *entry;
            Some(Record { version, value: entry.value.clone()?, expires_at, tag: TAG_STRING })
        }))
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Meta>, Stop> {
        let found = self.known.get(key).ok_or(Stop::WouldRead)?;
        let meta =
            |entry: &Entry| Meta { version: entry.version, expires_at: entry.expires_at, tag: TAG_STRING };
        Ok(found.as_ref().filter(|entry| entry.value.is_some()).map(meta))
    }

    fn next_version(&self, _: &[u8]) -> u64 {
        self.stamp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvorum_model::resolve;

    #[test]
    fn commands_with_a_key_in_common_run_one_after_the_other() {
        let lines: [&[&[u8]]; 5] = [
            &[b"SET", b"a", b"1"],
            &[b"MGET", b"b", b"c", b"b"],
            &[b"PING"],
            &[b"GET", b"c"],
            &[b"GET", b"d"],
        ];
        let requests: Vec<Request<'_>> = lines
            .iter()
            .map(|words| {
                let args = Args::new(words);
                Request { namespace: NamespaceId::ENTITY, spec: resolve(args).unwrap(), args }
            })
            .collect();
        assert_eq!((apart(&requests), apart(&requests[3..]), apart(&requests[4..])), (3, 2, 1));
    }
}
