//! Commands one by one at this node's own member: at once as far as memory goes, the others when what they need was read from the disk.

use super::codec::{Answer, Said};
use super::here::{Cold, Here, Not, Warm};
use super::under_way::UnderWay;
use crate::execute::group::{Command, Evaluated, record_key};
use kvorum_sync::{Epoch, OpId};

/// Commands that were executed, and what their replies wait for.
pub(super) type Rounds = Vec<(Vec<Evaluated>, UnderWay)>;

/// Commands that have begun: some are executed, and the next one may wait for the disk.
#[derive(Default)]
pub(super) struct Begun {
    rounds: Rounds,
    /// How many are executed.
    done: usize,
    /// The last item, in the order of the connection.
    after: Option<OpId>,
    cold: Option<Needs>,
    warm: Warm,
}

/// What the next command needs of the disk.
struct Needs {
    epoch: Epoch,
    cold: Cold,
    /// Whether what was read before was for other commands.
    advanced: bool,
}

impl Begun {
    /// How many commands are executed, if the next one waits for the disk.
    pub(super) fn waits_at(&self) -> Option<usize> {
        self.cold.as_ref().map(|_| self.done)
    }

    /// Takes out those that are executed. What remains has begun with the one that waits.
    pub(super) fn split(&mut self) -> Rounds {
        self.done = 0;
        std::mem::take(&mut self.rounds)
    }
}

/// The id of a request: the key of its record, and the command's place.
type Id<'i> = Option<(usize, &'i [u8])>;

impl Here<'_> {
    /// Executes commands one by one. `id`: of the first of them that writes.
    pub(super) async fn commands(&self, list: &[Command<'_>], id: Option<&[u8]>) -> Answer {
        let key = id.map(record_key);
        let named = list.iter().position(|(spec, _)| spec.is_write()).zip(key.as_deref());
        let all = |_| list.len();
        let mut begun = Begun::default();
        let done = match self.advance(list, named, &all, &mut begun) {
            Ok(()) => self.finish_named(list, named, begun).await,
            Err(not) => Err(not),
        };
        match done {
            Ok((last, all)) => Answer::Said { last, all },
            Err(not) => not.answer(list.len()),
        }
    }

    /// Executes commands up to the first that needs the disk. `end_of`: behind which place those end that come from the same connection as the
    /// one at a place.
    ///
    /// An error says that none was.
    pub(super) fn begin(&self, list: &[Command<'_>], end_of: &dyn Fn(usize) -> usize) -> Result<Begun, Not> {
        let mut begun = Begun::default();
        self.advance(list, None, end_of, &mut begun)?;
        Ok(begun)
    }

    /// Goes on with commands to their end. Answers the highest version that they wrote, too.
    ///
    /// An error says that none was executed.
    pub(super) async fn finish(&self, list: &[Command<'_>], begun: Begun) -> Result<(u64, Vec<Said>), Not> {
        self.finish_named(list, None, begun).await
    }

    async fn finish_named(
        &self,
        list: &[Command<'_>],
        named: Id<'_>,
        mut begun: Begun,
    ) -> Result<(u64, Vec<Said>), Not> {
        while let Some(Needs { epoch, cold, advanced }) = begun.cold.take() {
            match self.warm_up(epoch, cold, std::mem::take(&mut begun.warm), advanced).await {
                Ok(warm) => begun.warm = warm,
                Err(error) => {
                    begun.rounds.push((vec![Evaluated { reply: error, item: None }], self.nothing()));
                    break;
                }
            }
            self.advance(list, named, &|_| list.len(), &mut begun)?;
        }
        let (last, mut all) = self.settled(begun.rounds).await;
        all.resize(list.len(), Said::Again);
        Ok((last, all))
    }

    /// What became of commands that were executed, and the highest version that they wrote.
    pub(super) async fn settled(&self, rounds: Rounds) -> (u64, Vec<Said>) {
        let (mut all, mut kept) = (Vec::new(), OpId::ZERO);
        for (evaluated, under_way) in rounds {
            let fates = self.settle(under_way).await;
            kept = kept.max(fates.kept);
            all.extend(evaluated.into_iter().map(|done| fates.of(done)));
        }
        (kept.version(), all)
    }

    /// Executes what can be without the disk. It ends early where there is no room: what is not executed is to be tried again.
    fn advance(
        &self,
        list: &[Command<'_>],
        named: Id<'_>,
        end_of: &dyn Fn(usize) -> usize,
        begun: &mut Begun,
    ) -> Result<(), Not> {
        while let Some(rest) = list.get(begun.done..).filter(|rest| !rest.is_empty()) {
            let from = begun.done;
            let named = named.and_then(|(at, key)| Some((at.checked_sub(from)?, key)));
            let end_of = |at: usize| end_of(from + at) - from;
            let round = match self.round(rest, named, begun.after, &begun.warm, &end_of) {
                Err(_) if from > 0 => return Ok(()),
                round => round?,
            };
            begun.done += round.done.len();
            begun.after = round.under_way.last().or(begun.after);
            let (whole, advanced) = (round.under_way.whole, !round.done.is_empty());
            begun.rounds.push((round.done, round.under_way));
            if !whole {
                return Ok(());
            }
            if let Some((epoch, cold)) = round.cold {
                begun.cold = Some(Needs { epoch, cold, advanced });
                return Ok(());
            }
        }
        Ok(())
    }
}
