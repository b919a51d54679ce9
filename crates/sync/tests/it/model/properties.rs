//! What must hold in every state.

use stateright::{Model, Property};

use super::state::{Items, Member, Role, State};
use super::step::{Action, Sync};

pub(crate) const COMMITTED: &str = "no committed item is lost";
pub(crate) const ONE_ITEM: &str = "an op id names one item";
pub(crate) const ONE_LEADER: &str = "an epoch has one leader";
pub(crate) const PREFIX: &str = "what members show is one prefix of committed items";
pub(crate) const CANCELLED: &str = "a cancelled item stays cancelled";
pub(crate) const READS_KEPT: &str = "no answer rests on a cancelled item";
pub(crate) const FRESH: &str = "an unlabelled read shows what was committed before it";
pub(crate) const LEADS: &str = "a nominated manager with a live majority leads";

impl Model for Sync {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.bounds.writes)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.candidates(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.next(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(COMMITTED, |_, state: &State| committed_kept(state)),
            Property::always(ONE_ITEM, |_, state: &State| one_item(state)),
            Property::always(ONE_LEADER, |_, state: &State| !state.ghost.led_twice),
            Property::always(PREFIX, |_, state: &State| one_prefix(state)),
            Property::always(CANCELLED, |_, state: &State| {
                state.ghost.committed & state.ghost.cancelled == 0
            }),
            Property::always(READS_KEPT, |_, state: &State| reads_kept(state)),
            Property::always(FRESH, |_, state: &State| !state.ghost.stale_read),
        ];
        if self.bounds.deaths > 0 {
            properties.push(Property::always(LEADS, leads_in_the_end));
        }
        properties
    }
}

/// Whoever leads has every item that was committed in its epoch or an earlier one.
fn committed_kept(state: &State) -> bool {
    state.members.iter().all(|member| match member.role {
        Role::Leading(reign) => {
            let own = state.ghost.committed & items_upto(state, reign.epoch);
            own & !member.tree & !reign.open == 0
        }
        _ => true,
    })
}

/// Items proposed in reigns up to `epoch`: the slots of its leader are the last of them.
fn items_upto(state: &State, epoch: u8) -> Items {
    if state.nominated == epoch {
        return Items::MAX;
    }
    let per_reign = u32::from(state.writes);
    ((1_u32 << (u32::from(epoch) * per_reign)) - 1) as Items
}

/// What members show, pairwise: the same items up to the lower checkpoint, all of them committed.
fn one_prefix(state: &State) -> bool {
    let members: Vec<&Member> = state.members.iter().filter(|member| !member.wiped).collect();
    let shown = |member: &Member, upto| state.where_id(member.tree, |id| id <= upto);
    members.iter().all(|one| {
        shown(one, one.checkpoint) & !state.ghost.committed == 0
            && members.iter().all(|other| {
                let upto = one.checkpoint.min(other.checkpoint);
                shown(one, upto) == shown(other, upto)
            })
    })
}

fn reads_kept(state: &State) -> bool {
    super::state::slots(state.ghost.committed).all(|slot| state.reads_of[slot] & state.ghost.cancelled == 0)
}

fn one_item(state: &State) -> bool {
    let given: Vec<u8> = state.op_ids.iter().copied().filter(|id| *id != 0).collect();
    given.iter().enumerate().all(|(at, id)| !given[..at].contains(id))
}

/// Where nothing more can happen, the last manager leads unless it stopped itself. Messages stay deliverable and the graph has no
/// cycles, so this is liveness under fair delivery.
fn leads_in_the_end(model: &Sync, state: &State) -> bool {
    let manager = &state.members[state.manager(state.nominated)];
    if state.nominated < model.bounds.reigns
        || matches!(manager.role, Role::Leading(reign) if reign.epoch == state.nominated)
    {
        return true;
    }
    let mut actions = Vec::new();
    model.candidates(state, &mut actions);
    actions.into_iter().any(|action| model.next(state, action).is_some())
}
