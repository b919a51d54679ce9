//! Commands over all keys of an available namespace: the merged keys of all nodes, with the `ack` of `from` of the connection.

use super::marks::mark_of;
use super::range::{Merged, Span};
use super::replica::KEYS_MAX;
use super::shell::{Frame, Shell};
use super::{Answer, Ask};
use crate::consistency::Consistency;
use crate::entity::Quorum;
use crate::error::Error;
use crate::keyspace::{SCAN_BYTES_MAX, SCAN_COUNT_MAX, end_of_prefix};
use crate::node::Node;
use crate::session::Request;
use bytes::Bytes;
use kvorum_model::{
    Args, ErrorReply, Keyspace, Reply, ScanOptions, TAG_STRING, literal_prefix, pattern_matches,
};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Keys that are asked of each node at once, at least.
const KEYS_LEAST: u16 = 64;

/// Deleted or expired keys that one call of `SCAN` passes over, at most.
const GONE_MAX: usize = 10_000;

type Done = Result<Reply, ErrorReply>;

/// The keys of a namespace, for one command.
struct Keys<'n> {
    node: &'n Node,
    shell: &'n Arc<Shell>,
    namespace: u16,
    /// `ack` of `from`.
    copies: (u8, u8),
}

/// Executes a command over all keys that changes nothing.
pub(crate) async fn keyspace(
    node: &Node,
    shell: &Arc<Shell>,
    consistency: &Consistency,
    kind: Keyspace,
    request: &Request<'_>,
) -> Reply {
    let namespace = request.namespace.id();
    let quorum = Quorum { ack: consistency.ack, from: consistency.from };
    let keys = match shell.copies(namespace, quorum) {
        Ok(copies) => Keys { node, shell, namespace, copies },
        Err(error) => return error.reply(),
    };
    let done = match kind {
        Keyspace::Scan => keys.scan(request.args).await,
        Keyspace::Keys => keys.all(request.args.at(1)).await,
        Keyspace::DbSize => keys.count().await,
        Keyspace::RandomKey => keys.random().await,
        Keyspace::FlushDb | Keyspace::FlushAll => {
            Err(ErrorReply::new("ERR an available namespace can't be flushed: drop and create it"))
        }
    };
    done.unwrap_or_else(Reply::Error)
}

impl Keys<'_> {
    /// The keys from one on (or behind it) that may begin with a prefix.
    fn read(&self, from: Bytes, is_first: bool, prefix: &[u8], most: u16) -> Merged {
        let (from, is_first) =
            if prefix > &from[..] { (Bytes::copy_from_slice(prefix), true) } else { (from, is_first) };
        let end = end_of_prefix(prefix).map(Bytes::from);
        let span = Span { namespace: self.namespace, from, is_first, end, keys: Some(most) };
        Merged::begin(self.node, self.shell, self.copies, span)
    }

    async fn scan(&self, args: Args<'_>) -> Done {
        let options = ScanOptions::parse(args)?;
        let (from, is_first) = match options.cursor {
            0 => (Bytes::new(), true),
            mark => (self.shell.marked(self.namespace, mark).await?, false),
        };
        let count = options.count.min(SCAN_COUNT_MAX) as usize;
        let prefix = options.pattern.map(literal_prefix).unwrap_or_default();
        let most = count.clamp(KEYS_LEAST.into(), KEYS_MAX.into()) as u16;
        let mut merged = self.read(from, is_first, &prefix, most);
        let (mut keys, mut there, mut gone, mut bytes) = (Vec::new(), 0, 0, 0);
        let mut cursor = 0;
        'page: loop {
            let piece = merged.look_on().await.map_err(|error| error.error_reply())?;
            if piece.is_empty() {
                break;
            }
            for (key, value) in piece {
                bytes += key.len();
                (there, gone) = if value.is_some() { (there + 1, gone) } else { (there, gone + 1) };
                let is_full = there >= count || gone >= GONE_MAX || bytes >= SCAN_BYTES_MAX;
                if is_full {
                    cursor = self.shell.marks.lock().add(self.namespace, &key);
                }
                if value.is_some() && options.wants(&key, TAG_STRING) {
                    keys.push(Reply::Bulk(key));
                }
                if is_full {
                    break 'page;
                }
            }
        }
        Ok(Reply::Array(vec![Reply::bulk(cursor.to_string()), Reply::Array(keys)]))
    }

    /// Calls `each` with every key that is there and begins so, until it says that it is enough.
    async fn each(&self, mut merged: Merged, mut each: impl FnMut(Bytes) -> bool) -> Result<(), ErrorReply> {
        loop {
            let piece = merged.look_on().await.map_err(|error| error.error_reply())?;
            if piece.is_empty() {
                return Ok(());
            }
            for (key, value) in piece {
                if value.is_some() && !each(key) {
                    return Ok(());
                }
            }
        }
    }

    async fn all(&self, pattern: &[u8]) -> Done {
        let mut keys = Vec::new();
        let merged = self.read(Bytes::new(), true, &literal_prefix(pattern), KEYS_MAX);
        let take = |key: Bytes| {
            if pattern_matches(pattern, &key) {
                keys.push(Reply::Bulk(key));
            }
            true
        };
        self.each(merged, take).await?;
        Ok(Reply::Array(keys))
    }

    async fn count(&self) -> Done {
        let mut count = 0;
        let merged = self.read(Bytes::new(), true, b"", KEYS_MAX);
        self.each(merged, |_| {
            count += 1;
            true
        })
        .await?;
        Ok(Reply::Integer(count))
    }

    /// Some node's key at random, or the next one behind it that is there.
    async fn random(&self) -> Done {
        let mut dice = fastrand::Rng::with_seed(self.node.inner.cursors.lock().draw());
        let frame = Frame::own(self.namespace, &self.shell.order());
        let mut stores: Vec<_> = frame.order.stores().collect();
        dice.shuffle(&mut stores);
        let mut drawn = Bytes::new();
        for store in stores {
            let answer = self.shell.ask(&frame, store, Ask::Drawn { seed: dice.u64(..) }).await;
            if let Some(Answer::Key(Some(key))) = answer {
                drawn = key;
                break;
            }
        }
        for from in [drawn, Bytes::new()] {
            let mut found = None;
            let merged = self.read(from, true, b"", KEYS_LEAST);
            self.each(merged, |key| {
                found = Some(key);
                false
            })
            .await?;
            if let Some(found) = found {
                return Ok(Reply::Bulk(found));
            }
        }
        Ok(Reply::Nil)
    }
}

impl Shell {
    /// What this node answers without looking at its keys.
    pub(super) fn remembered(&self, namespace: u16, ask: &Ask) -> Option<Answer> {
        let Ask::Marked { mark, search } = ask else { return None };
        let key = self.marks.lock().get(namespace, *mark);
        (key.is_some() || !search).then_some(Answer::Key(key))
    }

    /// The key of a mark that some node gave out: whoever remembers it says it, else it is searched.
    async fn marked(self: &Arc<Self>, namespace: u16, mark: u64) -> Result<Bytes, ErrorReply> {
        let frame = Frame::own(namespace, &self.order());
        let mut silent = 0;
        for search in [false, true] {
            let mut asked = JoinSet::new();
            for store in frame.order.stores() {
                let (shell, frame) = (Arc::clone(self), frame.clone());
                asked.spawn(async move { shell.ask(&frame, store, Ask::Marked { mark, search }).await });
            }
            silent = 0;
            while let Some(answer) = asked.join_next().await {
                match answer {
                    Ok(Some(Answer::Key(Some(key)))) if mark_of(namespace, &key) == mark => {
                        self.marks.lock().add(namespace, &key);
                        return Ok(key);
                    }
                    Ok(Some(_)) => {}
                    _ => silent += 1,
                }
            }
        }
        if silent == 0 {
            return Err(ErrorReply::new("ERR invalid cursor"));
        }
        // One of those may know it.
        let all = frame.order.len() as u32;
        Err(Error::TooFew { at_most: all - silent, wanted: all }.error_reply())
    }
}
