//! Commands over all shards of a namespace: `SCAN`, `KEYS`, `DBSIZE`, `FLUSHDB`, `FLUSHALL`.

use super::attempt::Kind;
use super::codec::{Answer, Said, Work, decode_answer, encode_ask};
use super::join::{Boxed, join};
use super::router::{Asked, Router};
use crate::cursor::{CURSOR_BITS, Place};
use crate::keyspace::SCAN_COUNT_MAX;
use crate::latch::ShardId;
use crate::namespace::{Mode, NamespaceId, numbered};
use crate::random_key::weighted_start;
use crate::session::{Request, Written};
use crate::transport::{CallError, Channel};
use bytes::Bytes;
use kvorum_model::{Args, ErrorReply, Keyspace, Reply, ScanOptions, check_flush};
use kvorum_sync::{Lane, StoreId};
use std::time::Duration;

/// Shards that one call of `SCAN` looks into, at most.
const SCAN_SHARDS_MAX: usize = 16;

/// How long another node may take for a call of `SCAN`.
const SCAN_WITHIN: Duration = Duration::from_secs(10);

type Outcome = Result<Reply, ErrorReply>;

impl Router<'_> {
    pub(super) async fn keyspace(
        &self,
        kind: Keyspace,
        request: &Request<'_>,
        written: &mut Written,
    ) -> Reply {
        let (namespace, args) = (request.namespace, request.args);
        let done = match kind {
            Keyspace::Scan => self.scan(namespace, args).await,
            Keyspace::Keys => self.keys(namespace, args.at(1)).await,
            Keyspace::DbSize => self.count(namespace).await,
            Keyspace::RandomKey => self.random_key(namespace).await,
            Keyspace::FlushDb => match check_flush(args) {
                Ok(()) => self.clear(&[namespace], written).await,
                Err(error) => Err(error),
            },
            Keyspace::FlushAll => match check_flush(args) {
                Ok(()) => self.clear(&numbered().collect::<Vec<_>>(), written).await,
                Err(error) => Err(error),
            },
        };
        done.unwrap_or_else(Reply::Error)
    }

    /// Asks all shards of namespaces; answers come in the order of the shards.
    async fn ask_all(
        &self,
        namespaces: &[NamespaceId],
        kind: Kind,
        work: &Work<Bytes>,
    ) -> Vec<(ShardId, Asked)> {
        let all = namespaces
            .iter()
            .flat_map(|namespace| ShardId::all_of(*namespace).map(|shard| (*namespace, shard)));
        let (namespaces, shards): (Vec<NamespaceId>, Vec<ShardId>) =
            all.filter(|(_, shard)| self.is_wanted(*shard)).unzip();
        let asks = namespaces.iter().zip(&shards).map(|(namespace, shard)| {
            Box::pin(self.ask(*shard, *namespace, kind, work, None)) as Boxed<'_, Asked>
        });
        let answers = join(asks.collect()).await;
        shards.into_iter().zip(answers).collect()
    }

    /// Whether a command over all keys looks at this shard.
    fn is_wanted(&self, shard: ShardId) -> bool {
        let map = self.cluster.control.map();
        let leader = map.shards.get(&shard).and_then(|row| row.manager());
        !self.own_shards || leader.is_some_and(|(_, leader)| leader == self.cluster.me)
    }

    async fn count(&self, namespace: NamespaceId) -> Outcome {
        let mut sum = 0;
        for (shard, asked) in self.ask_all(&[namespace], Kind::Read, &Work::Count).await {
            match self.read(shard, asked)? {
                Answer::Count(count) => sum += count,
                answer => return Err(strange(&answer)),
            }
        }
        Ok(Reply::Integer(i64::try_from(sum).unwrap_or(i64::MAX)))
    }

    async fn keys(&self, namespace: NamespaceId, pattern: &[u8]) -> Outcome {
        let work = Work::Keys(Bytes::copy_from_slice(pattern));
        let mut all = Vec::new();
        for (shard, asked) in self.ask_all(&[namespace], Kind::Read, &work).await {
            match self.read(shard, asked)? {
                Answer::Page { keys, .. } => all.extend(keys.into_iter().map(Reply::Bulk)),
                answer => return Err(strange(&answer)),
            }
        }
        Ok(Reply::Array(all))
    }

    /// A shard at random, by how much of it this node knows to be there, then those behind it until one has a key.
    async fn random_key(&self, namespace: NamespaceId) -> Outcome {
        let shards: Vec<ShardId> =
            ShardId::all_of(namespace).filter(|shard| self.is_wanted(*shard)).collect();
        let inner = &*self.node.inner;
        let known: Vec<Option<u64>> =
            shards.iter().map(|shard| inner.tree(*shard).map(|tree| tree.stats().entries)).collect();
        // Of those that are kept by others nothing is known but that slots are spread evenly.
        let (sum, count) =
            known.iter().flatten().fold((0, 0), |(sum, count), known| (sum + known, count + 1));
        let weights: Vec<u64> = known.iter().map(|known| known.unwrap_or(1 + sum / count.max(1))).collect();
        let start = weighted_start(&weights, &mut fastrand::Rng::with_seed(inner.cursors.lock().draw()));
        let (before, from) = shards.split_at(start);
        for shard in from.iter().chain(before) {
            let asked = self.ask(*shard, namespace, Kind::Read, &Work::RandomKey, None).await;
            match self.read(*shard, asked)? {
                Answer::Page { keys, .. } => {
                    if let Some(key) = keys.into_iter().next() {
                        return Ok(Reply::Bulk(key));
                    }
                }
                answer => return Err(strange(&answer)),
            }
        }
        Ok(Reply::Nil)
    }

    fn read(&self, shard: ShardId, asked: Asked) -> Result<Answer, ErrorReply> {
        match asked {
            Asked::Answer(answer) => Ok(answer),
            Asked::Refused(error) => Err(error),
            Asked::Unknown => Err(self.refusal(shard)),
        }
    }

    /// One item a shard. Of namespaces that nobody used there is nothing to clear.
    async fn clear(&self, namespaces: &[NamespaceId], written: &mut Written) -> Outcome {
        let map = self.cluster.control.map();
        if let Some(available) = namespaces.iter().find(|namespace| namespace.mode() == Mode::Available) {
            let name = map.namespaces.get(&available.id()).map_or_else(String::new, |row| row.name.clone());
            let remedy = if available.is_built_in() { "" } else { ": drop and create it" };
            let text = format!("ERR {name} is an available namespace, which can't be flushed{remedy}");
            return Err(ErrorReply::new(text));
        }
        let is_used = |namespace: &&NamespaceId| {
            namespaces.len() == 1 || map.namespaces.get(&namespace.id()).is_some_and(|row| row.active)
        };
        let used: Vec<NamespaceId> = namespaces.iter().filter(is_used).copied().collect();
        let (mut cleared, mut unknown, mut refused) = (0, Vec::new(), None);
        for (shard, asked) in self.ask_all(&used, Kind::Write, &Work::Clear).await {
            match asked {
                Asked::Answer(Answer::Said { all, last })
                    if matches!(all.as_slice(), [Said::Reply(Reply::Ok)]) =>
                {
                    written.note(shard, last);
                    cleared += 1;
                }
                Asked::Refused(error) => {
                    refused = Some(error);
                    unknown.push(shard);
                }
                Asked::Answer(_) | Asked::Unknown => {
                    cleared += 1;
                    unknown.push(shard);
                }
            }
        }
        match refused {
            _ if unknown.is_empty() => Ok(Reply::Ok),
            Some(error) if cleared == 0 => Err(error),
            _ => {
                let names: Vec<String> =
                    unknown.iter().map(|shard| format!("{}/{}", shard.namespace, shard.place)).collect();
                let text = format!(
                    "UNKNOWN whether all is cleared: it is not known of the shards {} (namespace/place)",
                    names.join(" ")
                );
                Err(ErrorReply::new(text))
            }
        }
    }

    /// `SCAN`: page by page through the shards. A cursor names the node that keeps its place.
    async fn scan(&self, namespace: NamespaceId, args: Args<'_>) -> Outcome {
        let options = ScanOptions::parse(args)?;
        let map = self.cluster.control.map();
        let slot_of = |store: StoreId| map.nodes.get(&store).map(|row| u64::from(row.slot));
        let mine = slot_of(self.cluster.me).unwrap_or(0);
        let slot = options.cursor >> CURSOR_BITS;
        if options.cursor == 0 || slot == mine {
            return self.scan_here(namespace, &options, mine).await;
        }
        let invalid = || ErrorReply::new("ERR invalid cursor");
        let to = map.nodes.keys().copied().find(|store| slot_of(*store) == Some(slot)).ok_or_else(invalid)?;
        let shard = ShardId { namespace: namespace.id(), place: 0 };
        let work = Work::Scan(args.words().to_vec());
        let body = encode_ask(shard, SCAN_WITHIN.as_millis() as u32, None, &work);
        let called =
            self.cluster.transport.call(to, Lane::Data(0), Channel::Forward, body, SCAN_WITHIN).await;
        match called.map(decode_answer) {
            Ok(Ok(Answer::Said { all, .. })) => match all.into_iter().next() {
                Some(Said::Reply(Reply::Error(error))) => Err(error),
                Some(Said::Reply(reply)) => Ok(reply),
                _ => Err(self.refusal(shard)),
            },
            Ok(Ok(Answer::Refused(text))) => Err(ErrorReply::new(text)),
            Ok(Ok(answer)) => Err(strange(&answer)),
            Ok(Err(expected)) => {
                Err(ErrorReply::new(format!("ERR the node of this cursor answers nonsense: {expected:?}")))
            }
            Err(CallError::NotSent(why) | CallError::Lost(why) | CallError::Refused(why)) => Err(
                ErrorReply::new(format!("TRYAGAIN the node that keeps this cursor can't be reached: {why}")),
            ),
        }
    }

    /// A call whose cursor is this node's.
    pub(super) async fn scan_here(
        &self,
        namespace: NamespaceId,
        options: &ScanOptions<'_>,
        slot: u64,
    ) -> Outcome {
        let known = options.cursor & ((1 << CURSOR_BITS) - 1);
        let mut place = if options.cursor == 0 {
            Place { namespace, shard: 0, after: None }
        } else {
            let cursors = self.node.inner.cursors.lock();
            let place = cursors.get(known).filter(|place| place.namespace == namespace).cloned();
            place.ok_or_else(|| ErrorReply::new("ERR invalid cursor"))?
        };
        let count = options.count.min(SCAN_COUNT_MAX);
        let mut keys: Vec<Reply> = Vec::new();
        for _ in 0..SCAN_SHARDS_MAX {
            if place.shard >= namespace.shards() || keys.len() as u64 >= count {
                break;
            }
            let shard = ShardId { namespace: namespace.id(), place: place.shard };
            if !self.is_wanted(shard) {
                (place.shard, place.after) = (place.shard + 1, None);
                continue;
            }
            let owned = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
            let work = Work::Page {
                after: place.after.take().map(Bytes::from),
                looked_at_max: count as u32,
                pattern: owned(options.pattern),
                type_name: owned(options.type_name),
            };
            let asked = self.ask(shard, namespace, Kind::Read, &work, None).await;
            match self.read(shard, asked)? {
                Answer::Page { next, keys: page } => {
                    keys.extend(page.into_iter().map(Reply::Bulk));
                    place.after = next.map(Vec::from);
                    place.shard += u16::from(place.after.is_none());
                }
                answer => return Err(strange(&answer)),
            }
            if place.after.is_some() {
                break;
            }
        }
        let cursor = if place.shard >= namespace.shards() {
            0
        } else {
            (slot << CURSOR_BITS) | self.node.inner.cursors.lock().add(place, known)
        };
        Ok(Reply::Array(vec![Reply::bulk(cursor.to_string()), Reply::Array(keys)]))
    }
}

fn strange(answer: &Answer) -> ErrorReply {
    tracing::warn!(?answer, "an answer to another question");
    ErrorReply::new("ERR the nodes of this cluster do not agree on what was asked")
}
