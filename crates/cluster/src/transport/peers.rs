//! The table of peers: who there is to speak with, and over which connections now.

use super::link::Link;
use super::stats::{Counts, PeerStats, add};
use super::types::{Identity, NotSent};
use hashbrown::HashMap;
use kvorum_sync::{Lane, StoreId};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// A control connection and the data lanes that belong to it.
pub(super) struct Session {
    pub(super) peer: StoreId,
    /// Given by the side that dialled; data lanes name it.
    pub(super) number: u64,
    /// Who dialled.
    pub(super) dialler: StoreId,
    pub(super) control: Arc<Link>,
    pub(super) identity: Mutex<Identity>,
    data: Mutex<Vec<Option<Arc<Link>>>>,
}

impl Session {
    pub(super) fn new(
        identity: Identity,
        number: u64,
        dialler: StoreId,
        lanes: u8,
        control: Arc<Link>,
    ) -> Arc<Session> {
        let data = Mutex::new(vec![None; usize::from(lanes.max(1))]);
        Arc::new(Session {
            peer: identity.store,
            number,
            dialler,
            control,
            identity: Mutex::new(identity),
            data,
        })
    }

    pub(super) fn lanes(&self) -> u8 {
        u8::try_from(self.data.lock().len()).unwrap_or(u8::MAX)
    }

    fn link(&self, lane: Lane) -> Option<Arc<Link>> {
        match lane {
            Lane::Control => Some(Arc::clone(&self.control)),
            Lane::Data(lane) => {
                let data = self.data.lock();
                let lane = usize::from(lane).checked_rem(data.len())?;
                data.get(lane)?.clone()
            }
        }
    }

    fn is_whole(&self) -> bool {
        !self.control.is_closed() && self.data.lock().iter().all(Option::is_some)
    }

    fn queued_bytes(&self) -> usize {
        let data: usize = self.data.lock().iter().flatten().map(|link| link.queued_bytes()).sum();
        data + self.control.queued_bytes()
    }

    fn close(&self, reason: &str) {
        self.control.close(reason);
        for link in self.data.lock().iter().flatten() {
            link.close(reason);
        }
    }
}

/// Why there is no session with a node that was removed; both sides read it.
const LEFT: &str = "its store was removed from the cluster, or replaced, for good";

#[derive(Default)]
struct Peer {
    /// Where it listens, if it is one to keep a session with.
    address: Option<String>,
    session: Option<Arc<Session>>,
    /// Lanes that broke since the start.
    losses: u64,
    counts: Arc<Counts>,
    keeper: Option<AbortHandle>,
}

/// What a watcher is told of a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) up: bool,
    pub(super) losses: u64,
}

#[derive(Default)]
pub(super) struct Peers {
    peers: RwLock<HashMap<StoreId, Peer>>,
    /// These have left the cluster for good.
    left: RwLock<BTreeSet<StoreId>>,
    /// Somebody came or went.
    pub(super) changed: Notify,
}

impl Peers {
    pub(super) fn link(&self, to: StoreId, lane: Lane) -> Result<Arc<Link>, NotSent> {
        let peers = self.peers.read();
        let session = peers.get(&to).and_then(|peer| peer.session.as_ref());
        session.and_then(|session| session.link(lane)).ok_or(NotSent::Down)
    }

    pub(super) fn session(&self, of: StoreId) -> Option<Arc<Session>> {
        self.peers.read().get(&of)?.session.clone()
    }

    pub(super) fn address(&self, of: StoreId) -> Option<String> {
        self.peers.read().get(&of)?.address.clone()
    }

    pub(super) fn counts(&self, of: StoreId) -> Arc<Counts> {
        Arc::clone(&self.peers.write().entry(of).or_default().counts)
    }

    pub(super) fn is_up(&self, store: StoreId) -> bool {
        self.session(store).is_some_and(|session| session.is_whole())
    }

    /// Makes `wanted` those to keep sessions with: `keep` starts what does that. Sessions with those that were wanted before end.
    pub(super) fn set(&self, wanted: &[(StoreId, String)], keep: impl Fn(StoreId) -> AbortHandle) {
        let mut peers = self.peers.write();
        let mut gone = Vec::new();
        for (store, peer) in peers.iter_mut() {
            if peer.address.is_some() && !wanted.iter().any(|(wanted, _)| wanted == store) {
                peer.address = None;
                gone.extend(peer.session.take());
                peer.losses += 1;
                if let Some(keeper) = peer.keeper.take() {
                    keeper.abort();
                }
            }
        }
        for (store, address) in wanted {
            let peer = peers.entry(*store).or_default();
            peer.address = Some(address.clone());
            peer.keeper.get_or_insert_with(|| keep(*store));
        }
        drop(peers);
        for session in gone {
            session.close("the node is no peer any more");
        }
        self.changed.notify_one();
    }

    /// Sessions of these stores are refused from now on, and those that there are end.
    pub(super) fn set_left(&self, stores: BTreeSet<StoreId>) {
        let gone: Vec<StoreId> = stores.iter().copied().collect();
        // Before it is looked for sessions: none begins afterwards.
        *self.left.write() = stores;
        let ended: Vec<_> = gone.into_iter().filter_map(|store| self.session(store)).collect();
        for session in ended {
            self.end(&session, LEFT);
        }
    }

    /// A session takes the place of the one before. When both sides dial at one moment, that of the lower store stays.
    pub(super) fn begin(&self, session: &Arc<Session>) -> Result<(), String> {
        let mut peers = self.peers.write();
        if self.left.read().contains(&session.peer) {
            return Err(LEFT.into());
        }
        let peer = peers.entry(session.peer).or_default();
        let lives = peer.session.as_ref().filter(|before| !before.control.is_closed());
        if let Some(before) = lives
            && before.dialler < session.dialler
        {
            return Err("there is a session already, which the other side began".into());
        }
        let before = peer.session.replace(Arc::clone(session));
        peer.losses += u64::from(before.is_some());
        add(&peer.counts.sessions, 1);
        drop(peers);
        if let Some(before) = before {
            before.close("a newer session took its place");
        }
        self.changed.notify_one();
        Ok(())
    }

    /// A data lane joins its session.
    pub(super) fn attach(&self, peer: StoreId, session: u64, link: &Arc<Link>) -> Result<(), String> {
        let current = self.session(peer).filter(|current| current.number == session);
        let current = current.ok_or("there is no such session")?;
        let Lane::Data(lane) = link.lane else { return Err("it is no data lane".into()) };
        let mut data = current.data.lock();
        let place = data.get_mut(usize::from(lane)).ok_or("the session has no such lane")?;
        let before = place.replace(Arc::clone(link));
        drop(data);
        if let Some(before) = before {
            before.close("a newer connection took its place");
            self.count_loss(peer);
        }
        if current.control.is_closed() {
            link.close("the session ended");
        }
        self.changed.notify_one();
        Ok(())
    }

    /// A control connection ended, and its session with it.
    pub(super) fn end(&self, session: &Arc<Session>, reason: &str) {
        let mut peers = self.peers.write();
        if let Some(peer) = peers.get_mut(&session.peer)
            && peer.session.as_ref().is_some_and(|current| Arc::ptr_eq(current, session))
        {
            peer.session = None;
            peer.losses += 1;
        }
        drop(peers);
        session.close(reason);
        self.changed.notify_one();
    }

    /// A data lane ended.
    pub(super) fn detach(&self, peer: StoreId, link: &Arc<Link>, reason: &str) {
        link.close(reason);
        let Some(session) = self.session(peer) else { return };
        let mut data = session.data.lock();
        let place =
            data.iter_mut().find(|place| place.as_ref().is_some_and(|other| Arc::ptr_eq(other, link)));
        let was_there = place.map(Option::take).is_some();
        drop(data);
        if was_there {
            self.count_loss(peer);
            self.changed.notify_one();
        }
    }

    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        self.peers.read().values().filter_map(|peer| peer.session.clone()).collect()
    }

    pub(super) fn reach(&self) -> Vec<(StoreId, Reach)> {
        let peers = self.peers.read();
        let reach = |peer: &Peer| {
            let up = peer.session.as_ref().is_some_and(|session| session.is_whole());
            Reach { up, losses: peer.losses }
        };
        peers.iter().map(|(store, peer)| (*store, reach(peer))).collect()
    }

    pub(super) fn stats(&self) -> Vec<PeerStats> {
        let peers = self.peers.read();
        let mut stats: Vec<_> = peers
            .iter()
            .map(|(store, peer)| {
                let session = peer.session.as_ref();
                let up = session.is_some_and(|session| session.is_whole());
                let queued_bytes = session.map_or(0, |session| session.queued_bytes());
                PeerStats::of(*store, up, queued_bytes, &peer.counts)
            })
            .collect();
        stats.sort_unstable_by_key(|peer| peer.store);
        stats
    }

    /// Ends all sessions.
    pub(super) fn close(&self) {
        for session in self.sessions() {
            session.close("this node ends");
        }
    }

    fn count_loss(&self, of: StoreId) {
        if let Some(peer) = self.peers.write().get_mut(&of) {
            peer.losses += 1;
        }
    }
}
