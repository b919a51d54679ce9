//! How a node answers: as its runtime would, it evaluates against the member's tree and lets the member say when the answer may go out.

use kvorum_cluster::shard::{Done, Draft, MemberInput, MemberRole, Outbox, Writes, key_hash};
use kvorum_engine::{Attributes, Batch, Durability, View};
use kvorum_sync::{Epoch, KeyState, Names, OpId, ReadWhat, Token};

use super::node::Up;
use super::{Event, World};
use crate::client::{Asks, Reply, Request, shown, with_record};
use crate::plan::Mode;
use crate::tree::{Key, Value, Writes as Puts};

pub(super) fn name(key: Key) -> Vec<u8> {
    format!("key:{key}").into_bytes()
}

/// What a view of the member's tree has of a key: its version, and its value. `None`: the store does not say.
pub(super) fn look(up: &Up, key: Key, at: OpId) -> Option<(u64, Value)> {
    let found = up.member.tree().get(&name(key), &View::at(at.version())).ok()?;
    Some(found.map_or((0, None), |found| {
        let bytes: Option<[u8; 8]> = found.value.as_ref().try_into().ok();
        let value = bytes.map(u64::from_le_bytes).filter(|_| found.is_value());
        (found.version, value)
    }))
}

impl World {
    pub(super) fn leads(&self, node: usize) -> Option<Epoch> {
        match self.nodes[node].up.as_ref()?.member.role() {
            MemberRole::Leading { epoch } => Some(epoch),
            _ => None,
        }
    }

    pub(super) fn answer(&mut self, request: &Request, reply: Reply) {
        let delay = self.dice.range(50, 1_000);
        self.after(delay, Event::Answers { client: request.client, attempt: request.attempt, reply });
    }

    /// A client's request arrives.
    pub(super) fn asks(&mut self, node: usize, request: Request) {
        let Some(up) = &mut self.nodes[node].up else {
            self.answer(&request, Reply::Refused { leader: None });
            return;
        };
        up.tokens += 1;
        let token = Token(up.tokens);
        let refused = Reply::Refused { leader: up.member.leader() };
        match request.asks.clone() {
            Asks::Read(Mode::Stale) => {
                let reply = self.stale(node, request.key).unwrap_or(refused);
                self.answer(&request, reply);
            }
            Asks::Read(mode @ (Mode::Follower | Mode::Labelled)) => {
                let what = ReadWhat::Keys(Names::one(key_hash(&name(request.key))));
                up.requests.insert(token, request);
                self.step(node, MemberInput::FollowerRead { token, what, labelled: mode == Mode::Labelled });
            }
            _ if !up.member.leads() => self.answer(&request, refused),
            Asks::Read(Mode::Leader) => self.read(node, token, request),
            Asks::Write { writes, expected } => self.write(node, token, request, &writes, expected),
        }
    }

    fn stale(&mut self, node: usize, key: Key) -> Option<Reply> {
        let now = self.moment(node);
        let up = self.nodes[node].up.as_mut()?;
        let (at, age) = up.member.stale_view(now)?;
        let reply = age.and_then(|age| {
            let (version, value) = look(up, key, at)?;
            Some(Reply::Stale { value, version, age })
        });
        let mut out = Outbox::default();
        up.member.refresh_age(now, &mut out);
        self.carry_out(node, out);
        reply
    }

    /// Pending items that an answer rests on, which saw this version.
    fn rests(up: &Up, version: u64) -> Vec<OpId> {
        let seen = Some(version).filter(|version| *version > 0 && up.member.is_pending(*version));
        seen.map(OpId::from_version).into_iter().chain(up.member.pending_clear()).collect()
    }

    fn read(&mut self, node: usize, token: Token, request: Request) {
        let Some(up) = &self.nodes[node].up else { return };
        let Some((version, value)) = look(up, request.key, OpId::MAX) else {
            self.answer(&request, Reply::Refused { leader: None });
            return;
        };
        let rests = Self::rests(up, version);
        let reply = Reply::Saw { value, version: shown(version, value) };
        self.wait(node, token, (request, reply), &rests);
    }

    /// A reply without effects waits for what it saw.
    fn wait(&mut self, node: usize, token: Token, (mut request, reply): (Request, Reply), rests: &[OpId]) {
        if !self.duties.waits_for_reads {
            self.answer(&request, reply);
            return;
        }
        let now = self.moment(node);
        let Some(up) = &mut self.nodes[node].up else { return };
        request.answer = Some(reply);
        up.requests.insert(token, request);
        let mut out = Outbox::default();
        up.member.read(now, token, rests, &mut out);
        self.carry_out(node, out);
    }

    fn write(&mut self, node: usize, token: Token, request: Request, puts: &Puts, expected: Option<u64>) {
        let Some(up) = &self.nodes[node].up else { return };
        if let Some(id) = request.id {
            let (version, record) = look(up, id, OpId::MAX).unwrap_or_default();
            if record.is_some() {
                let rests = Self::rests(up, version);
                self.wait(node, token, (request, Reply::Done { version }), &rests);
                return;
            }
        }
        let mut reads = Names::none();
        if let Some(expected) = expected {
            let (version, value) = look(up, request.key, OpId::MAX).unwrap_or_default();
            let rests = Self::rests(up, version);
            if expected != shown(version, value) {
                let reply = Reply::Conflict { version: shown(version, value) };
                self.wait(node, token, (request, reply), &rests);
                return;
            }
            reads = Names::of(&rests);
        }
        let mut writes = Writes::new();
        let puts = with_record(puts, request.id);
        if puts.clear {
            writes.clear();
        }
        for (key, value) in puts.puts {
            match value {
                Some(value) => writes.put(&name(key), &value.to_le_bytes(), Attributes::default()),
                None => writes.delete(&name(key), Attributes::default()),
            }
        }
        self.propose(node, token, request, writes, reads);
    }

    fn propose(
        &mut self,
        node: usize,
        token: Token,
        mut request: Request,
        writes: Writes,
        reads: Names<OpId>,
    ) {
        let (now, wall_ms) = (self.moment(node), self.wall_ms(node));
        let tells = self.duties.tells_of_lost_batch;
        let Some(up) = &mut self.nodes[node].up else { return };
        let refused = Reply::Refused { leader: up.member.leader() };
        if up.store.admission().is_err() {
            self.answer(&request, refused);
            return;
        }
        let time_ms = up.member.time_ms(wall_ms);
        let (mut batch, mut out) = (Batch::new(), Outbox::default());
        let draft = Draft { token: Some(token), wall_ms, writes, reads };
        match up.member.propose(now, draft, &mut batch, &mut out) {
            Err(_) => {
                self.answer(&request, refused);
                self.carry_out(node, out);
                return;
            }
            Ok(op) => {
                self.times.proposed(op, time_ms);
                request.answer = Some(Reply::Done { version: op.version() });
                up.requests.insert(token, request);
            }
        }
        match up.store.write_admitted(&batch, Durability::Synced) {
            Ok(commit) => up.member.stored(commit.sequence(), &mut out),
            Err(error) if tells => up.member.lost(error, &mut out),
            Err(_) => up.member.stored(up.store.visible(), &mut out),
        }
        self.carry_out(node, out);
    }

    /// The member says what becomes of a request.
    pub(super) fn done(&mut self, node: usize, token: Token, done: Done) {
        self.trace.note(self.now, &format!("{token:?} {done:?}"));
        let Some(up) = &mut self.nodes[node].up else { return };
        let leader = up.member.leader();
        let Some(request) = up.requests.remove(&token) else { return };
        let refused = Reply::Refused { leader };
        let reply = match done {
            Done::Unknown => Reply::Unknown,
            Done::Committed | Done::ReadReady => request.answer.unwrap_or(refused),
            Done::ReadHere { checkpoint, keys } => {
                let state = keys.as_slice().first().copied().unwrap_or_default();
                let labelled = matches!(request.asks, Asks::Read(Mode::Labelled));
                let Some(up) = &self.nodes[node].up else { return };
                let named = self.duties.reads_named_view;
                let state = if named { state } else { KeyState { committed: OpId::ZERO, ..state } };
                read_here(up, request.key, labelled, checkpoint, state).unwrap_or(refused)
            }
            Done::Cancelled | Done::Again | Done::Refused(_) | Done::Held(_) | Done::AtLeader(_) => refused,
        };
        if let Reply::Done { version } = reply {
            self.commits += 1;
            self.committed(OpId::from_version(version));
        }
        self.answer(&request, reply);
    }
}

/// The answer of a follower's read, if it may be given here.
fn read_here(up: &Up, key: Key, labelled: bool, at: OpId, state: KeyState) -> Option<Reply> {
    if labelled && state.pending != OpId::ZERO {
        return Some(Reply::Labelled);
    }
    let view = if state.committed == OpId::ZERO { at } else { state.committed };
    let (version, value) = look(up, key, view)?;
    let known = state.committed == OpId::ZERO || version == state.committed.version();
    known.then_some(Reply::Saw { value, version: shown(version, value) })
}
