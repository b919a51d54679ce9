//! The thin shell around coordinators and replicas: calls between nodes, the disk, time. It decides nothing.

use super::counts::{self, Counts};
use super::floors::Heard;
use super::hints::{Hint, Hints};
use super::marks::Marks;
use super::replica::{Refusal, Replica};
use super::replying::Busy;
use super::requests::Requests;
use super::resting::Resting;
use super::standing::Standing;
use super::touch::Touch;
use super::wire::{Head, decode_answer, decode_ask, encode_answer, encode_ask};
use super::{Answer, Ask, Operation, Order, Stands};
use crate::commit::Commit;
use crate::control::{Control, Keeping};
use crate::entity::blocking;
use crate::error::{Error, Result};
use crate::latch::ShardId;
use crate::namespace::Mode;
use crate::node::{Inner, Node, ROOM_WAIT_MAX};
use crate::prefetch::{Fetched, Prefetch, Work};
use crate::transport::{Channel, Transport};
use crate::verify;
use bytes::Bytes;
use hashbrown::HashMap;
use kvorum_engine::{Durability, Sequence};
use kvorum_model::slot;
use kvorum_sync::{Lane, StoreId};
use parking_lot::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long the replicas of a request may take.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// How long to wait before a node is asked again that does not know the same nodes yet, or is being rebuilt.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Hints kept for each node that is away, in bytes.
const HINTS_BYTES_MAX: u64 = 64 << 20;

/// Questions to one node that wait for its answer, at most: beyond that it counts as silent at once, so that one that stands still does not fill
/// the memory of the others.
const CALLS_PER_NODE_MAX: usize = 16 << 10;

/// How far the clock of another node may be ahead.
const AHEAD_MS: u64 = 60_000;

/// A node's part in available namespaces.
pub(crate) struct Shell {
    pub(super) me: StoreId,
    pub(super) control: Control,
    pub(super) transport: Transport,
    node: Weak<Inner>,
    pub(super) hints: Arc<Mutex<Hints>>,
    pub(super) replicas: Mutex<HashMap<u16, Arc<Replica>>>,
    /// Of which version of the map, and what it comes to.
    order: Mutex<(u64, Arc<Order>)>,
    pub(super) standing: Standing,
    /// A replica lacks something that others have.
    pub(super) lacks: Notify,
    pub(super) counts: Counts,
    pub(super) marks: Mutex<Marks>,
    /// What this node coordinates.
    pub(super) requests: Requests,
    /// What it answers once it is durable.
    pub(super) resting: Resting,
    pub(super) busy: Busy,
    /// Nodes to which a connection broke since it was looked at.
    pub(super) lost: (Mutex<Vec<StoreId>>, Notify),
    /// Calls under way, to each node.
    calls: Mutex<HashMap<StoreId, usize>>,
    /// What there is still to hand over, if this node is being removed.
    pub(super) keeping: Mutex<Option<Keeping>>,
    /// Held while a replica is told among which nodes it serves, or that it slept.
    pub(super) turning: Mutex<()>,
    /// When this life began: by a clock that nobody sets, and in Unix milliseconds of the hybrid clock.
    pub(super) begun: Instant,
    pub(super) begun_ms: u64,
    /// When this node was last known to be awake in this life, in Unix milliseconds of its hybrid clock; zero before that.
    pub(super) pulse_ms: AtomicU64,
    /// The same, since this life began.
    pub(super) pulse_at_ms: AtomicU64,
    /// When it last met any other node, in Unix milliseconds of its hybrid clock.
    pub(super) met_ms: AtomicU64,
    /// What others said of themselves, and what they know of this one.
    pub(super) heard: Mutex<Heard>,
    pub(super) touches: Mutex<HashMap<u16, Touch>>,
}

/// A request that a node coordinates.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) namespace: u16,
    pub(crate) key: Bytes,
    pub(crate) operation: Operation,
    /// Replicas that must answer.
    pub(crate) ack: u8,
    /// What a write must survive on each of them, if the client asked for something.
    pub(crate) durability: Option<Durability>,
}

/// To whom a question belongs.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(super) namespace: u16,
    pub(super) order: Arc<Order>,
    pub(super) durability: Option<Durability>,
    /// A replica that is being rebuilt is asked again until it answers, or the time is over.
    is_patient: bool,
}

impl Frame {
    /// Of a node's own, for no client.
    pub(crate) fn own(namespace: u16, order: &Arc<Order>) -> Frame {
        Frame { namespace, order: Arc::clone(order), durability: None, is_patient: false }
    }

    /// Of a client's, who waits for replicas that are being rebuilt.
    pub(super) fn patient(namespace: u16, order: &Arc<Order>, durability: Option<Durability>) -> Frame {
        Frame { durability, is_patient: true, ..Frame::own(namespace, order) }
    }

    pub(super) fn head(&self) -> Head {
        Head { namespace: self.namespace, nodes: self.order.print(), durability: self.durability }
    }
}

impl Shell {
    /// Opens the hints that an earlier life has kept. Waits for the disk.
    pub(crate) fn open(
        inner: &Arc<Inner>,
        me: StoreId,
        control: Control,
        transport: Transport,
    ) -> Result<Arc<Shell>> {
        let begun_ms = inner.hybrid.now_ms(inner.time.now());
        Ok(Arc::new(Shell {
            me,
            control,
            transport,
            node: Arc::downgrade(inner),
            hints: Arc::new(Mutex::new(Hints::open(&inner.store, HINTS_BYTES_MAX)?)),
            replicas: Mutex::default(),
            order: Mutex::new((0, Arc::new(Order::of([])))),
            standing: Standing::open(&inner.system, &inner.store)?,
            lacks: Notify::new(),
            counts: Counts::default(),
            marks: Mutex::default(),
            requests: Requests::default(),
            resting: Resting::default(),
            busy: Busy::default(),
            lost: Default::default(),
            calls: Mutex::default(),
            keeping: Mutex::default(),
            turning: Mutex::default(),
            begun: Instant::now(),
            begun_ms,
            pulse_ms: AtomicU64::new(0),
            pulse_at_ms: AtomicU64::new(0),
            met_ms: AtomicU64::new(begun_ms),
            heard: Mutex::default(),
            touches: Mutex::default(),
        }))
    }

    /// The nodes that keep available namespaces, as the map has them now.
    pub(crate) fn order(&self) -> Arc<Order> {
        let map = self.control.map();
        let mut known = self.order.lock();
        // Never back to an earlier one, which another thread may have looked at.
        if known.0 < map.version {
            let order = Order::of(map.eligible().map(|(store, row)| (store, row.info.name.as_str())));
            if let (Some(row), Some(inner)) = (map.nodes.get(&self.me), self.node.upgrade()) {
                inner.hybrid.set_node_slot(row.slot);
            }
            *known = (map.version, Arc::new(order));
        }
        Arc::clone(&known.1)
    }

    /// How many nodes keep available namespaces; none before there is a cluster.
    pub(crate) fn nodes(&self) -> u32 {
        u32::try_from(self.order().len()).unwrap_or(u32::MAX)
    }

    /// What there is still to hand over, if this node is being removed.
    pub(crate) fn keeping(&self) -> Option<Keeping> {
        self.keeping.lock().clone()
    }

    pub(super) fn node(&self) -> Option<Node> {
        Some(Node { inner: self.node.upgrade()? })
    }

    pub(super) async fn keep_hint(&self, hint: Hint) {
        let hints = Arc::clone(&self.hints);
        match blocking(move || hints.lock().add(&hint)).await {
            Ok(Some(_)) => counts::add(&self.counts.hinted, 1),
            Ok(None) => {
                tracing::debug!("no room to keep a write for a node that is away: comparing will tell");
            }
            Err(error) => tracing::warn!("a write for a node that is away is not kept for it: {error}"),
        }
    }

    /// Asks a replica, which may be this node's own; `None` if it does not answer, or refuses. As long as it does not know the same nodes it is
    /// asked again and again.
    pub(crate) async fn ask(self: &Arc<Self>, frame: &Frame, to: StoreId, ask: Ask) -> Option<Answer> {
        let until = Instant::now() + ANSWER_TIME_MAX;
        let answer = loop {
            let answer = if to == self.me {
                self.answer_here(to, frame, ask.clone()).await
            } else {
                self.call(frame, to, &ask, until).await.map_err(Error::Storage)
            };
            let is_too_early = match &answer {
                Ok(Answer::OtherNodes) => self.order().print() == frame.order.print(),
                Ok(Answer::Rebuilding) => frame.is_patient,
                _ => false,
            };
            if !is_too_early || Instant::now() + AGAIN_AFTER >= until {
                break answer;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        };
        let answer = answer
            .inspect_err(|error| tracing::debug!(store = to.0, %error, "a replica did not answer"))
            .ok()
            .filter(|answer| !matches!(answer, Answer::OtherNodes | Answer::Rebuilding))?;
        self.heard(&answer);
        Some(answer)
    }

    /// What this node gives next is above all that it has seen.
    pub(super) fn heard(&self, answer: &Answer) {
        let version = match answer {
            Answer::Stored { newer, .. } => *newer,
            Answer::Found(Some(entry)) => entry.version,
            _ => 0,
        };
        if version > 0
            && let Some(inner) = self.node.upgrade()
            && version <= ceiling(&inner)
        {
            inner.hybrid.observe(version);
        }
    }

    async fn call(&self, frame: &Frame, to: StoreId, ask: &Ask, until: Instant) -> Result<Answer, String> {
        let _counted = self.count_call(to).ok_or("too many questions wait for its answer")?;
        let lane = Lane::Data(match ask {
            Ask::Write { key, .. } | Ask::Read { key, .. } | Ask::Conflicts { key, .. } => slot(key) as u8,
            _ => 0,
        });
        let body = encode_ask(&frame.head(), ask);
        let left = until.saturating_duration_since(Instant::now());
        let answer = self.transport.call(to, lane, Channel::Entity, body, left).await;
        let answer = decode_answer(answer.map_err(|error| error.to_string())?);
        answer.ok_or_else(|| "what it answers can't be read".into())
    }

    fn count_call(&self, to: StoreId) -> Option<Counted<'_>> {
        let mut calls = self.calls.lock();
        let count = calls.entry(to).or_default();
        if *count >= CALLS_PER_NODE_MAX {
            return None;
        }
        *count += 1;
        Some(Counted { shell: self, to })
    }

    /// Answers another node.
    pub(crate) async fn answer(self: Arc<Self>, from: StoreId, body: Bytes) -> Result<Bytes, String> {
        let (head, ask) = decode_ask(body).ok_or("what is asked can't be read")?;
        let frame = Frame { durability: head.durability, ..Frame::own(head.namespace, &self.order()) };
        if head != frame.head() {
            return Ok(encode_answer(&Answer::OtherNodes));
        }
        let answered = self.answer_here(from, &frame, ask).await;
        answered.map(|answer| encode_answer(&answer)).map_err(|error| error.to_string())
    }

    /// Does what is asked, and waits until it is durable. What needs no disk is done at once.
    pub(super) async fn answer_here(
        self: &Arc<Self>,
        from: StoreId,
        frame: &Frame,
        ask: Ask,
    ) -> Result<Answer> {
        let Frame { namespace, order, .. } = frame;
        let namespace = *namespace;
        let node = self.node().ok_or_else(|| Error::Unknown("the node ends".into()))?;
        if let Ask::MemberDigest { place, at, expired_ms } = ask {
            let shard = ShardId { namespace, place };
            let (checkpoint, digest) =
                blocking(move || verify::member_digest(&node, shard, at, expired_ms)).await?;
            return Ok(Answer::MemberDigest { checkpoint, digest });
        }
        if let Ask::Awake { now_ms, seen_ms } = ask {
            return self.is_told(&node, from, namespace, (now_ms, seen_ms));
        }
        if let Some(remembered) = self.remembered(namespace, &ask) {
            return Ok(remembered);
        }
        if ask == Ask::Standing
            && is_unused(&node, namespace)
            && !self.replicas.lock().contains_key(&namespace)
        {
            return Ok(Answer::Standing(Stands { is_unused: true, ..Stands::default() }));
        }
        let (answer, rests_on) = match self.quick(&node, frame, &ask) {
            Quick::Answer(answer, rests_on) => (answer, rests_on),
            Quick::Refused(Refusal::Rebuilding) => return Ok(Answer::Rebuilding),
            Quick::Refused(refusal @ Refusal::Ahead { .. }) => return Ok(self.ahead(from, &refusal)),
            Quick::Refused(refusal) => return Err(refused(refusal)),
            Quick::Slow => {
                let (shell, node, order) = (Arc::clone(self), node.clone(), Arc::clone(order));
                blocking(move || shell.answer_waiting(&node, from, namespace, &ask, &order)).await?
            }
        };
        let durability = durability_of(&node, frame);
        let commit = Commit { node, sequence: rests_on, durability };
        if commit.is_done() {
            return Ok(answer);
        }
        if from == self.me {
            commit.durable().await?;
        } else {
            // Not on the thread that takes in what other nodes send.
            blocking(move || commit.wait()).await?;
        }
        Ok(answer)
    }

    /// Does what is asked if it needs no disk, and does not wait for the answer to be durable.
    pub(super) fn quick(&self, node: &Node, frame: &Frame, ask: &Ask) -> Quick {
        let known = self.replicas.lock().get(&frame.namespace).cloned();
        let Some(replica) = known.filter(|_| is_kept(node, frame.namespace)) else { return Quick::Slow };
        self.pulse(&node.inner);
        replica.set_keeps_losers(keeps_losers(node, frame.namespace));
        match replica.handle_cached(ask, &frame.order, ceiling(&node.inner)) {
            None | Some(Err(Refusal::OtherNodes | Refusal::Storage(Error::Busy { .. }))) => Quick::Slow,
            Some(Ok((answer, rests_on))) => {
                observe(node, ask);
                Quick::Answer(answer, rests_on)
            }
            Some(Err(refusal)) => Quick::Refused(refusal),
        }
    }

    /// As [`Shell::answer_here`], but blocks, and does not wait for the answer to be durable.
    fn answer_waiting(
        &self,
        node: &Node,
        from: StoreId,
        namespace: u16,
        ask: &Ask,
        order: &Order,
    ) -> Result<(Answer, Sequence)> {
        let replica = self.replica(node, namespace)?;
        replica.set_keeps_losers(keeps_losers(node, namespace));
        let (mut waited, mut is_told) = (Duration::ZERO, false);
        loop {
            match replica.handle(from, ask, order, ceiling(&node.inner)) {
                Err(Refusal::Storage(Error::Busy { retry_after })) if waited < ROOM_WAIT_MAX => {
                    waited += retry_after;
                    node.inner.wait_for_room(retry_after)?;
                }
                Err(Refusal::Rebuilding) => return Ok((Answer::Rebuilding, 0)),
                // It is told first among which nodes it serves now.
                Err(Refusal::OtherNodes) if !is_told => {
                    is_told = true;
                    self.turn(&node.inner, &replica, false)?;
                }
                Err(Refusal::OtherNodes) => return Ok((Answer::OtherNodes, 0)),
                Err(refusal @ Refusal::Ahead { .. }) => return Ok((self.ahead(from, &refusal), 0)),
                answered => {
                    observe(node, ask);
                    return answered.map_err(refused);
                }
            }
        }
    }

    fn ahead(&self, from: StoreId, refusal: &Refusal) -> Answer {
        counts::add(&self.counts.ahead, 1);
        tracing::debug!(store = from.0, "refused: {refusal}");
        Answer::Ahead
    }

    /// This node's part of a namespace. Blocks, if its trees are still to be made.
    pub(super) fn replica(&self, node: &Node, namespace: u16) -> Result<Arc<Replica>> {
        let inner = &*node.inner;
        let kept = inner.namespaces.get(namespace).filter(|_| is_kept(node, namespace));
        let id = kept.ok_or_else(|| Error::NoNamespace(namespace.to_string()))?.id;
        if let Some(replica) = self.replicas.lock().get(&namespace) {
            return Ok(Arc::clone(replica));
        }
        if !inner.has_trees(id) {
            let made = Prefetch::new(node, Work::Trees(id), Fetched::default()).run();
            made.error.map_or(Ok(()), Err)?;
        }
        let trees = inner.trees(id).map(|(_, tree)| tree.clone()).collect();
        let made = Replica::new(self.me, id, inner.store.clone(), trees);
        self.turn(inner, &made, true)?;
        let mut replicas = self.replicas.lock();
        Ok(Arc::clone(replicas.entry(namespace).or_insert_with(|| Arc::new(made))))
    }
}

/// What comes of a question at once.
pub(super) enum Quick {
    /// May be told once the sequence is durable.
    Answer(Answer, Sequence),
    Refused(Refusal),
    /// The disk is needed, or room in the store.
    Slow,
}

/// One of the calls to a node.
struct Counted<'s> {
    shell: &'s Shell,
    to: StoreId,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.shell.calls.lock().get_mut(&self.to) {
            *count -= 1;
        }
    }
}

/// What a write must survive, and what a read rests on.
pub(super) fn durability_of(node: &Node, frame: &Frame) -> Durability {
    let kept = node.inner.namespaces.get(frame.namespace);
    kept.map_or(Durability::Synced, |kept| kept.durability(frame.durability, node.durability()))
}

/// Whether there is such an available namespace.
pub(super) fn is_kept(node: &Node, namespace: u16) -> bool {
    let kept = node.inner.namespaces.get(namespace);
    kept.is_some_and(|kept| !kept.is_dropped() && kept.id.mode() == Mode::Available)
}

/// Whether a namespace keeps what was written at the same time.
pub(super) fn keeps_losers(node: &Node, namespace: u16) -> bool {
    node.inner.namespaces.get(namespace).is_some_and(|kept| kept.keeps_losers())
}

/// Whether nobody ever wrote to a namespace here.
pub(super) fn is_unused(node: &Node, namespace: u16) -> bool {
    node.inner.namespaces.get(namespace).is_some_and(|kept| !kept.has_trees())
}

fn observe(node: &Node, ask: &Ask) {
    if let Ask::Write { entry, .. } = ask
        && entry.version <= ceiling(&node.inner)
    {
        node.inner.hybrid.observe(entry.version);
    }
}

pub(super) fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Storage(error) => error,
        refusal => Error::Invalid(refusal.to_string()),
    }
}

/// The highest version that a clock of the cluster may have given by now.
pub(super) fn ceiling(inner: &Inner) -> u64 {
    ceiling_at(inner, inner.hybrid.now_ms(inner.time.now()))
}

/// The same at another time of this node's hybrid clock, in Unix milliseconds.
pub(super) fn ceiling_at(inner: &Inner, now_ms: u64) -> u64 {
    inner.hybrid.floor(now_ms.saturating_add(AHEAD_MS))
}
