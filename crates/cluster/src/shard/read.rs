//! Reads: at the leader, at a follower, stale.

use super::carry::Beside;
use super::member::Member;
use super::outbox::{Done, Outbox};
use kvorum_sync::{Checkpoint, Input, Moment, Names, OpId, Token};

impl Member {
    /// A reply without effects wants out. It was evaluated from the newest state of [`Member::tree`], and rests on these pending items. `ReadReady`,
    /// `Again` or `Refused` follows in an outbox, perhaps in this one.
    pub fn read(&mut self, now: Moment, token: Token, rests_on: &[OpId], out: &mut Outbox) {
        if self.halted.is_some() {
            out.done.push((token, Done::Again));
            return;
        }
        self.feed(now, Input::Read { token, rests_on: Names::of(rests_on) }, Beside::Nothing, out);
        self.start_jobs(out);
    }

    /// For a stale read: the version to read at, and by how many microseconds it may be behind what is committed (none: not known).
    pub fn stale_view(&self, now: Moment) -> Option<(OpId, Option<u64>)> {
        self.replica.stale_view(now)
    }

    /// Asks for the commit point, so that the age of stale reads stays known. While such reads are wanted.
    pub fn refresh_age(&mut self, now: Moment, out: &mut Outbox) {
        if self.halted.is_some() {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        self.replica.refresh_age(now, &mut effects);
        for effect in effects.drain() {
            self.carry_out(now, effect, &Beside::Nothing, out);
        }
        self.effects = effects;
    }

    /// Whether a view at the checkpoint may be shown.
    pub fn is_readable(&self) -> bool {
        self.replica.is_readable()
    }

    /// Everything up to here is final, and here.
    pub fn checkpoint(&self) -> Checkpoint {
        self.replica.checkpoint()
    }

    /// Everything up to here is committed, as far as is known here.
    pub fn commit_point(&self) -> OpId {
        self.replica.commit_point()
    }

    /// Whether an item is known to be committed.
    pub fn is_committed(&self, op: OpId) -> bool {
        self.replica.is_committed(op)
    }
}
