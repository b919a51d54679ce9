//! What the control plane's log says: changes of the map, and what came of them.

use super::map::{ClusterId, Map, NamespaceRow, NodeInfo, NodeState, ShardId, pairs};
use crate::namespaces::{NamespaceChange, NamespaceSettings};
use kvorum_sync::{Epoch, Members, StoreId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;

/// Proposals whose answer is kept for retries. A retry comes within seconds, and the planner makes a few entries a second at most.
pub(crate) const ANSWERS_KEPT_MAX: usize = 1024;

/// A change of the map. Whether it still makes sense is judged when it is applied, on the map that all nodes have then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    /// The first change of a cluster.
    Found {
        cluster: ClusterId,
        #[serde(with = "pairs")]
        nodes: BTreeMap<StoreId, NodeInfo>,
        #[serde(with = "pairs")]
        namespaces: BTreeMap<u16, NamespaceRow>,
    },
    /// A node enters, or tells new addresses. `replaces`: a store that was known under the same name and is gone for good.
    Join { store: StoreId, info: NodeInfo, replaces: Option<StoreId> },
    /// A node's state, if it is `from` now.
    SetNode { store: StoreId, from: NodeState, to: NodeState },
    /// A new namespace. It is active when somebody uses it.
    CreateNamespace { name: String, settings: NamespaceSettings },
    /// Other settings of a namespace.
    SetNamespace { id: u16, changes: Vec<NamespaceChange> },
    /// The namespace's data is to be deleted.
    DropNamespace { id: u16 },
    /// Somebody uses the namespace: its shards get members.
    Activate { id: u16 },
    /// A new reign of a shard, if `last` is its last epoch still.
    Nominate { shard: ShardId, last: Epoch, above: Epoch, manager: StoreId, members: Members },
    /// The manager of the shard's last nomination leads.
    Led { shard: ShardId, epoch: Epoch },
    /// Who is being caught up to become a member, if `last` is the shard's last epoch still.
    Learners { shard: ShardId, last: Epoch, learners: Members },
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Applied {
    /// The map is as the change asks.
    Done,
    /// The namespace has this number.
    Namespace(u16),
    /// The shard's new epoch.
    Nominated(Epoch),
    /// The map had passed it by: somebody else was quicker. Nothing was changed.
    Outdated,
}

/// Why a change was refused: for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused(pub(crate) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a proposal: a retry carries the same one and is not applied again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct RequestId {
    /// Who asks.
    pub(crate) store: StoreId,
    /// Drawn at its start.
    pub(crate) boot: u64,
    /// Rising from 1.
    pub(crate) number: u64,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) id: RequestId,
    pub(crate) changes: Vec<Change>,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RequestId { store, boot, number } = self.id;
        write!(f, "{} changes of {store}/{boot:x}/{number}", self.changes.len())
    }
}

/// What came of a proposal: an answer for each of its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answers(pub(crate) Vec<Result<Applied, Refused>>);

/// The state of the control plane: the map, and what retries need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) map: Map,
    answered: VecDeque<(RequestId, Answers)>,
}

impl State {
    /// Applies a proposal, unless it was applied already. Deterministic: it looks at nothing but the state and the proposal.
    pub(crate) fn apply(&mut self, proposal: &Proposal) -> Answers {
        if let Some((_, answers)) = self.answered.iter().rev().find(|(id, _)| *id == proposal.id) {
            return answers.clone();
        }
        let answers = Answers(proposal.changes.iter().map(|change| self.map.apply(change)).collect());
        let changed =
            |answer: &Result<Applied, Refused>| matches!(answer, Ok(done) if *done != Applied::Outdated);
        if answers.0.iter().any(changed) {
            self.map.version += 1;
        }
        if self.answered.len() == ANSWERS_KEPT_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back((proposal.id, answers.clone()));
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::Mode;

    fn proposal(number: u64, changes: Vec<Change>) -> Proposal {
        Proposal { id: RequestId { store: StoreId(1), boot: 5, number }, changes }
    }

    fn found() -> Change {
        let info = NodeInfo { name: "a".into(), peer: "a:1".into(), ..NodeInfo::default() };
        let nodes = BTreeMap::from([(StoreId(1), info)]);
        Change::Found { cluster: ClusterId(9), nodes, namespaces: BTreeMap::new() }
    }

    fn create(name: &str) -> Change {
        Change::CreateNamespace { name: name.into(), settings: NamespaceSettings::new(Mode::Strong) }
    }

    #[test]
    fn a_retry_gets_the_answer_of_the_first_time() {
        let mut state = State::default();
        state.apply(&proposal(1, vec![found()]));
        let create = proposal(2, vec![create("jobs")]);
        let first = state.apply(&create);
        assert_eq!(first.0, [Ok(Applied::Namespace(1))]);
        let version = state.map.version;
        assert_eq!(state.apply(&create), first);
        assert_eq!(state.map.version, version, "nothing happened twice");
        let other = proposal(3, create.changes);
        assert!(state.apply(&other).0[0].is_err(), "the name is taken by now");
    }

    #[test]
    fn a_refused_entry_is_no_new_version_of_the_map() {
        let mut state = State::default();
        state.apply(&proposal(1, vec![found()]));
        state.apply(&proposal(2, vec![Change::DropNamespace { id: 7 }]));
        assert_eq!(state.map.version, 1);
        state.apply(&proposal(3, vec![Change::DropNamespace { id: 7 }, create("x")]));
        assert_eq!(state.map.version, 2);
    }

    #[test]
    fn answers_are_kept_for_a_bounded_window() {
        let mut state = State::default();
        for number in 0..2 * ANSWERS_KEPT_MAX as u64 {
            state.apply(&proposal(number, vec![]));
        }
        assert_eq!(state.answered.len(), ANSWERS_KEPT_MAX);
        let bytes = serde_json::to_vec(&state).unwrap();
        assert_eq!(serde_json::from_slice::<State>(&bytes).unwrap(), state);
    }

    #[test]
    fn every_change_comes_back_from_its_bytes() {
        let shard = ShardId { namespace: 3, place: 4 };
        let (last, members) = (Epoch::new(7).unwrap(), Members::of(&[StoreId(u64::MAX), StoreId(1)]));
        let changes = vec![
            found(),
            Change::Join { store: StoreId(2), info: NodeInfo::default(), replaces: Some(StoreId(4)) },
            Change::SetNode { store: StoreId(2), from: NodeState::Up, to: NodeState::Draining },
            create("jobs"),
            Change::SetNamespace { id: 3, changes: vec![NamespaceChange::Replication(Some(5))] },
            Change::DropNamespace { id: 3 },
            Change::Activate { id: 3 },
            Change::Nominate {
                shard,
                last,
                above: Epoch::ZERO,
                manager: StoreId(1),
                members: members.clone(),
            },
            Change::Led { shard, epoch: last },
            Change::Learners { shard, last, learners: members },
        ];
        let proposal = proposal(u64::MAX, changes);
        let bytes = serde_json::to_vec(&proposal).unwrap();
        assert_eq!(serde_json::from_slice::<Proposal>(&bytes).unwrap(), proposal);
    }
}
