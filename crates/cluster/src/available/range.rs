//! A range over all nodes: of every key the newest entry that any of them has, in key order, read ahead a bounded piece of each node at a time.

use super::shell::{Frame, Shell};
use super::{Answer, Ask, Entry};
use crate::error::{Error, Result};
use crate::node::Node;
use crate::route::{Boxed, join};
use bytes::Bytes;
use kvorum_sync::StoreId;
use std::collections::VecDeque;
use std::sync::Arc;

/// A range of an available namespace over the cluster.
pub(crate) struct Merged {
    node: Node,
    shell: Arc<Shell>,
    frame: Frame,
    end: Option<Bytes>,
    cursors: Vec<Cursor>,
}

/// How far a node's part was read.
struct Cursor {
    store: StoreId,
    ahead: VecDeque<(Bytes, Entry)>,
    /// Where it goes on: behind this key, or with it if it is the first.
    from: Bytes,
    is_first: bool,
    is_done: bool,
}

impl Merged {
    /// From `start` (inclusive) to `end` (exclusive; `None`: all that follow).
    pub(crate) fn begin(
        node: &Node,
        shell: &Arc<Shell>,
        namespace: u16,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Merged {
        let frame = Frame::patient(namespace, &shell.order(), None);
        let from = Bytes::copy_from_slice(start);
        let cursor = |store| Cursor {
            store,
            ahead: VecDeque::new(),
            from: from.clone(),
            is_first: true,
            is_done: end.is_some_and(|end| end <= start),
        };
        let cursors = frame.order.stores().map(cursor).collect();
        let end = end.map(Bytes::copy_from_slice);
        Merged { node: node.clone(), shell: Arc::clone(shell), frame, end, cursors }
    }

    /// The next keys and values; none at the end.
    ///
    /// Fails with [`Error::TooFew`] as soon as a node does not answer: it may have what nobody else has.
    pub(crate) async fn next(&mut self) -> Result<Vec<(Bytes, Bytes)>> {
        loop {
            self.read_ahead().await?;
            let found = self.merge();
            if !found.is_empty() || self.cursors.iter().all(Cursor::is_over) {
                return Ok(found);
            }
        }
    }

    /// Reads the next piece of each node of which nothing is left.
    async fn read_ahead(&mut self) -> Result<()> {
        let (shell, frame, end) = (&self.shell, &self.frame, &self.end);
        let mut asked: Vec<Boxed<'_, Option<Answer>>> = Vec::new();
        for cursor in self.cursors.iter().filter(|cursor| cursor.is_wanting()) {
            let ask = Ask::Range { from: cursor.from.clone(), is_first: cursor.is_first, end: end.clone() };
            asked.push(Box::pin(shell.ask(frame, cursor.store, ask)));
        }
        let answers = join(asked).await;
        let all = self.cursors.len() as u32;
        let wanting = self.cursors.iter_mut().filter(|cursor| cursor.is_wanting());
        for (cursor, answer) in wanting.zip(answers) {
            let Some(Answer::Fetched(entries)) = answer else {
                return Err(Error::TooFew { at_most: all - 1, wanted: all });
            };
            match entries.last() {
                Some((last, _)) => (cursor.from, cursor.is_first) = (last.clone(), false),
                None => cursor.is_done = true,
            }
            cursor.ahead = entries.into();
        }
        Ok(())
    }

    /// What can be told of what was read: as far as the next key of every node is known.
    fn merge(&mut self) -> Vec<(Bytes, Bytes)> {
        let inner = &*self.node.inner;
        let now = inner.hybrid.now_ms(inner.time.now());
        let mut merged = Vec::new();
        while !self.cursors.iter().any(Cursor::is_wanting) {
            let fronts = self.cursors.iter().filter_map(|cursor| cursor.ahead.front());
            let Some(key) = fronts.map(|(key, _)| key).min().cloned() else { break };
            let mut newest: Option<Entry> = None;
            for cursor in &mut self.cursors {
                let Some((_, entry)) = cursor.ahead.pop_front_if(|(other, _)| *other == key) else {
                    continue;
                };
                let rank = |entry: &Entry| (entry.version, !entry.shadow);
                if newest.as_ref().is_none_or(|newest| rank(newest) < rank(&entry)) {
                    newest = Some(entry);
                }
            }
            let living = newest.filter(|entry| entry.expires_at.is_none_or(|expires_at| expires_at > now));
            merged.extend(living.and_then(|entry| entry.value).map(|value| (key, value)));
        }
        merged
    }
}

impl Cursor {
    fn is_wanting(&self) -> bool {
        self.ahead.is_empty() && !self.is_done
    }

    fn is_over(&self) -> bool {
        self.ahead.is_empty() && self.is_done
    }
}
