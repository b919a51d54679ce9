//! Trying again: what a router does with an answer that is none. Pure: time comes in, a decision goes out.
//!
//! What was surely not executed is tried again, where the map or the answer says, until the deadline. What may have been executed is tried
//! again only if that can do no harm: a read, or a request whose id the shard remembers.

use kvorum_sync::StoreId;

/// How long a command waits for a shard that can take it, before it fails as surely not executed.
pub(crate) const PATIENCE_MS: u64 = 5_000;

/// Pauses between two tries, in milliseconds: they grow from the one to the other.
const PAUSE_MIN_MS: u64 = 2;
const PAUSE_MAX_MS: u64 = 100;

/// Leaders that are believed one after the other without a pause. Two nodes that name each other must not be asked in circles.
const HINTS_MAX: u32 = 3;

/// Why a try brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setback {
    /// Nobody leads the shard, as far as is known.
    NoLeader,
    /// The asked node does not lead it; the one that does, if it knows.
    NotHere(Option<StoreId>),
    /// It has no room, or the item was cancelled, or what a read rested on: surely not executed.
    Again,
    /// The ask surely did not leave this node.
    NotSent,
    /// The ask may have arrived; no answer came.
    Lost,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask this node at once.
    Ask(StoreId),
    /// Look at the map again after so many milliseconds, or when it changes.
    Pause(u64),
    /// Give up: surely not executed.
    Refuse,
    /// Give up: it may have been executed.
    Unknown,
}

/// What trying again after a lost answer could do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: it only reads.
    Read,
    /// Nothing: the shard remembers the request's id. But in the end nobody may say that it was not executed.
    Named,
    /// Execute something twice.
    Write,
}

/// The tries of one part of a buffer.
#[derive(Debug)]
pub(crate) struct Attempt {
    deadline_ms: u64,
    kind: Kind,
    /// Something may have been executed, and only a further try can tell.
    in_doubt: bool,
    pause_ms: u64,
    hints: u32,
}

impl Attempt {
    pub(crate) fn new(now_ms: u64, patience_ms: u64, kind: Kind) -> Attempt {
        Attempt {
            deadline_ms: now_ms.saturating_add(patience_ms),
            kind,
            in_doubt: false,
            pause_ms: PAUSE_MIN_MS,
            hints: 0,
        }
    }

    /// How long an answer can be waited for still, in milliseconds.
    pub(crate) fn patience_ms(&self, now_ms: u64) -> u64 {
        self.deadline_ms.saturating_sub(now_ms)
    }

    /// Some of the part was answered: those that are left begin anew.
    pub(crate) fn advanced(&mut self) {
        (self.pause_ms, self.hints) = (PAUSE_MIN_MS, 0);
    }

    /// The writes are settled: what is left only reads.
    pub(crate) fn only_reads(&mut self) {
        self.kind = Kind::Read;
        self.in_doubt = false;
    }

    /// What to do after a setback.
    pub(crate) fn next(&mut self, now_ms: u64, setback: Setback) -> Next {
        if setback == Setback::Lost {
            match self.kind {
                Kind::Read => {}
                Kind::Named => self.in_doubt = true,
                Kind::Write => return Next::Unknown,
            }
        }
        if now_ms >= self.deadline_ms {
            return if self.in_doubt { Next::Unknown } else { Next::Refuse };
        }
        if let Setback::NotHere(Some(leader)) = setback
            && self.hints < HINTS_MAX
        {
            self.hints += 1;
            return Next::Ask(leader);
        }
        self.hints = 0;
        let pause_ms = self.pause_ms.min(self.deadline_ms - now_ms);
        self.pause_ms = (self.pause_ms * 2).min(PAUSE_MAX_MS);
        Next::Pause(pause_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StoreId = StoreId(1);
    const B: StoreId = StoreId(2);

    /// Tries until it gives up, and says when and how.
    fn give_up(attempt: &mut Attempt, setback: Setback) -> (u64, Next) {
        let mut now_ms = 1000;
        loop {
            match attempt.next(now_ms, setback) {
                Next::Pause(pause_ms) => now_ms += pause_ms,
                Next::Ask(_) => now_ms += 1,
                end => return (now_ms, end),
            }
        }
    }

    #[test]
    fn what_was_surely_not_executed_is_tried_until_the_deadline() {
        for setback in [Setback::NoLeader, Setback::Again, Setback::NotSent, Setback::NotHere(None)] {
            for kind in [Kind::Read, Kind::Named, Kind::Write] {
                let mut attempt = Attempt::new(1000, PATIENCE_MS, kind);
                let end = 1000 + PATIENCE_MS;
                assert_eq!(give_up(&mut attempt, setback), (end, Next::Refuse), "{setback:?}");
            }
        }
    }

    #[test]
    fn a_write_that_may_have_left_is_never_sent_again() {
        let mut attempt = Attempt::new(1000, 500, Kind::Write);
        assert!(matches!(attempt.next(1000, Setback::NoLeader), Next::Pause(_)));
        assert_eq!(attempt.next(1001, Setback::Lost), Next::Unknown);
        attempt.only_reads();
        assert!(matches!(attempt.next(1002, Setback::Lost), Next::Pause(_)), "the reads beside it are");
    }

    #[test]
    fn what_can_do_no_harm_is_sent_again_but_in_the_end_not_called_undone() {
        for (kind, end) in [(Kind::Read, Next::Refuse), (Kind::Named, Next::Unknown)] {
            let mut attempt = Attempt::new(1000, 500, kind);
            assert!(matches!(attempt.next(1000, Setback::Lost), Next::Pause(_)));
            // The later tries did not leave; the first one may have arrived.
            assert_eq!(give_up(&mut attempt, Setback::NoLeader), (1500, end));
        }
    }

    #[test]
    fn two_nodes_that_name_each_other_are_not_asked_in_circles() {
        let mut attempt = Attempt::new(0, 10_000, Kind::Read);
        let mut asked = Vec::new();
        for step in 0..20 {
            let (from, to) = if step % 2 == 0 { (A, B) } else { (B, A) };
            match attempt.next(step, Setback::NotHere(Some(to))) {
                Next::Ask(leader) => asked.push((from, leader)),
                Next::Pause(_) => break,
                end => panic!("{end:?}"),
            }
        }
        assert_eq!(asked.len(), HINTS_MAX as usize);
        assert!(
            matches!(attempt.next(30, Setback::NotHere(Some(A))), Next::Ask(A)),
            "after a pause they are heard again"
        );
    }

    #[test]
    fn pauses_grow_and_start_anew_after_an_advance() {
        let mut attempt = Attempt::new(0, 100_000, Kind::Write);
        let pause = |attempt: &mut Attempt| match attempt.next(0, Setback::Again) {
            Next::Pause(pause_ms) => pause_ms,
            next => panic!("{next:?}"),
        };
        let pauses: Vec<_> = (0..8).map(|_| pause(&mut attempt)).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 100, 100]);
        attempt.advanced();
        assert_eq!(pause(&mut attempt), 2);
        assert_eq!(attempt.patience_ms(99_999), 1);
    }
}
