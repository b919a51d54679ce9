//! The leader's side: what its commands write becomes items, in the batch that the commands share.

use super::carry::Beside;
use super::member::Member;
use super::outbox::Outbox;
use super::planted::MemberRule;
use super::writes::Writes;
use kvorum_engine::{Batch, Sequence};
use kvorum_sync::{Input, Moment, Names, OpId, Proposal, Refusal, RoleName, Token};

/// The token of an item that nobody waits for.
pub(super) const SILENT: Token = Token(u64::MAX);

/// An item to be.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Who waits for it.
    pub token: Option<Token>,
    /// The wall clock, Unix milliseconds.
    pub wall_ms: u64,
    /// What it writes.
    pub writes: Writes,
    /// Pending items that it rests on.
    pub reads: Names<OpId>,
}

impl Member {
    /// Whether one more proposal would be taken now: asked before a command is evaluated.
    ///
    /// # Errors
    /// Why it would be refused: surely nothing was executed.
    pub fn room(&mut self) -> Result<(), Refusal> {
        if self.halted.is_some() {
            return Err(Refusal::NotLeader(None));
        }
        self.replica.room()?;
        if self.recent.flight_bytes() >= self.config.window_bytes {
            self.wants_bytes = true;
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    /// Makes an item of the draft: its values and its note are added to `batch`. Once the batch is whole it goes to
    /// [`kvorum_engine::Store::write_admitted`], under the same latch, and the member hears of it by [`Member::stored`] or [`Member::lost`] before
    /// anything else.
    ///
    /// # Errors
    /// Why there is no item; `batch` is as it was.
    pub fn propose(
        &mut self,
        now: Moment,
        draft: Draft,
        batch: &mut Batch,
        out: &mut Outbox,
    ) -> Result<OpId, Refusal> {
        self.room()?;
        let op = self.replica.next_op().ok_or(Refusal::SerialsExhausted)?;
        let token = draft.token.unwrap_or(SILENT);
        let payload = draft.writes.finish();
        let proposal = Proposal {
            token,
            time: draft.wall_ms,
            digest: payload.digest(op),
            keys: payload.keys().clone(),
            reads: draft.reads,
        };
        self.draft = Some(std::mem::take(batch));
        self.proposing = Some(token);
        self.feed(now, Input::Propose(proposal), Beside::Writes(payload), out);
        self.proposing = None;
        *batch = self.draft.take().unwrap_or_default();
        match self.refused.take() {
            None => Ok(op),
            Some(why) => Err(why),
        }
    }

    /// The store took the batch of the proposals, at the commit's sequence.
    pub fn stored(&mut self, sequence: Sequence, out: &mut Outbox) {
        self.records.stored(sequence);
        self.last_write = sequence;
        out.must_be_durable(sequence);
    }

    /// The store refused the batch of the proposals. Their op ids are given out, so the member stands still like a crashed one.
    pub fn lost(&mut self, error: kvorum_engine::Error, out: &mut Outbox) {
        self.halt(error, out);
    }

    /// Whether this member leads.
    pub fn leads(&self) -> bool {
        self.halted.is_none() && self.replica.role() == RoleName::Leader
    }

    /// Whether this member leads and is the only one: what its store has durable is committed.
    pub fn leads_alone(&self) -> bool {
        self.halted.is_none() && self.replica.leads_alone()
    }

    /// The sequence of the last batch with something of this shard, as long as the member is open.
    pub fn last_write(&self) -> Sequence {
        self.last_write
    }

    /// The op id of the next proposal; none while this member does not lead, or when the serials of the epoch have run out.
    pub fn next_op(&self) -> Option<OpId> {
        if self.halted.is_some() { None } else { self.replica.next_op() }
    }

    /// The shard's time for a wall clock, Unix milliseconds: it never falls, and expiry is judged by it.
    pub fn time_ms(&self, wall_ms: u64) -> u64 {
        if !self.config.holds(MemberRule::TimeNeverFalls) {
            return wall_ms;
        }
        wall_ms.max(self.replica.shard_time())
    }

    /// The time of the newest item: up to it members know by themselves what has expired.
    pub fn item_time_ms(&self) -> u64 {
        self.replica.shard_time()
    }

    /// Whether a version that was found in the tree may yet be taken back: an answer that saw it rests on it.
    pub fn is_pending(&self, version: u64) -> bool {
        !self.replica.is_committed(OpId::from_version(version))
            && self.config.holds(MemberRule::PendingUntilCommitted)
    }

    /// The newest clear that is not known to be committed: what it hides rests on it (leader).
    pub fn pending_clear(&self) -> Option<OpId> {
        self.clears.last().copied()
    }
}
