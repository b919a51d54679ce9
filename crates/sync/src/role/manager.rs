//! The manager: gathers promises, freezes the basis, brings a majority into the reign.

use std::collections::{BTreeMap, BTreeSet};

use crate::basis::Basis;
use crate::core::Core;
use crate::effect::{Ask, Effects};
use crate::membership::Membership;
use crate::message::{Adopt, Gather, Message, Promised};
use crate::names::Names;
use crate::planted::Rule;
use crate::types::{Moment, OpId, Promise, Standing, StoreId};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Manager {
    pub(crate) promise: Promise,
    pub(crate) membership: Membership,
    answers: BTreeMap<StoreId, Promised>,
    /// Frozen before the first adopt message leaves, the own one included.
    pub(crate) basis: Option<Basis>,
    /// Who stands in the reign and counts.
    pub(crate) adopted: BTreeSet<StoreId>,
    started: Moment,
    poked: Moment,
}

impl Manager {
    /// Begins to gather. The own answer comes when the own promise is durable.
    pub(crate) fn begin(core: &Core, now: Moment, membership: Membership, out: &mut Effects) -> Manager {
        let manager = Manager {
            promise: core.promise,
            membership,
            answers: BTreeMap::new(),
            basis: None,
            adopted: BTreeSet::new(),
            started: now,
            poked: now,
        };
        manager.send_gathers(core, out);
        manager
    }

    fn send_gathers(&self, core: &Core, out: &mut Effects) {
        for store in self.membership.old.as_slice() {
            if *store != core.id && !self.answers.contains_key(store) {
                let gather = Gather { promise: self.promise, membership: self.membership.clone() };
                out.send(*store, Message::Gather(Box::new(gather)));
            }
        }
    }

    /// A member's promise with its tail. True: the basis is frozen now (or, with the rule switched off, made again).
    pub(crate) fn promised(&mut self, core: &Core, now: Moment, from: StoreId, answer: Promised) -> bool {
        let counts = answer.standing == Standing::Whole || !core.config.holds(Rule::RebuildingCountsNot);
        let late = self.basis.is_some() && core.config.holds(Rule::FrozenBasis);
        if answer.promise != self.promise || !self.membership.old.contains(from) || !counts || late {
            return false;
        }
        self.answers.insert(from, answer);
        self.freeze(core, now)
    }

    /// Freezes the basis when a majority has answered and the rest has had its grace.
    pub(crate) fn freeze(&mut self, core: &Core, now: Moment) -> bool {
        if self.basis.is_some() && core.config.holds(Rule::FrozenBasis) {
            return false;
        }
        let all = self.answers.len() == self.membership.old.as_slice().len();
        let grace_over = now.micros_since(self.started) >= core.config.gather_grace_micros;
        if !self.membership.old.is_majority(self.answers.keys().copied()) || !(all || grace_over) {
            return false;
        }
        self.basis = Some(Basis::of(&self.answers, &core.config));
        true
    }

    /// The message that brings a member into the reign, once the basis is frozen.
    pub(crate) fn adopt_message(&self) -> Option<Adopt> {
        let basis = self.basis.as_ref()?;
        Some(Adopt {
            promise: self.promise,
            basis_epoch: basis.epoch,
            checkpoint: basis.checkpoint,
            basis: basis.items.clone(),
            basis_end: basis.end(),
            sources: Names::of(&basis.sources),
            head: basis.end().max(OpId::ZERO),
        })
    }

    pub(crate) fn send_adopts(&self, core: &Core, out: &mut Effects) {
        let Some(adopt) = self.adopt_message() else { return };
        for store in self.membership.new.as_slice() {
            if *store != core.id && !self.adopted.contains(store) {
                out.send(*store, Message::Adopt(Box::new(adopt.clone())));
            }
        }
    }

    /// A member stands in the reign. True: a majority of the new members does, this one among it.
    pub(crate) fn adopted(&mut self, core: &Core, from: StoreId, standing: Standing) -> bool {
        if self.membership.new.contains(from)
            && (standing == Standing::Whole || !core.config.holds(Rule::RebuildingCountsNot))
        {
            self.adopted.insert(from);
        }
        self.may_lead(core)
    }

    pub(crate) fn may_lead(&self, core: &Core) -> bool {
        let majority = self.membership.new.is_majority(self.adopted.iter().copied())
            || !core.config.holds(Rule::Majority);
        majority && self.adopted.contains(&core.id)
    }

    pub(crate) fn tick(&mut self, core: &mut Core, now: Moment, out: &mut Effects) -> bool {
        if now.micros_since(self.started) >= core.config.manage_micros {
            core.ask(now, Ask::NotLeading, self.promise.epoch, out);
        }
        let frozen = self.freeze(core, now);
        if !frozen && now.micros_since(self.poked) >= core.config.resend_micros {
            self.poked = now;
            if self.basis.is_none() {
                self.send_gathers(core, out);
            } else {
                self.send_adopts(core, out);
            }
        }
        frozen
    }
}
