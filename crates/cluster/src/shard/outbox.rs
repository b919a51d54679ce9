//! What goes into a member and what comes out.

use super::jobs::{Job, JobDone};
use super::wire::ShardMessage;
use kvorum_engine::{Sequence, Tree};
use kvorum_sync::{
    Alarm, Ask, Epoch, Holders, KeyState, Lane, Members, Membership, Names, OpId, ReadWhat, Refusal,
    StepDown, StoreId, Token,
};

/// Something that happened.
#[derive(Debug)]
pub enum MemberInput {
    /// A message came from another member, named by the connection's handshake.
    Message {
        /// Who sent it.
        from: StoreId,
        /// The message.
        message: ShardMessage,
    },
    /// Time passed.
    Tick,
    /// Everything that the store wrote up to this sequence is durable.
    Durable(Sequence),
    /// The control plane named this store the manager of a new epoch.
    Nominate {
        /// The epoch.
        epoch: Epoch,
        /// Its member lists.
        membership: Membership,
    },
    /// The control plane's list of learners.
    Learners(Members),
    /// A connection came up or broke.
    Peer {
        /// The other node's store.
        store: StoreId,
        /// Whether it can be reached.
        reachable: bool,
    },
    /// A read wants to be answered by a follower.
    FollowerRead {
        /// Whose it is.
        token: Token,
        /// What it reads: hashes of tree keys ([`super::key_hash`]), or a range.
        what: ReadWhat,
        /// Takes what is in flight with a label instead of waiting.
        labelled: bool,
    },
    /// A job ended.
    JobDone(Box<JobDone>),
    /// This member is to lead no more.
    StepDown(StepDown),
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// To whom.
    pub to: StoreId,
    /// Over which connection.
    pub lane: Lane,
    /// What.
    pub message: ShardMessage,
}

/// The answer to a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// The item is committed, with all it rests on: the reply may go out.
    Committed,
    /// The item was taken back: surely not executed.
    Cancelled,
    /// Nobody here will ever know what became of the item.
    Unknown,
    /// What the read saw is committed: the reply may go out.
    ReadReady,
    /// What the read saw is gone, or this member does not lead any more: evaluate it again.
    Again,
    /// Surely not executed.
    Refused(Refusal),
    /// The read may be answered from [`super::Member::tree`]. For each key: at version `committed`, unless that is zero (and if the version found
    /// there is another one, at the leader), else at the checkpoint; `pending` gives the label.
    ReadHere {
        /// The view.
        checkpoint: OpId,
        /// One for each key asked.
        keys: Names<KeyState>,
    },
    /// Who holds the item that was asked for.
    Held(Holders),
    /// The leader must answer the read.
    AtLeader(Option<StoreId>),
}

/// What the control plane is to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberReport {
    /// This member leads.
    Led {
        /// In this epoch.
        epoch: Epoch,
    },
    /// This member wants a nomination.
    Wants {
        /// With an epoch above.
        above: Epoch,
        /// The reason.
        why: Ask,
    },
    /// The leader is silent.
    LeaderMissing {
        /// Of this epoch.
        epoch: Epoch,
        /// Everything up to here is held.
        at: OpId,
    },
}

/// What a member wants, in order. Kept by the caller and used again.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Messages.
    pub sends: Vec<Send>,
    /// Answers.
    pub done: Vec<(Token, Done)>,
    /// Work that waits for the disk; its result comes back as [`MemberInput::JobDone`]. One that can't be run now comes back by [`Job::refuse`].
    pub jobs: Vec<Job>,
    /// For the control plane.
    pub reports: Vec<MemberReport>,
    /// For the operator.
    pub alarms: Vec<Alarm>,
    /// Everything up to this sequence is to become durable soon: [`MemberInput::Durable`] follows.
    pub written: Option<Sequence>,
    /// There is room for proposals again.
    pub room: bool,
    /// The checkpoint moved.
    pub visible: Option<OpId>,
    /// The member leads since this step.
    pub led: bool,
    /// The member does not lead any more. Those who wait for items are answered later.
    pub deposed: bool,
    /// The member's data stands in another tree from now on.
    pub tree: Option<Tree>,
    /// The store refused a record: the member stands still like a crashed one, until it is opened again.
    pub halted: Option<kvorum_engine::Error>,
}

impl Outbox {
    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty()
            && self.done.is_empty()
            && self.jobs.is_empty()
            && self.reports.is_empty()
            && self.alarms.is_empty()
            && self.written.is_none()
            && self.halted.is_none()
    }

    pub(super) fn must_be_durable(&mut self, sequence: Sequence) {
        self.written = self.written.max(Some(sequence));
    }
}
