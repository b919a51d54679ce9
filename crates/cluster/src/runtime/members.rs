//! The members of this node's shards: one step each under its latch, then what they want is carried out.

use super::Cluster;
use super::moments;
use crate::control::Report;
use crate::latch::ShardId;
use crate::shard::{Job, Member, MemberInput, MemberReport, Outbox, wire};
use bytes::Bytes;
use kvorum_sync::{Lane, Moment, StoreId};
use std::sync::Arc;

impl Cluster {
    /// Takes in what the members of another node have to say.
    pub(super) fn deliver(self: &Arc<Self>, from: StoreId, lane: Lane, body: &Bytes) {
        let step_all = || {
            for message in wire::messages(body) {
                match message.and_then(|bytes| wire::decode(&bytes)) {
                    Ok((shard, message)) => self.step(shard, MemberInput::Message { from, message }),
                    Err(expected) => {
                        tracing::warn!(%from, ?expected, "a message for a shard that makes no sense: dropped");
                    }
                }
            }
        };
        match lane {
            Lane::Control => self.in_turn(step_all),
            Lane::Data(_) => self.in_turn_with_data(step_all),
        }
    }

    /// Steps the member of a shard and carries out what it wants. Nothing happens if there is none: it is not open yet, or not here any more.
    pub(crate) fn step(self: &Arc<Self>, shard: ShardId, input: MemberInput) {
        self.with_member(shard, |member, now, out| member.step(now, input, out));
    }

    /// Does something with the member of a shard under its latch, then carries out what it wants. `None` without a member.
    pub(crate) fn with_member<T>(
        self: &Arc<Self>,
        shard: ShardId,
        work: impl FnOnce(&mut Member, Moment, &mut Outbox) -> T,
    ) -> Option<T> {
        let place = self.table.shard(shard)?;
        let mut out = Outbox::default();
        let answer = {
            let mut writer = place.latch();
            work(writer.member.as_deref_mut()?, moments::now(), &mut out)
        };
        self.carry_out(shard, out);
        Some(answer)
    }

    /// Whether there is a member of the shard.
    pub(super) fn has_member(&self, shard: ShardId) -> bool {
        self.open.lock().contains(&shard)
    }

    /// Carries out what a member wants, after its latch was given back.
    pub(crate) fn carry_out(self: &Arc<Self>, shard: ShardId, out: Outbox) {
        if self.table.shard(shard).is_some_and(crate::latch::Shard::begins_to_tick) {
            self.ticks.add(shard);
        }
        self.do_all(shard, out);
    }

    /// As [`Cluster::carry_out`], by who knows whether the shard is busy.
    pub(super) fn do_all(self: &Arc<Self>, shard: ShardId, out: Outbox) {
        if let (Some(tree), Some(place)) = (&out.tree, self.table.shard(shard)) {
            place.tree.replace(tree);
        }
        let moved = out.room || out.led || out.deposed || out.visible.is_some();
        self.want(shard, &out.sends, out.written, out.done, moved);
        for job in out.jobs {
            self.begin(shard, job);
        }
        for report in out.reports {
            self.control.report(&match report {
                MemberReport::Led { epoch } => Report::Led { shard, epoch },
                MemberReport::Wants { above, why } => Report::Wants { shard, above, why },
                MemberReport::LeaderMissing { epoch, at } => Report::LeaderMissing { shard, epoch, at },
            });
        }
        for alarm in out.alarms {
            tracing::error!(
                namespace = shard.namespace,
                place = shard.place,
                ?alarm,
                "a shard needs an operator"
            );
        }
        if out.led {
            self.tell_unreachable(shard);
        }
        if let Some(error) = out.halted {
            self.halted(shard, &error);
        }
    }

    /// Hands a job to the threads for slow work; its end is the member's next input.
    fn begin(self: &Arc<Self>, shard: ShardId, job: Job) {
        let cluster = Arc::clone(self);
        let refused = self.jobs.run(job, move |job| {
            let done = job.run(&cluster.store);
            cluster.step(shard, MemberInput::JobDone(Box::new(done)));
        });
        if let Err(job) = refused {
            // Told later: a member that asks again at once would be refused at once, for ever deeper.
            self.refused.lock().push((shard, Box::new(job.refuse())));
        }
    }

    /// Tells members whose jobs were refused.
    pub(super) fn tell_refused(self: &Arc<Self>) {
        let refused = std::mem::take(&mut *self.refused.lock());
        for (shard, done) in refused {
            self.step(shard, MemberInput::JobDone(done));
        }
    }
}
