//! When keys cease to exist: the commands, and the options of others.

use super::access::{RO_ACCESS, RW_UPDATE};
use crate::args::Args;
use crate::context::Context;
use crate::error::{ErrorReply, Stop};
use crate::number;
use crate::reply::Reply;
use crate::spec::argument::{Argument, KEY};
use crate::spec::flags::{Categories, Flags, Group};
use crate::spec::{Available, CommandSpec, DataFn, Run};

const MS_PER_SECOND: i64 = 1_000;

const SECONDS: Argument = Argument::integer("seconds");
const MILLISECONDS: Argument = Argument::integer("milliseconds");
const UNIX_SECONDS: Argument = Argument::unix_time("unix-time-seconds");
const UNIX_MILLISECONDS: Argument = Argument::unix_time("unix-time-milliseconds");

pub(super) const EXPIRATION_OF_SET: Argument = Argument::one_of(
    "expiration",
    &[
        SECONDS.token("EX").since("2.6.12"),
        MILLISECONDS.token("PX").since("2.6.12"),
        UNIX_SECONDS.token("EXAT").since("6.2.0"),
        UNIX_MILLISECONDS.token("PXAT").since("6.2.0"),
        Argument::word("keepttl", "KEEPTTL").since("6.0.0"),
    ],
)
.optional();

pub(super) const EXPIRATION_OF_GETEX: Argument = Argument::one_of(
    "expiration",
    &[
        SECONDS.token("EX"),
        MILLISECONDS.token("PX"),
        UNIX_SECONDS.token("EXAT"),
        UNIX_MILLISECONDS.token("PXAT"),
        Argument::word("persist", "PERSIST"),
    ],
)
.optional();

const CONDITION: Argument = Argument::one_of(
    "condition",
    &[
        Argument::word("nx", "NX"),
        Argument::word("xx", "XX"),
        Argument::word("gt", "GT"),
        Argument::word("lt", "LT"),
    ],
)
.since("7.0.0")
.optional();

const WRITE: Flags = Flags::WRITE.with(Flags::FAST);
const READ: Flags = Flags::READONLY.with(Flags::FAST);

const fn write(name: &'static str, arity: i32, run: DataFn) -> CommandSpec {
    CommandSpec::new(name, arity, Group::Generic, Run::Data(run))
        .key(RW_UPDATE)
        .flags(WRITE)
        .category(Categories::KEYSPACE)
        .available(Available::No)
}

const fn read(name: &'static str, run: DataFn) -> CommandSpec {
    CommandSpec::new(name, 2, Group::Generic, Run::Data(run))
        .key(RO_ACCESS)
        .flags(READ)
        .category(Categories::KEYSPACE)
        .arguments(&[KEY])
}

pub(crate) const SPECS: &[CommandSpec] = &[
    write("expire", -3, expire)
        .arguments(&[KEY, SECONDS, CONDITION])
        .docs("1.0.0", "Sets the time to live of a key in seconds."),
    write("pexpire", -3, pexpire)
        .arguments(&[KEY, MILLISECONDS, CONDITION])
        .docs("2.6.0", "Sets the time to live of a key in milliseconds."),
    write("expireat", -3, expireat)
        .arguments(&[KEY, UNIX_SECONDS, CONDITION])
        .docs("1.2.0", "Sets the Unix time, in seconds, at which a key ceases to exist."),
    write("pexpireat", -3, pexpireat)
        .arguments(&[KEY, UNIX_MILLISECONDS, CONDITION])
        .docs("2.6.0", "Sets the Unix time, in milliseconds, at which a key ceases to exist."),
    write("persist", 2, persist).arguments(&[KEY]).docs("2.2.0", "Takes the time to live off a key."),
    read("ttl", ttl)
        .tips(&["nondeterministic_output"])
        .docs("1.0.0", "Returns how many seconds a key has to live."),
    read("pttl", pttl)
        .tips(&["nondeterministic_output"])
        .docs("2.6.0", "Returns how many milliseconds a key has to live."),
    read("expiretime", expiretime)
        .docs("7.0.0", "Returns the Unix time, in seconds, at which a key ceases to exist."),
    read("pexpiretime", pexpiretime)
        .docs("7.0.0", "Returns the Unix time, in milliseconds, at which a key ceases to exist."),
];

/// In what a time is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

/// What a command with an expiry option asks for; the times as they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiration<'r> {
    /// No option: `SET` clears the time to live, `GETEX` leaves it.
    Unchanged,
    /// `KEEPTTL`.
    Keep,
    /// `PERSIST`.
    Never,
    /// `EX`, `PX`.
    In(Unit, &'r [u8]),
    /// `EXAT`, `PXAT`.
    At(Unit, &'r [u8]),
}

impl<'r> Expiration<'r> {
    /// `EX`, `PX`, `EXAT` or `PXAT` in `word`, the time in the next of `words`.
    pub(super) fn from_words(
        word: &[u8],
        words: &mut dyn Iterator<Item = &'r [u8]>,
    ) -> Result<Expiration<'r>, ErrorReply> {
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        let make = match () {
            () if is(b"EX") => |time| Expiration::In(Unit::Seconds, time),
            () if is(b"PX") => |time| Expiration::In(Unit::Milliseconds, time),
            () if is(b"EXAT") => |time| Expiration::At(Unit::Seconds, time),
            () if is(b"PXAT") => |time| Expiration::At(Unit::Milliseconds, time),
            () => return Err(ErrorReply::syntax()),
        };
        words.next().map(make).ok_or_else(ErrorReply::syntax)
    }

    /// A further option after `self`: only the same one may be repeated, the last counts.
    pub(super) fn then(self, next: Expiration<'r>) -> Result<Expiration<'r>, ErrorReply> {
        let same = match (self, next) {
            (Expiration::Unchanged, _) => true,
            (Expiration::In(before, _), Expiration::In(after, _))
            | (Expiration::At(before, _), Expiration::At(after, _)) => before == after,
            (before, after) => before == after,
        };
        if same { Ok(next) } else { Err(ErrorReply::syntax()) }
    }

    /// The options of `GETEX`.
    pub(super) fn parse_for_getex(args: Args<'r>) -> Result<Expiration<'r>, ErrorReply> {
        let mut expiration = Expiration::Unchanged;
        let mut words = args.from(2).iter().copied();
        while let Some(word) = words.next() {
            let next = if word.eq_ignore_ascii_case(b"PERSIST") {
                Expiration::Never
            } else {
                Expiration::from_words(word, &mut words)?
            };
            expiration = expiration.then(next)?;
        }
        Ok(expiration)
    }

    /// The absolute Unix milliseconds of `In` and `At`. `name`: what the error calls the command.
    pub(super) fn resolve(self, now_ms: u64, name: &str) -> Result<u64, ErrorReply> {
        match self {
            Expiration::In(unit, time) => positive(time, unit, Some(now_ms), name),
            Expiration::At(unit, time) => positive(time, unit, None, name),
            Expiration::Unchanged | Expiration::Keep | Expiration::Never => Err(ErrorReply::syntax()),
        }
    }
}

fn invalid(name: &str) -> ErrorReply {
    ErrorReply::new(format!("ERR invalid expire time in '{name}' command"))
}

/// A time that must be positive, in `unit`, counted from `since_ms` (or absolute): as absolute Unix milliseconds.
pub(super) fn positive(
    time: &[u8],
    unit: Unit,
    since_ms: Option<u64>,
    name: &str,
) -> Result<u64, ErrorReply> {
    let time = number::integer(time)?;
    if time <= 0 {
        return Err(invalid(name));
    }
    let at = absolute(time, unit, since_ms).ok_or_else(|| invalid(name))?;
    u64::try_from(at).map_err(|_| invalid(name))
}

fn absolute(time: i64, unit: Unit, since_ms: Option<u64>) -> Option<i64> {
    let time = match unit {
        Unit::Seconds => time.checked_mul(MS_PER_SECOND)?,
        Unit::Milliseconds => time,
    };
    time.checked_add(i64::try_from(since_ms.unwrap_or(0)).ok()?)
}

/// `NX`, `XX`, `GT`, `LT` behind an `EXPIRE`.
#[derive(Debug, Clone, Copy, Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(words: &[&[u8]]) -> Result<Conditions, ErrorReply> {
        let mut all = Conditions::default();
        for word in words {
            let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
            match () {
                () if is(b"NX") => all.nx = true,
                () if is(b"XX") => all.xx = true,
                () if is(b"GT") => all.gt = true,
                () if is(b"LT") => all.lt = true,
                () => {
                    let word = String::from_utf8_lossy(word);
                    return Err(ErrorReply::new(format!("ERR Unsupported option {word}")));
                }
            }
        }
        if all.nx && (all.xx || all.gt || all.lt) {
            return Err(ErrorReply::new(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if all.gt && all.lt {
            return Err(ErrorReply::new("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(all)
    }

    /// Whether they let a key that expires at `current` (`None`: never) expire at `wanted`.
    fn allow(self, current: Option<u64>, wanted: i64) -> bool {
        let current = current.map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        match current {
            None => !self.xx && !self.gt,
            Some(current) => {
                let refused = self.nx || (self.gt && wanted <= current) || (self.lt && wanted >= current);
                !refused
            }
        }
    }
}

fn expire_at<'r>(
    context: &mut Context<'_, 'r>,
    args: Args<'r>,
    unit: Unit,
    since_ms: Option<u64>,
    name: &str,
) -> Result<Reply, Stop> {
    let conditions = Conditions::parse(args.from(3))?;
    let time = number::integer(args.at(2))?;
    let wanted = absolute(time, unit, since_ms).ok_or_else(|| invalid(name))?;
    let key = args.at(1);
    let Some(meta) = context.meta(key)? else { return Ok(Reply::Integer(0)) };
    if !conditions.allow(meta.expires_at, wanted) {
        return Ok(Reply::Integer(0));
    }
    let expires_at = u64::try_from(wanted).unwrap_or(0);
    if context.is_past(Some(expires_at)) {
        context.delete(key);
    } else {
        context.keep_value(key, Some(expires_at))?;
    }
    Ok(Reply::Integer(1))
}

fn expire<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let now_ms = context.now_ms();
    expire_at(context, args, Unit::Seconds, Some(now_ms), "expire")
}

fn pexpire<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let now_ms = context.now_ms();
    expire_at(context, args, Unit::Milliseconds, Some(now_ms), "pexpire")
}

fn expireat<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    expire_at(context, args, Unit::Seconds, None, "expireat")
}

fn pexpireat<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    expire_at(context, args, Unit::Milliseconds, None, "pexpireat")
}

fn persist<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let expires = context.meta(args.at(1))?.is_some_and(|meta| meta.expires_at.is_some());
    if expires {
        context.keep_value(args.at(1), None)?;
    }
    Ok(Reply::Integer(i64::from(expires)))
}

/// −2 for an absent key, −1 for one that lives for ever, else what `told` makes of (expires at, now).
fn lifetime(context: &Context<'_, '_>, key: &[u8], told: fn(u64, u64) -> u64) -> Result<Reply, Stop> {
    let expiry = context.meta(key)?.map(|meta| meta.expires_at);
    Ok(Reply::Integer(match expiry {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => i64::try_from(told(at, context.now_ms())).unwrap_or(i64::MAX),
    }))
}

/// Milliseconds as seconds, rounded.
fn seconds(milliseconds: u64) -> u64 {
    milliseconds.saturating_add(500) / 1_000
}

fn ttl<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    lifetime(context, args.at(1), |at, now| seconds(at.saturating_sub(now)))
}

fn pttl<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    lifetime(context, args.at(1), u64::saturating_sub)
}

fn expiretime<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    lifetime(context, args.at(1), |at, _| seconds(at))
}

fn pexpiretime<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    lifetime(context, args.at(1), |at, _| at)
}
