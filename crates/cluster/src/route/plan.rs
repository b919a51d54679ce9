//! From the commands of a buffer to parts, one for each shard that they touch, and back from the parts' replies to the buffer's.

use super::codec::Said;
use crate::keys::shard_of;
use crate::latch::ShardId;
use crate::session::Request;
use kvorum_model::{Args, CommandSpec, ErrorReply, Reply, Run};
use smallvec::SmallVec;

/// A command, or what of it concerns one shard.
#[derive(Debug, Clone)]
pub(crate) struct Piece<'r> {
    /// The place of its request.
    pub(crate) at: usize,
    pub(crate) spec: &'static CommandSpec,
    pub(crate) words: SmallVec<[&'r [u8]; 4]>,
    /// Which of the request's keys it has; of all of them where it is the whole request, and then this is empty.
    keys: SmallVec<[usize; 4]>,
}

impl Piece<'_> {
    pub(crate) fn args(&self) -> Args<'_> {
        Args::new(&self.words)
    }
}

/// What one shard has to do, in the order of the buffer.
#[derive(Debug)]
pub(crate) struct Part<'r> {
    pub(crate) shard: ShardId,
    pub(crate) pieces: Vec<Piece<'r>>,
}

/// A buffer's commands, cut.
#[derive(Debug)]
pub(crate) struct Parts<'r> {
    pub(crate) parts: Vec<Part<'r>>,
    pub(crate) merging: Merging,
}

/// The replies of a buffer as far as they are known.
#[derive(Debug)]
pub(crate) struct Merging(Vec<Slot>);

#[derive(Debug)]
enum Slot {
    /// A request that goes to one shard as it is, or was answered.
    Whole(Option<Reply>),
    /// A request that was cut; of so many pieces nothing is known yet.
    Cut { missing: usize, merged: Merged, failed: Option<Failure>, done: bool },
}

#[derive(Debug)]
enum Merged {
    Sum(i64),
    List(Vec<Reply>),
}

/// Why a request that was cut has no reply of its own.
#[derive(Debug)]
enum Failure {
    Error(ErrorReply),
    /// A piece was surely not executed.
    NotDone(ErrorReply),
    Unknown(ErrorReply),
}

/// How the replies of a cut command are put together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Never,
    Sum,
    List,
}

/// The table says it in the words that cluster clients go by. What is to be done as one is not cut.
fn cut_of(spec: &CommandSpec) -> Cut {
    let says = |tip: &str| spec.tips.contains(&tip);
    match (says("request_policy:multi_shard"), says("response_policy:agg_sum")) {
        (true, true) => Cut::Sum,
        (true, false) if !spec.is_write() => Cut::List,
        _ => Cut::Never,
    }
}

impl<'r> Parts<'r> {
    /// Cuts the requests: those with keys, and those whose reply follows from their words.
    pub(crate) fn of(requests: &[Request<'r>]) -> Parts<'r> {
        let mut parts = Parts { parts: Vec::new(), merging: Merging(Vec::with_capacity(requests.len())) };
        for (at, request) in requests.iter().enumerate() {
            let slot = parts.add(at, request);
            parts.merging.0.push(slot);
        }
        parts
    }

    fn add(&mut self, at: usize, request: &Request<'r>) -> Slot {
        if let Run::Answer(answer) = request.spec.run {
            return Slot::Whole(Some(answer(request.args).unwrap_or_else(Reply::Error)));
        }
        let mut shards: SmallVec<[ShardId; 4]> = SmallVec::new();
        for key in request.spec.keys_of(request.args) {
            shards.push(shard_of(request.namespace, key));
        }
        let Some(first) = shards.first().copied() else {
            let text = format!("ERR {} names no key, so no shard can execute it", request.spec.name);
            return Slot::Whole(Some(Reply::Error(ErrorReply::new(text))));
        };
        if shards.iter().all(|shard| *shard == first) {
            let words = SmallVec::from_slice(request.args.words());
            self.push(first, Piece { at, spec: request.spec, words, keys: SmallVec::new() });
            return Slot::Whole(None);
        }
        let merged = match cut_of(request.spec) {
            Cut::Never => return Slot::Whole(Some(Reply::Error(cross_shard()))),
            Cut::Sum => Merged::Sum(0),
            Cut::List => Merged::List(vec![Reply::Nil; shards.len()]),
        };
        let mut missing = 0;
        for (number, key) in request.spec.keys_of(request.args).enumerate() {
            let Some(shard) = shards.get(number).copied() else { break };
            missing += usize::from(self.add_key(at, request, shard, number, key));
        }
        Slot::Cut { missing, merged, failed: None, done: false }
    }

    /// Adds a key to the request's piece for its shard; answers whether that is a new one.
    fn add_key(
        &mut self,
        at: usize,
        request: &Request<'r>,
        shard: ShardId,
        number: usize,
        key: &'r [u8],
    ) -> bool {
        let part = self.parts.iter_mut().find(|part| part.shard == shard);
        if let Some(piece) = part.and_then(|part| part.pieces.last_mut()).filter(|piece| piece.at == at) {
            piece.words.push(key);
            piece.keys.push(number);
            return false;
        }
        let words = SmallVec::from_slice(&[request.args.name(), key]);
        self.push(shard, Piece { at, spec: request.spec, words, keys: SmallVec::from_slice(&[number]) });
        true
    }

    fn push(&mut self, shard: ShardId, piece: Piece<'r>) {
        match self.parts.iter_mut().find(|part| part.shard == shard) {
            Some(part) => part.pieces.push(piece),
            None => self.parts.push(Part { shard, pieces: vec![piece] }),
        }
    }
}

impl Merging {
    /// Takes what came of a piece. `Again` has come to its end here: `refusal` says that the piece was surely not executed.
    pub(crate) fn add(&mut self, piece: &Piece<'_>, said: Said, refusal: &ErrorReply) {
        let unknown = || unknown(piece.spec);
        let Some(slot) = self.0.get_mut(piece.at) else { return };
        let (missing, merged, failed, done) = match slot {
            Slot::Whole(reply) => {
                *reply = Some(match said {
                    Said::Reply(said) => said,
                    Said::Again => Reply::Error(refusal.clone()),
                    Said::Unknown => Reply::Error(unknown()),
                });
                return;
            }
            Slot::Cut { missing, merged, failed, done } => (missing, merged, failed, done),
        };
        *missing = missing.saturating_sub(1);
        let failure = match (said, merged) {
            (Said::Reply(Reply::Integer(number)), Merged::Sum(sum)) => {
                *sum += number;
                *done = true;
                return;
            }
            (Said::Reply(Reply::Array(replies)), Merged::List(list)) if replies.len() == piece.keys.len() => {
                for (number, reply) in piece.keys.iter().zip(replies) {
                    if let Some(place) = list.get_mut(*number) {
                        *place = reply;
                    }
                }
                return;
            }
            (Said::Reply(Reply::Error(error)), _) => Failure::Error(error),
            (Said::Reply(_), _) => Failure::Error(ErrorReply::new(format!(
                "ERR the nodes of this cluster do not agree on what {} answers",
                piece.spec.name
            ))),
            (Said::Again, _) => Failure::NotDone(refusal.clone()),
            (Said::Unknown, _) => Failure::Unknown(unknown()),
        };
        let gravity = |failure: &Failure| match failure {
            Failure::NotDone(_) => 1,
            Failure::Error(_) => 2,
            Failure::Unknown(_) => 3,
        };
        let graver = failed.as_ref().map_or(0, gravity) < gravity(&failure);
        if graver {
            *failed = Some(failure);
        }
    }

    /// The replies, in the order of the requests.
    pub(crate) fn into_replies(self) -> Vec<Reply> {
        self.0.into_iter().map(Slot::into_reply).collect()
    }
}

impl Slot {
    fn into_reply(self) -> Reply {
        let nobody = || Reply::Error(ErrorReply::new("UNKNOWN nothing came back for this command"));
        match self {
            Slot::Whole(reply) => reply.unwrap_or_else(nobody),
            Slot::Cut { missing: 1.., failed: None, .. } => nobody(),
            Slot::Cut { failed: Some(Failure::Unknown(error) | Failure::Error(error)), .. } => {
                Reply::Error(error)
            }
            // A write that was executed in part must not be taken for one that was not executed.
            Slot::Cut {
                failed: Some(Failure::NotDone(error)), done: true, merged: Merged::Sum(_), ..
            } => {
                let text = format!("UNKNOWN executed for a part of the keys; of others: {error}");
                Reply::Error(ErrorReply::new(text))
            }
            Slot::Cut { failed: Some(Failure::NotDone(error)), .. } => Reply::Error(error),
            Slot::Cut { merged: Merged::Sum(sum), .. } => Reply::Integer(sum),
            Slot::Cut { merged: Merged::List(list), .. } => Reply::Array(list),
        }
    }
}

/// The error for what would have to be done as one over several shards.
pub(crate) fn cross_shard() -> ErrorReply {
    ErrorReply::new("CROSSSLOT Keys in request don't hash to the same shard, and this is to be done as one")
}

/// The error of a command whose outcome nobody knows.
pub(crate) fn unknown(spec: &CommandSpec) -> ErrorReply {
    ErrorReply::new(format!(
        "UNKNOWN the outcome of {} is not known: it may have been executed, or may yet be",
        spec.name
    ))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
