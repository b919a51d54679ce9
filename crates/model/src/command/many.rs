//! Strings: several keys at once.

use super::access::{OW_INSERT, OW_UPDATE, RO_ACCESS};
use crate::args::Args;
use crate::context::Context;
use crate::error::{ErrorReply, Stop};
use crate::reply::Reply;
use crate::spec::argument::{Argument, KEY, KEYS, VALUE};
use crate::spec::flags::{Categories, Flags, Group};
use crate::spec::{Available, CommandSpec, DataFn, Run};
use crate::view::TAG_STRING;

const PAIRS: &[Argument] = &[Argument::block("data", &[KEY, VALUE]).multiple()];

const fn spec(name: &'static str, arity: i32, run: DataFn) -> CommandSpec {
    CommandSpec::new(name, arity, Group::String, Run::Data(run)).category(Categories::STRING)
}

pub(crate) const SPECS: &[CommandSpec] = &[
    spec("mget", -2, mget)
        .keys(-1, 1, RO_ACCESS)
        .flags(Flags::READONLY.with(Flags::FAST))
        .arguments(&[KEYS])
        .tips(&["request_policy:multi_shard"])
        .costs("O(N) where N is the number of keys.")
        .docs("1.0.0", "Returns the values of several keys, nil for those that hold no string."),
    spec("mset", -3, mset)
        .keys(-1, 2, OW_UPDATE)
        .flags(Flags::WRITE.with(Flags::DENYOOM))
        .arguments(PAIRS)
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        // It promises all or nothing, which needs a log.
        .available(Available::No)
        .costs("O(N) where N is the number of keys.")
        .docs("1.0.1", "Gives several keys their values, all at once."),
    spec("msetnx", -3, msetnx)
        .keys(-1, 2, OW_INSERT)
        .flags(Flags::WRITE.with(Flags::DENYOOM))
        .arguments(PAIRS)
        .available(Available::No)
        .costs("O(N) where N is the number of keys.")
        .docs("1.0.1", "Gives several keys their values, only if none of them exists."),
];

fn mget<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let mut values = Vec::with_capacity(args.len().saturating_sub(1));
    for key in args.from(1) {
        let found = context.record(key)?.filter(|record| record.tag == TAG_STRING);
        values.push(found.map_or(Reply::Nil, |record| Reply::Bulk(record.value)));
    }
    Ok(Reply::Array(values))
}

/// Keys with their values; an error if one is left over.
fn pairs<'r>(args: Args<'r>, name: &str) -> Result<impl Iterator<Item = (&'r [u8], &'r [u8])>, ErrorReply> {
    if args.len().is_multiple_of(2) {
        return Err(ErrorReply::wrong_arity(name));
    }
    Ok(args.from(1).chunks_exact(2).filter_map(|pair| match pair {
        [key, value] => Some((*key, *value)),
        _ => None,
    }))
}

fn mset<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    for (key, value) in pairs(args, "mset")? {
        context.put(key, value, None);
    }
    Ok(Reply::Ok)
}

fn msetnx<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    for (key, _) in pairs(args, "msetnx")? {
        if context.meta(key)?.is_some() {
            return Ok(Reply::Integer(0));
        }
    }
    for (key, value) in pairs(args, "msetnx")? {
        context.put(key, value, None);
    }
    Ok(Reply::Integer(1))
}
