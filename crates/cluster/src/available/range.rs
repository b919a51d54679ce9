//! A range over all nodes: of every key the newest entry that any of them has, in key order, read ahead a bounded piece of each node at a time.
//!
//! It shows as much as a read of each of its keys with the same `ack` of `from`: of every slot's `from` replicas `ack` have answered, because no
//! more than `from` − `ack` of all nodes have not.

use super::replica::KEYS_MAX;
use super::shell::{Frame, Shell};
use super::{Answer, Ask, Entry};
use crate::error::{Error, Result};
use crate::node::Node;
use bytes::Bytes;
use kvorum_sync::StoreId;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// How long those are waited for that need not answer: with them there are copies, too, of entries that are kept by fewer.
const STRAGGLERS_WAIT: Duration = Duration::from_millis(500);

/// What is read.
pub(crate) struct Span {
    pub(crate) namespace: u16,
    /// Behind this key, or with it if it is the first.
    pub(crate) from: Bytes,
    pub(crate) is_first: bool,
    /// Exclusive; `None`: all that follow.
    pub(crate) end: Option<Bytes>,
    /// Keys without their values: about so many are read ahead of each node.
    pub(crate) keys: Option<u16>,
}

/// A range of an available namespace over the cluster.
pub(crate) struct Merged {
    node: Node,
    shell: Arc<Shell>,
    /// How far it came.
    span: Span,
    /// `ack` of `from`.
    copies: (u8, u8),
    frame: Frame,
    /// Of the nodes that answer.
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
    /// `copies`: `ack` of `from`, as [`Shell::copies`] says.
    pub(crate) fn begin(node: &Node, shell: &Arc<Shell>, copies: (u8, u8), span: Span) -> Merged {
        let frame = Frame::patient(span.namespace, &shell.order(), None);
        let (node, shell) = (node.clone(), Arc::clone(shell));
        let mut merged = Merged { node, shell, span, copies, frame, cursors: Vec::new() };
        merged.call_back();
        merged
    }

    /// The next keys and values; none at the end.
    ///
    /// Fails with [`Error::TooFew`] when more nodes do not answer than may: they may have what nobody else has.
    pub(crate) async fn next(&mut self) -> Result<Vec<(Bytes, Bytes)>> {
        loop {
            let looked_at = self.look_on().await?;
            let is_over = looked_at.is_empty();
            let found: Vec<_> =
                looked_at.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            if is_over || !found.is_empty() {
                return Ok(found);
            }
        }
    }

    /// The next keys that any node knows of, with the values of those that are there; none at the end. Fails as [`Merged::next`].
    pub(crate) async fn look_on(&mut self) -> Result<Vec<(Bytes, Option<Bytes>)>> {
        loop {
            self.read_ahead().await?;
            let found = self.merge();
            if !found.is_empty() || self.cursors.iter().all(Cursor::is_over) {
                return Ok(found);
            }
        }
    }

    /// Nodes that do not answer.
    fn silent(&self) -> usize {
        self.frame.order.len().saturating_sub(self.cursors.len())
    }

    fn may_be_silent(&self) -> usize {
        let (ack, from) = self.copies;
        from.saturating_sub(ack).into()
    }

    /// Asks the nodes that did not answer from here on, too; also those that came since the beginning.
    fn call_back(&mut self) {
        self.frame = Frame::patient(self.span.namespace, &self.shell.order(), None);
        let order = Arc::clone(&self.frame.order);
        self.cursors.retain(|cursor| order.stores().any(|store| store == cursor.store));
        let Span { from, is_first, end, .. } = &self.span;
        for store in order.stores() {
            if self.cursors.iter().any(|cursor| cursor.store == store) {
                continue;
            }
            let is_done = end.as_ref().is_some_and(|end| end <= from);
            let ahead = VecDeque::new();
            self.cursors.push(Cursor { store, ahead, from: from.clone(), is_first: *is_first, is_done });
        }
    }

    /// Reads the next piece of each node of which nothing is left.
    async fn read_ahead(&mut self) -> Result<()> {
        let were_silent = self.silent();
        self.ask_wanting().await;
        let others = self.shell.order().print() != self.frame.order.print();
        if self.silent() > self.may_be_silent() && (were_silent > 0 || others) {
            // Who did not answer before may do so by now.
            self.call_back();
            self.ask_wanting().await;
        }
        if self.silent() <= self.may_be_silent() {
            return Ok(());
        }
        let ((ack, from), silent) = (self.copies, self.silent());
        Err(Error::TooFew { at_most: usize::from(from).saturating_sub(silent) as u32, wanted: ack.into() })
    }

    /// Lets go of those that do not answer.
    async fn ask_wanting(&mut self) {
        let mut asked = JoinSet::new();
        for cursor in self.cursors.iter().filter(|cursor| cursor.is_wanting()) {
            let (shell, frame, store) = (Arc::clone(&self.shell), self.frame.clone(), cursor.store);
            let (from, is_first, end) = (cursor.from.clone(), cursor.is_first, self.span.end.clone());
            let ask = match self.span.keys {
                Some(most) => Ask::Keys { from, is_first, end, most: most.min(KEYS_MAX) },
                None => Ask::Range { from, is_first, end },
            };
            asked.spawn(async move { (store, shell.ask(&frame, store, ask).await) });
        }
        let (stragglers_until, mut failed) = (Instant::now() + STRAGGLERS_WAIT, self.silent());
        while !asked.is_empty() {
            let is_enough = failed + asked.len() <= self.may_be_silent();
            let next = asked.join_next();
            let next = if is_enough { timeout_at(stragglers_until, next).await } else { Ok(next.await) };
            match next {
                Ok(Some(Ok((store, Some(Answer::Fetched(entries)))))) => self.take_in(store, entries),
                Ok(_) => failed += 1,
                Err(_) => break,
            }
        }
        self.cursors.retain(|cursor| !cursor.is_wanting());
    }

    fn take_in(&mut self, store: StoreId, entries: Vec<(Bytes, Entry)>) {
        let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.store == store) else { return };
        match entries.last() {
            Some((last, _)) => (cursor.from, cursor.is_first) = (last.clone(), false),
            None => cursor.is_done = true,
        }
        cursor.ahead = entries.into();
    }

    /// What can be told of what was read: as far as the next key of every node is known.
    fn merge(&mut self) -> Vec<(Bytes, Option<Bytes>)> {
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
            (self.span.from, self.span.is_first) = (key.clone(), false);
            let living = newest.filter(|entry| entry.expires_at.is_none_or(|expires_at| expires_at > now));
            merged.push((key, living.and_then(|entry| entry.value)));
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
