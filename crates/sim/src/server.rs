//! How a node answers clients: it evaluates a deed against its tree, and lets the core say when the answer may go out.

use kvorum_sync::{Input, KeyState, Moment, Names, OpId, Outcome, Proposal, ReadWhat, StoreId, Token};

use crate::client::{Asks, Reply, Request, shown, with_record};
use crate::node::{Node, Payload};
use crate::plan::Mode;
use crate::tree::{Key, Writes, hash_of};

/// What the node does with a request: answers at once, or feeds the core.
pub(crate) enum Verdict {
    Answer(Reply),
    Feed(Input, Payload),
}

impl Node {
    /// Evaluates a request. It is kept under a new token if the core has to say something.
    pub(crate) fn serve(&mut self, now: u64, mut request: Request) -> Verdict {
        let moment = self.clock(now);
        let refused = Verdict::Answer(Reply::Refused { leader: self.known_leader() });
        if self.process.is_none() {
            return refused;
        }
        let (verdict, answer) = match &request.asks {
            Asks::Read(Mode::Leader) => self.leader_read(request.key),
            Asks::Read(Mode::Stale) => return self.stale_read(moment, request.key),
            Asks::Read(mode) => {
                let what = ReadWhat::Keys(Names::one(hash_of(request.key)));
                (Input::FollowerRead { token: Token(0), what, labelled: *mode == Mode::Labelled }, None)
            }
            Asks::Write { writes, expected } => match self.write(now, &request, writes, *expected) {
                Some(fed) => fed,
                None => return refused,
            },
        };
        request.answer = answer;
        self.keep(verdict, request)
    }

    fn known_leader(&self) -> Option<StoreId> {
        self.process.as_ref().and_then(|process| process.replica.leader())
    }

    /// Gives the input its token, and remembers the request under it.
    fn keep(&mut self, mut input: Input, request: Request) -> Verdict {
        let Some(process) = &mut self.process else {
            return Verdict::Answer(Reply::Refused { leader: None });
        };
        process.tokens += 1;
        let own = Token(process.tokens);
        let mut payload = Payload::None;
        match &mut input {
            Input::Read { token, .. } | Input::FollowerRead { token, .. } => *token = own,
            Input::Propose(proposal) => {
                proposal.token = own;
                if let Asks::Write { writes, .. } = &request.asks {
                    payload = Payload::Values(with_record(writes, request.id));
                }
            }
            _ => {}
        }
        process.requests.insert(own, request);
        Verdict::Feed(input, payload)
    }

    fn pending(&self, version: u64) -> Option<OpId> {
        let visible = self.process.as_ref().map_or(OpId::MAX, |process| process.visible);
        (version > visible.version()).then(|| OpId::from_version(version))
    }

    fn rests(&self, versions: &[u64]) -> Names<OpId> {
        let pending: Vec<OpId> = versions.iter().filter_map(|version| self.pending(*version)).collect();
        Names::of(&pending)
    }

    fn leader_read(&self, key: Key) -> (Input, Option<Reply>) {
        let (version, value) = self.disk.live.tree.newest(key, OpId::MAX);
        let rests_on = self.rests(&[version]);
        let answer = Reply::Saw { value, version: shown(version, value) };
        (Input::Read { token: Token(0), rests_on }, Some(answer))
    }

    fn stale_read(&self, now: Moment, key: Key) -> Verdict {
        let view = self.process.as_ref().and_then(|process| process.replica.stale_view(now));
        match view {
            Some((at, Some(age))) => {
                let (version, value) = self.disk.live.tree.newest(key, at);
                Verdict::Answer(Reply::Stale { value, version, age })
            }
            _ => Verdict::Answer(Reply::Refused { leader: None }),
        }
    }

    fn write(
        &self,
        now: u64,
        request: &Request,
        writes: &Writes,
        expected: Option<u64>,
    ) -> Option<(Input, Option<Reply>)> {
        let process = self.process.as_ref()?;
        let op = process.replica.next_op()?;
        let tree = &self.disk.live.tree;
        if let Some(id) = request.id {
            let (version, record) = tree.newest(id, OpId::MAX);
            if record.is_some() {
                let rests_on = self.rests(&[version]);
                return Some((Input::Read { token: Token(0), rests_on }, Some(Reply::Done { version })));
            }
        }
        let (version, value) = tree.newest(request.key, OpId::MAX);
        if expected.is_some_and(|expected| expected != shown(version, value)) {
            let rests_on = self.rests(&[version]);
            let answer = Reply::Conflict { version: shown(version, value) };
            return Some((Input::Read { token: Token(0), rests_on }, Some(answer)));
        }
        let reads = if expected.is_some() { self.rests(&[version]) } else { Names::none() };
        let writes = with_record(writes, request.id);
        let digest = writes.digest(op);
        Some((
            Input::Propose(Proposal {
                token: Token(0),
                time: now / 1000,
                digest,
                keys: writes.keys(),
                reads,
            }),
            None,
        ))
    }

    /// The answer of a follower's read that may be given here; `None`: ask the leader instead.
    pub(crate) fn read_here(&self, key: Key, mode: Mode, at: OpId, state: KeyState) -> Option<Reply> {
        let tree = &self.disk.live.tree;
        if mode == Mode::Labelled && state.pending != OpId::ZERO {
            return Some(Reply::Labelled);
        }
        if state.committed == OpId::ZERO {
            let (version, value) = tree.newest(key, at);
            return Some(Reply::Saw { value, version: shown(version, value) });
        }
        // Of two keys with one hash the other one may have been written: then this one's version differs.
        let (version, value) = tree.newest(key, state.committed);
        (version == state.committed.version()).then_some(Reply::Saw { value, version: shown(version, value) })
    }

    /// Takes the request whose item is settled, with its reply.
    pub(crate) fn settled(&mut self, op: OpId, outcome: Outcome) -> Option<(Request, Reply)> {
        let process = self.process.as_mut()?;
        let token = process.by_op.remove(&op)?;
        let request = process.requests.remove(&token)?;
        let reply = match outcome {
            Outcome::Kept => Reply::Done { version: op.version() },
            Outcome::Cancelled => Reply::Refused { leader: None },
            Outcome::Unknown => Reply::Unknown,
        };
        Some((request, reply))
    }
}
