//! Strings as counters.

use super::access::RW_ACCESS_UPDATE;
use crate::args::Args;
use crate::context::Context;
use crate::error::{ErrorReply, Stop};
use crate::number;
use crate::reply::Reply;
use crate::spec::argument::{Argument, KEY};
use crate::spec::flags::{Categories, Flags, Group};
use crate::spec::{Available, CommandSpec, DataFn, Run};
use bytes::Bytes;

const fn spec(name: &'static str, arity: i32, run: DataFn) -> CommandSpec {
    CommandSpec::new(name, arity, Group::String, Run::Data(run))
        .key(RW_ACCESS_UPDATE)
        .flags(Flags::WRITE.with(Flags::DENYOOM).with(Flags::FAST))
        .category(Categories::STRING)
        .available(Available::No)
}

pub(crate) const SPECS: &[CommandSpec] = &[
    spec("incr", 2, incr)
        .arguments(&[KEY])
        .docs("1.0.0", "Adds one to an integer; an absent key counts as 0."),
    spec("decr", 2, decr)
        .arguments(&[KEY])
        .docs("1.0.0", "Takes one from an integer; an absent key counts as 0."),
    spec("incrby", 3, incrby)
        .arguments(&[KEY, Argument::integer("increment")])
        .docs("1.0.0", "Adds to an integer; an absent key counts as 0."),
    spec("decrby", 3, decrby)
        .arguments(&[KEY, Argument::integer("decrement")])
        .docs("1.0.0", "Subtracts from an integer; an absent key counts as 0."),
];

/// Adds to the integer at the key; the time to live stays.
fn add<'r>(context: &mut Context<'_, 'r>, key: &'r [u8], increment: i64) -> Result<Reply, Stop> {
    let found = context.string(key)?;
    let current = found.as_ref().map_or(Ok(0), |record| number::integer(&record.value))?;
    let sum = current
        .checked_add(increment)
        .ok_or_else(|| ErrorReply::new("ERR increment or decrement would overflow"))?;
    let expires_at = found.and_then(|record| record.expires_at);
    context.put_owned(key, Bytes::from(sum.to_string()), expires_at);
    Ok(Reply::Integer(sum))
}

fn incr<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    add(context, args.at(1), 1)
}

fn decr<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    add(context, args.at(1), -1)
}

fn incrby<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    add(context, args.at(1), number::integer(args.at(2))?)
}

fn decrby<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let increment = number::integer(args.at(2))?
        .checked_neg()
        .ok_or_else(|| ErrorReply::new("ERR decrement would overflow"))?;
    add(context, args.at(1), increment)
}
