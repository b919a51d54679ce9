//! Requests with an id, at a node alone: the record of the request is in the batch of its writes. See [`record`](super::group::record).

use super::evaluation::Evaluation;
use super::group::record::{self, RECORD_LIFE_MS, Remembered, record_key};
use crate::error::Error;
use crate::keys::shard_of;
use crate::latch::ShardId;
use crate::namespace::Mode;
use crate::session::Request;
use kvorum_engine::{Attributes, Cached, FoundKind, View};
use kvorum_model::{ErrorReply, Reply, Stop};

/// Where the request is in a buffer that executes under the id: the first that writes.
pub(super) fn place(requests: &[Request<'_>]) -> Option<usize> {
    requests.iter().position(|request| request.spec.is_write())
}

impl Evaluation<'_, '_> {
    /// Executes under the id of a request.
    pub(crate) fn name(&mut self, id: &[u8]) {
        self.named = Some(record_key(id));
    }

    /// Whether it executes under an id.
    pub(crate) fn is_named(&self) -> bool {
        self.named.is_some()
    }

    /// What is remembered of these requests; nothing if they have no id or were not executed before.
    pub(crate) fn remembered(&mut self, requests: &[Request<'_>]) -> Option<Result<Reply, Stop>> {
        let key = self.named.as_ref()?;
        if requests.iter().any(|request| request.namespace.mode() == Mode::Available) {
            return Some(Err(ErrorReply::new("ERR request ids need a strong namespace").into()));
        }
        let tree = self.inner.tree(record_shard(requests)?)?;
        let newest = View::newest();
        let found = match tree.get_cached(key, &newest) {
            Ok(Cached::Ready(found)) => Ok(found),
            // Nearly never: a record is read soon after it was written, and one that is not there is not looked for on the disk.
            Ok(Cached::WouldRead) => tree.get(key, &newest),
            Err(error) => Err(error),
        };
        let found = match found {
            Ok(found) => found?,
            Err(error) => return Some(Err(ErrorReply::new(Error::from(error).resp()).into())),
        };
        let is_over = found.expires_at.is_some_and(|at| at <= self.now_ms);
        if found.kind != FoundKind::Value || is_over {
            return None;
        }
        self.rests.on(found.sequence);
        let fingerprint = record::fingerprint(requests.iter().map(|request| request.args.words()));
        Some(match record::decode(&found.value, fingerprint) {
            Some(Remembered::Reply(reply)) => Ok(reply),
            _ => Err(ErrorReply::new("ERR the request id was used for another command").into()),
        })
    }

    /// Adds the record of requests that have changed something to the batch.
    pub(crate) fn remember(&mut self, requests: &[Request<'_>], reply: &Reply) {
        let Some(key) = self.named.take() else { return };
        let Some(shard) = record_shard(requests) else { return };
        let fingerprint = record::fingerprint(requests.iter().map(|request| request.args.words()));
        let expires_at = Some(self.now_ms.saturating_add(RECORD_LIFE_MS));
        let (value, attributes) = (record::encode(fingerprint, reply), Attributes { expires_at, tag: 0 });
        if let Some(grouped) = &mut self.grouped {
            grouped.writes(shard).put(&key, &value, attributes);
            return;
        }
        let (Some(tree), Some(writer)) = (self.inner.tree(shard), self.latches.get_mut(shard)) else {
            return;
        };
        self.batch.put(tree, &key, writer.write(), &value, attributes);
    }
}

/// The shard that remembers: that of the first key.
fn record_shard(requests: &[Request<'_>]) -> Option<ShardId> {
    let first = |request: &Request<'_>| {
        request.spec.keys_of(request.args).next().map(|key| shard_of(request.namespace, key))
    };
    requests.iter().find_map(first)
}
