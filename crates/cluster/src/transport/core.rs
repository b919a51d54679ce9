//! What the threads of a transport share, and what they do: keep sessions with peers, take in those that connect.

use super::backoff::Backoff;
use super::connect::{Guest, Manners, Shaken, Wish, accept, dial, read_greeting};
use super::handshake::{Greeting, Purpose, judge, put_identity, read_identity};
use super::lane::{Connection, Io, Life};
use super::link::{Bounds, Link};
use super::peers::{Peers, Reach, Session};
use super::strangers;
use super::tls::Tls;
use super::types::{Handler, Identity, TransportSettings};
use bytes::BytesMut;
use hashbrown::HashMap;
use kvorum_sync::{Lane, StoreId};
use parking_lot::{Mutex, RwLock};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Connections that shake hands, or ask as strangers, at one time.
const STRANGERS_MAX: usize = 256;

/// Complaints that are kept, so that each is logged once.
const COMPLAINTS_MAX: usize = 256;

pub(super) struct Core {
    pub(super) settings: TransportSettings,
    pub(super) tls: Option<Tls>,
    pub(super) identity: RwLock<Identity>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) peers: Peers,
    pub(super) control: Handle,
    pub(super) data: Handle,
    pub(super) strangers: Arc<Semaphore>,
    /// The last complaint about each node or address.
    complaints: Mutex<HashMap<String, String>>,
}

/// Says when a connection's work ended, also if its task was ended.
struct AtEnd<F: FnMut(&str)>(F, String);

impl<F: FnMut(&str)> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)(&self.1);
    }
}

impl Core {
    pub(super) fn new(
        settings: TransportSettings,
        tls: Option<Tls>,
        identity: Identity,
        handler: Arc<dyn Handler>,
        [control, data]: [Handle; 2],
    ) -> Arc<Core> {
        Arc::new(Core {
            settings,
            tls,
            identity: RwLock::new(identity),
            handler,
            peers: Peers::default(),
            control,
            data,
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            complaints: Mutex::default(),
        })
    }

    pub(super) fn me(&self) -> StoreId {
        self.identity.read().store
    }

    pub(super) fn manners(&self) -> Manners<'_> {
        Manners {
            identity: self.identity.read().clone(),
            lanes: self.settings.lanes.max(1),
            secret: self.settings.secret.as_ref(),
            tls: self.tls.as_ref(),
        }
    }

    pub(super) fn bounds(&self) -> Bounds {
        let TransportSettings { queue_bytes_max, frame_bytes_max, .. } = self.settings;
        Bounds { queue_bytes_max, frame_bytes_max }
    }

    /// Runs what may take as long as connecting may.
    pub(super) async fn in_time<T>(
        &self,
        what: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let most = self.settings.connect_time_max;
        tokio::time::timeout(most, what)
            .await
            .unwrap_or_else(|_| Err(format!("it takes longer than {} ms", most.as_millis())))
    }

    /// Logs a reason once, until there is another or it went well.
    pub(super) fn complain(&self, about: &str, reason: &str) {
        let mut complaints = self.complaints.lock();
        if complaints.len() >= COMPLAINTS_MAX {
            complaints.clear();
        }
        if complaints.insert(about.to_owned(), reason.to_owned()).as_deref() != Some(reason) {
            tracing::warn!("no session with {about}: {reason}");
        }
    }

    pub(super) fn is_content(&self, about: &str) {
        self.complaints.lock().remove(about);
    }

    /// The identity of this node is another now.
    pub(super) fn set_identity(&self, identity: Identity) {
        let mut body = BytesMut::new();
        put_identity(&identity, &mut body);
        let body = body.freeze();
        *self.identity.write() = identity;
        for session in self.peers.sessions() {
            session.control.send_own(super::frame::Kind::Identity, body.clone());
        }
    }

    /// Tells the handler who came and went.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut told: HashMap<StoreId, Reach> = HashMap::new();
        loop {
            self.peers.changed.notified().await;
            for (store, now) in self.peers.reach() {
                let before = told.insert(store, now).unwrap_or_default();
                let lost = before.up && (!now.up || before.losses != now.losses);
                if lost {
                    self.handler.reachable(store, false);
                }
                if now.up && (lost || !before.up) {
                    self.handler.reachable(store, true);
                }
            }
        }
    }

    /// Keeps a session with a peer, as long as it is one. The lower store dials; the other one only if it waited in vain.
    pub(super) async fn keep(self: Arc<Self>, peer: StoreId) {
        let settings = &self.settings;
        let (me, mut backoff) = (self.me(), self.backoff(peer, 0));
        loop {
            if me > peer {
                tokio::time::sleep(settings.silence_max).await;
            }
            if let Some(session) = self.peers.session(peer) {
                session.control.closed().await;
                continue;
            }
            let Some(address) = self.peers.address(peer) else { return };
            let about = format!("node {:016x} at {address}", peer.0);
            match self.dial_session(peer, &address).await {
                Ok((session, io)) => {
                    self.is_content(&about);
                    backoff.succeeded();
                    self.run_session(&session, io).await;
                }
                Err(reason) => self.complain(&about, &reason),
            }
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    async fn dial_session(
        self: &Arc<Self>,
        peer: StoreId,
        address: &str,
    ) -> Result<(Arc<Session>, Box<dyn Io>), String> {
        let number =
            getrandom::u64().map_err(|error| format!("the system gives no random bytes: {error}"))?;
        let wish = Wish { purpose: Purpose::Control, session: number, expected: Some(peer) };
        let manners = self.manners();
        let Shaken { io, hello } = self.in_time(dial(&manners, address, wish)).await?;
        let session = self.session(hello.identity, number, self.me(), hello.lanes);
        self.peers.begin(&session)?;
        for lane in 0..session.lanes() {
            self.data.spawn(Arc::clone(self).keep_lane(Arc::clone(&session), lane, address.to_owned()));
        }
        Ok((session, io))
    }

    fn session(&self, identity: Identity, number: u64, dialler: StoreId, lanes: u8) -> Arc<Session> {
        let control = Link::new(Lane::Control, self.bounds(), self.peers.counts(identity.store));
        Session::new(identity, number, dialler, lanes.min(self.settings.lanes), control)
    }

    /// Keeps a data lane of a session that this node dialled.
    async fn keep_lane(self: Arc<Self>, session: Arc<Session>, lane: u8, address: String) {
        let mut backoff = self.backoff(session.peer, u64::from(lane) + 1);
        let about = format!("node {:016x} at {address}, lane {lane}", session.peer.0);
        let keep = async {
            loop {
                let wish = Wish {
                    purpose: Purpose::Data(lane),
                    session: session.number,
                    expected: Some(session.peer),
                };
                let manners = self.manners();
                match self.in_time(dial(&manners, &address, wish)).await {
                    Ok(shaken) => {
                        self.is_content(&about);
                        backoff.succeeded();
                        self.run_lane(session.peer, session.number, lane, shaken.io).await;
                    }
                    Err(reason) => self.complain(&about, &reason),
                }
                tokio::time::sleep(backoff.wait()).await;
            }
        };
        tokio::select! {
            () = keep => {}
            () = session.control.closed() => {}
        }
    }

    /// Carries the control connection's frames until it ends.
    async fn run_session(self: &Arc<Self>, session: &Arc<Session>, io: Box<dyn Io>) {
        let ends = |reason: &str| self.peers.end(session, reason);
        let mut at_end = AtEnd(ends, "this node ends it".to_owned());
        let (core, of) = (Arc::clone(self), Arc::clone(session));
        let on_identity = move |body: &[u8]| core.hear_identity(&of, body);
        let life = Life { ping_every: self.settings.ping_every, silence_max: self.settings.silence_max };
        let link = Arc::clone(&session.control);
        let connection =
            Connection::new(session.peer, link, Arc::clone(&self.handler), Arc::new(on_identity));
        let name = session.identity.lock().name.clone();
        tracing::info!("session with {name} ({:016x}) is up", session.peer.0);
        at_end.1 = connection.run(io, Some(life)).await;
        tracing::info!("session with {name} ({:016x}) ended: {}", session.peer.0, at_end.1);
    }

    /// Carries a data lane's frames until it ends.
    async fn run_lane(&self, peer: StoreId, session: u64, lane: u8, io: Box<dyn Io>) {
        let link = Link::new(Lane::Data(lane), self.bounds(), self.peers.counts(peer));
        if let Err(reason) = self.peers.attach(peer, session, &link) {
            return self.complain(&format!("node {:016x}, lane {lane}", peer.0), &reason);
        }
        let ends = |reason: &str| self.peers.detach(peer, &link, reason);
        let mut at_end = AtEnd(ends, "this node ends it".to_owned());
        let no_identity = Arc::new(|_: &[u8]| Err("an identity came over a data lane".to_owned()));
        let connection = Connection::new(peer, Arc::clone(&link), Arc::clone(&self.handler), no_identity);
        at_end.1 = connection.run(io, None).await;
    }

    fn hear_identity(&self, session: &Session, body: &[u8]) -> Result<(), String> {
        let identity = read_identity(body).ok_or("the identity that it sent can't be read")?;
        if identity.store != session.peer {
            return Err("the identity that it sent has another store".into());
        }
        judge(&self.identity.read(), &identity)?;
        *session.identity.lock() = identity;
        Ok(())
    }

    /// Takes in connections.
    pub(super) async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut backoff = self.backoff(self.me(), 0);
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    backoff.succeeded();
                    let Ok(permit) = Arc::clone(&self.strangers).try_acquire_owned() else {
                        self.complain(
                            &from.ip().to_string(),
                            "too many connections shake hands at this moment",
                        );
                        continue;
                    };
                    let core = Arc::clone(&self);
                    tokio::spawn(async move {
                        let about = from.ip().to_string();
                        if let Err(reason) = Arc::clone(&core).greet(stream, permit, &about).await {
                            core.complain(&about, &reason);
                        }
                    });
                }
                Err(error) => {
                    // Out of handles, as a rule: others will be given back.
                    self.complain("those who connect", &error.to_string());
                    tokio::time::sleep(backoff.wait()).await;
                }
            }
        }
    }

    /// Finds out on which thread a connection belongs.
    async fn greet(
        self: Arc<Self>,
        mut stream: TcpStream,
        permit: tokio::sync::OwnedSemaphorePermit,
        about: &str,
    ) -> Result<(), String> {
        let greeting = self.in_time(read_greeting(&mut stream)).await?;
        let manners = self.manners();
        let (Greeting { purpose, .. }, _) = greeting;
        if let Purpose::Data(lane) = purpose {
            let stream = stream.into_std().map_err(|error| error.to_string())?;
            let (core, about) = (Arc::clone(&self), about.to_owned());
            self.data.spawn(async move {
                let took_in = core.take_in_lane(stream, greeting, lane, permit).await;
                if let Err(reason) = took_in {
                    core.complain(&about, &reason);
                }
            });
            return Ok(());
        }
        let guest = self.in_time(accept(&manners, stream, greeting)).await?;
        if purpose == Purpose::Ask {
            return strangers::serve(&self, guest, permit).await;
        }
        let hello = &guest.hello;
        let dialler = hello.identity.store;
        let session = self.session(hello.identity.clone(), hello.session, dialler, hello.lanes);
        if let Err(reason) = self.peers.begin(&session) {
            return Err(guest.refuse(reason).await);
        }
        drop(permit);
        self.is_content(about);
        match self.in_time(guest.welcome()).await {
            Ok(io) => self.run_session(&session, io).await,
            Err(reason) => self.peers.end(&session, &reason),
        }
        Ok(())
    }

    async fn take_in_lane(
        &self,
        stream: std::net::TcpStream,
        greeting: (Greeting, [u8; super::handshake::GREETING_BYTES]),
        lane: u8,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) -> Result<(), String> {
        let stream = TcpStream::from_std(stream).map_err(|error| error.to_string())?;
        let manners = self.manners();
        let guest: Guest = self.in_time(accept(&manners, stream, greeting)).await?;
        let (peer, session) = (guest.hello.identity.store, guest.hello.session);
        if self.peers.session(peer).is_none_or(|current| current.number != session) {
            return Err(guest.refuse("there is no such session".into()).await);
        }
        drop(permit);
        let io = self.in_time(guest.welcome()).await?;
        self.run_lane(peer, session, lane, io).await;
        Ok(())
    }

    fn backoff(&self, peer: StoreId, salt: u64) -> Backoff {
        let TransportSettings { backoff_first, backoff_max, seed, .. } = self.settings;
        let first = backoff_first.max(Duration::from_millis(1));
        Backoff::new(first, backoff_max.max(first), seed ^ peer.0.rotate_left(17) ^ salt)
    }
}
