//! Waiting until so many members hold an item durably. The leader knows it from their acknowledgements.

use super::member::Member;
use super::outbox::{Done, Outbox};
use kvorum_sync::{Holders, Moment, OpId, Token};

/// Somebody who waits for that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watcher {
    token: Token,
    op: OpId,
    wanted: Holders,
    until: Moment,
}

impl Watcher {
    pub(super) fn token(&self) -> Token {
        self.token
    }
}

impl Member {
    /// Answers `token` with who holds the item durably, by [`Done::Held`]: once as many do as are wanted, or when it is `until`, or at once, whatever
    /// comes first; or by [`Done::Again`] as soon as this member does not lead.
    pub fn watch(
        &mut self,
        now: Moment,
        token: Token,
        (op, wanted): (OpId, Holders),
        until: Moment,
        out: &mut Outbox,
    ) {
        self.watchers.push(Watcher { token, op, wanted, until });
        self.tell_watchers(now, out);
    }

    pub(super) fn tell_watchers(&mut self, now: Moment, out: &mut Outbox) {
        if self.watchers.is_empty() {
            return;
        }
        let leads = self.leads();
        let replica = &self.replica;
        self.watchers.retain(|watcher| {
            let Some(held) = replica.holders(watcher.op).filter(|_| leads) else {
                out.done.push((watcher.token, Done::Again));
                return false;
            };
            let wanted = watcher.wanted;
            let is_enough = held.others >= wanted.others && (held.leader || !wanted.leader);
            let waits_on = !is_enough && now < watcher.until;
            if !waits_on {
                out.done.push((watcher.token, Done::Held(held)));
            }
            waits_on
        });
    }
}
