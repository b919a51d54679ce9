//! The options of `SET` and `SETV`.

use super::expiry::Expiration;
use crate::args::Args;
use crate::context::Context;
use crate::error::{ErrorReply, Stop};
use crate::number;
use crate::view::Record;

/// When to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    IfAbsent,
    IfPresent,
    IfVersion(u64),
}

/// What the words behind key and value ask for. Times are not checked yet: as in Redis that comes after the syntax of all options.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetOptions<'r> {
    condition: Condition,
    expiration: Expiration<'r>,
    pub(super) get: bool,
}

/// What a `SET` did.
pub(super) struct Done {
    /// The value before, where `GET` asked for it.
    pub(super) former: Option<Record>,
    /// Whether the condition held.
    pub(super) written: bool,
}

impl<'r> SetOptions<'r> {
    pub(super) fn parse(args: Args<'r>) -> Result<SetOptions<'r>, ErrorReply> {
        let mut options =
            SetOptions { condition: Condition::Always, expiration: Expiration::Unchanged, get: false };
        let mut words = args.from(3).iter().copied();
        while let Some(word) = words.next() {
            let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
            if is(b"NX") {
                options.require(Condition::IfAbsent)?;
            } else if is(b"XX") {
                options.require(Condition::IfPresent)?;
            } else if is(b"GET") {
                options.get = true;
            } else if is(b"IFVERSION") {
                let version = words.next().ok_or_else(ErrorReply::syntax)?;
                let version = number::parse_u64(version).ok_or_else(ErrorReply::not_an_integer)?;
                options.require(Condition::IfVersion(version))?;
            } else if is(b"KEEPTTL") {
                options.expiration = options.expiration.then(Expiration::Keep)?;
            } else {
                let next = Expiration::from_words(word, &mut words)?;
                options.expiration = options.expiration.then(next)?;
            }
        }
        Ok(options)
    }

    /// One condition only; `NX` or `XX` may stand twice.
    fn require(&mut self, condition: Condition) -> Result<(), ErrorReply> {
        if self.condition != Condition::Always && self.condition != condition {
            return Err(ErrorReply::syntax());
        }
        self.condition = condition;
        Ok(())
    }

    /// Whether it writes without reading the key's state, but for its version.
    pub(super) fn is_blind(&self) -> bool {
        let condition = matches!(self.condition, Condition::Always | Condition::IfVersion(_));
        condition && !self.get && !matches!(self.expiration, Expiration::Keep)
    }

    /// Writes word 2 to the key in word 1 if the condition holds. `name`: what an error about the time calls the command.
    pub(super) fn run(
        &self,
        context: &mut Context<'_, 'r>,
        args: Args<'r>,
        name: &str,
    ) -> Result<Done, Stop> {
        let key = args.at(1);
        let expires_at = match self.expiration {
            Expiration::In(..) | Expiration::At(..) => Some(self.expiration.resolve(context.now_ms(), name)?),
            Expiration::Unchanged | Expiration::Keep | Expiration::Never => None,
        };
        let former = if self.get { context.string(key)? } else { None };
        let keeps = matches!(self.expiration, Expiration::Keep);
        if self.condition == Condition::Always && !keeps {
            context.put(key, args.at(2), expires_at);
            return Ok(Done { former, written: true });
        }
        let present = context.meta(key)?;
        let holds = match self.condition {
            Condition::Always => true,
            Condition::IfAbsent => present.is_none(),
            Condition::IfPresent => present.is_some(),
            Condition::IfVersion(wanted) => {
                let current = present.map_or(0, |meta| meta.version);
                if current != wanted {
                    return Err(ErrorReply::conflict(current).into());
                }
                true
            }
        };
        if holds {
            let kept = present.filter(|_| keeps).and_then(|meta| meta.expires_at);
            context.put(key, args.at(2), expires_at.or(kept));
        }
        Ok(Done { former, written: holds })
    }
}
