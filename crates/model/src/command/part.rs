//! Strings: their length, and parts of them.

use super::access::{RO, RO_ACCESS, RW_INSERT, RW_UPDATE};
use crate::args::Args;
use crate::context::Context;
use crate::error::{ErrorReply, Stop};
use crate::number;
use crate::reply::Reply;
use crate::spec::argument::{Argument, KEY, VALUE};
use crate::spec::flags::{Categories, Flags, Group};
use crate::spec::{Available, CommandSpec, DataFn, Run};
use bytes::{Bytes, BytesMut};

/// Longest string that a command may make, in bytes: Redis' `proto-max-bulk-len`.
pub const STRING_BYTES_MAX: usize = 512 * 1024 * 1024;

const RANGE: &[Argument] = &[KEY, Argument::integer("start"), Argument::integer("end")];
const WRITE: Flags = Flags::WRITE.with(Flags::DENYOOM);

const fn spec(name: &'static str, arity: i32, run: DataFn) -> CommandSpec {
    CommandSpec::new(name, arity, Group::String, Run::Data(run)).category(Categories::STRING)
}

pub(crate) const SPECS: &[CommandSpec] = &[
    spec("append", 3, append)
        .key(RW_INSERT)
        .flags(WRITE.with(Flags::FAST))
        .arguments(&[KEY, VALUE])
        .available(Available::No)
        .costs("O(N) where N is the length of the new value.")
        .docs("2.0.0", "Adds bytes to the end of a value; an absent key counts as empty."),
    spec("strlen", 2, strlen)
        .key(RO)
        .flags(Flags::READONLY.with(Flags::FAST))
        .arguments(&[KEY])
        .docs("2.2.0", "Returns the length of a value in bytes."),
    spec("getrange", 4, getrange).key(RO_ACCESS).flags(Flags::READONLY).arguments(RANGE).docs(
        "2.4.0",
        "Returns a part of a value, by first and last byte; negative ones count from the end.",
    ),
    spec("substr", 4, getrange)
        .key(RO_ACCESS)
        .flags(Flags::READONLY)
        .arguments(RANGE)
        .deprecated("2.0.0", "`GETRANGE`")
        .docs("1.0.0", "The old name of GETRANGE."),
    spec("setrange", 4, setrange)
        .key(RW_UPDATE)
        .flags(WRITE)
        .arguments(&[KEY, Argument::integer("offset"), VALUE])
        .available(Available::No)
        .costs("O(N) where N is the length of the new value.")
        .docs("2.2.0", "Overwrites a part of a value; gaps are filled with zero bytes."),
];

fn check_length(bytes: usize) -> Result<(), ErrorReply> {
    if bytes > STRING_BYTES_MAX {
        return Err(ErrorReply::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)"));
    }
    Ok(())
}

fn append<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let (key, tail) = (args.at(1), args.at(2));
    let Some(record) = context.string(key)? else {
        context.put(key, tail, None);
        return Ok(Reply::count(tail.len()));
    };
    let length = record.value.len().saturating_add(tail.len());
    check_length(length)?;
    let mut whole = BytesMut::with_capacity(length);
    whole.extend_from_slice(&record.value);
    whole.extend_from_slice(tail);
    context.put_owned(key, whole.freeze(), record.expires_at);
    Ok(Reply::count(length))
}

fn strlen<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    Ok(Reply::count(context.string(args.at(1))?.map_or(0, |record| record.value.len())))
}

fn getrange<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let (start, end) = (number::integer(args.at(2))?, number::integer(args.at(3))?);
    let value = context.string(args.at(1))?.map(|record| record.value).unwrap_or_default();
    Ok(Reply::Bulk(part(&value, start, end)))
}

/// The bytes from `start` to `end`, both included; negative places count from the end.
fn part(value: &Bytes, start: i64, end: i64) -> Bytes {
    let length = i64::try_from(value.len()).unwrap_or(i64::MAX);
    if start < 0 && end < 0 && start > end {
        return Bytes::new();
    }
    let from_end = |place: i64| if place < 0 { place.saturating_add(length).max(0) } else { place };
    let (start, end) = (from_end(start), from_end(end).min(length - 1));
    if start > end || length == 0 {
        return Bytes::new();
    }
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) => value.slice(start..=end),
        _ => Bytes::new(),
    }
}

fn setrange<'r>(context: &mut Context<'_, 'r>, args: Args<'r>) -> Result<Reply, Stop> {
    let (key, patch) = (args.at(1), args.at(3));
    let offset = number::integer(args.at(2))?;
    let offset = usize::try_from(offset).map_err(|_| ErrorReply::new("ERR offset is out of range"))?;
    let found = context.string(key)?;
    let (value, expires_at) = found.map_or((Bytes::new(), None), |record| (record.value, record.expires_at));
    if patch.is_empty() {
        return Ok(Reply::count(value.len()));
    }
    let end = offset.saturating_add(patch.len());
    check_length(end)?;
    let mut whole = BytesMut::zeroed(value.len().max(end));
    if let Some(head) = whole.get_mut(..value.len()) {
        head.copy_from_slice(&value);
    }
    if let Some(place) = whole.get_mut(offset..end) {
        place.copy_from_slice(patch);
    }
    let length = whole.len();
    context.put_owned(key, whole.freeze(), expires_at);
    Ok(Reply::count(length))
}
