//! How a change gets into the log, from any node: to the raft leader, again and again under the same request id until there is an answer. A node
//! whose openraft has stopped (its disk failed) knows no leader any more: it asks the voters of its last map, who tell.

use super::change::{Answers, Applied, Change, Proposal, RequestId};
use super::message::{Call, Proposed, decode, encode_call};
use super::raft::Raft;
use super::{Control, Inner};
use kvorum_sync::StoreId;
use openraft::error::{ClientWriteError, RaftError};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// One try at the leader.
const TRY: Duration = Duration::from_secs(2);

/// Between two tries, while an election may be going on.
const PAUSE: Duration = Duration::from_millis(100);

/// All tries: longer than an election, a second one, and a try.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a change did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControlError {
    /// The map says no. Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// No majority of the control plane's voters answered in time. It may be changed yet.
    #[error("the cluster's control plane did not answer in time: {0}")]
    Unknown(String),
}

impl Control {
    /// Changes the map. Takes a round of the control plane; while it elects a leader, up to a few seconds.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when the map as it is then does not allow it, [`ControlError::Unknown`] when nobody answered in time.
    pub(crate) async fn change(&self, change: Change) -> Result<Applied, ControlError> {
        let Answers(answers) = self.0.propose(vec![change]).await?;
        let answer = answers.into_iter().next();
        let answer = answer.ok_or_else(|| ControlError::Unknown("an answer without content".to_owned()))?;
        answer.map_err(|refused| ControlError::Refused(refused.0))
    }
}

impl Inner {
    fn proposal(&self, changes: Vec<Change>) -> Proposal {
        let number = self.proposals.fetch_add(1, Relaxed) + 1;
        Proposal { id: RequestId { store: self.me, boot: self.boot, number }, changes }
    }

    /// Proposes as often as it takes. The request id makes it happen once.
    pub(super) async fn propose(&self, changes: Vec<Change>) -> Result<Answers, ControlError> {
        let proposal = self.proposal(changes);
        let mut last = "there is no leader".to_owned();
        let tries = async {
            let mut hint = None;
            for round in 0.. {
                let leader = hint.take().or_else(|| self.leader()).or_else(|| self.guide(round));
                match self.propose_at(leader, &proposal).await {
                    Proposed::Applied(answers) => return Some(answers),
                    Proposed::NotLeader(Some(other)) if Some(other) != leader => hint = Some(other),
                    Proposed::NotLeader(_) => {}
                    Proposed::Unknown(why) => last = why,
                }
                if hint.is_none() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            None
        };
        let done = tokio::time::timeout(DEADLINE, tries).await;
        done.ok().flatten().ok_or(ControlError::Unknown(last))
    }

    /// Who tells this node the leader, if its own openraft has stopped: another voter that is heard, each round the next one.
    fn guide(&self, round: usize) -> Option<StoreId> {
        if self.raft.metrics().borrow().running_state.is_ok() {
            return None;
        }
        let (map, heard) = (self.map(), self.detector.lock().heard(self.now()));
        let voters: Vec<StoreId> =
            heard.into_iter().filter(|store| *store != self.me && map.voters.contains(store)).collect();
        voters.get(round % voters.len().max(1)).copied()
    }

    /// The raft leader, as far as this node knows. One whose openraft has stopped knows nothing any more.
    pub(super) fn leader(&self) -> Option<StoreId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.current_leader.map(StoreId).filter(|_| metrics.running_state.is_ok())
    }

    async fn propose_at(&self, leader: Option<StoreId>, proposal: &Proposal) -> Proposed {
        let Some(leader) = leader else { return Proposed::NotLeader(None) };
        if leader == self.me {
            return self.propose_here(proposal).await;
        }
        let body = match encode_call(&mut Call::Propose(proposal.clone())) {
            Ok(body) => body,
            Err(error) => return Proposed::Unknown(error),
        };
        match self.links.call(leader, body, TRY).await {
            Ok(answer) => decode(&answer).unwrap_or_else(Proposed::Unknown),
            Err(error) => Proposed::Unknown(format!("{leader}: {error}")),
        }
    }

    /// Proposes at this node, which leads or answers that it does not.
    pub(super) async fn propose_here(&self, proposal: &Proposal) -> Proposed {
        match tokio::time::timeout(TRY, write(&self.raft, proposal.clone())).await {
            Ok(proposed) => proposed,
            Err(_) => Proposed::Unknown("no majority of the voters took the change in time".to_owned()),
        }
    }
}

async fn write(raft: &Raft, proposal: Proposal) -> Proposed {
    match raft.client_write(proposal).await {
        Ok(response) => Proposed::Applied(response.data),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
            Proposed::NotLeader(forward.leader_id.map(StoreId))
        }
        Err(error) => Proposed::Unknown(error.to_string()),
    }
}
