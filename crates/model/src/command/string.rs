//! Strings: reading and writing whole values.

use super::access::{OW_INSERT, OW_UPDATE, RO_ACCESS, RW_ACCESS_DELETE, RW_ACCESS_UPDATE};
use super::expiry::{self, EXPIRATION_OF_GETEX, EXPIRATION_OF_SET, Expiration, Unit};
use super::set_options::SetOptions;
use crate::args::Args;
use crate::context::Context;
use crate::error::{ErrorReply, Stop};
use crate::reply::Reply;
use crate::spec::argument::{Argument, KEY, VALUE};
use crate::spec::flags::{Categories, Flags, Group};
use crate::spec::{Available, CommandSpec, DataFn, Run};
use crate::view::Record;

const READ: Flags = Flags::READONLY.with(Flags::FAST);
const WRITE: Flags = Flags::WRITE.with(Flags::DENYOOM);
const QUICK_WRITE: Flags = WRITE.with(Flags::FAST);

const CONDITION: Argument =
    Argument::one_of("condition", &[Argument::word("nx", "NX"), Argument::word("xx", "XX")])
        .since("2.6.12")
        .optional();
const IF_VERSION: Argument = Argument::integer("version").token("IFVERSION").optional();
const SET_ARGUMENTS: &[Argument] = &[
    KEY,
    VALUE,
    CONDITION,
    Argument::word("get", "GET").since("6.2.0").optional(),
    EXPIRATION_OF_SET,
    IF_VERSION,
];

const fn spec(name: &'static str, arity: i32, run: DataFn) -> CommandSpec {
    CommandSpec::new(name, arity, Group::String, Run::Data(run)).category(Categories::STRING)
}

pub(crate) const SPECS: &[CommandSpec] = &[
    spec("get", 2, get)
        .key(RO_ACCESS)
        .flags(READ)
        .arguments(&[KEY])
        .docs("1.0.0", "Returns the value of a key."),
    spec("getv", 2, getv)
        .key(RO_ACCESS)
        .flags(READ)
        .arguments(&[KEY])
        .docs(super::OWN, "Returns the value, the version and the label of a key: `stable`, or, while a write is in flight, `old` or `new`; of a stale read `stale:` and its age in milliseconds."),
    spec("conflicts", 2, conflicts)
        .key(RO_ACCESS)
        .flags(READ)
        .arguments(&[KEY])
        .docs(super::OWN, "Returns what was written at the same time as a key's value and lost, each with its version, newest first; of an available namespace that keeps conflicts."),
    spec("set", -3, set)
        .key(&["RW", "access", "update", "variable_flags"])
        .flags(WRITE)
        .arguments(SET_ARGUMENTS)
        .available(Available::If(is_blind_set))
        .differs("`IFVERSION version` in addition: only if the key has this version (0: is absent); else `CONFLICT <current version>`. Not with `NX` or `XX`.")
        .docs("1.0.0", "Gives a key a value, whatever it held before."),
    spec("setv", -3, setv)
        .key(&["RW", "access", "update", "variable_flags"])
        .flags(WRITE)
        .arguments(SET_ARGUMENTS)
        .available(Available::If(is_blind_set))
        .docs(super::OWN, "As SET, and answers with the new version; with GET, with the former value and the new version."),
    spec("setnx", 3, setnx)
        .key(OW_INSERT)
        .flags(QUICK_WRITE)
        .arguments(&[KEY, VALUE])
        .available(Available::No)
        .docs("1.0.0", "Gives a key a value only if it does not exist."),
    spec("setex", 4, setex)
        .key(OW_UPDATE)
        .flags(WRITE)
        .arguments(&[KEY, Argument::integer("seconds"), VALUE])
        .docs("2.0.0", "Gives a key a value and a time to live in seconds."),
    spec("psetex", 4, psetex)
        .key(OW_UPDATE)
        .flags(WRITE)
        .arguments(&[KEY, Argument::integer("milliseconds"), VALUE])
        .docs("2.6.0", "Gives a key a value and a time to live in milliseconds."),
    spec("getset", 3, getset)
        .key(RW_ACCESS_UPDATE)
        .flags(QUICK_WRITE)
        .arguments(&[KEY, VALUE])
        .available(Available::No)
        .deprecated("6.2.0", "`SET` with the `GET` option")
        .docs("1.0.0", "Gives a key a value and returns the former one."),
    spec("getdel", 2, getdel)
        .key(RW_ACCESS_DELETE)
        .flags(Flags::WRITE.with(Flags::FAST))
        .arguments(&[KEY])
        .available(Available::No)
        .docs("6.2.0", "Returns the value of a key and deletes it."),
    spec("getex", -2, getex)
        .key(RW_ACCESS_UPDATE)
        .flags(Flags::WRITE.with(Flags::FAST))
        .arguments(&[KEY, EXPIRATION_OF_GETEX])
        .available(Available::No)
        .docs("6.2.0", "Returns the value of a key and changes its time to live."),
];

/// Whether a `SET` neither needs the key's state before it writes nor carries it on: what an available namespace can take. A version to
/// compare with is fine: stale versions are detected there too.
fn is_blind_set(args: Args<'_>) -> bool {
    // Malformed options pass: the command itself answers with the error.
    SetOptions::parse(args).map_or(true, |options| options.is_blind())
}

fn value_or_nil(found: Option<Record>) -> Reply {
    found.map_or(Reply::Nil, |record| Reply::Bulk(record.value))
}

fn get<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    Ok(value_or_nil(context.string(args.at(1))?))
}

fn getv<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let key = args.at(1);
    let found = context.string(key)?;
    let version = found.as_ref().map_or(0, |record| record.version);
    let label = Reply::bulk(context.label(key).word().into_owned());
    Ok(Reply::Array(vec![value_or_nil(found), Reply::version(version), label]))
}

/// What a node by itself has of it: one node orders all writes of a key, so none are lost to others.
fn conflicts<'r>(_: &mut Context<'_, 'r>, _: Args<'r>) -> Result<Reply, Stop> {
    Ok(Reply::Array(Vec::new()))
}

fn set<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let options = SetOptions::parse(args)?;
    let done = options.run(context, args, "set")?;
    Ok(match (options.get, done.written) {
        (true, _) => value_or_nil(done.former),
        (false, true) => Reply::Ok,
        (false, false) => Reply::Nil,
    })
}

fn setv<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let options = SetOptions::parse(args)?;
    let done = options.run(context, args, "setv")?;
    let version = if done.written { Reply::version(context.next_version(args.at(1))) } else { Reply::Nil };
    Ok(if options.get { Reply::Array(vec![value_or_nil(done.former), version]) } else { version })
}

fn setnx<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let absent = context.meta(args.at(1))?.is_none();
    if absent {
        context.put(args.at(1), args.at(2), None);
    }
    Ok(Reply::Integer(i64::from(absent)))
}

fn set_for<'r>(context: &mut Context<'_, 'r>, args: Args<'r>, unit: Unit, name: &str) -> Result<Reply, Stop> {
    let expires_at = expiry::positive(args.at(2), unit, Some(context.now_ms()), name)?;
    context.put(args.at(1), args.at(3), Some(expires_at));
    Ok(Reply::Ok)
}

fn setex<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    set_for(context, args, Unit::Seconds, "setex")
}

fn psetex<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    set_for(context, args, Unit::Milliseconds, "psetex")
}

fn getset<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let former = context.string(args.at(1))?;
    context.put(args.at(1), args.at(2), None);
    Ok(value_or_nil(former))
}

fn getdel<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let former = context.string(args.at(1))?;
    if former.is_some() {
        context.delete(args.at(1));
    }
    Ok(value_or_nil(former))
}

fn getex<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let expiration = Expiration::parse_for_getex(args)?;
    let Some(record) = context.string(args.at(1))? else { return Ok(Reply::Nil) };
    let wanted = match expiration {
        Expiration::Unchanged => record.expires_at,
        Expiration::Never => None,
        Expiration::In(..) | Expiration::At(..) => Some(expiration.resolve(context.now_ms(), "getex")?),
        Expiration::Keep => return Err(ErrorReply::syntax().into()),
    };
    let again = matches!(expiration, Expiration::In(..) | Expiration::At(..));
    if again || wanted != record.expires_at {
        context.put_owned(args.at(1), record.value.clone(), wanted);
    }
    Ok(Reply::Bulk(record.value))
}
