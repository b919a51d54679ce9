//! A member's way into a reign: fetch what is final, stage the basis, then one atomic step.

use std::collections::BTreeSet;

use crate::core::Core;
use crate::durable::{Adoption, Record};
use crate::effect::{Durability, Effect, Effects, Outcome};
use crate::log::Log;
use crate::message::{Adopt, Message, Piece, Want, Way};
use crate::planted::Rule;
use crate::records::Pending;
use crate::transfer::Incoming;
use crate::types::{Checkpoint, Moment, OpId, Standing, StoreId, TransferId};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Resync {
    pub(crate) adopt: Adopt,
    /// Own items at or below S that a source confirmed.
    confirmed: BTreeSet<OpId>,
    /// Whether every final item up to S was named: then what was not is surely cancelled.
    named_all: bool,
    /// Everything final up to S is here.
    final_done: bool,
    /// How it came.
    way: Option<Way>,
    staged: BTreeSet<OpId>,
    incoming: Vec<Incoming>,
}

impl Resync {
    /// Starts. Nothing is taken from the member's state yet.
    pub(crate) fn begin(core: &mut Core, now: Moment, adopt: Adopt, out: &mut Effects) -> Resync {
        let target = adopt.checkpoint.op;
        let mut resync = Resync {
            confirmed: BTreeSet::new(),
            named_all: true,
            final_done: true,
            way: None,
            staged: BTreeSet::new(),
            incoming: Vec::new(),
            adopt,
        };
        let by_position = resync.by_position(core);
        let have = if by_position { core.log.prefix_end() } else { core.log.checkpoint.op };
        if have < target {
            resync.final_done = false;
            let doubtful = core.log.tail().iter().map(|item| item.op).filter(|op| *op <= target).collect();
            let want = Want::Final { since: have, upto: target, doubtful };
            let sources = resync.adopt.sources.as_slice().to_vec();
            resync.incoming.push(Incoming::begin(core, now, want, &sources, out));
        }
        resync.stage(core, now, out);
        resync
    }

    /// Whether the own tail up to S is final by its position: the member stands in the basis' reign, whose adopters hold no item at or
    /// below a checkpoint that is not final, and S is not of the new reign.
    fn by_position(&self, core: &Core) -> bool {
        core.log.epoch == self.adopt.basis_epoch
            && self.adopt.checkpoint.op.epoch() <= self.adopt.basis_epoch
            && core.standing == Standing::Whole
    }

    /// Fetches the values of basis items that are not here, from one holder for each group, all at the same time.
    fn stage(&mut self, core: &mut Core, now: Moment, out: &mut Effects) {
        let mut groups: Vec<(Vec<StoreId>, Vec<OpId>)> = Vec::new();
        for basis in self.adopt.basis.iter().filter(|basis| !core.log.has(basis.item.op)) {
            // The manager comes last: it may be fetching itself.
            let mut holders: Vec<StoreId> =
                basis.holders.as_slice().iter().copied().filter(|store| *store != core.id).collect();
            if core.id != self.adopt.promise.manager && !holders.contains(&self.adopt.promise.manager) {
                holders.push(self.adopt.promise.manager);
            }
            match groups.iter_mut().find(|(stores, _)| *stores == holders) {
                Some((_, ops)) => ops.push(basis.item.op),
                None => groups.push((holders, vec![basis.item.op])),
            }
        }
        for (holders, ops) in groups {
            self.incoming.push(Incoming::begin(core, now, Want::Items(ops), &holders, out));
        }
    }

    pub(crate) fn piece(&mut self, core: &Core, now: Moment, piece: &Piece, out: &mut Effects) -> bool {
        let found = self.incoming.iter_mut().find(|incoming| incoming.id == piece.transfer);
        found.is_some_and(|incoming| {
            incoming.piece(core, now, piece, out);
            true
        })
    }

    pub(crate) fn ingested(
        &mut self,
        core: &mut Core,
        now: Moment,
        transfer: TransferId,
        number: u64,
        out: &mut Effects,
    ) {
        let Some(place) = self.incoming.iter().position(|incoming| incoming.id == transfer) else { return };
        if !self.incoming[place].ingested(core, now, number, out) {
            return;
        }
        let done = self.incoming.swap_remove(place);
        match done.want {
            Want::Items(_) => self.staged.extend(done.items),
            Want::Final { upto, .. } => {
                self.final_done = true;
                self.way = Some(done.way);
                if done.way == Way::Files {
                    // They have taken the place of what was here already.
                    core.shipped(done.way, upto);
                }
                self.named_all = done.way == Way::Items;
                self.confirmed.extend(done.confirmed);
                self.confirmed.extend(done.items);
            }
        }
    }

    pub(crate) fn cannot_serve(
        &mut self,
        core: &mut Core,
        now: Moment,
        transfer: TransferId,
        out: &mut Effects,
    ) {
        if let Some(incoming) = self.incoming.iter_mut().find(|incoming| incoming.id == transfer) {
            incoming.next_source(core, now, out);
        }
    }

    pub(crate) fn tick(&mut self, core: &mut Core, now: Moment, out: &mut Effects) {
        for incoming in &mut self.incoming {
            incoming.tick(core, now, out);
        }
    }

    /// Whether no source can serve this adoption any more, and the leader, for whom all of its basis is final by now, offers a newer state.
    pub(crate) fn is_outrun_by(&self, newer: &Adopt) -> bool {
        let leads = newer.basis_epoch == newer.promise.epoch;
        leads
            && newer.checkpoint.op > self.adopt.checkpoint.op
            && self.incoming.iter().any(|incoming| incoming.exhausted)
    }

    pub(crate) fn is_ready(&self, core: &Core) -> bool {
        let here = |op: OpId| core.log.has(op) || self.staged.contains(&op);
        self.final_done && self.adopt.basis.iter().all(|basis| here(basis.item.op))
    }

    /// From where final data is being brought, if it is.
    pub(crate) fn since(&self) -> Option<OpId> {
        self.incoming.iter().filter_map(Incoming::since).min()
    }

    /// Drops the transfers under way.
    pub(crate) fn abandon(&self, out: &mut Effects) {
        for incoming in &self.incoming {
            out.push(Effect::DropTransfer { transfer: incoming.id });
        }
    }

    /// The one atomic step into the reign. `held` are the items whose clients wait for their fate:
    /// up to S it is decided; above it is told when the reign is known to lead, for one that never does decides nothing.
    pub(crate) fn adopt(self, core: &mut Core, held: &mut Vec<(OpId, Outcome)>, out: &mut Effects) {
        let target = self.adopt.checkpoint;
        let by_position = self.by_position(core);
        let basis: BTreeSet<OpId> = self.adopt.basis.iter().map(|basis| basis.item.op).collect();
        let stands = |op: OpId| {
            if op > target.op {
                basis.contains(&op)
            } else {
                by_position || self.confirmed.contains(&op) || op <= core.log.checkpoint.op
            }
        };
        let tail: Vec<OpId> = core.log.tail().iter().map(|item| item.op).collect();
        let keeps = |op: OpId| {
            let kept_as_final = op <= target.op && core.config.holds(Rule::KeepConfirmed);
            (kept_as_final || op > target.op) && stands(op) || !core.config.holds(Rule::RetractAtAdoption)
        };
        let retract: Vec<OpId> = tail.iter().copied().filter(|op| !keeps(*op)).collect();
        let own = core.log.checkpoint;
        let checkpoint = if own.op > target.op { own } else { target };
        let above: Vec<_> = self.adopt.basis.iter().filter(|basis| basis.item.op > checkpoint.op).collect();
        let put = above
            .iter()
            .filter(|basis| !core.log.has(basis.item.op))
            .map(|basis| basis.item.clone())
            .collect();
        let items = above.iter().map(|basis| basis.item.clone()).collect();
        held.retain_mut(|(op, outcome)| {
            *outcome = self.outcome(core, *op, basis.contains(op));
            let decided = *op <= target.op;
            if decided {
                out.push(Effect::Settled { op: *op, outcome: *outcome });
            }
            !decided
        });
        let standing = match core.standing {
            Standing::Rebuilding { .. } if checkpoint.op < self.adopt.head => {
                Standing::Rebuilding { until: self.adopt.head }
            }
            _ => Standing::Whole,
        };
        self.enter(core, checkpoint, (retract, put, items, standing), out);
    }

    /// The fate of an item of a deposed leader, if this reign comes to lead.
    fn outcome(&self, core: &Core, op: OpId, in_basis: bool) -> Outcome {
        let target = self.adopt.checkpoint.op;
        let here = self.by_position(core) && core.log.has_in_tail(op);
        if in_basis || (op <= target && (here || self.confirmed.contains(&op))) {
            Outcome::Kept
        } else if op > target
            || (self.named_all && !self.by_position(core))
            || !core.config.holds(Rule::UnknownIsNoRefusal)
        {
            Outcome::Cancelled
        } else {
            Outcome::Unknown
        }
    }

    fn enter(
        &self,
        core: &mut Core,
        checkpoint: Checkpoint,
        (retract, put, items, standing): (
            Vec<OpId>,
            Vec<crate::item::Item>,
            Vec<crate::item::Item>,
            Standing,
        ),
        out: &mut Effects,
    ) {
        let promise = self.adopt.promise;
        let basis_end = self.adopt.basis_end.max(checkpoint.op);
        let adoption = Adoption { promise, retract, put, checkpoint, basis_end, standing };
        let pending = Pending::Adoption(checkpoint.op);
        core.adopted_record =
            core.persist(Record::Adopt(Box::new(adoption)), Durability::Synced, pending, out);
        core.promise = promise;
        core.standing = standing;
        core.log = Log::adopted(checkpoint, promise.epoch, basis_end, items);
        core.announced = checkpoint.op;
        core.stored_checkpoint = checkpoint.op;
        if let Some(way) = self.way {
            core.shipped(way, self.adopt.checkpoint.op);
        }
        out.push(Effect::Visible { checkpoint });
    }
}

/// What a member that stands in a reign tells its leader.
pub(crate) fn adopted_message(core: &Core) -> Message {
    Message::Adopted { epoch: core.log.epoch, checkpoint: core.log.checkpoint.op, standing: core.standing }
}
