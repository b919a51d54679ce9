//! Faults that tests plant, to see the simulation catch each of them. A program has none.

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A replica that did not answer counts as one that did: its hint is taken for an acknowledgement.
    HintIsAck,
    /// A read answers with whatever came first.
    FirstAnswerWins,
    /// A read does not count deletions among the answers.
    DeletionIsNoAnswer,
    /// A replica behind the `from` of an entry does not let go of its older copy.
    OldCopiesStay,
    /// A replica with an empty disk answers reads at once.
    EmptyAnswers,
    /// A replica keeps what others should.
    KeepsBeyondFrom,
    /// A write is acknowledged before it is durable.
    AcknowledgesEarly,
    /// Deletions are not compared.
    ComparesNoDeletions,
    /// Digests are of keys alone.
    DigestsWithoutVersions,
    /// What is found to differ does not move.
    MovesNothing,
    /// A replica that slept too long takes what it holds for as good as what others hold.
    OversleptMerges,
    /// That a replica has nothing is taken for a deletion by one that slept, though it lacks something itself.
    EmptyJudges,
    /// A node that keeps more because another one left answers for it before it has it.
    OwnersAnswerAtOnce,
    /// Writes of a new owner count before others know that it is one.
    CountsUnknown,
    /// A request of a coordinator that knows other nodes is carried out.
    MapsMix,
    /// A copy that is kept elsewhere now goes before all have it.
    LetsGoTooEarly,
    /// What moves is refused where younger deletions were forgotten.
    MovedAreRefused,
    /// Deletions are forgotten by a node's own clock alone.
    ForgetsByOwnClock,
    /// Deletions are forgotten that a node which others reach has not seen.
    ForgetsUnseen,
    /// A node takes for away whom it does not reach itself.
    EachForgetsAlone,
    /// A replica that was cut off for too long takes what it holds for as good as what others hold.
    CutOffMerges,
    /// What was written at the same time does not move.
    LosersStay,
}

#[cfg(test)]
impl Fault {
    /// All of them.
    pub(super) const ALL: [Fault; 22] = [
        Fault::HintIsAck,
        Fault::FirstAnswerWins,
        Fault::DeletionIsNoAnswer,
        Fault::OldCopiesStay,
        Fault::EmptyAnswers,
        Fault::KeepsBeyondFrom,
        Fault::AcknowledgesEarly,
        Fault::ComparesNoDeletions,
        Fault::DigestsWithoutVersions,
        Fault::MovesNothing,
        Fault::OversleptMerges,
        Fault::EmptyJudges,
        Fault::OwnersAnswerAtOnce,
        Fault::CountsUnknown,
        Fault::MapsMix,
        Fault::LetsGoTooEarly,
        Fault::MovedAreRefused,
        Fault::ForgetsByOwnClock,
        Fault::ForgetsUnseen,
        Fault::EachForgetsAlone,
        Fault::CutOffMerges,
        Fault::LosersStay,
    ];
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Plants a fault on this thread, in place of any other.
#[cfg(test)]
pub(super) fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

#[cfg(test)]
pub(super) fn is_planted(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}

#[cfg(not(test))]
pub(super) const fn is_planted(_: Fault) -> bool {
    false
}
