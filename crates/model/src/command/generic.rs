//! Commands for keys of any type.

use super::access::{RM_DELETE, RO};
use crate::args::Args;
use crate::context::Context;
use crate::error::{ErrorReply, Stop};
use crate::number;
use crate::reply::Reply;
use crate::spec::argument::{Argument, KEY, KEYS};
use crate::spec::flags::{Categories, Flags, Group};
use crate::spec::{CommandSpec, DataFn, Run, SessionCommand};
use crate::view::type_name;

const SUM_OF_SHARDS: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];
const READ: Flags = Flags::READONLY.with(Flags::FAST);

const fn spec(name: &'static str, arity: i32, run: DataFn) -> CommandSpec {
    CommandSpec::new(name, arity, Group::Generic, Run::Data(run)).category(Categories::KEYSPACE)
}

const fn of_keys(name: &'static str, run: DataFn, access: &'static [&'static str]) -> CommandSpec {
    spec(name, -2, run)
        .keys(-1, 1, access)
        .arguments(&[KEYS])
        .tips(SUM_OF_SHARDS)
        .costs("O(N) where N is the number of keys.")
}

const fn waiting(name: &'static str, arity: i32, run: SessionCommand) -> CommandSpec {
    CommandSpec::new(name, arity, Group::Generic, Run::Session(run))
        .flags(Flags::NOSCRIPT)
        .category(Categories::CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
}

pub(crate) const SPECS: &[CommandSpec] = &[
    of_keys("del", del, RM_DELETE).flags(Flags::WRITE).docs("1.0.0", "Deletes one or more keys."),
    of_keys("unlink", del, RM_DELETE).flags(Flags::WRITE.with(Flags::FAST)).docs(
        "4.0.0",
        "Deletes one or more keys; the same as DEL, which never waits for freed space either.",
    ),
    of_keys("exists", exists, RO)
        .flags(READ)
        .docs("1.0.0", "Counts how many of the keys exist; a key given twice counts twice."),
    of_keys("touch", exists, RO)
        .flags(READ)
        .differs("Keeps no access times: it counts the keys that exist and changes nothing.")
        .docs("3.2.1", "Counts how many of the keys exist."),
    spec("type", 2, type_of)
        .key(RO)
        .flags(READ)
        .arguments(&[KEY])
        .docs("1.0.0", "Returns the data type of a key's value."),
    waiting("wait", 3, SessionCommand::Wait)
        .arguments(&[Argument::integer("numreplicas"), Argument::integer("timeout")])
        .differs("Counts the other members of a shard that have what the connection wrote on their devices (over several shards: the fewest). A \
                  node alone answers 0 at once.")
        .docs("3.0.0", "Waits until so many replicas have what the connection wrote."),
    waiting("waitaof", 4, SessionCommand::WaitAof)
        .arguments(&[
            Argument::integer("numlocal"),
            Argument::integer("numreplicas"),
            Argument::integer("timeout"),
        ])
        .differs("Local is the shard's leader, or the node alone.")
        .docs("7.2.0", "Waits until what the connection wrote survives a power loss here, and on so many replicas."),
    spec("delex", 4, delex)
        .key(RM_DELETE)
        .flags(Flags::WRITE.with(Flags::FAST))
        .arguments(&[KEY, Argument::integer("version").token("IFVERSION")])
        .docs(
            super::OWN,
            "Deletes a key only if it has this version; else the error CONFLICT with the current one.",
        ),
];

fn del<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let mut deleted = 0;
    for key in args.from(1) {
        if !context.has_changed(key) && context.meta(key)?.is_some() {
            context.delete(key);
            deleted += 1;
        }
    }
    Ok(Reply::Integer(deleted))
}

fn exists<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let mut found = 0;
    for key in args.from(1) {
        found += i64::from(context.meta(key)?.is_some());
    }
    Ok(Reply::Integer(found))
}

fn type_of<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let name = context.meta(args.at(1))?.map_or("none", |meta| type_name(meta.tag));
    Ok(Reply::Simple(name.into()))
}

fn delex<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    if !args.at(2).eq_ignore_ascii_case(b"IFVERSION") {
        return Err(ErrorReply::syntax().into());
    }
    let wanted = number::parse_u64(args.at(3)).ok_or_else(ErrorReply::not_an_integer)?;
    let current = context.meta(args.at(1))?.map_or(0, |meta| meta.version);
    if current != wanted {
        return Err(ErrorReply::conflict(current).into());
    }
    if current == 0 {
        return Ok(Reply::Integer(0));
    }
    context.delete(args.at(1));
    Ok(Reply::Integer(1))
}
