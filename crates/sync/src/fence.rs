//! The odd digest against a majority is fenced and rebuilt, the leader's too.

use crate::digests::Verdict;
use crate::effect::{Alarm, Ask, Effect, Effects};
use crate::message::Message;
use crate::node::Replica;
use crate::role::Role;
use crate::types::{Digest, Moment, OpId};

impl Replica {
    /// A member's digest at a point that was told.
    pub(crate) fn compare(
        &mut self,
        now: Moment,
        place: usize,
        point: OpId,
        digest: Digest,
        out: &mut Effects,
    ) {
        let needs_majority = self.holds(crate::planted::Rule::FenceNeedsMajority);
        let Role::Leader(leader) = &mut self.role else { return };
        let voters = leader.membership.new.as_slice().len();
        let quorum = (voters, leader.membership.new.majority());
        let mut verdict = leader.digests.vote(point, place, digest, quorum, needs_majority);
        if verdict == Verdict::Fine
            && let Some(own) = leader.digests.own(point)
        {
            verdict = leader.digests.vote(point, leader.me, own, quorum, needs_majority);
        }
        match verdict {
            Verdict::Fine => {}
            Verdict::Torn => out.push(Effect::Alarm(Alarm::Digests(point))),
            Verdict::Odd(odd) if odd == leader.me => {
                let epoch = leader.promise.epoch;
                self.core.ask(now, Ask::OddDigest, epoch, out);
                self.depose(out);
                self.fence(point, out);
            }
            Verdict::Odd(odd) => {
                let to = leader.peers[odd].id;
                out.send(to, Message::Fence { epoch: leader.promise.epoch, point });
                out.push(Effect::Alarm(Alarm::Fenced(to, point)));
            }
        }
    }

    /// This member's data is not to be trusted: it starts over.
    pub(crate) fn fence(&mut self, point: OpId, out: &mut Effects) {
        out.push(Effect::Alarm(Alarm::Fenced(self.core.id, point)));
        self.abandon(out);
        self.core.rebuild(out);
        if self.core.promise.manager != self.core.id {
            self.core.say_hello(self.core.promise.manager, out);
        }
    }
}
